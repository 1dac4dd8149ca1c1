"""Packed files: .gz, .xz, .zst and .zip, opened as the bytes that they hold."""

import gzip
import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from trainer.errors import DataError, first_line, listing

T = TypeVar("T")
PACKED = (".gz", ".xz", ".zst", ".zip")
"""Endings of packed files."""
MARKS = (
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"ARROW1", "an Arrow file", ".arrow"),
    (b"\x1f\x8b", "a gzip file", ".gz"),
    (b"\xfd7zXZ", "an xz file", ".xz"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", ".zst"),
    (b"PK\x03\x04", "a zip file", ".zip"),
)
"""First bytes of formats that are no text, their names and endings."""
BUFFER_BYTES = 1 << 18
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)
"""What the readers raise for a file that is cut off or damaged, beside an OSError without a number."""


def is_packed(path: Path) -> bool:
    """Return whether a file's name says that it is packed."""
    return path.suffix.lower() in PACKED


def ending(path: Path) -> str:
    """Return the ending of a file's name in small letters, without .gz, .xz, .zst or .zip behind it.

    A .zip file whose own name has no second ending is named by the file in it.

    Raises:
        DataError: a .zip file that holds several files, or none.

    Example:
        >>> ending(Path("A.csv.GZ"))
        '.csv'
    """
    if not is_packed(path):
        return path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    if not inner and path.suffix.lower() == ".zip" and path.is_file():
        with path.open("rb") as raw:
            return Path(_only_member(_zip(raw, path), path)).suffix.lower()
    return inner


def unpack(raw: Any, path: Path) -> Any:
    """Return a stream of the bytes that a file holds.

    Args:
        raw: the open file.
        path: its name, which says how it is packed.
    Raises:
        DataError: a .zip file that is damaged, encrypted, or holds several files, or none; a file
            named as text that holds another format.
    """
    kind = path.suffix.lower()
    if kind == ".gz":
        return gzip.open(raw)
    if kind == ".xz":
        return lzma.open(raw)
    if kind == ".zst":
        return io.BufferedReader(
            pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd"), BUFFER_BYTES
        )
    if kind == ".zip":
        archive = _zip(raw, path)
        name = _only_member(archive, path)
        try:
            return archive.open(name)
        except (RuntimeError, NotImplementedError) as error:
            raise DataError(
                f"{path}: cannot be unpacked: {first_line(error)} Unpack it, and give the file in it."
            ) from error
    _refuse_other_formats(raw.peek(BUFFER_BYTES), path)
    return raw


def _refuse_other_formats(start: bytes, path: Path) -> None:
    """Raises DataError for a file that is named as text, but holds another format."""
    for mark, name, form in MARKS:
        if start.startswith(mark):
            if form == ".zip" and b"[Content_Types].xml" in start:
                name, form = "an Excel file", ".xlsx"
            form = f"{path.suffix}{form}" if form in PACKED else form
            raise DataError(
                f"{path}: is {name} by its first bytes, not text. Rename it, so that its name ends in {form}."
            )


def open_bytes(path: Path) -> Any:
    """Return the bytes of a file, unpacked."""
    return unpack(path.open("rb"), path)


def _zip(raw: Any, path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(raw)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path}: is not a .zip file, or is damaged: {first_line(error)} Fetch it anew, or leave it out."
        ) from error


def _only_member(archive: zipfile.ZipFile, path: Path) -> str:
    names = [
        info.filename
        for info in archive.infolist()
        if not info.is_dir() and not info.filename.startswith("__MACOSX/")
    ]
    if len(names) != 1:
        found = f"holds {len(names)} files: {listing(names, most=6)}" if names else "holds no file"
        raise DataError(
            f"{path}: {found}; needed: one. Unpack it, and give the files that you want."
        )
    return names[0]


def to_the_end(
    where: str, parts: Iterator[T], remedy: str = "Fetch the file anew, or leave it out."
) -> Iterator[T]:
    """Give the same tables or rows; a file that is cut off or damaged is named.

    Raises:
        DataError: the file cannot be read to its end.
    """
    try:
        yield from parts
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{where}: cannot be read to its end: {first_line(error)} {remedy}"
        ) from error
