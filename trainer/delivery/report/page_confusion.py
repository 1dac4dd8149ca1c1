"""The confusion matrix of a run's page, and the most frequent confusions."""

from typing import Any

import numpy as np

from trainer.display.shown_confusion import shown_confusion
from trainer.evaluation.confusion import Confusion
from trainer.run_folder.finished_run import FinishedRun

MOST_CONFUSIONS = 15
MOST_CLASSES_WITH_NUMBERS = 20
"""With more classes the matrix has no numbers, and long tables are folded."""


def confusion_of(run: FinishedRun) -> dict[str, Any]:
    """Return the entries of the matrix to draw, and sizes in pixels; the largest class first.

    The matrix is drawn by the page itself and is no picture, so that each entry has a tooltip.
    """
    found = shown_confusion(run.final["confusion_matrix"], run.labels, run.by_size)
    num_classes = len(found.counts)
    has_numbers = num_classes <= MOST_CLASSES_WITH_NUMBERS
    ids = {label: c for c, label in enumerate(run.labels)}
    by_size = np.array([ids[label] for label in run.by_size])
    return {
        "labels": found.shown.labels,
        "columns": found.columns,
        "shown": found.shown.sentence("metrics.json"),
        "cells": [
            (y, x, int(found.counts[y, x]), float(found.shares[y, x]))
            for y, x in np.argwhere(found.counts).tolist()
        ],
        "numbers": has_numbers,
        "size": 44 if num_classes <= 10 else 32 if has_numbers else 14,
        "margin": 12 + 7 * min(24, max(map(len, found.columns))),
        "most": _most_frequent(found.whole, run.labels, by_size),
    }


def _most_frequent(
    found: Confusion, labels: list[str], by_size: Any
) -> list[tuple[str, str, int, float]]:
    """Return (true, predicted, rows, share of the true class) of the most frequent confusions."""
    rank_C, support_C = np.argsort(by_size), found.support_C
    wrong = np.flatnonzero(found.true_L != found.predicted_L)
    true_L, predicted_L, counts_L = (
        values[wrong] for values in (found.true_L, found.predicted_L, found.counts_L)
    )
    first = np.lexsort((rank_C[predicted_L], rank_C[true_L], -counts_L))[:MOST_CONFUSIONS]
    return [
        (labels[t], labels[g], int(count), float(count / support_C[t]))
        for t, g, count in zip(true_L[first], predicted_L[first], counts_L[first], strict=True)
    ]
