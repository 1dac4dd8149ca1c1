"""Read rows a second time, with all columns of their files under their own names and types."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.arrays import Ints
from trainer.config.sections.data import DataSection
from trainer.data.cleaning.clean import CleanRows
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.row_places import PLACE
from trainer.data.reading.source_tables import SLOTS, source_tables
from trainer.errors import DataError


def original_columns(clean: CleanRows, ids_M: Ints, data: DataSection, folder: Path) -> pa.Table:
    """Return all columns of the files for the given rows, in their order, memory-mapped.

    A file that lacks a column gives nulls there. A column whose types differ between files becomes
    text.

    Args:
        ids_M: sorted ids of rows that were read from files.
        folder: where the rows are written first; it must outlive the table.
    Raises:
        DataError: the files changed since they were read.
    """
    codes_M = clean.rows.places.codes_N[ids_M]
    order = np.argsort(codes_M, kind="stable")
    sorted_M, bad_rows = codes_M[order], BadRows()
    pieces = _Pieces(folder)
    for slot in SLOTS:
        for tables in source_tables(slot, data, [], bad_rows):
            for table in filter(len, tables):
                places_N = table[PLACE.name].to_numpy()
                first, last = np.searchsorted(sorted_M, (places_N.min(), places_N.max() + 1))
                chosen_N = np.isin(places_N, sorted_M[first:last])
                pieces.add(table.drop_columns([PLACE.name]).filter(pa.array(chosen_N)))
    table = pieces.table()
    if table.num_rows == len(ids_M):
        table = table if (np.diff(order) == 1).all() else table.take(pa.array(np.argsort(order)))
        if _same_texts(table, clean, ids_M, data):
            return table
    raise DataError(
        "The files changed while their rows were exported. Run the same command again when nothing "
        "writes to them."
    )


class _Pieces:
    """Tables written to files one after the other, with a new file where the columns change."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[Path] = []
        self.writer: Any = None
        self.schema: pa.Schema | None = None

    def add(self, table: pa.Table) -> None:
        """Write a table with decoded dictionaries, and with its repeated column names changed."""
        if not table.num_rows:
            return
        columns = [
            column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
            for column in table.columns
        ]
        names: list[str] = []
        for name in table.column_names:
            names.append(free_name(name, names))
        table = pa.table(columns, names=names)
        if self.schema is None or not table.schema.equals(self.schema):
            self.close()
            self.paths.append(self.folder / f"{len(self.paths)}.arrow")
            self.writer = pa.ipc.new_stream(str(self.paths[-1]), table.schema)
            self.schema = table.schema
        self.writer.write_table(table)

    def close(self) -> None:
        """End the file that is being written."""
        if self.writer:
            self.writer.close()

    def table(self) -> pa.Table:
        """Return all tables as one, memory-mapped where their types agree."""
        self.close()
        tables = [pa.ipc.open_stream(pa.memory_map(str(path))).read_all() for path in self.paths]
        try:
            return pa.concat_tables(tables, promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError):  # One file has numbers, another has texts.
            names = dict.fromkeys(name for table in tables for name in table.column_names)
            clashing = {name for name in names if not _agree(name, tables)}
            texts = [_with_texts(table, clashing) for table in tables]
            return pa.concat_tables(texts, promote_options="permissive")


def free_name(name: str, taken: list[str]) -> str:
    """Return the name, with a number after it if it is taken."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _agree(name: str, tables: list[pa.Table]) -> bool:
    """Whether the types of a column in all tables can become one type."""
    fields = [table.schema.field(name) for table in tables if name in table.column_names]
    try:
        pa.unify_schemas([pa.schema([field]) for field in fields], promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return False
    return True


def _with_texts(table: pa.Table, names: set[str]) -> pa.Table:
    for name in names & set(table.column_names):
        table = table.set_column(table.column_names.index(name), name, json_texts(table[name]))
    return table


def json_texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column as text; lists and objects become JSON."""
    if not pa.types.is_nested(column.type) and not pa.types.is_binary(column.type):
        return pc.cast(column, pa.string())
    texts = [
        None if value is None else json.dumps(value, ensure_ascii=False, default=json_value)
        for value in column.to_pylist()
    ]
    return pa.chunked_array([pa.array(texts, pa.string())])


def json_value(value: Any) -> str:
    """Return a value without a JSON type as text: ISO 8601 for dates, base64 for bytes."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _same_texts(table: pa.Table, clean: CleanRows, ids_M: Ints, data: DataSection) -> bool:
    """Whether the rows still hold the texts that were read; True if the column is not text."""
    name = data.text_columns[0]
    if not pa.types.is_string(table[name].type):
        return True
    texts = pc.utf8_trim_whitespace(table[name]) if data.clean.strip else table[name]
    stored = take_rows(clean.rows.table.select(["text"]), ids_M)["text"]
    same = pc.equal(texts.combine_chunks(), stored.combine_chunks())
    return bool(pc.all(pc.fill_null(same, True), min_count=0).as_py())
