"""The findings of an audit as tables in the terminal."""

from typing import Any

from rich.table import Table

from trainer.audit.findings import Findings
from trainer.display.shown_classes import largest_and_rarest, share
from trainer.display.terminal import console

MOST_CLASSES = 30
MOST_ROWS = 10
MOST_CHARACTERS = 90


def print_findings(findings: Findings) -> None:
    """Print classes, cleaning, near duplicates, doubtful labels and advice, as on the page."""
    _print_classes(findings.classes)
    for sentence in [*findings.cleaning["remarks"], *_sentences(findings)]:
        console.print(sentence)
    if findings.label_noise:
        _print_noise(findings.label_noise)
    if tokens := findings.lengths["tokens"]:
        console.print(
            f"Length: {tokens['truncated_ratio']:.1%} of the rows are truncated at the model's"
            " max_length."
        )
    for note in findings.notes:
        console.print(f"Note: {note}")
    for obstacle in findings.obstacles:
        console.print(f"Training would stop: {obstacle}")
    for number, advice in enumerate(findings.advice, start=1):
        settings = "; ".join(advice.settings.splitlines())
        rule = f"Rule {advice.rule}: {advice.condition}.{f' Try {settings}' if settings else ''}"
        console.print(f"{number}. {advice.text}\n   {rule}")
    console.print(f"Then measure which method helps on these rows: {findings.measure}")


def _print_classes(classes: dict[str, Any]) -> None:
    counts = classes["counts"]
    table = Table(
        title=f"Rows by class: imbalance ratio {classes['imbalance_ratio']:.3g}"
        f" ({classes['severity']}, {classes['measured_on']})",
        title_justify="left",
    )
    table.add_column("label")
    for name in counts:
        table.add_column(name, justify="right")
    first = next(iter(counts.values()))
    by_size = sorted(first, key=lambda label: -first[label])
    shown = largest_and_rarest(by_size, MOST_CLASSES)
    totals = {name: sum(column.values()) for name, column in counts.items()}
    for label in shown.labels:
        table.add_row(label, *(share(counts[name][label], total) for name, total in totals.items()))
    table.add_section()
    table.add_row("all", *(f"{total:,}" for total in totals.values()))
    console.print(table)
    if shown.words:
        console.print(shown.sentence("audit.json"))


def _sentences(findings: Findings) -> list[str]:
    """Return what cleaning dropped, leakage, odd characters and near duplicates in sentences."""
    cleaning, near = findings.cleaning, findings.near_duplicates
    dropped = [
        f"{n:,} {reason}" for reason, n in cleaning["counts"].items() if reason != "kept" and n
    ]
    odd = [
        f"{kind} in {found['rows']:,} rows ({found['share']:.1%})"
        for kind, found in findings.odd_characters.items()
        if found["rows"]
    ]
    clusters = (
        f"Near duplicates (similarity {near['threshold']:g}): {near['num_rows']:,} of"
        f" {near['num_compared']:,} rows in {near['num_clusters']:,} clusters,"
        f" {near['num_conflicting']:,} of them with several labels"
    )
    leaks = [
        f"{found['rows']:,} of {found['of']:,} {name} rows resemble a training row"
        for name, found in near["soft_leakage"].items()
    ]
    return [
        f"Cleaning: {cleaning['counts']['kept']:,} rows kept;"
        f" {'; '.join(dropped) or 'nothing dropped'}.",
        *(
            f"Leakage: {shared['texts']:,} texts are both in {' and in '.join(shared['splits'])}."
            for shared in cleaning["shared_texts"]
        ),
        *([f"Odd characters: {'; '.join(odd)}."] if odd else []),
        f"{'; '.join([clusters, *leaks])}.",
    ]


def _print_noise(noise: dict[str, Any]) -> None:
    table = Table(
        title=f"Doubtful labels: {noise['num_candidates']:,} of {noise['num_judged']:,} rows"
        f" ({noise['share']:.1%})",
        title_justify="left",
    )
    for heading in ("row", "label", "suggested", "text"):
        table.add_column(heading, no_wrap=heading != "text")
    for row in noise["candidates"][:MOST_ROWS]:
        table.add_row(
            str(row["row"]),
            f"{row['label']} ({row['probability']:.2f})",
            f"{row['suggested_label']} ({row['suggested_probability']:.2f})",
            row["text"][:MOST_CHARACTERS],
        )
    if noise["candidates"]:
        console.print(table)
    console.print(
        f"Labels were checked by a classifier with an out-of-fold macro F1 of"
        f" {noise['judge_macro_f1']:.2f}: {noise['num_candidates']:,} candidates."
    )
