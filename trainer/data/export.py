"""Splits as files for other tools."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainer.data.prepare import PreparedData
from trainer.data.row_access import take_rows
from trainer.errors import ConfigError, DataError, listing

FORMATS = ("jsonl", "parquet", "csv")


def check_format(file_format: str) -> None:
    """Raises ConfigError for a format we do not write."""
    if file_format not in FORMATS:
        raise ConfigError(f"--format is '{file_format}'; known: {listing(FORMATS)}.")


def export_splits(data: PreparedData, folder: Path, file_format: str) -> Iterator[tuple[Path, int]]:
    """Write train, validation, test and train_balanced with the columns row, text, label and what else the source has; multi-label rows have a list of labels.

    Yields:
        (file, number of rows).
    Raises:
        DataError: a file that is there already.
    """
    named = dict(data.splits.named)
    named["train_balanced"] = data.splits.train[data.plan.positions()]
    targets = {name: folder / f"{name}.{file_format}" for name in named}
    for path in targets.values():
        if path.exists():
            raise DataError(f"{path}: exists already. Remove it, or give another --output.")
    folder.mkdir(parents=True, exist_ok=True)
    for name, ids in named.items():
        partial = targets[name].with_name(f".{targets[name].name}.partial")
        _write(_rows(data, ids, file_format), partial, file_format)
        partial.replace(targets[name])
        yield targets[name], len(ids)


def _rows(data: PreparedData, ids: NDArray[np.int64], file_format: str) -> pa.Table:
    table = take_rows(data.clean.rows.table, ids)
    used = [name for name in table.column_names if table[name].null_count < table.num_rows]
    table = table.select(used).add_column(0, "row", pa.array(ids))
    if data.is_multi_label and file_format != "csv":  # CSV has no lists: there a cell is the list as JSON
        lists = pa.array([json.loads(text) for text in table["label"].to_pylist()], pa.list_(pa.string()))
        table = table.set_column(table.column_names.index("label"), "label", lists)
    if data.synthetic:
        table = table.append_column("synthetic", pa.array(np.isin(ids, data.splits.synthetic)))
    return table


def _write(table: pa.Table, path: Path, file_format: str) -> None:
    if file_format == "parquet":
        pq.write_table(table, path)
    elif file_format == "csv":
        pacsv.write_csv(table, path)
    else:
        with path.open("w", encoding="utf-8") as file:
            for batch in table.to_batches(max_chunksize=20_000):
                file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in batch.to_pylist())
