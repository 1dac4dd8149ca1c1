"""The curves of our pages: each narrow enough to be read on a phone, side by side on a desk. Names of classes stand in the page, not in the picture."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.display.drawing import AFTER, BEFORE, GRID, INK, whole_epochs
from trainer.evaluation.blocks import Rows, column, column_blocks, release
from trainer.evaluation.ranking import average_precision

COLORS = (
    "#1f6fb2",
    "#d1495b",
    "#2e8b57",
    "#e0902c",
    "#7a5195",
    "#17808f",
    "#8c6d46",
    "#c2559c",
    "#5f6f7f",
    "#a3a500",
)
MOST_POINTS = 120
NUM_BINS = 15
"""Bins of the reliability diagram, as many as the ECE has."""
WIDTH, HEIGHT = 4.4, 3.1
"""Inches: at 350 pixels, a phone, text of 10 points is 11 pixels high."""


def losses(epochs: list[dict[str, float]]) -> Figure:
    """Training and validation loss over the epochs, or over the fits of a head."""
    figure, axis = _epoch_axes(epochs, "loss (nats)")
    x = [row["epoch"] for row in epochs]
    axis.plot(
        x,
        [row["training_loss"] for row in epochs],
        "o-",
        color=BEFORE,
        label="training (weighted as configured)",
    )
    axis.plot(
        x,
        [row["validation_loss"] for row in epochs],
        "o-",
        color=AFTER,
        label="validation (unweighted)",
    )
    axis.legend(frameon=False, fontsize=8)
    return figure


def scores(epochs: list[dict[str, float]], saved_step: int | None) -> Figure:
    """Validation accuracy, macro F1 and recall of the rarest class; a ring around the model that was saved."""
    figure, axis = _epoch_axes(epochs, "validation")
    x = [row["epoch"] for row in epochs]
    for name, color, words in (
        ("accuracy", BEFORE, "accuracy"),
        ("macro_f1", AFTER, "macro F1"),
        ("minority_recall", COLORS[3], "recall of the rarest class"),
    ):
        axis.plot(x, [row[name] for row in epochs], "o-", color=color, label=words)
    for row in epochs:
        if row["step"] == saved_step:
            axis.plot(
                [row["epoch"]],
                [row["macro_f1"]],
                "o",
                ms=11,
                mfc="none",
                mec=INK,
                label="saved model",
            )
    axis.legend(frameon=False, fontsize=8)
    return figure


def overlaid(runs: list[list[dict[str, float]]], column: str, title: str) -> Figure:
    """One column of epochs.csv of several runs; a run without it has no line."""
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    for number, epochs in enumerate(runs):
        if epochs:
            axis.plot(
                [row["epoch"] for row in epochs],
                [row[column] for row in epochs],
                "o-",
                ms=4,
                color=color_of(number),
            )
    whole_epochs(axis, [row["epoch"] for epochs in runs for row in epochs])
    return _dressed(figure, axis, title, "epoch, or fit of a head")


def color_of(number: int) -> str:
    """Color of one of several lines."""
    return COLORS[number % len(COLORS)]


def average_precisions(targets: Array, p_NC: Rows) -> list[float | None]:
    """Average precision of each class against the rest; None without rows of it.

    Args:
        targets: label id of each row (N,), or which labels it has (N, C).
    """
    found: list[float | None] = []
    for start, p_NB in column_blocks(p_NC):
        for place in range(p_NB.shape[1]):
            is_own_N = held(targets, start + place)
            found.append(average_precision(is_own_N, p_NB[:, place]) if is_own_N.any() else None)
        release(targets)
    return found


def held(targets: Array, c: int) -> Bools:
    """Which rows have a class."""
    return np.asarray(targets == c if targets.ndim == 1 else targets[:, c].astype(bool))


def precision_recall(targets: Array, p_NC: Rows, shown: list[int], pale: list[int]) -> Figure:
    """Precision against recall, a line for each class; the curves of `shown` in the colors of their place there, those of `pale` behind them."""
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT + 0.4), layout="constrained")
    for place, c in [*((None, c) for c in pale), *enumerate(shown)]:
        precision, recall, _ = precision_recall_curve(held(targets, c), column(p_NC, c))
        kept = _thinned(recall)
        color, width = (GRID, 1.0) if place is None else (color_of(place), 1.8)
        axis.plot(recall[kept], precision[kept], color=color, lw=width, drawstyle="steps-post")
    axis.set_xlim(0, 1.02)
    axis.set_ylim(0, 1.03)
    axis.set_ylabel("precision")
    return _dressed(figure, axis, "one class against the rest", "recall")


def _thinned(recall: Floats) -> Ints:
    """Positions of at most MOST_POINTS points, even in recall, which falls; of equal recalls the last, which average precision counts."""
    return np.unique(np.searchsorted(-recall, np.linspace(-1, 0, MOST_POINTS), side="right") - 1)


def reliability(confidences: Iterable[tuple[Array, Bools]], what: str) -> Figure:
    """How often the model is right against how sure it says it is, and how often it is how sure.

    Args:
        confidences: how sure, and whether right, in blocks.
        what: what is counted: rows, or answers.
    """
    edges = np.linspace(0, 1, NUM_BINS + 1)
    sure_A, right_A, counts_A, heights_A = np.zeros((4, NUM_BINS))
    for sure_N, is_right_N in confidences:
        p_N = np.asarray(sure_N, np.float64).clip(0, 1)
        bins_N = np.searchsorted(edges[1:-1], p_N)  # as scikit-learn's calibration_curve
        for total_A, values_N in (
            (sure_A, p_N),
            (right_A, is_right_N),
            (counts_A, np.ones(len(p_N))),
        ):
            total_A += np.bincount(bins_N, values_N, NUM_BINS)
        heights_A += np.histogram(p_N, edges)[0]
    filled = counts_A > 0
    confidences_A, accuracies_A = (
        sure_A[filled] / counts_A[filled],
        right_A[filled] / counts_A[filled],
    )
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(WIDTH, HEIGHT + 1), height_ratios=[3, 1], sharex=True, layout="constrained"
    )
    upper.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", label="as sure as right")
    upper.vlines(confidences_A, confidences_A, accuracies_A, color=AFTER, lw=2)
    upper.plot(confidences_A, accuracies_A, "o", color=AFTER)
    upper.set_xlim(0, 1.02)
    upper.set_ylim(0, 1.03)
    upper.set_ylabel("share that is right")
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    lower.bar(edges[:-1] + 0.5 / NUM_BINS, heights_A, width=0.8 / NUM_BINS, color=AFTER)
    lower.set_ylabel(what)
    _dressed(figure, upper, "", "")
    return _dressed(figure, lower, "", "how sure")


def _epoch_axes(epochs: list[dict[str, float]], title: str) -> tuple[Figure, Any]:
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    whole_epochs(axis, [row["epoch"] for row in epochs])
    return _dressed(
        figure, axis, title, "fit, from strong to weak L2 penalty" if "l2" in epochs[0] else "epoch"
    ), axis


def _dressed(figure: Figure, axis: Any, title: str, x_label: str) -> Figure:
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel(x_label)
    axis.grid(color=GRID)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
