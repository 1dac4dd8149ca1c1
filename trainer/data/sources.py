"""Every source becomes one memory-mapped table of rows with the columns text, text_pair, label, group, domain and weight."""

import hashlib
import json
import mmap
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm.auto import tqdm

from trainer.data.bad_rows import BadRows, cut, refuse_bad_rows
from trainer.data.column_text import as_text
from trainer.data.content import file_identity
from trainer.data.dataset_sources import dataset_tables, hub_commit, hub_identity, load_hub, load_saved
from trainer.data.label_cells import LabelCells, LabelForm
from trainer.data.label_keys import label_key
from trainer.data.locate import locate
from trainer.data.packed import ending, to_the_end
from trainer.data.places import PLACE, Places, with_places
from trainer.data.readers import ENDINGS, READERS
from trainer.data.split_column import GivenSplits
from trainer.data.text_hashes import Hashes, hash_texts
from trainer.errors import DataError, first_line, listing
from trainer.locks import partial_path, write_once

if TYPE_CHECKING:
    from trainer.sections.data import DataSection

T = TypeVar("T")
SLOTS = ("source", "train", "validation", "test")
CACHE_FORMAT = 9
"""Raise it when the same files are read to other rows, so that older caches are passed over."""
SCHEMA = pa.schema([(n, pa.string()) for n in ("text", "text_pair", "label", "group", "domain")] + [("weight", pa.float64())])
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


def read_rows(data: "DataSection", cache_dir: Path, domain_column: str | None = None, time_column: str | None = None) -> Rows:
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
    rows, notes = write_once(notes_path, lambda: _write_rows(data, domain_column, time_column, target, notes_path), lambda: load_rows(target))
    bad_rows = BadRows(notes["bad_rows"])
    refuse_bad_rows(bad_rows, data, f"{len(bad_rows)} bad in all")
    refuse_empty(notes["sizes"], data)
    if notes["label_warning"]:
        warnings.warn(notes["label_warning"], stacklevel=2)
    for sentence in notes["remarks"]:
        print(sentence)
    return rows  # type: ignore[no-any-return]


def schema_of(time_column: str | None) -> pa.Schema:
    """SCHEMA, with the text of each row's time where rows are split by it."""
    return SCHEMA.append(pa.field("time", pa.string())) if time_column else SCHEMA


def refuse_empty(sizes: list[int], data: "DataSection") -> None:
    """Raises DataError for a config key whose files hold no rows.

    Args:
        sizes: rows read of each of SLOTS.
    """
    for slot, size in zip(SLOTS, sizes, strict=True):
        if size == 0 and getattr(data, slot) is not None:
            raise DataError(f"data.{slot}: {listing(_locations(data, slot)) or 'an empty list'} holds no rows.")


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
    hashes_N, places = table[HASH.name].to_numpy(), Places(table[PLACE.name].to_numpy(), notes["files"])
    table = table.drop_columns([HASH.name, PLACE.name])
    if SLOT.name in table.column_names:
        slots_N, table = table[SLOT.name].to_numpy(), table.drop_columns(SLOT.name)
    facts = (notes["labels"], notes["stripped"], notes["bad_rows"], bool(notes["multi_label"]))
    return Rows(table, hashes_N, slots_N, *facts, mapping, places, notes["multiline"])


def stored_schema(time_column: str | None = None) -> pa.Schema:
    """Return the columns of a file of rows."""
    return schema_of(time_column).append(HASH).append(PLACE)


def stored(rows: pa.Table, places: pa.ChunkedArray) -> pa.Table:
    """Return rows as they are kept in a file: with the hashes of their texts, and their places."""
    return rows.append_column(HASH, pa.array(hash_texts(rows))).append_column(PLACE, places)


