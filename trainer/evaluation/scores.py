"""Turn logits into log probabilities and multi-label predictions. Legend: N rows, C classes.

This module needs only NumPy and SciPy, because prediction imports it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit

from trainer.arrays import Array, Bools, Floats, Floats32, Ints
from trainer.evaluation.blocks import Rows, Taken, column, column_blocks, release, row_slices

THRESHOLD = 0.5
"""Smallest probability at which a multi-label row gets a label."""


def log_softmax(logits_NC: Array) -> Floats:
    """Return the log probabilities of classes, in float64."""
    shifted = logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_sigmoid(logits_NC: Array) -> Floats:
    """Return the log probability of each label, in float64."""
    return -np.logaddexp(0, -logits_NC.astype(np.float64))


def log_odds(log_p: Floats) -> Floats:
    """Return log p - log(1 - p) of log probabilities; infinite for p = 0 and p = 1."""
    with np.errstate(divide="ignore"):
        return log_p - np.log(-np.expm1(log_p))


def assigned(logits_NC: Array) -> Bools:
    """Return which labels each row gets, (N, C)."""
    return expit(logits_NC.astype(np.float64)) >= THRESHOLD


def check_label_ids(name: str, label_ids_N: Array, num_labels: int) -> None:
    """Raise ValueError for label ids that are no whole numbers in [0, C).

    Args:
        name: of the argument, for the message.
    """
    if label_ids_N.dtype.kind not in "iu":
        found = "text" if label_ids_N.dtype.kind in "OUST" else label_ids_N.dtype
        raise ValueError(f"{name} holds {found}; give label ids, the places of names in labels")
    lowest, highest = label_ids_N.min(initial=0), label_ids_N.max(initial=0)
    if lowest < 0 or highest >= num_labels:
        raise ValueError(
            f"{name} holds the ids {lowest} to {highest}; {num_labels} labels have the ids 0 to"
            f" {num_labels - 1}"
        )


class Correction(NamedTuple):
    """The correction that a decision applies to scores: z / temperature + shift."""

    temperature: float
    shift_C: Floats


@dataclass(frozen=True)
class LogProbabilities:
    """Log probabilities (N, C) in float64, computed from scores when they are read.

    `np.asarray` computes all of them at once.

    Attributes:
        source: logits, or log probabilities (N, C).
        corrections: corrections to apply to the scores first, if any.
        fold_N: index of the correction of each row; None if all rows have the first one.
        multi_label: whether each label has a probability of its own.
    """

    source: Rows
    corrections: tuple[Correction, ...] = ()
    fold_N: Ints | None = None
    multi_label: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and classes."""
        return self.source.shape

    def __len__(self) -> int:
        return self.source.shape[0]

    def __getitem__(self, rows: Any) -> Floats:
        scores_BC = self._corrected(np.asarray(self.source[rows]), rows)
        return log_sigmoid(scores_BC) if self.multi_label else log_softmax(scores_BC)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self[:], dtype)

    def corrected_scores(self, key: Any) -> Array:
        """Return the corrected scores of some rows, or of some rows and columns."""
        rows, columns = key if isinstance(key, tuple) else (key, slice(None))
        return self._corrected(np.asarray(self.source[rows]), rows)[:, columns]

    def take(self, rows: Ints) -> "LogProbabilities":
        """Return the log probabilities of some rows."""
        fold_N = None if self.fold_N is None else self.fold_N[rows]
        return replace(self, source=Taken(self.source, rows), fold_N=fold_N)

    def blocks(self, block_bytes: int | None = None) -> Iterator[tuple[slice, Floats]]:
        """Yield (slice, log probabilities) of each block of rows, see `row_slices`."""
        for rows in row_slices(self.shape, block_bytes):
            yield rows, self[rows]
            release(self.source)

    def columns(self, class_ids: list[int] | None = None) -> Iterator[tuple[int, Floats]]:
        """Yield (class id, log probabilities of all rows) of each class, or of some."""
        if class_ids is not None:
            for c in class_ids:
                yield c, self._column(column(self.source, c)[:, None], c)
            return
        for start, block_NB in column_blocks(self.source):
            for place in range(block_NB.shape[1]):
                yield start + place, self._column(block_NB[:, place : place + 1], start + place)

    def _column(self, scores_N1: Array, c: int) -> Floats:
        scores_N1 = self._corrected(scores_N1, slice(None), slice(c, c + 1))
        if self.multi_label:
            return log_sigmoid(scores_N1)[:, 0]
        most_N, log_sum_N = self._normalisers
        return (scores_N1[:, 0].astype(np.float64) - most_N) - log_sum_N

    @cached_property
    def _normalisers(self) -> tuple[Array, Floats]:
        """Return the largest score of each row, and the log of the sum of exp(score - largest)."""
        most_N, log_sum_N = np.empty(len(self)), np.empty(len(self))
        for rows in row_slices(self.shape):
            scores_BC = self._corrected(np.asarray(self.source[rows]), rows)
            most_N[rows] = scores_BC.max(axis=1)
            shifted_BC = scores_BC.astype(np.float64) - scores_BC.max(axis=1, keepdims=True)
            log_sum_N[rows] = np.log(np.exp(shifted_BC).sum(axis=1))
            release(self.source)
        return most_N, log_sum_N

    def _corrected(self, scores_BC: Array, rows: Any, columns: slice = slice(None)) -> Array:
        if not self.corrections:
            return scores_BC
        if self.fold_N is None:
            return corrected(scores_BC, self.corrections[0], columns)
        folds_B, found_BC = self.fold_N[rows], np.empty(scores_BC.shape)
        for fold in np.unique(folds_B):
            is_in = folds_B == fold
            found_BC[is_in] = corrected(scores_BC[is_in], self.corrections[fold], columns)
        return found_BC


@dataclass(frozen=True)
class CorrectedScores:
    """Corrected scores (N, C), computed when they are read."""

    source: LogProbabilities

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and classes."""
        return self.source.shape

    def __getitem__(self, key: Any) -> Array:
        return self.source.corrected_scores(key)


@dataclass(frozen=True)
class Probabilities:
    """Probabilities (N, C) in float32 as in predictions.parquet, computed when they are read."""

    source: LogProbabilities

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the numbers of rows and classes."""
        return self.source.shape

    def __getitem__(self, rows: Any) -> Floats32:
        return np.exp(self.source[rows]).astype(np.float32)


def corrected(logits_NC: Array, correction: Correction, columns: slice = slice(None)) -> Floats:
    """Return logits, or some columns of them, after the correction."""
    return logits_NC.astype(np.float64) / correction.temperature + correction.shift_C[columns]


def as_log_probabilities(scores_NC: Rows) -> LogProbabilities:
    """Return scores of single-label rows as LogProbabilities."""
    return scores_NC if isinstance(scores_NC, LogProbabilities) else LogProbabilities(scores_NC)


def over_classes(per_class: dict[str, dict[str, float]]) -> str:
    """Return ' over 46 of 52 classes' if macro averages omit classes without rows, or ''.

    Rows with several labels have figures of labels, not of classes.
    """
    measured = sum(values["support"] > 0 for values in per_class.values())
    kinds = "labels" if any("average_precision" in of for of in per_class.values()) else "classes"
    return "" if measured == len(per_class) else f" over {measured} of {len(per_class)} {kinds}"
