"""How sure a figure is: percentile bootstrap over the rows of a split. Legend: N rows, C classes, R models, K kinds of rows, B resamples.

Rows count by their kind alone (true label, label given by each model), so drawing rows anew is drawing how many there are of
each kind, which costs the same for a thousand rows and for ten million. One label a row: every class keeps its number of rows, as in a
stratified split, so that no class vanishes from the mean. Training again with another seed would vary too; no interval of one run covers that.
"""

from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy.sparse import csr_array

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.evaluation.blocks import release, row_slices
from trainer.evaluation.confusion import MOST_DENSE

Interval = tuple[float, float]
NUM_RESAMPLES = 1000
LEVEL = 0.95
MOST_COUNTS = 4_000_000
"""Counts of rows held at once; 32 MB."""


@dataclass(frozen=True)
class Resampled:
    """Figures of R models on the same B resamples of the rows.

    Attributes:
        f1_BRC: F1 of each class; NaN where a resample has no row of it.
        recall_BRC: the same of recall.
        accuracy_BR: share of rows whose label, or labels, are all right.
    """

    f1_BRC: Floats
    recall_BRC: Floats
    accuracy_BR: Floats

    @property
    def macro_f1_BR(self) -> Floats:
        """Mean over the classes that have rows."""
        return np.nanmean(self.f1_BRC, axis=2)

    @property
    def macro_recall_BR(self) -> Floats:
        """Mean over the classes that have rows."""
        return np.nanmean(self.recall_BRC, axis=2)


