"""Times of rows as numbers: a column of numbers, or of dates in common spellings."""

import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from trainer.arrays import Floats, Ints
from trainer.errors import DataError, brief

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


def newest_first(column: pa.ChunkedArray) -> Ints:
    """Rank of each value by its time, the newest first; values that are no times come last."""
    return np.unique(-_parsed(column)[0], return_inverse=True)[1].astype(np.int64)


def read_times(column: pa.ChunkedArray, name: str, where: Callable[[int], str]) -> Floats:
    """The times as numbers: those of the column, or seconds since 1970 of its dates.

    Args:
        where: file and line of the value at a place, for messages.
    Raises:
        DataError: a value that is missing, or that is no number among numbers or no date among
            dates.
    """
    times_N, by_number, zones = _parsed(column)
    wrong_N = np.isnan(times_N)
    if wrong_N.any():
        first, bad = int(wrong_N.argmax()), int(wrong_N.sum())
        value = (column[first].as_py() or "").strip()
        shown = f"holds '{brief(value, 40)}'" if value else "has no value"
        needed = (
            "a number, as most rows have"
            if by_number
            else "a date such as 2024-05-01 or 2024-05-01T12:00:00Z, or numbers in all rows"
        )
        number = f"{bad:,} row{'' if bad == 1 else 's'} in all"
        raise DataError(
            f"{where(first)}: split.by_time: column '{name}' {shown} ({number}); needed: {needed}. Mend these rows, or remove them."
        )
    if len(zones) > 1:
        warnings.warn(
            f"split.by_time: some times of column '{name}' have no zone; they count as UTC.",
            stacklevel=4,
        )
    return times_N


def _parsed(column: pa.ChunkedArray) -> tuple[Floats, bool, set[bool]]:
    """The times as numbers, NaN where there is none; whether they are numbers; whether dates have a
    zone.
    """
    encoded = column.combine_chunks().dictionary_encode()
    ids_N = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    values = [*(value.strip() for value in encoded.dictionary.to_pylist()), ""]
    counts = np.bincount(ids_N, minlength=len(values))
    are_numbers = [bool(NUMBER.fullmatch(value)) for value in values]
    by_number = bool(2 * counts[are_numbers].sum() > len(ids_N))
    zones: set[bool] = set()
    times = [
        (float(value) if is_number else None) if by_number else _seconds(value, zones)
        for value, is_number in zip(values, are_numbers, strict=True)
    ]
    return np.array([np.nan if time is None else time for time in times])[ids_N], by_number, zones


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
