"""Splits by time (`split.by_time`): the oldest rows train, the newest are the test."""

import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainer.data.clean import CleanRows
from trainer.data.cutting import Cutter
from trainer.data.rare_classes import unmeasured
from trainer.data.split import Splits, row_keys
from trainer.errors import DataError, brief, listing

if TYPE_CHECKING:
    from trainer.sections.data import DataSection, SplitSection

Ints = NDArray[np.int64]

FORMATS = (
    "%Y/%m/%d",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%d.%m.%Y",
    "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S",
    "%d %b %Y",
    "%d %B %Y",
    "%d-%b-%Y",
    "%b %d, %Y",
    "%B %d, %Y",
    "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S %Z",
    "%a %b %d %H:%M:%S %z %Y",
)
"""Date-times beside ISO 8601; none in which day and month could be confused."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class TimeCutter(Cutter):
    """Cuts rows by their time, the newest for the last side. Rows that stay together are as old as
    the newest of them.

    Rows of equal time on both sides of a cut are divided by seed and text, as rows are elsewhere.
    """

    def __init__(self, clean: CleanRows, pool: Ints, data: "DataSection", split: "SplitSection", seed: int) -> None:
        """Args:
        pool: ids of all rows that will be cut.

        Raises:
            DataError: a row without a time, or with one that cannot be read.
        """
        super().__init__(clean, pool, data, split, seed)
        self.column = split.by_time or ""
        self._times_N = np.zeros(len(clean.label_ids_N), np.float64)
        self._times_N[pool] = read_times(clean.rows.table["time"].take(pa.array(pool)), self.column, lambda place: clean.rows.where(int(pool[place])))

    def cut(self, pool: Ints, shares: list[float], stage: str) -> list[Ints]:
        """Row ids of each side by its share, the oldest first; every side has a row where there are
        enough.
        """
        keys_N, units_N = row_keys(self.clean.text_hashes_N[pool], self.seed, stage), self.units(pool)
        _, rows_N = np.unique(pool if units_N is None else units_N, return_inverse=True)
        newest_U, keys_U = np.full(rows_N.max() + 1, -np.inf), np.full(rows_N.max() + 1, np.iinfo(np.uint64).max)
        np.maximum.at(newest_U, rows_N, self._times_N[pool])
        np.minimum.at(keys_U, rows_N, keys_N)
        order = np.lexsort((keys_U, newest_U))
        ends = np.cumsum(np.bincount(rows_N)[order])
        wanted = np.rint(len(pool) * np.cumsum(shares)[:-1])
        cuts = np.array([np.abs(ends - rows).argmin() + 1 for rows in wanted], np.int64)
        for side in reversed(range(len(cuts))):  # the sides behind need a unit each
            cuts[side] = max(min(cuts[side], len(ends) - (len(cuts) - side)), 1)
        sides_U = np.empty(len(order), np.int64)
        sides_U[order] = np.searchsorted(cuts, np.arange(len(order)), side="right")
        return [pool[sides_U[rows_N] == side] for side in range(len(shares))]

    def settle_classes(self, splits: Splits) -> None:
        """Apply `split.rare_classes` to the classes that a side lacks.

        Raises:
            DataError: a class that the training rows lack, unless such classes are dropped.
        """
        labels, targets = self.clean.labels, self.clean.targets
        has_rows_C = labels.counts(targets[np.concatenate(list(splits.named.values()))]) > 0
        untrained = np.flatnonzero(has_rows_C & (labels.counts(targets[splits.train]) == 0)).tolist()
        lacking = {"train": untrained} | unmeasured(self.clean, splits)
        if self.policy == "drop":
            self.rare |= {c for ids in lacking.values() for c in ids}
            return
        for name, ids in lacking.items():
            if ids and (name == "train" or self.policy == "error"):
                words = f"split.by_time: {name} holds no row of {listing(labels.names[c] for c in ids)}, whose rows are all of another time"
                remedy = "Set split.rare_classes: drop" if name == "train" else "Set split.rare_classes: keep or drop"
                raise DataError(f"{words}. {remedy}, list the label in data.drop_labels, or split by shares alone.")

    def ranges(self, splits: Splits) -> dict[str, tuple[str, str]]:
        """{split: its oldest and its newest time, as the data spell them}."""
        times = self.clean.rows.table["time"]
        found = {}
        for name, ids in splits.named.items():
            ends = ids[[self._times_N[ids].argmin(), self._times_N[ids].argmax()]]
            found[name] = (times[int(ends[0])].as_py().strip(), times[int(ends[1])].as_py().strip())
        return found


def read_times(column: pa.ChunkedArray, name: str, where: Callable[[int], str]) -> NDArray[np.float64]:
    """The times as numbers: those of the column, or seconds since 1970 of its dates.

    Args:
        where: file and line of the value at a place, for messages.
    Raises:
        DataError: a value that is missing, or that is no number among numbers or no date among
            dates.
    """
    encoded = column.combine_chunks().dictionary_encode()
    ids_N = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    values = [*(value.strip() for value in encoded.dictionary.to_pylist()), ""]
    counts = np.bincount(ids_N, minlength=len(values))
    are_numbers = [bool(NUMBER.fullmatch(value)) for value in values]
    by_number = 2 * counts[are_numbers].sum() > len(ids_N)
    zones: set[bool] = set()
    times = [(float(value) if is_number else None) if by_number else _seconds(value, zones) for value, is_number in zip(values, are_numbers, strict=True)]
    wrong = [k for k, time in enumerate(times) if time is None and counts[k]]
    if wrong:
        first = int(np.isin(ids_N, wrong).argmax())
        value = values[ids_N[first]]
        shown = f"holds '{brief(value, 40)}'" if value else "has no value"
        bad = int(counts[wrong].sum())
        needed = "a number, as most rows have" if by_number else "a date such as 2024-05-01 or 2024-05-01T12:00:00Z, or numbers in all rows"
        number = f"{bad:,} row{'' if bad == 1 else 's'} in all"
        raise DataError(f"{where(first)}: split.by_time: column '{name}' {shown} ({number}); needed: {needed}. Mend these rows, or remove them.")
    if len(zones) > 1:
        warnings.warn(f"split.by_time: some times of column '{name}' have no zone; they count as UTC.", stacklevel=4)
    return np.array([0.0 if time is None else time for time in times])[ids_N]


def _seconds(text: str, zones: set[bool]) -> float | None:
    """Seconds since 1970 of a date; None where it is none. Notes down whether it has a zone."""
    found = None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        for form in FORMATS:
            try:
                found = datetime.strptime(text, form)
                break
            except ValueError:
                continue
    if found is None:
        return None
    zones.add(found.tzinfo is not None)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
