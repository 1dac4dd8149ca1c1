"""Rows of a file or of standard input with all their columns, one after the other, in constant memory."""

import codecs
import csv
import gzip
import io
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.data.columns import SET_COLUMNS, check_columns, check_header
from trainer.data.readers import BLOCK_BYTES, READERS, SEPARATORS, check_encoding, ending, read_csv, read_json, read_jsonl, record_fault
from trainer.data.sources import refuse_bad_rows, to_the_end
from trainer.errors import DataError, listing

if TYPE_CHECKING:
    from trainer.sections.data import DataSection

Record = dict[str, Any]
TABLE_ROWS = 1000
"""Rows of a Parquet or Arrow file that are Python objects at once."""


@dataclass
class Records:
    """The rows of a file, or of standard input; they can be gone through once.

    Training reads the columns it needs as Arrow tables; here every column is kept as it is, and a pipe gives its rows as they come.

    Args:
        path: file of an ending in READERS, perhaps with .gz behind it; None for standard input, CSV with a header line or JSONL.
        options: how it is read: encoding, separator, quote_char, column_names, skip_lines ..., on_bad_rows.
        wanted: columns that every row needs.
        column_remedy: sentences that say where the names of columns are set.
        encoding_remedy: the same of the encoding, without a full stop.
    Attributes:
        format: ending that tells how it is read.
        schema: types of the columns where the file tells them, once the first row is read.
        num_bad: rows that could not be read and were left out (`data.on_bad_rows: skip`).
    Raises:
        DataError: an ending that is not known.
    """

    path: Path | None
    options: "DataSection"
    wanted: list[str]
    column_remedy: str = SET_COLUMNS
    encoding_remedy: str = "Set data.encoding"
    format: str = ""
    schema: pa.Schema | None = None
    num_bad: int = 0
    _raw: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.format = _sniffed(sys.stdin.buffer) if self.path is None else ending(self.path)
        if self.format not in READERS:
            raise DataError(f"{self.path}: endings that can be read: {listing(READERS)}.")

    @property
    def where(self) -> str:
        """Name of the source, for messages."""
        return "standard input" if self.path is None else str(self.path)

    @cached_property
    def first(self) -> Record | None:
        """The first row, which tells what is wrong with the columns before anything is done with them."""
        return next(self._rows, None)

    def __iter__(self) -> Iterator[Record]:
        if self.first is not None:
            yield self.first
        yield from self._rows

    @cached_property
    def _rows(self) -> Iterator[Record]:
        return self._read()

    def _read(self) -> Iterator[Record]:
        try:
            if READERS[self.format] is read_csv:
                yield from to_the_end(self.where, self._csv())
            elif READERS[self.format] in (read_jsonl, read_json):
                yield from to_the_end(self.where, self._objects())
            else:
                yield from to_the_end(self.where, self._tables())
        except UnicodeDecodeError as error:
            if self.path is not None:
                check_encoding(self.path, self.options.encoding, self.encoding_remedy)
            raise DataError(f"{self.where}: is not {self.options.encoding} ({error.reason}). {self.encoding_remedy}.") from error

    def estimated_rows(self, num_read: int) -> int | None:
        """Rows in all, judged by the part of the file that the first ones took; exact for Parquet; None where it cannot be told."""
        if self.path is None:
            return None
        if self.format == ".parquet":
            return int(pq.read_metadata(self.path).num_rows)
        part = self._raw.tell() / max(1, self.path.stat().st_size) if self._raw and not self._raw.closed else 0.0
        return int(num_read / part) if part else None

    def _text(self) -> io.TextIOWrapper:
        """The decoded text; a byte order mark is left out."""
        encoding = self.options.encoding
        try:
            "".encode(encoding)
            if codecs.lookup(encoding).name == "utf-8":
                encoding = "utf-8-sig"
        except LookupError:
            check_encoding(Path(os.devnull), encoding)  # raises what is wrong with the name
        if self.path is None:
            return io.TextIOWrapper(sys.stdin.buffer, encoding, newline="")
        self._raw = self.path.open("rb")
        return io.TextIOWrapper(gzip.open(self._raw) if self.path.suffix.lower() == ".gz" else self._raw, encoding, newline="")

    def _refuse(self, place: dict[str, int], reason: str) -> None:
        """Count a row that cannot be read, or raise DataError."""
        self.num_bad += 1
        refuse_bad_rows([{"file": self.where, **place, "reason": reason}], self.options, "the first bad one")

    def _csv(self) -> Iterator[Record]:
        options, quote_char = self.options, self.options.quote_char
        csv.field_size_limit(BLOCK_BYTES)
        with self._text() as text:
            for _ in range(options.skip_lines):
                next(text, None)
            lines = _Lines(text)
            separator = options.separator or SEPARATORS.get(self.format, ",")
            quoting: Any = csv.QUOTE_MINIMAL if quote_char else csv.QUOTE_NONE
            reader = csv.reader(lines, delimiter=separator, quotechar=quote_char or None, quoting=quoting)
            line = options.skip_lines + 1
            try:
                names = options.column_names or next(reader, [])
                self._check(pa.schema([(name, pa.string()) for name in names]))
                for _ in range(options.skip_lines_after_header):
                    next(reader, None)
                line = options.skip_lines + reader.line_num + 1
                for cells in reader:
                    if lines.ended:
                        remedy = "Close it, or set data.quote_char: '' to read quotes as text."
                        raise DataError(f"{self.where}:{line}: a quote is opened and never closed. {remedy}")
                    if len(cells) == len(names):
                        yield dict(zip(names, cells, strict=True))
                    elif cells:
                        self._refuse({"line": line}, f"{len(cells)} cells, expected {len(names)}")
                    line = options.skip_lines + reader.line_num + 1
            except csv.Error as error:
                remedy = "is a quote left open? With data.quote_char: '' quotes are text."
                raise DataError(f"{self.where}:{line}: a record is longer than {BLOCK_BYTES >> 20} MiB; {remedy}") from error

    def _check(self, schema: pa.Schema) -> None:
        """Note the columns; raises DataError where there is none, a wanted one is missing, or two have one name."""
        if not schema.names:
            raise DataError(f"{self.where}: is empty. Give a file with a header line and rows.")
        wanted = [*self.wanted, *doubled(schema.names)]
        if READERS[self.format] is read_csv:
            check_header(self.where, wanted, schema.names, self.options, self.column_remedy)
        else:
            check_columns(self.where, wanted, schema.names, self.column_remedy)
        self.schema = schema.remove_metadata()  # of `datasets` and pandas, which would tell of these columns alone

    def _objects(self) -> Iterator[Record]:
        """Objects of JSON lines, or of one JSON list, which is read as a whole."""
        is_first = True
        for number, value in self._json_values():
            try:
                record = json.loads(value) if isinstance(value, str) else value
                fault = record_fault(record, self.wanted)
            except ValueError as error:
                fault = f"broken JSON: {error}"
            if fault:
                self._refuse({"line" if isinstance(value, str) else "record": number}, fault)
                continue
            if is_first:
                check_columns(f"{self.where}:{number}", self.wanted, record, self.column_remedy)
                is_first = False
            yield record

    def _json_values(self) -> Iterator[tuple[int, Any]]:
        """Numbered lines that hold more than white space, or the numbered values of a list."""
        if self.format == ".json":
            with self._text() as text:
                if text.read(4096).lstrip()[:1] == "[":
                    text.seek(0)
                    try:
                        yield from enumerate((json.dumps(value) if isinstance(value, str) else value for value in json.load(text)), 1)
                    except ValueError as error:
                        raise DataError(f"{self.where}: broken JSON: {error}.") from error
                    return
        with self._text() as text:
            yield from ((number, line) for number, line in enumerate(text, 1) if line.strip())

    def _tables(self) -> Iterator[Record]:
        assert self.path is not None, "standard input is text"
        for table in READERS[self.format](self.path, [], self.options, []):
            if self.schema is None:
                self._check(table.schema)
            for batch in table.to_batches(max_chunksize=TABLE_ROWS):
                yield from batch.to_pylist()
        if self.schema is None:  # Parquet without rows
            self._check(pq.read_schema(self.path))


class _Lines:
    """The lines of a text; `ended` is set behind the last one: a CSV reader that gives a row only then was waiting for a quote."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self.text, self.ended = text, False

    def __iter__(self) -> Iterator[str]:
        yield from self.text
        self.ended = True


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
        raise DataError("standard input: is packed with gzip; needed: CSV with a header line, or JSON lines. Unpack it: gzip -dc FILE | ...")
    start = start.lstrip(codecs.BOM_UTF8 + b" \t\r\n")
    if start[:1] == b"[" and start[1:].lstrip()[:1] == b"{":
        raise DataError("standard input: is a JSON list; needed: CSV with a header line, or one JSON object a line. Give a file that ends in .json.")
    return ".jsonl" if start[:1] == b"{" else ".csv"
