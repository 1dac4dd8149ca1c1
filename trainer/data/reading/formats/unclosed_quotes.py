"""Find quoted cells that hold whole rows because a quote was never closed."""

from collections.abc import Iterable

from trainer.config.sections.data import DataSection
from trainer.errors import DataError

MOST_SUSPECTS = 1_000
"""Largest number of suspect records that are remembered until the end of a file."""
MOST_LABELS = 100_000
"""Largest number of labels that are remembered."""


class UnclosedQuotes:
    """Looks for records of several lines that are really several rows.

    Read without quotes, the lines of such a record have the header's number of cells, and labels
    that other rows have too. A record with three such lines is refused. A sound record has at most
    one, the line on which its quoted cell ends, and perhaps one more that quotes a row. A shorter
    record is refused if all its lines are such. Without a label column, as in `predict`, a record
    is refused if all its lines, at least four, have the header's number of cells. These last two
    rules ignore a record in which a space follows a separator, as it does after a comma in a text.

    Args:
        where: the file, for messages.
        names: its columns.
        separator: the character between cells.
    """

    def __init__(self, where: str, names: list[str], separator: str, options: DataSection) -> None:
        label = options.label_columns[0] if options.label_columns else options.label_column
        self.where, self.width, self.separator, self.options = where, len(names), separator, options
        self.label_at = names.index(label) if label in names else None
        self.known: set[str] = set()
        self.suspects: list[tuple[int, int, list[str], int]] = []
        self.is_off = options.multiline_cells or len(names) < 2 or not options.quote_char

    def learn(self, labels: Iterable[str]) -> None:
        """Remember labels of rows."""
        if not self.is_off and len(self.known) < MOST_LABELS:
            self.known.update(label.strip() for label in labels if label.strip())

    def like_rows(self, lines: Iterable[str]) -> list[list[str]]:
        """Return the cells of the lines with the header's number of cells, read without quotes."""
        return [
            line.rstrip("\r\n").split(self.separator)
            for line in lines
            if line.count(self.separator) == self.width - 1
        ]

    def look(self, number: int, lines: list[str]) -> None:
        """Check a record of several lines, and remember it until all labels are known.

        Args:
            number: its first line.
        Raises:
            DataError: the record holds several rows.
        """
        if self.is_off:
            return
        rows = self.like_rows(lines)
        has_spaces = any(f"{self.separator} " in line for line in lines)
        are_all = len(rows) == len(lines) and (self.options.skip_initial_space or not has_spaces)
        if self.label_at is None:
            if are_all and len(rows) >= 4:
                self._refuse(number, len(lines), len(rows))
        elif are_all or len(rows) >= 3:
            labels = [cells[self.label_at].strip(f" \t{self.options.quote_char}") for cells in rows]
            suspect = (number, len(lines), labels, min(3, len(rows)))
            self._check(*suspect)
            if len(self.suspects) < MOST_SUSPECTS:
                self.suspects.append(suspect)

    def check_all(self) -> None:
        """Raise DataError for the first remembered record that holds rows, by all labels."""
        for suspect in self.suspects:
            self._check(*suspect)

    def _check(self, number: int, num_lines: int, labels: list[str], needed: int) -> None:
        if (like_rows := sum(label in self.known for label in labels)) >= needed:
            self._refuse(number, num_lines, like_rows)

    def _refuse(self, number: int, num_lines: int, like_rows: int) -> None:
        raise DataError(
            f"{self.where}:{number}: a quoted cell makes one row of {num_lines} lines, of which "
            f"{like_rows} look like rows. Set data.quote_char: '' to read quotes as text, or "
            "data.multiline_cells: true if the text belongs together."
        )
