"""Assign each streamed row to a split by the hash of its text; rare classes need a special rule.

Legend: N rows of a batch, S config keys or splits (SLOTS), C labels.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Bools, Hashes, Ints
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.reading.source_tables import SLOTS
from trainer.data.splitting.split import row_keys

TRAIN, VALIDATION, TEST = (SLOTS.index(name) for name in ("train", "validation", "test"))


def assigned_splits(
    hashes_N: Hashes,
    slots_N: NDArray[np.int8],
    data: DataSection,
    split: SplitSection | None,
    seed: int,
) -> NDArray[np.int8]:
    """Return the split of each row: the given one, or one that seed and text alone decide.

    Equal texts stay together. A class has its share of a split up to chance: of n rows with share
    p, the number differs from n p by about 2 sqrt(n p (1 - p)) at most.
    """
    if data.validation is not None:
        return slots_N
    train, validation, test = (split or SplitSection()).shares
    chances_N = row_keys(hashes_N, seed, "split") * 2.0**-64
    is_validation_N = (chances_N < train + validation) | (test == 0)
    drawn_N = np.where(chances_N < train, TRAIN, np.where(is_validation_N, VALIDATION, TEST))
    pool = SLOTS.index("source" if data.source is not None else "train")
    return np.where(slots_N == pool, drawn_N, slots_N).astype(np.int8)


def cut_splits(data: DataSection, split: SplitSection | None) -> list[int]:
    """Return the splits beside training that are cut from the pool."""
    if data.validation is not None:
        return []
    return [VALIDATION, TEST] if split and split.test else [VALIDATION]


def rare_labels(counts_SC: Ints, cut: list[int]) -> Bools:
    """Return which labels of the pool have no training row, or fewer rows than there are splits.

    Args:
        cut: the splits beside training that are cut from the pool.
    """
    pooled_C = counts_SC[[TRAIN, *cut]].sum(axis=0)
    is_rare_C = (counts_SC[TRAIN] == 0) | (pooled_C < 1 + len(cut))
    return np.asarray((pooled_C > 0) & is_rare_C & bool(cut))
