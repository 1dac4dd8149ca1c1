"""CSV, TSV, JSONL, JSON, Parquet and Arrow files as Arrow tables of the wanted columns; table READERS.

A reader is a function (path, wanted columns, data section, bad rows) -> tables in the order of the file. What it cannot read it appends to
`bad_rows`, all of it, before the caller decides. Of Parquet and Arrow no wanted columns mean all.
"""

import codecs
import csv
import gzip
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from trainer.data.columns import check_columns, check_header
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.sections.data import DataSection

BLOCK_BYTES = 1 << 25  # longest CSV record; a 10 MB text fits
BATCH_ROWS = 20_000
PARQUET_BUFFER_BYTES = 1 << 20
"""Read at once of each column. With `pre_buffer`, pyarrow's default, iter_batches keeps all that it has read: in the end the whole file."""
JSON_BLOCK_BYTES = 1 << 22
ARROW_ALONE = re.compile(rb"Inf[\s,}\]]")
"""What Arrow takes for a number and Python does not."""
COMMON_ENCODINGS = ["cp1252", "mac_roman", "cp1250", "cp1251", "utf_16", "gb18030", "cp932", "euc_kr", "big5"]
SEPARATORS = {".tsv": "\t", ".tab": "\t"}
"""Separator of CSV files by ending, where it is not a comma."""
BadRows = list[dict[str, Any]]


