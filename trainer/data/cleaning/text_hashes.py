"""A number for each text, so that equal texts are found without holding texts."""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from trainer.arrays import Hashes, Ints

PARTS = 16
"""Parts of the hashes that are sorted by themselves: on all cores, and with a sixteenth of the memory that sorting all at once takes."""


def hash_texts(table: pa.Table) -> Hashes:
    """64-bit XXH3 of each text (with its pair, behind a zero byte); two of 10 million different texts are equal with probability 3e-6.

    Source: https://github.com/Cyan4973/xxHash, whose 64 bits show no more collisions than random numbers would.
    """
    digest = xxhash.xxh3_64_intdigest
    out = np.empty(table.num_rows, np.uint64)
    position = 0
    for batch in table.select(["text", "text_pair"]).to_batches(max_chunksize=20_000):
        texts = pc.fill_null(batch.column(0), "")
        pairs = batch.column(1)
        if pairs.null_count < len(pairs):
            texts = pc.if_else(
                pc.is_null(pairs), texts, pc.binary_join_element_wise(texts, pairs, "\0")
            )
        out[position : position + len(texts)] = np.fromiter(
            map(digest, texts.cast(pa.binary()).to_numpy(zero_copy_only=False)),
            np.uint64,
            len(texts),
        )
        position += len(texts)
    return out


def repeated(hashes_N: Hashes) -> Ints:
    """Sorted positions of the values that stand there more than once."""

    def of_part(part: int) -> Ints:
        members = np.flatnonzero(hashes_N >> np.uint64(60) == part)
        order = np.argsort(hashes_N[members])
        same = np.diff(hashes_N[members[order]]) == 0
        return members[order[np.r_[False, same] | np.r_[same, False]]] if len(members) else members

    with ThreadPoolExecutor(min(PARTS, os.cpu_count() or 1)) as pool:
        return np.sort(np.concatenate(list(pool.map(of_part, range(PARTS)))))
