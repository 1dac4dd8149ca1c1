"""CSV and TSV: one strict parser for training and prediction.

Python's csv.reader decides, with strict quoting. Blocks of text that Arrow reads alike are left to Arrow (csv_blocks.py).
"""

import csv
import io
import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.data.reading.bad_rows import BATCH_ROWS, LINE, BadRows, cut
from trainer.data.reading.formats.csv_blocks import layout, parse
from trainer.data.reading.formats.swallowed_rows import SwallowedRows
from trainer.data.reading.formats.text_encoding import LONGEST_RECORD
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

SEPARATORS = {".tsv": "\t", ".tab": "\t"}
"""Separator of CSV files by ending, where it is not a comma."""
QUOTES_ARE_TEXT = "; data.quote_char: '' reads quotes as text"
EXCEL_SEPARATOR = re.compile(r"sep=([\x00-\x09\x0b\x0c\x0e-\x7f])\r?\n?", re.IGNORECASE)
"""The first line by which Excel is told the separator."""


class CsvRows:
    """The rows of a CSV text as Arrow tables of text columns; an empty cell, quoted or not, is an empty text.

    Args:
        blocks: the text, in blocks of whole lines.
        where: its name, for messages.
        wanted: columns to give; none means all.
        options: separator, quote_char, escape_char ...
        form: ending of the file, which tells the separator.
        bad_rows: takes the records that cannot be read.
        check: is called with the names of the columns; raises DataError where they will not do.
    Attributes:
        num_multiline: records that span several lines.
    """

    def __init__(
        self,
        blocks: Iterator[str],
        where: str,
        wanted: list[str],
        options: "DataSection",
        form: str,
        bad_rows: BadRows,
        check: Callable[[list[str]], None],
    ) -> None:
        self.blocks, self.where, self.wanted, self.options, self.bad_rows, self.check = (
            blocks,
            where,
            wanted,
            options,
            bad_rows,
            check,
        )
        self.separator = options.separator or SEPARATORS.get(form, ",")
        self.is_begun = False
        self.lines = _Lines(blocks, escapes_for_csv(options))

    def tables(self) -> Iterator[pa.Table]:
        """Read to the end: tables of the wanted columns, with the line on which each row starts in LINE.

        Raises:
            DataError: no header, a column that is missing, a record that holds several rows.
        """
        csv.field_size_limit(LONGEST_RECORD)
        self._head()
        while block := self.lines.take():
            if not (yield from self._by_arrow(block)):
                self.lines.put_back(block)
                yield from self._by_line()
        self.swallowed.judge_all()

    def _head(self) -> None:
        """Read the lines up to the first row; raises DataError where there is none, or a column is missing."""
        lines, options = self.lines, self.options
        first = next(lines, None)
        if first is None:
            raise DataError(f"{self.where}: is empty. Give a file with a header line and rows.")
        excel = EXCEL_SEPARATOR.fullmatch(first)
        if excel:
            self.separator = options.separator or excel[1]
            self.bad_rows.remark(
                f"{self.where}: its first line, sep={excel[1]}, is no row; the separator is {self.separator!r}."
            )
        if not excel or options.skip_lines:
            lines.at = 0
        for _ in range(options.skip_lines):
            next(lines, None)
        self.names = options.column_names or self._names()
        self.check(self.names)
        for _ in range(options.skip_lines_after_header):
            next(lines, None)
        self.places = [self.names.index(name) for name in self.wanted] or list(
            range(len(self.names))
        )
        self.swallowed = SwallowedRows(self.where, self.names, self.separator, options)

    def _names(self) -> list[str]:
        """Read the header line, the first that is not blank."""
        while True:
            self.lines.begin()
            try:
                cells = next(self._reader(), None)
            except csv.Error as error:
                raise DataError(
                    f"{self.where}:{self.lines.number}: the header line cannot be read: {self._fault(str(error))}."
                ) from error
            if cells is None:
                raise DataError(f"{self.where}: cannot be read as CSV: it holds no rows.")
            if cells:
                return cells

    def _reader(self) -> Any:
        options = self.options
        quoting: Any = csv.QUOTE_MINIMAL if options.quote_char else csv.QUOTE_NONE
        return csv.reader(
            self.lines,
            delimiter=self.separator,
            quotechar=options.quote_char or None,
            quoting=quoting,
            escapechar=options.escape_char,
            skipinitialspace=options.skip_initial_space,
            strict=True,
        )

    def _by_arrow(self, block: str) -> Generator[pa.Table, None, bool]:
        """Read a block, without its last record if that goes on behind it; False where the strict parser has to read the block."""
        options, quote = self.options, self.options.quote_char
        if (
            options.escape_char
            or options.skip_initial_space
            or (quote and len(self.names) == 1 and quote in block)
        ):
            return False
        content = block.encode()
        found = layout(content, self.separator.encode(), quote.encode(), len(self.names))
        if found is None:
            return False
        whole, rest = content[: found.size], content[found.size :].decode()
        first = self.lines.number
        if len(found.starts_R):
            table = parse(whole, found, self.separator, quote, len(self.names), self.places)
            if table is None:
                return False
            self.bad_rows.num_multiline += found.num_multiline
            if len(found.suspects_R) and not self.swallowed.is_off:
                lines, bounds = (
                    split_lines(whole.decode()),
                    [*found.starts_R.tolist(), found.num_lines],
                )
                for record in found.suspects_R.tolist():
                    self.swallowed.look(
                        first + bounds[record], lines[bounds[record] : bounds[record + 1]]
                    )
            yield self._named(
                table.rename_columns([self.names[place] for place in self.places]),
                found.starts_R + first,
            )
        self.lines.put_back(rest + next(self.blocks, "") if rest else "", found.num_lines)
        return True

    def _by_line(self) -> Iterator[pa.Table]:
        """Read the lines at hand, and what the last record needs beyond them."""
        lines, width, reader = self.lines, len(self.names), self._reader()
        rows: list[list[str]] = []
        numbers: list[int] = []
        lines.load()
        while lines.at < len(lines.held):
            lines.begin()
            try:
                cells = next(reader)
            except csv.Error as error:
                self._refuse(self._fault(str(error)), lines.held[lines.start])
                lines.again()  # what the quote swallowed are rows
                continue
            if len(cells) == width:
                if lines.at - lines.start > 1:
                    self.bad_rows.num_multiline += 1
                    self.swallowed.look(lines.number, lines.record())
                rows.append([cells[place] for place in self.places])
                numbers.append(lines.number)
            elif cells:
                self._ragged(len(cells))
            if len(rows) == BATCH_ROWS:
                yield self._table(rows, numbers)
                rows, numbers = [], []
        if rows:
            yield self._table(rows, numbers)

    def _table(self, rows: list[list[str]], numbers: list[int]) -> pa.Table:
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        return self._named(
            pa.Table.from_arrays(columns, [self.names[place] for place in self.places]), numbers
        )

    def _named(self, table: pa.Table, numbers: Any) -> pa.Table:
        """The table with its lines; its labels are remembered."""
        if self.swallowed.label_at in self.places:
            self.swallowed.learn(
                pc.unique(table.column(self.places.index(self.swallowed.label_at))).to_pylist()
            )
        if self.options.column_names and not self.is_begun:
            cells = [str(column[0]).strip().casefold() for column in table.columns]
            if cells == [name.strip().casefold() for name in table.column_names]:
                hint = "Remove data.column_names, or set data.skip_lines: 1."
                self.bad_rows.remark(
                    f"{self.where}: the first row is the same as data.column_names, so it may be a header line. {hint}"
                )
        self.is_begun = True
        return table.append_column(LINE, pa.array(numbers, pa.int64()))

    def _ragged(self, num_cells: int) -> None:
        """Note a record that has another number of cells than the header."""
        lines = self.lines
        record = lines.record()
        reason = f"{num_cells} cells, expected {len(self.names)}{self._hints(record)}"
        if (
            len(self.swallowed.like_rows(record[:-1])) > 1
        ):  # an open quote: what it swallowed are rows
            self._refuse(reason, record[0])
            lines.again()
        else:
            self._refuse(reason, "".join(record))

    def _refuse(self, reason: str, content: str) -> None:
        self.bad_rows.append(
            {
                "file": self.where,
                "line": self.lines.number,
                "reason": reason,
                "content": cut(content.rstrip("\r\n")),
            }
        )

    def _fault(self, error: str) -> str:
        """What keeps a record from being read, and what to do."""
        hints = self._hints(self.lines.record()) or QUOTES_ARE_TEXT
        if "expected after" in error:
            return f"text stands behind a closing quote{hints}"
        if "unexpected end" in error:
            return f"a quote is opened and never closed{hints}"
        return f"a record is longer than 32 MiB; is a quote left open?{hints}"

    def _hints(self, record: list[str]) -> str:
        """Options that may mend a record."""
        options, quote = self.options, self.options.quote_char
        hints = ""
        if quote and not options.escape_char and any(f"\\{quote}" in line for line in record):
            hints += f'; data.escape_char: "\\\\" reads \\{quote} as a quote'
        spaced = rf"(?:^|{re.escape(self.separator)}) +{re.escape(quote)}"
        if (
            quote
            and not options.skip_initial_space
            and any(re.search(spaced, line) for line in record)
        ):
            hints += "; data.skip_initial_space: true reads a quote behind spaces"
        return hints


