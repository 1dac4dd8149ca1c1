"""The tables that readers yield, and the place of each row: its file, and its line or number."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from trainer.arrays import Ints

BATCH_ROWS = 20_000
"""Largest number of rows in a table that a reader yields."""
LINE, RECORD = "trainer:line", "trainer:record"
"""Columns that readers add: the first line of a row, or its number in the file, both counted from
1. A table has at most one of them."""
PLACE = pa.field("trainer:place", pa.int64())
"""The column that replaces them; it is stored beside the columns of the rows."""
FILE_BITS = 40
"""A place is the number of the file, shifted by so many bits, plus the line or record number."""


class CellFault(Exception):
    """A cell that cannot be used.

    Attributes:
        row: the position of its row in the table.
        words: what is wrong, and what to do.
    """

    def __init__(self, row: int, words: str) -> None:
        super().__init__(words)
        self.row, self.words = row, words


def place_column(table: pa.Table) -> str | None:
    """Return the column with the places of a reader's table, LINE or RECORD; None without one."""
    return next((name for name in (LINE, RECORD) if name in table.column_names), None)


def place_words(file: str, unit: str, number: int) -> str:
    """Return a place in words: "rows.csv:12", or "rows.parquet: record 7"."""
    return f"{file}:{number}" if unit == "line" else f"{file}: record {number}"


def with_places(
    tables: Iterator[pa.Table], where: str, files: list[list[str]]
) -> Iterator[pa.Table]:
    """Yield the tables of a file with PLACE in place of LINE or RECORD.

    Rows without either column are numbered from 1.

    Args:
        files: receives the file and the unit of its rows, such as ["rows.csv", "line"].
    """
    number, first = len(files), 1
    files.append([where, "record"])
    for table in tables:
        column = place_column(table)
        if column == LINE:
            files[number][1] = "line"
        numbers_N = table[column].to_numpy() if column else first + np.arange(table.num_rows)
        first += table.num_rows
        rest = table.drop_columns(column) if column else table
        yield rest.append_column(PLACE, pa.array(numbers_N + (number << FILE_BITS), pa.int64()))


@dataclass(frozen=True)
class Places:
    """The place of each row.

    Attributes:
        codes_N: the place of each row as a number.
        files: the name of each file, and whether its rows are counted by "line" or by "record".
    """

    codes_N: Ints
    files: list[list[str]]

    def origin(self, row: int) -> tuple[str, int]:
        """Return the file of a row, and its first line or its record number, counted from 1."""
        number, place = divmod(int(self.codes_N[row]), 1 << FILE_BITS)
        return self.files[number][0], place

    def unit(self, row: int) -> str:
        """Return the unit that counts the rows of this row's file: "line" or "record"."""
        return self.files[int(self.codes_N[row]) >> FILE_BITS][1]

    def where(self, row: int) -> str:
        """Return the place in words: "rows.csv:12", or "rows.parquet: record 7"."""
        file, number = self.origin(row)
        return place_words(file, self.unit(row), number)

    def keyed(self, row: int) -> dict[str, str | int]:
        """Return the place by keys: {"file": "rows.csv", "line": 12}, or "record" for "line"."""
        file, number = self.origin(row)
        return {"file": file, self.unit(row): number}
