"""Print the tables of a run: class counts before training, results after it."""

from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from trainer.data.prepared_data import PreparedData
from trainer.data.summary import Lengths, special_words
from trainer.display.figure_words import TITLES, TITLES_OF_LABELS, train_rows_words
from trainer.display.pages import decimals
from trainer.display.shown_classes import (
    MOST_IN_TERMINAL,
    MOST_NAMED,
    largest_and_rarest,
    share,
    worst_and_rarest,
)
from trainer.display.terminal import console
from trainer.errors import listing
from trainer.evaluation.figure_intervals import LEAST_ROWS, too_small
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation
from trainer.evaluation.outcome import Outcome
from trainer.evaluation.scores import over_classes
from trainer.training.length import ENDED_EARLY

TOTALS = (
    "weighted F1 {0.weighted_f1:.4f} (gap {0.f1_gap:+.4f}),"
    " balanced accuracy {0.balanced_accuracy:.4f}, accuracy {0.accuracy:.4f}, MCC {0.mcc:.4f},"
    " AUROC {0.auroc_macro:.4f}, loss {0.loss:.4f}, ECE {0.ece:.4f}, Brier {0.brier:.4f}"
)
MULTI_LABEL_TOTALS = (
    "micro F1 {0.micro_f1:.4f}, weighted F1 {0.weighted_f1:.4f}, samples F1 {0.samples_f1:.4f},"
    " mean average precision {0.mean_average_precision:.4f}, subset accuracy {0.accuracy:.4f},"
    " Hamming loss {0.hamming_loss:.4f}, loss {0.loss:.4f}"
)


def print_audit(data: PreparedData, lengths: dict[str, Lengths], max_length: int) -> None:
    """Print the rows of each class by split, what cleaning dropped, and text lengths."""
    _print_counts(data)
    dropped = data.clean.counts
    gone = [
        f"{count:,} {reason}" for reason, count in dropped.items() if count and reason != "kept"
    ]
    unused = f"Left out by data.limit or by balancing the pool: {data.unused_rows:,} rows."
    for sentence in (
        data.labels_per_row,
        data.balanced_sentence,
        *data.clean.sentences,
        f"Cleaning: {dropped['kept']:,} rows kept; {'; '.join(gone) or 'nothing dropped'}.",
        data.time_sentence,
        data.streamed_sentence or (unused if data.unused_rows else ""),
        *(f"{name}: {length.sentence(max_length)}." for name, length in lengths.items()),
        special_words(lengths),
    ):
        if sentence:
            console.print(sentence)


def _print_counts(data: PreparedData) -> None:
    """Print the table of rows by class and split."""
    audit = data.summary
    title = f"Rows by class: imbalance ratio {audit.imbalance_ratio:.3g} ({audit.severity})"
    table = Table("label", title=title, title_justify="left")
    for heading in audit.columns:
        table.add_column(heading, justify="right")
    by_size = [audit.labels[c] for c in np.argsort(-audit.natural_C, kind="stable")]
    is_cut = len(by_size) > MOST_IN_TERMINAL
    shown = largest_and_rarest(by_size if is_cut else audit.labels, MOST_IN_TERMINAL)
    ids = {label: c for c, label in enumerate(audit.labels)}
    for label in shown.labels:
        counts = (
            share(int(counts_C[ids[label]]), audit.totals[heading])
            for heading, counts_C in audit.columns.items()
        )
        table.add_row(label, *counts)
    table.add_section()
    table.add_row("all", *(f"{total:,}" for total in audit.totals.values()))
    console.print(table)
    if shown.words:
        console.print(f"Shown: {shown.words}.")


def print_results(outcomes: dict[str, Outcome], folder: Path, model: str) -> None:
    """Print the results of every split, and where the run and its model are."""
    for name, outcome in outcomes.items():
        print_evaluation(outcome.alone, name)
        if outcome.decided:
            fitted = "cross-fitted" if name == "validation" else "fitted on validation"
            print_evaluation(outcome.decided, f"{name} with the decision ({fitted})")
        if outcome.domains:
            _print_domains(outcome.domains, name)
    places = f"(model card: {folder / 'README.md'}, model: {model})"
    console.print(f"Run folder: {folder}  {places}", soft_wrap=True)  # paths stay whole


