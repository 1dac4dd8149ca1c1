"""Evaluate single-label predictions and probabilities. Legend: N rows, C classes.

Classes without rows have precision, recall and F1 of 0 and support 0. Macro averages omit them, and
a warning names them. AUROC is the mean over the classes that have rows and are not all rows; it is
0.5 if there is no such class. MCC is 0 where it is undefined.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np

from trainer.arrays import Array, Floats, Ints
from trainer.errors import listing
from trainer.evaluation.blocks import Rows, largest
from trainer.evaluation.confusion import Confusion
from trainer.evaluation.ranking import auroc
from trainer.evaluation.scores import LogProbabilities, as_log_probabilities

NUM_BINS = 15
Bin = tuple[float, float, int]


@dataclass(frozen=True)
class Evaluation:
    """The metrics of one split, under the names of metrics.json.

    Attributes:
        loss: unweighted cross-entropy in nats, mean over rows.
        f1_gap: weighted F1 minus macro F1. A large gap means that large classes hide weak ones.
        balanced_accuracy: macro recall, the name that scikit-learn uses.
        confusion_matrix: rows are true classes, columns predicted ones, see `Confusion.plain`.
        per_class: {label: {precision, recall, f1, support}}.
        auroc_macro: one-vs-rest, mean over classes.
        ece: expected calibration error of the largest probability, see `calibration_bins`.
        brier: squared distance between the probabilities and the one-hot true class, summed over
            classes, mean over rows; between 0 and 2.
    """

    num_rows: int
    loss: float
    accuracy: float
    macro_f1: float
    weighted_f1: float
    f1_gap: float
    macro_precision: float
    macro_recall: float
    balanced_accuracy: float
    mcc: float
    auroc_macro: float
    ece: float
    brier: float
    labels: list[str]
    confusion_matrix: list[list[int]] | dict[str, Any]
    per_class: dict[str, dict[str, float]]

    def to_dict(self) -> dict[str, Any]:
        """Return the values for metrics.json."""
        return dict(vars(self))


class ImbalancedClassification(evaluate.Metric):
    """An `evaluate.Metric` of all values of an Evaluation; needs no network.

    compute(predictions=label ids, references=label ids, log_probabilities=(N, C), labels=names)
    returns a dict with the fields of Evaluation.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, macro and weighted F1, balanced accuracy, MCC, AUROC, "
            "calibration and per-class metrics.",
            citation="",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self, predictions: Any, references: Any, log_probabilities: Rows, labels: list[str]
    ) -> dict[str, Any]:
        true_N, log_p_NC = np.asarray(references), as_log_probabilities(log_probabilities)
        confusion = Confusion.count(true_N, np.asarray(predictions), len(labels))
        hits_C, support_C, f1_C = confusion.hits_C, confusion.support_C, confusion.f1_C
        precision_C = hits_C / np.maximum(confusion.given_C, 1)
        recall_C = hits_C / np.maximum(support_C, 1)
        present = present_classes(support_C, labels)
        macro_f1, macro_recall = float(f1_C[present].mean()), float(recall_C[present].mean())
        weighted_f1 = float(np.average(f1_C, weights=support_C))
        loss_N, brier_N, bins = _by_row(log_p_NC, true_N)
        columns = {"precision": precision_C, "recall": recall_C, "f1": f1_C}
        return {
            "num_rows": len(true_N),
            "loss": float(loss_N.mean()),
            "accuracy": float(hits_C.sum() / len(true_N)),
            "macro_f1": macro_f1,
            "weighted_f1": weighted_f1,
            "f1_gap": weighted_f1 - macro_f1,
            "macro_precision": float(precision_C[present].mean()),
            "macro_recall": macro_recall,
            "balanced_accuracy": macro_recall,
            "mcc": confusion.mcc,
            "auroc_macro": _auroc_macro(true_N, log_p_NC, support_C),
            "ece": sum(n * abs(confidence - right) for confidence, right, n in bins) / len(true_N),
            "brier": float(brier_N.mean()),
            "labels": list(labels),
            "confusion_matrix": confusion.plain(),
            "per_class": by_class(labels, columns, support_C),
        }


