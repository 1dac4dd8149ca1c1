"""The batches of rows that both readings of `data.streaming` go through, and what is dropped.

Legend: S config keys or splits (SLOTS), R reasons.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm.auto import tqdm

from trainer.arrays import Array, Ints
from trainer.data.cleaning.reasons import KEPT, REASONS
from trainer.data.reading.bad_rows import BadRows, refuse_bad_rows
from trainer.data.reading.row_access import BATCH_ROWS
from trainer.data.reading.row_columns import RowColumns
from trainer.data.reading.source_tables import SLOTS, read_ahead, source_tables

MOST_LISTED = 1_000
"""Dropped and unreadable rows that are kept for dropped.jsonl; the others are counted."""


class FirstBadRows(BadRows):
    """The first MOST_LISTED rows that cannot be read, and the total number."""

    total = 0

    def append(self, record: dict[str, Any]) -> None:
        """Count a row, and keep it if it is one of the first."""
        self.total += 1
        if self.total <= MOST_LISTED:
            super().append(record)


@dataclass
class DroppedRows:
    """Counts of the rows by reason, and the reasons of the first dropped rows by position."""

    reasons_SR: Ints = field(default_factory=lambda: np.zeros((len(SLOTS), len(REASONS)), np.int64))
    first: dict[int, int] = field(default_factory=dict)

    def add(self, reasons_N: NDArray[np.int8], slots_N: Array, positions_N: Ints) -> None:
        """Count the rows that are dropped; kept ones may be among them."""
        gone = np.flatnonzero(reasons_N != KEPT)
        np.add.at(self.reasons_SR, (slots_N[gone], reasons_N[gone]), 1)
        listed = gone[:MOST_LISTED]
        new = dict(zip(positions_N[listed].tolist(), reasons_N[listed].tolist(), strict=True))
        self.first = dict(sorted((self.first | new).items())[:MOST_LISTED])


def read_batches(
    reading: int, columns: RowColumns, bad_rows: FirstBadRows
) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield each batch after the index of its config key and the position of its first row.

    The columns are still those of the files.

    Args:
        reading: 1 or 2, for the progress bar.
    """
    data, position = columns.data, 0
    with tqdm(
        desc=f"Reading rows ({reading} of 2)", unit=" rows", delay=2, disable=None, leave=False
    ) as bar:
        for slot, name in enumerate(SLOTS):
            shards = source_tables(name, data, columns.wanted, bad_rows)
            for number, tables in enumerate(shards, 1):
                bar.set_postfix_str(f"data.{name} shard {number}", refresh=False)
                for whole in read_ahead(tables):
                    for start in range(0, whole.num_rows, BATCH_ROWS):
                        table = whole.slice(start, BATCH_ROWS)
                        yield slot, position, table
                        position += table.num_rows
                        bar.update(table.num_rows)
                refuse_bad_rows(bad_rows, data, f"{bad_rows.total} bad in this file")
