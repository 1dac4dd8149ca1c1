"""Find out how a file is read: encoding, separator, quotes and header. Files are not changed."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.column_checks import JSON_START
from trainer.data.reading.formats.compression import ending, open_bytes
from trainer.data.reading.formats.csv_rows import SEPARATORS, CsvRows
from trainer.data.reading.formats.readers import READERS, read_csv
from trainer.data.reading.formats.table_files import read_xlsx
from trainer.data.reading.formats.text_encoding import (
    find_encoding,
    text_blocks,
    worded_decoding,
)
from trainer.data.reading.row_places import LINE
from trainer.errors import DataError, counted, listing
from trainer.starting.recognition.header import column_names, has_header, is_of_orange

SAMPLE_BYTES = 1 << 22
"""Bytes of a file from which separator, quotes and header are found."""
MOST_BAD = 0.02
"""Largest share of rows that cannot be read, if the file is to be used."""
MOST_TITLE_LINES = 3
TRIED_SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
QUOTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"escape_char": "\\"},
    {"skip_initial_space": True},
    {"quote_char": ""},
)
"""How quotes may be written, the usual way first."""
REASONS = {
    "escape_char": 'quotes inside quoted cells are written as \\"',
    "skip_initial_space": "spaces follow the separator",
    "quote_char": "quotes are part of the text: some are never closed",
    "skip_lines_after_header": "Orange writes two lines below the header",
}
FASTTEXT = "__label__"
MARKUP = re.compile(r"<(!doctype|html|\?xml)", re.IGNORECASE)


@dataclass(frozen=True)
class FileForm:
    """How a file is read.

    Attributes:
        options: keys of the section `data` that say so, where they differ from the defaults.
        reasons: {key: why it is set}.
    """

    options: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """The sample of a CSV file, read with some options."""

    options: dict[str, Any]
    names: list[str]
    rows: pa.Table
    num_bad: int
    fault: str

    @property
    def bad_share(self) -> float:
        """Rows that cannot be read, as a share of all."""
        return self.num_bad / max(1, self.num_bad + self.rows.num_rows)

    @property
    def way(self) -> dict[str, Any]:
        """The options without the separator."""
        return {key: value for key, value in self.options.items() if key != "separator"}

    @cached_property
    def has_spaces(self) -> bool:
        """Whether cells begin with a space: the separator is punctuation, or spaces follow it."""
        starts = [pc.starts_with(column, " ").cast(pa.int8()) for column in self.rows.columns[1:]]
        has_most = any((pc.mean(start).as_py() or 0) > 0.5 for start in starts)
        return has_most or any(name.startswith(" ") for name in self.names)

    @property
    def is_clean(self) -> bool:
        """Whether no row is bad, and no cell begins with a space."""
        return self.num_bad == 0 and not self.has_spaces

    @property
    def rank(self) -> tuple[float, bool, int]:
        """The smaller, the better."""
        return self.bad_share, self.has_spaces, -len(self.names)


def find_form(path: Path) -> FileForm:
    """Return how a file is read.

    Raises:
        DataError: the file is empty, is no text, or is in no form that was tried.
    """
    reader = READERS.get(ending(path))
    if reader is read_csv:
        return _csv_form(path)
    if reader is read_xlsx:
        return _sheet_form(path)
    if ending(path) in (".json", ".jsonl", ".ndjson"):
        return _encoded(find_encoding(path))
    return FileForm()


def _encoded(encoding: str) -> FileForm:
    if encoding == "utf-8":
        return FileForm()
    return FileForm({"encoding": encoding}, {"encoding": "the file is not UTF-8"})


def _csv_form(path: Path) -> FileForm:
    where, form, encoding = str(path), ending(path), find_encoding(path)
    sample = _sample(path, encoding)
    _refuse_other_texts(sample, path, encoding)
    trial = _best(_trials(sample, where, form), where)
    found = _encoded(encoding)
    options, reasons = dict(found.options), dict(found.reasons)
    options |= trial.options
    reasons |= {key: REASONS[key] for key in trial.options if key in REASONS}
    if (separator := options.get("separator")) == SEPARATORS.get(form, ","):
        del options["separator"]
    elif separator:
        reasons["separator"] = f"{TRIED_SEPARATORS[separator]}s separate the cells"
    if skipped := options.get("skip_lines"):
        reasons["skip_lines"] = f"the header comes after {counted(skipped, 'line')}"
    if is_of_orange(trial.rows.slice(0, 2)):
        options["skip_lines_after_header"] = 2
        reasons["skip_lines_after_header"] = REASONS["skip_lines_after_header"]
    elif not has_header(trial.names, trial.rows):
        options["column_names"] = column_names(trial.names, trial.rows)
        reasons["column_names"] = "the file has no header line"
    return FileForm(options, reasons)


def _refuse_other_texts(sample: str, path: Path, encoding: str) -> None:
    """Raise DataError for a sample that is no table: binary, JSON, HTML or fastText."""
    start = sample[:100_000].lstrip()
    if "\0" in start:
        tried = {"utf-8": None, "utf-16": None, encoding: None}
        raise DataError(
            f"{path}: is not text: it holds zero bytes. Tried: {listing(tried)}."
            " Give a file of rows, such as CSV, TSV, JSON, Parquet or .xlsx."
        )
    if JSON_START.match(start):
        raise DataError(
            f"{path}: holds JSON, not CSV. Rename the file, so that its name ends in .jsonl if each"
            " line is an object, or else in .json."
        )
    if MARKUP.match(start):
        raise DataError(
            f"{path}: holds HTML or XML, not rows. Export the table as CSV, and give that file."
        )
    if start.startswith(FASTTEXT):
        raise DataError(
            f"{path}: is in fastText's format. Make it a TSV file, then give that file: sed -E"
            f" 's/^{FASTTEXT}([^ ]+) +/\\1\\t/' {path.name} > {path.stem}.tsv"
        )


def _sample(path: Path, encoding: str) -> str:
    """Return the first lines of a file."""
    with worded_decoding(str(path), path, encoding), open_bytes(path) as stream:
        blocks = text_blocks(stream.read, str(path), encoding, SAMPLE_BYTES)
        first = next(blocks, "")
    if not first.strip():
        raise DataError(f"{path}: is empty. Give a file with a header line and rows.")
    return first


def _trials(sample: str, where: str, form: str) -> Iterator[Trial]:
    """Yield the sample read in each way that gives two or more columns, the usual ways first."""
    usual = SEPARATORS.get(form, ",")
    separators = sorted(TRIED_SEPARATORS, key=lambda separator: separator != usual)
    titles = ({"skip_lines": skipped} for skipped in range(1, MOST_TITLE_LINES + 1))
    for way in (*QUOTINGS, *titles):
        for separator in separators:
            trial = _trial(sample, where, form, way | {"separator": separator})
            if trial is None or len(trial.names) < 2 or not trial.num_bad + len(trial.rows):
                continue
            if "skip_lines" not in way or has_header(trial.names, trial.rows):
                yield trial


def _best(trials: Iterator[Trial], where: str) -> Trial:
    """Return the first trial that is clean, or the one with the fewest bad rows.

    Of equally good ones, the one with most columns is returned.
    """
    best: Trial | None = None
    for trial in trials:
        if best and best.is_clean and trial.way != best.way:
            break
        if best is None or trial.rank < best.rank:
            best = trial
    tried = f"Tried the separators {', '.join(TRIED_SEPARATORS.values())}, with and without quotes"
    if best is None:
        raise DataError(
            f"{where}: has one column, or no rows below its header; needed: rows with a text and a"
            f" label. {tried}. Add the labels as a second column, or give another file."
        )
    if best.bad_share > MOST_BAD:
        raise DataError(
            f"{where}: {best.num_bad:,} of {best.num_bad + best.rows.num_rows:,} rows have another"
            f" number of cells than the header, at best. {tried}. The first: {best.fault}."
        )
    return best


def _trial(sample: str, where: str, form: str, options: dict[str, Any]) -> Trial | None:
    """Return the sample read with these options; None if the parser refuses it as a whole."""
    bad, names = BadRows(most=1), list[str]()
    section = DataSection(source=where, **options)
    rows = CsvRows(iter([sample]), where, [], section, form, bad, names.extend)
    try:
        tables = [table.drop_columns([LINE]) for table in rows.tables()]
    except DataError:
        return None
    unique = [f"{number}" for number in range(len(names))]
    empty = pa.table([pa.array([], pa.string())] * len(names), unique)
    whole = pa.concat_tables([empty, *(table.rename_columns(unique) for table in tables)])
    fault = f"line {bad[0]['line']}: {bad[0]['reason']}" if bad else ""
    return Trial(options, names, whole, bad.total, fault)


def _sheet_form(path: Path) -> FileForm:
    """Return how an .xlsx file is read: whether its first row is a header."""
    bad, section = BadRows(most=1), DataSection(source=str(path))
    tables = list(islice(partial(read_xlsx, path, [], section, bad)(), 1))
    if not tables:
        raise DataError(f"{path}: holds no rows below the header. Give a sheet with rows.")
    rows = tables[0].drop_columns([LINE])
    names = rows.column_names
    if has_header(names, rows):
        return FileForm()
    return FileForm(
        {"column_names": column_names(names, rows)},
        {"column_names": "the sheet has no header line"},
    )
