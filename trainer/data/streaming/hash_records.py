"""Records of fixed width on disk, in partitions by the first bits of their hash.

Equal hashes are in one partition. A partition must fit into memory: of a billion rows it holds
about 4 million, 82 MB.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from trainer.arrays import Array

Records = Array

BITS = 8
"""Bits of the hash that choose the partition."""
CHUNK_RECORDS = 1 << 18
"""Records of a file that are read at once."""


def record_type(*, weighted: bool, with_domain: bool = False) -> np.dtype[Any]:
    """Return the type of a record, 21 bytes: text hash, position of the row, label, config key.

    The config key is an index into SLOTS. Weights take 8 bytes more, domain numbers 4.
    """
    fields = [("hash", "<u8"), ("position", "<i8"), ("label", "<i4"), ("slot", "i1")]
    return np.dtype(fields + [("weight", "<f8")] * weighted + [("domain", "<i4")] * with_domain)


class Partitions:
    """Records by the first bits of their hash, within a partition in the order they were added."""

    def __init__(self, folder: Path, kind: np.dtype[Any]) -> None:
        folder.mkdir()
        self.folder, self.kind = folder, kind
        self.files: dict[int, BinaryIO] = {}

    def add(self, records: Records) -> None:
        """Append records to the files of their partitions."""
        parts = records["hash"] >> np.uint64(64 - BITS)
        order = np.argsort(parts, kind="stable")
        records, bounds = records[order], np.searchsorted(parts[order], np.arange((1 << BITS) + 1))
        for part in np.flatnonzero(np.diff(bounds)).tolist():
            if part not in self.files:
                self.files[part] = (self.folder / str(part)).open("wb")
            self.files[part].write(records[bounds[part] : bounds[part + 1]].tobytes())

    def take(self) -> Iterator[Records]:
        """Yield the records of each partition, and remove its file."""
        self.close()
        for part in sorted(self.files):
            path = self.folder / str(part)
            yield np.fromfile(path, self.kind)
            path.unlink()

    def close(self) -> None:
        """Close the files."""
        for file in self.files.values():
            file.close()


def chunks(path: Path, kind: np.dtype[Any]) -> Iterator[Records]:
    """Yield the records of a file, CHUNK_RECORDS at a time."""
    with path.open("rb") as file:
        while len(records := np.fromfile(file, kind, CHUNK_RECORDS)):
            yield records
