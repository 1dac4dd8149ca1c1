"""Read every source into one memory-mapped table of rows, with the columns of SCHEMA."""

import json
import mmap
import shutil
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.arrays import Hashes
from trainer.config.sections.data import DataSection
from trainer.data.cleaning.text_hashes import hash_texts
from trainer.data.labels.label_conversion import LabelFormat
from trainer.data.reading.bad_rows import BadRows, refuse_bad_rows
from trainer.data.reading.column_text import as_text
from trainer.data.reading.row_columns import RowColumns
from trainer.data.reading.row_places import PLACE, Places
from trainer.data.reading.source_tables import (
    SLOTS,
    locations,
    made_from,
    read_ahead,
    source_key,
    source_tables,
)
from trainer.data.reading.split_column import SplitColumn
from trainer.errors import DataError, listing
from trainer.files.locks import partial_path, write_once
from trainer.progress import progress_bar

HASH = pa.field("text_hash", pa.uint64())
"""Stored beside the columns of SCHEMA, so that texts are hashed once."""
SLOT = pa.field("slot", pa.int8())
"""Stored if `data.split_column` says which of SLOTS each row belongs to."""


@dataclass(frozen=True)
class Rows:
    """All rows in reading order; a row's id is its position here, counted from 0 over all files.

    Attributes:
        table: columns of SCHEMA, memory-mapped.
        text_hashes_N: hash of each text (with its pair), equal for equal texts.
        slots_N: index into SLOTS of each row: the config key that it came from.
        label_order: label names in ClassLabel order, if the source has one.
        num_stripped: number of texts that lost white space at their ends.
        bad_rows: rows that could not be read (`data.on_bad_rows: skip`).
        multi_label: a row has any number of labels; its label is then a JSON list of them.
        mapping: the file behind the table.
        places: file and line of each row, except rows that a language model wrote.
        num_multiline: number of CSV rows that span several lines.
        remarks: sentences on how files and labels were understood, if there was a choice.
        is_split_by_column: `data.split_column` says which of SLOTS a row belongs to.
    """

    table: pa.Table
    text_hashes_N: Hashes
    slots_N: np.ndarray
    label_order: list[str] | None
    num_stripped: int
    bad_rows: BadRows
    multi_label: bool
    mapping: mmap.mmap
    places: Places
    num_multiline: int = 0
    remarks: Sequence[str] = ()
    is_split_by_column: bool = False

    def key(self, slot: str) -> str:
        """Return the config key of one of SLOTS: "data.test", or "data.split_column (test)"."""
        return f"data.split_column ({slot})" if self.is_split_by_column else f"data.{slot}"

    def where(self, row: int) -> str:
        """Return the place of a row in words: "rows.csv:12", or "rows.parquet: record 7"."""
        return self.places.where(row)

    def release(self) -> None:
        """Give memory back to the system; what is needed again is read again from the file."""
        if hasattr(self.mapping, "madvise"):  # not on Windows
            self.mapping.madvise(mmap.MADV_DONTNEED)


def read_rows(
    data: DataSection,
    cache_dir: Path,
    domain_column: str | None = None,
    time_column: str | None = None,
) -> Rows:
    """Return the rows of `source`, or of `train`, `validation` and `test`.

    They are written once as an Arrow file in the cache, and memory-mapped.

    Args:
        domain_column: the column that becomes `domain` (`balance.by`).
        time_column: the column that becomes `time` (`split.by_time`).
    Raises:
        DataError: a location, file, column or row cannot be read.
    """
    target = cache_dir / f"rows-{source_key(data, domain_column, time_column)}.arrow"
    columns = RowColumns(data, domain_column, time_column)
    rows, notes = cached_rows(target, data, lambda path: _write_rows(columns, path))
    refuse_bad_rows(rows.bad_rows, data, f"{len(rows.bad_rows)} bad in all")
    refuse_empty(notes["sizes"], data)
    if notes["label_warning"]:
        warnings.warn(notes["label_warning"], stacklevel=2)
    return rows


def cached_rows(
    target: Path, data: DataSection, write: Callable[[Path], dict[str, Any]]
) -> tuple[Rows, dict[str, Any]]:
    """Return the rows of an Arrow file of the cache, and its notes; write both if needed.

    Args:
        write: writes the Arrow file that it is given, and returns the notes.
    """

    def write_both() -> None:
        folder = partial_path(target)
        folder.mkdir(parents=True)
        partial, partial_notes = folder / "rows.arrow", folder / "notes.json"
        try:
            notes = write(partial)
            notes |= {"bytes": partial.stat().st_size, "made_from": made_from(data)}
            partial_notes.write_text(json.dumps(notes), encoding="utf-8")
            partial.replace(target)
            partial_notes.replace(notes_path)
        finally:
            shutil.rmtree(folder)

    target.parent.mkdir(parents=True, exist_ok=True)
    notes_path = target.with_suffix(".json")  # It is written last: if it exists, so do the rows.
    rows, notes = write_once(notes_path, write_both, lambda: load_rows(target))
    return rows, notes


def refuse_empty(sizes: list[int], data: DataSection) -> None:
    """Raise DataError for a config key whose files hold no rows.

    Args:
        sizes: rows read of each of SLOTS.
    """
    for slot, size in zip(SLOTS, sizes, strict=True):
        if size == 0 and getattr(data, slot) is not None:
            named = listing(locations(data, slot)) or "an empty list"
            raise DataError(f"data.{slot}: {named} holds no rows.")


