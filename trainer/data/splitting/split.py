"""The row ids of train, validation and test, and the pseudo-random keys that order rows.

The split of a row depends on the seed and on its text, never on the order of rows in the file.
"""

from dataclasses import dataclass, field

import numpy as np

from trainer.arrays import Hashes, Ints
from trainer.data.balancing.balance import stage_generator


@dataclass(frozen=True)
class Splits:
    """Sorted row ids of each split; `test` may be empty.

    Attributes:
        pool: the rows before balancing, if they were balanced before the split
            (`balance.scope: all`).
        synthetic: rows of `train` that a language model wrote (`augment`); they are its last rows.
        time_ranges: {split: (oldest time, newest time)} of rows that are split by time.
    """

    train: Ints
    validation: Ints
    test: Ints
    pool: Ints | None = None
    synthetic: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    time_ranges: dict[str, tuple[str, str]] | None = None

    @property
    def named(self) -> dict[str, Ints]:
        """The row ids of the splits that have rows, by name."""
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: ids for name, ids in splits.items() if len(ids)}

    @property
    def words(self) -> str:
        """The number of rows of each split, in words."""
        return ", ".join(f"{len(ids):,} {name}" for name, ids in self.named.items())

    @property
    def real_train(self) -> Ints:
        """The row ids of train without the synthetic rows."""
        return self.train[: len(self.train) - len(self.synthetic)]


def row_keys(text_hashes_N: Hashes, seed: int, stage: str) -> Hashes:
    """Return a pseudo-random number for each row from its text and the seed (splitmix64)."""
    salt = stage_generator(seed, stage).integers(0, 2**64, dtype=np.uint64)
    z = text_hashes_N ^ salt
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
