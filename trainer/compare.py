"""Chapter three of the story: which balancing helps on these rows. Every strategy is trained with every seed; differences are told from validation.

Workers need no scheduler: each runs the same command and takes the next cell that no other holds, whatever started them
(`accelerate launch`, a Slurm array, a second terminal). One that finds all cells finished draws the conclusion. The test rows are
touched then, once, by the best strategy and by `none`.
"""

import json
import shutil
import textwrap
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from trainer import pipeline
from trainer.config import Config, check_config
from trainer.delivery import report
from trainer.errors import ConfigError, RunError
from trainer.locks import holder, if_free, locked
from trainer.sections.compare import BASELINE
from trainer.training.synthesis import SYNTHESISERS
from trainer.yaml_source import YamlSource, dump_yaml

if TYPE_CHECKING:
    from trainer.workers import Phase

SHORTLISTED = 2
"""Strategies beside the baseline that `quick` trains after the frozen encoder was asked."""
RESULT = "comparison.json"
FILES = (RESULT, "comparison.html", "winner.yaml")
FOLDERS = ("cells", "quick")
LOCK = ".lock"


def folder_of(config: Config) -> Path:
    """The folder of the comparison, beside the run folder."""
    return Path(config.run.output_dir).expanduser() / f"{config.run.name}-compare"


def check(config: Config) -> None:
    """As `pipeline.check`, and every strategy's config.

    Raises:
        TrainerError: whatever is wrong.
    """
    refuse(config)
    pipeline.check(config)


def refuse(config: Config) -> None:
    """Raises ConfigError for what cannot be compared, or a strategy that the config cannot have; all faults together."""
    faults = []
    if config.ensemble.size > 1:
        faults.append(f"ensemble.size is {config.ensemble.size}; compare trains single models. Set ensemble.size: 1.")
    if config.balance.scope == "all":
        faults.append("balance.scope is 'all'; strategies are compared on the same validation rows. Set balance.scope: train.")
    if config.compare.folds and (config.data.validation is not None or config.data.streaming):
        faults.append("compare.folds cuts validation itself; remove it, or data.validation and data.streaming.")
    if config.compare.quick and config.model.mode == "head":
        faults.append("compare.quick is set with model.mode: head, which is quick already. Remove it.")
    modes = ["head", config.model.mode] if config.compare.quick else [config.model.mode]
    for strategy in config.compare.overrides:
        for mode in modes:
            if config.compare.quick and mode != "head" and _makes_embeddings(config, strategy):
                continue  # in the shortlist alone
            try:
                derived = strategy_config(config, strategy, folder_of(config), mode=mode)
            except ConfigError as error:
                faults.append(str(error))
                break
            if derived.balance.scope == "all" or derived.balance.by not in (None, config.balance.by):
                key = "scope: all" if derived.balance.scope == "all" else f"by: {derived.balance.by}"
                remedy = "Set scope: train." if derived.balance.scope == "all" else f"Set balance.by: {derived.balance.by} in the config, so that it is read."
                faults.append(f"compare.strategies: {strategy} has balance.{key}, but all strategies share one reading and one split. {remedy}")
                break
    if faults:
        raise ConfigError("\n".join(faults))


def strategy_config(
    config: Config, strategy: str, path: Path, *, mode: str | None = None, seed: int | None = None, training: dict[str, Any] | None = None
) -> Config:
    """The config of a run with a strategy's sections in place of the config's.

    Args:
        path: the run folder.
        training: keys of the `training` section that make its budget.
    Raises:
        ConfigError: a strategy that does not go with the config.
    """
    values = config.to_dict()
    run = {"name": path.name, "output_dir": str(path.parent), "num_processes": 1} | ({} if seed is None else {"seed": seed})
    values |= {"run": values["run"] | run, "model": values["model"] | ({"mode": mode} if mode else {}), "training": values["training"] | (training or {})}
    values |= {section: {} for section in ("balance", "loss", "ensemble", "compare", "report", "hub")} | config.compare.overrides[strategy]
    return check_config(YamlSource(f"compare.strategies: {strategy}", values))


def _makes_embeddings(config: Config, strategy: str) -> bool:
    return config.compare.overrides[strategy].get("balance", {}).get("method") in SYNTHESISERS


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
    given, path = config, folder_of(config)
    report.check_writable(path)
    with pipeline.loading_libraries():
        config = pipeline.start(_alone(config))
        from trainer import cells, workers
        from trainer.training.arguments import quiet_libraries
    quiet_libraries()
    ground = cells.prepare_ground(config)
    identity = identity_of(config, ground.plain.clean.fingerprint)
    if not _open(path, identity, resume):
        quick = None
        print(f"{path}: {ground.words}", flush=True)
        if config.compare.quick:
            heads = workers.Phase(ground, path / "quick", tuple(config.compare.overrides), "head", False, identity)
            heads.work()
            quick = _shortlist(heads)
        strategies = (BASELINE, *quick["shortlist"]) if quick else tuple(config.compare.overrides)
        phase = workers.Phase(ground, path / "cells", strategies, config.model.mode, ground.has_test, identity)
        phase.work()
        with locked(path / LOCK, "the comparison is being concluded"):
            if not _is_concluded(path, identity):
                _conclude(path, phase, quick, given, command, identity)
    from trainer.delivery import compare_page

    compare_page.print_comparison(_read(path))
    print(f"Comparison: {path}  (page: {path / 'comparison.html'}, config of the best: {path / 'winner.yaml'})")
    return path


