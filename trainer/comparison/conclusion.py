"""The result of a comparison: shortlist, comparison.json and winner.yaml."""

import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trainer import __version__
from trainer.comparison.choice import best_setting
from trainer.comparison.grid import TrainingGrid
from trainer.comparison.settings import AS_CONFIGURED, group_of, setting_of
from trainer.comparison.statistics.recommendation import recommend
from trainer.comparison.strategies import (
    NUM_SHORTLISTED,
    compared_names,
    makes_embeddings,
    sections_of,
    trained_name,
    trained_strategies,
)
from trainer.comparison.trainings import Training
from trainer.comparison.tuned import chosen_values, tuned
from trainer.config.config import Config
from trainer.config.sections.compare import BASELINE
from trainer.config.yaml_source import dump_yaml
from trainer.display.figure_words import TITLES, by_metric
from trainer.run_folder.environment import describe_environment


def shortlist_of(heads: TrainingGrid) -> dict[str, Any]:
    """Return the comparison of heads, and the best strategies that can train whole models."""
    config, trainings = heads.shared.config, heads.as_configured()
    compared = heads.compare("validation", trainings).to_dict()
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
        "seconds": _seconds(trainings),
        "total_seconds": heads.total_seconds,
    }


def result_of(grid: TrainingGrid, shortlist: dict[str, Any] | None, command: str) -> dict[str, Any]:
    """Compare on validation, then test the recommended strategy; return comparison.json."""
    shared, config = grid.shared, grid.shared.config
    num_left_out, chosen = 0, grid.chosen()
    if shortlist and not shortlist["on_selection_rows"]:
        left_out = shortlist["comparison"]["strategies"].keys() - {*grid.compared}
        num_left_out = len(left_out)
    validation = grid.compare("validation", chosen, num_left_out=num_left_out)
    winner, seconds, tune = (
        validation.recommended,
        _seconds(chosen),
        tuned(grid, chosen, validation),
    )
    recommendation = recommend(validation, {} if grid.budget.kind == "fit" else seconds)
    tested = {name: of for name, of in chosen.items() if name in (BASELINE, winner)}
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
        "budget": _budget(grid),
        "seeds": grid.seeds,
        "folds": config.compare.folds,
        "selection": asdict(shared.selection),
        "baseline_training": grid.baseline_training(chosen[BASELINE]),
        "overrides": _overrides(grid),
        "seconds": seconds,
        "total_seconds": grid.total_seconds + (shortlist["total_seconds"] if shortlist else 0.0),
        "failed": {name: why for name, why in grid.failed.items() if name in grid.strategies},
        "quick": shortlist,
        "tune": tune,
        "validation": validation.to_dict(),
        "test": test.to_dict() if test else None,
        "tested": sorted({*_tested_before(grid, tested), *tested}) if test else [],
        "winner": winner,
        "recommendation": recommendation,
        "environment": describe_environment(
            shared.first.clean.fingerprint, shared.first.clean.counts, 1, shared.commits
        ),
    }


def _budget(grid: TrainingGrid) -> dict[str, Any]:
    """Return the budget; if settings differ in length, it is that of the config's setting."""
    values = grid.budget.to_dict()
    if len({budget.words for budget in grid.budgets.values()}) > 1:
        values["words"] += ", with the setting of the config"
    return values


def _overrides(grid: TrainingGrid) -> dict[str, dict[str, Any]]:
    """Return {compared strategy: the sections that it sets}, with the setting that it chose."""
    config, found = grid.shared.config, {}
    for strategy in trained_strategies(config):
        for name in compared_names(config, strategy):
            values = chosen_values(grid, name) if strategy in grid.strategies else {}
            found[name] = sections_of(config, name) | ({"training": values} if values else {})
    return found


def _tested_before(grid: TrainingGrid, tested: dict[str, list[Training]]) -> set[str]:
    """Return the groups that predicted the test rows for an earlier result of the folder."""
    groups = {*grid.tested} - {training.strategy for of in tested.values() for training in of}
    own = " as configured" if grid.is_tuned else ""
    return {group if setting_of(group) else f"{group}{own}" for group in groups}


def _seconds(chosen: dict[str, list[Training]]) -> dict[str, float]:
    """Return {compared strategy: mean training seconds}."""
    return {
        name: float(np.mean([training.clock("seconds") for training in trainings]))
        for name, trainings in chosen.items()
    }


def winner_yaml(path: Path, grid: TrainingGrid, given: Config, result: dict[str, Any]) -> str:
    """Return the given config with sections, setting and budget of the recommended strategy.

    It chooses its epoch as its trainings did. If they chose nothing, and without folds, it trains
    the model of the first seed.
    """
    values, winner = given.model_dump(exclude_unset=True, exclude={"compare"}), result["winner"]
    left_out = ("overwrite", "num_processes")
    run = {key: value for key, value in values.get("run", {}).items() if key not in left_out}
    values["run"] = run | {"name": f"{given.run.name}-{winner.replace(' + ', '-')}"}
    values |= {"balance": {}, "loss": {}} | sections_of(given, winner)
    strategy = trained_name(winner)
    setting = best_setting(grid.scores(winner)) if grid.is_tuned else AS_CONFIGURED
    trained = grid.with_budget(group_of(strategy, setting))[0].config
    values["training"] = trained.training_values
    if trained.model.head != given.model.head:
        values["model"] = values["model"] | {"head": trained.model.head.model_dump()}
    values["report"] = values.get("report", {}) | {"comparison": str(path)}
    command = f"equipoise train {path / 'winner.yaml'}"
    told = [result["recommendation"], *([result["tune"]["words"]] if result["tune"] else [])]
    comment = [*textwrap.wrap(" ".join(told), 98), f"  {command}"]
    yaml = dump_yaml({key: value for key, value in values.items() if value != {}})
    return "".join(f"# {line}\n" for line in comment) + yaml
