"""Evaluate multi-label predictions, and choose the evaluation of a split. Legend: N rows, C labels.

The probability of a label is the sigmoid of its logit. A row gets every label whose probability is
at least THRESHOLD. Labels without rows have precision, recall, F1 and average precision of 0 and
support 0. Macro averages omit them (they are 0 if no label is left), and a warning names them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import expit

from trainer.arrays import Array, Bools, Floats
from trainer.evaluation.blocks import Rows, column_blocks, release, room, row_blocks, row_slices
from trainer.evaluation.metrics import Evaluation, by_class, evaluate_logits, present_classes
from trainer.evaluation.ranking import average_precision
from trainer.evaluation.scores import assigned, check_label_ids


@dataclass(frozen=True)
class MultiLabelEvaluation:
    """The metrics of one multi-label split, under the names of metrics.json.

    Attributes:
        loss: binary cross-entropy in nats without positive weights, mean over rows and labels.
        accuracy: subset accuracy, the share of rows whose predicted labels are exactly the true.
        macro_f1: mean of the labels' F1; weighted_f1: the same, weighted by support.
        micro_f1: F1 over all pairs of a row and a label.
        samples_f1: mean of the rows' F1; a row without true and predicted labels counts 1.
        mean_average_precision: mean over labels of the average precision; needs no threshold.
        hamming_loss: share of wrong pairs of a row and a label.
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
        """Return the values for metrics.json."""
        return dict(vars(self))


AnyEvaluation = Evaluation | MultiLabelEvaluation


def evaluate(
    logits_NC: Rows | ArrayLike,
    targets: ArrayLike,
    labels: Sequence[str],
    predicted: ArrayLike | None = None,
) -> AnyEvaluation:
    """Return the evaluation of logits against label ids (N,) or against label sets (N, C).

    Args:
        logits_NC: logits or log probabilities.
        targets: true label ids (N,), or label sets (N, C) of 0 and 1.
        labels: the class names, in the order of the logits.
        predicted: predicted label ids (N,) or label sets (N, C). If they are not given, the largest
            logit decides, or for label sets a probability of 0.5.
    Returns:
        An Evaluation; a MultiLabelEvaluation for label sets.
    Raises:
        ValueError: there are no rows, the shapes do not fit, or a label id is no class.

    Example:
        >>> evaluate([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], [0, 1, 1], ["common", "rare"]).macro_f1
        0.6666666666666666
    """
    scores_NC, true, decided = map(_as_array, (logits_NC, targets, predicted))
    if true.ndim > 1:
        return evaluate_multi_label(scores_NC, true, list(labels), decided)
    check_label_ids("targets", true, len(labels))
    if decided is not None:
        check_label_ids("predicted", decided, len(labels))
    return evaluate_logits(scores_NC, true, list(labels), decided)


def _as_array(values: Any) -> Any:
    """Return a list, a tensor or a column as an array, and rows that are read later as they are."""
    is_other = isinstance(values, Sequence) or hasattr(values, "to_numpy")
    return np.asarray(values) if is_other or hasattr(values, "detach") else values


def assigned_rows(logits_NC: Rows, folder: Path | None = None) -> Bools:
    """Return which labels each row gets, (N, C), computed a block at a time.

    Args:
        folder: see `blocks.room`.
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
        hits_C, given_C, support_C: number of rows with the label that get it, of rows that get it,
            and of rows with it.
        loss: sum over rows and labels.
        num_exact: number of rows with exactly the true labels.
        samples_f1: sum over rows.
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
    """Return the evaluation of logits, or of predicted label sets, against the true label sets.

    Raises:
        ValueError: there are no rows, or the shapes do not fit.
    """
    num_rows = len(targets_NC)
    if not logits_NC.shape == targets_NC.shape == (num_rows, len(labels)) or num_rows == 0:
        raise ValueError(
            f"logits of shape {logits_NC.shape} for targets of shape {targets_NC.shape} and "
            f"{len(labels)} labels"
        )
    sums = _count(logits_NC, targets_NC, predicted_NC)
    hits_C, given_C, support_C = sums.hits_C, sums.given_C, sums.support_C
    columns = {
        "precision": _ratio(hits_C, given_C),
        "recall": _ratio(hits_C, support_C),
        "f1": _ratio(2 * hits_C, given_C + support_C),
        "average_precision": _average_precisions(logits_NC, targets_NC),
    }
    present = present_classes(support_C, labels)
    macro = {
        name: float(values_C[present].mean()) if len(present) else 0.0
        for name, values_C in columns.items()
    }
    weighted_f1 = float(columns["f1"] @ support_C / max(support_C.sum(), 1))
    hits, total = float(hits_C.sum()), float(given_C.sum() + support_C.sum())
    return MultiLabelEvaluation(
        num_rows=num_rows,
        loss=sums.loss / (num_rows * len(labels)),
        accuracy=sums.num_exact / num_rows,
        macro_f1=macro["f1"],
        micro_f1=2 * hits / total if total else 0.0,
        weighted_f1=weighted_f1,
        samples_f1=sums.samples_f1 / num_rows,
        f1_gap=weighted_f1 - macro["f1"],
        macro_precision=macro["precision"],
        macro_recall=macro["recall"],
        mean_average_precision=macro["average_precision"],
        hamming_loss=(total - 2 * hits) / (num_rows * len(labels)),
        labels=list(labels),
        per_class=by_class(labels, columns, support_C),
    )


def _count(logits_NC: Rows, targets_NC: Array, predicted_NC: Bools | None) -> _Counts:
    """Return the sums over rows, computed in one pass."""
    hits_C, given_C, support_C = np.zeros((3, logits_NC.shape[1]))
    loss, num_exact, samples_f1 = 0.0, 0, 0.0
    for rows in row_slices(logits_NC.shape):
        z_BC = np.asarray(logits_NC[rows]).astype(np.float64)
        true_BC = np.asarray(targets_NC[rows]) > 0
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
    """Return the average precision of each label, 0 for labels without rows."""
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
