"""Read compressed files: .gz, .xz, .zst and .zip."""

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
COMPRESSED = (".gz", ".xz", ".zst", ".zip")
"""Endings of compressed files."""
SIGNATURES = (
    (b"PAR1", "a Parquet file", ".parquet"),
    (b"ARROW1", "an Arrow file", ".arrow"),
    (b"\x1f\x8b", "a gzip file", ".gz"),
    (b"\xfd7zXZ", "an xz file", ".xz"),
    (b"\x28\xb5\x2f\xfd", "a zstd file", ".zst"),
    (b"PK\x03\x04", "a zip file", ".zip"),
)
"""First bytes of formats that are not text, their names and endings."""
BUFFER_BYTES = 1 << 18
DAMAGE = (EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, pa.ArrowException)
"""Errors for a file that is cut off or damaged, beside an OSError without a number."""


def is_compressed(path: Path) -> bool:
    """Whether the name of a file says that it is compressed."""
    return path.suffix.lower() in COMPRESSED


def ending(path: Path) -> str:
    """Return the ending of a file's name in lower case, without .gz, .xz, .zst or .zip after it.

    If the name of a .zip file has no other ending, the file inside gives it.

    Raises:
        DataError: a .zip file holds several files, or none.

    Example:
        >>> ending(Path("A.csv.GZ"))
        '.csv'
    """
    if not is_compressed(path):
        return path.suffix.lower()
    inner = Path(path.stem).suffix.lower()
    if not inner and path.suffix.lower() == ".zip" and path.is_file():
        with path.open("rb") as raw:
            return Path(_only_member(_zip(raw, path), path)).suffix.lower()
    return inner


def decompressed(raw: Any, path: Path) -> Any:
    """Return a stream of the bytes that an open file holds.

    Args:
        path: its name, which says how it is compressed.
    Raises:
        DataError: a .zip file is damaged or encrypted, or holds several files or none; a file that
            is named as text holds another format.
    """
    kind = path.suffix.lower()
    if kind == ".gz":
        return gzip.open(raw)
    if kind == ".xz":
        return lzma.open(raw)
    if kind == ".zst":
        stream = pa.CompressedInputStream(pa.PythonFile(raw, "r"), "zstd")
        return io.BufferedReader(stream, BUFFER_BYTES)
    if kind == ".zip":
        archive = _zip(raw, path)
        name = _only_member(archive, path)
        try:
            return archive.open(name)
        except (RuntimeError, NotImplementedError) as error:
            raise DataError(
                f"{path}: cannot be decompressed: {first_line(error)} Decompress it, and give the "
                "file in it."
            ) from error
    _refuse_other_formats(raw.peek(BUFFER_BYTES), path)
    return raw


def _refuse_other_formats(start: bytes, path: Path) -> None:
    """Raise DataError for a file that is named as text but holds another format."""
    for signature, name, form in SIGNATURES:
        if start.startswith(signature):
            if form == ".zip" and b"[Content_Types].xml" in start:
                name, form = "an Excel file", ".xlsx"
            form = f"{path.suffix}{form}" if form in COMPRESSED else form
            raise DataError(
                f"{path}: is {name} by its first bytes, not text. Rename it, so that its name ends "
                f"in {form}."
            )


def open_bytes(path: Path) -> Any:
    """Open a file for its decompressed bytes."""
    return decompressed(path.open("rb"), path)


def _zip(raw: Any, path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(raw)
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path}: is not a .zip file, or is damaged: {first_line(error)} Download it again, or "
            "leave it out."
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
            f"{path}: {found}; needed: one. Decompress it, and give the files that you want."
        )
    return names[0]


def to_the_end(
    where: str, parts: Iterator[T], remedy: str = "Download the file again, or leave it out."
) -> Iterator[T]:
    """Yield the same tables or rows.

    Raises:
        DataError: the file is cut off or damaged.
    """
    try:
        yield from parts
    except (*DAMAGE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DataError(
            f"{where}: cannot be read to its end: {first_line(error)} {remedy}"
        ) from error
