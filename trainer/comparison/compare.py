"""Which balancing helps on these rows. Every strategy is trained with every seed; differences are told from validation.

Workers need no scheduler: each runs the same command and takes the next cell that no other holds, whatever started them
(`accelerate launch`, a Slurm array, a second terminal). One that finds all cells finished draws the conclusion. The test rows are
touched then, once, by the recommended strategy and by `none`.
"""

import json
import shutil
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from trainer.comparison.strategies import MULTI_LABEL, makes_embeddings, refuse
from trainer.config.config import Config
from trainer.config.sections.compare import BASELINE
from trainer.config.yaml_source import dump_yaml
from trainer.data.reading.sources import check_source
from trainer.delivery import completion
from trainer.errors import ConfigError, RunError
from trainer.files.locks import holder, if_free, locked
from trainer.launch.distributed import leave_the_others
from trainer.run_folder import config_differences, writer
from trainer.run_folder.environment import describe_environment
from trainer.run_folder.finished_comparison import JSON_NAME, PAGE_NAME
from trainer.runs import startup, training_run

if TYPE_CHECKING:
    from trainer.comparison.trainings import Ground
    from trainer.comparison.workers import Phase

SHORTLISTED = 2
"""Strategies beside the baseline that `quick` trains after the frozen encoder was asked."""
FILES = (JSON_NAME, PAGE_NAME, "winner.yaml", "environment.json", "config.yaml")
FOLDERS = ("cells", "quick")


def folder_of(config: Config) -> Path:
    """The folder of the comparison, beside the run folder."""
    return Path(config.run.output_dir).expanduser() / f"{config.run.name}-compare"


def check(config: Config) -> None:
    """As `training_run.check`, and every strategy's config.

    Raises:
        TrainerError: whatever is wrong.
    """
    refuse(config)
    if check_source(config.data, config.balance.by):
        raise ConfigError(MULTI_LABEL)
    training_run.check(config)


def compare(config: Config, *, resume: str = "auto", command: str = "") -> Path:
    """Train what is not trained yet, then conclude; any number of processes may call it for the same folder at once.

    Args:
        resume: 'auto' keeps the cells of the same config and data; 'never' discards the comparison that is there.
        command: what repeats it, for the page.
    Returns:
        The folder of the comparison.
    Raises:
        TrainerError: bad config, data or model; the baseline failed; Stopped on a signal.
    """
    refuse(config)
    leave_the_others(discards=resume == "never")
    given, path = config, folder_of(config)
    writer.check_writable(path)
    with startup.loading_libraries():
        config = startup.start(_alone(config))
        from trainer.comparison import trainings, workers
        from trainer.training.arguments import quiet_libraries
    quiet_libraries()
    ground = trainings.prepare_ground(config)
    fingerprint = ground.plain.clean.fingerprint
    identity = identity_of(config, fingerprint)
    if not _open(path, config, ground, identity, resume):
        quick = None
        print(f"{path}: {ground.words}", flush=True)
        if config.compare.quick:
            heads = workers.Phase(
                ground, path / "quick", tuple(config.compare.overrides), "head", False, identity
            )
            heads.work()
            quick = _shortlist(heads)
        strategies = (BASELINE, *quick["shortlist"]) if quick else tuple(config.compare.overrides)
        phase = workers.Phase(
            ground, path / "cells", strategies, config.model.mode, ground.has_test, identity
        )
        phase.work()
        with locked(path / writer.LOCK, "the comparison is being concluded"):
            if not _is_concluded(path, identity):
                phase.refuse_others()
                _conclude(path, phase, quick, given, command, identity)
    from trainer.comparison import compare_page

    result = _read(path)
    compare_page.print_comparison(result)
    if not (path / PAGE_NAME).is_file():
        with completion.warning_of(path / PAGE_NAME, "the same command writes it."):
            compare_page.write(result, path / PAGE_NAME)
    print(
        f"Comparison: {path}  (page: {path / PAGE_NAME}, config of {result['winner']}: {path / 'winner.yaml'})"
    )
    return path


def identity_of(config: Config, fingerprint: str) -> str:
    """Digest of all that a comparison's results depend on: config, strategies, data."""
    values = {
        key: value
        for key, value in config_differences.flat(config.to_dict()).items()
        if not config_differences.is_not_compared(key) or key.startswith("compare.")
    }
    return xxhash.xxh3_128(json.dumps([values, fingerprint], sort_keys=True).encode()).hexdigest()


def _alone(config: Config) -> Config:
    """The config of a process that trains by itself and pushes nothing."""
    values = config.to_dict()
    return Config.model_validate(values | {"run": values["run"] | {"num_processes": 1}, "hub": {}})


def _open(path: Path, config: Config, ground: "Ground", identity: str, resume: str) -> bool:
    """Whether the finished comparison lies there; its folder is made where it does not.

    Raises:
        RunError: files that are no comparison, or one of another config or other rows, unless `run.overwrite` lets it go.
    """
    clean = ground.plain.clean
    path.mkdir(parents=True, exist_ok=True)
    with locked(path / writer.LOCK, "a comparison is being opened"):
        if not {
            found.name
            for found in path.iterdir()
            if not found.name.startswith(".") and found.suffix != ".partial"
        } <= {*FILES, *FOLDERS, writer.STOPPED}:
            raise RunError(
                f"{path}: holds files but no comparison. Set run.name or run.output_dir to another folder."
            )
        differs = (
            config_differences.first_differences(path, config.to_dict(), clean.fingerprint)
            if (path / "config.yaml").is_file()
            else ""
        )
        if differs and not config.run.overwrite and resume != "never":
            remedy = "Set run.overwrite: true or --resume never to start anew, or another run.name."
            raise RunError(f"{path}: holds a comparison that differs: {differs}. {remedy}")
        if differs or resume == "never":
            _discard(path)
        if _is_concluded(path, identity):
            print(
                f"{path}: holds the finished comparison of this config and data: nothing to do. --resume never trains anew."
            )
            return True
        folder = writer.RunFolder(path)
        folder.write_text("config.yaml", config.to_yaml())
        folder.write_json(
            "environment.json",
            describe_environment(clean.fingerprint, clean.counts, 1, ground.commits),
        )
    return False


