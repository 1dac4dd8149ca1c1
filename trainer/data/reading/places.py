"""Where each row comes from: its file, and its line or number in it, in one whole number a row."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trainer.arrays import Ints
from trainer.data.reading.bad_rows import LINE, RECORD

PLACE = pa.field("trainer:place", pa.int64())
"""Kept in the file of the rows beside their columns."""
FILE_BITS = 40
"""A place is the file's number, shifted by so many bits, plus the line or number in the file."""


class CellFault(Exception):
    """A cell that cannot be used.

    Attributes:
        row: its row, counted from 0 in its table.
        words: what is wrong, and what to do.
    """

    def __init__(self, row: int, words: str) -> None:
        super().__init__(words)
        self.row, self.words = row, words


def place_in(table: pa.Table, row: int, files: list[list[str]]) -> str:
    """Return file and line of a row of a table that has PLACE."""
    return Places(np.array([table[PLACE.name][row].as_py()]), files).where(0)


def with_places(
    tables: Iterator[pa.Table], where: str, files: list[list[str]]
) -> Iterator[pa.Table]:
    """Give the tables of a file with PLACE instead of LINE or RECORD; rows of other formats are numbered from 1.

    Args:
        files: gets the file and what its rows are counted by, ["rows.csv", "line"].
    """
    number, first = len(files), 1
    files.append([where, "record"])
    for table in tables:
        found = next((name for name in (LINE, RECORD) if name in table.column_names), None)
        if found == LINE:
            files[number][1] = "line"
        numbers_N = table[found].to_numpy() if found else np.arange(first, first + table.num_rows)
        first += table.num_rows
        rest = table.drop_columns(found) if found else table
        yield rest.append_column(PLACE, pa.array(numbers_N + (number << FILE_BITS), pa.int64()))


@dataclass(frozen=True)
class Places:
    """The origin of each row.

    Attributes:
        codes_N: place of each row.
        files: name of each file, and whether its rows are counted by "line" or by "record".
    """

    codes_N: Ints
    files: list[list[str]]

    def origin(self, row: int) -> tuple[str, int]:
        """Return the file of a row and its first line in it, from 1; of Parquet, Arrow, JSON lists and data sets its number, from 1."""
        number, place = divmod(int(self.codes_N[row]), 1 << FILE_BITS)
        return self.files[number][0], place

    def unit(self, row: int) -> str:
        """Return what the rows of its file are counted by: "line" or "record"."""
        return self.files[int(self.codes_N[row]) >> FILE_BITS][1]

    def where(self, row: int) -> str:
        """Return the origin in words: "rows.csv:12", or "rows.parquet: record 7"."""
        file, place = self.origin(row)
        return f"{file}:{place}" if self.unit(row) == "line" else f"{file}: record {place}"

    def keyed(self, row: int) -> dict[str, str | int]:
        """Return the origin by keys: {"file": "rows.csv", "line": 12}, or "record" in place of "line"."""
        file, place = self.origin(row)
        return {"file": file, self.unit(row): place}