def evaluate_logits(
    logits_NC: Rows, label_ids_N: Ints, labels: list[str], predicted_N: Ints | None = None
) -> Evaluation:
    """Return the evaluation of logits or log probabilities.

    Args:
        predicted_N: predicted label ids; the largest logit decides if they are not given.
    Raises:
        ValueError: there are no rows, or the shapes do not fit.
    """
    if logits_NC.shape != (len(label_ids_N), len(labels)) or len(label_ids_N) == 0:
        raise ValueError(
            f"logits of shape {logits_NC.shape} for {len(label_ids_N)} rows and "
            f"{len(labels)} labels"
        )
    values = ImbalancedClassification(keep_in_memory=True).compute(
        predictions=largest(logits_NC) if predicted_N is None else predicted_N,
        references=label_ids_N,
        log_probabilities=logits_NC,
        labels=labels,
    )
    return Evaluation(**values)


def present_classes(support_C: Array, labels: list[str]) -> Ints:
    """Return the ids of the classes that have rows; warn if some have none."""
    if absent := [label for label, rows in zip(labels, support_C, strict=True) if not rows]:
        warnings.warn(
            f"This split has no row of {listing(absent)}; macro averages leave these classes out.",
            stacklevel=2,
        )
    return np.flatnonzero(support_C)


def by_class(
    labels: list[str], columns: dict[str, Floats], support_C: Array
) -> dict[str, dict[str, float]]:
    """Return {label: {name of each column: its value, "support": number of rows}}."""
    return {
        label: {name: float(values_C[c]) for name, values_C in columns.items()}
        | {"support": int(support_C[c])}
        for c, label in enumerate(labels)
    }


def _by_row(log_p_NC: LogProbabilities, true_N: Ints) -> tuple[Floats, Floats, list[Bin]]:
    """Return the loss and Brier score of each row, and the calibration bins, in one pass."""
    loss_N, brier_N, largest_N, is_right_N = (np.empty(len(true_N)) for _ in range(4))
    for rows, log_p_BC in log_p_NC.blocks():
        own = np.arange(len(log_p_BC)), true_N[rows]
        loss_N[rows] = -log_p_BC[own]
        largest_N[rows] = log_p_BC.max(axis=1)
        is_right_N[rows] = log_p_BC.argmax(axis=1) == true_N[rows]
        p_BC = np.exp(log_p_BC)
        p_BC[own] -= 1
        brier_N[rows] = (p_BC**2).sum(axis=1)
    confidence_N = np.exp(largest_N)
    bins_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    chosen = [np.flatnonzero(bins_N == b) for b in np.unique(bins_N)]
    bins = [
        (float(confidence_N[rows].mean()), float(is_right_N[rows].mean()), len(rows))
        for rows in chosen
    ]
    return loss_N, brier_N, bins


def _auroc_macro(true_N: Ints, log_p_NC: LogProbabilities, support_C: Ints) -> float:
    """Return the mean AUROC of the classes that have rows and are not all rows, or 0.5."""
    if not any(0 < support < len(true_N) for support in support_C):
        return 0.5
    columns = ((c, log_p_N) for c, log_p_N in log_p_NC.columns() if 0 < support_C[c] < len(true_N))
    return float(np.mean([auroc(true_N == c, np.exp(log_p_N)) for c, log_p_N in columns]))


def calibration_bins(log_p_NC: LogProbabilities, true_N: Ints) -> list[Bin]:
    """Return (mean confidence, accuracy, number of rows) of each bin that has rows.

    The 15 bins have equal width and divide rows by their largest probability.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    return _by_row(log_p_NC, true_N)[2]
