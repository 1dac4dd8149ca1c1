"""JSON lines and JSON lists as Arrow tables of the wanted columns, with the place of each row."""

import codecs
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from trainer.data.reading.bad_rows import BATCH_ROWS, LINE, RECORD, BadRows, cut
from trainer.data.reading.columns import check_columns
from trainer.data.reading.formats.json_layouts import json_records
from trainer.data.reading.formats.packed import open_bytes
from trainer.data.reading.formats.text_encoding import worded_decoding
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

JSON_BLOCK_BYTES = 1 << 22
SAMPLE = 1_000
"""Objects of which one must have a column, so that it counts as one that the file has."""
ARROW_ALONE = re.compile(rb"Inf[\s,}\]]")
"""What Arrow takes for a number and Python does not."""


def read_jsonl(
    path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read one JSON object a line; blank lines are passed over.

    Python reads the first lines and every block of lines that is out of the ordinary; Arrow, ten times faster, reads the others.
    """
    with worded_decoding(str(path), path, options.encoding), open_bytes(path) as stream:
        yield from _JsonLines(path, wanted, options, bad_rows).read(stream)


class _JsonLines:
    """Reads JSON line by line, as exactly as it has to be; counts the lines over several calls."""

    def __init__(
        self, path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows
    ) -> None:
        self.path, self.wanted, self.options, self.bad_rows = path, wanted, options, bad_rows
        self.number = 0
        self.is_checked = False

    def read(self, stream: Any) -> Iterator[pa.Table]:
        """Read all bytes of a file."""
        encoding = self.options.encoding
        if codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig"):
            with io.TextIOWrapper(stream, encoding, newline="\n") as text:
                yield from self._by_python(text)
        else:
            encoding, kinds = "utf-8-sig", None
            while block := stream.read(JSON_BLOCK_BYTES) + stream.readline():
                text = block.decode(encoding)
                table = arrow_records(block, kinds) if kinds and self.wanted else None
                if table is None:
                    for table in self._by_python(io.StringIO(text, newline="\n")):
                        kinds = table.drop_columns(LINE).schema
                        yield table
                else:
                    yield table.append_column(
                        LINE, pa.array(np.arange(1, table.num_rows + 1) + self.number)
                    )
                    self.number += block.count(b"\n")
                encoding = "utf-8"
        if not self.number:
            raise DataError(f"{self.path}: is empty. Give a file with one JSON object a line.")

    def _by_python(self, lines: Iterable[str]) -> Iterator[pa.Table]:
        """Tables of at most BATCH_ROWS rows; what is no row goes to the bad rows."""
        records: list[dict[str, Any]] = []
        numbers: list[int] = []
        for line in lines:
            self.number += 1
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                fault = record_fault(record, self.wanted)
            except (ValueError, RecursionError) as error:
                fault = f"broken JSON: {error}"
            if fault:
                self.bad_rows.append(
                    {
                        "file": str(self.path),
                        "line": self.number,
                        "reason": fault,
                        "content": cut(line.rstrip("\n")),
                    }
                )
                continue
            records.append(record)
            numbers.append(self.number)
            if len(records) == BATCH_ROWS:
                yield self._table(records, numbers)
                records, numbers = [], []
        if records:
            yield self._table(records, numbers)

    def _table(self, records: list[dict[str, Any]], numbers: list[int]) -> pa.Table:
        if not self.is_checked:
            check_sample(f"{self.path}:{numbers[0]}", records, self.wanted, self.options)
            self.is_checked = True
        return records_table(records, self.wanted, str(self.path)).append_column(
            LINE, pa.array(numbers, pa.int64())
        )


def arrow_records(block: bytes, kinds: pa.Schema) -> pa.Table | None:
    """Rows of whole lines of JSON objects whose columns have the given types; None where Python might read something else, or refuse it.

    Arrow knows no lines: it is asked only where each line starts with an opening and ends with a closing brace, so that no object
    spans two lines; as many rows as lines then means that no line holds two. It takes `Inf` for a number, which Python does not, and
    rounds whole numbers among fractions.
    """
    content = block.rstrip(b" \t\r\n")
    ends = content.count(b"\n")
    if (
        content[:1] != b"{"
        or ends != content.count(b"}\n{") + content.count(b"}\r\n{")
        or ARROW_ALONE.search(content)
    ):
        return None
    try:
        table = pajson.read_json(
            pa.BufferReader(content),
            read_options=pajson.ReadOptions(use_threads=False, block_size=len(content) + 1),
            parse_options=pajson.ParseOptions(
                explicit_schema=kinds, unexpected_field_behavior="ignore"
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    exact = all(
        not pa.types.is_floating(c.type) or not pc.any(pc.greater_equal(pc.abs(c), 2.0**53)).as_py()
        for c in table.columns
    )
    return table if exact and table.num_rows == ends + 1 else None


def read_json(
    path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read one JSON list of objects, or another layout that pandas writes; a file of one object a line is read as JSONL."""
    with (
        worded_decoding(str(path), path, options.encoding),
        open_bytes(path) as stream,
        io.TextIOWrapper(stream, options.encoding) as text,
    ):
        values = json_records(text, str(path), wanted)
        if values is not None:
            yield from _numbered_tables(values, path, wanted, options, bad_rows)
            return
    yield from read_jsonl(path, wanted, options, bad_rows)


def _numbered_tables(
    values: Iterable[Any], path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows
) -> Iterator[pa.Table]:
    good: list[dict[str, Any]] = []
    numbers: list[int] = []
    is_checked = False

    def table() -> pa.Table:
        if not is_checked:
            check_sample(str(path), good, wanted, options)
        return records_table(good, wanted, str(path)).append_column(
            RECORD, pa.array(numbers, pa.int64())
        )

    for number, record in enumerate(values, start=1):
        if fault := record_fault(record, wanted):
            bad_rows.append(
                {
                    "file": str(path),
                    "record": number,
                    "reason": fault,
                    "content": cut(json.dumps(record)),
                }
            )
            continue
        good.append(record)
        numbers.append(number)
        if len(good) == BATCH_ROWS:
            yield table()
            good, numbers, is_checked = [], [], True
    if good:
        yield table()


def check_sample(
    where: str,
    records: list[dict[str, Any]],
    wanted: Iterable[str],
    options: "DataSection",
    remedy: str = "",
) -> None:
    """Raises DataError for a column that none of the first SAMPLE objects has."""
    found = dict.fromkeys(name for record in records[:SAMPLE] for name in record)
    check_columns(where, wanted, found, options, remedy, SAMPLE if len(records) >= SAMPLE else 0)


def record_fault(record: Any, wanted: list[str]) -> str | None:
    """What keeps a JSON value from being a row."""
    if not isinstance(record, dict):
        return "not an object {...}"
    for name in wanted:
        value = record.get(name)
        try:
            (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
        except UnicodeEncodeError:
            return f"'{name}' holds half a surrogate pair (an emoji cut in two), which is no text"
    return None


def records_table(records: list[dict[str, Any]], wanted: list[str], where: str) -> pa.Table:
    """Return the wanted columns of objects; none means all. Numbers and texts in one column are JSON texts."""
    columns = {}
    for name in wanted or dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        if not wanted:
            values = _without_halves(values)
        try:
            columns[name] = pa.array(values, from_pandas=True)
        except (
            pa.ArrowInvalid,
            pa.ArrowTypeError,
            OverflowError,
        ):  # numbers and texts mixed, or beyond 64 bits
            lists = [isinstance(v, list) for v in values if v is not None]
            if wanted and any(lists) and not all(lists):
                raise DataError(
                    f"{where}: '{name}' holds a list in some rows and a single value in others; needed: one kind. Mend the file."
                ) from None
            as_lists = all(lists)
            columns[name] = pa.array(
                [
                    [_json_text(x) for x in v] if as_lists and v is not None else _json_text(v)
                    for v in values
                ]
            )
    return pa.table(columns)


def _without_halves(values: list[Any]) -> list[Any]:
    """The values with U+FFFD in place of halves of surrogate pairs, which are no text; of the wanted columns such rows are refused."""
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))  # type: ignore[no-any-return]
    return values


def _json_text(value: Any) -> str | None:
    return (
        value
        if isinstance(value, str)
        else None
        if value is None or value != value
        else json.dumps(value)
    )
