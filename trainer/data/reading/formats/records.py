"""Read the rows of a file or of standard input one after the other, in constant memory."""

import codecs
import io
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows, refuse_bad_rows
from trainer.data.reading.column_checks import check_columns, check_header
from trainer.data.reading.formats.compression import decompressed, ending, to_the_end
from trainer.data.reading.formats.csv_rows import CsvRows
from trainer.data.reading.formats.json_layouts import json_records
from trainer.data.reading.formats.json_rows import (
    SAMPLE,
    PlacedRecord,
    check_sample,
    read_json,
    read_jsonl,
    usable_rows,
)
from trainer.data.reading.formats.readers import READERS, read_csv
from trainer.data.reading.formats.text_encoding import text_blocks, without_mark, worded_decoding
from trainer.data.reading.row_places import LINE, RECORD, place_column, place_words
from trainer.errors import DataError, listing

Record = dict[str, Any]
TABLE_ROWS = 1000
"""Rows of a table that are Python objects at the same time."""
BLOCK_BYTES = 1 << 16
"""Bytes of CSV that are read at once. A small number gives the rows of a pipe early, and a good
estimate of the number of rows."""


@dataclass
class Records:
    """The rows of a file, or of standard input; you can iterate over them once.

    Training reads the columns it needs as Arrow tables. Here every column keeps its values, and the
    rows of a pipe are given as they arrive.

    Args:
        path: file with an ending in READERS, perhaps compressed; None for standard input, which
            holds CSV with a header line, or JSONL.
        options: how it is read: encoding, separator, on_bad_rows and others.
        wanted: columns that the rows need.
        column_remedy: sentences on where the column names are set; empty if `options` set them.
        encoding_remedy: where the encoding is set, without a full stop.
    Attributes:
        format: the ending that says how it is read.
        schema: types of the columns, if the file has them, once the first row is read.
        place: file and line of the last row, as training names it.
    Raises:
        DataError: the ending is not known.
    """

    path: Path | None
    options: DataSection
    wanted: list[str]
    column_remedy: str = ""
    encoding_remedy: str = "Set data.encoding"
    schema: pa.Schema | None = field(default=None, init=False)
    place: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.format = _format_of(sys.stdin.buffer) if self.path is None else ending(self.path)
        if self.format not in READERS:
            raise DataError(f"{self.path}: endings that can be read: {listing(READERS)}.")
        self._raw: Any = None
        self._bad_rows = BadRows(most=1)

    @property
    def where(self) -> str:
        """Name of the source, for messages."""
        return "standard input" if self.path is None else str(self.path)

    @property
    def remarks(self) -> list[str]:
        """Sentences on how the rows were read."""
        return self._bad_rows.remarks

    @property
    def num_bad(self) -> int:
        """Number of rows that could not be read and were skipped."""
        return self._bad_rows.total

    @cached_property
    def first(self) -> Record | None:
        """The first row. Reading it finds wrong columns before anything else is done."""
        return next(self._rows, None)

    def __iter__(self) -> Iterator[Record]:
        if self.first is not None:
            yield self.first
        yield from self._rows

    @cached_property
    def _rows(self) -> Iterator[Record]:
        """The rows; each of them sets `place`."""
        return self._read()

    def _read(self) -> Iterator[Record]:
        reader = READERS[self.format]
        if reader is read_csv:
            rows = self._csv()
        else:
            rows = self._objects() if reader in (read_jsonl, read_json) else self._tables()
        with worded_decoding(self.where, self.path, self.options.encoding, self.encoding_remedy):
            for unit, number, record in to_the_end(self.where, rows):
                refuse_bad_rows(self._bad_rows, self.options, "the first bad one")
                self.place = place_words(self.where, unit, number)
                yield record
        refuse_bad_rows(self._bad_rows, self.options, "the first bad one")

    def estimated_rows(self, num_read: int) -> int | None:
        """Estimate the number of rows from the part of the file that the first rows took.

        The number is exact for Parquet, and None where it cannot be estimated.
        """
        if self.path is None:
            return None
        if self.format == ".parquet":
            return int(pq.read_metadata(self.path).num_rows)
        try:
            part = self._raw.tell() / max(1, self.path.stat().st_size) if self._raw else 0.0
        except (ValueError, OSError):  # closed by the thread that reads, perhaps at this moment
            return None
        return int(num_read / part) if part else None

    def _bytes(self) -> Any:
        if self.path is None:
            return sys.stdin.buffer
        self._raw = self.path.open("rb")
        return decompressed(self._raw, self.path)

    def _csv(self) -> Iterator[PlacedRecord]:
        def check(names: list[str]) -> None:
            self._check(pa.schema([(name, pa.string()) for name in names]))

        with self._bytes() as stream:
            read = stream.read if self.path else stream.read1
            blocks = text_blocks(read, self.where, self.options.encoding, BLOCK_BYTES)
            rows = CsvRows(blocks, self.where, [], self.options, self.format, self._bad_rows, check)
            for table in rows.tables():
                yield from _dicts(table, 1)

    def _check(self, schema: pa.Schema) -> None:
        """Set the columns; raise DataError if a wanted one is missing, or two have one name."""
        if not schema.names:
            raise DataError(f"{self.where}: is empty. Give a file with a header line and rows.")
        doubled = [name for name, count in Counter(schema.names).items() if count > 1]
        check = check_header if READERS[self.format] is read_csv else check_columns
        wanted = [*self.wanted, *doubled]
        check(self.where, wanted, schema.names, self.options, self.column_remedy)
        # The metadata of `datasets` and pandas describe these columns alone.
        self.schema = schema.remove_metadata()

    def _objects(self) -> Iterator[PlacedRecord]:
        """Yield the objects of JSON lines, or of one JSON text, once they have the columns."""
        rows = self._json_rows()
        missing, seen = set(self.wanted), list[PlacedRecord]()
        while missing and len(seen) < SAMPLE and (row := next(rows, None)):
            seen.append(row)
            missing -= row[2].keys()
        if missing and seen:
            where = place_words(self.where, *seen[0][:2])
            records = [record for _, _, record in seen]
            check_sample(where, records, self.wanted, self.options, self.column_remedy)
        yield from seen
        yield from rows

    def _json_rows(self) -> Iterator[PlacedRecord]:
        encoding = self.options.encoding
        source = (self.where, self.wanted, self._bad_rows)
        if self.format == ".json":
            with self._bytes() as stream, io.TextIOWrapper(stream, encoding) as text:
                values = json_records(text, self.where, self.wanted)
                if values is not None:
                    yield from usable_rows(enumerate(values, 1), "record", *source)
                    return
        encoding = without_mark(encoding)
        with self._bytes() as stream, io.TextIOWrapper(stream, encoding, newline="\n") as text:
            yield from usable_rows(enumerate(text, 1), "line", *source)

    def _tables(self) -> Iterator[PlacedRecord]:
        assert self.path is not None, "standard input is text"
        first = 1
        for table in READERS[self.format](self.path, [], self.options, self._bad_rows):
            if self.schema is None:
                self._check(_without_places(table).schema)
            yield from _dicts(table, first)
            first += table.num_rows
        if self.schema is None and self.format == ".parquet":  # The file has no rows.
            self._check(pq.read_schema(self.path))


