"""A file of rows that is written in pieces and gets its name when it is complete.

After each piece is on the disk, its size is noted in `.<file>.equipoise-partial.json`. A writer
that starts after an interruption cuts the file after the last noted piece, and resumes there.
The table ENCODERS lists the formats.
"""

import csv
import errno
import gzip
import io
import json
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, NonNegativeInt, ValidationError

from trainer.data.reading.formats.compression import COMPRESSED, ending
from trainer.data.reading.formats.records import Record
from trainer.errors import DataError, RunError, first_line, listing
from trainer.files import durable
from trainer.files.locks import work_file

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ROW_GROUP_BYTES = 1 << 26
FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
"""The start of a cell that a spreadsheet would run. Source: OWASP, "CSV Injection"."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Columns:
    """The columns of a file.

    Attributes:
        names: the columns of the input.
        schema: their types, if the source has types.
        added: the columns that follow them.
        spreadsheet_safe: whether to quote cells of CSV and TSV that would be formulas.
    """

    names: list[str]
    schema: pa.Schema | None
    added: pa.Schema
    spreadsheet_safe: bool = False

    def refuse_others(self, records: list[Record]) -> None:
        """Raise DataError for a row with a column that the first row does not have."""
        known = {*self.names, *self.added.names}
        for record in records:
            if unknown := record.keys() - known:
                raise DataError(
                    f"a row has the column '{min(unknown)}', which the first row lacks."
                    " Give an --output that ends in .jsonl."
                )


def _with_rows(progress: dict[str, int]) -> dict[str, int]:
    """Return the counts of a note; raise ValueError without `rows`."""
    if "rows" not in progress:
        raise ValueError("no count of rows")
    return progress


class _Note(BaseModel):
    """The note of a partial file: identity of the work, bytes of complete pieces, counts."""

    identity: dict[str, Any]
    bytes: NonNegativeInt
    progress: Annotated[dict[str, NonNegativeInt], AfterValidator(_with_rows)]


class PartialFile:
    """A file that is written in pieces and can be resumed.

    Args:
        target: the final file; its ending decides the format.
        identity: plain values that the rows depend on; a partial file with other values is
            overwritten.
    Attributes:
        progress: the counts of the last `append`, {} at the beginning.
        note: a message about an earlier partial file; None without one.
    Raises:
        DataError: an ending that cannot be written.
    """

    def __init__(self, target: Path, identity: dict[str, Any]) -> None:
        self.target, self.identity = target, json.loads(json.dumps(identity))
        self.encode = encoder(target)
        self.aside, self.note_path = work_file(target, "partial"), work_file(target, "partial.json")
        self.progress: dict[str, int] = {}
        self.num_bytes, self.note = self._find()
        target.parent.mkdir(parents=True, exist_ok=True)
        self.file = self.aside.open("r+b" if self.num_bytes else "wb", buffering=0)
        self.file.truncate(self.num_bytes)
        self.file.seek(self.num_bytes)

    def _find(self) -> tuple[int, str | None]:
        """Return the bytes of complete pieces, and a message about them."""
        try:
            content, size = self.note_path.read_bytes(), self.aside.stat().st_size
        except OSError:
            return 0, None
        try:
            found = _Note.model_validate_json(content, strict=True)
        except ValidationError:
            return 0, f"{self.note_path} is damaged: starting again."
        identity = found.identity
        changed = [name for name, value in self.identity.items() if identity.get(name) != value]
        if changed or size < found.bytes:
            reason = f"has other {' and '.join(changed)}" if changed else "is not complete"
            return 0, f"{self.aside} {reason}: starting again."
        self.progress = found.progress
        return found.bytes, f"Resuming {self.aside} after {self.progress['rows']:,} rows."

    def append(self, records: list[Record], columns: Columns, progress: dict[str, int]) -> None:
        """Write a piece and note it.

        Args:
            progress: counts for the next writer, with `rows`.
        Raises:
            RunError: the disk is full.
        """
        if self.num_bytes and ending(self.target) == ".parquet":
            columns = replace(columns, schema=_schema_of(self.aside))
        piece = memoryview(self.encode(records, columns, not self.num_bytes))
        new_note = self.note_path.with_name(f"{self.note_path.name}.new")
        try:
            rest = piece
            while rest:
                rest = rest[self.file.write(rest) :]
            os.fsync(self.file.fileno())
            self.num_bytes += len(piece)
            new_note.write_text(
                json.dumps(
                    {"identity": self.identity, "bytes": self.num_bytes, "progress": progress}
                ),
                encoding="utf-8",
            )
            os.replace(new_note, self.note_path)
        except OSError as error:
            new_note.unlink(missing_ok=True)
            raise self._worded(error) from error
        self.progress = dict(progress)

    def finish(self) -> None:
        """Give the complete file its name."""
        whole = self.aside
        try:
            self.file.close()
            if ending(self.target) == ".parquet":
                whole = self.aside.with_name(f"{self.aside.name}.parquet")
                _write_parquet(self.aside, whole)
            durable.sync(whole)
            durable.replace(whole, self.target)
        except OSError as error:
            if whole != self.aside:
                whole.unlink(missing_ok=True)
            raise self._worded(error) from error
        self.note_path.unlink(missing_ok=True)
        self.aside.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; remove it if it holds no complete piece."""
        self.file.close()
        if not self.num_bytes:
            self.aside.unlink(missing_ok=True)

    def _worded(self, error: OSError) -> Exception:
        if error.errno not in FULL:
            error.filename = error.filename or str(self.target)
            return error
        return RunError(
            f"{self.aside}: {first_line(error).rstrip('.')}. The first"
            f" {self.progress.get('rows', 0):,} rows are kept; free space and run the same command"
            " again, which resumes there."
        )


