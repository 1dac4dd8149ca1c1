"""The tables that a run shows in the terminal."""

from pathlib import Path

import numpy as np
from rich.table import Table

from trainer.data.prepared_data import PreparedData
from trainer.data.summary import Lengths, special_words
from trainer.display.shown_classes import MOST_IN_TERMINAL, largest_and_rarest, worst_and_rarest
from trainer.display.terminal import console
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation
from trainer.evaluation.outcome import Outcome
from trainer.evaluation.scores import over_classes


def print_audit(data: PreparedData, lengths: dict[str, Lengths], max_length: int) -> None:
    """Rows of each class by split, before and after balancing; lengths; what cleaning dropped."""
    audit, dropped = data.summary, data.clean.counts
    table = Table(
        title=f"Rows by class: imbalance ratio {audit.imbalance_ratio:.3g} ({audit.severity})",
        title_justify="left",
    )
    table.add_column("label")
    for heading in audit.columns:
        table.add_column(heading, justify="right")
    by_size = [audit.labels[c] for c in np.argsort(-audit.natural_C, kind="stable")]
    shown = largest_and_rarest(
        by_size if len(by_size) > MOST_IN_TERMINAL else audit.labels, MOST_IN_TERMINAL
    )
    ids = {label: c for c, label in enumerate(audit.labels)}
    for label in shown.labels:
        table.add_row(
            label,
            *(
                share(int(counts_C[ids[label]]), audit.totals[heading])
                for heading, counts_C in audit.columns.items()
            ),
        )
    table.add_section()
    table.add_row("all", *(f"{total:,}" for total in audit.totals.values()))
    console.print(table)
    if shown.words:
        console.print(f"Shown: {shown.words}.")
    if data.labels_per_row:
        console.print(data.labels_per_row)
    if data.balanced_sentence:
        console.print(data.balanced_sentence)
    for sentence in data.clean.sentences:
        console.print(sentence)
    gone = [
        f"{count:,} {reason}" for reason, count in dropped.items() if count and reason != "kept"
    ]
    console.print(
        f"Cleaning: {dropped['kept']:,} rows kept; {'; '.join(gone) or 'nothing dropped'}."
    )
    if data.time_sentence:
        console.print(data.time_sentence)
    if data.streamed_sentence:
        console.print(data.streamed_sentence)
    elif data.unused_rows:
        console.print(
            f"Left out by data.limit or by balancing the pool: {data.unused_rows:,} rows."
        )
    for name, length in lengths.items():
        console.print(f"{name}: {length.sentence(max_length)}.")
    if words := special_words(lengths):
        console.print(words)


def share(count: int, total: int) -> str:
    """A count with its share of the total."""
    return f"{count:,} ({count / max(1, total):.1%})"


def print_results(outcomes: dict[str, Outcome], folder: Path, model: str) -> None:
    """Results of every split, alone and with the decision, by domain, and where the run and its model or models lie."""
    for name, outcome in outcomes.items():
        print_evaluation(outcome.alone, name)
        if outcome.decided:
            fitted = "cross-fitted" if name == "validation" else "fitted on validation"
            print_evaluation(outcome.decided, f"{name} with the decision ({fitted})")
        if outcome.domains:
            _print_domains(outcome.domains, name)
    console.print(f"Run folder: {folder}  (model card: {folder / 'README.md'}, model: {model})")


def print_evaluation(evaluation: AnyEvaluation, split: str) -> None:
    """Headline and per-class results of one split."""
    over = over_classes(evaluation.per_class)
    table = Table(
        title=f"{split}: macro F1 {evaluation.macro_f1:.4f}{over} on {evaluation.num_rows:,} rows",
        title_justify="left",
    )
    table.add_column("label")
    for name in next(iter(evaluation.per_class.values())):
        table.add_column(name.replace("_", " ").replace("f1", "F1"), justify="right")
    shown = worst_and_rarest(list(evaluation.per_class), evaluation.per_class, MOST_IN_TERMINAL)
    for label in shown.labels:
        values = evaluation.per_class[label]
        table.add_row(
            label, *(class_figure(name, value, values["support"]) for name, value in values.items())
        )
    console.print(table)
    if shown.words:
        console.print(shown.sentence("metrics.json"))
    if isinstance(evaluation, MultiLabelEvaluation):
        console.print(
            f"micro F1 {evaluation.micro_f1:.4f}, weighted F1 {evaluation.weighted_f1:.4f}, samples F1 {evaluation.samples_f1:.4f}, mean average precision "
            f"{evaluation.mean_average_precision:.4f}, subset accuracy {evaluation.accuracy:.4f}, Hamming loss {evaluation.hamming_loss:.4f}, "
            f"loss {evaluation.loss:.4f}"
        )
        return
    console.print(
        f"weighted F1 {evaluation.weighted_f1:.4f} (gap {evaluation.f1_gap:+.4f}), balanced accuracy {evaluation.balanced_accuracy:.4f}, "
        f"accuracy {evaluation.accuracy:.4f}, MCC {evaluation.mcc:.4f}, AUROC {evaluation.auroc_macro:.4f}, loss {evaluation.loss:.4f}, "
        f"ECE {evaluation.ece:.4f}, Brier {evaluation.brier:.4f}"
    )


def class_figure(name: str, value: float, support: float) -> str:
    """A figure of one class as text; a dash where the class has no row, which measures nothing."""
    return f"{value:,}" if name == "support" else f"{value:.4f}" if support else "-"


def _print_domains(domains: dict[str, AnyEvaluation], split: str) -> None:
    table = Table(title=f"{split} by domain", title_justify="left")
    table.add_column("domain")
    multi_label = isinstance(next(iter(domains.values())), MultiLabelEvaluation)
    for name in (
        "rows",
        "macro F1",
        "accuracy",
        "micro F1" if multi_label else "balanced accuracy",
    ):
        table.add_column(name, justify="right")
    for domain, e in domains.items():
        third = e.micro_f1 if isinstance(e, MultiLabelEvaluation) else e.balanced_accuracy
        table.add_row(
            domain, f"{e.num_rows:,}", f"{e.macro_f1:.4f}", f"{e.accuracy:.4f}", f"{third:.4f}"
        )
    console.print(table)