def _write_rows(data: "DataSection", domain_column: str | None, time_column: str | None, target: Path, notes_path: Path) -> None:
    bad_rows = BadRows()
    notes: dict[str, Any] = new_notes() | {"sizes": [], "bad_rows": bad_rows}
    partial, partial_notes = partial_path(target), partial_path(notes_path)
    given = GivenSplits(data.split_column, SLOTS) if data.split_column else None
    schema = stored_schema(time_column)
    schema = schema.append(SLOT) if given else schema
    try:
        with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer, _bar() as bar:
            for name in SLOTS:
                size = 0
                for table in read_ahead(_slot_tables(name, data, domain_column, bad_rows, time_column=time_column)):
                    rows = normalise(table, data, domain_column, notes, f"data.{name}", time_column)
                    hashed = stored(rows, table[PLACE.name])
                    if given:
                        values = as_text(table.column(given.column), given.column, f"data.{name}")
                        hashed = hashed.append_column(SLOT, pa.array(given.slots_of(values), pa.int8()))
                    writer.write_table(hashed)
                    size += rows.num_rows
                    bar.update(rows.num_rows)
                notes["sizes"].append(size)
        if given:
            given.refuse_unknown()
        form = notes.pop("cells").form(data, bad_rows.files)
        if form.changes:
            _convert_labels(partial, form)
        bad_rows.remark(form.sentence)
        notes |= {"multi_label": form.is_multi_label, "labels": form.names, "label_warning": form.warning}
        notes |= {"files": bad_rows.files, "remarks": bad_rows.remarks, "multiline": bad_rows.num_multiline}
        notes |= {"bytes": partial.stat().st_size, "made_from": made_from(data)}
        partial_notes.write_text(json.dumps(notes), encoding="utf-8")
        partial.replace(target)
        partial_notes.replace(notes_path)
    finally:
        partial.unlink(missing_ok=True)
        partial_notes.unlink(missing_ok=True)


def _convert_labels(path: Path, form: LabelForm) -> None:
    """Give each row of an Arrow stream the JSON list of its labels; what the cells mean is known once all are read."""
    converted = path.with_suffix(".converted.partial")
    try:
        with pa.memory_map(str(path)) as mapped, pa.ipc.open_stream(mapped) as reader, pa.OSFile(str(converted), "wb") as sink:
            place = reader.schema.get_field_index("label")
            with pa.ipc.new_stream(sink, reader.schema) as writer:
                for batch in reader:
                    writer.write_batch(batch.set_column(place, reader.schema.field(place), form.converted(batch.column(place))))
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


def check_source(data: "DataSection", domain_column: str | None = None, time_column: str | None = None) -> bool:
    """Whether the first rows of each file hold any number of labels a row (`--check`).

    Raises:
        DataError: a location or column is missing.
    """
    notes, bad_rows = new_notes(), BadRows()
    for name in SLOTS:
        for table in _slot_tables(name, data, domain_column, bad_rows, first_only=True, time_column=time_column):
            normalise(table.slice(0, 100), data, domain_column, notes, f"data.{name}", time_column)
    cells: LabelCells = notes["cells"]
    return cells.form(data, bad_rows.files).is_multi_label or data.labels_per_row == "long"


def new_notes() -> dict[str, Any]:
    """What `normalise` notes down over all rows, to begin with."""
    return {"stripped": 0, "cells": LabelCells()}


def _bar() -> Any:
    return tqdm(desc="Reading rows", unit=" rows", delay=2, disable=None, leave=False)


def source_key(data: "DataSection", domain_column: str | None, time_column: str | None = None) -> str:
    """Digest of the files' identities and of how they are read."""
    digest = hashlib.blake2b(f"format {CACHE_FORMAT} {domain_column}".encode(), digest_size=16)
    digest.update(data.model_dump_json(exclude={"limit", "drop_labels", "label_map", "clean", "streaming_rows", "streaming_evaluation_rows"}).encode())
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
    found = [location for name in SLOTS for location in _locations(data, name) if locate(location, f"data.{name}", ENDINGS) is None]
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
    return list(dict.fromkeys([*texts, *(data.label_columns or [data.label_column]), *(c for c in others if c)]))


