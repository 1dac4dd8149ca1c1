"""Give each text a number, so that equal texts are found without holding texts in memory."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from trainer.arrays import Bools, Hashes, Ints

PARTS = 16
"""Parts of the hashes that are sorted separately: on all cores, in a sixteenth of the memory."""


def hash_texts(table: pa.Table) -> Hashes:
    """Return the 64-bit XXH3 of each text, and of its pair after a zero byte.

    Two of 10 million different texts have one hash with probability 3e-6, as for random numbers.

    Source: https://github.com/Cyan4973/xxHash
    """
    parts = [np.zeros(0, np.uint64)]
    for batch in table.select(["text", "text_pair"]).to_batches(max_chunksize=20_000):
        texts, pairs = pc.fill_null(batch.column(0), ""), batch.column(1)
        if pairs.null_count < len(pairs):
            joined = pc.binary_join_element_wise(texts, pairs, "\0")
            texts = pc.if_else(pc.is_null(pairs), texts, joined)
        raw = texts.cast(pa.binary()).to_numpy(zero_copy_only=False)
        parts.append(np.fromiter(map(xxhash.xxh3_64_intdigest, raw), np.uint64, len(raw)))
    return np.concatenate(parts)


def repeated(hashes_N: Hashes) -> Ints:
    """Return the sorted positions of the values that occur more than once."""

    def of_part(part: int) -> Ints:
        members = np.flatnonzero(hashes_N >> np.uint64(60) == part)
        order = np.argsort(hashes_N[members])
        same = np.diff(hashes_N[members[order]]) == 0
        return members[order[np.r_[False, same] | np.r_[same, False]]] if len(members) else members

    with ThreadPoolExecutor(min(PARTS, os.cpu_count() or 1)) as pool:
        return np.sort(np.concatenate(list(pool.map(of_part, range(PARTS)))))


def run_starts(*columns_M: NDArray[Any]) -> Bools:
    """Return where a run of equal values starts in columns that are sorted together."""
    changes = np.any([np.diff(column_M) != 0 for column_M in columns_M], axis=0)
    return np.r_[True, changes][: len(columns_M[0])]
