"""Rows of a file or of standard input with all their columns, one after the other, in constant memory."""

import codecs
import io
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.data.reading.bad_rows import LINE, RECORD, BadRows, refuse_bad_rows
from trainer.data.reading.columns import check_columns, check_header
from trainer.data.reading.formats.csv_rows import CsvRows
from trainer.data.reading.formats.json_layouts import json_records
from trainer.data.reading.formats.json_rows import (
    SAMPLE,
    check_sample,
    read_json,
    read_jsonl,
    record_fault,
)
from trainer.data.reading.formats.packed import ending, to_the_end, unpack
from trainer.data.reading.formats.readers import READERS, read_csv
from trainer.data.reading.formats.text_encoding import text_blocks, worded_decoding
from trainer.errors import DataError, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

Record = dict[str, Any]
Placed = tuple[Record, str, int]
"""A row, with what its file counts rows by, "line" or "record", and its first line or its number, from 1."""
TABLE_ROWS = 1000
"""Rows of a table that are Python objects at once."""
BLOCK_BYTES = 1 << 16
"""Read at once of CSV: rows of a pipe come soon, and the part that is read tells how many there are in all."""


@dataclass
class Records:
    """The rows of a file, or of standard input; they can be gone through once.

    Training reads the columns it needs as Arrow tables; here every column is kept as it is, and a pipe gives its rows as they come.

    Args:
        path: file of an ending in READERS, perhaps packed; None for standard input, CSV with a header line or JSONL.
        options: how it is read: encoding, separator, quote_char, column_names, skip_lines ..., on_bad_rows.
        wanted: columns that every row needs.
        column_remedy: sentences that say where the names of columns are set; nothing means in `options`.
        encoding_remedy: the same of the encoding, without a full stop.
    Attributes:
        format: ending that tells how it is read.
        schema: types of the columns where the file tells them, once the first row is read.
        num_bad: rows that could not be read and were left out (`data.on_bad_rows: skip`).
        place: file and line of the row that was given last, as training names it.
    Raises:
        DataError: an ending that is not known.
    """

    path: Path | None
    options: "DataSection"
    wanted: list[str]
    column_remedy: str = ""
    encoding_remedy: str = "Set data.encoding"
    format: str = ""
    schema: pa.Schema | None = None
    num_bad: int = 0
    place: str = ""
    _raw: Any = field(default=None, repr=False)
    _bad_rows: BadRows = field(default_factory=BadRows, repr=False)

    def __post_init__(self) -> None:
        self.format = _sniffed(sys.stdin.buffer) if self.path is None else ending(self.path)
        if self.format not in READERS:
            raise DataError(f"{self.path}: endings that can be read: {listing(READERS)}.")
        self._bad_rows = _RefusedRows(self)

    @property
    def where(self) -> str:
        """Name of the source, for messages."""
        return "standard input" if self.path is None else str(self.path)

    @cached_property
    def first(self) -> Record | None:
        """The first row, which tells what is wrong with the columns before anything is done with them."""
        return next(self._named, None)

    def __iter__(self) -> Iterator[Record]:
        if self.first is not None:
            yield self.first
        yield from self._named

    @cached_property
    def _named(self) -> Iterator[Record]:
        """The rows, each of which sets `place`."""
        return self._name(self._read())

    def _name(self, rows: Iterator[Placed]) -> Iterator[Record]:
        for record, unit, number in rows:
            self.place = (
                f"{self.where}:{number}" if unit == "line" else f"{self.where}: record {number}"
            )
            yield record

    def _read(self) -> Iterator[Placed]:
        with worded_decoding(self.where, self.path, self.options.encoding, self.encoding_remedy):
            if READERS[self.format] is read_csv:
                yield from to_the_end(self.where, self._csv())
            elif READERS[self.format] in (read_jsonl, read_json):
                yield from to_the_end(self.where, self._objects())
            else:
                yield from to_the_end(self.where, self._tables())

    @property
    def remarks(self) -> list[str]:
        """Sentences about how the rows were read."""
        return self._bad_rows.remarks

    def estimated_rows(self, num_read: int) -> int | None:
        """Rows in all, judged by the part of the file that the first ones took; exact for Parquet; None where it cannot be told."""
        if self.path is None:
            return None
        if self.format == ".parquet":
            return int(pq.read_metadata(self.path).num_rows)
        part = (
            self._raw.tell() / max(1, self.path.stat().st_size)
            if self._raw and not self._raw.closed
            else 0.0
        )
        return int(num_read / part) if part else None

    def _bytes(self) -> Any:
        if self.path is None:
            return sys.stdin.buffer
        self._raw = self.path.open("rb")
        return unpack(self._raw, self.path)

    def _csv(self) -> Iterator[Placed]:
        with self._bytes() as stream:
            blocks = text_blocks(
                stream.read if self.path else stream.read1,
                self.where,
                self.options.encoding,
                BLOCK_BYTES,
            )

            def check(names: list[str]) -> None:
                self._check(pa.schema([(name, pa.string()) for name in names]))

            for table in CsvRows(
                blocks, self.where, [], self.options, self.format, self._bad_rows, check
            ).tables():
                yield from _dicts(table, 1)

    def _check(self, schema: pa.Schema) -> None:
        """Note the columns; raises DataError where there is none, a wanted one is missing, or two have one name."""
        if not schema.names:
            raise DataError(f"{self.where}: is empty. Give a file with a header line and rows.")
        wanted = [*self.wanted, *doubled(schema.names)]
        if READERS[self.format] is read_csv:
            check_header(self.where, wanted, schema.names, self.options, self.column_remedy)
        else:
            check_columns(self.where, wanted, schema.names, self.options, self.column_remedy)
        self.schema = (
            schema.remove_metadata()
        )  # of `datasets` and pandas, which would tell of these columns alone

    def _objects(self) -> Iterator[Placed]:
        """Objects of JSON lines, or of one JSON text."""
        held: list[Placed] = []
        is_checked = not self.wanted
        place = ""
        for unit, number, value in self._json_values():
            try:
                record = json.loads(value) if unit == "line" else value
                fault = record_fault(record, self.wanted)
            except (ValueError, RecursionError) as error:
                fault = f"broken JSON: {error}"
            if fault:
                self._bad_rows.append({"file": self.where, unit: number, "reason": fault})
                continue
            if is_checked:
                yield record, unit, number
                continue
            place = place or f"{self.where}:{number}"
            held.append((record, unit, number))  # until the columns have been seen
            if len(held) == SAMPLE or all(
                any(name in earlier for earlier, _, _ in held) for name in self.wanted
            ):
                check_sample(
                    place,
                    [earlier for earlier, _, _ in held],
                    self.wanted,
                    self.options,
                    self.column_remedy,
                )
                is_checked = True
                yield from held
        if held and not is_checked:
            check_sample(
                place,
                [earlier for earlier, _, _ in held],
                self.wanted,
                self.options,
                self.column_remedy,
            )
            yield from held

    def _json_values(self) -> Iterator[tuple[str, int, Any]]:
        """("line", its number, text) of lines that hold more than white space, or ("record", its number, value)."""
        if self.format == ".json":
            with self._bytes() as stream, io.TextIOWrapper(stream, self.options.encoding) as text:
                records = json_records(text, self.where, self.wanted)
                if records is not None:
                    yield from (
                        ("record", number, value) for number, value in enumerate(records, 1)
                    )
                    return
        encoding = (
            "utf-8-sig"
            if codecs.lookup(self.options.encoding).name == "utf-8"
            else self.options.encoding
        )
        with self._bytes() as stream, io.TextIOWrapper(stream, encoding, newline="\n") as text:
            yield from (
                ("line", number, line) for number, line in enumerate(text, 1) if line.strip()
            )

    def _tables(self) -> Iterator[Placed]:
        assert self.path is not None, "standard input is text"
        first = 1
        for table in READERS[self.format](self.path, [], self.options, self._bad_rows):
            if self.schema is None:
                self._check(_own_columns(table).schema)
            yield from _dicts(table, first)
            first += table.num_rows
        if self.schema is None and self.format == ".parquet":  # without rows
            self._check(pq.read_schema(self.path))