def _slot_tables(
    name: str, data: "DataSection", domain_column: str | None, bad_rows: BadRows, first_only: bool = False, time_column: str | None = None
) -> Iterator[pa.Table]:
    for tables in shards(name, data, domain_column, bad_rows, time_column):
        yield from _first(tables) if first_only else tables


def shards(
    name: str, data: "DataSection", domain_column: str | None, bad_rows: BadRows, time_column: str | None = None, *, all_columns: bool = False
) -> Iterator[Iterator[pa.Table]]:
    """The tables of each file, folder or Hub data set of a config key; nothing is read before they are asked for."""
    wanted = [] if all_columns else _columns(data, domain_column, time_column)
    for location in _locations(data, name):
        paths = locate(location, f"data.{name}", ENDINGS)
        if paths is None:
            remedy = "Run the same command again when the Hub can be reached" + (", or set data.streaming: false." if data.streaming else ".")
            tables = to_the_end(location, dataset_tables(load_hub(location, name, data), location, wanted), remedy)
            yield with_places(tables, location, bad_rows.files)
        for path in paths or []:
            if path.is_dir():
                yield with_places(dataset_tables(load_saved(path, name, data), str(path), wanted), str(path), bad_rows.files)
            elif ending(path) in READERS:
                yield with_places(to_the_end(str(path), READERS[ending(path)](path, wanted, data, bad_rows)), str(path), bad_rows.files)
            else:
                raise DataError(f"{path}: endings that can be read: {listing(READERS)}.")


def _first(tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    table = next(tables, None)
    return iter([] if table is None else [table])


def normalise(table: pa.Table, data: "DataSection", domain_column: str | None, state: dict[str, Any], where: str, time_column: str | None = None) -> pa.Table:
    """The wanted columns in the types of SCHEMA, stripped if asked for."""
    strip = pc.utf8_trim_whitespace if data.clean.strip else _same
    texts = [data.text_column] if isinstance(data.text_column, str) else list(data.text_column)
    columns = [as_text(table.column(c), c, where) for c in texts]
    stripped = [strip(c) for c in columns]
    if data.clean.strip:
        changed = [pc.not_equal(pc.binary_length(a), pc.binary_length(b)) for a, b in zip(columns, stripped, strict=True)]
        state["stripped"] += sum(pc.sum(c).as_py() or 0 for c in changed)
    nothing = pa.nulls(table.num_rows, pa.string())
    pair = nothing
    if len(stripped) > 1:
        pair = pc.binary_join_element_wise(*stripped[1:], "\n", null_handling="replace", null_replacement="")
        pair = pair.cast(pa.string())
    label = state["cells"].read(table, data, where)
    group = _keys(table, data.group_column, where) if data.group_column else nothing
    domain = _keys(table, domain_column, where) if domain_column else nothing
    weight = _weights(table, data.weight_column, where) if data.weight_column else pa.nulls(table.num_rows, pa.float64())
    times = [as_text(table.column(time_column), time_column, where)] if time_column else []
    return pa.Table.from_arrays([stripped[0], pair, label, group, domain, weight, *times], schema=schema_of(time_column))


def _keys(table: pa.Table, name: str, where: str) -> pa.Array:
    """Values that are compared and not shown to a model (groups, domains), in the form in which labels are compared; empty ones are missing."""
    values = pa.chunked_array(as_text(table.column(name), name, where)).combine_chunks().dictionary_encode()
    keys = pa.array([label_key(value) or None for value in values.dictionary.to_pylist()], pa.string())
    return keys.take(values.indices)


def _weights(table: pa.Table, name: str, where: str) -> Any:
    """Weights as numbers; empty cells and NaN are missing."""
    column = table.column(name)
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), None, column)
        weight = pc.cast(column, pa.float64())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{where}: column '{name}' is not numeric: {cut(first_line(error), 200)} Needed: one number a row, or nothing.") from error
    return pc.if_else(pc.is_nan(weight), None, weight)


def _same(column: Any) -> Any:
    return column
