"""Logits and label sets to a MultiLabelEvaluation; NumPy, scikit-learn; no model, no files. Legend: N rows, C labels.

Each label is a question of its own: its probability is the sigmoid of its logit, and a row is given every label whose
probability is at least THRESHOLD. Labels without a row in the split: their precision, recall, F1 and average precision
are 0 with support 0, macro averages leave them out (0 where none is left), and a warning names them.
"""

import warnings
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import average_precision_score, f1_score, hamming_loss, precision_recall_fscore_support

from trainer.errors import listing
from trainer.evaluation.metrics import Evaluation, evaluate_logits
from trainer.evaluation.scores import Bools, assigned


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


def evaluate(logits_NC: NDArray[Any], targets: NDArray[Any], labels: list[str], predicted_N: NDArray[Any] | None = None) -> AnyEvaluation:
    """Evaluation of logits against label ids (N,), or against the labels that each row has (N, C).

    Args:
        predicted_N: label ids decided by another rule than the largest logit, or the labels each row is given (N, C) by another than THRESHOLD.
    """
    if targets.ndim > 1:
        return evaluate_multi_label(logits_NC, targets > 0, labels, predicted_N)
    return evaluate_logits(logits_NC, targets, labels, predicted_N)


def evaluate_multi_label(logits_NC: NDArray[Any], true_NC: Bools, labels: list[str], predicted_NC: Bools | None = None) -> MultiLabelEvaluation:
    """Evaluation of logits, or of the labels that each row is given by another rule, against the labels that each row has.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if logits_NC.shape != true_NC.shape or logits_NC.shape[1:] != (len(labels),) or len(true_NC) == 0:
        raise ValueError(f"logits of shape {logits_NC.shape} for targets of shape {true_NC.shape} and {len(labels)} labels")
    z_NC = logits_NC.astype(np.float64)
    p_NC = expit(z_NC)
    predicted_NC = assigned(z_NC) if predicted_NC is None else predicted_NC
    precision_C, recall_C, f1_C, support_C = precision_recall_fscore_support(true_NC, predicted_NC, average=None, zero_division=0)
    present = np.flatnonzero(support_C)
    if len(present) < len(labels):
        absent = listing(labels[c] for c in np.flatnonzero(support_C == 0))
        warnings.warn(f"no row of {absent} in this split: left out of macro averages; more rows would tell more", stacklevel=2)
    precisions_C = np.array([average_precision_score(true_NC[:, c], p_NC[:, c]) if support_C[c] else 0.0 for c in range(len(labels))])
    macro_f1, weighted_f1 = _mean(f1_C[present]), float(f1_score(true_NC, predicted_NC, average="weighted", zero_division=0))
    columns = {"precision": precision_C, "recall": recall_C, "f1": f1_C, "average_precision": precisions_C}
    return MultiLabelEvaluation(
        num_rows=len(true_NC),
        loss=float((np.logaddexp(0, z_NC) - z_NC * true_NC).mean()),
        accuracy=float((true_NC == predicted_NC).all(axis=1).mean()),
        macro_f1=macro_f1,
        micro_f1=float(f1_score(true_NC, predicted_NC, average="micro", zero_division=0)),
        weighted_f1=weighted_f1,
        samples_f1=float(f1_score(true_NC, predicted_NC, average="samples", zero_division=1)),
        f1_gap=weighted_f1 - macro_f1,
        macro_precision=_mean(precision_C[present]),
        macro_recall=_mean(recall_C[present]),
        mean_average_precision=_mean(precisions_C[present]),
        hamming_loss=float(hamming_loss(true_NC, predicted_NC)),
        labels=list(labels),
        per_class={label: {**{name: float(values_C[c]) for name, values_C in columns.items()}, "support": int(support_C[c])} for c, label in enumerate(labels)},
    )


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else 0.0
