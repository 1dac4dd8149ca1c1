"""Find near duplicates: MinHash proposes pairs of texts, the exact Jaccard similarity decides.

Legend: N texts, P pairs.
"""

import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Floats, Ints
from trainer.data.splitting.groups import connected_sets
from trainer.progress import progress_bar

if TYPE_CHECKING:
    from datasketch import MinHash, MinHashLSH


SHINGLE_CHARACTERS = 5
MOST_CHARACTERS = 10_000
"""Characters of each text that are compared."""
NUM_PERMUTATIONS = 128
MISSES_AGAINST_FALSE_ALARMS = (0.1, 0.9)
"""Weights that choose the bands; a false alarm costs one exact comparison, a miss is lost."""
ESTIMATE_SLACK = 0.15
"""Four standard errors, sqrt(0.8 x 0.2 / 128) = 0.035, of an estimate of 0.8."""


@dataclass(frozen=True)
class NearDuplicates:
    """Similar texts, by their positions.

    Attributes:
        pairs_P2: the pairs that were found, smaller position first; not every pair of a large
            cluster is listed.
        similarities_P: Jaccard similarity of each pair, in [threshold, 1].
        cluster_ids_N: texts linked by pairs share an id.
    """

    threshold: float
    pairs_P2: Ints
    similarities_P: Floats
    cluster_ids_N: Ints

    @property
    def clusters(self) -> list[Ints]:
        """The positions of each cluster of two or more texts, the largest first."""
        order = np.argsort(self.cluster_ids_N, kind="stable")
        members = np.split(order, np.flatnonzero(np.diff(self.cluster_ids_N[order])) + 1)
        return sorted(
            (positions for positions in members if len(positions) > 1),
            key=lambda positions: (-len(positions), positions[0]),
        )


def find_near_duplicates(texts: Sequence[str], *, threshold: float) -> NearDuplicates:
    """Return the pairs and clusters of similar texts.

    Args:
        threshold: Jaccard similarity, in (0, 1], of the sets of 5-character shingles of the
            casefolded words. At 0.8 a tweet of 100 characters may differ in one word of about six
            letters.
    Source: Broder 1997 (MinHash); Leskovec et al., Mining of Massive Datasets, chapter 3 (banding);
    signatures and bands from datasketch.
    """
    size = len(texts)
    bar = progress_bar(texts, desc="Comparing texts", unit=" texts", delay=2)
    signatures_NP = np.empty((size, NUM_PERMUTATIONS), np.uint32)
    for row, found in enumerate(sketches(bar)):
        signatures_NP[row] = found.hashvalues
    index = open_index(threshold)
    pairs_P2 = _candidates(signatures_NP, index.b, index.r)
    pairs_P2 = pairs_P2[_estimates(signatures_NP, pairs_P2) >= threshold - ESTIMATE_SLACK]
    similarities_P = _similarities(texts, pairs_P2)
    found = similarities_P >= threshold - 1e-9
    pairs_P2, similarities_P = pairs_P2[found], similarities_P[found]
    return NearDuplicates(
        threshold, pairs_P2, similarities_P, connected_sets(pairs_P2[:, 0], pairs_P2[:, 1], size)
    )


def sketches(texts: Iterable[str]) -> "Iterator[MinHash]":
    """Yield the MinHash of each text's shingles."""
    from datasketch import MinHash

    return MinHash.generator(
        (shingle_hashes(text).tolist() for text in texts), num_perm=NUM_PERMUTATIONS, hashfunc=int
    )


def open_index(threshold: float) -> "MinHashLSH":
    """Return an empty index that proposes sketches whose similarity may reach the threshold."""
    from datasketch import MinHashLSH

    return MinHashLSH(
        threshold=threshold, num_perm=NUM_PERMUTATIONS, weights=MISSES_AGAINST_FALSE_ALARMS
    )


def jaccard(first: NDArray[np.uint32], second: NDArray[np.uint32]) -> float:
    """Return the Jaccard similarity of two arrays of `shingle_hashes`."""
    shared = len(np.intersect1d(first, second, assume_unique=True))
    return shared / (len(first) + len(second) - shared)


def shingle_hashes(text: str) -> NDArray[np.uint32]:
    """Return the sorted CRC-32 of each different 5-character shingle of a text's words.

    A text without words (emoji) is cut into shingles itself.
    """
    words = (
        " ".join(re.findall(r"\w+", text[:MOST_CHARACTERS].casefold()))
        or text[:MOST_CHARACTERS].strip()
    )
    starts = range(max(1, len(words) - SHINGLE_CHARACTERS + 1))
    shingles = {words[start : start + SHINGLE_CHARACTERS] for start in starts}
    return np.unique(
        np.array(
            [zlib.crc32(shingle.encode("utf-8", "surrogatepass")) for shingle in shingles],
            np.uint32,
        )
    )


def _candidates(signatures_NP: NDArray[np.uint32], num_bands: int, rows_per_band: int) -> Ints:
    """Return the pairs that agree in a whole band, (P, 2).

    Each text is paired with the first text of its bucket and with the one before it, which is
    linear in the texts. All pairs of a template sent 20,000 times would be 200 million.
    """
    size = len(signatures_NP)
    keys = [np.zeros(0, np.int64)]
    for band in range(num_bands):
        part = np.ascontiguousarray(
            signatures_NP[:, band * rows_per_band : (band + 1) * rows_per_band]
        )
        _, bucket_N = np.unique(
            part.view(np.dtype((np.void, part.strides[0]))).ravel(), return_inverse=True
        )
        order = np.argsort(bucket_N, kind="stable")
        is_first = np.r_[True, np.diff(bucket_N[order]) != 0]
        first = order[np.maximum.accumulate(np.where(is_first, np.arange(size), 0))]
        later = np.flatnonzero(~is_first)
        keys += [first[later] * size + order[later], order[later - 1] * size + order[later]]
    found = np.unique(np.concatenate(keys))
    return np.stack([found // size, found % size], axis=1)


def _estimates(signatures_NP: NDArray[np.uint32], pairs_P2: Ints) -> Floats:
    """Return the share of equal signature values of each pair, which estimates its similarity."""
    parts = [np.zeros(0)]
    for start in range(0, len(pairs_P2), 100_000):
        first, second = pairs_P2[start : start + 100_000].T
        parts.append((signatures_NP[first] == signatures_NP[second]).mean(axis=1))
    return np.concatenate(parts)


def _similarities(texts: Sequence[str], pairs_P2: Ints) -> Floats:
    """Return the exact Jaccard similarity of each pair."""
    hashes = {int(row): shingle_hashes(texts[row]) for row in np.unique(pairs_P2)}
    pairs = pairs_P2.tolist()
    return np.array([jaccard(hashes[first], hashes[second]) for first, second in pairs], float)
