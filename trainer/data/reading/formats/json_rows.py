"""Read JSON lines and JSON lists as Arrow tables, with the place of each row."""

import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pajson

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.column_checks import check_columns
from trainer.data.reading.formats.compression import open_bytes
from trainer.data.reading.formats.json_layouts import json_records
from trainer.data.reading.formats.text_encoding import without_mark, worded_decoding
from trainer.data.reading.row_places import BATCH_ROWS, LINE, RECORD, place_words
from trainer.errors import DataError

JSON_BLOCK_CHARACTERS = 1 << 22
SAMPLE = 1_000
"""The file has a column if one of so many first objects has it."""
ARROW_ALONE = re.compile(rb"Inf[\s,}\]]")
"""What Arrow reads as a number and Python does not."""
PlacedRecord = tuple[str, int, dict[str, Any]]
"""A row after its place: "line" or "record", and its first line or its number, from 1."""


def read_jsonl(
    path: Path, wanted: list[str], options: DataSection, bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read one JSON object a line, and skip blank lines.

    Python reads the first block, and every block that is unusual. Arrow reads the others, ten times
    faster.
    """
    number, kinds = 1, None
    with (
        worded_decoding(str(path), path, options.encoding),
        open_bytes(path) as stream,
        io.TextIOWrapper(stream, without_mark(options.encoding), newline="\n") as text,
    ):
        while block := text.read(JSON_BLOCK_CHARACTERS) + text.readline():
            table = arrow_records(block.encode(), kinds) if kinds and wanted else None
            if table is None:
                lines = enumerate(io.StringIO(block, newline="\n"), number)
                rows = usable_rows(lines, "line", str(path), wanted, bad_rows)
                for table in _tables(rows, path, wanted, None if kinds else options):
                    kinds = table.drop_columns(LINE).schema
                    yield table
            else:
                yield table.append_column(LINE, pa.array(number + np.arange(table.num_rows)))
            number += block.count("\n") or 1
    if number == 1:
        raise DataError(f"{path}: is empty. Give a file with one JSON object a line.")


def read_json(
    path: Path, wanted: list[str], options: DataSection, bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read one JSON list of objects, or another layout that pandas writes.

    A file with one object a line is read as JSONL.
    """
    with (
        worded_decoding(str(path), path, options.encoding),
        open_bytes(path) as stream,
        io.TextIOWrapper(stream, options.encoding) as text,
    ):
        values = json_records(text, str(path), wanted)
        if values is not None:
            rows = usable_rows(enumerate(values, 1), "record", str(path), wanted, bad_rows)
            yield from _tables(rows, path, wanted, options)
            return
    yield from read_jsonl(path, wanted, options, bad_rows)


def usable_rows(
    values: Iterable[tuple[int, Any]], unit: str, where: str, wanted: list[str], bad_rows: BadRows
) -> Iterator[PlacedRecord]:
    """Yield each value that can be a row after its place, for all readers of JSON.

    Args:
        values: the number and the text of each line, or the number and the value of each record.
        unit: "line" or "record".
        where: the file, for messages.
        wanted: columns whose values must be text that can be encoded.
        bad_rows: receives the other values.
    """
    for number, value in values:
        if unit == "line" and not value.strip():
            continue
        try:
            record = json.loads(value) if unit == "line" else value
            reason = _unusable(record, wanted)
        except (ValueError, RecursionError) as error:
            reason = f"broken JSON: {error}"
        if reason:
            content = value.rstrip("\n") if unit == "line" else json.dumps(value)
            bad_rows.note(where, unit, number, reason, content)
        else:
            yield unit, number, record


def _unusable(record: Any, wanted: list[str]) -> str | None:
    """Return why a JSON value cannot be a row; None if it can."""
    if not isinstance(record, dict):
        return "not an object {...}"
    for name in wanted:
        value = record.get(name)
        try:
            (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)).encode()
        except UnicodeEncodeError:
            return f"'{name}' holds half a surrogate pair (an emoji cut in two), which is not text"
    return None


def _tables(
    rows: Iterator[PlacedRecord],
    path: Path,
    wanted: list[str],
    options: DataSection | None,
) -> Iterator[pa.Table]:
    """Yield tables of at most BATCH_ROWS rows.

    Args:
        options: for the check of the columns in the first table; None if they were checked.
    """
    while batch := list(islice(rows, BATCH_ROWS)):
        unit, numbers, records = batch[0][0], [row[1] for row in batch], [row[2] for row in batch]
        if options:
            check_sample(place_words(str(path), unit, numbers[0]), records, wanted, options)
            options = None
        column = LINE if unit == "line" else RECORD
        table = records_table(records, wanted, str(path))
        yield table.append_column(column, pa.array(numbers, pa.int64()))


def arrow_records(block: bytes, kinds: pa.Schema) -> pa.Table | None:
    """Return the rows of whole lines of JSON objects with columns of the given types.

    Arrow does not know lines. It is used only if each line starts with an opening brace and ends
    with a closing one, so that no object spans two lines. If there are as many rows as lines, no
    line holds two. Arrow reads `Inf` as a number, which Python does not, and rounds whole numbers
    among fractions.

    Returns:
        None if Python might read another value, or refuse a line.
    """
    content = block.rstrip(b" \t\r\n")
    ends = content.count(b"\n")
    are_objects = ends == content.count(b"}\n{") + content.count(b"}\r\n{")
    if content[:1] != b"{" or not are_objects or ARROW_ALONE.search(content):
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
    is_exact = all(
        not pa.types.is_floating(c.type) or not pc.any(pc.greater_equal(pc.abs(c), 2.0**53)).as_py()
        for c in table.columns
    )
    return table if is_exact and table.num_rows == ends + 1 else None


def check_sample(
    where: str,
    records: list[dict[str, Any]],
    wanted: Iterable[str],
    options: DataSection,
    remedy: str = "",
) -> None:
    """Raise DataError for a column that none of the first SAMPLE objects has."""
    found = dict.fromkeys(name for record in records[:SAMPLE] for name in record)
    check_columns(where, wanted, found, options, remedy, SAMPLE if len(records) >= SAMPLE else 0)


def records_table(records: list[dict[str, Any]], wanted: list[str], where: str) -> pa.Table:
    """Return the wanted columns of objects; none means all.

    A column that mixes numbers and texts becomes JSON texts.

    Raises:
        DataError: a wanted column mixes lists and single values.
    """
    columns = {}
    for name in wanted or dict.fromkeys(name for record in records for name in record):
        values = [record.get(name) for record in records]
        if not wanted:
            values = _without_halves(values)
        try:
            columns[name] = pa.array(values, from_pandas=True)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):  # mixed, or beyond 64 bits
            lists = [isinstance(value, list) for value in values if value is not None]
            if wanted and any(lists) and not all(lists):
                raise DataError(
                    f"{where}: '{name}' holds a list in some rows and a single value in others; "
                    "needed: one kind. Fix the file."
                ) from None
            texts = [
                [_json_text(item) for item in value]
                if all(lists) and value is not None
                else _json_text(value)
                for value in values
            ]
            columns[name] = pa.array(texts)
    return pa.table(columns)


def _without_halves(values: list[Any]) -> list[Any]:
    """Return the values with U+FFFD for halves of surrogate pairs, which are not text.

    Rows with them in a wanted column are bad rows.
    """
    text = json.dumps(values, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return values


def _json_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return None if value is None or value != value else json.dumps(value)
