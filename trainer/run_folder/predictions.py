"""Predictions of a finished run: confidences, answers by label, and the hardest mistakes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainer.arrays import Array, Bools, Ints
from trainer.evaluation.blocks import Rows, Taken, release, row_blocks, row_slices
from trainer.run_folder.prediction_file import Top


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified row; in multi-label data, one wrong answer about one label of a row.

    Attributes:
        row: its number in the order of reading, from 0, as in predictions.parquet.
        label, predicted: the true and the predicted label; in multi-label data, the label in
            question, and 'given' or 'missed'.
        probability: probability of the wrong answer.
        true_probability: probability of the right answer.
    """

    row: int
    label: str
    predicted: str
    probability: float
    true_probability: float


@dataclass(frozen=True)
class Predictions:
    """Predictions on the rows of one split. N rows, C labels.

    Attributes:
        targets, predicted: label ids (N,); in multi-label data, flags of each label (N, C).
        p_NC: probabilities with the decision; None if only the largest were kept.
        top: the largest probabilities, if only these were kept.
    """

    rows_N: Ints
    targets: Array
    predicted: Array
    p_NC: Rows | None
    top: Top | None = None

    @property
    def num_wrong(self) -> int:
        """Number of wrong rows; in multi-label data, of wrong answers."""
        return sum(
            int((self.targets[rows] != self.predicted[rows]).sum()) for rows in self._blocks()
        )

    @property
    def knows_confidences(self) -> bool:
        """Whether `confidences` has what it needs: all probabilities of multi-label data."""
        return self.p_NC is not None or (self.top is not None and self.targets.ndim == 1)

    def confidences(self) -> Iterator[tuple[Array, Bools]]:
        """Yield (confidence, whether it was right) in blocks.

        This is the probability of each row's most probable class. In multi-label data, each label
        of a row is an answer of its own, which is yes from a probability of 0.5.
        """
        if self.p_NC is None:
            assert self.top is not None
            yield self.top.p_NK[:, 0], self.top.ids_NK[:, 0] == self.targets
            return
        for rows, p_BC in row_blocks(self.p_NC):
            if self.targets.ndim > 1:
                yield (
                    np.maximum(p_BC, 1 - p_BC).ravel(),
                    ((p_BC >= 0.5) == self.targets[rows]).ravel(),
                )
                release(self.targets)
            else:
                yield p_BC.max(axis=1), p_BC.argmax(axis=1) == self.targets[rows]

    def answers(self) -> tuple[Ints, Ints, Ints]:
        """Return how often each label is rightly given, missed and wrongly given (multi-label)."""
        right_C, missed_C, wrong_C = np.zeros((3, self.targets.shape[1]), np.int64)
        for rows in self._blocks():
            true_BC, given_BC = self.targets[rows], self.predicted[rows]
            right_C += (true_BC & given_BC).sum(axis=0)
            missed_C += (true_BC & ~given_BC).sum(axis=0)
            wrong_C += (~true_BC & given_BC).sum(axis=0)
        return right_C, missed_C, wrong_C

    def hardest(self, labels: list[str], most: int) -> list[Mistake]:
        """Return the most confident mistakes, the most confident first."""
        if self.targets.ndim == 1:
            wrong = np.flatnonzero(self.targets != self.predicted)
            sure, true_p = self._p_of(self.predicted, wrong), self._p_of(self.targets, wrong)
            order = np.argsort(-sure, kind="stable")[:most]
            given, true = self.predicted[wrong[order]], self.targets[wrong[order]]
            rows = zip(
                self.rows_N[wrong[order]], true, given, sure[order], true_p[order], strict=True
            )
            return [
                Mistake(int(row), labels[t], labels[g], float(p), float(p_true))
                for row, t, g, p, p_true in rows
            ]
        rows_M, ids_M, sure_M, is_given_M = self._wrong_answers(most)
        order = np.lexsort((ids_M, rows_M, -sure_M))[:most]
        words = {True: "given", False: "missed"}
        answers = zip(
            self.rows_N[rows_M[order]], ids_M[order], is_given_M[order], sure_M[order], strict=True
        )
        return [
            Mistake(int(row), labels[c], words[bool(is_given)], float(p), float(1 - p))
            for row, c, is_given, p in answers
        ]

    def _p_of(self, ids_N: Ints, rows: Ints) -> Array:
        """Return the probability of the true or of the predicted class of some rows."""
        if self.p_NC is None:
            assert self.top is not None
            return (self.top.true_p_N if ids_N is self.targets else self.top.predicted_p_N)[rows]
        chosen = Taken(self.p_NC, rows)
        blocks = [
            p_BC[np.arange(len(p_BC)), ids_N[rows[places]]] for places, p_BC in row_blocks(chosen)
        ]
        return np.concatenate([np.empty(0, np.float32), *blocks])

    def _wrong_answers(self, most: int) -> tuple[Array, ...]:
        """Return the most confident wrong answers.

        Returns:
            (row, label id, probability of the wrong answer, whether the label was given).
        """
        parts = []
        for rows in self._blocks():
            rows_M, ids_M = np.nonzero(self.targets[rows] != self.predicted[rows])
            is_given_M = self.predicted[rows][rows_M, ids_M]
            p_M = (
                self.p_NC[rows][rows_M, ids_M]
                if self.p_NC is not None
                else self._kept_p(rows, rows_M, ids_M, is_given_M)
            )
            sure_M = np.where(is_given_M, p_M, 1 - p_M)
            first = np.argsort(-sure_M, kind="stable")[:most]
            parts.append(
                (rows_M[first] + rows.start, ids_M[first], sure_M[first], is_given_M[first])
            )
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _kept_p(self, rows: slice, rows_M: Ints, ids_M: Ints, is_given_M: Bools) -> Array:
        """Return kept probabilities of wrong answers: their label is true or predicted."""
        assert self.top is not None
        p_BC = np.zeros(self.targets[rows].shape, np.float32)
        for held_NC, kept_N in (
            (self.targets, self.top.true_p_N),
            (self.predicted, self.top.predicted_p_N),
        ):
            p_BC[held_NC[rows]] = np.concatenate([np.empty(0, np.float32), *kept_N[rows]])
        return p_BC[rows_M, ids_M]

    def _blocks(self) -> Iterator[slice]:
        for rows in row_slices(self.targets.shape):
            yield rows
            for read in (self.targets, self.predicted, self.p_NC):
                release(read)
