"""Rows that cannot be read, and remarks about how files were read."""

from collections.abc import Iterable
from typing import Any

from trainer.config.sections.data import DataSection
from trainer.data.reading.row_places import place_words
from trainer.errors import DataError

MOST_CONTENT = 1_000
"""Largest number of characters of a bad row that is kept."""


class BadRows(list[dict[str, Any]]):
    """Rows that cannot be read: the file, line (or record), reason and content of each.

    Args:
        rows: bad rows that were found before.
        most: keep only so many rows, and count the others.
    Attributes:
        total: number of rows, kept or not.
        remarks: sentences about how files were read, to be printed.
        num_multiline: CSV records that span several lines.
        files: the name of each file that was opened, and whether its rows are counted by "line" or
            by "record".
    """

    def __init__(self, rows: Iterable[dict[str, Any]] = (), most: int | None = None) -> None:
        super().__init__(rows)
        self.most, self.total = most, len(self)
        self.remarks: list[str] = []
        self.num_multiline = 0
        self.files: list[list[str]] = []

    def note(self, file: str, unit: str, number: int, reason: str, content: str) -> None:
        """Add a row; `unit` is "line" or "record", and long content is cut."""
        self.total += 1
        if len(content) > MOST_CONTENT:
            content = f"{content[:MOST_CONTENT]} ... ({len(content):,} characters)"
        if self.most is None or len(self) < self.most:
            self.append({"file": file, unit: number, "reason": reason, "content": content})

    def remark(self, sentence: str) -> None:
        """Add a sentence to the remarks, unless it is empty or already there."""
        if sentence and sentence not in self.remarks:
            self.remarks.append(sentence)


def refuse_bad_rows(bad_rows: list[dict[str, Any]], data: DataSection, total_words: str) -> None:
    """Raise DataError for the first row that cannot be read, unless bad rows are skipped.

    Args:
        total_words: how many bad rows there are, for the message.
    """
    if bad_rows and data.on_bad_rows == "error":
        first = bad_rows[0]
        unit = "line" if "line" in first else "record"
        raise DataError(
            f"{place_words(first['file'], unit, first[unit])}: {first['reason']} ({total_words}). "
            "Fix the file, or set data.on_bad_rows: skip."
        )
