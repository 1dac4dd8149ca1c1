"""What an audit found, as tables in the terminal."""

from typing import Any

from rich.table import Table

from trainer.display.tables import share
from trainer.display.terminal import console

MOST_CLASSES = 30
MOST_ROWS = 10
MOST_CHARACTERS = 90


def print_findings(findings: dict[str, Any]) -> None:
    """Classes, cleaning, near duplicates, doubtful labels and advice, in the order of the page."""
    _print_classes(findings["classes"])
    for sentence in findings["cleaning"]["remarks"]:
        console.print(sentence)
    dropped = findings["cleaning"]["counts"]
    gone = [
        f"{count:,} {reason}" for reason, count in dropped.items() if count and reason != "kept"
    ]
    console.print(
        f"Cleaning: {dropped['kept']:,} rows kept; {'; '.join(gone) or 'nothing dropped'}."
    )
    for shared in findings["cleaning"]["shared_texts"]:
        console.print(
            f"Leakage: {shared['texts']:,} texts stand in {' and in '.join(shared['splits'])}."
        )
    odd = [
        f"{kind} in {found['rows']:,} rows ({found['share']:.1%})"
        for kind, found in findings["odd_characters"].items()
        if found["rows"]
    ]
    if odd:
        console.print(f"Odd characters: {'; '.join(odd)}.")
    near = findings["near_duplicates"]
    leaks = "; ".join(
        f"{found['rows']:,} of {found['of']:,} {name} rows resemble a training row"
        for name, found in near["soft_leakage"].items()
    )
    console.print(
        f"Near duplicates (similarity {near['threshold']:g}): {near['num_rows']:,} of {near['num_compared']:,} rows in {near['num_clusters']:,} clusters,"
        f" {near['num_conflicting']:,} of them with several labels{'; ' if leaks else ''}{leaks}."
    )
    _print_noise(findings["label_noise"])
    tokens = findings["lengths"]["tokens"]
    if tokens:
        console.print(
            f"Length: {tokens['truncated_ratio']:.1%} of the rows are cut at the model's max_length."
        )
    for note in findings["notes"]:
        console.print(f"Note: {note}")
    for obstacle in findings["obstacles"]:
        console.print(f"Training would stop: {obstacle}")
    for number, advice in enumerate(findings["advice"], start=1):
        settings = "; ".join(advice["settings"].splitlines())
        console.print(
            f"{number}. {advice['text']}\n   Rule {advice['rule']}: {advice['condition']}.{f' Try {settings}' if settings else ''}"
        )


def _print_classes(classes: dict[str, Any]) -> None:
    counts = classes["counts"]
    title = f"Rows by class: imbalance ratio {classes['imbalance_ratio']:.3g} ({classes['severity']}, {classes['measured_on']})"
    table = Table(title=title, title_justify="left")
    table.add_column("label")
    for name in counts:
        table.add_column(name, justify="right")
    first = next(iter(counts.values()))
    ordered = sorted(first, key=lambda label: -first[label])
    shown = (
        ordered
        if len(ordered) <= MOST_CLASSES
        else ordered[: MOST_CLASSES // 2] + ordered[-MOST_CLASSES // 2 :]
    )
    for position, label in enumerate(shown):
        if len(shown) < len(ordered) and position == MOST_CLASSES // 2:
            table.add_row(
                f"… {len(ordered) - len(shown)} classes more, in audit.json", *[""] * len(counts)
            )
        table.add_row(
            label, *(share(column[label], sum(column.values())) for column in counts.values())
        )
    table.add_section()
    table.add_row("all", *(f"{sum(column.values()):,}" for column in counts.values()))
    console.print(table)


def _print_noise(noise: dict[str, Any] | None) -> None:
    if noise is None:
        return
    table = Table(
        title=f"Doubtful labels: {noise['num_candidates']:,} of {noise['num_judged']:,} rows ({noise['share']:.1%})",
        title_justify="left",
    )
    for heading in ("row", "label", "suggested", "text"):
        table.add_column(heading, no_wrap=heading != "text")
    for row in noise["candidates"][:MOST_ROWS]:
        given = f"{row['label']} ({row['probability']:.2f})"
        table.add_row(
            str(row["row"]),
            given,
            f"{row['suggested_label']} ({row['suggested_probability']:.2f})",
            row["text"][:MOST_CHARACTERS],
        )
    if noise["candidates"]:
        console.print(table)
    console.print(
        f"Labels judged by a classifier of macro F1 {noise['judge_macro_f1']:.2f} out of fold; {noise['num_candidates']:,} candidates."
    )
