"""Every source becomes one memory-mapped table of rows with the columns text, text_pair, label, group, domain and weight."""

import hashlib
import json
import mmap
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from trainer.arrays import Hashes
from trainer.data.cleaning.text_hashes import hash_texts
from trainer.data.labels.label_column import LabelColumn
from trainer.data.labels.label_conversion import LabelFormat
from trainer.data.reading.bad_rows import BadRows, refuse_bad_rows
from trainer.data.reading.column_text import as_text
from trainer.data.reading.dataset_sources import (
    dataset_tables,
    hub_commit,
    hub_identity,
    load_hub,
    load_saved,
)
from trainer.data.reading.formats.packed import ending, to_the_end
from trainer.data.reading.formats.readers import ENDINGS, READERS
from trainer.data.reading.locate import locate
from trainer.data.reading.places import PLACE, Places, with_places
from trainer.data.reading.row_columns import new_notes, normalise, schema_of
from trainer.data.reading.split_column import GivenSplits
from trainer.errors import DataError, listing
from trainer.files.content import file_identity
from trainer.files.locks import partial_path, write_once

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

T = TypeVar("T")
SLOTS = ("source", "train", "validation", "test")
CACHE_FORMAT = 10
"""Raise it when the same files are read to other rows, so that older caches are passed over."""
HASH = pa.field("text_hash", pa.uint64())
"""Kept in the file beside the columns of SCHEMA, so that texts are hashed once."""
SLOT = pa.field("slot", pa.int8())
"""Kept in the file where `data.split_column` says for each row which of SLOTS it belongs to."""


@dataclass(frozen=True)
class Rows:
    """All rows in reading order; a row's id is its position here, counted from 0 over all files.

    Attributes:
        table: columns of SCHEMA, memory-mapped.
        text_hashes_N: hash of each text (with its pair), equal for equal texts.
        slots_N: index into SLOTS of each row: which config key it came from.
        label_order: label names in ClassLabel order where the source has one.
        num_stripped: texts that lost white space at their ends.
        bad_rows: rows that could not be read (`data.on_bad_rows: skip`).
        multi_label: the source holds any number of labels a row; each cell of the label column is then a JSON list of them.
        mapping: the file behind the table.
        places: file and line of each row, but for those that a language model wrote.
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
    """CSV rows that span several lines."""
    remarks: Sequence[str] = ()
    """How files and labels were understood, where that was no matter of course; one sentence each."""
    is_split_by_column: bool = False
    """`data.split_column` says which of SLOTS a row belongs to."""

    def key(self, slot: str) -> str:
        """Return the config key that the rows of one of SLOTS come from: "data.test", or "data.split_column (test)"."""
        return f"data.split_column ({slot})" if self.is_split_by_column else f"data.{slot}"

    def origin(self, row: int) -> tuple[str, int]:
        """Return the file of a row and its first line in it, or its number in formats without lines; both from 1."""
        return self.places.origin(row)

    def where(self, row: int) -> str:
        """Return the origin in words: "rows.csv:12", or "rows.parquet: record 7"."""
        return self.places.where(row)

    def release(self) -> None:
        """Give the memory of what was read of the file back to the system, so that it does not pile up; what is needed again is read again."""
        if hasattr(self.mapping, "madvise"):  # not on Windows
            self.mapping.madvise(mmap.MADV_DONTNEED)


def read_rows(
    data: "DataSection",
    cache_dir: Path,
    domain_column: str | None = None,
    time_column: str | None = None,
) -> Rows:
    """Rows of `source` or of `train`, `validation` and `test`, written once as Arrow and memory-mapped.

    Args:
        domain_column: column that becomes `domain` (`balance.by`).
        time_column: column that becomes `time` (`split.by_time`).
    Raises:
        DataError: a location, file, column or row that cannot be read.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    target = cache_dir / f"rows-{source_key(data, domain_column, time_column)}.arrow"
    notes_path = target.with_suffix(".json")  # it is written last: where it is, the table is whole
    rows, notes = write_once(
        notes_path,
        lambda: _write_rows(data, domain_column, time_column, target, notes_path),
        lambda: load_rows(target),
    )
    bad_rows = BadRows(notes["bad_rows"])
    refuse_bad_rows(bad_rows, data, f"{len(bad_rows)} bad in all")
    refuse_empty(notes["sizes"], data)
    if notes["label_warning"]:
        warnings.warn(notes["label_warning"], stacklevel=2)
    return rows  # type: ignore[no-any-return]


def refuse_empty(sizes: list[int], data: "DataSection") -> None:
    """Raises DataError for a config key whose files hold no rows.

    Args:
        sizes: rows read of each of SLOTS.
    """
    for slot, size in zip(SLOTS, sizes, strict=True):
        if size == 0 and getattr(data, slot) is not None:
            raise DataError(
                f"data.{slot}: {listing(_locations(data, slot)) or 'an empty list'} holds no rows."
            )


