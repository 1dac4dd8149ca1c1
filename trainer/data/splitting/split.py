"""Train, validation and test: by shares or as given, stratified by label, equal texts and groups kept together.

Which side a row falls on depends on the seed and on its text, never on the order of rows in the file.
"""

from dataclasses import dataclass, field

import numpy as np

from trainer.arrays import Hashes, Ints
from trainer.data.balancing.balance import stage_generator


@dataclass(frozen=True)
class Splits:
    """Row ids of each side, sorted; `test` may be empty."""

    train: Ints
    validation: Ints
    test: Ints
    pool: Ints | None = None
    """Rows that were balanced before the split (`balance.scope: all`), as they were before."""
    synthetic: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """Those of `train` that a language model wrote (`augment`), at its end."""
    time_ranges: dict[str, tuple[str, str]] | None = None
    """{split: its oldest and its newest time}, of rows split by time."""

    @property
    def named(self) -> dict[str, Ints]:
        """{name: row ids} of the sides that hold rows."""
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: ids for name, ids in sides.items() if len(ids)}

    @property
    def real_train(self) -> Ints:
        """Row ids of train without the synthetic rows, which stand at its end."""
        return self.train[: len(self.train) - len(self.synthetic)]


def row_keys(text_hashes_N: Hashes, seed: int, stage: str) -> Hashes:
    """A pseudo-random number per row from its text and the seed (splitmix64)."""
    salt = stage_generator(seed, stage).integers(0, 2**64, dtype=np.uint64)
    z = text_hashes_N ^ salt
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z
