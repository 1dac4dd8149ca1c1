"""How many rows `data.streaming` keeps of each split and class, and which ones: those with the smallest keys.

Legend: S config keys or sides (SLOTS), C labels.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.arrays import Ints
from trainer.config.sections.balancing import PARAMETERS
from trainer.data.balancing.balance import undersample
from trainer.data.splitting.sampling import sample_counts
from trainer.data.splitting.split import row_keys
from trainer.data.streaming.hash_records import Records, chunks
from trainer.data.streaming.stream_sides import TEST, TRAIN, VALIDATION

if TYPE_CHECKING:
    from trainer.config.sections.balancing import BalanceSection
    from trainer.config.sections.data import DataSection


def chosen_counts(counts_SC: Ints, data: "DataSection", balance: "BalanceSection") -> Ints:
    """Rows kept of each side and class, of as many cleaned ones; told where a limit takes rows."""
    wanted_SC = counts_SC.copy()
    if balance.method == "undersample" and not balance.by and not balance.resample_each_epoch:
        present = counts_SC[TRAIN] > 0
        ratio = (
            PARAMETERS["undersample"].default
            if balance.target_ratio is None
            else balance.target_ratio
        )
        wanted_SC[TRAIN, present] = undersample(counts_SC[TRAIN, present], ratio)
    total = int(wanted_SC[TRAIN].sum())
    if total > data.streaming_rows:
        natural = balance.method == "none" or balance.by is not None
        wanted_SC[TRAIN] = (
            sample_counts(wanted_SC[TRAIN], data.streaming_rows)
            if natural
            else level(wanted_SC[TRAIN], data.streaming_rows)
        )
        how = "in natural shares" if natural else "cut from the largest classes"
        print(
            f"data.streaming_rows: {data.streaming_rows:,} of {total:,} training rows are kept, {how}."
        )
    for side in (VALIDATION, TEST):
        if counts_SC[side].sum() > data.streaming_evaluation_rows:
            wanted_SC[side] = sample_counts(counts_SC[side], data.streaming_evaluation_rows)
    return wanted_SC


def level(counts_C: Ints, most: int) -> Ints:
    """The counts with the largest cut down to one height, so that they add up to at most `most`."""
    left, height = most, 0
    for place, count in enumerate(np.sort(counts_C)):
        height = left // (len(counts_C) - place)
        if count >= height:
            break
        left -= int(count)
    return np.minimum(counts_C, height)


def lowest(path: Path, kind: np.dtype[Any], wanted_SC: Ints, seed: int) -> Records:
    """The records of each side and class with the smallest keys; equal texts in the order of reading."""
    pool = np.zeros(0, kind)
    for records in chunks(path, kind):
        pool = _prune(np.concatenate([pool, records]), wanted_SC, seed)
    return pool


def _prune(records: Records, wanted_SC: Ints, seed: int) -> Records:
    keys = row_keys(records["hash"], seed, "streaming")
    strata = records["slot"].astype(np.int64) * wanted_SC.shape[1] + records["label"]
    order = np.lexsort((records["position"], keys, strata))
    strata = strata[order]
    ranks = np.arange(len(order)) - np.searchsorted(strata, strata)
    return records[order[ranks < wanted_SC.ravel()[strata]]]