def interval(values_B: Floats) -> Interval | None:
    """The middle 95 % of resampled values; None where there are none, or all are equal: rows that are all right, or all wrong, say nothing by being redrawn."""
    known_B = values_B[~np.isnan(values_B)]
    if not len(known_B):
        return None
    low, high = np.quantile(known_B, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return (float(low), float(high)) if low < high else None


def resample(
    targets: Array,
    predicted: list[Array],
    num_classes: int,
    *,
    seed: int = 0,
    num_resamples: int = NUM_RESAMPLES,
) -> Resampled:
    """Figures of models on rows that are drawn anew, with replacement; the same rows for every model, so that differences are paired.

    Args:
        targets: label id of each row (N,), or which labels it has (N, C).
        predicted: the same of each model.
    Raises:
        ValueError: no row.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13 (percentile intervals).
    """
    if len(targets) == 0:
        raise ValueError("no row to draw from")
    if targets.ndim == 1:
        kinds, counts_K = np.unique(
            np.stack([targets, *predicted], axis=1), axis=0, return_counts=True
        )
        strata_K, blocks = (
            kinds[:, 0],
            [_block(slice(0, len(kinds)), [_one_hot(ids_K, num_classes) for ids_K in kinds.T])],
        )
    else:
        first_K, counts_K = _kinds(targets, predicted)
        strata_K = np.zeros(len(first_K), np.int64)
        blocks = _sparse_blocks(targets, predicted, first_K)
    size = max(1, MOST_COUNTS // len(counts_K))
    rng = np.random.default_rng(seed)
    parts = [
        _figures(_draw(rng, counts_K, strata_K, min(size, num_resamples - start)), blocks)
        for start in range(0, num_resamples, size)
    ]
    return Resampled(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _kinds(targets: Array, predicted: list[Array]) -> tuple[Ints, Ints]:
    """Place of the first row of each kind, and how many there are of it."""
    packed = []
    for rows in row_slices(targets.shape):
        sides = np.stack([targets[rows], *(labels_NC[rows] for labels_NC in predicted)], axis=1)
        bits = np.packbits(sides.reshape(len(sides), -1), axis=1)
        packed.append(_digests(bits) if targets.shape[1] > MOST_DENSE else bits)
        for read in (targets, *predicted):
            release(read)
    _, first_K, counts_K = np.unique(
        np.concatenate(packed), axis=0, return_index=True, return_counts=True
    )
    return first_K, counts_K


def _digests(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """16 bytes for each row of many, alike for rows that are alike."""
    return np.frombuffer(
        b"".join(xxhash.xxh3_128_digest(row.tobytes()) for row in bits), np.uint8
    ).reshape(-1, 16)


def _one_hot(ids_K: Ints, num_classes: int) -> csr_array:
    return csr_array(
        (np.ones(len(ids_K)), (np.arange(len(ids_K)), ids_K)), (len(ids_K), num_classes)
    )


@dataclass(frozen=True)
class _Block:
    """Some kinds of rows.

    Attributes:
        rows: their places among all kinds.
        true_KC, given, hits: 1 for each class that a kind has, that each model gives it, and that both do.
        right: whether each model gives a kind what it has.
    """

    rows: slice | Ints
    true_KC: csr_array
    given: list[csr_array]
    hits: list[csr_array]
    right: list[Bools]


def _block(rows: slice | Ints, sides: list[csr_array]) -> _Block:
    """Kinds of the classes that they have, and of those that each model gives them."""
    true_KC, *given = sides
    hits = [_light(csr_array(true_KC.multiply(given_KC))) for given_KC in given]
    most = [np.maximum(np.diff(true_KC.indptr), np.diff(given_KC.indptr)) for given_KC in given]
    return _Block(
        rows,
        true_KC,
        given,
        hits,
        [np.diff(hits_KC.indptr) == most_K for hits_KC, most_K in zip(hits, most, strict=True)],
    )


def _sparse_blocks(targets: Array, predicted: list[Array], first_K: Ints) -> list[_Block]:
    """The kinds of rows of many labels, given the place of the first row of each.

    They are read in the order of the rows: each row that is read of a file brings its neighbours into memory.
    """
    blocks, order = [], np.argsort(first_K)
    for rows in (order[places] for places in row_slices((len(first_K), *targets.shape[1:]))):
        sides = [labels_NC[first_K[rows]] for labels_NC in (targets, *predicted)]
        blocks.append(
            _block(
                rows, [_light(csr_array(np.asarray(side_BC).astype(np.bool_))) for side_BC in sides]
            )
        )
        for read in (targets, *predicted):
            release(read)
    return blocks


def _light(ones_KC: csr_array) -> csr_array:
    """The same ones, of which all share a single number in memory, so that each takes the four bytes of its column."""
    data = np.broadcast_to(np.float64(1), ones_KC.nnz)
    light_KC = csr_array(ones_KC.shape)
    light_KC.data, light_KC.indices, light_KC.indptr = data, ones_KC.indices, ones_KC.indptr
    return light_KC


def _draw(
    rng: np.random.Generator,
    counts_K: Ints,
    strata_K: Ints,
    num_resamples: int,
) -> Floats:
    """Rows of each kind in each resample, (B, K); every stratum keeps its number of rows."""
    drawn_BK = np.empty((num_resamples, len(counts_K)))
    for stratum in np.unique(strata_K):
        kinds = np.flatnonzero(strata_K == stratum)
        total = counts_K[kinds].sum()
        drawn_BK[:, kinds] = rng.multinomial(total, counts_K[kinds] / total, size=num_resamples)
    return drawn_BK


def _figures(drawn_BK: Floats, blocks: list[_Block]) -> tuple[Floats, Floats, Floats]:
    """F1, recall and accuracy of each resample; sums of whole numbers, so exact in any order."""
    num_models, num_classes = len(blocks[0].given), blocks[0].true_KC.shape[1]
    support_BC = np.zeros((len(drawn_BK), num_classes))
    hits_BRC, given_BRC = np.zeros((2, len(drawn_BK), num_models, num_classes))
    right_BR = np.zeros((len(drawn_BK), num_models))
    for block in blocks:
        part_BK = drawn_BK[:, block.rows]
        support_BC += part_BK @ block.true_KC
        for r in range(num_models):
            hits_BRC[:, r] += part_BK @ block.hits[r]
            given_BRC[:, r] += part_BK @ block.given[r]
            right_BR[:, r] += part_BK @ block.right[r]
    support = np.where(support_BC, support_BC, np.nan)[:, None, :]
    return (
        2 * hits_BRC / (given_BRC + support),
        hits_BRC / support,
        right_BR / drawn_BK.sum(axis=1, keepdims=True),
    )
