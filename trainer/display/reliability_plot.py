"""The reliability picture of a run, of bins that its report.json holds."""

from typing import Any

from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from trainer.display.drawing import AFTER, BEFORE, GRID, INK
from trainer.evaluation.metrics import NUM_BINS, Evaluation, calibration_bins
from trainer.evaluation.outcome import Outcome


def calibration(outcome: Outcome) -> list[dict[str, Any]]:
    """What the picture shows, as plain values: the model alone, then with the decision; bins as of `calibration_bins`."""
    assert isinstance(outcome.alone, Evaluation), "multi-label data have no decision"
    assert isinstance(outcome.final, Evaluation), "multi-label data have no decision"
    sides = [
        ("model alone", outcome.alone_log_p_NC, outcome.alone.ece),
        ("with the decision", outcome.log_p_NC, outcome.final.ece),
    ]
    return [
        {"title": title, "ece": ece, "bins": calibration_bins(log_p_NC, outcome.label_ids_N)}
        for title, log_p_NC, ece in sides
    ]


def reliability(sides: list[dict[str, Any]], split: str) -> Figure:
    """How often the model is right against how sure it says it is, without and with the decision, and how sure it mostly is.

    Args:
        sides: as of `calibration`.
    """
    figure, axes = plt.subplots(
        2, 2, figsize=(8.6, 5.4), height_ratios=[3, 1], sharex=True, sharey="row"
    )
    for (upper, lower), side, color in zip(axes.T, sides, (BEFORE, AFTER), strict=True):
        confidences, accuracies, rows = zip(*side["bins"], strict=True)
        upper.plot(
            [0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--", label="as sure as right"
        )
        upper.vlines(confidences, confidences, accuracies, color=color, linewidth=2)
        upper.plot(confidences, accuracies, "o", color=color)
        upper.set_title(f"{split}, {side['title']}: ECE {side['ece']:.3f}", loc="left", fontsize=10)
        upper.set_xlim(0, 1.02)
        upper.set_ylim(0, 1.02)
        lower.bar(
            [(int(c * NUM_BINS) + 0.5) / NUM_BINS for c in confidences],
            rows,
            width=0.8 / NUM_BINS,
            color=color,
        )
        lower.set_xlabel("probability of the predicted class")
        for axis in (upper, lower):
            axis.grid(color=GRID)
            axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("share that is right")
    axes[1][0].set_ylabel("rows")
    axes[0][0].legend(frameon=False, fontsize=8, loc="upper left")
    figure.tight_layout()
    return figure
