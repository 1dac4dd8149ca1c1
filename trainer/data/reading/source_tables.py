"""The tables of each file, folder or Hub data set in the config, and what identifies them."""

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import pyarrow as pa

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.dataset_sources import (
    dataset_tables,
    hub_commit,
    hub_identity,
    load_hub,
    load_saved,
)
from trainer.data.reading.formats.compression import ending, to_the_end
from trainer.data.reading.formats.readers import ENDINGS, READERS
from trainer.data.reading.locate import locate
from trainer.data.reading.row_places import with_places
from trainer.errors import DataError, listing
from trainer.files.content import file_identity

T = TypeVar("T")
SLOTS = ("source", "train", "validation", "test")
"""Config keys of the data section that name sources."""
CACHE_FORMAT = 10
"""Increase it when the same files are read to other rows, so that older caches are not used."""


def locations(data: DataSection, name: str) -> list[str]:
    """Return the locations that a config key names."""
    value = getattr(data, name)
    return [] if value is None else [value] if isinstance(value, str) else list(value)


def made_from(data: DataSection) -> str:
    """Return the locations of all config keys, for the list of the command `cache`."""
    return ", ".join(location for name in SLOTS for location in locations(data, name))


def source_tables(
    name: str, data: DataSection, wanted: list[str], bad_rows: BadRows
) -> Iterator[Iterator[pa.Table]]:
    """Yield the tables of each file, folder or Hub data set of a config key.

    Nothing is read before the tables are asked for.

    Args:
        name: one of SLOTS.
        wanted: columns to read; none means all.
    """
    for location in locations(data, name):
        paths = locate(location, f"data.{name}", ENDINGS)
        if paths is None:
            remedy = "Run the same command again when the Hub can be reached"
            remedy += ", or set data.streaming: false." if data.streaming else "."
            dataset = load_hub(location, name, data)
            tables = to_the_end(location, dataset_tables(dataset, location, wanted, data), remedy)
            yield with_places(tables, location, bad_rows.files)
        for path in paths or []:
            where = str(path)
            if path.is_dir():
                tables = dataset_tables(load_saved(path, name, data), where, wanted, data)
            elif ending(path) in READERS:
                tables = to_the_end(where, READERS[ending(path)](path, wanted, data, bad_rows))
            else:
                raise DataError(f"{path}: endings that can be read: {listing(READERS)}.")
            yield with_places(tables, where, bad_rows.files)


@contextmanager
def read_ahead(parts: Iterator[T]) -> Iterator[Iterator[T]]:
    """Give the same parts in a block, while another thread reads the next one.

    The block ends after this thread, also if it is interrupted: files can then be closed.
    """
    with ThreadPoolExecutor(1) as reader:

        def in_order() -> Iterator[T]:
            coming = reader.submit(next, parts, None)
            while (part := coming.result()) is not None:
                coming = reader.submit(next, parts, None)
                yield part

        yield in_order()


def source_key(data: DataSection, domain_column: str | None, time_column: str | None = None) -> str:
    """Return a digest of the identities of the files and of how they are read."""
    digest = hashlib.blake2b(f"format {CACHE_FORMAT} {domain_column}".encode(), digest_size=16)
    after_reading = {"limit", "drop_labels", "label_map", "clean"}
    after_reading |= {"streaming_rows", "streaming_evaluation_rows"}
    digest.update(data.model_dump_json(exclude=after_reading).encode())
    digest.update(b"strip" if data.clean.strip else b"")
    digest.update(f"time {time_column}".encode() if time_column else b"")
    for name in SLOTS:
        for location in locations(data, name):
            paths = locate(location, f"data.{name}", ENDINGS)
            if paths is None:
                digest.update(hub_identity(location, name, data).encode())
            for path in paths or []:
                for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
                    if file.is_file():
                        digest.update(file_identity(file).encode())
    return digest.hexdigest()


def hub_commits(data: DataSection) -> dict[str, str | None]:
    """Return {id of a Hub data set: the commit that was read, None if unknown}."""
    return {
        location: hub_commit(location, data)
        for name in SLOTS
        for location in locations(data, name)
        if locate(location, f"data.{name}", ENDINGS) is None
    }
