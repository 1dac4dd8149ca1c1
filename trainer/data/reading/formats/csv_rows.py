"""Read CSV and TSV with one strict parser, for training and prediction.

Python's csv.reader decides, with strict quoting. Arrow reads the blocks of text that it reads in
the same way, since it is several times faster (csv_blocks.py).
"""

import csv
import re
from collections.abc import Callable, Generator, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.formats.csv_blocks import layout, parse
from trainer.data.reading.formats.csv_lines import CsvLines, escapes_for_csv, split_lines
from trainer.data.reading.formats.text_encoding import LONGEST_RECORD
from trainer.data.reading.formats.unclosed_quotes import UnclosedQuotes
from trainer.data.reading.row_places import BATCH_ROWS, LINE
from trainer.errors import DataError

SEPARATORS = {".tsv": "\t", ".tab": "\t"}
"""Separator of CSV files by ending, where it is not a comma."""
QUOTES_ARE_TEXT = "; data.quote_char: '' reads quotes as text"
EXCEL_SEPARATOR = re.compile(r"sep=([\x00-\x09\x0b\x0c\x0e-\x7f])\r?\n?", re.IGNORECASE)
"""A first line that tells Excel the separator."""


class CsvRows:
    """The rows of a CSV text as Arrow tables of text columns; an empty cell is an empty text.

    Args:
        blocks: the text, in blocks of whole lines.
        where: its name, for messages.
        wanted: columns to give; none means all.
        options: separator, quote_char, escape_char and others.
        form: ending of the file, which gives the default separator.
        bad_rows: receives the records that cannot be read, and the remarks.
        check: is called with the column names; raises DataError if they do not fit.
    """

    def __init__(
        self,
        blocks: Iterator[str],
        where: str,
        wanted: list[str],
        options: DataSection,
        form: str,
        bad_rows: BadRows,
        check: Callable[[list[str]], None],
    ) -> None:
        self.blocks, self.where, self.wanted, self.options = blocks, where, wanted, options
        self.bad_rows, self.check = bad_rows, check
        self.separator = options.separator or SEPARATORS.get(form, ",")
        self.is_begun = False
        self.lines = CsvLines(blocks, escapes_for_csv(options))

    def tables(self) -> Iterator[pa.Table]:
        """Yield tables of the wanted columns, with the first line of each row in LINE.

        Raises:
            DataError: no header, a missing column, or a record that holds several rows.
        """
        csv.field_size_limit(LONGEST_RECORD)
        self._head()
        while block := self.lines.take():
            if not (yield from self._by_arrow(block)):
                self.lines.put_back(block)
                yield from self._by_line()
        self.quotes.check_all()

    def _head(self) -> None:
        """Read the lines before the first row, and check the columns."""
        lines, options = self.lines, self.options
        first = next(lines, None)
        if first is None:
            raise DataError(f"{self.where}: is empty. Give a file with a header line and rows.")
        excel = EXCEL_SEPARATOR.fullmatch(first)
        if excel:
            self.separator = options.separator or excel[1]
            self.bad_rows.remark(
                f"{self.where}: its first line, sep={excel[1]}, is not a row; the separator is "
                f"{self.separator!r}."
            )
        if not excel or options.skip_lines:
            lines.at = 0
        for _ in range(options.skip_lines):
            next(lines, None)
        self.names = options.column_names or self._names()
        self.check(self.names)
        for _ in range(options.skip_lines_after_header):
            next(lines, None)
        self.chosen = self.wanted or self.names
        self.places = [self.names.index(name) for name in self.wanted] or [*range(len(self.names))]
        self.quotes = UnclosedQuotes(self.where, self.names, self.separator, options)

    def _names(self) -> list[str]:
        """Return the cells of the header line, the first line that is not blank."""
        cells: list[str] | None = []
        while cells == []:
            self.lines.start = self.lines.at
            try:
                cells = next(self._reader(), None)
            except csv.Error as error:
                raise DataError(
                    f"{self.where}:{self.lines.number}: the header line cannot be read: "
                    f"{self._reason(str(error))}."
                ) from error
        if cells is None:
            raise DataError(f"{self.where}: cannot be read as CSV: it holds no rows.")
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
        """Read a block without a last record that continues after it.

        Returns:
            False if the strict parser has to read the block.
        """
        options, quote, width = self.options, self.options.quote_char, len(self.names)
        if options.escape_char or options.skip_initial_space:
            return False
        if quote and width == 1 and quote in block:
            return False
        content = block.encode()
        found = layout(content, self.separator.encode(), quote.encode(), width)
        if found is None:
            return False
        whole, rest = content[: found.size], content[found.size :].decode()
        first = self.lines.number
        if len(found.starts_R):
            table = parse(whole, found, self.separator, quote, width, self.places)
            if table is None:
                return False
            self.bad_rows.num_multiline += found.num_multiline
            if len(found.suspects_R) and not self.quotes.is_off:
                lines = split_lines(whole.decode())
                bounds = [*found.starts_R.tolist(), found.num_lines]
                for record in found.suspects_R.tolist():
                    start, end = bounds[record : record + 2]
                    self.quotes.look(first + start, lines[start:end])
            yield self._placed(table.rename_columns(self.chosen), found.starts_R + first)
        self.lines.put_back(rest + next(self.blocks, "") if rest else "", found.num_lines)
        return True

    def _by_line(self) -> Iterator[pa.Table]:
        """Read the lines in memory, and further ones if the last record needs them."""
        lines, width, reader = self.lines, len(self.names), self._reader()
        rows: list[list[str]] = []
        numbers: list[int] = []
        lines.load()
        while lines.at < len(lines.held):
            lines.start = lines.at
            try:
                cells = next(reader)
            except csv.Error as error:
                self._note(self._reason(str(error)), lines.held[lines.start])
                lines.at = lines.start + 1  # The lines after an open quote are rows.
                continue
            if len(cells) == width:
                if lines.at - lines.start > 1:
                    self.bad_rows.num_multiline += 1
                    self.quotes.look(lines.number, lines.record())
                rows.append([cells[place] for place in self.places])
                numbers.append(lines.number)
            elif cells:
                self._note_width(len(cells))
            if len(rows) == BATCH_ROWS:
                yield self._table(rows, numbers)
                rows, numbers = [], []
        if rows:
            yield self._table(rows, numbers)

    def _table(self, rows: list[list[str]], numbers: list[int]) -> pa.Table:
        columns = [pa.array(column, pa.string()) for column in zip(*rows, strict=True)]
        return self._placed(pa.table(columns, self.chosen), numbers)

    def _placed(self, table: pa.Table, numbers: Any) -> pa.Table:
        """Return the table with its lines, and remember its labels."""
        if self.quotes.label_at in self.places:
            labels = table.column(self.places.index(self.quotes.label_at))
            self.quotes.learn(pc.unique(labels).to_pylist())
        if self.options.column_names and not self.is_begun:
            cells = [str(column[0]).strip().casefold() for column in table.columns]
            if cells == [name.strip().casefold() for name in table.column_names]:
                self.bad_rows.remark(
                    f"{self.where}: the first row is the same as data.column_names, so it may be a "
                    "header line. Remove data.column_names, or set data.skip_lines: 1."
                )
        self.is_begun = True
        return table.append_column(LINE, pa.array(numbers, pa.int64()))

    def _note_width(self, num_cells: int) -> None:
        """Note a record that has another number of cells than the header."""
        record = self.lines.record()
        reason = f"{num_cells} cells, expected {len(self.names)}{self._hints(record)}"
        has_rows = len(self.quotes.like_rows(record[:-1])) > 1
        self._note(reason, record[0] if has_rows else "".join(record))
        if has_rows:
            self.lines.at = self.lines.start + 1  # The lines after an open quote are rows.

    def _note(self, reason: str, content: str) -> None:
        self.bad_rows.note(self.where, "line", self.lines.number, reason, content.rstrip("\r\n"))

    def _reason(self, error: str) -> str:
        """Return why a record cannot be read, and what to do."""
        hints = self._hints(self.lines.record()) or QUOTES_ARE_TEXT
        if "expected after" in error:
            return f"text follows a closing quote{hints}"
        if "unexpected end" in error:
            return f"a quote is opened and never closed{hints}"
        return f"a record is longer than 32 MiB; a quote may be left open{hints}"

    def _hints(self, record: list[str]) -> str:
        """Return the options that may make a record readable."""
        options, quote = self.options, self.options.quote_char
        hints = ""
        if quote and not options.escape_char and any(f"\\{quote}" in line for line in record):
            hints += f'; data.escape_char: "\\\\" reads \\{quote} as a quote'
        spaced = rf"(?:^|{re.escape(self.separator)}) +{re.escape(quote)}"
        has_spaced = quote and any(re.search(spaced, line) for line in record)
        if has_spaced and not options.skip_initial_space:
            hints += "; data.skip_initial_space: true reads a quote after spaces"
        return hints
