"""A file of rows that is written in pieces beside its place and gets its name when it is whole; table ENCODERS.

Each piece is on the disk before the note of it, `.<file>.equipoise-partial.json`, is replaced. A writer that was killed, or
stopped by a full disk, is followed by one that cuts off what stands behind the last noted piece and goes on there.
"""

import csv
import errno
import gzip
import io
import json
import math
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, BaseModel, NonNegativeInt, ValidationError

from trainer.data.reading.formats.compression import COMPRESSED, ending
from trainer.data.reading.formats.records import Record
from trainer.delivery.predicting.spreadsheet import spreadsheet_safe
from trainer.errors import DataError, RunError, first_line, listing
from trainer.files import durable
from trainer.files.locks import work_file

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
ROW_GROUP_BYTES = 1 << 26


@dataclass(frozen=True)
class Columns:
    """The columns of a file.

    Attributes:
        names: those that the rows had.
        schema: their types where the source tells them.
        added: those that stand behind them.
        spreadsheet_safe: whether cells of CSV and TSV that would be formulas are made text.
    """

    names: list[str]
    schema: pa.Schema | None
    added: pa.Schema
    spreadsheet_safe: bool = False

    def refuse_others(self, records: list[Record]) -> None:
        """Raises DataError for a row with a column that the first row lacks."""
        known = {*self.names, *self.added.names}
        for record in records:
            if unknown := record.keys() - known:
                raise DataError(
                    f"a row has the column '{min(unknown)}', which the first row lacks. Give an --output that ends in .jsonl."
                )


def _with_rows(progress: dict[str, int]) -> dict[str, int]:
    """Return the counts of a note, among which `rows` must be."""
    if "rows" not in progress:
        raise ValueError("no count of rows")
    return progress


class _Note(BaseModel):
    """What the note of a partial file tells: what its rows are made of, bytes of whole pieces, counts of rows."""

    identity: dict[str, Any]
    bytes: NonNegativeInt
    progress: Annotated[dict[str, NonNegativeInt], AfterValidator(_with_rows)]


