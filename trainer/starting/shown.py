"""Print how the rows were understood: ten of them, and the classes."""

import numpy as np
from rich.table import Table

from trainer.data.reading.row_access import take_rows
from trainer.data.reading.source_tables import SLOTS
from trainer.display.shown_classes import largest_and_rarest, share
from trainer.display.terminal import console
from trainer.errors import brief
from trainer.starting.proposal import Understood

SHOWN_ROWS = 10
SHOWN_CHARACTERS = 58
MOST_CLASSES = 20


def print_rows(understood: Understood) -> None:
    """Print ten rows as they were understood, from the first to the last of the file."""
    clean, data = understood.clean, understood.data
    slot = next(slot for slot in SLOTS if len(clean.kept(slot)))
    kept = clean.kept(slot)
    ids = kept[np.unique(np.linspace(0, len(kept) - 1, SHOWN_ROWS).astype(np.int64))]
    rows = take_rows(clean.rows.table, ids).to_pylist()
    texts = dict(zip(("text", "text_pair"), data.text_columns, strict=False))
    headings = [*(f"text ({column})" for column in texts.values()), "label"]
    table = Table(*headings, title="Some of the rows, as they are read", title_justify="left")
    if data.group_column:
        table.add_column(f"group ({data.group_column})")
    for row, target in zip(rows, clean.targets[ids], strict=True):
        names = clean.labels.names
        labels = [names[c] for c in target.nonzero()[0]] if target.ndim else [names[target]]
        cells = [brief(row[key] or "", SHOWN_CHARACTERS) for key in texts]
        cells.append(brief(", ".join(labels) or "none"))
        table.add_row(*cells, *([brief(row["group"] or "")] if data.group_column else []))
    console.print(table)


def print_classes(understood: Understood) -> None:
    """Print the rows of each class in the splits that training will use."""
    clean, splits = understood.clean, understood.splits.named
    counts = {name: clean.labels.counts(clean.targets[ids]) for name, ids in splits.items()}
    found = understood.distribution
    table = Table(
        "label",
        title=f"Rows by class: {len(clean.labels):,} classes, imbalance ratio"
        f" {found.imbalance_ratio:.3g} ({found.severity})",
        title_justify="left",
    )
    for name in counts:
        table.add_column(name, justify="right")
    ids_of = {label: c for c, label in enumerate(clean.labels.names)}
    total_C = np.sum(list(counts.values()), axis=0)
    by_size = sorted(clean.labels.names, key=lambda label: -total_C[ids_of[label]])
    shown = largest_and_rarest(by_size, MOST_CLASSES)
    for label in shown.labels:
        cells = (share(int(c[ids_of[label]]), len(splits[name])) for name, c in counts.items())
        table.add_row(brief(label), *cells)
    table.add_section()
    table.add_row("all", *(f"{len(ids):,}" for ids in splits.values()))
    console.print(table)
    if shown.words:
        console.print(f"Shown: {shown.words}.")
