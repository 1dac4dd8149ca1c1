"""Read Parquet, Arrow and Excel files as Arrow tables of the wanted columns."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.config.sections.data import DataSection
from trainer.data.labels.list_parsing import item_text
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.column_checks import check_columns
from trainer.data.reading.formats.compression import is_compressed
from trainer.data.reading.row_places import BATCH_ROWS, LINE
from trainer.errors import DataError, did_you_mean, first_line, listing
from trainer.extras import require

PARQUET_BUFFER_BYTES = 1 << 20
"""Bytes that are read at once of each column. With `pre_buffer`, pyarrow's default, iter_batches
keeps all that it has read, in the end the whole file."""


def refuse_compressed(path: Path) -> None:
    """Raise DataError for a compressed file of a format that cannot be read in one pass."""
    if is_compressed(path):
        raise DataError(
            f"{path}: of compressed files only text formats can be read: CSV, TSV, JSONL, JSON. "
            "Decompress it."
        )


def read_parquet(
    path: Path, wanted: list[str], options: DataSection, bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read Parquet, row group by row group."""
    refuse_compressed(path)
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES)
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataError(f"{path}: is not a Parquet file: {str(error).rstrip('.')}.") from error
    check_columns(str(path), wanted, file.schema_arrow.names, options)
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted or None):
        yield pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)


def read_arrow(
    path: Path, wanted: list[str], options: DataSection, bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read an Arrow IPC file or stream, memory-mapped."""
    refuse_compressed(path)
    source = pa.memory_map(str(path))
    try:
        try:
            table = pa.ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            table = pa.ipc.open_stream(source).read_all()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: is not an Arrow file: {error}.") from error
    check_columns(str(path), wanted, table.column_names, options)
    yield table.select(wanted or table.column_names)


def read_xlsx(
    path: Path, wanted: list[str], options: DataSection, bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read one sheet of an Excel file, with each value as the text that the sheet shows.

    LINE is the row of the sheet. openpyxl reads row by row. pandas, which uses it too, would hold
    the whole sheet in memory and read texts such as 'NA' as missing.
    """
    refuse_compressed(path)
    require("xlsx", f"{path}: reading .xlsx")
    from openpyxl import load_workbook

    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl has no error class of its own.
        raise DataError(
            f"{path}: is not an .xlsx file: {first_line(error)} Save it again as .xlsx, or as CSV."
        ) from error
    try:
        yield from _sheet_tables(book, path, wanted, options, bad_rows)
    finally:
        book.close()


def _sheet_tables(
    book: Any, path: Path, wanted: list[str], options: DataSection, bad_rows: BadRows
) -> Iterator[pa.Table]:
    name = options.sheet or book.sheetnames[0]
    if name not in book.sheetnames:
        raise DataError(
            f"{path}: no sheet '{name}'; found: {listing(book.sheetnames)}."
            f"{did_you_mean(name, book.sheetnames)} Set data.sheet."
        )
    if len(book.sheetnames) > 1 and not options.sheet:
        bad_rows.remark(
            f"{path}: sheet '{name}' of {len(book.sheetnames)} is read; data.sheet chooses another."
        )
    rows = enumerate(book[name].iter_rows(values_only=True), start=1)
    filled = ((number, cells) for number, cells in rows if any(cell is not None for cell in cells))
    names = options.column_names or [cell_text(cell) or "" for cell in next(filled, (0, []))[1]]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"{path}: sheet '{name}' is empty. Give one with a header line and rows.")
    check_columns(str(path), wanted, names, options)
    places = [names.index(column) for column in wanted] or list(range(len(names)))
    while batch := list(islice(filled, BATCH_ROWS)):
        columns = [
            pa.array(
                [cell_text(cells[at]) if at < len(cells) else None for _, cells in batch],
                pa.string(),
            )
            for at in places
        ]
        table = pa.table(columns, [names[at] for at in places])
        yield table.append_column(LINE, pa.array([number for number, _ in batch], pa.int64()))


def cell_text(value: Any) -> str | None:
    """Return a cell's value as labels are spelled, dates in ISO 8601, None for an empty cell.

    Example:
        >>> cell_text(1.0), cell_text(True), cell_text("NA")
        ('1', 'true', 'NA')
    """
    return value.isoformat() if hasattr(value, "isoformat") else item_text(value)