def print_training_length(length: dict[str, Any] | None) -> None:
    """Print that a training ended while it still improved, and the remedy.

    Args:
        length: `training.length` of metrics.json; None for a head on a frozen encoder.
    """
    if length and length["words"]:
        console.print(f"{ENDED_EARLY}. {length['words']}")


def print_evaluation(evaluation: AnyEvaluation, split: str) -> None:
    """Print the results of one split, by class and in total."""
    macro_f1 = f"macro F1 {evaluation.macro_f1:.4f}{over_classes(evaluation.per_class)}"
    title = f"{split}: {macro_f1} on {evaluation.num_rows:,} rows"
    table = Table("label", title=title, title_justify="left")
    for name in next(iter(evaluation.per_class.values())):
        table.add_column(name.replace("_", " ").replace("f1", "F1"), justify="right")
    shown = worst_and_rarest(list(evaluation.per_class), evaluation.per_class, MOST_IN_TERMINAL)
    for label in shown.labels:
        values = evaluation.per_class[label]
        figures = (class_figure(name, value, values["support"]) for name, value in values.items())
        table.add_row(label, *figures)
    console.print(table)
    if shown.words:
        console.print(shown.sentence("metrics.json"))
    is_multi_label = isinstance(evaluation, MultiLabelEvaluation)
    console.print((MULTI_LABEL_TOTALS if is_multi_label else TOTALS).format(evaluation))


def print_intervals(intervals: dict[str, Any], evaluation: AnyEvaluation) -> None:
    """Print the 95 % intervals of the figures of one split, and why some have none.

    Args:
        intervals: {figure: interval or None}.
    """
    titles = TITLES_OF_LABELS if isinstance(evaluation, MultiLabelEvaluation) else TITLES
    words = [
        f"{titles[name]} {found[0]:.4f} to {found[1]:.4f}"
        for name, found in intervals.items()
        if name in titles and found
    ]
    if words:
        console.print(f"95 % intervals (other rows): {', '.join(words)}.")
    if small := too_small(evaluation.per_class):
        fewer = f"fewer than {LEAST_ROWS} rows"
        verb = "has" if len(small) == 1 else "have"
        console.print(
            f"Macro averages have no interval, since {listing(small, MOST_NAMED)} {verb} {fewer}."
        )


def print_groups(groups: dict[str, dict[str, Any]]) -> None:
    """Print the results of frequent and rare classes, if there are groups."""
    if not groups:
        return
    figures = [name for name in ("macro_f1", "micro_f1") if name in next(iter(groups.values()))]
    kinds = "labels" if "micro_f1" in figures else "classes"
    table = Table(kinds, title=f"Frequent and rare {kinds}", title_justify="left")
    for heading in ("number", "training rows", *(TITLES[name] for name in figures), "support"):
        table.add_column(heading, justify="right")
    for name, group in groups.items():
        shown = (decimals(group[figure], 4) for figure in figures)
        number, support = f"{group['num_classes']:,}", f"{group['support']:,}"
        table.add_row(name, number, train_rows_words(group), *shown, support)
    console.print(table)


def class_figure(name: str, value: float, support: float) -> str:
    """Return a figure of one class as text, or a dash if the class has no row."""
    return f"{value:,}" if name == "support" else f"{value:.4f}" if support else "-"


def _print_domains(domains: dict[str, AnyEvaluation], split: str) -> None:
    is_multi_label = isinstance(next(iter(domains.values())), MultiLabelEvaluation)
    table = Table("domain", title=f"{split} by domain", title_justify="left")
    third = "micro F1" if is_multi_label else "balanced accuracy"
    for name in ("rows", "macro F1", "accuracy", third):
        table.add_column(name, justify="right")
    for domain, e in domains.items():
        last = e.micro_f1 if isinstance(e, MultiLabelEvaluation) else e.balanced_accuracy
        figures = (f"{value:.4f}" for value in (e.macro_f1, e.accuracy, last))
        table.add_row(domain, f"{e.num_rows:,}", *figures)
    console.print(table)
