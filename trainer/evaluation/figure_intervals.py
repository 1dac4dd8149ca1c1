"""95 % intervals of the figures of one split, by bootstrap over its rows."""

from collections.abc import Mapping
from typing import Any

from trainer.evaluation.intervals import Interval, Resampled, interval

LEAST_ROWS = 20
"""A class with fewer rows has no interval, and neither has a mean over classes that includes it.

Resampling so few rows varies too little. In simulations (twelve sets of 2 to 40 classes, recall 0.6
to 0.97, 400 to 600 test splits each), 95 % intervals of macro F1 contained the true value in 90 to
98 % of the splits with 20 rows or more in each class, and in 88 to 93 % with 500/300/40/20/10/5/3
rows. Of two equally good models, 4 to 8 % differed with 20 rows or more. Balanced accuracy does as
well, except for rare classes with nearly perfect recall: 49 % with 500/20 rows and recall 0.97.
"""
PerClass = Mapping[str, Mapping[str, Any]]
"""{label: its figures, with `support`}, in the order of the label ids."""


def figure_intervals(
    per_class: PerClass, minority_label: str | None, resampled: Resampled, place: int = 0
) -> dict[str, Interval | None]:
    """Return {figure: its interval, or None if a class is too small}.

    Args:
        minority_label: the class of `minority_recall`; None without such a class.
        place: place of the model among the resampled models.
    """
    small = too_small(per_class)
    found = {
        "macro_f1": None if small else interval(resampled.macro_f1_BR[:, place]),
        "micro_f1": interval(resampled.micro_f1_BR[:, place]),
        "accuracy": interval(resampled.accuracy_BR[:, place]),
        "balanced_accuracy": None if small else interval(resampled.macro_recall_BR[:, place]),
    }
    if minority_label is not None:
        recall_B = resampled.recall_BRC[:, place, list(per_class).index(minority_label)]
        found["minority_recall"] = None if minority_label in small else interval(recall_B)
    return found


def f1_intervals(
    per_class: PerClass, resampled: Resampled, place: int = 0
) -> dict[str, Interval | None]:
    """Return {label: interval of its F1, or None if the class is too small}."""
    return {
        label: interval(resampled.f1_BRC[:, place, label_id])
        if figures["support"] >= LEAST_ROWS
        else None
        for label_id, (label, figures) in enumerate(per_class.items())
    }


def too_small(per_class: PerClass) -> list[str]:
    """Return the classes that have rows, but fewer than an interval needs."""
    return [label for label, figures in per_class.items() if 0 < figures["support"] < LEAST_ROWS]
