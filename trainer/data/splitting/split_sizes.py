"""Splits that have no row, or far more or fewer rows than the config asks for."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.arrays import Ints
from trainer.data.splitting.split import Splits
from trainer.data.splitting.splitter import Splitter, units_of_classes
from trainer.errors import DataError, counted

MOST_OFF, LEAST_ROWS_OFF = 0.05, 20
"""A warning is given if a share is off by more than this part, and by more than so many rows."""


def refuse_empty_splits(
    splits: Splits, cut: Sequence[str], splitter: Splitter, pool: Ints, group_column: str | None
) -> None:
    """Raise DataError if a split that is cut from the pool has no row, and explain why.

    Args:
        cut: names of the splits beside train that are cut from the pool.
    """
    empty = [name for name in cut if not len(getattr(splits, name))]
    if not empty:
        return
    clean, units_N = splitter.clean, splitter.units(pool)
    all_N = np.ones(len(pool), bool)
    units_C = units_of_classes(units_N, clean.targets[pool], all_N, len(clean.labels))
    num_units = 0 if units_N is None else len(np.unique(units_N))
    most = units_C.max()
    remedy = "Add rows, merge labels with data.label_map, or ask for fewer splits"
    if units_N is None:
        cause = (
            ", since every class has fewer rows than there are splits; the largest class has"
            f" {counted(most, 'row')}"
        )
    elif num_units == 1 or most == 1:
        found = f"all {len(pool):,} rows" if num_units == 1 else "all rows of each class"
        link = "have one text"
        remedy = "Set data.clean.duplicates: true, or add rows"
        if group_column:
            link = f"are one group by data.group_column: {group_column}"
            remedy = "Name a column of more groups, or remove data.group_column"
        cause = f": {found} {link}, and stay together"
    else:
        cause = (
            f": rows of one group or text stay together, and the {num_units:,} groups are too few"
            f" or too large to be in every split; '{clean.labels.names[int(units_C.argmax())]}' has"
            f" the most, {counted(most, 'group')}"
        )
        remedy = remedy.replace("rows", "rows of other groups")
    raise DataError(f"split: no row is left for {' and '.join(empty)}{cause}. {remedy}.")


def warn_of_other_shares(splits: Splits, cut: Mapping[str, float], splitter: Splitter) -> None:
    """Warn of splits whose share of the rows is far from the one that the config asks for.

    Args:
        cut: {name: share asked for} of the splits beside train that are cut from the pool.
    """
    sizes = {name: len(getattr(splits, name)) for name in cut}
    total = len(splits.train) + sum(sizes.values())
    most_off = max(MOST_OFF * total, LEAST_ROWS_OFF)
    off = [
        f"{name} has {rows:,} of {total:,} rows ({rows / total:.1%}, asked for: {cut[name]:.0%})"
        for name, rows in sizes.items()
        if abs(rows - cut[name] * total) > most_off
    ]
    if not off:
        return
    reasons, remedy = [], "Add rows"
    if not splitter.by_time:
        reasons = ["a class has a row in every split where it can, and only trains where it cannot"]
        remedy += ", merge labels with data.label_map, or list them in data.drop_labels"
    if splitter.units(splits.train) is not None:
        reasons.append("rows of one group or text stay together")
    warnings.warn(f"split: {' and '.join(off)}: {'; '.join(reasons)}. {remedy}.", stacklevel=3)
