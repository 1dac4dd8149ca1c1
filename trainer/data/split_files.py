"""Splits as files for other tools."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from trainer.arrays import Ints
from trainer.data.labels.list_parsing import item_text
from trainer.data.prepare import PreparedData
from trainer.data.reading.column_text import as_text
from trainer.data.reading.own_columns import as_texts, free_name, json_value, own_columns
from trainer.data.reading.row_access import take_rows
from trainer.errors import ConfigError, DataError, brief, listing
from trainer.files.locks import only_writer

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

FORMATS = ("jsonl", "parquet", "csv")
NAMES = ("train", "validation", "test", "train_balanced")


def check_format(file_format: str) -> None:
    """Raises ConfigError for a format we do not write."""
    if file_format not in FORMATS:
        raise ConfigError(f"--format is '{file_format}'; known: {listing(FORMATS)}.")


def refuse_existing(folder: Path, file_format: str) -> None:
    """Raises DataError for a file that `export_splits` might write and that is there already."""
    for name in NAMES:
        path = folder / f"{name}.{file_format}"
        if path.exists():
            raise DataError(f"{path}: exists already. Remove it, or give another --output.")


def export_splits(
    data: PreparedData,
    section: "DataSection",
    folder: Path,
    file_format: str,
    say: Callable[[str], None] = print,
) -> Iterator[tuple[Path, int]]:
    """Write train, validation, test and train_balanced with the columns of the user's files, and the id of each row.

    The label column holds the names of the classes: where labels were merged, mapped or trimmed, in place of the user's values.
    Rows that a language model wrote have a text and a label alone. With `data.streaming` the columns are text, label and what
    else the config names, since the files are not read a third time.

    Args:
        section: how the rows were read.
        say: gets sentences about what differs from the user's files.
    Yields:
        (file, number of rows).
    Raises:
        DataError: a file that is there already, or data that changed meanwhile.
    """
    named = dict(data.splits.named)
    named["train_balanced"] = data.splits.train[data.plan.positions()]
    targets = {name: folder / f"{name}.{file_format}" for name in named}
    with (
        only_writer(folder / "splits"),
        TemporaryDirectory(dir=folder, prefix=".equipoise-") as work,
    ):
        refuse_existing(folder, file_format)
        rows = (
            _used_columns(data)
            if section.streaming
            else _own_rows(data, named, section, Path(work), say)
        )
        for name, ids in named.items():
            partial = Path(work) / targets[name].name
            _write(rows(ids), partial, file_format)
            partial.replace(targets[name])
            yield targets[name], len(ids)


def _own_rows(
    data: PreparedData,
    named: dict[str, Ints],
    section: "DataSection",
    work: Path,
    say: Callable[[str], None],
) -> Callable[[Ints], pa.Table]:
    """Function from row ids to rows with all columns of their files."""
    num_read = len(data.clean.rows.places.codes_N)  # synthetic rows stand behind
    ids_U = np.unique(np.concatenate(list(named.values())))
    read_U = ids_U[ids_U < num_read]
    table = own_columns(data.clean, read_U, section, work)
    table = _with_class_names(table, data, read_U, section, say)
    if len(read_U) < len(ids_U):
        table = _with_synthetic_rows(table, data, ids_U[len(read_U) :], section)
    names = table.column_names
    added = {
        name: free_name(name, names)
        for name in ("row", *(("synthetic",) if data.synthetic else ()))
    }
    for name, free in added.items():
        if free != name:
            say(f"The data have a column '{name}' of their own, so ours is called '{free}'.")
    table = table.add_column(0, added["row"], pa.array(ids_U))
    if data.synthetic:
        table = table.append_column(
            added["synthetic"], pa.array(np.isin(ids_U, data.splits.synthetic))
        )
    return lambda ids: take_rows(table, np.searchsorted(ids_U, ids))


def _with_class_names(
    table: pa.Table,
    data: PreparedData,
    ids_M: Ints,
    section: "DataSection",
    say: Callable[[str], None],
) -> pa.Table:
    """The table with the names of the classes in the label column, where the user's values differ from them."""
    if section.label_columns:
        return table
    column, names = section.label_column, data.clean.labels.names
    if data.clean.label_matrix_NC is None:
        found = pa.chunked_array(as_text(table[column], column, "data")).combine_chunks()
        labels = pa.array(names, pa.string()).take(pa.array(data.clean.label_ids_N[ids_M]))
        differing = len(labels) - (pc.sum(pc.equal(found, labels)).as_py() or 0)
    else:
        lists = [
            [names[c] for c in np.flatnonzero(row_C)] for row_C in data.clean.label_matrix_NC[ids_M]
        ]
        labels = pa.array(lists, pa.list_(pa.string()))
        found_lists = [
            _spellings(value, section.label_separator) for value in table[column].to_pylist()
        ]
        differing = sum(
            sorted(known) != found for known, found in zip(lists, found_lists, strict=True)
        )
    if not differing:
        return table
    say(
        f"Column '{brief(column)}' holds the names of the classes; {differing:,} of {len(labels):,} rows had another spelling."
    )
    return table.set_column(table.column_names.index(column), column, labels)