def _without_places(table: pa.Table) -> pa.Table:
    return table.drop_columns([name for name in (LINE, RECORD) if name in table.column_names])


def _dicts(table: pa.Table, first: int) -> Iterator[PlacedRecord]:
    """Yield the rows of a table.

    Args:
        first: number of its first row, if the table has no column with places.
    """
    column, start = place_column(table), 0
    unit = "line" if column == LINE else "record"
    for batch in _without_places(table).to_batches(max_chunksize=TABLE_ROWS):
        end = start + batch.num_rows
        numbers = (
            table[column][start:end].to_pylist() if column else range(first + start, first + end)
        )
        for number, record in zip(numbers, batch.to_pylist(), strict=True):
            yield unit, number, record
        start = end


def _format_of(stream: Any) -> str:
    """Return .jsonl if standard input starts with an object, else .csv.

    Raises:
        DataError: standard input is compressed, or a JSON list, which only a file can be.
    """
    start = stream.peek(64)
    if start.startswith(b"\x1f\x8b"):
        raise DataError(
            "standard input: is compressed with gzip; needed: CSV with a header line, or JSON "
            "lines. Decompress it: gzip -dc FILE | ..."
        )
    start = start.lstrip(codecs.BOM_UTF8 + b" \t\r\n")
    if start[:1] == b"[" and start[1:].lstrip()[:1] == b"{":
        raise DataError(
            "standard input: is a JSON list; needed: CSV with a header line, or one JSON object a "
            "line. Give a file that ends in .json."
        )
    return ".jsonl" if start[:1] == b"{" else ".csv"
