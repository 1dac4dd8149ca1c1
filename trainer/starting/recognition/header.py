"""Decide whether the first line of a file names its columns, and name them if it does not."""

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from trainer.starting.recognition.column_words import LABEL_NAMES, TEXT_NAMES

NUMBER = re.compile(r"[+-]?\d+([.,]\d+)?%?")
LONGEST_NAME = 60
LONGEST_NAME_WORDS = 6
ORANGE_KINDS = {"", "c", "d", "s", "t", "continuous", "discrete", "string", "time", "class", "meta"}
"""Cells of the two lines that Orange writes below a header."""


def has_header(names: Sequence[str], rows: pa.Table) -> bool:
    """Return whether the cells of the first line look like names, not like a row.

    A header has no empty, repeated, numeric or long cell, and none that its own column holds again.
    A line with a known name, such as "text" or "label", may have empty cells: pandas leaves the
    name of its index empty.
    """
    cells = [name.strip().casefold() for name in names]
    are_names = len(set(cells)) == len(cells) and all(
        cell and len(cell) <= LONGEST_NAME and len(cell.split()) <= LONGEST_NAME_WORDS
        for cell in cells
    )
    has_known = not {*cells}.isdisjoint(TEXT_NAMES | LABEL_NAMES)
    return (are_names or has_known) and not _is_row(cells, rows)


def _is_row(cells: Sequence[str], rows: pa.Table) -> bool:
    """Whether a cell occurs again in its own column, or is a number."""
    for cell, column in zip(cells, rows.columns, strict=True):
        lowered = pc.utf8_lower(pc.utf8_trim_whitespace(column.cast(pa.string())))
        if NUMBER.fullmatch(cell) or (cell and pc.index(lowered, cell).as_py() >= 0):
            return True
    return False


def column_names(first: Sequence[str], rows: pa.Table) -> list[str]:
    """Return names for the columns of a file without a header.

    The column with the longest cells is the text. The label is the column of texts with the fewest
    values, or else that of numbers.
    """
    lengths = [pc.mean(pc.utf8_length(column)).as_py() or 0 for column in rows.columns]
    text = max(range(len(lengths)), key=lengths.__getitem__)
    values = {
        at: pc.count_distinct(column).as_py()
        for at, column in enumerate(rows.columns)
        if at != text and pc.count_distinct(column).as_py() > 1
    }
    named = {at: count for at, count in values.items() if not NUMBER.fullmatch(first[at].strip())}
    label = min(named or values or {-1: 0}, key=(named or values or {-1: 0}).__getitem__)
    special = {text: "text", label: "label"}
    return [special.get(at, f"column_{at + 1}") for at in range(len(first))]


def is_of_orange(below: pa.Table) -> bool:
    """Whether the two lines below the header say types and roles, as in files of Orange."""
    cells = {str(cell).strip().casefold() for row in below.to_pylist() for cell in row.values()}
    return below.num_rows == 2 and cells <= ORANGE_KINDS and bool(cells - {""})
