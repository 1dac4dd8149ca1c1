"""Draw counts, lengths and results by class."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from trainer.data.summary import DataSummary
from trainer.display.drawing import AFTER, BEFORE, INK
from trainer.display.shown_classes import Shown, largest_and_rarest, worst_classes
from trainer.display.shown_confusion import shown_confusion
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation

MOST_CLASSES_WITH_NUMBERS = 30
MOST_CHARACTERS = 28
"""Longest class name in a picture."""


def class_distribution(audit: DataSummary) -> Figure:
    """Draw rows by class: of training data before and after balancing, and of the other splits."""
    shown = largest_and_rarest(
        [audit.labels[c] for c in np.argsort(-audit.natural_C, kind="stable")]
    )
    order = [audit.labels.index(label) for label in shown.labels]
    others = [name for name in audit.counts if name not in ("train", "drawn")]
    size = 5.6 + 2.4 * len(others), max(2.6, 0.42 * len(order) + 1.3)
    figure = Figure(figsize=size, layout="constrained")
    first, *axes = figure.subplots(
        1, 1 + len(others), width_ratios=[2.2, *[1.0] * len(others)], squeeze=False
    )[0]
    trained_on = next(iter(audit.columns)).split()[0]
    title = f"{trained_on} (imbalance ratio {audit.imbalance_ratio:.3g}, {audit.severity})"
    _draw_lines(first, shown.labels, _titled(title, shown))
    natural, drawn = audit.natural_C[order], audit.counts["drawn"][order]
    _draw_bars(first, natural, BEFORE, "before balancing", height=0.36, offset=-0.19)
    _draw_bars(first, drawn, AFTER, "after: rows seen in an epoch", height=0.36, offset=0.19)
    for axis, name in zip(axes, others, strict=True):
        _draw_lines(axis, [""] * len(order), name)
        _draw_bars(axis, audit.counts[name][order], BEFORE, name)
    for axis in (first, *axes):
        axis.set_xlabel("rows")
        axis.margins(x=0.16)
    figure.legend(*first.get_legend_handles_labels(), loc="outside lower left", ncols=2)
    return figure


def class_counts(counts: dict[str, int], split: str) -> Figure:
    """Draw the rows of each class, the largest class on top."""
    shown = largest_and_rarest(sorted(counts, key=lambda label: -counts[label]))
    figure, axis = _class_figure(shown)
    _draw_bars(axis, [counts[label] for label in shown.labels], AFTER, split)
    axis.set_xlabel(f"rows in {split}")
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.margins(x=0.12)
    return figure


def co_occurrence(labels: list[str], shares: list[list[float]]) -> Figure:
    """Draw which share of the rows of one label have another one too.

    Args:
        shares: a line for each label, with the share of its rows for each label.
    """
    side = max(3.2, 0.3 * len(labels) + 2.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    others = np.array(shares)
    np.fill_diagonal(others, np.nan)  # every row of a label has it
    image = axis.imshow(100 * others, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axis.spines[:].set_visible(True)
    names = [_short(label) for label in labels]
    axis.set_xticks(range(len(names)), names, rotation=45, rotation_mode="xtick")
    axis.set_yticks(range(len(names)), names)
    for row, column in zip(*np.nonzero(others >= 0.1), strict=True):
        color = "white" if others[row, column] > 0.55 else INK
        text = f"{100 * others[row, column]:.0f}"
        axis.text(column, row, text, ha="center", va="center", size=7, color=color)
    axis.set(xlabel="that have this label too", ylabel="share of the rows of this label")
    figure.colorbar(image, ax=axis, fraction=0.046, label="%")
    return figure


def class_lengths(lengths: dict[str, dict[str, float]], unit: str) -> Figure:
    """Draw the text lengths of each class: a dot at the median, a line from 5 to 95 %."""
    shown = largest_and_rarest(sorted(lengths, key=lambda label: -lengths[label]["rows"]))
    figure, axis = _class_figure(shown)
    low, middle, high = (
        [lengths[label][name] for label in shown.labels] for name in ("p5", "median", "p95")
    )
    y = range(len(shown.labels))
    axis.hlines(y, low, high, color=BEFORE, lw=5)
    axis.plot(middle, y, "o", color=AFTER, ms=7)
    axis.set_xlim(left=0)
    axis.set_xlabel(f"{unit}: median, and 5 to 95 % of the rows")
    return figure


def results(evaluation: AnyEvaluation, split: str) -> tuple[str, Figure]:
    """Return the file name and the picture of the results on one split."""
    if isinstance(evaluation, MultiLabelEvaluation):
        return "label_scores.png", label_scores(evaluation, split)
    return "confusion_matrix.png", confusion(evaluation.confusion_matrix, evaluation.labels, split)


def label_scores(evaluation: MultiLabelEvaluation, split: str) -> Figure:
    """Draw F1 and average precision of each label, the label with the most rows on top."""
    per_class = evaluation.per_class
    shown = worst_classes(
        sorted(per_class, key=lambda label: -per_class[label]["support"]), per_class
    )
    figure = Figure(figsize=(7, max(2.6, 0.42 * len(shown.labels) + 1.3)), layout="constrained")
    axis = figure.subplots()
    names = [f"{_short(label)} ({per_class[label]['support']:,})" for label in shown.labels]
    title = f"{split}: {evaluation.num_rows:,} rows; in brackets the rows with each label"
    _draw_lines(axis, names, _titled(title, shown))
    f1, precision = (
        [per_class[label][name] for label in shown.labels] for name in ("f1", "average_precision")
    )
    _draw_bars(axis, f1, AFTER, "F1", height=0.36, offset=-0.19, form="{:.2f}")
    name = "average precision"
    _draw_bars(axis, precision, BEFORE, name, height=0.36, offset=0.19, form="{:.2f}")
    label = f"macro F1 {evaluation.macro_f1:.3f}"
    axis.axvline(evaluation.macro_f1, color=INK, lw=1, ls=":", zorder=0, label=label)
    axis.set_xlim(0, 1.08)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    return figure


def confusion(matrix: Any, labels: list[str], split: str) -> Figure:
    """Draw a confusion matrix: shades are shares of the true class, numbers are rows.

    Args:
        matrix: the matrix in either form of metrics.json.
    """
    found = shown_confusion(matrix, labels, labels)
    names, columns = map(_short, found.shown.labels), [_short(name) for name in found.columns]
    has_numbers = len(found.counts) <= MOST_CLASSES_WITH_NUMBERS
    side = max(3.6, (0.55 if has_numbers else 0.34) * len(found.counts) + 2.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(found.shares, cmap="Blues", vmin=0, vmax=1)
    axis.spines[:].set_visible(True)
    axis.set_xticks(range(len(columns)), columns)
    if max(map(len, columns)) > 6:
        axis.tick_params(axis="x", rotation=45, rotation_mode="xtick")
    axis.set_yticks(range(len(found.counts)), [*names])
    if has_numbers:
        for (row, column), count in np.ndenumerate(found.counts):
            color = "white" if found.shares[row, column] > 0.55 else INK
            axis.text(column, row, f"{count:,}", ha="center", va="center", size=8, color=color)
    num_rows = int(found.whole.support_C.sum())
    axis.set(xlabel="predicted", ylabel="true")
    axis.set_title(_titled(f"{split}: {num_rows:,} rows", found.shown))
    figure.colorbar(image, ax=axis, fraction=0.046, label="share of the true class")
    return figure


def _class_figure(shown: Shown) -> tuple[Figure, Any]:
    """Return a figure with one line per class."""
    line = 0.34 if len(shown.labels) <= MOST_CLASSES_WITH_NUMBERS else 0.22
    size = 7.6, max(1.6, line * len(shown.labels) + 0.8)
    figure = Figure(figsize=size, layout="constrained")
    axis = figure.subplots()
    _draw_lines(axis, shown.labels, shown.words)
    return figure, axis


def _draw_lines(axis: Any, names: list[str], title: str) -> None:
    """Name the lines of a chart, the first on top."""
    axis.set_yticks(range(len(names)), [_short(name) for name in names])
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.set_title(title)
    axis.grid(axis="x")


def _draw_bars(
    axis: Any,
    values: Any,
    color: str,
    label: str,
    *,
    height: float = 0.66,
    offset: float = 0.0,
    form: str = "{:,.0f}",
) -> None:
    """Draw one bar per line, with its value."""
    y = np.arange(len(values)) + offset
    bars = axis.barh(y, values, height=height, color=color, label=label)
    axis.bar_label(bars, fmt=form, padding=3, fontsize=8)


def _titled(title: str, shown: Shown) -> str:
    """Return a title with a second line that says which classes are shown, if not all are."""
    return "\n".join(filter(None, [title, shown.words]))


def _short(name: str) -> str:
    return name if len(name) <= MOST_CHARACTERS else f"{name[: MOST_CHARACTERS - 1]}…"