def load_rows(target: Path) -> tuple[Rows, dict[str, Any]] | None:
    """Rows of an Arrow file of the cache and the notes beside it; None where one of the two is missing or damaged.

    The notes hold: sizes (rows of each of SLOTS, in the order of the file), labels, stripped, bad_rows, multi_label, files,
    multiline, and bytes (of the Arrow file).
    """
    try:
        notes = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        if target.stat().st_size != notes["bytes"]:
            return None
        return _map_rows(target, notes), notes
    except (OSError, ValueError, LookupError, TypeError):  # pa.ArrowInvalid is a ValueError
        return None


def _map_rows(target: Path, notes: dict[str, Any]) -> Rows:
    with target.open("rb") as file:
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    table = pa.ipc.open_stream(pa.py_buffer(mapping)).read_all()
    slots_N = np.repeat(np.arange(len(SLOTS), dtype=np.int8), notes["sizes"])
    hashes_N, places = (
        table[HASH.name].to_numpy(),
        Places(table[PLACE.name].to_numpy(), notes["files"]),
    )
    table = table.drop_columns([HASH.name, PLACE.name])
    is_split = SLOT.name in table.column_names
    if is_split:
        slots_N, table = table[SLOT.name].to_numpy(), table.drop_columns(SLOT.name)
    facts = (notes["labels"], notes["stripped"], notes["bad_rows"], bool(notes["multi_label"]))
    return Rows(
        table,
        hashes_N,
        slots_N,
        *facts,
        mapping,
        places,
        notes["multiline"],
        notes["remarks"],
        is_split,
    )


def stored_schema(time_column: str | None = None) -> pa.Schema:
    """Return the columns of a file of rows."""
    return schema_of(time_column).append(HASH).append(PLACE)


def stored(rows: pa.Table, places: pa.ChunkedArray) -> pa.Table:
    """Return rows as they are kept in a file: with the hashes of their texts, and their places."""
    return rows.append_column(HASH, pa.array(hash_texts(rows))).append_column(PLACE, places)