def identity_of(config: Config, fingerprint: str) -> str:
    """Digest of all that a comparison's results depend on: config, strategies, data."""
    values = {key: value for key, value in report.flat(config.to_dict()).items() if not report.is_not_compared(key) or key.startswith("compare.")}
    return xxhash.xxh3_128(json.dumps([values, fingerprint], sort_keys=True).encode()).hexdigest()


def _alone(config: Config) -> Config:
    """The config of a process that trains by itself and pushes nothing."""
    values = config.to_dict()
    return Config.model_validate(values | {"run": values["run"] | {"num_processes": 1}, "hub": {}})


def _open(path: Path, identity: str, resume: str) -> bool:
    """Whether the finished comparison lies there; its folder is made where it does not.

    Raises:
        RunError: files that are no comparison.
    """
    path.mkdir(parents=True, exist_ok=True)
    with locked(path / LOCK, "a comparison is being opened"):
        if not {found.name for found in path.iterdir() if found.suffix != ".partial"} <= {*FILES, *FOLDERS, LOCK, report.STOPPED}:
            raise RunError(f"{path}: holds files but no comparison. Set run.name or run.output_dir to another folder.")
        if resume == "never":
            _discard(path)
        if _is_concluded(path, identity):
            print(f"{path}: holds the finished comparison of this config and data: nothing to do. --resume never trains anew.")
            return True
    return False


def _discard(path: Path) -> None:
    """Remove the comparison that is there.

    Raises:
        RunError: another process trains a cell of it.
    """
    with ExitStack() as held:
        for folder in FOLDERS:
            for lock in (path / folder).glob(f"*/*/{report.LOCK}"):
                if not held.enter_context(if_free(lock)):
                    raise RunError(f"{lock.parent}: is being trained by {holder(lock)}. End it before --resume never discards it, or leave --resume never out.")
        for name in FILES:
            (path / name).unlink(missing_ok=True)
        for name in FOLDERS:
            shutil.rmtree(path / name, ignore_errors=True)


def _is_concluded(path: Path, identity: str) -> bool:
    return (path / RESULT).is_file() and _read(path)["identity"] == identity


def _read(path: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((path / RESULT).read_text(encoding="utf-8"))
    return result


def _shortlist(heads: "Phase") -> dict[str, Any]:
    """What the frozen encoder says, and the best strategies that whole models can have."""
    compared, config = heads.compare("validation", heads.trained).to_dict(), heads.ground.config
    ranked = sorted(compared["strategies"], key=lambda name: -compared["strategies"][name]["figures"][config.compare.metric]["mean"])
    chosen = [name for name in ranked if name != BASELINE and not _makes_embeddings(config, name)][:SHORTLISTED]
    print(f"Shortlist by the frozen encoder: {', '.join(chosen) or 'none beside the baseline'}; trained now as configured.", flush=True)
    return {"comparison": compared, "shortlist": chosen, "failed": heads.failed, "seconds": heads.seconds, "total_seconds": heads.total_seconds}


def _conclude(path: Path, phase: "Phase", quick: dict[str, Any] | None, given: Config, command: str, identity: str) -> None:
    """Differences on validation, the test of the best and of the baseline, and what is told of it; comparison.json last."""
    from trainer import __version__
    from trainer.delivery import compare_page
    from trainer.delivery.environment import describe_environment
    from trainer.evaluation.compare import recommend

    ground, config = phase.ground, phase.ground.config
    validation = phase.compare("validation", phase.trained)
    winner = validation.best if validation.recommended == BASELINE else validation.recommended
    seconds = phase.seconds
    recommendation = recommend(validation, seconds)
    tested = [name for name in phase.trained if name in (BASELINE, winner)]
    test = phase.compare("test", tested).to_dict() if ground.has_test else None
    folder = report.RunFolder(path)
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
        "test": test,
        "winner": winner,
        "recommended": validation.recommended,
        "recommendation": recommendation,
        "environment": describe_environment(ground.plain.clean.fingerprint, ground.plain.clean.counts, 1, ground.commits),
    }
    folder.write_text("winner.yaml", _winner_yaml(path, phase, given, winner, recommendation))
    compare_page.write(result, path / "comparison.html")
    folder.write_json(RESULT, result)
    phase.drop_models()


def _winner_yaml(path: Path, phase: "Phase", given: Config, winner: str, recommendation: str) -> str:
    """The given config with the best strategy's sections and the comparison's budget: it trains to the model of the first seed."""
    config = phase.ground.config
    values = given.model_dump(exclude_unset=True, exclude={"compare"})
    values["run"] = values.get("run", {}) | {"name": f"{config.run.name}-{winner}"}
    values |= {"balance": {}, "loss": {}} | config.compare.overrides[winner]
    values["training"] = phase.cells_of(winner)[0].config.training_values
    values["report"] = values.get("report", {}) | {"comparison": str(path)}
    words = textwrap.wrap(recommendation, 120)
    command = f"accelerate launch scripts/train.py --config {path / 'winner.yaml'}"
    return "".join(f"# {line}\n" for line in [*words, f"  {command}"]) + dump_yaml({key: value for key, value in values.items() if value != {}})
