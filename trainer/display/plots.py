"""The pictures of a run folder, as matplotlib figures."""

from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from trainer.data.summary import DataSummary
from trainer.display.drawing import AFTER, BEFORE, GRID, INK, whole_epochs
from trainer.display.shown_classes import (
    OTHERS,
    Shown,
    largest_and_rarest,
    worst_and_predicted,
    worst_classes,
)
from trainer.evaluation.confusion import Confusion
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation

MOST_CLASSES_WITH_NUMBERS = 30


def class_distribution(audit: DataSummary) -> Figure:
    """Rows of each class: training before and after balancing, and each other split."""
    shown = largest_and_rarest(
        [audit.labels[c] for c in np.argsort(-audit.natural_C, kind="stable")]
    )
    places = {label: c for c, label in enumerate(audit.labels)}
    order = np.array([places[label] for label in shown.labels])
    names = [_short(label) for label in shown.labels]
    others = [name for name in audit.counts if name not in ("train", "drawn")]
    height = max(2.6, 0.42 * len(names) + 1.3)
    widths = [2.2, *[1.0] * len(others)]
    figure, axes = plt.subplots(
        1,
        1 + len(others),
        figsize=(5.6 + 2.4 * len(others), height),
        width_ratios=widths,
        squeeze=False,
    )
    y = np.arange(len(names))
    first = axes[0][0]
    _bars(first, y - 0.19, audit.natural_C[order], 0.36, BEFORE, "before balancing")
    _bars(
        first, y + 0.19, audit.counts["drawn"][order], 0.36, AFTER, "after: rows seen in an epoch"
    )
    title = f"{next(iter(audit.columns)).split()[0]} (imbalance ratio {audit.imbalance_ratio:.3g}, {audit.severity})"
    first.set_title(_titled(title, shown), loc="left", fontsize=10)
    figure.legend(
        *first.get_legend_handles_labels(), frameon=False, fontsize=8, loc="lower left", ncols=2
    )
    for axis, name in zip(axes[0][1:], others, strict=True):
        _bars(axis, y, audit.counts[name][order], 0.6, BEFORE, name)
        axis.set_title(name, loc="left", fontsize=10)
    for index, axis in enumerate(axes[0]):
        axis.set_yticks(y, names if index == 0 else [])
        axis.invert_yaxis()
        axis.set_xlabel("rows")
        axis.grid(axis="x", color=GRID)
        axis.margins(x=0.16)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout(rect=(0, 0.24 / height, 1, 1))
    return figure


def _bars(axis: Any, y: Any, values: Any, height: float, color: str, label: str) -> None:
    bars = axis.barh(y, values, height=height, color=color, label=label)
    axis.bar_label(bars, labels=[f"{int(v):,}" for v in values], padding=3, fontsize=8)


def _short(name: str) -> str:
    return name if len(name) <= 28 else f"{name[:27]}…"


def class_counts(counts: dict[str, int], split: str) -> Figure:
    """Rows of each class, the largest on top."""
    shown = largest_and_rarest(sorted(counts, key=lambda label: -counts[label]))
    values = [counts[label] for label in shown.labels]
    figure, axis = _class_axes(shown)
    _bars(axis, np.arange(len(values)), values, 0.66, AFTER, split)
    axis.set_xlabel(f"rows in {split}")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.margins(x=0.12)
    return figure


def class_lengths(lengths: dict[str, dict[str, float]], unit: str) -> Figure:
    """Length of each class: line from 5 to 95 %, dot at the median."""
    shown = largest_and_rarest(sorted(lengths, key=lambda label: -lengths[label]["rows"]))
    ordered = [(label, lengths[label]) for label in shown.labels]
    figure, axis = _class_axes(shown)
    y = np.arange(len(ordered))
    axis.hlines(
        y,
        [values["p5"] for _, values in ordered],
        [values["p95"] for _, values in ordered],
        color=BEFORE,
        lw=5,
    )
    axis.plot([values["median"] for _, values in ordered], y, "o", color=AFTER, ms=7)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"{unit}: median, and 5 to 95 % of the rows")
    return figure


def _titled(title: str, shown: Shown) -> str:
    """A title that says which classes are shown, where they are not all."""
    return "\n".join(filter(None, [title, shown.words]))


