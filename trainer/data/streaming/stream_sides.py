"""The side of each streamed row: by the hash of its text, and in training where its class is too
rare for every side.

Legend: N rows of a batch, S config keys or sides (SLOTS), C labels.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Bools, Hashes, Ints
from trainer.config.sections.data import SplitSection
from trainer.data.reading.sources import SLOTS
from trainer.data.splitting.split import row_keys
from trainer.data.streaming.hash_records import Records, chunks

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

TRAIN, VALIDATION, TEST = 1, 2, 3


def sides(
    hashes_N: Hashes,
    slots_N: NDArray[np.int8],
    data: "DataSection",
    split: SplitSection | None,
    seed: int,
) -> NDArray[np.int8]:
    """Side of each row: where it was given, else by the seed and the hash of its text alone, so
    that equal texts stay together.

    A class therefore has its share of a side up to chance: of n rows with share p within about two
    times sqrt(n p (1 - p)).
    """
    train, validation, test = (split or SplitSection()).shares
    pool = SLOTS.index("source" if data.source is not None else "train")
    if data.validation is not None:
        return slots_N
    chances_N = row_keys(hashes_N, seed, "split") * 2.0**-64
    drawn_N = np.where(
        chances_N < train,
        TRAIN,
        np.where((chances_N < train + validation) | (test == 0), VALIDATION, TEST),
    )
    return np.where(slots_N == pool, drawn_N, slots_N).astype(np.int8)


def cut_sides(data: "DataSection", split: SplitSection | None) -> list[int]:
    """The sides beside training that are cut from the pool, and not given."""
    if data.validation is not None:
        return []
    return [VALIDATION, TEST] if split and split.test else [VALIDATION]


def rare_labels(counts_SC: Ints, cut: list[int]) -> Bools:
    """Labels of the pool that no row of training has, or that have fewer rows than there are sides.

    Args:
        cut: the sides beside training that are cut from the pool.
    """
    pooled_C = counts_SC[[TRAIN, *cut]].sum(axis=0)
    return np.asarray(
        (pooled_C > 0) & ((counts_SC[TRAIN] == 0) | (pooled_C < 1 + len(cut))) & bool(cut)
    )


def move_to_train(
    path: Path, kind: np.dtype[Any], counts_SC: Ints, rare_C: Bools, cut: list[int]
) -> None:
    """Give the rows of rare labels to training, in the file of records and in the counts, in place."""

    def moved(records: Records) -> Records:
        records["slot"][rare_C[records["label"]] & np.isin(records["slot"], cut)] = TRAIN
        return records

    _rewrite(path, kind, moved)
    counts_SC[TRAIN, rare_C] += counts_SC[cut][:, rare_C].sum(axis=0)
    for side in cut:
        counts_SC[side, rare_C] = 0


def take_out(path: Path, kind: np.dtype[Any], counts_SC: Ints, rare_C: Bools) -> Records:
    """Remove the rows of rare labels from the file of records and from the counts, in place; the
    rows removed.
    """
    removed = []

    def without(records: Records) -> Records:
        is_rare = rare_C[records["label"]]
        removed.append(records[is_rare])
        return records[~is_rare]

    _rewrite(path, kind, without)
    counts_SC[:, rare_C] = 0
    return np.concatenate(removed)


def _rewrite(path: Path, kind: np.dtype[Any], change: Any) -> None:
    partial = path.with_suffix(".rewritten")
    with partial.open("wb") as file:
        for records in chunks(path, kind):
            change(records).tofile(file)
    partial.replace(path)
