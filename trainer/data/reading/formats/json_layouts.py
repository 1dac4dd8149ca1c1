"""JSON files that are not lines: a list of objects, and the layouts of pandas' `DataFrame.to_json`."""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

from trainer.errors import DataError

SPACE = re.compile(r"[ \t\r\n]*")
READ_CHARACTERS = 1 << 18
DECODER = json.JSONDecoder()


def json_records(text: TextIO, where: str, wanted: list[str]) -> Iterator[Any] | None:
    """Return the rows of a JSON text that is one list or one object; None where it holds one object a line.

    Read are lists of objects (orient="records"), column by column (the default of pandas), orient="split", and {"data": [objects]}.
    A list is read bit by bit, the others as a whole.

    Args:
        where: the file, for messages.
        wanted: columns, which tell columns from rows in an object of objects.
    Raises:
        DataError: another layout, or broken JSON.
    """
    head = _from_first_character(text)
    if head[:1] == "[":
        return _list_values(text, head, where)
    if head[:1] != "{":
        return None
    while "\n" not in head and (more := text.read(READ_CHARACTERS)):
        head += more
    line = head.partition("\n")[0]
    value = _value(line)
    if isinstance(value, dict) and not _is_layout(value, wanted):
        return None
    rest = head[len(line) :]
    if value is None or not rest.strip():
        rest += text.read()
        value = _value(line + rest) if rest.strip() else value
    elif rest.strip():
        return None
    if value is None:
        return None
    records = _layout(value, wanted)
    if records is None:
        words = 'is one JSON object in a layout that cannot be read. Write it with DataFrame.to_json(path, orient="records", lines=True)'
        raise DataError(f"{where}: {words}, and end its name in .jsonl.")
    return iter(records)


def _from_first_character(text: TextIO) -> str:
    """The first part of the text, without a byte order mark and white space before it."""
    while part := text.read(READ_CHARACTERS):
        if part := part.lstrip("\ufeff \t\r\n"):
            return part
    return ""


def _value(text: str) -> Any:
    """The value of a whole JSON text; None where it is broken."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _is_layout(value: dict[str, Any], wanted: list[str]) -> bool:
    """Whether an object holds several rows, or nothing, so that it is none itself."""
    held = list(value.values())
    if all(isinstance(v, dict) for v in held) or (
        isinstance(value.get("data"), list) and value.keys() <= KEYS_AROUND_DATA
    ):
        return True
    has_rows = any(isinstance(v, list) and v and all(isinstance(x, dict) for x in v) for v in held)
    return bool(wanted) and has_rows and not value.keys() & set(wanted)


KEYS_AROUND_DATA = {"columns", "index", "data", "schema"}


def _layout(value: Any, wanted: list[str]) -> Iterable[Any] | None:
    if not isinstance(value, dict):
        return None
    rows, columns = value.get("data"), value.get("columns")
    if isinstance(rows, list) and value.keys() <= KEYS_AROUND_DATA:
        if isinstance(columns, list) and all(
            isinstance(row, list) and len(row) == len(columns) for row in rows
        ):
            return (dict(zip(map(str, columns), row, strict=True)) for row in rows)
        return rows if all(isinstance(row, dict) for row in rows) else None
    held = list(value.values())
    if not held or not all(
        isinstance(column, dict) and column.keys() == held[0].keys() for column in held
    ):
        return None
    if (
        wanted and not value.keys() >= set(wanted) and held[0].keys() >= set(wanted)
    ):  # orient="index": rows by their names
        return None
    return ({name: column[key] for name, column in value.items()} for key in held[0])


def _list_values(text: TextIO, buffer: str, where: str) -> Iterator[Any]:
    """The values of a list, of which only a part is held.

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
            words = 'is a list of lists, without names of columns. Write it with DataFrame.to_json(path, orient="records", lines=True)'
            raise DataError(f"{where}: {words}, and end its name in .jsonl.")
        yield value
        at, is_first, size = end, False, READ_CHARACTERS
    rest = buffer[end:]
    while rest or (rest := text.read(READ_CHARACTERS)):
        if rest.strip():
            raise DataError(
                f"{where}: broken JSON: text stands behind the list, {rest.strip()[:20]!r}. Give one list, or one object a line."
            )
        rest = ""


def _next_value(buffer: str, at: int, is_first: bool) -> tuple[Any, int, bool]:
    """(value, place behind it, whether the list ended instead); raises ValueError where the buffer holds no whole one.

    The place behind a value is the separator or bracket that follows it, so that a number that is cut off is not taken for a whole one.
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
    """The error with its place in the whole text."""
    if isinstance(error, json.JSONDecodeError) and read:
        return DataError(
            f"{where}: broken JSON: {error.msg}: char {read + error.pos:,}, near {buffer[max(0, error.pos - 20) : error.pos + 20]!r}."
        )
    return DataError(f"{where}: broken JSON: {error}.")
