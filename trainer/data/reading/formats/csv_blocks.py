"""Find the blocks of CSV that Arrow reads exactly as the strict parser does, and parse them.

Arrow knows the same states as Python's csv.reader, but accepts text after a closing quote and a
quote that is never closed. Both read a block without these two in the same way. NumPy passes over
the whole block find such places.

Legend: Q runs of adjacent quotes, L lines, R records.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from trainer.arrays import Bools, Ints

NEWLINE, RETURN = 10, 13


@dataclass(frozen=True)
class Layout:
    """Where the records of a block are.

    Attributes:
        size: number of bytes that hold whole records.
        starts_R: the first line of each record, counted from 0.
        num_lines: number of lines in these bytes.
        num_multiline: number of records that span several lines.
        suspects_R: positions in starts_R of records with two or more lines that have the header's
            number of cells, read without quotes.
    """

    size: int
    starts_R: Ints
    num_lines: int
    num_multiline: int
    suspects_R: Ints


def layout(block: bytes, separator: bytes, quote: bytes, width: int) -> Layout | None:
    """Return where the records of a block are.

    Args:
        block: whole lines; a record starts at the first.
        separator: one ASCII character.
        quote: one ASCII character, or nothing if quotes are text.
        width: number of cells in a row.
    Returns:
        None if the strict parser refuses a record, or if the block holds no whole record.
    """
    characters = np.frombuffer(block, np.uint8)
    if not quote or quote not in block:
        if b"\r" not in block and b"\n\n" not in block and not block.startswith(b"\n"):
            num_lines = block.count(b"\n") + (not block.endswith(b"\n"))
            return Layout(len(block), np.arange(num_lines), num_lines, 0, np.zeros(0, np.int64))
        ends_L = _line_ends(block, characters)
        is_inside_L = np.zeros(len(ends_L), bool)
    else:
        ends_L = _line_ends(block, characters)
        found = _inside(characters, separator[0], quote[0], ends_L)
        if found is None:
            return None
        is_inside_L, is_open = found
        if is_open:  # The last cell continues after the block.
            outside = np.flatnonzero(~is_inside_L)
            if not len(outside):
                return None
            ends_L, is_inside_L = ends_L[: outside[-1] + 1], is_inside_L[: outside[-1] + 1]
            block = block[: ends_L[-1] + 1]
    starts_L = np.r_[0, ends_L + 1]
    is_start_L = np.r_[True, ~is_inside_L] & (starts_L < len(block))
    starts_R = np.flatnonzero(is_start_L)
    starts_R = starts_R[~np.isin(characters[starts_L[starts_R]], (NEWLINE, RETURN))]
    num_lines = len(ends_L) + (not block.endswith((b"\n", b"\r")))
    if not is_inside_L.any():
        return Layout(len(block), starts_R, num_lines, 0, np.zeros(0, np.int64))
    num_multiline = len(
        np.unique(np.searchsorted(starts_R, np.flatnonzero(is_inside_L), side="right"))
    )
    separators = np.searchsorted(
        np.flatnonzero(characters[: len(block)] == separator[0]),
        np.r_[starts_L[:num_lines], len(block)],
    )
    fitting_R = np.add.reduceat(np.diff(separators) == width - 1, starts_R, dtype=np.int64)
    return Layout(len(block), starts_R, num_lines, num_multiline, np.flatnonzero(fitting_R > 1))


def _inside(
    characters: NDArray[np.uint8], separator: int, quote: int, ends_L: Ints
) -> tuple[Bools, bool] | None:
    """Return whether each line end is inside a quoted cell, and whether the block ends in one.

    An even run of quotes changes nothing inside a cell; elsewhere it is an empty cell or text. An
    odd run closes the cell that is open. Elsewhere it opens a cell if it is at the cell's start,
    and is text in the middle of a cell.

    Returns:
        None if text follows a closing quote.
    """
    places = np.flatnonzero(characters == quote)
    is_first = np.r_[True, np.diff(places) > 1]
    firsts_Q, lasts_Q = places[is_first], places[np.r_[is_first[1:], True]]
    is_boundary = np.zeros(256, bool)
    is_boundary[[separator, NEWLINE, RETURN]] = True
    at_start_Q = is_boundary[characters[np.maximum(firsts_Q - 1, 0)]] | (firsts_Q == 0)
    at_end_Q = is_boundary[characters[np.minimum(lasts_Q + 1, len(characters) - 1)]] | (
        lasts_Q == len(characters) - 1
    )
    is_odd_Q = (lasts_Q - firsts_Q) % 2 == 0
    # Each turn opens or closes a cell. An odd run in the middle of a cell leaves none open.
    turns_Q = np.cumsum(is_odd_Q & at_start_Q)
    settled_Q = np.maximum.accumulate(np.where(is_odd_Q & ~at_start_Q, turns_Q, 0))
    is_open_Q = (turns_Q - settled_Q) % 2 == 1
    was_open_Q = np.r_[False, is_open_Q[:-1]]
    is_fault_Q = ~at_end_Q & np.where(was_open_Q, is_odd_Q, ~is_odd_Q & at_start_Q)
    if is_fault_Q.any():
        return None
    runs_L = np.searchsorted(firsts_Q, ends_L)
    return np.r_[False, is_open_Q][runs_L], bool(is_open_Q[-1])


def _line_ends(block: bytes, characters: NDArray[np.uint8]) -> Ints:
    """Return the position of the last character of each line end (\\n, \\r or \\r\\n)."""
    if b"\r" not in block:
        return np.flatnonzero(characters == NEWLINE)
    is_end = characters == NEWLINE
    is_return = characters == RETURN
    is_return[:-1] &= ~is_end[1:]
    return np.flatnonzero(is_end | is_return)


def parse(
    block: bytes, found: Layout, separator: str, quote: str, width: int, places: list[int]
) -> pa.Table | None:
    """Return the wanted cells of a block as text; None if a record has another number of cells.

    Args:
        found: where the records of the block are.
        width: number of cells in a record.
        places: positions of the wanted cells, counted from 0.
    """
    names = [str(place) for place in range(width)]
    try:
        table = pacsv.read_csv(
            pa.BufferReader(block),
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=names
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=separator,
                quote_char=quote or False,
                newlines_in_values=found.num_multiline > 0,
            ),
            convert_options=pacsv.ConvertOptions(
                include_columns=[names[place] for place in places],
                column_types=dict.fromkeys(names, pa.string()),
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except pa.ArrowInvalid:
        return None
    return table if table.num_rows == len(found.starts_R) else None
