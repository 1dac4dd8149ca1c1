"""Warnings of data that were probably read in another way than their owner means."""

import warnings
from typing import TYPE_CHECKING

import numpy as np

from trainer.arrays import Ints
from trainer.errors import brief, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection
    from trainer.data.cleaning.clean import CleanRows

MANY_CLASSES = 1_000
FEW_ROWS = 5
FEW_CLASSES = 20
"""So few classes are hardly ids or texts, even if they are small."""


def class_size_problems(counts_C: Ints, names: list[str]) -> str:
    """Return words about too many or too small classes, or ''.

    There are too many with more than MANY_CLASSES classes; they are too small if the median class
    has fewer than FEW_ROWS training rows.

    Args:
        counts_C: training rows of each class; classes without one do not count.
        names: names of the classes.
    """
    present = np.flatnonzero(counts_C)
    median = float(np.median(counts_C[present])) if len(present) else float(FEW_ROWS)
    found = [f"there are {len(present):,} classes"] if len(present) > MANY_CLASSES else []
    if median < FEW_ROWS:
        rows = f"{median:.3g} training row{'' if median == 1 else 's'}"
        found.append(f"half of the {len(present):,} classes have at most {rows}")
    if not found:
        return ""
    small = present[counts_C[present] <= median][:5]
    remedy = (
        "That is hardly enough to learn from. Add rows, or merge classes with data.label_map."
        if len(present) < FEW_CLASSES
        else "The usual cause is a column of ids, numbers or free text in place of labels. Check"
        " it, or merge classes with data.label_map, or leave rare ones out with data.drop_labels."
    )
    return f"{' and '.join(found)}, such as {listing((names[c] for c in small), 5)}. {remedy}"


def warn_of_class_sizes(clean: "CleanRows", train: Ints, data: "DataSection") -> None:
    """Warn of too many or too small classes among the training rows before balancing."""
    counts_C = (
        np.array(clean.streamed.natural["train"], np.int64)
        if clean.streamed
        else clean.labels.counts(clean.targets[train])
    )
    if words := class_size_problems(counts_C, clean.labels.names):
        column = f"data.label_column '{brief(data.label_column)}'"
        warnings.warn(
            f"{'data.label_columns' if data.label_columns else column}: {words}", stacklevel=2
        )


def warn_of_suspicious_rows(clean: "CleanRows", data: "DataSection") -> None:
    """Warn if most rows are dropped, every row has one label, or no row has a label column."""
    kept, dropped = clean.counts["kept"], clean.dropped_counts
    total = kept + sum(dropped.values())
    if 2 * kept < total:
        most_first = sorted(dropped.items(), key=lambda item: -item[1])
        reasons = ", ".join(f"{rows:,} {reason}" for reason, rows in most_first if rows)
        warnings.warn(
            f"cleaning keeps only {kept:,} of {total:,} rows ({reasons}). Look at dropped.jsonl, or"
            " at `equipoise audit`; the rules are in data.clean.",
            stacklevel=2,
        )
    if clean.label_matrix_NC is None:
        return
    rows_of = clean.labels.counts(clean.targets[clean.reasons_N == 0])
    always = [name for name, rows in zip(clean.labels.names, rows_of, strict=True) if rows == kept]
    if always:
        warnings.warn(
            f"every row has the label {listing(always)}, so nothing can be learnt about it. Check"
            " data.label_column and how its values are read, or leave the label out by"
            " data.label_map.",
            stacklevel=2,
        )
    known = {name for name, label in clean.naming.names.items() if label} | clean.naming.dropped
    never = sorted({*(data.label_columns or [])} - known)
    if never:
        warnings.warn(
            f"data.label_columns: no row has {listing(never)}, so the model will not know it. Add"
            " rows, or remove the column.",
            stacklevel=2,
        )
