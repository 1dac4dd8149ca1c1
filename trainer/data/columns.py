"""The columns that rows need, and what to do where a file lacks one."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainer.data.bad_rows import cut
from trainer.errors import DataError, did_you_mean, listing

if TYPE_CHECKING:
    from trainer.sections.data import DataSection

JSON_START = re.compile(r"\s*(\[\s*)?\{")
SET_COLUMNS = "Set data.text_column and data.label_column."
OTHER_SEPARATORS = {";": ";", "\t": '"\\t"', "|": '"|"', ",": '","'}
"""What else stands between cells, and how YAML spells it."""


def check_columns(where: str, wanted: Iterable[str], found: Iterable[str], remedy: str = SET_COLUMNS) -> None:
    """Raises DataError naming the first wanted column that a file lacks.

    Args:
        remedy: sentences that say where the names of columns are set.
    """
    found = list(found)
    for column in wanted:
        if column not in found:
            raise DataError(f"{where}: no column '{column}'; found: {listing(cut(name, 60) for name in found)}.{did_you_mean(column, found)} {remedy}")
        if found.count(column) > 1:
            raise DataError(f"{where}: {found.count(column)} columns are called '{column}'. Rename all but one.")


def check_header(where: str, wanted: Iterable[str], found: list[str], options: "DataSection", remedy: str = SET_COLUMNS) -> None:
    """The same of a CSV file, which may lack a header line or have another separator."""
    wanted = list(wanted)
    if found and "\0" in found[0]:
        form = "utf-16-be" if found[0].startswith("\0") else "utf-16-le"
        raise DataError(f"{where}: holds zero bytes between its characters, as UTF-16 does. Set data.encoding: {form}, or save the file as UTF-8.")
    if not options.column_names and found and JSON_START.match(found[0]) and wanted and wanted[0] not in found:
        raise DataError(f"{where}: holds JSON, not CSV. Rename it, so that its name ends in .jsonl where each line is an object, else in .json.")
    no_header = "" if options.column_names else " If the file has no header line, set data.column_names."
    spelt = next((spelling for mark, spelling in OTHER_SEPARATORS.items() if mark in found[0]), None) if len(found) == 1 else None
    if spelt and found[0] not in wanted:
        hint = f"If a line holds more than one cell, give --set 'data.separator={spelt}'.{no_header}"
        raise DataError(f"{where}: no column '{wanted[0]}', but a single one: {cut(found[0], 100)!r}. {hint}")
    check_columns(where, wanted, found, remedy + no_header)
