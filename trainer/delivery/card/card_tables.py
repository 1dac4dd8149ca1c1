"""The Markdown tables of model cards."""

import re
from typing import Any

import numpy as np

from trainer.data.prepared_data import PreparedData
from trainer.display.figure_words import train_rows_words
from trainer.display.pages import decimals
from trainer.display.shown_classes import (
    MOST_IN_CARD,
    Shown,
    largest_and_rarest,
    worst_and_rarest,
)
from trainer.display.tables import class_figure
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation
from trainer.evaluation.outcome import Outcome

SUMMARY = (
    "loss",
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "f1_gap",
    "macro_precision",
    "balanced_accuracy",
    "mcc",
    "auroc_macro",
    "ece",
    "brier",
)
MULTI_LABEL_SUMMARY = (
    "loss",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "f1_gap",
    "mean_average_precision",
    "hamming_loss",
)


def summary_figures(evaluation: AnyEvaluation) -> tuple[str, ...]:
    """Return the names of the figures of a whole split."""
    return MULTI_LABEL_SUMMARY if isinstance(evaluation, MultiLabelEvaluation) else SUMMARY


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; all columns but the first are aligned to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def as_text(text: str) -> str:
    """Return one line of Markdown that shows a text as it is: labels may contain anything."""
    return re.sub(r"([\\`*_\[\]<>!|#$~])", r"\\\1", " ".join(text.split()))


def note(shown: Shown, where: str) -> str:
    """Return a paragraph on which classes a table shows; empty if it shows all."""
    return f"\n\n{shown.sentence(f'`{where}`')}" if shown.words else ""


def counts_table(data: PreparedData) -> str:
    """Return the rows of each class by split, before and after balancing."""
    shown = Shown(data.labels)
    if len(data.labels) > MOST_IN_CARD:
        by_size = np.argsort(-data.summary.natural_C, kind="stable")
        shown = largest_and_rarest([data.labels[c] for c in by_size], MOST_IN_CARD)
    ids = {label: c for c, label in enumerate(data.labels)}
    rows = [
        [
            as_text(label),
            *(f"{counts_C[ids[label]]:,}" for counts_C in data.summary.columns.values()),
        ]
        for label in shown.labels
    ]
    return markdown_table(["label", *data.summary.columns], rows) + note(shown, "report.json")


def summary_table(outcome: Outcome, plain: AnyEvaluation | None = None) -> str:
    """Return the figures of one split: of the model alone, the decision, and `pipeline()`."""
    summary = summary_figures(outcome.final)
    sides = {
        "model alone" if outcome.decided else "model": outcome.alone,
        "with the decision": outcome.decided,
        "plain `pipeline()`": plain,
    }
    return markdown_table(
        ["", *(name.replace("_", " ") for name in summary)],
        [
            [side, *(f"{getattr(evaluation, name):.4f}" for name in summary)]
            for side, evaluation in sides.items()
            if evaluation
        ],
    )


def domain_table(domains: dict[str, AnyEvaluation]) -> str:
    """Return the figures of each domain."""
    is_multi_label = isinstance(next(iter(domains.values())), MultiLabelEvaluation)
    names = ("macro_f1", "accuracy", "micro_f1" if is_multi_label else "balanced_accuracy")
    rows = [
        [as_text(domain), f"{e.num_rows:,}", *(f"{getattr(e, name):.4f}" for name in names)]
        for domain, e in domains.items()
    ]
    return markdown_table(["domain", "rows", *(name.replace("_", " ") for name in names)], rows)


def group_table(groups: dict[str, dict[str, Any]]) -> str:
    """Return the results of frequent and rare classes; empty without groups."""
    rows = [
        [
            name,
            f"{group['num_classes']:,}",
            train_rows_words(group),
            f"{group['support']:,}",
            *(decimals(group[figure], 4) for figure in ("macro_f1", "micro_f1") if figure in group),
        ]
        for name, group in groups.items()
    ]
    is_multi_label = any("micro_f1" in group for group in groups.values())
    kinds = "labels" if is_multi_label else "classes"
    headings = [f"{kinds} by training rows", kinds, "training rows", "support"]
    figures = ["macro F1", "micro F1"] if is_multi_label else ["macro F1"]
    return markdown_table([*headings, *figures], rows) if rows else ""


def class_table(evaluation: AnyEvaluation) -> str:
    """Return the results of each class."""
    per_class = evaluation.per_class
    names = list(next(iter(per_class.values())))
    shown = worst_and_rarest(list(per_class), per_class, MOST_IN_CARD)
    rows = [
        [
            as_text(label),
            *(
                class_figure(name, per_class[label][name], per_class[label]["support"])
                for name in names
            ),
        ]
        for label in shown.labels
    ]
    headings = [name.replace("_", " ").replace("f1", "F1") for name in names]
    return markdown_table(["label", *headings], rows) + note(shown, "metrics.json")