class PartialFile:
    """Pieces of a file, kept over several starts of the same work.

    Args:
        target: the file to be; its ending says what is in it.
        identity: what the rows are made of, plain values by name; a partial file of another identity is begun anew.
    Attributes:
        progress: what the last `append` noted, {} at the beginning.
        note: what is to be said of an earlier start; None where there was none.
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
        """Bytes of whole pieces that are there, and what to say of them."""
        try:
            content, size = self.note_path.read_bytes(), self.aside.stat().st_size
        except OSError:
            return 0, None
        try:
            found = _Note.model_validate_json(content, strict=True)
        except ValidationError:
            return 0, f"{self.note_path} is damaged: starting anew."
        identity = found.identity
        changed = [name for name, value in self.identity.items() if identity.get(name) != value]
        if changed or size < found.bytes:
            reason = f"was begun with other {' and '.join(changed)}" if changed else "is not whole"
            return 0, f"{self.aside} {reason}: starting anew."
        self.progress = found.progress
        return found.bytes, f"Going on in {self.aside} after {self.progress['rows']:,} rows."

    def append(self, records: list[Record], columns: Columns, progress: dict[str, int]) -> None:
        """Write a piece and what was done with it.

        Args:
            progress: counts that the next start finds again; `rows` among them.
        Raises:
            RunError: the disk is full.
        """
        if self.num_bytes and ending(self.target) == ".parquet":
            columns = replace(columns, schema=_schema_of(self.aside))
        piece = memoryview(self.encode(records, columns, not self.num_bytes))
        partial = self.note_path.with_name(f"{self.note_path.name}.new")
        try:
            rest = piece
            while rest:
                rest = rest[self.file.write(rest) :]
            os.fsync(self.file.fileno())
            self.num_bytes += len(piece)
            partial.write_text(
                json.dumps(
                    {"identity": self.identity, "bytes": self.num_bytes, "progress": progress}
                ),
                encoding="utf-8",
            )
            os.replace(partial, self.note_path)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise self._worded(error) from error
        self.progress = dict(progress)

    def finish(self) -> None:
        """Give the file its name."""
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
        """End the writing; what holds no whole piece is removed."""
        self.file.close()
        if not self.num_bytes:
            self.aside.unlink(missing_ok=True)

    def _worded(self, error: OSError) -> Exception:
        if error.errno not in FULL:
            error.filename = error.filename or str(self.target)
            return error
        words = f"{self.aside}: {first_line(error).rstrip('.')}. The first {self.progress.get('rows', 0):,} rows are kept;"
        return RunError(f"{words} free space and run the same command again, which goes on there.")


class StandardOutput:
    """The same for standard output, which cannot be taken up again."""

    def __init__(self, form: str) -> None:
        self.encode, self.is_first, self.note = encoder(Path(f"-{form}")), True, None
        self.progress: dict[str, int] = {}

    def append(self, records: list[Record], columns: Columns, progress: dict[str, int]) -> None:
        """Write a piece."""
        sys.stdout.buffer.write(self.encode(records, columns, self.is_first))
        sys.stdout.buffer.flush()
        self.is_first = False

    def finish(self) -> None:
        """Nothing is left to do."""


Encoder = Callable[[list[Record], Columns, bool], bytes]


def encoder(target: Path) -> Encoder:
    """What turns rows into the bytes of a file of this name.

    Raises:
        DataError: an ending that cannot be written.
    """
    form = ending(target)
    packing = target.suffix.lower()
    is_packed = packing == ".gz"
    if (
        form not in ENCODERS
        or (is_packed and form == ".parquet")
        or (packing in COMPRESSED and not is_packed)
    ):
        raise DataError(
            f"{target}: endings that can be written: {listing(ENCODERS)}, all but .parquet also with .gz behind."
        )
    encode = ENCODERS[form]
    if not is_packed:
        return encode
    return lambda *arguments: gzip.compress(
        encode(*arguments), mtime=0
    )  # several such members, one behind the other, are a whole .gz file


def csv_bytes(
    records: list[Record], columns: Columns, is_first: bool, *, separator: str = ","
) -> bytes:
    """Lines of CSV in UTF-8, below a header; missing values are empty, lists and objects JSON."""
    columns.refuse_others(records)
    out = io.StringIO()
    plain = csv.writer(out, delimiter=separator, lineterminator="\n")
    quoted = csv.writer(
        out, delimiter=separator, lineterminator="\n", quoting=csv.QUOTE_ALL
    )  # for a carriage return, which Python 3.11 leaves bare
    names = [*columns.names, *columns.added.names]
    written = spreadsheet_safe if columns.spreadsheet_safe else str
    if is_first:
        plain.writerow(map(written, names))
    for record in records:
        cells = [written(_cell(record.get(name))) for name in names]
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)
    return out.getvalue().encode(errors="backslashreplace")


def _cell(value: Any) -> str:
    if isinstance(value, str):
        return value
    return (
        ""
        if value is None
        else _json(value)
        if isinstance(value, bool | list | dict)
        else str(value)
    )


def _json(value: Any) -> str:
    """JSON in one line; what it has no type for becomes text, and numbers that are not finite null."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    except ValueError:  # such a number: rare, so it is looked for only then
        return json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(held) for held in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def tsv_bytes(records: list[Record], columns: Columns, is_first: bool) -> bytes:
    """As csv_bytes, with tabs."""
    return csv_bytes(records, columns, is_first, separator="\t")


def jsonl_bytes(records: list[Record], columns: Columns, is_first: bool) -> bytes:
    """One JSON object a line, in UTF-8; what JSON has no type for becomes text, and numbers that are not finite null."""
    return "".join(_json(record) + "\n" for record in records).encode(errors="backslashreplace")


def arrow_bytes(records: list[Record], columns: Columns, is_first: bool) -> bytes:
    """An Arrow stream; several, one behind the other, become a Parquet file when all are there.

    Raises:
        DataError: a value of another type than the first rows have in its column.
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
            f"a row does not fit the columns of the Parquet file: {first_line(error)} Give an --output that ends in .jsonl."
        ) from error
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _write_parquet(streams: Path, target: Path) -> None:
    """One Parquet file of the Arrow streams that stand one behind the other in a file."""
    schema = _schema_of(streams)
    with pq.ParquetWriter(target, schema) as writer:
        for batches in _grouped(streams):
            writer.write_table(pa.Table.from_batches(batches, schema))


def _schema_of(streams: Path) -> pa.Schema:
    with pa.OSFile(str(streams)) as source:
        return pa.ipc.open_stream(source).schema


def _grouped(streams: Path) -> Iterator[list[pa.RecordBatch]]:
    batches: list[pa.RecordBatch] = []
    size = streams.stat().st_size
    with pa.OSFile(str(streams)) as source:
        while source.tell() < size:
            batches += pa.ipc.open_stream(source)
            if sum(batch.nbytes for batch in batches) > ROW_GROUP_BYTES or source.tell() >= size:
                yield batches
                batches = []


ENCODERS: dict[str, Encoder] = {
    ".csv": csv_bytes,
    ".tsv": tsv_bytes,
    ".jsonl": jsonl_bytes,
    ".ndjson": jsonl_bytes,
    ".parquet": arrow_bytes,
}
"""(rows, columns, whether it is the first piece) -> bytes of a piece, by ending."""
