"""Compare strategies: which balancing helps on these rows?

Every strategy is trained with every seed. Strategies are compared on validation rows on which no
training chose its epoch (`selection.py`), without and with fitted thresholds. The test rows are
used once, at the end, by the recommended strategy and the baseline `none`.

Workers need no scheduler. Each runs the same command (`accelerate launch`, a Slurm array, a second
terminal) and takes the next free training. The first one that finds all trainings finished writes
the result.
"""

import textwrap
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer import __version__
from trainer.comparison.strategies import (
    compared_names,
    fitting,
    makes_embeddings,
    refuse,
    sections_of,
    trained_name,
    trained_strategies,
)
from trainer.config.config import Config
from trainer.config.sections.compare import BASELINE
from trainer.config.yaml_source import dump_yaml, read_yaml
from trainer.delivery import completion
from trainer.files.locks import locked
from trainer.launch.distributed import leave_the_others
from trainer.run_folder import config_differences, writer
from trainer.run_folder.environment import describe_environment
from trainer.run_folder.finished_comparison import JSON_NAME, PAGE_NAME
from trainer.run_folder.workers_folder import WorkersFolder, alone, identity_of
from trainer.runs import startup, training_run

if TYPE_CHECKING:
    from trainer.comparison.grid import TrainingGrid
    from trainer.comparison.shared_data import SharedData

NUM_SHORTLISTED = 2
"""Number of strategies that `compare.quick` trains as configured, besides the baseline."""
FILES = (JSON_NAME, PAGE_NAME, "winner.yaml", "environment.json", "config.yaml")
FOLDERS = ("cells", "quick", writer.LOGS)
"""Folders of the trainings (a strategy with a seed), of the heads for the shortlist, and of what
trackers write."""


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
    fitting(config)
    training_run.check(config)


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
        from trainer.comparison import compare_page, shared_data
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
    from trainer.comparison.grid import TrainingGrid
    from trainer.comparison.workers import refuse_differing, work

    path, config, shortlist = workers.path, shared.config, None
    strategies = trained_strategies(config)
    if config.compare.quick:
        heads = TrainingGrid(shared, path / "quick", strategies, "head", False, identity, True)
        work(heads)
        shortlist = _shortlist(heads)
        strategies = (BASELINE, *shortlist["shortlist"])
    mode, keeps_models = config.model.mode, shared.has_test
    grid = TrainingGrid(shared, path / "cells", strategies, mode, keeps_models, identity)
    work(grid)
    with locked(path / writer.LOCK, "the comparison is being concluded"):
        if not workers.is_concluded(identity):
            refuse_differing(grid)
            result = _result(grid, shortlist, command)
            winner = _winner_yaml(path, grid, given, result["winner"], result["recommendation"])
            folder = writer.RunFolder(path)
            folder.write_text("winner.yaml", winner)
            (path / PAGE_NAME).unlink(missing_ok=True)
            grid.drop_models()
            folder.write_json(JSON_NAME, result)


def _shortlist(heads: "TrainingGrid") -> dict[str, Any]:
    """Return the comparison of heads, and the best strategies that can train whole models."""
    from trainer.display.figure_words import by_metric

    compared, config = heads.compare("validation", heads.compared).to_dict(), heads.shared.config
    ordered = dict.fromkeys(trained_name(name) for name in by_metric(compared))
    chosen = [name for name in ordered if name != BASELINE and not makes_embeddings(config, name)]
    chosen = chosen[:NUM_SHORTLISTED]
    words = f"{', '.join(chosen) or 'only the baseline'}; trained now as configured."
    print(f"Shortlist of heads on the frozen encoder: {words}", flush=True)
    return {
        "comparison": compared,
        "on_selection_rows": heads.judges_selection,
        "shortlist": chosen,
        "failed": heads.failed,
        "seconds": heads.seconds,
        "total_seconds": heads.total_seconds,
    }


def _result(grid: "TrainingGrid", shortlist: dict[str, Any] | None, command: str) -> dict[str, Any]:
    """Compare on validation, then test the recommended strategy; return comparison.json."""
    from trainer.comparison.statistics.recommendation import recommend
    from trainer.display.figure_words import TITLES

    shared, config = grid.shared, grid.shared.config
    num_left_out = 0
    if shortlist and not shortlist["on_selection_rows"]:
        left_out = shortlist["comparison"]["strategies"].keys() - {*grid.compared}
        num_left_out = len(left_out)
    validation = grid.compare("validation", grid.compared, num_left_out=num_left_out)
    winner, seconds = validation.recommended, grid.seconds
    recommendation = recommend(validation, {} if grid.budget.kind == "fit" else seconds)
    tested = [name for name in grid.compared if name in (BASELINE, winner)]
    test = grid.compare("test", tested) if shared.has_test else None
    if test and test.metric != validation.metric:
        recommendation += (
            f" On test, {TITLES[test.metric]} is compared, since no row of "
            f"'{test.minority_label}' is there."
        )
    return {
        "name": config.run.name,
        "version": __version__,
        "command": command,
        "identity": grid.identity,
        "model": config.model.name,
        "mode": config.model.mode,
        "budget": grid.budget.to_dict(),
        "seeds": grid.seeds,
        "folds": config.compare.folds,
        "selection": asdict(shared.selection),
        "baseline_training": grid.baseline_training,
        "overrides": {
            name: sections_of(config, name)
            for strategy in trained_strategies(config)
            for name in compared_names(config, strategy)
        },
        "seconds": seconds,
        "total_seconds": grid.total_seconds + (shortlist["total_seconds"] if shortlist else 0.0),
        "failed": grid.failed,
        "quick": shortlist,
        "validation": validation.to_dict(),
        "test": test.to_dict() if test else None,
        "tested": sorted(({*grid.tested} - {trained_name(winner)}) | {*tested}) if test else [],
        "winner": winner,
        "recommendation": recommendation,
        "environment": describe_environment(
            shared.first.clean.fingerprint, shared.first.clean.counts, 1, shared.commits
        ),
    }


def _winner_yaml(
    path: Path, grid: "TrainingGrid", given: Config, winner: str, recommendation: str
) -> str:
    """Return the given config with the sections and the budget of the recommended strategy.

    It chooses its epoch as its trainings did. If they chose nothing, and without folds, it trains
    the model of the first seed.
    """
    values = given.model_dump(exclude_unset=True, exclude={"compare"})
    left_out = ("overwrite", "num_processes")
    run = {key: value for key, value in values.get("run", {}).items() if key not in left_out}
    values["run"] = run | {"name": f"{given.run.name}-{winner.replace(' + ', '-')}"}
    values |= {"balance": {}, "loss": {}} | sections_of(given, winner)
    trained = grid.with_budget(trained_name(winner))[0].config
    values["training"] = trained.training_values
    if trained.model.head != given.model.head:
        values["model"] = values["model"] | {"head": trained.model.head.model_dump()}
    values["report"] = values.get("report", {}) | {"comparison": str(path)}
    command = f"equipoise train {path / 'winner.yaml'}"
    comment = [*textwrap.wrap(recommendation, 98), f"  {command}"]
    yaml = dump_yaml({key: value for key, value in values.items() if value != {}})
    return "".join(f"# {line}\n" for line in comment) + yaml