def load_rows(target: Path) -> tuple[Rows, dict[str, Any]] | None:
    """Return the rows of an Arrow file of the cache, and the notes in the JSON file beside it.

    The notes hold sizes (rows of each of SLOTS, in the order of the file), labels, stripped,
    bad_rows, multi_label, files, multiline, remarks, and bytes (of the Arrow file).

    Returns:
        None if one of the two files is missing or damaged.
    """
    try:
        notes = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        return (
            (_map_rows(target, notes), notes) if target.stat().st_size == notes["bytes"] else None
        )
    except (OSError, ValueError, LookupError, TypeError):  # pa.ArrowInvalid is a ValueError
        return None


def _map_rows(target: Path, notes: dict[str, Any]) -> Rows:
    with target.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    table = pa.ipc.open_stream(pa.py_buffer(mapping)).read_all()
    slots_N = np.repeat(np.arange(len(SLOTS), dtype=np.int8), notes["sizes"])
    is_split_by_column = SLOT.name in table.column_names
    if is_split_by_column:
        slots_N, table = table[SLOT.name].to_numpy(), table.drop_columns(SLOT.name)
    return Rows(
        table.drop_columns([HASH.name, PLACE.name]),
        table[HASH.name].to_numpy(),
        slots_N,
        label_order=notes["labels"],
        num_stripped=notes["stripped"],
        bad_rows=BadRows(notes["bad_rows"]),
        multi_label=bool(notes["multi_label"]),
        mapping=mapping,
        places=Places(table[PLACE.name].to_numpy(), notes["files"]),
        num_multiline=notes["multiline"],
        remarks=notes["remarks"],
        is_split_by_column=is_split_by_column,
    )


def stored_schema(columns: RowColumns) -> pa.Schema:
    """Return the columns of a file of rows."""
    return columns.schema.append(HASH).append(PLACE)


def stored(rows: pa.Table, places: pa.ChunkedArray) -> pa.Table:
    """Return rows as they are stored: with the hashes of their texts, and with their places."""
    return rows.append_column(HASH, pa.array(hash_texts(rows))).append_column(PLACE, places)


def _write_rows(columns: RowColumns, path: Path) -> dict[str, Any]:
    """Write the rows of all sources to an Arrow file, and return the notes."""
    data, bad_rows, sizes = columns.data, BadRows(), dict.fromkeys(SLOTS, 0)
    columns.files = bad_rows.files
    split = SplitColumn(data.split_column, SLOTS) if data.split_column else None
    schema = stored_schema(columns).append(SLOT) if split else stored_schema(columns)
    with (
        pa.OSFile(str(path), "wb") as sink,
        pa.ipc.new_stream(sink, schema) as writer,
        progress_bar(desc="Reading rows", unit=" rows", delay=2) as bar,
    ):
        for name in SLOTS:
            tables = source_tables(name, data, columns.wanted, bad_rows)
            key = f"data.{name}"
            with read_ahead(chain.from_iterable(tables)) as coming:
                for table in coming:
                    rows = stored(columns.rows(table, key), table[PLACE.name])
                    if split:
                        values = as_text(table[split.column], split.column, key)
                        slots_N = split.slots_of(values, table[PLACE.name])
                        rows = rows.append_column(SLOT, pa.array(slots_N, pa.int8()))
                    writer.write_table(rows)
                    sizes[name] += rows.num_rows
                    bar.update(rows.num_rows)
    if split:
        split.refuse_unknown(bad_rows.files)
    form = columns.cells.form(data, bad_rows.files)
    if form.changes:
        _convert_labels(path, form)
    bad_rows.remark(form.sentence)
    return {
        "sizes": list(sizes.values()),
        "stripped": columns.num_stripped,
        "bad_rows": bad_rows,
        "multi_label": form.is_multi_label,
        "labels": form.names,
        "label_warning": form.warning,
        "files": bad_rows.files,
        "remarks": bad_rows.remarks,
        "multiline": bad_rows.num_multiline,
    }


def _convert_labels(path: Path, form: LabelFormat) -> None:
    """Give each row of an Arrow stream the JSON list of its labels.

    This needs a second pass, since all cells decide what a cell means.
    """
    converted = path.with_suffix(".converted")
    with (
        pa.memory_map(str(path)) as mapped,
        pa.ipc.open_stream(mapped) as reader,
        pa.OSFile(str(converted), "wb") as sink,
        pa.ipc.new_stream(sink, reader.schema) as writer,
    ):
        at = reader.schema.get_field_index("label")
        for batch in reader:
            labels = form.converted(batch.column(at))
            writer.write_batch(batch.set_column(at, reader.schema.field(at), labels))
    converted.replace(path)


def check_source(
    data: DataSection, domain_column: str | None = None, time_column: str | None = None
) -> bool:
    """Read the first rows of each file, for `--check`.

    Returns:
        Whether these rows have any number of labels.
    Raises:
        DataError: a location or a column is missing, there are no rows, or bad ones.
    """
    bad_rows, sizes = BadRows(), dict.fromkeys(SLOTS, 0)
    columns = RowColumns(data, domain_column, time_column, bad_rows.files)
    for name in SLOTS:
        for tables in source_tables(name, data, columns.wanted, bad_rows):
            for table in islice(tables, 1):
                sizes[name] += columns.rows(table.slice(0, 100), f"data.{name}").num_rows
    refuse_bad_rows(bad_rows, data, f"{len(bad_rows)} bad in the rows that the check reads")
    refuse_empty(list(sizes.values()), data)
    is_multi_label = columns.cells.form(data, bad_rows.files).is_multi_label
    return is_multi_label or data.labels_per_row == "long"