class _RefusedRows(BadRows):
    """Counts rows that cannot be read, or raises DataError for the first."""

    def __init__(self, records: Records) -> None:
        super().__init__()
        self.records = records

    def append(self, row: dict[str, Any]) -> None:
        self.records.num_bad += 1
        refuse_bad_rows([row], self.records.options, "the first bad one")


def _own_columns(table: pa.Table) -> pa.Table:
    """The table without the places of its rows."""
    return table.drop_columns([name for name in (LINE, RECORD) if name in table.column_names])


def _dicts(table: pa.Table, first: int) -> Iterator[Placed]:
    """The rows of a table.

    Args:
        first: number of its first row, where it has no column of places.
    """
    column = next((name for name in (LINE, RECORD) if name in table.column_names), None)
    unit = "line" if column == LINE else "record"
    start, own = 0, _own_columns(table)
    for batch in own.to_batches(max_chunksize=TABLE_ROWS):
        end = start + batch.num_rows
        numbers = (
            table[column][start:end].to_pylist() if column else range(first + start, first + end)
        )
        for record, number in zip(batch.to_pylist(), numbers, strict=True):
            yield record, unit, number
        start = end


def doubled(names: list[str]) -> list[str]:
    """Names that occur more than once."""
    return [name for name, count in Counter(names).items() if count > 1]


def _sniffed(stream: Any) -> str:
    """.jsonl where standard input starts with an object, else .csv.

    Raises:
        DataError: it is packed, or a JSON list, which only a file can be.
    """
    start = stream.peek(64)
    if start.startswith(b"\x1f\x8b"):
        raise DataError(
            "standard input: is packed with gzip; needed: CSV with a header line, or JSON lines. Unpack it: gzip -dc FILE | ..."
        )
    start = start.lstrip(codecs.BOM_UTF8 + b" \t\r\n")
    if start[:1] == b"[" and start[1:].lstrip()[:1] == b"{":
        raise DataError(
            "standard input: is a JSON list; needed: CSV with a header line, or one JSON object a line. Give a file that ends in .json."
        )
    return ".jsonl" if start[:1] == b"{" else ".csv"
