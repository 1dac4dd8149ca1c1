"""What reading finds beside rows: rows that cannot be read, remarks, and the place of each row in its file."""

from typing import TYPE_CHECKING, Any

from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

LINE, RECORD = "trainer:line", "trainer:record"
"""Columns that readers add: the line on which a row starts, or its number in the file, both from 1. A table has one of them."""
BATCH_ROWS = 20_000
"""Rows of a table that a reader gives, at most."""
MOST_CONTENT = 1_000
"""Characters of a bad row that are kept."""


class BadRows(list[dict[str, Any]]):
    """Rows that could not be read: file, line (or record), reason and content of each.

    Attributes:
        remarks: sentences about how files were read, to be printed.
        num_multiline: CSV records that span several lines.
        files: name of each file that was begun, and whether its rows are counted by "line" or by "record".
    """

    def __init__(self, rows: "list[dict[str, Any]] | tuple[()]" = ()) -> None:
        super().__init__(rows)
        self.remarks: list[str] = []
        self.num_multiline = 0
        self.files: list[list[str]] = []

    def remark(self, sentence: str) -> None:
        """Note a sentence once; an empty one is none."""
        if sentence and sentence not in self.remarks:
            self.remarks.append(sentence)


def cut(content: str) -> str:
    """Return the text that `dropped.jsonl` keeps: of a long one the beginning and how long it is."""
    return (
        content
        if len(content) <= MOST_CONTENT
        else f"{content[:MOST_CONTENT]} ... ({len(content):,} characters)"
    )


def refuse_bad_rows(
    bad_rows: list[dict[str, Any]], data: "DataSection", number_in_words: str
) -> None:
    """Raises DataError for the first row that could not be read, unless such rows are to be skipped."""
    if bad_rows and data.on_bad_rows == "error":
        first = bad_rows[0]
        number = (
            f"{first['file']}:{first['line']}"
            if "line" in first
            else f"{first['file']}: record {first['record']}"
        )
        raise DataError(
            f"{number}: {first['reason']} ({number_in_words}). Mend the file, or set data.on_bad_rows: skip."
        )
