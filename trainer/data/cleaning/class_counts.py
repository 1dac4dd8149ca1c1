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


def odd_class_counts(counts_C: Ints, names: list[str]) -> str:
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


def warn_of_odd_class_counts(clean: "CleanRows", train: Ints, data: "DataSection") -> None:
    """Warn of what `odd_class_counts` finds in the training rows, as they are before balancing."""
    counts_C = (
        np.array(clean.streamed.natural["train"], np.int64)
        if clean.streamed
        else clean.labels.counts(clean.targets[train])
    )
    if words := odd_class_counts(counts_C, clean.labels.names):
        where = (
            "data.label_columns"
            if data.label_columns
            else f"data.label_column '{brief(data.label_column)}'"
        )
        warnings.warn(f"{where}: {words}", stacklevel=2)
