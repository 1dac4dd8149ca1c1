"""Show the tuned settings of comparison.json in the terminal and in the page."""

from typing import Any

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from trainer.comparison.settings import shown
from trainer.comparison.tuned import settings_words
from trainer.display import pages
from trainer.display.figure_words import (
    TITLES,
    TITLES_OF_LABELS,
    baseline_words,
    by_metric,
    has_label_sets,
    spread_words,
)
from trainer.display.terminal import console

HEADINGS = {
    "learning_rate": "learning\nrate",
    "num_train_epochs": "epochs",
    "max_steps": "max\nsteps",
}
"""The heading of each key that is tuned."""


def print_tuned(result: dict[str, Any]) -> None:
    """Print the setting of each strategy, and the comparison at the setting of the config."""
    tune, metric = result["tune"], result["validation"]["metric"]
    common = tune["common"]
    table = Table(
        title=f"{len(tune['settings'])} settings of every strategy, chosen on selection rows; "
        f"right: all as configured ({tune['as_configured']})",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("strategy", overflow="fold")
    keys = {key: None for values in tune["settings"].values() for key in values}
    for key in keys:
        table.add_column(HEADINGS[key], justify="right")
    titles = TITLES_OF_LABELS if has_label_sets(common) else TITLES
    for heading in (f"selection\n{titles[metric]}", f"configured\n{titles[common['metric']]}"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(f"minus {common['baseline']}\n95 % interval", justify="right", no_wrap=True)
    for name in by_metric(result["validation"]):
        of_common = common["strategies"][name]
        table.add_row(
            name,
            *(_chosen_values(tune, name, key) for key in keys),
            pages.decimals(chosen_score(tune, name)),
            spread_words(of_common["figures"][common["metric"]]),
            baseline_words(of_common["against_baseline"]).replace(" [", "\n["),
        )
    console.print(table)
    for line in (*tune["edges"], *_failures(tune)):
        console.print(line, soft_wrap=not console.is_terminal)


def _chosen_values(tune: dict[str, Any], name: str, key: str) -> str:
    """Return the value of a key that a strategy chose, or those of its folds."""
    values = (tune["settings"][each].get(key) for each in tune["strategies"][name]["chosen"])
    return " ".join(dict.fromkeys("config" if value is None else shown(value) for value in values))


def _failures(tune: dict[str, Any]) -> list[str]:
    return [f"failed: {group}: {reason}" for group, reason in tune["failed"].items()]


def chosen_score(tune: dict[str, Any], name: str) -> float:
    """Return the selection score of the setting that a strategy chose; the mean over its folds.

    Each fold counts with the score that its setting has over all folds.
    """
    of = tune["strategies"][name]
    return float(np.mean([of["scores"][setting]["mean"] for setting in of["chosen"]]))


def trials(tune: dict[str, Any], names: list[str]) -> list[dict[str, Any]]:
    """Return a row for each strategy with its trials; shades are relative to all trials.

    Trials that failed are None.
    """
    scores = {name: tune["strategies"][name]["scores"] for name in names}
    means = [score["mean"] for of in scores.values() for score in of.values()]
    low, width = min(means), (max(means) - min(means)) or 1
    return [
        {
            "name": name,
            "setting": settings_words(tune, name),
            "cells": [
                scores[name][setting]
                | {
                    "shade": 0.6 * (scores[name][setting]["mean"] - low) / width,
                    "is_chosen": setting in tune["strategies"][name]["chosen"],
                }
                if setting in scores[name]
                else None
                for setting in tune["settings"]
            ],
        }
        for name in names
    ]
