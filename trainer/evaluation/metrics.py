"""Label ids and probabilities to an Evaluation; NumPy and scikit-learn; no model, no files. Legend: N rows, C classes.

Classes without a row in the split: their precision, recall and F1 are 0 with support 0, macro averages leave them out,
and a warning names them. AUROC averages over the classes that have both rows of their own and of others; where there is
none it is 0.5, MCC is 0 where it is not defined.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, f1_score, matthews_corrcoef, precision_recall_fscore_support, roc_auc_score

from trainer.errors import listing
from trainer.evaluation.scores import log_softmax

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """What a model did on one split.

    Attributes:
        loss: unweighted cross-entropy in nats, mean over all rows at once.
        confusion_matrix: rows are true classes, columns predicted ones.
        per_class: {label: {precision, recall, f1, support}}.
        auroc_macro: one-vs-rest, mean over classes.
        ece: expected calibration error of the largest probability, see `calibration_bins`.
        brier: mean over rows of the squared distance between probabilities and the true class, summed over classes; in [0, 2].
    """

    num_rows: int
    loss: float
    accuracy: float
    macro_f1: float
    weighted_f1: float
    macro_precision: float
    macro_recall: float
    mcc: float
    auroc_macro: float
    ece: float
    brier: float
    labels: list[str]
    confusion_matrix: list[list[int]]
    per_class: dict[str, dict[str, float]]

    @property
    def f1_gap(self) -> float:
        """Weighted F1 minus macro F1: what the large classes hide."""
        return self.weighted_f1 - self.macro_f1

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have rows, as scikit-learn's balanced_accuracy_score."""
        return self.macro_recall

    def to_dict(self) -> dict[str, Any]:
        """Plain values under the names that metrics.json documents."""
        names = ["num_rows", "loss", "accuracy", "macro_f1", "weighted_f1", "f1_gap", "macro_precision", "macro_recall"]
        names += ["balanced_accuracy", "mcc", "auroc_macro", "ece", "brier", "labels", "confusion_matrix", "per_class"]
        return {name: getattr(self, name) for name in names}


class ImbalancedClassification(evaluate.Metric):
    """evaluate.Metric of everything an Evaluation holds; needs no network.

    compute(predictions=label ids, references=label ids, log_probabilities=(N, C), labels=names) -> Evaluation.to_dict().
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, macro and weighted F1, balanced accuracy, MCC, AUROC and per-class results.",
            citation="",
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(self, predictions: Any, references: Any, log_probabilities: Floats, labels: list[str]) -> dict[str, Any]:
        return _evaluation(np.asarray(references), np.asarray(predictions), log_probabilities, labels).to_dict()


def evaluate_logits(logits_NC: NDArray[Any], label_ids_N: Ints, labels: list[str], predicted_N: Ints | None = None) -> Evaluation:
    """Evaluation of logits, or of log probabilities, by their largest class or by the labels that a decision gave.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if logits_NC.shape != (len(label_ids_N), len(labels)) or len(label_ids_N) == 0:
        raise ValueError(f"logits of shape {logits_NC.shape} for {len(label_ids_N)} rows and {len(labels)} labels")
    log_p_NC = log_softmax(logits_NC)
    predicted_N = logits_NC.argmax(axis=1) if predicted_N is None else predicted_N
    metric = ImbalancedClassification(keep_in_memory=True)
    values = metric.compute(predictions=predicted_N, references=label_ids_N, log_probabilities=log_p_NC, labels=labels)
    return Evaluation(**{name: values[name] for name in Evaluation.__dataclass_fields__})


def _evaluation(true_N: Ints, predicted_N: Ints, log_p_NC: Floats, labels: list[str]) -> Evaluation:
    ids = np.arange(len(labels))
    precision_C, recall_C, f1_C, support_C = precision_recall_fscore_support(true_N, predicted_N, labels=ids, zero_division=0)
    present = np.flatnonzero(support_C)
    if len(present) < len(labels):
        absent = listing(labels[c] for c in ids if support_C[c] == 0)
        warnings.warn(f"no row of {absent} in this split: left out of macro averages; more rows would tell more", stacklevel=2)
    return Evaluation(
        num_rows=len(true_N),
        loss=float(-log_p_NC[np.arange(len(true_N)), true_N].mean()),
        accuracy=float((true_N == predicted_N).mean()),
        macro_f1=float(f1_C[present].mean()),
        weighted_f1=float(f1_score(true_N, predicted_N, labels=ids, average="weighted", zero_division=0)),
        macro_precision=float(precision_C[present].mean()),
        macro_recall=float(recall_C[present].mean()),
        mcc=float(matthews_corrcoef(true_N, predicted_N)),
        auroc_macro=_auroc_macro(true_N, np.exp(log_p_NC), support_C),
        ece=_ece(calibration_bins(log_p_NC, true_N)),
        brier=float(((np.exp(log_p_NC) - np.eye(len(labels))[true_N]) ** 2).sum(axis=1).mean()),
        labels=list(labels),
        confusion_matrix=confusion_matrix(true_N, predicted_N, labels=ids).tolist(),
        per_class={
            label: {"precision": float(precision_C[c]), "recall": float(recall_C[c]), "f1": float(f1_C[c]), "support": int(support_C[c])}
            for c, label in enumerate(labels)
        },
    )


def _auroc_macro(true_N: Ints, p_NC: Floats, support_C: Ints) -> float:
    rankable = [c for c in range(p_NC.shape[1]) if 0 < support_C[c] < len(true_N)]
    return float(np.mean([roc_auc_score(true_N == c, p_NC[:, c]) for c in rankable])) if rankable else 0.5


NUM_BINS = 15


def calibration_bins(log_p_NC: Floats, true_N: Ints) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, rows) of the rows in each of 15 bins of equal width of the largest probability; empty bins are left out.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    confidence_N, right_N = np.exp(log_p_NC.max(axis=1)), log_p_NC.argmax(axis=1) == true_N
    bins_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    chosen = [np.flatnonzero(bins_N == b) for b in np.unique(bins_N)]
    return [(float(confidence_N[rows].mean()), float(right_N[rows].mean()), len(rows)) for rows in chosen]


def _ece(bins: list[tuple[float, float, int]]) -> float:
    total = sum(rows for *_, rows in bins)
    return sum(rows * abs(confidence - accuracy) for confidence, accuracy, rows in bins) / total
