"""Parquet, Arrow and Excel files as Arrow tables of the wanted columns; no wanted columns mean all."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.data.labels.list_parsing import item_text
from trainer.data.reading.bad_rows import BATCH_ROWS, LINE, BadRows
from trainer.data.reading.columns import check_columns
from trainer.data.reading.formats.packed import is_packed
from trainer.errors import DataError, did_you_mean, first_line, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

PARQUET_BUFFER_BYTES = 1 << 20
"""Read at once of each column. With `pre_buffer`, pyarrow's default, iter_batches keeps all that it has read: in the end the whole file."""


def refuse_packed(path: Path) -> None:
    """Raises DataError for a packed file of a format that cannot be read from its start to its end."""
    if is_packed(path):
        raise DataError(
            f"{path}: of packed files only text formats are read: CSV, TSV, JSONL, JSON. Unpack it."
        )


def read_parquet(
    path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read Parquet, row group by row group."""
    refuse_packed(path)
    try:
        file = pq.ParquetFile(path, pre_buffer=False, buffer_size=PARQUET_BUFFER_BYTES)
    except (pa.ArrowInvalid, pa.ArrowException) as error:
        raise DataError(f"{path}: is not a Parquet file: {str(error).rstrip('.')}.") from error
    check_columns(str(path), wanted, file.schema_arrow.names, options)
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=wanted or None):
        yield pa.Table.from_batches([batch]).replace_schema_metadata(file.schema_arrow.metadata)


def read_arrow(
    path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read an Arrow IPC file or stream, memory-mapped."""
    refuse_packed(path)
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
    path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows
) -> Iterator[pa.Table]:
    """Read one sheet of an Excel file, every value as text, as the sheet shows whole numbers; LINE holds the row of the sheet.

    openpyxl reads row by row; pandas, which uses it too, would hold the whole sheet and take texts such as 'NA' for missing.
    """
    refuse_packed(path)
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise DataError(
            f"{path}: reading .xlsx needs the package openpyxl. Run: pip install 'openpyxl>=3.1,<4', or save the sheet as CSV."
        ) from error
    try:
        book = load_workbook(path, read_only=True, data_only=True)
    except Exception as error:  # openpyxl names no error of its own: KeyError, BadZipFile, InvalidFileException ...
        raise DataError(
            f"{path}: is not an .xlsx file: {first_line(error)} Save it anew as .xlsx, or as CSV."
        ) from error
    try:
        yield from _sheet_tables(book, path, wanted, options, bad_rows)
    finally:
        book.close()


def _sheet_tables(
    book: Any, path: Path, wanted: list[str], options: "DataSection", bad_rows: BadRows
) -> Iterator[pa.Table]:
    name = options.sheet or book.sheetnames[0]
    if name not in book.sheetnames:
        raise DataError(
            f"{path}: no sheet '{name}'; found: {listing(book.sheetnames)}.{did_you_mean(name, book.sheetnames)} Set data.sheet."
        )
    if len(book.sheetnames) > 1 and not options.sheet:
        bad_rows.remark(
            f"{path}: sheet '{name}' of {len(book.sheetnames)} is read; data.sheet chooses another."
        )
    rows = (
        (number, [cell_text(value) for value in cells])
        for number, cells in enumerate(book[name].iter_rows(values_only=True), start=1)
    )
    filled = ((number, cells) for number, cells in rows if any(cell is not None for cell in cells))
    names = options.column_names or [cell or "" for cell in next(filled, (0, []))[1]]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise DataError(f"{path}: sheet '{name}' is empty. Give one with a header line and rows.")
    check_columns(str(path), wanted, names, options)
    places = [names.index(column) for column in wanted] or list(range(len(names)))
    batch: list[tuple[int, list[str | None]]] = []
    for row in filled:
        batch.append(row)
        if len(batch) == BATCH_ROWS:
            yield _sheet_table(batch, names, places)
            batch = []
    if batch:
        yield _sheet_table(batch, names, places)


def _sheet_table(
    batch: list[tuple[int, list[str | None]]], names: list[str], places: list[int]
) -> pa.Table:
    columns = [
        pa.array([cells[place] if place < len(cells) else None for _, cells in batch], pa.string())
        for place in places
    ]
    table = pa.Table.from_arrays(columns, [names[place] for place in places])
    return table.append_column(LINE, pa.array([number for number, _ in batch], pa.int64()))


def cell_text(value: Any) -> str | None:
    """Return a cell's value as readers spell labels; dates in ISO 8601; None for an empty cell.

    Example:
        >>> cell_text(1.0), cell_text(True), cell_text("NA")
        ('1', 'true', 'NA')
    """
    return value.isoformat() if hasattr(value, "isoformat") else item_text(value)
