"""Sides of a split that hold no row, or far more or fewer than was asked for."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from trainer.arrays import Ints
from trainer.data.splitting.split import Splits
from trainer.data.splitting.splitter import Splitter, units_of_classes
from trainer.errors import DataError

MOST_OFF, LEAST_ROWS_OFF = 0.05, 20
"""A share that is further off than this is warned of, where that is so many rows at least."""


def refuse_empty_splits(
    splits: Splits, cut: Sequence[str], cutter: Splitter, pool: Ints, group_column: str | None
) -> None:
    """Raises DataError when a split that was to be cut has no row.

    Args:
        cut: names of the splits beside training that were to be cut from the pool.
    """
    empty = [name for name in cut if not len(getattr(splits, name))]
    if not empty:
        return
    words, clean, units_N = (
        f"split: no row is left for {' and '.join(empty)}",
        cutter.clean,
        cutter.units(pool),
    )
    units_C = units_of_classes(
        units_N, clean.targets[pool], np.ones(len(pool), bool), len(clean.labels)
    )
    if units_N is None:
        words = f"{words}, since every class has fewer rows than there are splits; the largest class has {_number(units_C.max(), 'row')}"
        raise DataError(
            f"{words}. Add rows, merge labels with data.label_map, or ask for fewer splits."
        )
    num_units = len(np.unique(units_N))
    if num_units == 1 or units_C.max() == 1:
        found = f"all {len(pool):,} rows" if num_units == 1 else "all rows of each class"
        tie = (
            f"are one group by data.group_column: {group_column}"
            if group_column
            else "have one text"
        )
        remedy = (
            "Name a column of more groups, or leave data.group_column out"
            if group_column
            else "Set data.clean.duplicates: true, or add rows"
        )
        raise DataError(f"{words}: {found} {tie}, and stay together. {remedy}.")
    most = f"'{clean.labels.names[int(units_C.argmax())]}' has the most, {_number(units_C.max(), 'group')}"
    words = f"{words}: rows of one group or text stay together, and the {num_units:,} groups are too few or too large to stand in every split; {most}"
    raise DataError(
        f"{words}. Add rows of other groups, merge labels with data.label_map, or ask for fewer splits."
    )


def warn_of_other_shares(splits: Splits, cut: Mapping[str, float], cutter: Splitter) -> None:
    """Warn of splits whose share of the rows is far from the one that was asked for.

    Args:
        cut: {name: share asked for} of the splits beside training that were cut from the pool.
    """
    sizes = {name: len(getattr(splits, name)) for name in cut}
    total = len(splits.train) + sum(sizes.values())
    off = {
        name: rows
        for name, rows in sizes.items()
        if abs(rows - cut[name] * total) > max(MOST_OFF * total, LEAST_ROWS_OFF)
    }
    if not off:
        return
    told = " and ".join(
        f"{name} has {rows:,} of {total:,} rows ({rows / total:.1%}, asked for: {cut[name]:.0%})"
        for name, rows in off.items()
    )
    reasons = (
        []
        if cutter.by_time
        else ["a class has a row in every split where it can, and only trains where it cannot"]
    )
    reasons += (
        [] if cutter.units(splits.train) is None else ["rows of one group or text stay together"]
    )
    remedy = (
        "Add rows"
        if cutter.by_time
        else "Add rows, merge labels with data.label_map, or list them in data.drop_labels"
    )
    warnings.warn(f"split: {told}: {'; '.join(reasons)}. {remedy}.", stacklevel=3)


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
