"""Describe the columns of a sample of rows: what their values look like, and how many differ."""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.data.labels.label_column import is_list
from trainer.data.labels.label_conversion import NO, YES
from trainer.data.labels.list_parsing import parse_list
from trainer.data.reading.column_text import as_text
from trainer.data.reading.split_column import split_named
from trainer.data.splitting.times import read_date
from trainer.errors import DataError
from trainer.starting.recognition.column_words import SPLIT_NAMES, words_of

NUMBER = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")
MOST_LOOKED_AT = 1_000
"""Different values of a column that are looked at one by one."""
LABEL_SEPARATORS = ("|", ";", ",", "/")


@dataclass(frozen=True)
class Profile:
    """What a column of the sample looks like.

    Attributes:
        counts: {value as text: rows}, without missing and empty values.
        num_rows: rows of the sample.
        holds_lists: whether the values are lists, in their type or written as text.
        is_usable: whether the values are texts, numbers, dates or lists; objects are not.
    """

    name: str
    counts: Counter[str]
    num_rows: int
    holds_lists: bool = False
    is_usable: bool = True

    @cached_property
    def num_filled(self) -> int:
        """Rows with a value."""
        return self.counts.total()

    @cached_property
    def values(self) -> list[str]:
        """Some of the different values, the most frequent first."""
        return [value for value, _ in self.counts.most_common(MOST_LOOKED_AT)]

    @cached_property
    def words(self) -> set[str]:
        """The words of the column's name."""
        return {*words_of(self.name), self.name.strip().casefold()}

    @cached_property
    def mean_characters(self) -> float:
        """Mean length of the values."""
        lengths = sum(len(value) * rows for value, rows in self.counts.items())
        return lengths / max(1, self.num_filled)

    @cached_property
    def mean_words(self) -> float:
        """Mean number of words of the values that were looked at."""
        return float(np.mean([len(value.split()) for value in self.values] or [0]))

    @cached_property
    def is_number(self) -> bool:
        """Whether all values are numbers."""
        return bool(self.values) and all(NUMBER.fullmatch(value) for value in self.values)

    @cached_property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return self.is_number and all(float(value).is_integer() for value in self.values)

    @cached_property
    def is_binary(self) -> bool:
        """Whether all values are 0 or 1, or true or false."""
        return {value.lower() for value in self.counts} <= {*YES, *NO} and bool(self.counts)

    @cached_property
    def is_time(self) -> bool:
        """Whether nearly all values are dates."""
        if self.is_number or not self.values:
            return False
        found = sum(read_date(value) is not None for value in self.values)
        return found >= 0.95 * len(self.values)

    @cached_property
    def is_split(self) -> bool:
        """Whether it is named like a split, all values name splits, and some are for training."""
        found = {split_named(value) for value in self.values}
        return (
            bool(self.words & SPLIT_NAMES)
            and None not in found
            and "train" in found
            and len(found) > 1
        )

    @cached_property
    def separator(self) -> str | None:
        """The text between several labels in one value; None if each value is one label.

        Values are several labels if they share their parts: a part of a divided value then occurs
        in another value too.
        """
        for separator in LABEL_SEPARATORS:
            divided = [value for value in self.values if separator in value]
            parts = Counter(
                part for value in self.values for part in _parts(value, separator) if part
            )
            inner = {part for value in divided for part in _parts(value, separator)}
            shared = sum(parts[part] > 1 for part in inner)
            is_short = all(len(part.split()) <= 4 for part in inner)
            if divided and is_short and 2 * shared >= len(inner) and len(parts) <= len(self.values):
                return separator
        return None

    @property
    def words_about(self) -> str:
        """What the column holds, in a few words."""
        distinct = len(self.counts)
        if not self.is_usable:
            return "objects"
        if self.holds_lists:
            return "lists"
        if not distinct:
            return "empty"
        if distinct == 1:
            return f"one value, '{self.values[0][:30]}'"
        kind = "numbers" if self.is_number else "dates" if self.is_time else "texts"
        if distinct == self.num_filled:
            return f"{kind}, each once"
        return f"{kind}, {distinct:,} different"


def _parts(value: str, separator: str) -> set[str]:
    return {part.strip() for part in value.split(separator)}


def profiles(rows: pa.Table) -> list[Profile]:
    """Return the profile of each column whose name occurs once."""
    names = Counter(rows.column_names)
    return [
        _profile(name, column)
        for name, column in zip(rows.column_names, rows.columns, strict=True)
        if names[name] == 1
    ]


def _profile(name: str, column: pa.ChunkedArray) -> Profile:
    num_rows = len(column)
    if is_list(column.type):
        filled = num_rows - column.null_count
        return Profile(name, Counter({"[]": filled}), num_rows, holds_lists=True)
    try:
        texts = as_text(column, name, name)
    except DataError:
        return Profile(name, Counter(), num_rows, is_usable=False)
    stripped = pc.utf8_trim_whitespace(texts.cast(pa.string()))
    counts: Counter[str] = Counter()
    for entry in pc.value_counts(stripped).to_pylist():
        if entry["values"] and entry["values"].lower() != "nan":
            counts[entry["values"]] = entry["counts"]
    written = [value for value, _ in counts.most_common(MOST_LOOKED_AT) if value.startswith("[")]
    num_lists = sum(parse_list(value) is not None for value in written)
    holds_lists = num_lists > min(len(counts), MOST_LOOKED_AT) / 2
    return Profile(name, counts, num_rows, holds_lists=holds_lists)
