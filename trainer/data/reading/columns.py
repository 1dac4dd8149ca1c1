"""The columns that rows need, and what to do where a file lacks one."""

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainer.errors import DataError, brief, did_you_mean, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

JSON_START = re.compile(r"\s*(\[\s*)?\{")
SET_COLUMNS = "Set data.text_column and data.label_column."
OTHER_SEPARATORS = {";": ";", "\t": '"\\t"', "|": '"|"', ",": '","'}
"""What else stands between cells, and how YAML spells it."""


def set_column(column: str, options: "DataSection") -> str:
    """Return what to set where a column is not found."""
    texts = [options.text_column] if isinstance(options.text_column, str) else options.text_column
    if column in texts or (column == options.label_column and not options.label_columns):
        return SET_COLUMNS
    if column in (options.label_columns or ()):
        return "Set data.label_columns."
    keys = ("group_column", "weight_column", "split_column")
    named = [f"data.{key}" for key in keys if getattr(options, key) == column]
    return f"Set {' and '.join(named) or 'balance.by or split.by_time, which names it'}."


def check_columns(
    where: str,
    wanted: Iterable[str],
    found: Iterable[str],
    options: "DataSection",
    remedy: str = "",
    num_rows: int = 0,
) -> None:
    """Raises DataError naming the first wanted column that a file lacks.

    Args:
        remedy: sentences that say where the names of columns are set; nothing means in `options`.
        num_rows: rows that were looked at, where a file has no header; 0 means all.
    """
    found = list(found)
    seen = f" in the first {num_rows:,} rows" if num_rows else ""
    for column in wanted:
        if column not in found:
            names = listing(found) or "none"
            hint = f"{did_you_mean(column, found)} {remedy or set_column(column, options)}"
            raise DataError(f"{where}: no column '{column}'{seen}; found: {names}.{hint}")
        if found.count(column) > 1:
            raise DataError(
                f"{where}: {found.count(column)} columns are called '{column}'. Rename all but one."
            )


def check_header(
    where: str, wanted: Iterable[str], found: list[str], options: "DataSection", remedy: str = ""
) -> None:
    """The same of a CSV file, which may lack a header line or have another separator."""
    wanted = list(wanted)
    if found and "\0" in found[0]:
        form = "utf-16-be" if found[0].startswith("\0") else "utf-16-le"
        raise DataError(
            f"{where}: holds zero bytes between its characters, as UTF-16 does. Set data.encoding: {form}, or save the file as UTF-8."
        )
    if (
        not options.column_names
        and found
        and JSON_START.match(found[0])
        and wanted
        and wanted[0] not in found
    ):
        raise DataError(
            f"{where}: holds JSON, not CSV. Rename it, so that its name ends in .jsonl where each line is an object, else in .json."
        )
    no_header = (
        "" if options.column_names else " If the file has no header line, set data.column_names."
    )
    spelt = (
        next((spelling for mark, spelling in OTHER_SEPARATORS.items() if mark in found[0]), None)
        if len(found) == 1
        else None
    )
    if spelt and found[0] not in wanted:
        hint = (
            f"If a line holds more than one cell, give --set 'data.separator={spelt}'.{no_header}"
        )
        raise DataError(
            f"{where}: no column '{wanted[0]}', but a single one: '{brief(found[0], 100)}'. {hint}"
        )
    missing = next((column for column in wanted if column not in found), "")
    check_columns(
        where, wanted, found, options, (remedy or set_column(missing, options)) + no_header
    )
