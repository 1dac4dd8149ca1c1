"""Splits by time (`split.by_time`): the oldest rows train, the newest are the test."""

import warnings
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trainer.arrays import Floats, Ints
from trainer.data.cleaning.clean import CleanRows
from trainer.data.splitting.rare_classes import missing_classes
from trainer.data.splitting.split import Splits, row_keys
from trainer.data.splitting.splitter import Splitter
from trainer.data.splitting.times import read_times
from trainer.errors import DataError, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection, SplitSection


class TimeSplitter(Splitter):
    """Cuts rows by their time, the newest for the last side. Rows that stay together are as old as
    the newest of them.

    Rows of equal time on both sides of a cut are divided by seed and text, as rows are elsewhere.
    """

    by_time = True

    def __init__(
        self, clean: CleanRows, pool: Ints, data: "DataSection", split: "SplitSection", seed: int
    ) -> None:
        """Args:
        pool: ids of all rows that will be cut.

        Raises:
            DataError: a row without a time, or with one that cannot be read.
        """
        super().__init__(clean, pool, data, split, seed)
        self.column = split.by_time or ""
        self._times_N = np.full(len(clean.label_ids_N), np.nan)
        self._times_N[pool] = read_times(
            clean.rows.table["time"].take(pa.array(pool)),
            self.column,
            lambda place: clean.rows.where(int(pool[place])),
        )
        if len(pool) > 1 and np.ptp(self._times_N[pool]) == 0:
            words = f"split.by_time: all {len(pool):,} rows have one time in column '{self.column}', {self._spelling(pool[0])}"
            raise DataError(
                f"{words}. Name a column with the time of each row, or leave by_time out."
            )

    def cut(self, pool: Ints, shares: list[float], stage: str) -> list[Ints]:
        """Row ids of each side by its share, the oldest first; every side has a row where there are
        enough.
        """
        keys_N = row_keys(self.clean.text_hashes_N[pool], self.seed, stage)
        rows_N, newest_U = self._ages(pool)
        keys_U = np.full(len(newest_U), np.iinfo(np.uint64).max)
        np.minimum.at(keys_U, rows_N, keys_N)
        order = np.lexsort((keys_U, newest_U))
        ends = np.cumsum(np.bincount(rows_N)[order])
        wanted = np.rint(len(pool) * np.cumsum(shares)[:-1])
        cuts = np.array([np.abs(ends - rows).argmin() + 1 for rows in wanted], np.int64)
        next_cut = len(ends)
        for side in reversed(
            range(len(cuts))
        ):  # this side and all before it need a unit each, and so do those behind
            cuts[side] = next_cut = max(min(cuts[side], next_cut - 1), side + 1)
        sides_U = np.empty(len(order), np.int64)
        sides_U[order] = np.searchsorted(cuts, np.arange(len(order)), side="right")
        return [pool[sides_U[rows_N] == side] for side in range(len(shares))]

    def _ages(self, rows: Ints) -> tuple[Ints, Floats]:
        """Number of each row's unit, and the time of each unit: that of its newest row."""
        units_N = self.units(rows)
        _, rows_N = np.unique(rows if units_N is None else units_N, return_inverse=True)
        newest_U = np.full(rows_N.max(initial=-1) + 1, -np.inf)
        np.maximum.at(newest_U, rows_N, self._times_N[rows])
        return rows_N, newest_U

    def settle_classes(self, splits: Splits) -> None:
        """Apply `split.rare_classes` to the classes that a side lacks.

        Raises:
            DataError: a class that the training rows lack, unless such classes are dropped.
        """
        labels, targets = self.clean.labels, self.clean.targets
        has_rows_C = labels.counts(targets[np.concatenate(list(splits.named.values()))]) > 0
        untrained = np.flatnonzero(
            has_rows_C & (labels.counts(targets[splits.train]) == 0)
        ).tolist()
        lacking = {"train": untrained} | missing_classes(self.clean, splits)
        if self.policy == "drop":
            self.dropped |= {c for ids in lacking.values() for c in ids}
            return
        for name, ids in lacking.items():
            if ids and (name == "train" or self.policy == "error"):
                words = f"split.by_time: {name} holds no row of {listing(labels.names[c] for c in ids)}, whose rows are all of another time"
                remedy = (
                    "Set split.rare_classes: drop"
                    if name == "train"
                    else "Set split.rare_classes: keep or drop"
                )
                raise DataError(
                    f"{words}. {remedy}, list the label in data.drop_labels, or split by shares alone."
                )

    def ranges(self, splits: Splits) -> dict[str, tuple[str, str]]:
        """{split: its oldest and its newest time, as the data spell them}, of the splits cut here."""
        found = {}
        for name, ids in self._cut_here(splits).items():
            oldest, newest = ids[[self._times_N[ids].argmin(), self._times_N[ids].argmax()]]
            found[name] = (self._spelling(oldest), self._spelling(newest))
        return found

    def warn_of_ties(self, splits: Splits) -> None:
        """Name the times whose rows stand on both sides of a cut."""
        sides = self._cut_here(splits)
        rows = np.concatenate(list(sides.values()))
        units_N, newest_U = self._ages(rows)
        ages_N = newest_U[units_N]
        ages = dict(
            zip(
                sides,
                np.split(ages_N, np.cumsum([len(ids) for ids in sides.values()])[:-1]),
                strict=True,
            )
        )
        shared = sorted(
            {
                float(older.max())
                for older, newer in pairwise(ages.values())
                if older.max() == newer.min()
            }
        )
        told = []
        for time in shared:
            spelling = self._spelling(rows[(ages_N == time) & (self._times_N[rows] == time)][0])
            counts = {name: int((of == time).sum()) for name, of in ages.items() if time in of}
            told.append(
                f"{spelling} in "
                + " and ".join(
                    f"{name} ({count:,} row{'' if count == 1 else 's'})"
                    for name, count in counts.items()
                )
            )
        if told:
            words = f"split.by_time: rows of one time stand in several splits, by chance: {'; '.join(told)}"
            remedy = "Name a column of finer times in split.by_time, or choose shares that end between two times"
            warnings.warn(f"{words}. {remedy}.", stacklevel=3)

    def _cut_here(self, splits: Splits) -> dict[str, Ints]:
        """Row ids of the splits without those that were given, whose times are not read."""
        return {
            name: ids for name, ids in splits.named.items() if not np.isnan(self._times_N[ids[0]])
        }

    def _spelling(self, row: np.int64) -> str:
        """A row's time as the data spell it."""
        return str(self.clean.rows.table["time"][int(row)].as_py()).strip()
