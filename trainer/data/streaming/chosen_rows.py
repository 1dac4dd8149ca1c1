"""How many rows `data.streaming` keeps of each split and class: those with the smallest keys.

Legend: S config keys or splits (SLOTS), C labels.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from trainer.arrays import Ints
from trainer.config.sections.balancing import PARAMETERS, BalanceSection
from trainer.config.sections.data import DataSection
from trainer.data.balancing.balance import undersample
from trainer.data.splitting.sampling import sample_counts
from trainer.data.splitting.split import row_keys
from trainer.data.streaming.hash_records import Records
from trainer.data.streaming.split_assignment import TEST, TRAIN, VALIDATION


def chosen_counts(counts_SC: Ints, data: DataSection, balance: BalanceSection) -> Ints:
    """Return how many of the cleaned rows are kept, and print it if a limit removes rows.

    Args:
        counts_SC: cleaned rows of each split and class.
    """
    wanted_SC = counts_SC.copy()
    if balance.method == "undersample" and not balance.by and not balance.resample_each_epoch:
        present = counts_SC[TRAIN] > 0
        ratio = balance.target_ratio
        ratio = PARAMETERS["undersample"].default if ratio is None else ratio
        wanted_SC[TRAIN, present] = undersample(counts_SC[TRAIN, present], ratio)
    total = int(wanted_SC[TRAIN].sum())
    if total > data.streaming_rows:
        is_natural = balance.method == "none" or balance.by is not None
        limited = sample_counts if is_natural else level
        wanted_SC[TRAIN] = limited(wanted_SC[TRAIN], data.streaming_rows)
        how = "in natural shares" if is_natural else "cut from the largest classes"
        print(
            f"data.streaming_rows: {data.streaming_rows:,} of {total:,} training rows are kept, "
            f"{how}."
        )
    for split in (VALIDATION, TEST):
        if counts_SC[split].sum() > data.streaming_evaluation_rows:
            wanted_SC[split] = sample_counts(counts_SC[split], data.streaming_evaluation_rows)
    return wanted_SC


def level(counts_C: Ints, most: int) -> Ints:
    """Cut the largest counts down to one height, so that the sum is at most `most`."""
    left, height = most, 0
    for place, count in enumerate(np.sort(counts_C)):
        height = left // (len(counts_C) - place)
        if count >= height:
            break
        left -= int(count)
    return np.minimum(counts_C, height)


def lowest(parts: Iterable[Records], kind: np.dtype[Any], wanted_SC: Ints, seed: int) -> Records:
    """Return the records of each split and class with the smallest keys.

    Equal texts have equal keys; the first of them in the order of reading are kept.

    Args:
        parts: all records, part by part.
        kind: their type.
    """
    kept = np.zeros(0, kind)
    for part in parts:
        records = np.concatenate([kept, part])
        keys = row_keys(records["hash"], seed, "streaming")
        strata = records["slot"].astype(np.int64) * wanted_SC.shape[1] + records["label"]
        order = np.lexsort((records["position"], keys, strata))
        strata = strata[order]
        ranks = np.arange(len(order)) - np.searchsorted(strata, strata)
        kept = records[order[ranks < wanted_SC.ravel()[strata]]]
    return kept
