"""What comparison.json says of tuned settings: every trial, the choices, and the common setting."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from trainer.comparison.choice import best_setting
from trainer.comparison.grid import TrainingGrid
from trainer.comparison.settings import (
    AS_CONFIGURED,
    group_of,
    setting_of,
    setting_words,
    shown,
    strategy_of,
    values_of,
)
from trainer.comparison.statistics.comparison_result import Comparison
from trainer.comparison.strategies import trained_name
from trainer.comparison.trainings import Training
from trainer.config.config import Config
from trainer.errors import listing


def tuned(
    grid: TrainingGrid, chosen: dict[str, list[Training]], validation: Comparison
) -> dict[str, Any] | None:
    """Return the trials of every strategy and the comparison at the common setting.

    None without `compare.tune`.

    Args:
        chosen: {compared strategy: its trainings with the setting that it chose}.
        validation: the comparison of these trainings.
    """
    if not grid.is_tuned:
        return None
    config, num_folds = grid.shared.config, len(grid.shared.folds)
    words = {setting: setting_words(config, setting) for setting in grid.settings}
    settings = {
        name: [setting_of(training.strategy) for training in trainings[:num_folds]]
        for name, trainings in chosen.items()
    }
    num_left_out = validation.num_tests - len(validation.others)
    common = grid.compare("validation", grid.as_configured(), num_left_out=num_left_out)
    failed = grid.failed
    found = {
        "settings": {words[setting]: values_of(config, setting) for setting in grid.settings},
        "budgets": {words[setting]: of.words for setting, of in grid.budgets.items()},
        "as_configured": words[AS_CONFIGURED],
        "num_trainings": sum(len(grid.trainings[group]) for group in grid.trained),
        "strategies": {
            name: {
                "chosen": [words[setting] for setting in settings[name]],
                "scores": {
                    words[setting]: _score(scores) for setting, scores in grid.scores(name).items()
                },
            }
            for name in chosen
        },
        "edges": list(_edges(config, grid.settings, settings)),
        "failed": {
            group: reason
            for group, reason in failed.items()
            if setting_of(group) and strategy_of(group) not in failed
        },
        "common": common.to_dict(),
    }
    return found | {"words": _words(found, validation.recommended, common)}


def _score(scores_SF: Any) -> dict[str, Any]:
    """Return the mean of a setting's scores, and the score of each seed over all folds."""
    of_seeds = np.mean(scores_SF, axis=1)
    return {"mean": float(np.mean(of_seeds)), "of_seeds": of_seeds.tolist()}


def _edges(config: Config, settings: dict[str, Any], chosen: dict[str, list[str]]) -> Iterator[str]:
    """Yield which strategies chose the smallest or largest value that was tried."""
    values = {setting: values_of(config, setting) for setting in settings}
    for key in {key: None for of in values.values() for key in of}:
        tried = [of[key] for of in values.values() if key in of]
        for end, most, more in (
            (min(tried), "smallest", "smaller"),
            (max(tried), "largest", "larger"),
        ):
            names = [
                name
                for name, of in chosen.items()
                if any(values[each].get(key) == end for each in of)
            ]
            if names and min(tried) < max(tried):
                yield (
                    f"{key} {shown(end)} is the {most} value tried, and {listing(names)} chose it: "
                    f"try {more} values."
                )


def _words(tune: dict[str, Any], winner: str, common: Comparison) -> str:
    """Return which settings the recommended strategy and the baseline have, and whether another
    strategy would be recommended with the setting of the config.
    """
    names = dict.fromkeys((winner, common.baseline))
    chosen = "; ".join(f"{name} with {settings_words(tune, name)}" for name in names)
    of_common = common.recommended
    instead = "is recommended too" if of_common == winner else "would be recommended"
    return (
        f"Tuned on selection rows: {chosen}. At the setting of the config "
        f"({tune['as_configured']}), {of_common} {instead}."
    )


def settings_words(tune: dict[str, Any], name: str) -> str:
    """Return the setting that a strategy chose, or those of its folds."""
    counts = Counter(tune["strategies"][name]["chosen"])
    if len(counts) == 1:
        return next(iter(counts))
    return " or ".join(f"{setting} ({count} folds)" for setting, count in counts.most_common())


def chosen_values(grid: TrainingGrid, name: str) -> dict[str, float]:
    """Return {key of `training`: value} of the setting that is best for a strategy over all folds.

    The values are those that were trained: the budget rounds `max_steps` to whole evaluations.
    Empty without `compare.tune`, or if the strategy has failed.
    """
    scores = grid.scores(name) if grid.is_tuned else {}
    if not scores:
        return {}
    setting = best_setting(scores)
    trained = grid.with_budget(group_of(trained_name(name), setting))[0].config.training_values
    return {
        key: trained.get(key) or value
        for key, value in values_of(grid.shared.config, setting).items()
    }
