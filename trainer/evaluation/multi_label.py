"""Logits and label sets to a MultiLabelEvaluation; NumPy, scikit-learn; no model, no files. Legend: N rows, C labels.

Each label is a question of its own: its probability is the sigmoid of its logit, and a row is given every label whose
probability is at least THRESHOLD. Labels without a row in the split: their precision, recall, F1 and average precision
are 0 with support 0, macro averages leave them out (0 where none is left), and a warning names them.
"""

import warnings
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from trainer.arrays import Array, Bools, Floats
from trainer.errors import listing
from trainer.evaluation.blocks import Rows, column_blocks, release, room, row_blocks, row_slices
from trainer.evaluation.metrics import Evaluation, evaluate_logits
from trainer.evaluation.ranking import average_precision
from trainer.evaluation.scores import LogProbabilities, assigned


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """What a model did on one split of rows with any number of labels.

    Attributes:
        loss: binary cross-entropy in nats without positive weights, mean over rows and labels.
        accuracy: subset accuracy, the share of rows whose labels are all right and none too many.
        macro_f1: unweighted mean of the labels' F1; micro_f1: F1 over all pairs of row and label at once;
            weighted_f1: mean by support; samples_f1: mean of the rows' F1, 1 for a row without labels that is given none.
        mean_average_precision: mean over labels of the average precision, which needs no threshold.
        hamming_loss: share of the pairs of row and label that are wrong.
        per_class: {label: {precision, recall, f1, average_precision, support}}.
    """

    num_rows: int
    loss: float
    accuracy: float
    macro_f1: float
    micro_f1: float
    weighted_f1: float
    samples_f1: float
    f1_gap: float
    macro_precision: float
    macro_recall: float
    mean_average_precision: float
    hamming_loss: float
    labels: list[str]
    per_class: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the names that metrics.json documents."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


AnyEvaluation = Evaluation | MultiLabelEvaluation


def evaluate(
    logits_NC: Rows | LogProbabilities,
    targets: Array,
    labels: list[str],
    predicted_N: Array | None = None,
) -> AnyEvaluation:
    """Evaluation of logits against label ids (N,), or against the labels that each row has (N, C).

    Args:
        predicted_N: label ids decided by another rule than the largest logit, or the labels each row is given (N, C) by another than THRESHOLD.
    """
    if targets.ndim > 1:
        return evaluate_multi_label(logits_NC, targets, labels, predicted_N)
    return evaluate_logits(logits_NC, targets, labels, predicted_N)


def assigned_rows(logits_NC: Rows, folder: Path | None = None) -> Bools:
    """Which labels each row is given, (N, C), found a block at a time.

    Args:
        folder: as of `blocks.room`.
    """
    given_NC: Bools = room(logits_NC.shape, np.bool_, folder)
    for rows, block_BC in row_blocks(logits_NC):
        given_NC[rows] = assigned(block_BC)
        release(given_NC)
    return given_NC


@dataclass(frozen=True)
class _Counts:
    """Sums over rows.

    Attributes:
        hits_C, given_C, support_C: rows that have the label and are given it, that are given it, that have it.
        loss: summed over rows and labels.
        num_exact: rows whose labels are all right.
        samples_f1: summed over rows.
    """

    hits_C: Floats
    given_C: Floats
    support_C: Floats
    loss: float
    num_exact: int
    samples_f1: float


