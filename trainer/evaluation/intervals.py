"""Bootstrap intervals of metrics over the rows of a split.

Legend: N rows, C classes, R models, K kinds of rows, B resamples.

Rows with the same true labels and the same predictions of each model are of one kind. A resample
draws the number of rows of each kind, which costs the same for any number of rows. With one label a
row, every class keeps its number of rows, as in a stratified split, so that no class disappears
from the mean. An interval does not cover training again with another seed.
"""

from dataclasses import dataclass

import numpy as np
import xxhash
from scipy.sparse import csr_array

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.evaluation.blocks import release, row_slices
from trainer.evaluation.confusion import MOST_DENSE

Interval = tuple[float, float]
NUM_RESAMPLES = 1000
LEVEL = 0.95
MOST_COUNTS = 4_000_000
"""Number of counts in memory at once, 32 MB."""


@dataclass(frozen=True)
class Resampled:
    """Metrics of R models on the same B resamples of the rows.

    Attributes:
        f1_BRC, recall_BRC: F1 and recall of each class; NaN where a resample has no row of it.
        accuracy_BR: share of rows whose predicted labels are exactly the true ones.
        micro_f1_BR: F1 over all pairs of a row and a class.
    """

    f1_BRC: Floats
    recall_BRC: Floats
    accuracy_BR: Floats
    micro_f1_BR: Floats

    @property
    def macro_f1_BR(self) -> Floats:
        """Return the mean F1 of the classes that have rows."""
        return np.nanmean(self.f1_BRC, axis=2)

    @property
    def macro_recall_BR(self) -> Floats:
        """Return the mean recall of the classes that have rows."""
        return np.nanmean(self.recall_BRC, axis=2)


def interval(values_B: Floats) -> Interval | None:
    """Return the middle 95 % of resampled values.

    None if there are no values, or all are equal: resampling rows that are all correct, or all
    wrong, does not measure their uncertainty.
    """
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
    """Return the metrics of models on resamples of the rows, drawn with replacement.

    All models see the same resamples, so that their differences are paired.

    Args:
        targets: label id of each row (N,), or its label set (N, C).
        predicted: the same of each model.
    Raises:
        ValueError: there are no rows.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, ch. 13 (percentile
    intervals).
    """
    if len(targets) == 0:
        raise ValueError("no row to draw from")
    if targets.ndim == 1:
        kinds, counts_K = np.unique(
            np.stack([targets, *predicted], axis=1), axis=0, return_counts=True
        )
        sides = [_one_hot(ids_K, num_classes) for ids_K in kinds.T]
        strata_K, blocks = kinds[:, 0], [_block(slice(0, len(kinds)), sides)]
    else:
        first_K, counts_K = _kinds(targets, predicted)
        strata_K, blocks = np.zeros_like(first_K), _sparse_blocks(targets, predicted, first_K)
    size = max(1, MOST_COUNTS // len(counts_K))
    rng = np.random.default_rng(seed)
    parts = [
        _figures(_draw(rng, counts_K, strata_K, min(size, num_resamples - start)), blocks)
        for start in range(0, num_resamples, size)
    ]
    return Resampled(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _kinds(targets: Array, predicted: list[Array]) -> tuple[Ints, Ints]:
    """Return the place of the first row of each kind, and the number of its rows."""
    packed = []
    for rows in row_slices(targets.shape):
        sides = np.stack([targets[rows], *(labels_NC[rows] for labels_NC in predicted)], axis=1)
        bits = np.packbits(sides.reshape(len(sides), -1), axis=1)
        if targets.shape[1] > MOST_DENSE:
            digests = b"".join(xxhash.xxh3_128_digest(row.tobytes()) for row in bits)
            bits = np.frombuffer(digests, np.uint8).reshape(-1, 16)
        packed.append(bits)
        for read in (targets, *predicted):
            release(read)
    _, first_K, counts_K = np.unique(
        np.concatenate(packed), axis=0, return_index=True, return_counts=True
    )
    return first_K, counts_K


def _one_hot(ids_K: Ints, num_classes: int) -> csr_array:
    places = np.arange(len(ids_K)), ids_K
    return csr_array((np.ones(len(ids_K)), places), (len(ids_K), num_classes))


@dataclass(frozen=True)
class _Block:
    """Some kinds of rows.

    Attributes:
        rows: their places among all kinds.
        true_KC: 1 for each true class of a kind.
        given, hits: of each model, 1 for each predicted class, and for each that is true too.
        right: of each model, whether it predicts exactly the true classes.
    """

    rows: slice | Ints
    true_KC: csr_array
    given: list[csr_array]
    hits: list[csr_array]
    right: list[Bools]


def _block(rows: slice | Ints, sides: list[csr_array]) -> _Block:
    """Return a block from the true classes and the predicted classes of each model."""
    true_KC, *given = sides
    hits = [_light(csr_array(true_KC.multiply(given_KC))) for given_KC in given]
    most = [np.maximum(np.diff(true_KC.indptr), np.diff(given_KC.indptr)) for given_KC in given]
    right = [np.diff(both.indptr) == most_K for both, most_K in zip(hits, most, strict=True)]
    return _Block(rows, true_KC, given, hits, right)


def _sparse_blocks(targets: Array, predicted: list[Array], first_K: Ints) -> list[_Block]:
    """Return the blocks of multi-label kinds, given the place of the first row of each.

    They are read in the order of the rows, since a row read from a file loads its neighbours.
    """
    blocks, order = [], np.argsort(first_K)
    for rows in (order[places] for places in row_slices((len(first_K), *targets.shape[1:]))):
        sides = [labels_NC[first_K[rows]] for labels_NC in (targets, *predicted)]
        ones = [_light(csr_array(np.asarray(side_BC).astype(np.bool_))) for side_BC in sides]
        blocks.append(_block(rows, ones))
        for read in (targets, *predicted):
            release(read)
    return blocks


def _light(ones_KC: csr_array) -> csr_array:
    """Return the same array with one shared 1 in memory, so that an entry takes four bytes."""
    light_KC = csr_array(ones_KC.shape)
    light_KC.data = np.broadcast_to(np.float64(1), ones_KC.nnz)
    light_KC.indices, light_KC.indptr = ones_KC.indices, ones_KC.indptr
    return light_KC


def _draw(
    rng: np.random.Generator,
    counts_K: Ints,
    strata_K: Ints,
    num_resamples: int,
) -> Floats:
    """Return the rows of each kind in each resample, (B, K); strata keep their sizes."""
    drawn_BK = np.empty((num_resamples, len(counts_K)))
    for stratum in np.unique(strata_K):
        kinds = np.flatnonzero(strata_K == stratum)
        total = counts_K[kinds].sum()
        drawn_BK[:, kinds] = rng.multinomial(total, counts_K[kinds] / total, size=num_resamples)
    return drawn_BK


def _figures(drawn_BK: Floats, blocks: list[_Block]) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the figures of each resample, as `Resampled` holds them; the sums are exact."""
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
    pairs_BR = given_BRC.sum(axis=2) + support_BC.sum(axis=1, keepdims=True)
    return (
        2 * hits_BRC / (given_BRC + support),
        hits_BRC / support,
        right_BR / drawn_BK.sum(axis=1, keepdims=True),
        2 * hits_BRC.sum(axis=2) / np.maximum(pairs_BR, 1),
    )
