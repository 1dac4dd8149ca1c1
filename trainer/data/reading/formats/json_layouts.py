"""Read JSON files that are one list of objects, or a layout of pandas' `DataFrame.to_json`."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from trainer.errors import DataError

SPACE = re.compile(r"[ \t\r\n]*")
READ_CHARACTERS = 1 << 18
DECODER = json.JSONDecoder()
KEYS_AROUND_DATA = {"columns", "index", "data", "schema"}
"""Keys that an object with the rows under "data" may have."""
WRITE_LINES = (
    'Write it with DataFrame.to_json(path, orient="records", lines=True), and end its name in '
    ".jsonl."
)


def json_records(text: TextIO, where: str, wanted: list[str]) -> Iterator[Any] | None:
    """Return the rows of a JSON text that is one list or one object.

    The layouts are a list of objects (orient="records"), an object of columns (the default of
    pandas), orient="split", and {"data": [objects]}. A list is read in parts, the others as a
    whole.

    Args:
        where: the file, for messages.
        wanted: columns; their names show whether an object of objects holds columns or rows.
    Returns:
        None if the text holds one object a line.
    Raises:
        DataError: another layout, or broken JSON.
    """
    while (first := text.read(1)) and first in "\ufeff \t\r\n":
        continue
    if first == "[":
        return _list_values(text, first, where)
    if first != "{":
        return None
    line = first + text.readline()
    value = _value(line)
    if isinstance(value, dict) and not _is_layout(value, wanted):
        return None
    rest = next(filter(str.strip, text), "")
    if value is not None and rest:
        return None
    if rest:
        value = _value(line + rest + text.read())
    if value is None:
        return None
    records = _layout(value, wanted)
    if records is None:
        raise DataError(
            f"{where}: is one JSON object in a layout that cannot be read. {WRITE_LINES}"
        )
    return iter(records)


def _value(text: str) -> Any:
    """Return the value of a whole JSON text; None if it is broken."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_layout(value: dict[str, Any], wanted: list[str]) -> bool:
    """Whether an object is not a row itself: it holds several rows, or nothing."""
    parts = list(value.values())
    if all(isinstance(part, dict) for part in parts):
        return True
    if isinstance(value.get("data"), list) and value.keys() <= KEYS_AROUND_DATA:
        return True
    has_rows = any(
        isinstance(part, list) and part and all(isinstance(item, dict) for item in part)
        for part in parts
    )
    return bool(wanted) and has_rows and not value.keys() & set(wanted)


def _layout(value: Any, wanted: list[str]) -> Iterable[Any] | None:
    """Return the rows of an object in one of the layouts; None for another value."""
    if not isinstance(value, dict):
        return None
    rows, columns = value.get("data"), value.get("columns")
    if isinstance(rows, list) and value.keys() <= KEYS_AROUND_DATA:
        if isinstance(columns, list) and all(
            isinstance(row, list) and len(row) == len(columns) for row in rows
        ):
            return (dict(zip(map(str, columns), row, strict=True)) for row in rows)
        return rows if all(isinstance(row, dict) for row in rows) else None
    parts = list(value.values())
    if not parts or not all(
        isinstance(column, dict) and column.keys() == parts[0].keys() for column in parts
    ):
        return None
    names = set(wanted)
    if names and not value.keys() >= names and parts[0].keys() >= names:
        return None  # orient="index": rows by their names
    return ({name: column[key] for name, column in value.items()} for key in parts[0])


def _list_values(text: TextIO, buffer: str, where: str) -> Iterator[Any]:
    """Yield the values of a list, with only a part of it in memory.

    Raises:
        DataError: broken JSON, or a list of lists.
    """
    at, read, is_first, size = 1, 0, True, READ_CHARACTERS
    while True:
        try:
            value, end, is_last = _next_value(buffer, at, is_first)
        except (ValueError, RecursionError) as error:
            if not (more := text.read(size)):
                raise _worded(error, buffer, read, where) from error
            if at > READ_CHARACTERS // 2:
                read, buffer, at = read + at, buffer[at:], 0
            buffer, size = buffer + more, 2 * size
            continue
        if is_last:
            break
        if is_first and isinstance(value, list):
            raise DataError(f"{where}: is a list of lists, without column names. {WRITE_LINES}")
        yield value
        at, is_first, size = end, False, READ_CHARACTERS
    rest = buffer[end:]
    while rest or (rest := text.read(READ_CHARACTERS)):
        if rest.strip():
            raise DataError(
                f"{where}: broken JSON: text follows the list, {rest.strip()[:20]!r}. Give one "
                "list, or one object a line."
            )
        rest = ""


def _next_value(buffer: str, at: int, is_first: bool) -> tuple[Any, int, bool]:
    """Return a value, the position after it, and whether the list ended instead.

    The position is that of the separator or bracket after the value, so that a number that is cut
    off is not read as a whole one.

    Raises:
        ValueError: the buffer holds no whole value.
    """
    at = _skip(buffer, at)
    if buffer[at : at + 1] == "]":
        return None, at + 1, True
    if not is_first:
        if buffer[at : at + 1] != ",":
            raise json.JSONDecodeError("Expecting ',' delimiter", buffer, at)
        at = _skip(buffer, at + 1)
    value, end = DECODER.raw_decode(buffer, at)
    end = _skip(buffer, end)
    if end == len(buffer):
        raise json.JSONDecodeError("Expecting ',' delimiter", buffer, end)
    return value, end, False


def _skip(buffer: str, at: int) -> int:
    found = SPACE.match(buffer, at)
    return found.end() if found else at


def _worded(error: Exception, buffer: str, read: int, where: str) -> DataError:
    """Return the error with its position in the whole text."""
    if isinstance(error, json.JSONDecodeError) and read:
        return DataError(
            f"{where}: broken JSON: {error.msg}: char {read + error.pos:,}, near "
            f"{buffer[max(0, error.pos - 20) : error.pos + 20]!r}."
        )
    return DataError(f"{where}: broken JSON: {error}.")