def evaluate_multi_label(
    logits_NC: Rows, targets_NC: Array, labels: list[str], predicted_NC: Bools | None = None
) -> MultiLabelEvaluation:
    """Evaluation of logits, or of the labels that each row is given by another rule, against the labels that each row has.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if (
        logits_NC.shape != targets_NC.shape
        or logits_NC.shape[1:] != (len(labels),)
        or len(targets_NC) == 0
    ):
        raise ValueError(
            f"logits of shape {logits_NC.shape} for targets of shape {targets_NC.shape} and {len(labels)} labels"
        )
    sums, num_rows = _count(logits_NC, targets_NC, predicted_NC), len(targets_NC)
    precision_C, recall_C = _ratio(sums.hits_C, sums.given_C), _ratio(sums.hits_C, sums.support_C)
    f1_C = _ratio(2 * sums.hits_C, sums.given_C + sums.support_C)
    present = np.flatnonzero(sums.support_C)
    if len(present) < len(labels):
        absent = listing(labels[c] for c in np.flatnonzero(sums.support_C == 0))
        warnings.warn(
            f"no row of {absent} in this split: left out of macro averages; more rows would tell more",
            stacklevel=2,
        )
    precisions_C = _average_precisions(logits_NC, targets_NC)
    macro_f1, weighted_f1 = (
        _mean(f1_C[present]),
        float(_ratio(np.array([f1_C @ sums.support_C]), np.array([sums.support_C.sum()]))[0]),
    )
    hits, given, support = (
        float(sums_C.sum()) for sums_C in (sums.hits_C, sums.given_C, sums.support_C)
    )
    columns = {
        "precision": precision_C,
        "recall": recall_C,
        "f1": f1_C,
        "average_precision": precisions_C,
    }
    return MultiLabelEvaluation(
        num_rows=num_rows,
        loss=sums.loss / (num_rows * len(labels)),
        accuracy=sums.num_exact / num_rows,
        macro_f1=macro_f1,
        micro_f1=2 * hits / (given + support) if given + support else 0.0,
        weighted_f1=weighted_f1,
        samples_f1=sums.samples_f1 / num_rows,
        f1_gap=weighted_f1 - macro_f1,
        macro_precision=_mean(precision_C[present]),
        macro_recall=_mean(recall_C[present]),
        mean_average_precision=_mean(precisions_C[present]),
        hamming_loss=(given + support - 2 * hits) / (num_rows * len(labels)),
        labels=list(labels),
        per_class={
            label: {
                **{name: float(values_C[c]) for name, values_C in columns.items()},
                "support": int(sums.support_C[c]),
            }
            for c, label in enumerate(labels)
        },
    )


def _count(logits_NC: Rows, targets_NC: Array, predicted_NC: Bools | None) -> _Counts:
    """What the figures of labels and rows are made of, in one reading of the rows."""
    hits_C, given_C, support_C = np.zeros((3, logits_NC.shape[1]))
    loss, num_exact, samples_f1 = 0.0, 0, 0.0
    for rows in row_slices(logits_NC.shape):
        z_BC, true_BC = (
            np.asarray(logits_NC[rows]).astype(np.float64),
            np.asarray(targets_NC[rows]) > 0,
        )
        given_BC = assigned(z_BC) if predicted_NC is None else np.asarray(predicted_NC[rows])
        both_BC = true_BC & given_BC
        hits_B, all_B = both_BC.sum(axis=1), given_BC.sum(axis=1) + true_BC.sum(axis=1)
        hits_C += both_BC.sum(axis=0)
        given_C += given_BC.sum(axis=0)
        support_C += true_BC.sum(axis=0)
        loss += float((np.logaddexp(0, z_BC) - z_BC * true_BC).sum())
        num_exact += int((2 * hits_B == all_B).sum())
        samples_f1 += float(np.where(all_B, 2 * hits_B / np.maximum(all_B, 1), 1).sum())
        for read in (logits_NC, targets_NC, predicted_NC):
            release(read)
    return _Counts(hits_C, given_C, support_C, loss, num_exact, samples_f1)


def _average_precisions(logits_NC: Rows, targets_NC: Array) -> Floats:
    """Average precision of each label, 0 without rows of it; a block of columns at a time."""
    found_C = np.zeros(logits_NC.shape[1])
    for (start, logits_NB), (_, targets_NB) in zip(
        column_blocks(logits_NC), column_blocks(targets_NC), strict=True
    ):
        for place in range(logits_NB.shape[1]):
            is_own_N = targets_NB[:, place] > 0
            if is_own_N.any():
                found_C[start + place] = average_precision(
                    is_own_N, expit(logits_NB[:, place].astype(np.float64))
                )
    return found_C


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else 0.0
