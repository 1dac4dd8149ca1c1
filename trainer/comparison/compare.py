"""Compare strategies: which balancing helps on these rows?

Every strategy is trained with every seed. Strategies are compared on validation rows on which no
training chose its epoch (`selection.py`), without and with fitted thresholds. The test rows are
used once, at the end, by the recommended strategy and the baseline `none`.

Workers need no scheduler. Each runs the same command (`accelerate launch`, a Slurm array, a second
terminal) and takes the next free training. The first one that finds all trainings finished writes
the result.
"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.comparison.settings import tune_words
from trainer.comparison.strategies import NUM_SHORTLISTED, fitting, refuse, trained_strategies
from trainer.config.config import Config
from trainer.config.sections.compare import BASELINE
from trainer.config.yaml_source import read_yaml
from trainer.delivery import completion
from trainer.files.locks import locked
from trainer.launch.distributed import leave_the_others
from trainer.run_folder import config_differences, writer
from trainer.run_folder.finished_comparison import JSON_NAME, PAGE_NAME
from trainer.run_folder.workers_folder import WorkersFolder, alone, identity_of
from trainer.runs import startup, training_run

if TYPE_CHECKING:
    from trainer.comparison.shared_data import SharedData

FILES = (JSON_NAME, PAGE_NAME, "winner.yaml", "environment.json", "config.yaml")
FOLDERS = ("trainings", "quick", writer.LOGS, "cells")
"""Folders of the trainings (a strategy with a seed), of the heads for the shortlist, of what
trackers write, and of the trainings of earlier versions."""


def folder_of(config: Config) -> Path:
    """Return the folder of the comparison, beside the run folder."""
    return Path(config.run.output_dir).expanduser() / f"{config.run.name}-compare"


def workers_folder(path: Path) -> WorkersFolder:
    """Return the folder of a comparison, which its workers share."""
    again = "Use --resume never to train again."
    return WorkersFolder(path, "comparison", JSON_NAME, FILES, FOLDERS, again)


def check(config: Config) -> None:
    """Check the config, the data source and every strategy, without training.

    Raises:
        TrainerError: something is wrong.
    """
    fitted = fitting(config)
    training_run.check(config)
    if config.compare.tune:
        strategies = trained_strategies(fitted)
        if config.compare.quick:
            strategies = strategies[: NUM_SHORTLISTED + 1]
        print(tune_words(config, len(strategies)), flush=True)


def compare(config: Config, *, resume: str = "auto", command: str = "") -> Path:
    """Train the unfinished trainings, then write the result.

    Any number of processes may call it for the same folder at the same time.

    Args:
        resume: 'auto' keeps trainings of the same config and data; 'never' discards the existing
            comparison.
        command: the command that repeats the comparison, for the page.
    Returns:
        The folder of the comparison.
    Raises:
        TrainerError: config, data or model cannot be used; the baseline failed; or Stopped on a
            signal.
    """
    config = fitting(config)
    leave_the_others(discards=resume == "never")
    given, path = config, folder_of(config)
    writer.check_writable(path)
    with startup.loading_libraries():
        config = startup.start(alone(config))
        from trainer.comparison import shared_data
        from trainer.comparison.page import compare_page
        from trainer.training.arguments import quiet_libraries
    quiet_libraries()
    shared = shared_data.prepare_shared(config)
    refuse(config, multi_label=shared.is_multi_label)  # as all rows say, not only the first
    folder, clean = workers_folder(path), shared.first.clean
    identity = identity_of(config, clean.fingerprint, "compare")
    differences = partial(_differences, path, shared)
    if not folder.open(shared.config, clean, shared.commits, identity, differences, resume):
        print(f"{path}: {shared.words}", flush=True)
        _train_and_conclude(folder, shared, given, command, identity)
    result = folder.read()
    compare_page.print_comparison(result)
    page = path / PAGE_NAME
    if not page.is_file():
        with completion.warning_of(page, "the same command writes it."):
            compare_page.write(result, page)
    winner = f"config of {result['winner']}: {path / 'winner.yaml'}"
    print(f"Comparison: {path}  (page: {page}, {winner})")
    return path


def _differences(path: Path, shared: "SharedData") -> str:
    """Return how the comparison in a folder differs, or an empty string."""
    config, fingerprint = shared.config.to_dict(), shared.first.clean.fingerprint
    return _earlier_version(path) or config_differences.first_differences(path, config, fingerprint)


def _earlier_version(path: Path) -> str:
    """Return why the results of an earlier version do not hold, or an empty string."""
    saved = read_yaml(str(path / "config.yaml")).values
    if "selection" in saved.get("compare", {}):
        return ""
    return (
        "an earlier version made it, which chose epochs on the rows that it compared, so volatile "
        "strategies looked better than they are"
    )


def _train_and_conclude(
    workers: WorkersFolder, shared: "SharedData", given: Config, command: str, identity: str
) -> None:
    """Train all strategies, or a shortlist of them, and write the result.

    Args:
        given: the config before defaults of this hardware were filled in.
    """
    from trainer.comparison.conclusion import result_of, shortlist_of, winner_yaml
    from trainer.comparison.grid import TrainingGrid
    from trainer.comparison.workers import refuse_differing, work

    path, config, shortlist = workers.path, shared.config, None
    strategies = trained_strategies(config)
    if config.compare.quick:
        heads = TrainingGrid(shared, path / "quick", strategies, "head", False, identity, True)
        work(heads)
        shortlist = shortlist_of(heads)
        strategies = (BASELINE, *shortlist["shortlist"])
    mode, keeps_models = config.model.mode, shared.has_test
    grid = TrainingGrid(shared, path / "trainings", strategies, mode, keeps_models, identity)
    work(grid)
    with locked(path / writer.LOCK, "the comparison is being concluded"):
        if not workers.is_concluded(identity):
            refuse_differing(grid)
            result = result_of(grid, shortlist, command)
            winner = winner_yaml(path, grid, given, result)
            folder = writer.RunFolder(path)
            folder.write_text("winner.yaml", winner)
            (path / PAGE_NAME).unlink(missing_ok=True)
            grid.drop_models()
            folder.write_json(JSON_NAME, result)
