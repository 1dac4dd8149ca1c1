"""Split rows by time (`split.by_time`): the oldest rows train, the newest are the test."""

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
from trainer.errors import DataError, counted, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection, SplitSection


class TimeSplitter(Splitter):
    """Cuts rows by their time; the last split gets the newest.

    Rows that stay together are as old as the newest of them. Rows of one time that a cut divides
    are divided by seed and text, as rows are elsewhere. Legend: N rows, U units.
    """

    by_time = True

    def __init__(
        self, clean: CleanRows, pool: Ints, data: "DataSection", split: "SplitSection", seed: int
    ) -> None:
        """Args:
        pool: ids of all rows that will be cut.

        Raises:
            DataError: a row has no time, or a time that cannot be read, or all times are equal.
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
            raise DataError(
                f"split.by_time: all {len(pool):,} rows have the same time in column"
                f" '{self.column}', {self._spelling(pool[0])}. Name a column with the time of each"
                " row, or remove by_time."
            )

    def cut(self, pool: Ints, shares: list[float], stage: str) -> list[Ints]:
        """Return the row ids of each split, the oldest first.

        Every split has a row if there are enough.
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
        for split in reversed(range(len(cuts))):  # each split before and after a cut needs a unit
            cuts[split] = next_cut = max(min(cuts[split], next_cut - 1), split + 1)
        splits_U = np.empty(len(order), np.int64)
        splits_U[order] = np.searchsorted(cuts, np.arange(len(order)), side="right")
        return [pool[splits_U[rows_N] == split] for split in range(len(shares))]

    def _ages(self, rows: Ints) -> tuple[Ints, Floats]:
        """Return the number of each row's unit, and the time of the newest row of each unit."""
        units_N = self.units(rows)
        _, rows_N = np.unique(rows if units_N is None else units_N, return_inverse=True)
        newest_U = np.full(rows_N.max(initial=-1) + 1, -np.inf)
        np.maximum.at(newest_U, rows_N, self._times_N[rows])
        return rows_N, newest_U

    def settle_classes(self, splits: Splits) -> None:
        """Apply `split.rare_classes` to the classes that a split lacks.

        Raises:
            DataError: train lacks a class, unless such classes are dropped; another split lacks
                one, and `split.rare_classes` is `error`.
        """
        lacking = missing_classes(self.clean, splits)
        if self.policy == "drop":
            self.dropped |= {c for ids in lacking.values() for c in ids}
            return
        for name, ids in lacking.items():
            if name == "train" or self.policy == "error":
                choices = "drop" if name == "train" else "keep or drop"
                names = listing(self.clean.labels.names[c] for c in ids)
                raise DataError(
                    f"split.by_time: {name} has no row of {names}, whose rows are all of another"
                    f" time. Set split.rare_classes: {choices}, list the label in"
                    " data.drop_labels, or remove split.by_time."
                )

    def ranges(self, splits: Splits) -> dict[str, tuple[str, str]]:
        """Return {split: its oldest and its newest time, as spelt in the data}, if cut here."""
        found = {}
        for name, ids in self._cut_here(splits).items():
            oldest, newest = ids[[self._times_N[ids].argmin(), self._times_N[ids].argmax()]]
            found[name] = (self._spelling(oldest), self._spelling(newest))
        return found

    def warn_of_ties(self, splits: Splits) -> None:
        """Warn of times whose rows are in several splits."""
        cut = self._cut_here(splits)
        rows = np.concatenate(list(cut.values()))
        units_N, newest_U = self._ages(rows)
        ages_N = newest_U[units_N]
        parts = np.split(ages_N, np.cumsum([len(ids) for ids in cut.values()])[:-1])
        shared = {older.max() for older, newer in pairwise(parts) if older.max() == newer.min()}
        found = []
        for time in sorted(shared):
            spelling = self._spelling(rows[(ages_N == time) & (self._times_N[rows] == time)][0])
            counts = [
                f"{name} ({counted(int((ages == time).sum()), 'row')})"
                for name, ages in zip(cut, parts, strict=True)
                if time in ages
            ]
            found.append(f"{spelling} in {' and '.join(counts)}")
        if found:
            warnings.warn(
                "split.by_time: rows of one time are divided among splits at random:"
                f" {'; '.join(found)}. Name a column of finer times in split.by_time, or choose"
                " shares that end between two times.",
                stacklevel=3,
            )

    def _cut_here(self, splits: Splits) -> dict[str, Ints]:
        """Return the splits that were not given; the times of given splits are not read."""
        return {
            name: ids for name, ids in splits.named.items() if not np.isnan(self._times_N[ids[0]])
        }

    def _spelling(self, row: np.int64) -> str:
        """Return a row's time as it is spelt in the data."""
        return str(self.clean.rows.table["time"][int(row)].as_py()).strip()
