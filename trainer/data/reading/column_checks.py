"""Check that a file has the columns that its rows need, and say what to set if it lacks one."""

import re
from collections.abc import Iterable

from trainer.config.sections.data import DataSection
from trainer.errors import DataError, brief, did_you_mean, listing

JSON_START = re.compile(r"\s*(\[\s*)?\{")
SET_COLUMNS = "Set data.text_column and data.label_column."
OTHER_SEPARATORS = {";": ";", "\t": '"\\t"', "|": '"|"', ",": '","'}
"""Characters that may separate cells, and how YAML spells them."""


def column_remedy(column: str, options: DataSection) -> str:
    """Return what to set if a column is not found."""
    if column in options.text_columns or (
        column == options.label_column and not options.label_columns
    ):
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
    options: DataSection,
    remedy: str = "",
    num_rows: int = 0,
) -> None:
    """Raise DataError for the first wanted column that a file lacks or has twice.

    Args:
        remedy: sentences on where the column names are set; empty if `options` set them.
        num_rows: rows that were looked at, if the file has no header; 0 means all.
    """
    found = list(found)
    seen = f" in the first {num_rows:,} rows" if num_rows else ""
    for column in wanted:
        if column not in found:
            hint = f"{did_you_mean(column, found)} {remedy or column_remedy(column, options)}"
            raise DataError(
                f"{where}: no column '{column}'{seen}; found: {listing(found) or 'none'}.{hint}"
            )
        if found.count(column) > 1:
            raise DataError(
                f"{where}: {found.count(column)} columns are called '{column}'. Rename all but one."
            )


def check_header(
    where: str, wanted: Iterable[str], found: list[str], options: DataSection, remedy: str = ""
) -> None:
    """Check the columns of a CSV file, whose header or separator may be another than expected.

    Raises:
        DataError: a wanted column is missing or occurs twice.
    """
    wanted, first = list(wanted), found[0] if found else ""
    if "\0" in first:
        form = "utf-16-be" if first.startswith("\0") else "utf-16-le"
        raise DataError(
            f"{where}: holds zero bytes between its characters, as UTF-16 does. Set data.encoding: "
            f"{form}, or save the file as UTF-8."
        )
    is_json = JSON_START.match(first) and not options.column_names
    if is_json and wanted and wanted[0] not in found:
        raise DataError(
            f"{where}: holds JSON, not CSV. Rename the file, so that its name ends in .jsonl if "
            "each line is an object, or else in .json."
        )
    no_header = (
        "" if options.column_names else " If the file has no header line, set data.column_names."
    )
    spellings = [spelling for mark, spelling in OTHER_SEPARATORS.items() if mark in first]
    if len(found) == 1 and spellings and first not in wanted:
        raise DataError(
            f"{where}: no column '{wanted[0]}', but a single one: '{brief(first, 100)}'. If a line "
            f"holds more than one cell, give --set 'data.separator={spellings[0]}'.{no_header}"
        )
    missing = next((column for column in wanted if column not in found), "")
    remedy = remedy or column_remedy(missing, options)
    check_columns(where, wanted, found, options, remedy + no_header)
