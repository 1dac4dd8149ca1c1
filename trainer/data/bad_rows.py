"""What reading finds beside rows: rows that cannot be read, remarks, and the place of each row in its file."""

from typing import Any

LINE, RECORD = "trainer:line", "trainer:record"
"""Columns that readers add: the line on which a row starts, or its number in the file, both from 1. A table has one of them."""
MOST_CONTENT = 1_000
"""Characters of a bad row that are kept."""


class BadRows(list[dict[str, Any]]):
    """Rows that could not be read: file, line (or record), reason and content of each.

    Attributes:
        remarks: sentences about how files were read, to be printed.
        num_multiline: CSV records that span several lines.
    """

    def __init__(self, rows: "list[dict[str, Any]] | tuple[()]" = ()) -> None:
        super().__init__(rows)
        self.remarks: list[str] = []
        self.num_multiline = 0

    def remark(self, sentence: str) -> None:
        """Note a sentence once."""
        if sentence not in self.remarks:
            self.remarks.append(sentence)


def cut(content: str, most: int = MOST_CONTENT) -> str:
    """Return the text, of a long one the beginning and how long it is."""
    return content if len(content) <= most else f"{content[:most]} ... ({len(content):,} characters)"
