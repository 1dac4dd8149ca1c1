"""Scores of many rows and classes without holding them all in memory. Legend: N rows, C classes, B rows of a block.

A large array lies in a file without a name, which vanishes with the process however it ends. It is read and written a
block at a time, and each block's pages are given back, so that resident memory stays small.
"""

import mmap
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from trainer.arrays import Array, Ints
from trainer.errors import RunError

BLOCK_BYTES = 1 << 24
"""Of a block of rows in float64: small enough for the caches of a CPU."""
CACHED_BYTES = 1 << 20
"""Of a small block in float64: one that is worked on in place stays in a core's own cache, and rows that are far apart in a
file, each of which brings its neighbours into memory, bring few."""
COLUMN_BYTES = 1 << 27
"""Of a block of columns in float64: the fewer blocks, the fewer times a file is read."""
MOST_IN_MEMORY = 1 << 27
"""Bytes of an array from which it lies in a file."""


class Rows(Protocol):
    """What can be read by rows: an array, or rows that are computed when they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Some rows as an array."""
        ...


class Taken:
    """Some rows of an array, copied a block at a time."""

    def __init__(self, source: Rows, rows: Ints) -> None:
        self.source, self.rows = source, rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return len(self.rows), *self.source.shape[1:]

    def __getitem__(self, key: Any) -> Any:
        return (
            self.source[(self.rows[key[0]], *key[1:])]
            if isinstance(key, tuple)
            else self.source[self.rows[key]]
        )

    def column(self, c: int) -> Array:
        """One column of these rows."""
        return column(self.source, c)[self.rows]


class ByColumn:
    """An array with a copy of some of its columns in which each column is contiguous, for whom reads columns often.

    Attributes:
        place_of: {column: its place in `columns_CN`}.
    """

    def __init__(self, source: Array, columns: list[int], folder: Path | None = None) -> None:
        self.source, self.place_of = source, {c: place for place, c in enumerate(columns)}
        self.columns_CN = room((len(columns), len(source)), source.dtype, folder)
        for rows, block_BC in row_blocks(source, 8 * BLOCK_BYTES):
            self.columns_CN[:, rows] = block_BC[:, columns].T
            release(self.columns_CN)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self.source.shape

    def __getitem__(self, key: Any) -> Any:
        return self.source[key]

    def column(self, c: int) -> Array:
        """One column of all rows."""
        if c not in self.place_of:
            return column(self.source, c)
        found_N = np.array(self.columns_CN[self.place_of[c]])
        release(self.columns_CN)
        return found_N


def row_slices(shape: tuple[int, ...], block_bytes: int | None = None) -> Iterator[slice]:
    """Blocks of rows in their order, of BLOCK_BYTES or as given; small arrays are one block."""
    size = max(
        1, (block_bytes or BLOCK_BYTES) // (8 * max(1, int(np.prod(shape[1:], dtype=np.int64))))
    )
    return (slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size))


def row_blocks(scores: Rows, block_bytes: int | None = None) -> Iterator[tuple[slice, Array]]:
    """(places, rows) of each block."""
    for rows in row_slices(scores.shape, block_bytes):
        yield rows, scores[rows]
        release(scores)


def column_blocks(scores: Rows) -> Iterator[tuple[int, Array]]:
    """(first column, some columns of all rows) of each block; each row's part is contiguous."""
    num_rows, num_columns = scores.shape
    size = max(1, COLUMN_BYTES // (8 * max(1, num_rows)))
    for start in range(0, num_columns, size):
        columns = slice(start, min(start + size, num_columns))
        parts = []
        for rows in row_slices(scores.shape):
            parts.append(np.array(scores[rows, columns]))
            release(scores)
        yield start, np.concatenate(parts) if len(parts) != 1 else parts[0]


def column(scores: Rows, c: int) -> Array:
    """One column of all rows."""
    if isinstance(scores, Taken | ByColumn):
        return scores.column(c)
    parts = []
    for rows in row_slices(scores.shape):
        parts.append(np.array(scores[rows, c]))
        release(scores)
    return np.concatenate(parts)


def largest(scores: Rows) -> Ints:
    """Column of the largest score of each row, the first of equals."""
    found_N = np.empty(scores.shape[0], np.int64)
    for rows, block_BC in row_blocks(scores):
        found_N[rows] = block_BC.argmax(axis=1)
    return found_N


def room(shape: tuple[int, ...], dtype: Any = np.float32, folder: Path | None = None) -> Array:
    """An array of zeros: in memory, or in a file without a name where it is large.

    Args:
        folder: where the file lies, on the disk that the results go to; left out, or not writable: where temporary files lie.
    Raises:
        RunError: the disk has no room for it.
    """
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if num_bytes <= MOST_IN_MEMORY:
        return np.zeros(shape, dtype)
    with _nameless_file(folder) as file:
        try:
            os.posix_fallocate(
                file.fileno(), 0, num_bytes
            )  # else a full disk would kill the process when a page is written
        except OSError as error:
            place = folder or tempfile.gettempdir()
            raise RunError(
                f"{place}: no room for {num_bytes / 1e9:.1f} GB of scores ({error.strerror}). Free space there, or evaluate fewer rows."
            ) from error
        return np.memmap(file, dtype, "r+", shape=shape)


def _nameless_file(folder: Path | None) -> Any:
    while folder is not None and not folder.exists():
        folder = folder.parent
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:  # a folder that may be read alone
        return tempfile.TemporaryFile()


def joined(parts: list[Array], folder: Path | None = None) -> Array:
    """Arrays behind one another, copied a block at a time; see `room`."""
    whole = room((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype, folder)
    start = 0
    for part in parts:
        for rows, block in row_blocks(part):
            whole[start + rows.start : start + rows.stop] = block
            release(whole)
        start += len(part)
    return whole


def release(scores: Any) -> None:
    """Give back the pages of an array that lies in a file; what was written there stays."""
    while hasattr(scores, "source"):
        scores = scores.source
    mapped = getattr(scores, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
