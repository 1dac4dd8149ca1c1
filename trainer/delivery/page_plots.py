"""The curves of our pages: each narrow enough to be read on a phone, side by side on a desk. Names of classes stand in the page, not in the picture."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, precision_recall_curve

from trainer.delivery.drawing import AFTER, BEFORE, GRID, INK, whole_epochs

COLORS = ("#1f6fb2", "#d1495b", "#2e8b57", "#e0902c", "#7a5195", "#17808f", "#8c6d46", "#c2559c", "#5f6f7f", "#a3a500")
MOST_POINTS = 120
NUM_BINS = 15
"""Bins of the reliability diagram, as many as the ECE has."""
WIDTH, HEIGHT = 4.4, 3.1
"""Inches: at 350 pixels, a phone, text of 10 points is 11 pixels high."""


def losses(epochs: list[dict[str, float]]) -> Figure:
    """Training and validation loss over the epochs, or over the fits of a head."""
    figure, axis = _epoch_axes(epochs, "loss (nats)")
    x = [row["epoch"] for row in epochs]
    axis.plot(x, [row["training_loss"] for row in epochs], "o-", color=BEFORE, label="training (weighted as configured)")
    axis.plot(x, [row["validation_loss"] for row in epochs], "o-", color=AFTER, label="validation (unweighted)")
    axis.legend(frameon=False, fontsize=8)
    return figure


def scores(epochs: list[dict[str, float]], saved_step: int | None) -> Figure:
    """Validation accuracy, macro F1 and recall of the rarest class; a ring around the model that was saved."""
    figure, axis = _epoch_axes(epochs, "validation")
    x = [row["epoch"] for row in epochs]
    for name, color, words in (("accuracy", BEFORE, "accuracy"), ("macro_f1", AFTER, "macro F1"), ("minority_recall", COLORS[3], "recall of the rarest class")):
        axis.plot(x, [row[name] for row in epochs], "o-", color=color, label=words)
    for row in epochs:
        if row["step"] == saved_step:
            axis.plot([row["epoch"]], [row["macro_f1"]], "o", ms=11, mfc="none", mec=INK, label="saved model")
    axis.legend(frameon=False, fontsize=8)
    return figure


def overlaid(runs: list[list[dict[str, float]]], column: str, title: str) -> Figure:
    """One column of epochs.csv of several runs; a run without it has no line."""
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    for number, epochs in enumerate(runs):
        if epochs:
            axis.plot([row["epoch"] for row in epochs], [row[column] for row in epochs], "o-", ms=4, color=color_of(number))
    whole_epochs(axis, [row["epoch"] for epochs in runs for row in epochs])
    return _dressed(figure, axis, title, "epoch, or fit of a head")


def color_of(number: int) -> str:
    """Color of one of several lines."""
    return COLORS[number % len(COLORS)]


def average_precisions(targets: NDArray[Any], p_NC: NDArray[np.float64]) -> list[float | None]:
    """Average precision of each class against the rest; None without rows of it.

    Args:
        targets: label id of each row (N,), or which labels it has (N, C).
    """
    held_NC = held(targets, p_NC.shape[1])
    return [float(average_precision_score(held_NC[:, c], p_NC[:, c])) if held_NC[:, c].any() else None for c in range(p_NC.shape[1])]


def held(targets: NDArray[Any], num_classes: int) -> NDArray[np.bool_]:
    """Which class, or classes, each row has, (N, C)."""
    return targets[:, None] == np.arange(num_classes) if targets.ndim == 1 else targets.astype(bool)


def precision_recall(targets: NDArray[Any], p_NC: NDArray[np.float64], shown: list[int], pale: list[int]) -> Figure:
    """Precision against recall, a line for each class; the curves of `shown` in the colors of their place there, those of `pale` behind them."""
    held_NC = held(targets, p_NC.shape[1])
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT + 0.4), layout="constrained")
    for place, c in [*((None, c) for c in pale), *enumerate(shown)]:
        precision, recall, _ = precision_recall_curve(held_NC[:, c], p_NC[:, c])
        kept = _thinned(recall)
        color, width = (GRID, 1.0) if place is None else (color_of(place), 1.8)
        axis.plot(recall[kept], precision[kept], color=color, lw=width, drawstyle="steps-post")
    axis.set_xlim(0, 1.02)
    axis.set_ylim(0, 1.03)
    axis.set_ylabel("precision")
    return _dressed(figure, axis, "one class against the rest", "recall")


def _thinned(recall: NDArray[np.float64]) -> NDArray[np.int64]:
    """Positions of at most MOST_POINTS points, even in recall, which falls; of equal recalls the last, which average precision counts."""
    return np.unique(np.searchsorted(-recall, np.linspace(-1, 0, MOST_POINTS), side="right") - 1)


def reliability(targets: NDArray[Any], p_NC: NDArray[np.float64]) -> Figure:
    """How often the model is right against how sure it says it is, and how often it is how sure.

    Of multi-label rows every answer counts by itself: yes from 0.5, no below.
    """
    if targets.ndim > 1:
        sure_N, right_N = np.maximum(p_NC, 1 - p_NC).ravel(), ((p_NC >= 0.5) == targets).ravel()
    else:
        sure_N, right_N = p_NC.max(axis=1), p_NC.argmax(axis=1) == targets
    sure_N = sure_N.clip(0, 1)
    accuracies, confidences = calibration_curve(right_N, sure_N, n_bins=NUM_BINS)
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(WIDTH, HEIGHT + 1), height_ratios=[3, 1], sharex=True, layout="constrained")
    upper.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", label="as sure as right")
    upper.vlines(confidences, confidences, accuracies, color=AFTER, lw=2)
    upper.plot(confidences, accuracies, "o", color=AFTER)
    upper.set_xlim(0, 1.02)
    upper.set_ylim(0, 1.03)
    upper.set_ylabel("share that is right")
    upper.legend(frameon=False, fontsize=8, loc="upper left")
    lower.hist(sure_N, bins=NUM_BINS, range=(0, 1), rwidth=0.8, color=AFTER)
    lower.set_ylabel("rows" if targets.ndim == 1 else "answers")
    _dressed(figure, upper, "", "")
    return _dressed(figure, lower, "", "how sure")


def _epoch_axes(epochs: list[dict[str, float]], title: str) -> tuple[Figure, Any]:
    figure, axis = plt.subplots(figsize=(WIDTH, HEIGHT), layout="constrained")
    whole_epochs(axis, [row["epoch"] for row in epochs])
    return _dressed(figure, axis, title, "fit, from strong to weak L2 penalty" if "l2" in epochs[0] else "epoch"), axis


def _dressed(figure: Figure, axis: Any, title: str, x_label: str) -> Figure:
    axis.set_title(title, loc="left", fontsize=10)
    axis.set_xlabel(x_label)
    axis.grid(color=GRID)
    axis.spines[["top", "right"]].set_visible(False)
    return figure