class _Lines:
    """The lines of a text for a csv.reader, which can be read again from the start of a record.

    Args:
        blocks: the text, in blocks of whole lines.
        prepare: is applied to each line that is read.
    Attributes:
        held: lines at hand; `at` is the place of the next one in them, `start` the place where the record being read starts.
    """

    def __init__(self, blocks: Iterator[str], prepare: Callable[[str], str] | None) -> None:
        self.blocks, self.prepare = blocks, prepare
        self.held: list[str] = []
        self.at = self.start = 0
        self._first = 1
        """Number of the first line at hand."""
        self._text = ""
        """Text behind the lines at hand that is not split yet."""

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        if self.at == len(self.held) and not self.load():
            raise StopIteration
        line = self.held[self.at]
        self.at += 1
        return self.prepare(line) if self.prepare else line

    @property
    def number(self) -> int:
        """Number of the line on which the record being read starts, from 1."""
        return self._first + self.start

    def load(self) -> bool:
        """Get further lines, let go of those before the record being read; False at the end of the text."""
        block, self._text = self._text or next(self.blocks, ""), ""
        self.held = self.held[self.start :] + split_lines(block)
        self._first, self.at, self.start = self._first + self.start, self.at - self.start, 0
        return bool(block)

    def begin(self) -> None:
        """A record starts here."""
        self.start = self.at

    def again(self) -> None:
        """Go back to the second line of the record being read."""
        self.at = self.start + 1

    def record(self) -> list[str]:
        """Return the lines of the record being read."""
        return self.held[self.start : self.at]

    def take(self) -> str:
        """Return the text behind the record that was read last, or the next block; nothing at the end."""
        text = "".join(self.held[self.at :]) + self._text
        self._first, self.held, self.at, self.start, self._text = (
            self._first + self.at,
            [],
            0,
            0,
            "",
        )
        return text or next(self.blocks, "")

    def put_back(self, text: str, num_lines: int = 0) -> None:
        """Give back what was taken, or what is behind its first lines, which have been read."""
        self._first, self._text = self._first + num_lines, text


def split_lines(text: str) -> list[str]:
    """Return the lines with their ends: line feed, carriage return, or both; no other character ends a line."""
    return list(io.StringIO(text, newline=""))


def escapes_for_csv(options: "DataSection") -> Callable[[str], str] | None:
    """Return a function that doubles the escape characters of a line that escape nothing; csv.reader would leave them out."""
    escape, quote = options.escape_char, options.quote_char
    if not escape:
        return None
    pattern = re.compile(rf"({re.escape(escape)}[{re.escape(escape + quote)}])|{re.escape(escape)}")
    return lambda line: (
        pattern.sub(lambda found: found[1] or escape * 2, line) if escape in line else line
    )
