"""Draw learning curves and precision-recall curves.

Each chart is narrow enough for a phone; a desktop shows charts side by side. Class names are in the
page and not in the picture.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.display.drawing import (
    AFTER,
    BEFORE,
    COLORS,
    GRID,
    HEIGHT,
    INK,
    WIDTH,
    color_of,
    mark_epochs,
)
from trainer.evaluation.blocks import Rows, column, column_blocks, release
from trainer.evaluation.ranking import average_precision

MOST_POINTS = 120
CHARTS = {
    "loss (nats)": (
        ("training_loss", BEFORE, "training (weighted as configured)"),
        ("validation_loss", AFTER, "validation (unweighted)"),
    ),
    "validation": (
        ("accuracy", BEFORE, "accuracy"),
        ("macro_f1", AFTER, "macro F1"),
        ("minority_recall", COLORS[3], "recall of the rarest class"),
    ),
}
"""{title: (column of epochs.csv, color, label) of each line} of the learning curves."""


def learning_curves(
    epochs: list[dict[str, float]], saved_step: int | None, titles: Sequence[str] = (*CHARTS,)
) -> Figure:
    """Draw losses and validation scores by epoch, or by fit of a head, as charts side by side.

    Args:
        epochs: lines of epochs.csv.
        saved_step: step of the saved model, which gets a ring.
        titles: the charts to draw.
    """
    figure = Figure(figsize=(WIDTH * len(titles), HEIGHT), layout="constrained")
    x = [row["epoch"] for row in epochs]
    for axis, title in zip(figure.subplots(1, len(titles), squeeze=False)[0], titles, strict=True):
        for name, color, label in CHARTS[title]:
            axis.plot(x, [row[name] for row in epochs], "o-", color=color, label=label)
        saved = [row for row in epochs if row["step"] == saved_step and title == "validation"]
        for row in saved:
            ring = {"ms": 11, "mfc": "none", "mec": INK, "label": "saved model"}
            axis.plot([row["epoch"]], [row["macro_f1"]], "o", **ring)
        axis.set(
            title=title, xlabel="fit, from strong to weak L2" if "l2" in epochs[0] else "epoch"
        )
        mark_epochs(axis, x)
        axis.grid()
        axis.legend()
    return figure


def overlaid(runs: list[list[dict[str, float]]], name: str, title: str) -> Figure:
    """Draw one column of epochs.csv of several runs; a run without epochs has no line."""
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    axis = figure.subplots()
    for number, epochs in enumerate(runs):
        if epochs:
            points = [row["epoch"] for row in epochs], [row[name] for row in epochs]
            axis.plot(*points, "o-", ms=4, color=color_of(number))
    mark_epochs(axis, [row["epoch"] for epochs in runs for row in epochs])
    axis.set(title=title, xlabel="epoch, or fit of a head")
    axis.grid()
    return figure


def average_precisions(targets: Array, p_NC: Rows) -> list[float | None]:
    """Return the average precision of each class against the rest; None for a class without rows.

    Args:
        targets: label id of each row (N,), or flags of its labels (N, C).
    """
    found: list[float | None] = []
    for start, p_NB in column_blocks(p_NC):
        for place in range(p_NB.shape[1]):
            is_own_N = _is_of_class(targets, start + place)
            found.append(average_precision(is_own_N, p_NB[:, place]) if is_own_N.any() else None)
        release(targets)
    return found


def _is_of_class(targets: Array, c: int) -> Bools:
    """Return which rows have a class."""
    return np.asarray(targets == c if targets.ndim == 1 else targets[:, c].astype(bool))


def precision_recall(targets: Array, p_NC: Rows, colored: list[int], pale: list[int]) -> Figure:
    """Draw precision against recall, one line per class; the `pale` classes are behind."""
    figure = Figure(figsize=(WIDTH, HEIGHT + 0.4), layout="constrained")
    axis = figure.subplots()
    lines = [*((c, GRID, 1.0) for c in pale)]
    lines += [(c, color_of(place), 1.8) for place, c in enumerate(colored)]
    for c, color, width in lines:
        precision, recall, _ = precision_recall_curve(_is_of_class(targets, c), column(p_NC, c))
        kept = _thinned(recall)
        axis.plot(recall[kept], precision[kept], color=color, lw=width, drawstyle="steps-post")
    axis.set(title="one class against the rest", xlabel="recall", ylabel="precision")
    axis.set(xlim=(0, 1.02), ylim=(0, 1.03))
    axis.grid()
    return figure


def _thinned(recall: Floats) -> Ints:
    """Return the positions of at most MOST_POINTS points, spaced evenly in the falling recall.

    Of equal recalls the last is kept, which is the one that average precision counts.
    """
    return np.unique(np.searchsorted(-recall, np.linspace(-1, 0, MOST_POINTS), side="right") - 1)
