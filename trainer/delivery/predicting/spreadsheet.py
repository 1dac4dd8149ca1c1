"""Cells that a spreadsheet would run as a formula. Source: OWASP, "CSV Injection"."""

import re

FORMULA = re.compile(r"[=+\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def spreadsheet_safe(cell: str) -> str:
    """Return the cell, behind an apostrophe where a spreadsheet would take it for a formula.

    Example:
        >>> spreadsheet_safe("=cmd|' /C calc'!A0"), spreadsheet_safe("-1.5"), spreadsheet_safe("-yes")
        ("'=cmd|' /C calc'!A0", '-1.5', "'-yes")
    """
    return f"'{cell}" if FORMULA.match(cell) and not NUMBER.fullmatch(cell) else cell
