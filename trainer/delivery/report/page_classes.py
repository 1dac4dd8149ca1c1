"""The tables of a run's page: figures by split, and counts, results and decisions by class."""

from typing import Any

from trainer.delivery.report.page_intervals import class_intervals
from trainer.display.figure_words import train_rows_words
from trainer.display.shown_classes import (
    MOST_IN_PAGE,
    MOST_IN_PICTURE,
    MOST_NAMED,
    Shown,
    largest_and_rarest,
)
from trainer.errors import listing
from trainer.evaluation.intervals import Resampled
from trainer.run_folder.finished_run import FinishedRun

DECISION_COLUMNS = {
    "training_prior": "share in training",
    "target_prior": "expected share",
    "thresholds": "threshold",
    "shift": "added to the score",
}
"""{key of metrics.json: heading}."""


def results(run: FinishedRun) -> list[tuple[str, dict[str, Any]]]:
    """Return (heading, figures) of each split, with the decision and by the model alone."""
    columns = []
    for split in reversed(run.splits):
        decided = run.metrics.get("decision", {}).get(split)
        columns += [(f"{split}, with the decision", decided)] if decided else []
        columns.append((f"{split}, model alone" if decided else split, run.metrics[split]))
    return columns


def group_rows(run: FinishedRun) -> list[dict[str, Any]]:
    """Return the results of frequent and rare classes; empty without groups."""
    alone = run.metrics[run.split].get("per_group", {})
    return [
        {"name": name, **group, "rows": train_rows_words(group), "alone": alone[name]["macro_f1"]}
        for name, group in run.final.get("per_group", {}).items()
    ]


def class_rows(
    run: FinishedRun, shown: Shown, resampled: Resampled | None, precisions: dict[str, float | None]
) -> list[dict[str, Any]]:
    """Return the results of each class that is shown."""
    final, alone = run.final["per_class"], run.metrics[run.split]["per_class"]
    intervals, thresholds = class_intervals(run, resampled), label_thresholds(run)
    return [
        {
            "label": label,
            **final[label],
            "threshold": thresholds.get(label),
            "f1_interval": intervals.get(label),
            "f1_alone": alone[label]["f1"] if "decision" in run.metrics else None,
            "average_precision": precisions[label],
        }
        for label in shown.labels
    ]


def label_thresholds(run: FinishedRun) -> dict[str, float]:
    """Return {label: probability from which a row gets it}; empty unless a run fitted them."""
    found: dict[str, float] = run.metrics.get("decision", {}).get("thresholds", {})
    return found if run.is_multi_label else {}


def distribution(run: FinishedRun) -> dict[str, Any] | None:
    """Return the rows of each class by split, before and after balancing, the largest class first.

    The bars of the training columns have one scale; those of validation and test have their own.
    """
    if run.facts is None:
        return None
    labels, columns = run.facts["labels"], run.facts["columns"]
    first = next(iter(columns.values()))
    ids = {label: c for c, label in enumerate(labels)}
    shown = largest_and_rarest(sorted(labels, key=lambda label: -first[ids[label]]), MOST_IN_PAGE)
    widest = {heading: max(1, *counts) for heading, counts in columns.items()}
    training = [heading for heading in columns if heading not in ("validation", "test")]
    widest |= dict.fromkeys(training, max([1, *(widest[heading] for heading in training)]))
    return {
        "headings": list(columns),
        "totals": run.facts["totals"],
        "widest": [widest[heading] for heading in columns],
        "rows": [
            (label, [counts[ids[label]] for counts in columns.values()]) for label in shown.labels
        ],
        "shown": shown.sentence("report.json"),
    }


def answers(run: FinishedRun, shown: Shown) -> list[dict[str, Any]]:
    """Return how often each label is rightly given, missed and wrongly given (multi-label)."""
    if not run.is_multi_label or run.predictions is None:
        return []
    right_C, missed_C, wrong_C = (counts_C.tolist() for counts_C in run.predictions.answers())
    ids = {label: c for c, label in enumerate(run.labels)}
    return [
        {"label": label, "right": right_C[c], "missed": missed_C[c], "wrong": wrong_C[c]}
        for label, c in ((label, ids[label]) for label in shown.labels)
    ]


def decided(run: FinishedRun) -> dict[str, Any] | None:
    """Return the decision by class, as columns, or None without a decision."""
    decision = run.metrics.get("decision")
    if decision is None:
        return None
    names = DECISION_COLUMNS.items()
    return {
        "temperature": decision["temperature"],
        "costs": decision.get("costs") if len(run.labels) <= MOST_IN_PICTURE else None,
        "has_costs": "costs" in decision,
        "neutral": listing(decision.get("neutral", []), MOST_NAMED),
        "columns": {heading: decision[name] for name, heading in names if name in decision},
    }
