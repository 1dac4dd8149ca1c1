"""Large arrays of scores, read a block at a time. Legend: N rows, C classes, B rows of a block.

An array above MOST_IN_MEMORY is stored in a file without a name, which disappears when the process
ends. Each block's pages are released after use, so that resident memory stays small.
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
"""Size of a block of rows in float64, small enough for the caches of a CPU."""
CACHED_BYTES = 1 << 20
"""Size of a small block in float64. It fits the cache of one core while it is changed in place, and
few neighbouring rows are read with rows that are far apart in a file."""
COLUMN_BYTES = 1 << 27
"""Size of a block of columns in float64. Each block reads the whole file once."""
MOST_IN_MEMORY = 1 << 27
"""Bytes above which an array is stored in a file."""


class Rows(Protocol):
    """An array, or an object that computes its rows when they are read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and columns."""
        ...

    def __getitem__(self, key: Any, /) -> Any:
        """Return some rows as an array."""
        ...


class Taken:
    """A selection of rows of an array, copied only when they are read."""

    def __init__(self, source: Rows, rows: Ints) -> None:
        self.source, self.rows = source, rows

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and columns."""
        return len(self.rows), *self.source.shape[1:]

    def __getitem__(self, key: Any) -> Any:
        return (
            self.source[(self.rows[key[0]], *key[1:])]
            if isinstance(key, tuple)
            else self.source[self.rows[key]]
        )

    def column(self, c: int) -> Array:
        """Return one column of the selected rows."""
        return column(self.source, c)[self.rows]


class ByColumn:
    """An array with a contiguous copy of some columns, for code that reads columns often.

    Attributes:
        place_of: {column: its row in `columns_CN`}.
    """

    def __init__(self, source: Array, columns: list[int], folder: Path | None = None) -> None:
        self.source, self.place_of = source, {c: place for place, c in enumerate(columns)}
        self.columns_CN = room((len(columns), len(source)), source.dtype, folder)
        for rows, block_BC in row_blocks(source, 8 * BLOCK_BYTES):
            self.columns_CN[:, rows] = block_BC[:, columns].T
            release(self.columns_CN)

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and columns."""
        return self.source.shape

    def __getitem__(self, key: Any) -> Any:
        return self.source[key]

    def column(self, c: int) -> Array:
        """Return one column of all rows."""
        if c not in self.place_of:
            return column(self.source, c)
        found_N = np.array(self.columns_CN[self.place_of[c]])
        release(self.columns_CN)
        return found_N


def row_slices(shape: tuple[int, ...], block_bytes: int | None = None) -> Iterator[slice]:
    """Return the slices of consecutive blocks of rows, of BLOCK_BYTES unless given."""
    row_bytes = 8 * max(1, int(np.prod(shape[1:], dtype=np.int64)))
    size = max(1, (block_bytes or BLOCK_BYTES) // row_bytes)
    return (slice(start, min(start + size, shape[0])) for start in range(0, shape[0], size))


def row_blocks(scores: Rows, block_bytes: int | None = None) -> Iterator[tuple[slice, Array]]:
    """Yield (slice, rows) of each block."""
    for rows in row_slices(scores.shape, block_bytes):
        yield rows, scores[rows]
        release(scores)


def column_blocks(scores: Rows) -> Iterator[tuple[int, Array]]:
    """Yield (first column, columns of all rows) of each block of columns."""
    num_rows, num_columns = scores.shape
    size = max(1, COLUMN_BYTES // (8 * max(1, num_rows)))
    for start in range(0, num_columns, size):
        yield start, _read_columns(scores, slice(start, start + size))


def column(scores: Rows, c: int) -> Array:
    """Return one column of all rows."""
    if isinstance(scores, Taken | ByColumn):
        return scores.column(c)
    return _read_columns(scores, c)


def _read_columns(scores: Rows, columns: int | slice) -> Array:
    parts = []
    for rows in row_slices(scores.shape):
        parts.append(np.array(scores[rows, columns]))
        release(scores)
    return np.concatenate(parts) if len(parts) != 1 else parts[0]


def largest(scores: Rows) -> Ints:
    """Return the column of the largest score of each row, the first one of equal scores."""
    found_N = np.empty(scores.shape[0], np.int64)
    for rows, block_BC in row_blocks(scores):
        found_N[rows] = block_BC.argmax(axis=1)
    return found_N


def room(shape: tuple[int, ...], dtype: Any = np.float32, folder: Path | None = None) -> Array:
    """Return an array of zeros, stored in a file without a name if it is large.

    Args:
        folder: where to create the file: on the disk of the results. The folder for temporary
            files is used if none is given or it is not writable.
    Raises:
        RunError: the disk is full.
    """
    num_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if num_bytes <= MOST_IN_MEMORY:
        return np.zeros(shape, dtype)
    with _nameless_file(folder) as file:
        try:  # without this, a full disk kills the process when a page is written
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        except OSError as error:
            raise RunError(
                f"{folder or tempfile.gettempdir()}: no space for {num_bytes / 1e9:.1f} GB of "
                f"scores ({error.strerror}). Free some space there, or evaluate fewer rows."
            ) from error
        return np.memmap(file, dtype, "r+", shape=shape)


def _nameless_file(folder: Path | None) -> Any:
    while folder is not None and not folder.exists():
        folder = folder.parent
    try:
        return tempfile.TemporaryFile(dir=folder)
    except OSError:  # the folder is read-only
        return tempfile.TemporaryFile()


def joined(parts: list[Array], folder: Path | None = None) -> Array:
    """Return the concatenation of arrays, copied a block at a time into `room`."""
    whole = room((sum(map(len, parts)), *parts[0].shape[1:]), parts[0].dtype, folder)
    start = 0
    for part in parts:
        for rows, block in row_blocks(part):
            whole[start + rows.start : start + rows.stop] = block
            release(whole)
        start += len(part)
    return whole


def release(scores: Any) -> None:
    """Release the memory pages of an array that is stored in a file; its values stay."""
    while hasattr(scores, "source"):
        scores = scores.source
    mapped = getattr(scores, "_mmap", None)
    if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)
