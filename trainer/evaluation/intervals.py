"""How sure a figure is: percentile bootstrap over the rows of a split. Legend: N rows, C classes, R models, K kinds of rows, B resamples.

Rows count by their kind alone (true label, label given by each model), so drawing rows anew is drawing how many there are of
each kind, which costs the same for a thousand rows and for ten million. One label a row: every class keeps its number of rows, as in a
stratified split, so that no class vanishes from the mean. Training again with another seed would vary too; no interval of one run covers that.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack

from trainer.evaluation.blocks import Taken, release, row_blocks, row_slices
from trainer.evaluation.confusion import MOST_DENSE

Floats = NDArray[np.float64]
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


def resample(targets: NDArray[Any], predicted: list[NDArray[Any]], num_classes: int, *, seed: int = 0, num_resamples: int = NUM_RESAMPLES) -> Resampled:
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
        kinds, counts_K = np.unique(np.stack([targets, *predicted], axis=1), axis=0, return_counts=True)
        strata_K, sides = kinds[:, 0], [_one_hot(ids_K, num_classes) for ids_K in kinds.T]
    else:
        first_K, counts_K = _kinds(targets, predicted)
        strata_K = np.zeros(len(first_K), np.int64)
        sides = [_sparse_rows(labels_NC, first_K) for labels_NC in (targets, *predicted)]
    size = max(1, MOST_COUNTS // len(counts_K))
    rng = np.random.default_rng(seed)
    parts = [_figures(_draw(rng, counts_K, strata_K, min(size, num_resamples - start)), sides) for start in range(0, num_resamples, size)]
    return Resampled(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _kinds(targets: NDArray[Any], predicted: list[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Place of the first row of each kind, and how many there are of it."""
    packed = []
    for rows in row_slices(targets.shape):
        sides = np.stack([targets[rows], *(labels_NC[rows] for labels_NC in predicted)], axis=1)
        bits = np.packbits(sides.reshape(len(sides), -1), axis=1)
        packed.append(_digests(bits) if targets.shape[1] > MOST_DENSE else bits)
        for read in (targets, *predicted):
            release(read)
    _, first_K, counts_K = np.unique(np.concatenate(packed), axis=0, return_index=True, return_counts=True)
    return first_K, counts_K


def _digests(bits: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """16 bytes for each row of many, alike for rows that are alike."""
    return np.frombuffer(b"".join(xxhash.xxh3_128_digest(row.tobytes()) for row in bits), np.uint8).reshape(-1, 16)


def _one_hot(ids_K: NDArray[np.int64], num_classes: int) -> csr_array:
    return csr_array((np.ones(len(ids_K)), (np.arange(len(ids_K)), ids_K)), (len(ids_K), num_classes))


def _sparse_rows(labels_NC: NDArray[Any], rows: NDArray[np.int64]) -> csr_array:
    """Some rows with 1 for each label that they have."""
    chosen, parts = Taken(labels_NC, rows), []
    for _, block_BC in row_blocks(chosen):
        parts.append(csr_array(np.asarray(block_BC).astype(np.float64)))
    return csr_array(vstack(parts))


def _draw(rng: np.random.Generator, counts_K: NDArray[np.int64], strata_K: NDArray[np.int64], num_resamples: int) -> Floats:
    """Rows of each kind in each resample, (B, K); every stratum keeps its number of rows."""
    drawn_BK = np.empty((num_resamples, len(counts_K)))
    for stratum in np.unique(strata_K):
        kinds = np.flatnonzero(strata_K == stratum)
        total = counts_K[kinds].sum()
        drawn_BK[:, kinds] = rng.multinomial(total, counts_K[kinds] / total, size=num_resamples)
    return drawn_BK


def _figures(drawn_BK: Floats, sides: list[csr_array]) -> tuple[Floats, Floats, Floats]:
    """F1, recall and accuracy of each resample.

    Args:
        sides: which classes each kind has, and which each model gives it, (K, C); sums of whole numbers, so exact in any order.
    """
    true_KC, *given = sides
    hits = [true_KC.multiply(given_KC) for given_KC in given]
    right = [np.asarray(abs(true_KC - given_KC).sum(axis=1) == 0).ravel() for given_KC in given]
    support_BC = drawn_BK @ true_KC
    hits_BRC, given_BRC = (np.stack([drawn_BK @ of_KC.tocsr() for of_KC in several], axis=1) for several in (hits, given))
    right_BR = np.stack([drawn_BK @ right_K for right_K in right], axis=1)
    support = np.where(support_BC, support_BC, np.nan)[:, None, :]
    return 2 * hits_BRC / (given_BRC + support), hits_BRC / support, right_BR / drawn_BK.sum(axis=1, keepdims=True)
