"""The reader of each file format: table READERS.

A reader is a function (path, wanted columns, data section, bad rows) that yields tables in the
order of the file. No wanted columns mean all columns. It adds every row that it cannot read to the
bad rows. Readers of text formats and of .xlsx add the column LINE, readers of JSON lists RECORD.
"""

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.column_checks import check_header
from trainer.data.reading.formats.compression import COMPRESSED, ending, open_bytes
from trainer.data.reading.formats.csv_rows import CsvRows
from trainer.data.reading.formats.json_rows import read_json, read_jsonl
from trainer.data.reading.formats.table_files import read_arrow, read_parquet, read_xlsx
from trainer.data.reading.formats.text_encoding import text_blocks, worded_decoding

CSV_BLOCK_BYTES = 1 << 20


def read_csv(
    path: Path, wanted: list[str], options: DataSection, bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read CSV or TSV with all columns as text; an empty cell is an empty text."""
    where = str(path)
    with worded_decoding(where, path, options.encoding), open_bytes(path) as stream:
        blocks = text_blocks(stream.read, where, options.encoding, CSV_BLOCK_BYTES)
        check = partial(check_header, where, wanted, options=options)
        rows = CsvRows(blocks, where, wanted, options, ending(path), bad_rows, check)
        yield from rows.tables()


READERS: dict[str, Callable[[Path, list[str], DataSection, BadRows], Iterator[pa.Table]]] = {
    ".csv": read_csv,
    ".tsv": read_csv,
    ".tab": read_csv,
    ".txt": read_csv,
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".xlsx": read_xlsx,
}
"""Reader of each file ending."""
ENDINGS = (*READERS, *COMPRESSED)
"""Endings of file names."""


def run_name(location: str) -> str:
    """Return a name for a run from that of its rows: letters, digits, dots and dashes."""
    stem = Path(location).name
    for ending_of_name in (*ENDINGS, *ENDINGS):  # two, as in .csv.gz
        stem = stem.removesuffix(ending_of_name)
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-._") or "run"
