"""The confusion matrix of a page: the cells to draw, of a bounded number of classes, and the most frequent confusions of all."""

from typing import Any

import numpy as np

from trainer.display.shown_classes import OTHERS, worst_and_predicted
from trainer.evaluation.confusion import Confusion
from trainer.run_folder.finished_run import FinishedRun

MOST_CONFUSIONS = 15
MOST_CLASSES_WITH_NUMBERS = 20
"""Above it the matrix is shades alone, and long tables are folded."""


def confusion_of(run: FinishedRun) -> dict[str, Any]:
    """Cells of the matrix that hold rows, and where to draw them; classes with the most rows first.

    Of many classes the most predicted ones and those with the lowest F1 are drawn, and in a last column what else their rows were taken for.
    """
    found = Confusion.read(run.final["confusion_matrix"], len(run.labels))
    by_size = run.by_size
    predicted = dict(zip(run.labels, found.given_C.tolist(), strict=True))
    shown = worst_and_predicted(by_size, run.final["per_class"], predicted)
    class_ids = {label: c for c, label in enumerate(run.labels)}
    order = np.array([class_ids[label] for label in shown.labels])
    counts = found.among(order)
    columns = [*shown.labels, OTHERS] if shown.words else shown.labels
    sums = np.maximum(1, found.support_C[order]).tolist()
    numbers = len(order) <= MOST_CLASSES_WITH_NUMBERS
    return {
        "labels": shown.labels,
        "columns": columns,
        "shown": shown.sentence("metrics.json"),
        "cells": [
            (y, x, int(counts[y, x]), int(counts[y, x]) / sums[y])
            for y, x in np.argwhere(counts).tolist()
        ],
        "numbers": numbers,
        "size": 44 if len(order) <= 10 else 32 if numbers else 14,
        "margin": 12 + 7 * min(24, max(map(len, columns))),
        "most": _most_frequent(
            found, run.labels, np.array([class_ids[label] for label in by_size])
        ),
    }


def _most_frequent(
    found: Confusion, labels: list[str], by_size: Any
) -> list[tuple[str, str, int, float]]:
    """(true, predicted, rows, share of the true class) of the cells of most rows that are wrong; of equals the larger classes first."""
    rank_C, support_C = np.argsort(by_size), found.support_C
    wrong = np.flatnonzero(found.true_L != found.predicted_L)
    true_L, predicted_L, counts_L = (
        values[wrong] for values in (found.true_L, found.predicted_L, found.counts_L)
    )
    first = np.lexsort((rank_C[predicted_L], rank_C[true_L], -counts_L))[:MOST_CONFUSIONS]
    cells = zip(true_L[first], predicted_L[first], counts_L[first], strict=True)
    return [
        (labels[t], labels[g], int(count), float(count / support_C[t])) for t, g, count in cells
    ]
