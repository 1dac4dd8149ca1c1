"""The split that a column of the data names for each row (`data.split_column`)."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.data.labels.label_normalisation import label_key
from trainer.data.reading.places import Places
from trainer.errors import DataError, brief, listing

SPELLINGS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing"),
}
"""How a column may call each split, in any case."""


class GivenSplits:
    """Reads the column batch by batch, and remembers what it could not read."""

    def __init__(self, column: str, slots: Sequence[str]) -> None:
        """Args:
        slots: names of the splits by their number.
        """
        self.column, self.slots = column, slots
        self.counts: Counter[str] = Counter()
        self.unknown: Counter[str] = Counter()
        self.first_unknown: int | None = None
        """Place of the first row whose value names no split."""

    def slots_of(self, values: Any, places: pa.ChunkedArray) -> NDArray[np.int8]:
        """Number of the split for each value; -1 for one that names no split.

        Args:
            places: of the rows.
        """
        encoded = (
            pa.chunked_array(
                [values] if isinstance(values, pa.Array) else values.chunks, pa.string()
            )
            .combine_chunks()
            .dictionary_encode()
        )
        names = [*encoded.dictionary.to_pylist(), ""]
        ids_N = pc.fill_null(encoded.indices, len(names) - 1).to_numpy(zero_copy_only=False)
        found = [split_named(name) for name in names]
        for name, split, rows in zip(
            names, found, np.bincount(ids_N, minlength=len(names)).tolist(), strict=True
        ):
            if rows and split:
                self.counts[split] += rows
            elif rows:
                self.unknown[name.strip()] += rows
        slots_N = np.array([self.slots.index(split) if split else -1 for split in found], np.int8)[
            ids_N
        ]
        if self.first_unknown is None and (slots_N < 0).any():
            self.first_unknown = places[int((slots_N < 0).argmax())].as_py()
        return slots_N

    def refuse_unknown(self, files: list[list[str]]) -> None:
        """Raises DataError for values that name no split, with their rows, and where no row is for
        training.

        Args:
            files: the files that the places of rows tell of.
        """
        known = f"Known, in any case: {', '.join(spelling for spellings in SPELLINGS.values() for spelling in spellings)}"
        if self.first_unknown is not None:
            where = Places(np.array([self.first_unknown]), files).where(0)
            most = self.unknown.most_common(5)
            found = ", ".join(
                f"{_shown(name)} ({rows:,} row{'' if rows == 1 else 's'})" for name, rows in most
            )
            rest = (
                f" and {len(self.unknown) - len(most)} more"
                if len(self.unknown) > len(most)
                else ""
            )
            words = f"{where}: data.split_column: column '{self.column}' holds {found}{rest}, which name no split"
            raise DataError(f"{words}. {known}. Rename or remove these rows.")
        if not self.counts["train"]:
            words = f"data.split_column: no row of column '{self.column}' is for training; found: {listing(self.counts) or 'no rows'}"
            raise DataError(f"{words}. {known}.")


def split_named(value: str) -> str | None:
    """The split that a value names; None where it names none.

    Example:
        >>> split_named(" Dev "), split_named("holdout")
        ('validation', None)
    """
    key = label_key(value).casefold()
    return next((name for name, spellings in SPELLINGS.items() if key in spellings), None)


def _shown(name: str) -> str:
    return f"'{brief(name)}'" if name else "no value"
