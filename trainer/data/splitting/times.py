"""Read the times of rows from a column of numbers, or of dates in common formats."""

import re
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from trainer.arrays import Floats, Ints
from trainer.errors import DataError, brief, counted

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
"""Formats beside ISO 8601; in none of them can day and month be confused."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def newest_first(column: pa.ChunkedArray) -> Ints:
    """Return the rank of each value by its time, the newest first; other values come last."""
    return np.unique(-_parsed(column)[0], return_inverse=True)[1].astype(np.int64)


def read_times(column: pa.ChunkedArray, name: str, where: Callable[[int], str]) -> Floats:
    """Return the times as numbers: those of the column, or seconds since 1970 of its dates.

    Args:
        where: returns the file and line of the value at a place, for messages.
    Raises:
        DataError: a value is missing, or is not a number among numbers or not a date among dates.
    """
    times_N, by_number, zones = _parsed(column)
    is_wrong_N = np.isnan(times_N)
    if is_wrong_N.any():
        first = int(is_wrong_N.argmax())
        value = (column[first].as_py() or "").strip()
        shown = f"holds '{brief(value, 40)}'" if value else "has no value"
        needed = (
            "a number, as most rows have"
            if by_number
            else "a date such as 2024-05-01 or 2024-05-01T12:00:00Z, or numbers in all rows"
        )
        raise DataError(
            f"{where(first)}: split.by_time: column '{name}' {shown}"
            f" ({counted(int(is_wrong_N.sum()), 'row')} in all); needed: {needed}. Fix these"
            " rows, or remove them."
        )
    if len(zones) > 1:
        warnings.warn(
            f"split.by_time: some times of column '{name}' have no zone; they count as UTC.",
            stacklevel=4,
        )
    return times_N


def _parsed(column: pa.ChunkedArray) -> tuple[Floats, bool, set[bool]]:
    """Return the times as numbers, NaN where there is none; are they numbers; have dates a zone."""
    encoded = column.combine_chunks().dictionary_encode()
    ids_N = encoded.indices.fill_null(len(encoded.dictionary)).to_numpy(zero_copy_only=False)
    values = [*(value.strip() for value in encoded.dictionary.to_pylist()), ""]
    is_number = np.array([bool(NUMBER.fullmatch(value)) for value in values])
    if 2 * is_number[ids_N].sum() > len(ids_N):
        times = [float(value) if NUMBER.fullmatch(value) else np.nan for value in values]
        return np.array(times)[ids_N], True, set()
    dates = [read_date(value) for value in values]
    seconds = [
        np.nan if date is None else date.replace(tzinfo=date.tzinfo or UTC).timestamp()
        for date in dates
    ]
    zones = {date.tzinfo is not None for date in dates if date is not None}
    return np.array(seconds)[ids_N], False, zones


def read_date(text: str) -> datetime | None:
    """Return the date that a text spells, or None."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        for form in FORMATS:
            with suppress(ValueError):
                return datetime.strptime(text, form)
    return None
