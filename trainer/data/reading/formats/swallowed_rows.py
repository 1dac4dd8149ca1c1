"""Quoted cells that hold whole rows, since a quote was left open: told apart from texts of several lines."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

MOST_SUSPECTS = 1_000
MOST_LABELS = 100_000
"""Records and labels that are remembered until the end of a file."""


class SwallowedRows:
    """Looks for records of several lines that are several rows.

    Read without quotes, such lines have the header's number of cells, and a label that other rows
    have. A record of three such lines is refused: a sound one has at most one, that on which its
    quoted cell ends, and perhaps one more that quotes a row. A shorter record is refused when all
    its lines are such. Without a label column, as in `predict`, all lines must have the header's
    number of cells, and there must be four. These two rules pass over a separator before a space,
    as commas in sentences are.

    Args:
        where: the file, for messages.
        names: its columns.
        separator: between cells.
    """

    def __init__(
        self, where: str, names: list[str], separator: str, options: "DataSection"
    ) -> None:
        label = options.label_columns[0] if options.label_columns else options.label_column
        self.where, self.width, self.separator, self.options = where, len(names), separator, options
        self.label_at = names.index(label) if label in names else None
        self.known: set[str] = set()
        self.suspects: list[tuple[int, int, list[str], int]] = []
        self.is_off = options.multiline_cells or len(names) < 2 or not options.quote_char

    def learn(self, labels: Iterable[str]) -> None:
        """Note labels of rows."""
        if not self.is_off and len(self.known) < MOST_LABELS:
            self.known.update(label.strip() for label in labels if label.strip())

    def like_rows(self, lines: Iterable[str]) -> list[list[str]]:
        """Return the lines that have the header's number of cells, quotes read as text."""
        return [
            line.rstrip("\r\n").split(self.separator)
            for line in lines
            if line.count(self.separator) == self.width - 1
        ]

    def look(self, number: int, lines: list[str]) -> None:
        """Judge a record of several lines, or remember it until all labels are known.

        Args:
            number: its first line.
        Raises:
            DataError: it holds several rows.
        """
        if self.is_off:
            return
        rows = self.like_rows(lines)
        are_all = len(rows) == len(lines) and (
            self.options.skip_initial_space or not any(map(self._is_prose, lines))
        )
        if self.label_at is None:
            if are_all and len(rows) >= 4:
                self._refuse(number, len(lines), len(rows))
            return
        if are_all or len(rows) >= 3:
            needed = min(3, len(rows))
            labels = [cells[self.label_at].strip(f" \t{self.options.quote_char}") for cells in rows]
            self._judge(number, len(lines), labels, needed)
            if len(self.suspects) < MOST_SUSPECTS:
                self.suspects.append((number, len(lines), labels, needed))

    def _is_prose(self, line: str) -> bool:
        """Whether a space follows a separator."""
        return f"{self.separator} " in line

    def judge_all(self) -> None:
        """Judge what was remembered, by the labels of the whole file; raises DataError."""
        for suspect in self.suspects:
            self._judge(*suspect)

    def _judge(self, number: int, num_lines: int, labels: list[str], needed: int) -> None:
        if (like_rows := sum(label in self.known for label in labels)) >= needed:
            self._refuse(number, num_lines, like_rows)

    def _refuse(self, number: int, num_lines: int, like_rows: int) -> None:
        remedy = "Set data.quote_char: '' to read quotes as text, or data.multiline_cells: true if the text belongs together."
        raise DataError(
            f"{self.where}:{number}: a quoted cell makes one row of {num_lines} lines, of which {like_rows} look like rows. {remedy}"
        )