def _spellings(value: Any, separator: str | None) -> list[Any] | None:
    """The labels of a row that are written as a list, or with the separator between them, in order; None for other values."""
    if isinstance(value, str) and separator:
        value = [part.strip() for part in value.split(separator) if part.strip()]
    return sorted(str(item_text(label)) for label in value) if isinstance(value, list) else None


def _with_synthetic_rows(
    table: pa.Table, data: PreparedData, ids_M: Ints, section: "DataSection"
) -> pa.Table:
    """The table and behind it rows that a language model wrote: nulls beside the text and the label."""
    rows = take_rows(data.clean.rows.table.select(["text", "label"]), ids_M)
    text = section.text_column if isinstance(section.text_column, str) else section.text_column[0]
    given = {text: rows["text"], section.label_column: rows["label"]}
    for name, values in given.items():
        try:
            given[name] = values.cast(table.schema.field(name).type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # texts in a column of numbers
            table = table.set_column(table.column_names.index(name), name, as_texts(table[name]))
    columns = [given.get(field.name, pa.nulls(len(ids_M), field.type)) for field in table.schema]
    return pa.concat_tables([table, pa.table(columns, schema=table.schema)])


def _used_columns(data: PreparedData) -> Callable[[Ints], pa.Table]:
    """Function from row ids to the columns that were read: row, text, label and what else the config names."""

    def rows(ids: Ints) -> pa.Table:
        table = take_rows(data.clean.rows.table, ids)
        used = [name for name in table.column_names if table[name].null_count < table.num_rows]
        return table.select(used).add_column(0, "row", pa.array(ids))

    return rows


def _write(table: pa.Table, path: Path, file_format: str) -> None:
    if file_format == "parquet":
        pq.write_table(table, path)
    elif file_format == "csv":  # which has no lists and no bytes: such a cell is JSON
        for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
            if (
                pa.types.is_nested(column.type)
                or pa.types.is_binary(column.type)
                or pa.types.is_duration(column.type)
            ):
                table = table.set_column(place, name, as_texts(column))
        pacsv.write_csv(table, path)
    else:
        with path.open("w", encoding="utf-8") as file:
            for batch in _finite(table).to_batches(max_chunksize=20_000):
                file.writelines(
                    json.dumps(record, ensure_ascii=False, default=json_value) + "\n"
                    for record in batch.to_pylist()
                )


def _finite(table: pa.Table) -> pa.Table:
    """The table with null for numbers that JSON does not have."""
    for place, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if pa.types.is_floating(column.type):
            table = table.set_column(place, name, pc.if_else(pc.is_finite(column), column, None))
    return table
