"""Choose the classes and numbers of a confusion matrix that a picture or a page shows."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.arrays import Array
from trainer.display.shown_classes import Shown, worst_and_predicted
from trainer.evaluation.confusion import Confusion

OTHERS = "all others"
"""Heading of the last column, which counts the predicted classes that are not shown."""


@dataclass(frozen=True)
class ShownConfusion:
    """A confusion matrix, cut to the classes that are shown.

    Attributes:
        counts: rows of each shown true class (lines) by predicted class (columns).
        shares: the same as shares of the true class.
    """

    whole: Confusion
    shown: Shown
    columns: list[str]
    counts: Array
    shares: Array


def shown_confusion(matrix: Any, labels: list[str], order: list[str]) -> ShownConfusion:
    """Return the lines and columns to show: of many classes, the worst and the most predicted.

    Args:
        matrix: the matrix in either form of metrics.json.
        order: the labels in the order in which they are shown.
    """
    whole = Confusion.read(matrix, len(labels))
    scores = zip(labels, whole.f1_C.tolist(), whole.support_C.tolist(), strict=True)
    per_class = {label: {"f1": f1, "support": support} for label, f1, support in scores}
    predicted = dict(zip(labels, whole.given_C.tolist(), strict=True))
    shown = worst_and_predicted(order, per_class, predicted)
    ids = {label: c for c, label in enumerate(labels)}
    order_ids = np.array([ids[label] for label in shown.labels])
    counts = whole.among(order_ids)
    shares = counts / np.maximum(1, whole.support_C[order_ids])[:, None]
    columns = [*shown.labels, OTHERS] if shown.words else shown.labels
    return ShownConfusion(whole, shown, columns, counts, shares)
