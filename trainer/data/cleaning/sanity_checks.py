"""A warning where the classes of training look like something else than classes, or are too small to learn."""

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
"""So few classes are hardly ids or texts, however small they are."""


def class_size_problems(counts_C: Ints, names: list[str]) -> str:
    """Return words for more than MANY_CLASSES classes, or a median class with fewer than FEW_ROWS training rows; else ''.

    Args:
        counts_C: training rows of each class; classes without one do not count.
        names: of the classes.
    """
    present = np.flatnonzero(counts_C)
    median = float(np.median(counts_C[present])) if len(present) else float(FEW_ROWS)
    found = []
    if len(present) > MANY_CLASSES:
        found.append(f"there are {len(present):,} classes")
    if median < FEW_ROWS:
        found.append(
            f"half of the {len(present):,} classes have at most {median:.3g} training row{'' if median == 1 else 's'}"
        )
    if not found:
        return ""
    small = present[counts_C[present] <= median][:5]
    words = f"{' and '.join(found)}, such as {listing((names[c] for c in small), 5)}."
    if len(present) < FEW_CLASSES:
        return f"{words} That is hardly enough to learn from. Add rows, or merge classes with data.label_map."
    cause = "The usual cause is a column of ids, numbers or free text in place of labels."
    return f"{words} {cause} Check it, or merge classes with data.label_map, or leave rare ones out with data.drop_labels."


def warn_of_class_sizes(clean: "CleanRows", train: Ints, data: "DataSection") -> None:
    """Warn of what `class_size_problems` finds in the training rows, as they are before balancing."""
    counts_C = (
        np.array(clean.streamed.natural["train"], np.int64)
        if clean.streamed
        else clean.labels.counts(clean.targets[train])
    )
    if words := class_size_problems(counts_C, clean.labels.names):
        where = (
            "data.label_columns"
            if data.label_columns
            else f"data.label_column '{brief(data.label_column)}'"
        )
        warnings.warn(f"{where}: {words}", stacklevel=2)


def warn_of_suspicious_rows(clean: "CleanRows", data: "DataSection") -> None:
    """Warn where cleaning drops most rows, where every row has a label, and where a label column never says yes."""
    counts = {
        reason: count
        for reason, count in clean.counts.items()
        if count and not reason.startswith("stripped")
    }
    kept, total = counts.pop("kept", 0), sum(counts.values()) + clean.counts["kept"]
    if 2 * kept < total:
        reasons = ", ".join(
            f"{count:,} {reason}"
            for reason, count in sorted(counts.items(), key=lambda item: -item[1])
        )
        words = f"cleaning keeps only {kept:,} of {total:,} rows ({reasons})"
        warnings.warn(
            f"{words}. Look at dropped.jsonl, or at `equipoise audit`; the rules are in data.clean.",
            stacklevel=2,
        )
    if clean.label_matrix_NC is None:
        return
    rows_of = clean.labels.counts(clean.targets[clean.reasons_N == 0])
    always = [name for name, rows in zip(clean.labels.names, rows_of, strict=True) if rows == kept]
    if always:
        words = f"every row has the label {listing(always)}, so nothing can be learnt about it"
        warnings.warn(
            f"{words}. Check data.label_column and how its cells are read, or leave the label out by data.label_map.",
            stacklevel=2,
        )
    never = sorted(
        set(data.label_columns or [])
        - {name for name in clean.naming.names if clean.naming.names[name]}
        - clean.naming.dropped
    )
    if never:
        warnings.warn(
            f"data.label_columns: no row has {listing(never)}, so the model will not know it. Add rows, or remove the column.",
            stacklevel=2,
        )