def ending(path: Path) -> str:
    """Ending of a file's name in small letters, without a .gz behind it."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _open_bytes(path: Path) -> Any:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def check_encoding(path: Path, encoding: str, remedy: str = "Set data.encoding") -> None:
    """Raises DataError with byte offset, line and likely encoding when a text file cannot be decoded, or is empty."""
    try:
        "".encode(encoding)  # refuses codecs that are no text encoding, such as hex
        decoder = codecs.getincrementaldecoder(encoding)()
    except LookupError:
        raise DataError(f"data.encoding is '{encoding}', no text encoding that Python knows; examples: utf-8, latin-1, cp1252, utf-16.") from None
    offset = line = 0
    with _open_bytes(path) as file:
        while True:
            chunk = file.read(1 << 20)
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                start = offset - pending + error.start
                line += (chunk[: max(0, error.start - pending)]).count(b"\n") + 1
                raise DataError(
                    f"{path}: byte {start} (line {line}) is not {encoding}; it looks like {_likely_encoding(path, start)}. {remedy}, or save the file as UTF-8."
                ) from None
            if not chunk:
                break
            offset += len(chunk)
            line += chunk.count(b"\n")
    if offset == 0:
        raise DataError(f"{path}: is empty. Give a file with a header line and rows.")


def _likely_encoding(path: Path, offset: int) -> str:
    from charset_normalizer import from_bytes

    with _open_bytes(path) as file:
        file.seek(max(0, offset - 20_000))
        matches = from_bytes(file.read(60_000), cp_isolation=COMMON_ENCODINGS)
    if not matches:
        return "latin_1"
    best = min(matches, key=lambda match: (match.chaos, -match.coherence, COMMON_ENCODINGS.index(match.encoding)))
    return min(best.could_be_from_charset, key=COMMON_ENCODINGS.index)  # several give the same text: the commonest


def _csv_reader(source: Any, options: "DataSection", separator: str, convert: pacsv.ConvertOptions | None, bad: Callable[[Any], str] | None) -> Any:
    return pacsv.open_csv(
        source,
        read_options=pacsv.ReadOptions(
            use_threads=False,  # keeps record numbers
            block_size=BLOCK_BYTES,
            skip_rows=options.skip_lines,
            skip_rows_after_names=options.skip_lines_after_header,
            column_names=options.column_names,
            encoding=options.encoding,
        ),
        parse_options=pacsv.ParseOptions(
            delimiter=separator, quote_char=options.quote_char or False, newlines_in_values=bool(options.quote_char), invalid_row_handler=bad
        ),
        convert_options=convert,
    )


def read_csv(path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows) -> Iterator[pa.Table]:
    """CSV or TSV; every wanted column as text, unquoted empty cells as missing."""
    check_encoding(path, options.encoding)
    separator = options.separator or SEPARATORS.get(ending(path), ",")

    def note(row: Any) -> str:
        reason = f"{row.actual_columns} cells, expected {row.expected_columns}"
        bad_rows.append({"file": str(path), "record": row.number, "reason": reason, "content": row.text})
        return "skip"

    try:
        found = _csv_reader(str(path), options, separator, None, lambda row: "skip").schema.names
        check_header(str(path), wanted, found, options)
        convert = pacsv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(found, pa.string()),
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            null_values=[""],
        )
        for batch in _csv_reader(str(path), options, separator, convert, note):
            yield pa.Table.from_batches([batch])
    except pa.ArrowInvalid as error:
        text = str(error)
        if "straddling" in text:
            text = f"a record is longer than {BLOCK_BYTES >> 20} MiB; is a quote left open? With data.quote_char: '' quotes are text"
        elif "Empty CSV" in text:
            text = "it holds no rows"
        raise DataError(f"{path}: cannot be read as CSV: {text}.") from error
    _check_open_quote(path, options)


def _check_open_quote(path: Path, options: "DataSection") -> None:
    """Raises DataError when the file ends inside a quoted cell: pyarrow would drop the rest without a word."""
    if not options.quote_char:
        return
    with _open_bytes(path) as file:
        if sum(chunk.count(options.quote_char.encode()) for chunk in iter(lambda: file.read(1 << 20), b"")) % 2 == 0:
            return
    csv.field_size_limit(1 << 30)
    with io.TextIOWrapper(_open_bytes(path), options.encoding, newline="") as text:
        reader = csv.reader(text, delimiter=options.separator or SEPARATORS.get(ending(path), ","), quotechar=options.quote_char, strict=True)
        for _ in range(options.skip_lines):
            next(text, None)
        start = options.skip_lines
        try:
            for _ in reader:
                start = options.skip_lines + reader.line_num
        except csv.Error as error:
            if "unexpected end of data" in str(error):
                message = f"{path}:{start + 1}: a quote is opened and never closed. Close it, or set data.quote_char: '' to read quotes as text."
                raise DataError(message) from error


def read_jsonl(path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows) -> Iterator[pa.Table]:
    """One JSON object a line; blank lines are passed over.

    Python reads the first lines and every block of lines that is out of the ordinary; Arrow, ten times faster, reads the others.
    """
    check_encoding(path, options.encoding)
    by_line = _JsonLines(path, wanted, bad_rows)
    if codecs.lookup(options.encoding).name not in ("utf-8", "utf-8-sig"):
        with io.TextIOWrapper(_open_bytes(path), options.encoding, newline="\n") as file:
            yield from by_line.read(file)
        return
    encoding, kinds = "utf-8-sig", None
    with _open_bytes(path) as blocks:
        while block := blocks.read(JSON_BLOCK_BYTES) + blocks.readline():
            table = arrow_records(block, kinds) if kinds else None
            if table is None:
                for table in by_line.read(io.StringIO(block.decode(encoding), newline="\n")):
                    kinds = table.schema
                    yield table
            else:
                by_line.number += block.count(b"\n")
                yield table
            encoding = "utf-8"


class _JsonLines:
    """Reads JSON line by line, as exactly as it has to be; counts the lines over several calls."""

    def __init__(self, path: Path, wanted: list[str], bad_rows: BadRows) -> None:
        self.path, self.wanted, self.bad_rows = path, wanted, bad_rows
        self.number = 0
        self.is_checked = False

    def read(self, lines: Iterable[str]) -> Iterator[pa.Table]:
        """Tables of at most BATCH_ROWS rows; what is no row goes to the bad rows."""
        records: list[dict[str, Any]] = []
        for line in lines:
            self.number += 1
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                fault = record_fault(record, self.wanted)
            except ValueError as error:
                fault = f"broken JSON: {error}"
            if fault:
                self.bad_rows.append({"file": str(self.path), "line": self.number, "reason": fault, "content": line.rstrip("\n")})
                continue
            if not self.is_checked:
                check_columns(f"{self.path}:{self.number}", self.wanted, record)
                self.is_checked = True
            records.append(record)
            if len(records) == BATCH_ROWS:
                yield _records_table(records, self.wanted, self.path)
                records = []
        if records:
            yield _records_table(records, self.wanted, self.path)


def arrow_records(block: bytes, kinds: pa.Schema) -> pa.Table | None:
    """Rows of whole lines of JSON objects whose columns have the given types; None where Python might read something else, or refuse it.

    Arrow knows no lines: it is asked only where each line starts with an opening and ends with a closing brace, so that no object
    spans two lines; as many rows as lines then means that no line holds two. It takes `Inf` for a number, which Python does not, and
    rounds whole numbers among fractions.
    """
    content = block.rstrip(b" \t\r\n")
    ends = content.count(b"\n")
    if content[:1] != b"{" or ends != content.count(b"}\n{") + content.count(b"}\r\n{") or ARROW_ALONE.search(content):
        return None
    try:
        table = pajson.read_json(
            pa.BufferReader(content),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(content) + 1),
            parse_options=pajson.ParseOptions(explicit_schema=kinds, unexpected_field_behavior="ignore"),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    exact = all(not pa.types.is_floating(c.type) or not pc.any(pc.greater_equal(pc.abs(c), 2.0**53)).as_py() for c in table.columns)
    return table if exact and table.num_rows == ends + 1 else None


def read_json(path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows) -> Iterator[pa.Table]:
    """One JSON list of objects; a file of one object a line is read as JSONL."""
    check_encoding(path, options.encoding)
    with io.TextIOWrapper(_open_bytes(path), options.encoding) as file:
        if file.read(4096).lstrip("\ufeff \t\r\n")[:1] != "[":
            yield from read_jsonl(path, wanted, options, bad_rows)
            return
        file.seek(0)
        try:
            records = json.loads(file.read().lstrip("\ufeff"))
        except ValueError as error:
            raise DataError(f"{path}: broken JSON: {error}.") from error
    good = []
    for number, record in enumerate(records, start=1):
        if fault := record_fault(record, wanted):
            bad_rows.append({"file": str(path), "record": number, "reason": fault, "content": json.dumps(record)})
        else:
            good.append(record)
    if good:
        check_columns(str(path), wanted, good[0])
    for start in range(0, len(good), BATCH_ROWS):
        yield _records_table(good[start : start + BATCH_ROWS], wanted, path)


def record_fault(record: Any, wanted: list[str]) -> str | None:
    """What keeps a JSON value from being a row."""
    if not isinstance(record, dict):
        return "not an object {...}"
    for name in wanted:
        try:
            str(record.get(name)).encode()
        except UnicodeEncodeError:
            return f"'{name}' holds half a surrogate pair (an emoji cut in two), which is no text"
    return None


def _records_table(records: list[dict[str, Any]], wanted: list[str], path: Path) -> pa.Table:
    columns = {}
    for name in wanted:
        values = [record.get(name) for record in records]
        try:
            columns[name] = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # numbers and texts mixed, or beyond 64 bits
            lists = [isinstance(v, list) for v in values if v is not None]
            if any(lists) and not all(lists):
                raise DataError(f"{path}: '{name}' holds a list in some rows and a single value in others; needed: one kind. Mend the file.") from None
            columns[name] = pa.array([[_json_text(x) for x in v] if isinstance(v, list) else _json_text(v) for v in values])
    return pa.table(columns)


def _json_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None if value is None or value != value else json.dumps(value)


def read_parquet(path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows) -> Iterator[pa.Table]:
    """Parquet, row group by row group."""
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES)
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataError(f"{path}: is not a Parquet file: {str(error).rstrip('.')}.") from error
    check_columns(str(path), wanted, file.schema_arrow.names)
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted or None):
        yield pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)


def read_arrow(path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows) -> Iterator[pa.Table]:
    """Arrow IPC file or stream, memory-mapped."""
    source = pa.memory_map(str(path))
    try:
        try:
            table = pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            table = pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is not an Arrow file: {error}.") from error
    check_columns(str(path), wanted, table.column_names)
    yield table.select(wanted or table.column_names)


READERS: dict[str, Callable[[Path, list[str], "DataSection", BadRows], Iterator[pa.Table]]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".tab": read_csv,
    ".txt": read_csv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
}
"""Reader of each file ending."""
