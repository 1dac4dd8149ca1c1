"""The lines of a CSV text for csv.reader, which can be read again from the start of a record."""

import io
import re
from collections.abc import Callable, Iterator

from trainer.config.sections.data import DataSection


class CsvLines:
    """An iterator over the lines of a text.

    Args:
        blocks: the text, in blocks of whole lines.
        prepare: is applied to each line that is read.
    Attributes:
        held: the lines in memory.
        at: the position in `held` of the next line.
        start: the position in `held` of the first line of the record that is being read.
    """

    def __init__(self, blocks: Iterator[str], prepare: Callable[[str], str] | None) -> None:
        self.blocks, self.prepare = blocks, prepare
        self.held: list[str] = []
        self.at = self.start = 0
        self._first = 1
        """Number of the first line in `held`."""
        self._text = ""
        """Text after these lines that is not split yet."""

    def __iter__(self) -> "CsvLines":
        return self

    def __next__(self) -> str:
        if self.at == len(self.held) and not self.load():
            raise StopIteration
        line = self.held[self.at]
        self.at += 1
        return self.prepare(line) if self.prepare else line

    @property
    def number(self) -> int:
        """Number of the first line of the record that is being read, counted from 1."""
        return self._first + self.start

    def load(self) -> bool:
        """Read further lines and drop those before the record; return False at the end."""
        block, self._text = self._text or next(self.blocks, ""), ""
        self.held = self.held[self.start :] + split_lines(block)
        self._first, self.at, self.start = self._first + self.start, self.at - self.start, 0
        return bool(block)

    def record(self) -> list[str]:
        """Return the lines of the record that is being read."""
        return self.held[self.start : self.at]

    def take(self) -> str:
        """Return the text after the last record, or the next block; empty at the end."""
        text = "".join(self.held[self.at :]) + self._text
        self._first, self.held, self._text = self._first + self.at, [], ""
        self.at = self.start = 0
        return text or next(self.blocks, "")

    def put_back(self, text: str, num_lines: int = 0) -> None:
        """Put back text that was taken, without its first lines if these have been read."""
        self._first, self._text = self._first + num_lines, text


def split_lines(text: str) -> list[str]:
    """Return the lines with their ends: line feed, carriage return, or both."""
    return list(io.StringIO(text, newline=""))


def escapes_for_csv(options: DataSection) -> Callable[[str], str] | None:
    """Return a function that doubles the escape characters of a line that escape nothing.

    csv.reader would remove them.
    """
    escape, quote = options.escape_char, options.quote_char
    if not escape:
        return None
    pattern = re.compile(rf"({re.escape(escape)}[{re.escape(escape + quote)}])|{re.escape(escape)}")
    return lambda line: (
        pattern.sub(lambda found: found[1] or escape * 2, line) if escape in line else line
    )
