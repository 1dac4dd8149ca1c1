"""Write the splits as files for other tools."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from trainer.arrays import Ints
from trainer.config.sections.data import DataSection
from trainer.data.labels.list_parsing import item_text
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.column_text import as_text
from trainer.data.reading.original_columns import (
    free_name,
    json_texts,
    json_value,
    original_columns,
)
from trainer.data.reading.row_access import take_rows
from trainer.errors import ConfigError, DataError, brief, listing
from trainer.files.locks import only_writer

FORMATS = ("jsonl", "parquet", "csv")
NAMES = ("train", "validation", "test", "train_balanced")


def check_output(folder: Path, file_format: str) -> None:
    """Check that `export_splits` can write to a folder.

    Raises:
        ConfigError: we do not write the format.
        DataError: a file exists already that may be written.
    """
    if file_format not in FORMATS:
        raise ConfigError(f"--format is '{file_format}'; known: {listing(FORMATS)}.")
    for name in NAMES:
        path = folder / f"{name}.{file_format}"
        if path.exists():
            raise DataError(f"{path}: exists already. Remove it, or give another --output.")


def export_splits(
    data: PreparedData,
    section: DataSection,
    folder: Path,
    file_format: str,
) -> Iterator[tuple[Path, int]]:
    """Write train, validation, test and train_balanced with the columns of the user's files.

    The column `row` holds the id of each row. The label column holds the names of the classes, also
    where labels were merged, mapped or trimmed. Rows that a language model wrote have only a text
    and a label. With `data.streaming` only the columns that the config names are written, since the
    files are not read a third time. Differences from the user's files are printed.

    Args:
        section: how the rows were read.
    Yields:
        Each file and its number of rows.
    Raises:
        DataError: a file exists already, or the data changed after they were read.
    """
    named = dict(data.splits.named)
    named["train_balanced"] = data.splits.train[np.sort(data.plan.positions())]
    with (
        only_writer(folder / "splits"),
        TemporaryDirectory(dir=folder, prefix=".equipoise-") as work,
    ):
        check_output(folder, file_format)
        rows = (
            _config_columns(data)
            if section.streaming
            else _file_columns(data, named, section, Path(work))
        )
        for name, ids in named.items():
            target = folder / f"{name}.{file_format}"
            partial = Path(work) / target.name
            _write(rows(ids), partial, file_format)
            partial.replace(target)
            yield target, len(ids)


def _file_columns(
    data: PreparedData,
    named: dict[str, Ints],
    section: DataSection,
    work: Path,
) -> Callable[[Ints], pa.Table]:
    """Return a function from row ids to rows with all columns of their files."""
    num_read = len(data.clean.rows.places.codes_N)  # Synthetic rows follow them.
    ids_U = np.unique(np.concatenate(list(named.values())))
    read_U = ids_U[ids_U < num_read]
    table = original_columns(data.clean, read_U, section, work)
    table = _with_class_names(table, data, read_U, section)
    if len(read_U) < len(ids_U):
        table = _with_synthetic_rows(table, data, ids_U[len(read_U) :], section)
    added = {"row": pa.array(ids_U)}
    if data.synthetic:
        added["synthetic"] = pa.array(np.isin(ids_U, data.splits.synthetic))
    names = table.column_names
    for name, column in added.items():
        free = free_name(name, names)
        if free != name:
            print(f"The data already have a column '{name}', so ours is called '{free}'.")
        table = table.add_column(0 if name == "row" else table.num_columns, free, column)
    return lambda ids: take_rows(table, np.searchsorted(ids_U, ids))


def _with_class_names(
    table: pa.Table,
    data: PreparedData,
    ids_M: Ints,
    section: DataSection,
) -> pa.Table:
    """Return the table with class names in the label column, if they differ from its values."""
    if section.label_columns:
        return table
    column, names = section.label_column, data.clean.labels.names
    if data.clean.label_matrix_NC is None:
        found = pa.chunked_array(as_text(table[column], column, "data")).combine_chunks()
        labels = pa.array(names, pa.string()).take(pa.array(data.clean.label_ids_N[ids_M]))
        differing = len(labels) - (pc.sum(pc.equal(found, labels)).as_py() or 0)
    else:
        rows = data.clean.label_matrix_NC[ids_M]
        lists = [[names[c] for c in np.flatnonzero(row_C)] for row_C in rows]
        labels = pa.array(lists, pa.list_(pa.string()))
        values = table[column].to_pylist()
        differing = sum(
            sorted(known) != _spellings(value, section.label_separator)
            for known, value in zip(lists, values, strict=True)
        )
    if not differing:
        return table
    print(
        f"Column '{brief(column)}' holds the names of the classes; {differing:,} of "
        f"{len(labels):,} rows had another spelling."
    )
    return table.set_column(table.column_names.index(column), column, labels)


def _spellings(value: Any, separator: str | None) -> list[Any] | None:
    """Return the sorted labels of a list, or of a text with separators; None for other values."""
    if isinstance(value, str) and separator:
        value = [part.strip() for part in value.split(separator) if part.strip()]
    return sorted(str(item_text(label)) for label in value) if isinstance(value, list) else None


def _with_synthetic_rows(
    table: pa.Table, data: PreparedData, ids_M: Ints, section: DataSection
) -> pa.Table:
    """Append the rows that a language model wrote, with nulls beside the text and the label."""
    rows = take_rows(data.clean.rows.table.select(["text", "label"]), ids_M)
    given = {section.text_columns[0]: rows["text"], section.label_column: rows["label"]}
    for name, values in given.items():
        try:
            given[name] = values.cast(table.schema.field(name).type)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):  # The column holds numbers.
            table = table.set_column(table.column_names.index(name), name, json_texts(table[name]))
    columns = [given.get(field.name, pa.nulls(len(ids_M), field.type)) for field in table.schema]
    return pa.concat_tables([table, pa.table(columns, schema=table.schema)])


def _config_columns(data: PreparedData) -> Callable[[Ints], pa.Table]:
    """Return a function from row ids to rows with only the columns that the config names."""

    def rows(ids: Ints) -> pa.Table:
        table = take_rows(data.clean.rows.table, ids)
        used = [name for name in table.column_names if table[name].null_count < table.num_rows]
        return table.select(used).add_column(0, "row", pa.array(ids))

    return rows


def _write(table: pa.Table, path: Path, file_format: str) -> None:
    if file_format == "parquet":
        pq.write_table(table, path)
    elif file_format == "csv":
        pacsv.write_csv(_converted(table, _lacks_csv_type, json_texts), path)
    else:
        table = _converted(table, pa.types.is_floating, _finite)
        with path.open("w", encoding="utf-8") as file:
            for batch in table.to_batches(max_chunksize=20_000):
                file.writelines(
                    json.dumps(record, ensure_ascii=False, default=json_value) + "\n"
                    for record in batch.to_pylist()
                )


def _converted(
    table: pa.Table,
    is_wanted: Callable[[pa.DataType], bool],
    convert: Callable[[pa.ChunkedArray], pa.ChunkedArray],
) -> pa.Table:
    """Return the table with the columns of the wanted types converted."""
    columns = [convert(column) if is_wanted(column.type) else column for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _lacks_csv_type(kind: pa.DataType) -> bool:
    """Whether CSV cannot hold values of a type, so that they are written as JSON texts."""
    types = pa.types
    return types.is_nested(kind) or types.is_binary(kind) or types.is_duration(kind)


def _finite(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the column with null for infinite numbers and NaN, which JSON does not have."""
    return pc.if_else(pc.is_finite(column), column, None)
