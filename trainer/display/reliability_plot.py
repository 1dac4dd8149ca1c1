"""Draw reliability diagrams: accuracy by confidence."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from trainer.arrays import Array, Bools
from trainer.display.drawing import AFTER, BEFORE, HEIGHT, INK, WIDTH

if TYPE_CHECKING:
    from trainer.evaluation.outcome import Outcome

NUM_BINS = 15
"""As the calibration error has; its module is not imported here, since it loads torch."""
Bin = tuple[float, float, int]
"""Mean confidence, accuracy and number of rows."""


def calibration(outcome: "Outcome") -> list[dict[str, Any]]:
    """Return the diagrams of report.json: of the model alone, and with the decision."""
    from trainer.evaluation.metrics import Evaluation, calibration_bins

    assert isinstance(outcome.alone, Evaluation), "multi-label data have no calibration error"
    assert isinstance(outcome.final, Evaluation), "multi-label data have no calibration error"
    sides = [
        ("model alone", outcome.alone_log_p_NC, outcome.alone.ece),
        ("with the decision", outcome.log_p_NC, outcome.final.ece),
    ]
    return [
        {"title": title, "ece": ece, "bins": calibration_bins(log_p_NC, outcome.label_ids_N)}
        for title, log_p_NC, ece in sides
    ]


def bins_of(confidences: Iterable[tuple[Array, Bools]]) -> list[Bin]:
    """Return the bins that hold rows, of equal width as those of the calibration error.

    Args:
        confidences: (confidences, whether they were right) in blocks of rows.
    """
    sums_3A = np.zeros((3, NUM_BINS))
    for confidence_N, is_right_N in confidences:
        bins_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
        values = np.asarray(confidence_N, np.float64), is_right_N, None
        sums_3A += [np.bincount(bins_N, weights, NUM_BINS) for weights in values]
    return [
        (confidence / rows, right / rows, int(rows))
        for confidence, right, rows in sums_3A.T.tolist()
        if rows
    ]


def reliability(sides: dict[str, list[Bin]], counted: str = "rows") -> Figure:
    """Draw accuracy by confidence, above the number of rows by confidence.

    Args:
        sides: {title: bins} of one diagram, or of two side by side.
        counted: what a bin counts: rows or answers.
    """
    figure = Figure(figsize=(WIDTH * len(sides), HEIGHT + 1), layout="constrained")
    axes = figure.subplots(
        2, len(sides), height_ratios=[3, 1], sharex=True, sharey="row", squeeze=False
    )
    for (upper, lower), (title, bins), color in zip(
        axes.T, sides.items(), (BEFORE, AFTER)[-len(sides) :], strict=True
    ):
        confidences, accuracies, rows = zip(*bins, strict=True)
        upper.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--", label="perfectly calibrated")
        upper.vlines(confidences, confidences, accuracies, color=color, lw=2)
        upper.plot(confidences, accuracies, "o", color=color)
        upper.set(title=title, xlim=(0, 1.02), ylim=(0, 1.03))
        places = [min(int(c * NUM_BINS), NUM_BINS - 1) + 0.5 for c in confidences]
        lower.bar(np.divide(places, NUM_BINS), rows, width=0.8 / NUM_BINS, color=color)
        lower.set_xlabel("confidence")
        upper.grid()
        lower.grid()
    axes[0][0].set_ylabel("accuracy")
    axes[1][0].set_ylabel(counted)
    axes[0][0].legend(loc="upper left")
    return figure