def _class_axes(shown: Shown) -> tuple[Figure, Any]:
    """A figure with one line per class, the first on top."""
    labels = shown.labels
    line = 0.34 if len(labels) <= MOST_CLASSES_WITH_NUMBERS else 0.22
    figure, axis = plt.subplots(
        figsize=(7.6, max(1.6, line * len(labels) + 0.8)), layout="constrained"
    )
    axis.set_yticks(np.arange(len(labels)), [_short(label) for label in labels])
    axis.set_ylim(len(labels) - 0.4, -0.6)
    axis.set_title(shown.words, loc="left", fontsize=10)
    axis.grid(axis="x", color=GRID)
    axis.tick_params(length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
    return figure, axis


def learning_curves(rows: list[dict[str, float]], best_step: int | None) -> Figure:
    """Training and validation loss, and accuracy against macro F1, over the epochs, or over the fits of a head."""
    epochs = [row["epoch"] for row in rows]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
    left.plot(
        epochs,
        [row["training_loss"] for row in rows],
        "o-",
        color=BEFORE,
        label="training (weighted as configured)",
    )
    left.plot(
        epochs,
        [row["validation_loss"] for row in rows],
        "o-",
        color=AFTER,
        label="validation (unweighted)",
    )
    left.set_title("loss (nats)", loc="left", fontsize=10)
    right.plot(epochs, [row["accuracy"] for row in rows], "o-", color=BEFORE, label="accuracy")
    right.plot(epochs, [row["macro_f1"] for row in rows], "o-", color=AFTER, label="macro F1")
    right.set_title("validation", loc="left", fontsize=10)
    for row in rows:
        if row["step"] == best_step:
            right.plot(
                [row["epoch"]],
                [row["macro_f1"]],
                "o",
                ms=11,
                mfc="none",
                mec=INK,
                label="saved model",
            )
    for axis in (left, right):
        axis.set_xlabel("fit, from strong to weak L2 penalty" if "l2" in rows[0] else "epoch")
        whole_epochs(axis, epochs)
        axis.grid(color=GRID)
        axis.legend(frameon=False, fontsize=8)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    return figure


def results(evaluation: AnyEvaluation, split: str) -> tuple[str, Figure]:
    """File name and picture of what a model did on one split."""
    if isinstance(evaluation, MultiLabelEvaluation):
        return "label_scores.png", label_scores(evaluation, split)
    return "confusion_matrix.png", confusion(evaluation.confusion_matrix, evaluation.labels, split)


def label_scores(evaluation: MultiLabelEvaluation, split: str) -> Figure:
    """F1 and average precision of each label, those with the most rows first."""
    by_size = sorted(
        evaluation.per_class, key=lambda label: -evaluation.per_class[label]["support"]
    )
    shown = worst_classes(by_size, evaluation.per_class)
    per_class = [(label, evaluation.per_class[label]) for label in shown.labels]
    height = max(2.6, 0.42 * len(per_class) + 1.3)
    figure, axis = plt.subplots(figsize=(7, height))
    y = np.arange(len(per_class))
    for offset, key, color, name in (
        (-0.19, "f1", AFTER, "F1"),
        (0.19, "average_precision", BEFORE, "average precision"),
    ):
        bars = axis.barh(
            y + offset,
            [values[key] for _, values in per_class],
            height=0.36,
            color=color,
            label=name,
        )
        axis.bar_label(bars, fmt="%.2f", padding=3, fontsize=8)
    axis.axvline(
        evaluation.macro_f1,
        color=INK,
        lw=1,
        ls=":",
        zorder=0,
        label=f"macro F1 {evaluation.macro_f1:.3f}",
    )
    axis.set_yticks(y, [f"{_short(label)} ({values['support']:,})" for label, values in per_class])
    axis.invert_yaxis()
    axis.set_xlim(0, 1.08)
    title = f"{split}: {evaluation.num_rows:,} rows; in brackets the rows with each label"
    axis.set_title(_titled(title, shown), loc="left", fontsize=10)
    axis.grid(axis="x", color=GRID)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(
        *axis.get_legend_handles_labels(), frameon=False, fontsize=8, loc="lower left", ncols=3
    )
    figure.tight_layout(rect=(0, 0.24 / height, 1, 1))
    return figure


def confusion(matrix: Any, labels: list[str], split: str) -> Figure:
    """Confusion matrix: shares of each true class as shades, rows as numbers.

    Args:
        matrix: as metrics.json holds it, in either form.
    """
    found = Confusion.read(matrix, len(labels))
    support_C, given_C, f1_C = found.support_C, found.given_C, found.f1_C
    per_class = {label: {"f1": f1_C[c], "support": support_C[c]} for c, label in enumerate(labels)}
    shown = worst_and_predicted(labels, per_class, dict(zip(labels, given_C.tolist(), strict=True)))
    places = {label: c for c, label in enumerate(labels)}
    ids = np.array([places[label] for label in shown.labels])
    counts = found.among(ids)
    names = [_short(label) for label in shown.labels]
    columns = [*names, OTHERS] if shown.words else names
    shares = counts / np.maximum(1, support_C[ids])[:, None]
    has_numbers = len(names) <= MOST_CLASSES_WITH_NUMBERS
    side = max(3.6, (0.55 if has_numbers else 0.34) * len(names) + 2.0)
    figure, axis = plt.subplots(figsize=(side + 1, side))
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    is_turned = max(map(len, columns)) > 6
    axis.set_xticks(
        range(len(columns)),
        columns,
        rotation=45 if is_turned else 0,
        ha="right" if is_turned else "center",
    )
    axis.set_yticks(range(len(names)), names)
    if has_numbers:
        for (row, column), count in np.ndenumerate(counts):
            axis.text(
                column,
                row,
                f"{count:,}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if shares[row, column] > 0.55 else INK,
            )
    axis.set_xlabel("predicted")
    axis.set_ylabel("true")
    axis.set_title(
        _titled(f"{split}: {int(support_C.sum()):,} rows", shown), loc="left", fontsize=10
    )
    figure.colorbar(image, ax=axis, fraction=0.046, label="share of the true class")
    figure.tight_layout()
    return figure
