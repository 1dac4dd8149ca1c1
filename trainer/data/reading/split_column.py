"""The split that a column of the data names for each row (`data.split_column`)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.data.labels.label_normalisation import label_key
from trainer.data.reading.row_places import Places
from trainer.errors import DataError, brief, listing

SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}
"""Names that a column may use for each split, in upper or lower case."""
KNOWN = f"Known, in any case: {', '.join(name for names in SPELLINGS.values() for name in names)}"


class SplitColumn:
    """Reads the column table by table, and remembers the values that name no split.

    Args:
        column: its name.
        slots: names of the splits by their number.
    """

    def __init__(self, column: str, slots: Sequence[str]) -> None:
        self.column, self.slots = column, slots
        self.counts: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.first_unknown: int | None = None
        """Place of the first row whose value names no split."""

    def slots_of(self, values: Any, places: pa.ChunkedArray) -> NDArray[np.int8]:
        """Return the number of the split for each value, -1 for one that names no split.

        Args:
            places: the places of the rows.
        """
        encoded = pa.chunked_array(values, pa.string()).combine_chunks().dictionary_encode()
        names = [*encoded.dictionary.to_pylist(), ""]
        ids_N = pc.fill_null(encoded.indices, len(names) - 1).to_numpy(zero_copy_only=False)
        found = [split_named(name) for name in names]
        counts = np.bincount(ids_N, minlength=len(names)).tolist()
        for name, split, rows in zip(names, found, counts, strict=True):
            if rows and split:
                self.counts[split] += rows
            elif rows:
                self.unknown[name.strip()] += rows
        slots = [self.slots.index(split) if split else -1 for split in found]
        slots_N = np.array(slots, np.int8)[ids_N]
        if self.first_unknown is None and (slots_N < 0).any():
            self.first_unknown = places[int((slots_N < 0).argmax())].as_py()
        return slots_N

    def refuse_unknown(self, files: list[list[str]]) -> None:
        """Raise DataError for values that name no split, or if no row is for training.

        Args:
            files: the files that the places of rows refer to.
        """
        if self.first_unknown is not None:
            where = Places(np.array([self.first_unknown]), files).where(0)
            most = self.unknown.most_common(5)
            shown = [(f"'{brief(name)}'" if name else "no value", rows) for name, rows in most]
            found = ", ".join(
                f"{name} ({rows:,} row{'' if rows == 1 else 's'})" for name, rows in shown
            )
            num_others = len(self.unknown) - len(most)
            rest = f" and {num_others} more" if num_others else ""
            raise DataError(
                f"{where}: data.split_column: column '{self.column}' holds {found}{rest}, which "
                f"name no split. {KNOWN}. Rename or remove these rows."
            )
        if not self.counts["train"]:
            raise DataError(
                f"data.split_column: no row of column '{self.column}' is for training; found: "
                f"{listing(self.counts) or 'no rows'}. {KNOWN}."
            )


def split_named(value: str) -> str | None:
    """Return the split that a value names; None if it names none.

    Example:
        >>> split_named(" Dev "), split_named("holdout")
        ('validation', None)
    """
    key = label_key(value).casefold()
    return next((name for name, spellings in SPELLINGS.items() if key in spellings), None)