def _write_rows(
    data: "DataSection",
    domain_column: str | None,
    time_column: str | None,
    target: Path,
    notes_path: Path,
) -> None:
    bad_rows = BadRows()
    notes: dict[str, Any] = new_notes(bad_rows.files) | {"sizes": [], "bad_rows": bad_rows}
    partial, partial_notes = partial_path(target), partial_path(notes_path)
    given = GivenSplits(data.split_column, SLOTS) if data.split_column else None
    schema = stored_schema(time_column)
    schema = schema.append(SLOT) if given else schema
    try:
        with (
            pa.OSFile(str(partial), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
            _bar() as bar,
        ):
            for name in SLOTS:
                size = 0
                for table in read_ahead(
                    _slot_tables(name, data, domain_column, bad_rows, time_column=time_column)
                ):
                    rows = normalise(table, data, domain_column, notes, f"data.{name}", time_column)
                    hashed = stored(rows, table[PLACE.name])
                    if given:
                        values = as_text(table.column(given.column), given.column, f"data.{name}")
                        hashed = hashed.append_column(
                            SLOT, pa.array(given.slots_of(values, table[PLACE.name]), pa.int8())
                        )
                    writer.write_table(hashed)
                    size += rows.num_rows
                    bar.update(rows.num_rows)
                notes["sizes"].append(size)
        if given:
            given.refuse_unknown(bad_rows.files)
        form = notes.pop("cells").form(data, bad_rows.files)
        if form.changes:
            _convert_labels(partial, form)
        bad_rows.remark(form.sentence)
        notes |= {
            "multi_label": form.is_multi_label,
            "labels": form.names,
            "label_warning": form.warning,
        }
        notes |= {
            "files": bad_rows.files,
            "remarks": bad_rows.remarks,
            "multiline": bad_rows.num_multiline,
        }
        notes |= {"bytes": partial.stat().st_size, "made_from": made_from(data)}
        partial_notes.write_text(json.dumps(notes), encoding="utf-8")
        partial.replace(target)
        partial_notes.replace(notes_path)
    finally:
        partial.unlink(missing_ok=True)
        partial_notes.unlink(missing_ok=True)


def _convert_labels(path: Path, form: LabelFormat) -> None:
    """Give each row of an Arrow stream the JSON list of its labels; what the cells mean is known once all are read."""
    converted = path.with_suffix(".converted.partial")
    try:
        with (
            pa.memory_map(str(path)) as mapped,
            pa.ipc.open_stream(mapped) as reader,
            pa.OSFile(str(converted), "wb") as sink,
        ):
            place = reader.schema.get_field_index("label")
            with pa.ipc.new_stream(sink, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(
                        batch.set_column(
                            place, reader.schema.field(place), form.converted(batch.column(place))
                        )
                    )
        converted.replace(path)
    finally:
        converted.unlink(missing_ok=True)


def read_ahead(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    """The same tables; while one is worked on, another core reads the next."""
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(next, tables, None)
        while (table := coming.result()) is not None:
            coming = reader.submit(next, tables, None)
            yield table


def check_source(
    data: "DataSection", domain_column: str | None = None, time_column: str | None = None
) -> bool:
    """Whether the first rows of each file hold any number of labels a row (`--check`).

    Raises:
        DataError: a location or column is missing.
    """
    bad_rows = BadRows()
    notes = new_notes(bad_rows.files)
    for name in SLOTS:
        for table in _slot_tables(
            name, data, domain_column, bad_rows, first_only=True, time_column=time_column
        ):
            normalise(table.slice(0, 100), data, domain_column, notes, f"data.{name}", time_column)
    cells: LabelColumn = notes["cells"]
    return cells.form(data, bad_rows.files).is_multi_label or data.labels_per_row == "long"


def _bar() -> Any:
    return tqdm(desc="Reading rows", unit=" rows", delay=2, disable=None, leave=False)


def source_key(
    data: "DataSection", domain_column: str | None, time_column: str | None = None
) -> str:
    """Digest of the files' identities and of how they are read."""
    digest = hashlib.blake2b(f"format {CACHE_FORMAT} {domain_column}".encode(), digest_size=16)
    digest.update(
        data.model_dump_json(
            exclude={
                "limit",
                "drop_labels",
                "label_map",
                "clean",
                "streaming_rows",
                "streaming_evaluation_rows",
            }
        ).encode()
    )
    digest.update(b"strip" if data.clean.strip else b"")
    digest.update(f"time {time_column}".encode() if time_column else b"")
    for name in SLOTS:
        for location in _locations(data, name):
            paths = locate(location, f"data.{name}", ENDINGS)
            if paths is None:
                digest.update(hub_identity(location, name, data).encode())
            for path in paths or []:
                for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                    if file.is_file():
                        digest.update(file_identity(file).encode())
    return digest.hexdigest()


def hub_commits(data: "DataSection") -> dict[str, str | None]:
    """{id of a Hub data set: commit that was read, None where it is not known} over all config keys."""
    found = [
        location
        for name in SLOTS
        for location in _locations(data, name)
        if locate(location, f"data.{name}", ENDINGS) is None
    ]
    return {location: hub_commit(location, data) for location in found}


def _locations(data: "DataSection", name: str) -> list[str]:
    value = getattr(data, name)
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def made_from(data: "DataSection") -> str:
    """The locations of all config keys, for the list of the command `cache`."""
    return ", ".join(location for name in SLOTS for location in _locations(data, name))


def _columns(data: "DataSection", domain_column: str | None, time_column: str | None) -> list[str]:
    texts = [data.text_column] if isinstance(data.text_column, str) else list(data.text_column)
    others = (data.group_column, data.weight_column, domain_column, data.split_column, time_column)
    return list(
        dict.fromkeys(
            [*texts, *(data.label_columns or [data.label_column]), *(c for c in others if c)]
        )
    )


def _slot_tables(
    name: str,
    data: "DataSection",
    domain_column: str | None,
    bad_rows: BadRows,
    first_only: bool = False,
    time_column: str | None = None,
) -> Iterator[pa.Table]:
    for tables in shards(name, data, domain_column, bad_rows, time_column):
        yield from _first(tables) if first_only else tables


def shards(
    name: str,
    data: "DataSection",
    domain_column: str | None,
    bad_rows: BadRows,
    time_column: str | None = None,
    *,
    all_columns: bool = False,
) -> Iterator[Iterator[pa.Table]]:
    """The tables of each file, folder or Hub data set of a config key; nothing is read before they are asked for."""
    wanted = [] if all_columns else _columns(data, domain_column, time_column)
    for location in _locations(data, name):
        paths = locate(location, f"data.{name}", ENDINGS)
        if paths is None:
            remedy = "Run the same command again when the Hub can be reached" + (
                ", or set data.streaming: false." if data.streaming else "."
            )
            tables = to_the_end(
                location,
                dataset_tables(load_hub(location, name, data), location, wanted, data),
                remedy,
            )
            yield with_places(tables, location, bad_rows.files)
        for path in paths or []:
            if path.is_dir():
                yield with_places(
                    dataset_tables(load_saved(path, name, data), str(path), wanted, data),
                    str(path),
                    bad_rows.files,
                )
            elif ending(path) in READERS:
                yield with_places(
                    to_the_end(str(path), READERS[ending(path)](path, wanted, data, bad_rows)),
                    str(path),
                    bad_rows.files,
                )
            else:
                raise DataError(f"{path}: endings that can be read: {listing(READERS)}.")


def _first(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    table = next(tables, None)
    return iter([] if table is None else [table])
