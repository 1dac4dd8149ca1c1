"""Search good settings: the command `equipoise tune`.

The validation rows are divided. Trials are chosen, stopped and decided on the search rows. On the
held-out rows, which the search does not see, the best trial is compared with the config as it is.
Test rows are not used.

Workers need no scheduler. Each runs the same command (`accelerate launch`, a Slurm array, a second
terminal) and takes the next trial. The first one that finds all trials finished writes the result.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.comparison.statistics.comparison_result import LABEL_SET_METRICS, METRICS
from trainer.comparison.strategies import KINDS
from trainer.config.config import Config
from trainer.config.yaml_source import read_yaml
from trainer.data.reading.sources import check_source
from trainer.delivery import completion
from trainer.errors import ConfigError, listing
from trainer.extras import require
from trainer.files.locks import locked
from trainer.launch.distributed import leave_the_others, refuse_several_processes
from trainer.run_folder import config_differences, writer
from trainer.run_folder.workers_folder import WorkersFolder, alone, identity_of
from trainer.runs import startup, training_run
from trainer.tuning import space

if TYPE_CHECKING:
    from trainer.tuning.rows import SearchData

JSON_NAME, PAGE_NAME, BEST_NAME = "tuning.json", "tune.html", "best.yaml"
FILES = (
    JSON_NAME,
    PAGE_NAME,
    BEST_NAME,
    "config.yaml",
    "environment.json",
    "study.log",
    writer.STOPPED,
)
FOLDERS = ("trials", writer.LOGS)
BUDGET = ("tune.trials", "tune.minutes")
"""Keys that may change between two calls: a larger budget continues the search."""


def folder_of(config: Config) -> Path:
    """Return the folder of the search, beside the run folder."""
    return Path(config.run.output_dir).expanduser() / f"{config.run.name}-tune"


def workers_folder(path: Path) -> WorkersFolder:
    """Return the folder of a search, which its workers share."""
    again = "Raise tune.trials to continue it, or use --resume never to start again."
    ignored = (".", "study.log.")
    return WorkersFolder(path, "search", JSON_NAME, FILES, FOLDERS, again, ignored)


def check(config: Config) -> None:
    """Check the config, the data source and each value of the search space, without training.

    Raises:
        TrainerError: something is wrong.
    """
    _check_first_rows(config)
    training_run.check(config)


def _check_first_rows(config: Config) -> None:
    """Refuse a config that cannot be tuned, as the first rows say.

    Raises:
        TrainerError: as `refuse`, a package is missing, or the data cannot be read.
    """
    require("tune", "equipoise tune")
    refuse(config, multi_label=check_source(config.data, config.balance.by))


def refuse(config: Config, *, multi_label: bool) -> None:
    """Refuse a config that cannot be tuned.

    Args:
        multi_label: whether a row may have any number of labels.
    Raises:
        ConfigError: with all reasons.
    """
    metrics = LABEL_SET_METRICS if multi_label else METRICS
    faults = [*_faults(config), *space.faults(config, multi_label=multi_label)]
    if config.tune.metric not in metrics:
        kind = KINDS[multi_label]
        faults.append(
            f"tune.metric is '{config.tune.metric}'; with {kind} known: {listing(metrics)}."
        )
    if faults:
        raise ConfigError("\n".join(faults))


def _faults(config: Config) -> Iterator[str]:
    if config.ensemble.size > 1:
        yield (
            f"ensemble.size is {config.ensemble.size}; tune trains single models. "
            "Set ensemble.size: 1."
        )
    if config.balance.scope == "all":
        yield (
            "balance.scope is 'all'; trials are compared on the same validation rows. "
            "Set balance.scope: train."
        )
    if config.data.streaming:
        yield (
            "data.streaming chooses rows by balance.method, which trials change. "
            "Set data.streaming: false, and data.limit for a sample."
        )


def tune(config: Config, *, resume: str = "auto", command: str = "") -> Path:
    """Train the trials that are left, then write the result.

    Any number of processes may call it for the same folder at the same time.

    Args:
        resume: 'auto' continues a search of the same config and data; 'never' discards it.
        command: the command that repeats the search, for the page.
    Returns:
        The folder of the search.
    Raises:
        TrainerError: config, data or model cannot be used or trained; Stopped on a signal.
    """
    _check_first_rows(config)
    if resume == "never":
        refuse_several_processes("tune --resume never")
    leave_the_others(discards=False)
    given, path = config, folder_of(config)
    writer.check_writable(path)
    with startup.loading_libraries():
        config = startup.start(alone(config, compare={}))
        from trainer.training.arguments import quiet_libraries
        from trainer.tuning import rows, tune_page
    quiet_libraries()
    data = rows.prepare_search(config)
    refuse(config, multi_label=data.whole.is_multi_label)  # as all rows say, not only the first
    folder, clean = workers_folder(path), data.whole.first.clean
    identity = identity_of(config, clean.fingerprint, "tune")
    differences = partial(_differences, path, config, clean.fingerprint)
    if not folder.open(config, clean, data.whole.commits, identity, differences, resume):
        print(f"{path}: {data.words}", flush=True)
        _search(folder, config, data, given, command, identity)
    result = folder.read()
    tune_page.print_result(result)
    page = path / PAGE_NAME
    if not page.is_file():
        with completion.warning_of(page, "the same command writes it."):
            tune_page.write(result, page)
    print(f"Search: {path}  (page: {page}, config of the best trial: {path / BEST_NAME})")
    return path


def _differences(path: Path, config: Config, fingerprint: str) -> str:
    """Return what differs in config, search space and data from the search in a folder."""
    words = config_differences.first_differences(path, config.to_dict(), fingerprint)
    there = config_differences.flat(read_yaml(str(path / "config.yaml")).values.get("tune", {}))
    here = config_differences.flat(config.to_dict()["tune"])
    changed = [
        f"tune.{key}"
        for key in sorted(there.keys() | here.keys())
        if there.get(key) != here.get(key) and f"tune.{key}" not in BUDGET
    ]
    return "; ".join([*([words] if words else []), *changed[:3]])


def _search(
    workers: WorkersFolder,
    config: Config,
    data: "SearchData",
    given: Config,
    command: str,
    identity: str,
) -> None:
    """Train all trials, and write the result.

    Args:
        given: the config before defaults of this hardware were filled in.
    """
    from trainer.tuning.result import best_yaml, result_of
    from trainer.tuning.search import Search
    from trainer.tuning.workers import work

    path = workers.path
    search = Search(config, path, data.whole.is_multi_label)
    work(search, data)
    with locked(path / writer.LOCK, "the search is being concluded"):
        if not workers.is_concluded(identity):
            result = result_of(search, data, command, identity)
            folder = writer.RunFolder(path)
            folder.write_text(BEST_NAME, best_yaml(given, result))
            (path / PAGE_NAME).unlink(missing_ok=True)
            folder.write_json(JSON_NAME, result)