def _discard(path: Path) -> None:
    """Remove the comparison that is there.

    Raises:
        RunError: another process trains a cell of it.
    """
    with ExitStack() as held:
        for folder in FOLDERS:
            for lock in (path / folder).glob(f"*/*/{writer.LOCK}"):
                if not held.enter_context(if_free(lock)):
                    raise RunError(
                        f"{lock.parent}: is being trained by {holder(lock)}. End it before the comparison that is there is discarded."
                    )
        for name in FILES:
            (path / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(path / name, ignore_errors=True)


def _is_concluded(path: Path, identity: str) -> bool:
    try:
        return bool(_read(path).get("identity") == identity)
    except (
        OSError,
        ValueError,
        AttributeError,
    ):  # not there, or damaged: the cells hold all that it is made of
        return False


def _read(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((path / JSON_NAME).read_text(encoding="utf-8"))
    return result


def _shortlist(heads: "Phase") -> dict[str, Any]:
    """What the frozen encoder says, and the best strategies that whole models can have."""
    from trainer.display.figure_words import by_metric

    compared, config = heads.compare("validation", heads.trained).to_dict(), heads.ground.config
    chosen = [
        name
        for name in by_metric(compared)
        if name != BASELINE and not makes_embeddings(config, name)
    ][:SHORTLISTED]
    print(
        f"Shortlist by the frozen encoder: {', '.join(chosen) or 'none beside the baseline'}; trained now as configured.",
        flush=True,
    )
    return {
        "comparison": compared,
        "shortlist": chosen,
        "failed": heads.failed,
        "seconds": heads.seconds,
        "total_seconds": heads.total_seconds,
    }


def _conclude(
    path: Path,
    phase: "Phase",
    quick: dict[str, Any] | None,
    given: Config,
    command: str,
    identity: str,
) -> None:
    """Differences on validation, the test of the recommended strategy and of the baseline, and what is told of it; comparison.json last."""
    from trainer import __version__
    from trainer.comparison.statistics.recommendation import recommend
    from trainer.display.figure_words import TITLES

    ground, config = phase.ground, phase.ground.config
    validation = phase.compare("validation", phase.trained)
    winner, seconds = validation.recommended, phase.seconds
    recommendation = recommend(validation, {} if phase.budget.kind == "fit" else seconds)
    tested = [name for name in phase.trained if name in (BASELINE, winner)]
    test = phase.compare("test", tested) if ground.has_test else None
    if test and test.metric != validation.metric:
        recommendation += f" On test, {TITLES[test.metric]} is compared, since no row of '{test.minority_label}' is there."
    folder = writer.RunFolder(path)
    result = {
        "name": config.run.name,
        "version": __version__,
        "command": command,
        "identity": identity,
        "model": config.model.name,
        "mode": config.model.mode,
        "budget": phase.budget.to_dict(),
        "seeds": phase.seeds,
        "folds": config.compare.folds,
        "overrides": config.compare.overrides,
        "seconds": seconds,
        "total_seconds": phase.total_seconds + (quick["total_seconds"] if quick else 0.0),
        "failed": phase.failed,
        "quick": quick,
        "validation": validation.to_dict(),
        "test": test.to_dict() if test else None,
        "tested": phase.tested,
        "winner": winner,
        "recommendation": recommendation,
        "environment": describe_environment(
            ground.plain.clean.fingerprint, ground.plain.clean.counts, 1, ground.commits
        ),
    }
    folder.write_text("winner.yaml", _winner_yaml(path, phase, given, winner, recommendation))
    (path / PAGE_NAME).unlink(missing_ok=True)
    phase.drop_models()
    folder.write_json(JSON_NAME, result)


def _winner_yaml(
    path: Path, phase: "Phase", given: Config, winner: str, recommendation: str
) -> str:
    """The given config with the best strategy's sections and the comparison's budget: without folds it trains to the model of the first seed."""
    config = phase.ground.config
    values = given.model_dump(exclude_unset=True, exclude={"compare"})
    run = {
        key: value
        for key, value in values.get("run", {}).items()
        if key not in ("overwrite", "num_processes")
    }
    values["run"] = run | {"name": f"{config.run.name}-{winner}"}
    values |= {"balance": {}, "loss": {}} | config.compare.overrides[winner]
    values["training"] = phase.cells_of(winner)[0].config.training_values
    values["report"] = values.get("report", {}) | {"comparison": str(path)}
    words = textwrap.wrap(recommendation, 120)
    command = f"accelerate launch scripts/train.py --config {path / 'winner.yaml'}"
    return "".join(f"# {line}\n" for line in [*words, f"  {command}"]) + dump_yaml(
        {key: value for key, value in values.items() if value != {}}
    )