class StandardOutput:
    """Standard output in place of a PartialFile; it cannot be resumed."""

    def __init__(self, form: str) -> None:
        self.encode, self.is_first, self.note = encoder(Path(f"-{form}")), True, None
        self.progress: dict[str, int] = {}

    def append(self, records: list[Record], columns: Columns, progress: dict[str, int]) -> None:
        """Write a piece."""
        sys.stdout.buffer.write(self.encode(records, columns, self.is_first))
        sys.stdout.buffer.flush()
        self.is_first = False

    def finish(self) -> None:
        """Do nothing."""


Encoder = Callable[[list[Record], Columns, bool], bytes]


def encoder(target: Path) -> Encoder:
    """Return the function that turns rows into the bytes of a file.

    Raises:
        DataError: an ending that cannot be written.
    """
    form = ending(target)
    packing = target.suffix.lower()
    is_compressed = packing == ".gz"
    if (
        form not in ENCODERS
        or (is_compressed and form == ".parquet")
        or (packing in COMPRESSED and not is_compressed)
    ):
        raise DataError(
            f"{target}: cannot be written; possible endings: {listing(ENCODERS)},"
            " and .gz after all of them except .parquet."
        )
    encode = ENCODERS[form]
    if not is_compressed:
        return encode
    # a .gz file may consist of several compressed members
    return lambda *arguments: gzip.compress(encode(*arguments), mtime=0)


def csv_bytes(
    records: list[Record], columns: Columns, is_first: bool, *, separator: str = ","
) -> bytes:
    """Return CSV in UTF-8 with a header; missing values are empty, lists and objects JSON."""
    columns.refuse_others(records)
    out = io.StringIO()
    form: dict[str, Any] = {"delimiter": separator, "lineterminator": "\n"}
    plain = csv.writer(out, **form)
    quoted = csv.writer(out, **form, quoting=csv.QUOTE_ALL)  # Python 3.11 leaves "\r" unquoted
    names = [*columns.names, *columns.added.names]
    written = spreadsheet_safe if columns.spreadsheet_safe else str
    if is_first:
        plain.writerow(map(written, names))
    for record in records:
        cells = [written(_cell(record.get(name))) for name in names]
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)
    return out.getvalue().encode(errors="backslashreplace")


def spreadsheet_safe(cell: str) -> str:
    """Return the cell, with an apostrophe before it if a spreadsheet would run it as a formula.

    Example:
        >>> tuple(map(spreadsheet_safe, ["=cmd|' /C calc'!A0", "-1.5", "-yes"]))
        ("'=cmd|' /C calc'!A0", '-1.5', "'-yes")
    """
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool | list | dict):
        return _json(value)
    return "" if value is None else str(value)


def _json(value: Any) -> str:
    """Return JSON in one line; other types become text, and numbers that are not finite null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # a number that is not finite
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def jsonl_bytes(records: list[Record], columns: Columns, is_first: bool) -> bytes:
    """Return one JSON object a line, in UTF-8; see `_json`."""
    return "".join(_json(record) + "\n" for record in records).encode(errors="backslashreplace")


def arrow_bytes(records: list[Record], columns: Columns, is_first: bool) -> bytes:
    """Return an Arrow stream; the streams of all pieces become one Parquet file at the end.

    Raises:
        DataError: a value of another type than the first rows have in this column.
    """
    columns.refuse_others(records)
    sink = pa.BufferOutputStream()
    try:
        schema = (
            columns.schema
            or pa.table(
                {name: [record.get(name) for record in records] for name in columns.names}
            ).schema
        )
        table = pa.Table.from_pylist(records, schema=pa.unify_schemas([schema, columns.added]))
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"a row does not fit the columns of the Parquet file: {first_line(error)}"
            " Give an --output that ends in .jsonl."
        ) from error
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _write_parquet(streams: Path, target: Path) -> None:
    """Write a Parquet file from a file of consecutive Arrow streams."""
    schema, size = _schema_of(streams), streams.stat().st_size
    batches: list[pa.RecordBatch] = []
    with pa.OSFile(str(streams)) as source, pq.ParquetWriter(target, schema) as writer:
        while source.tell() < size:
            batches += pa.ipc.open_stream(source)
            if sum(batch.nbytes for batch in batches) > ROW_GROUP_BYTES or source.tell() >= size:
                writer.write_table(pa.Table.from_batches(batches, schema))
                batches = []


def _schema_of(streams: Path) -> pa.Schema:
    with pa.OSFile(str(streams)) as source:
        return pa.ipc.open_stream(source).schema


ENCODERS: dict[str, Encoder] = {
    ".csv": csv_bytes,
    ".tsv": partial(csv_bytes, separator="\t"),
    ".jsonl": jsonl_bytes,
    ".ndjson": jsonl_bytes,
    ".parquet": arrow_bytes,
}
"""{ending: function of rows, columns and whether it is the first piece -> bytes of the piece}."""
