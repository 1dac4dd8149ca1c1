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
from sklearn.metrics import f1_score, precision_recall_fscore_support

from trainer.arrays import Array, Floats, Ints
from trainer.errors import listing
from trainer.evaluation.blocks import Rows, largest
from trainer.evaluation.confusion import Confusion
from trainer.evaluation.ranking import auroc
from trainer.evaluation.scores import LogProbabilities, as_log_probabilities


@dataclass(frozen=True)
class Evaluation:
    """What a model did on one split.

    Attributes:
        loss: unweighted cross-entropy in nats, mean over all rows at once.
        confusion_matrix: rows are true classes, columns predicted ones; above 1,000 classes its cells that hold rows, see
            `Confusion.plain`.
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
    confusion_matrix: list[list[int]] | dict[str, Any]
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
        names = [
            "num_rows",
            "loss",
            "accuracy",
            "macro_f1",
            "weighted_f1",
            "f1_gap",
            "macro_precision",
            "macro_recall",
        ]
        names += [
            "balanced_accuracy",
            "mcc",
            "auroc_macro",
            "ece",
            "brier",
            "labels",
            "confusion_matrix",
            "per_class",
        ]
        return {name: getattr(self, name) for name in names}


class ImbalancedClassification(evaluate.Metric):
    """evaluate.Metric of everything an Evaluation holds; needs no network.

    compute(predictions=label ids, references=label ids, log_probabilities=(N, C), labels=names) -> Evaluation.to_dict().
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Accuracy, macro and weighted F1, balanced accuracy, MCC, AUROC and per-class results.",
            citation="",
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(
        self,
        predictions: Any,
        references: Any,
        log_probabilities: "Floats | LogProbabilities",
        labels: list[str],
    ) -> dict[str, Any]:
        log_p_NC = as_log_probabilities(log_probabilities)
        return _evaluation(
            np.asarray(references), np.asarray(predictions), log_p_NC, labels
        ).to_dict()


def evaluate_logits(
    logits_NC: Rows | LogProbabilities,
    label_ids_N: Ints,
    labels: list[str],
    predicted_N: Ints | None = None,
) -> Evaluation:
    """Evaluation of logits, or of log probabilities, by their largest class or by the labels that a decision gave.

    Raises:
        ValueError: no row, or shapes that do not fit.
    """
    if logits_NC.shape != (len(label_ids_N), len(labels)) or len(label_ids_N) == 0:
        raise ValueError(
            f"logits of shape {logits_NC.shape} for {len(label_ids_N)} rows and {len(labels)} labels"
        )
    predicted_N = largest(logits_NC) if predicted_N is None else predicted_N
    metric = ImbalancedClassification(keep_in_memory=True)
    values = metric.compute(
        predictions=predicted_N,
        references=label_ids_N,
        log_probabilities=as_log_probabilities(logits_NC),
        labels=labels,
    )
    return Evaluation(**{name: values[name] for name in Evaluation.__dataclass_fields__})


def _evaluation(
    true_N: Ints, predicted_N: Ints, log_p_NC: LogProbabilities, labels: list[str]
) -> Evaluation:
    ids = np.arange(len(labels))
    precision_C, recall_C, f1_C, support_C = precision_recall_fscore_support(
        true_N, predicted_N, labels=ids, zero_division=0
    )
    present = np.flatnonzero(support_C)
    if len(present) < len(labels):
        absent = listing(labels[c] for c in ids if support_C[c] == 0)
        warnings.warn(
            f"no row of {absent} in this split: left out of macro averages; more rows would tell more",
            stacklevel=2,
        )
    confusion = Confusion.count(true_N, predicted_N, len(labels))
    loss_N, brier_N, bins = _of_rows(log_p_NC, true_N)
    return Evaluation(
        num_rows=len(true_N),
        loss=float(loss_N.mean()),
        accuracy=float((true_N == predicted_N).mean()),
        macro_f1=float(f1_C[present].mean()),
        weighted_f1=float(
            f1_score(true_N, predicted_N, labels=ids, average="weighted", zero_division=0)
        ),
        macro_precision=float(precision_C[present].mean()),
        macro_recall=float(recall_C[present].mean()),
        mcc=confusion.mcc,
        auroc_macro=_auroc_macro(true_N, log_p_NC, support_C),
        ece=_ece(bins),
        brier=float(brier_N.mean()),
        labels=list(labels),
        confusion_matrix=confusion.plain(),
        per_class={
            label: {
                "precision": float(precision_C[c]),
                "recall": float(recall_C[c]),
                "f1": float(f1_C[c]),
                "support": int(support_C[c]),
            }
            for c, label in enumerate(labels)
        },
    )


def _of_rows(log_p_NC: LogProbabilities, true_N: Ints) -> tuple[Floats, Floats, "list[Bin]"]:
    """Loss and Brier score of each row, and the calibration bins, in one reading of the rows."""
    loss_N, brier_N, surest_N, is_right_N = (np.empty(len(true_N)) for _ in range(4))
    for rows, log_p_BC in log_p_NC.blocks():
        own = np.arange(len(log_p_BC)), true_N[rows]
        loss_N[rows] = -log_p_BC[own]
        surest_N[rows], is_right_N[rows] = (
            log_p_BC.max(axis=1),
            log_p_BC.argmax(axis=1) == true_N[rows],
        )
        p_BC = np.exp(log_p_BC)
        p_BC[own] -= 1
        brier_N[rows] = (p_BC**2).sum(axis=1)
    return loss_N, brier_N, _bins(np.exp(surest_N), is_right_N)


def _auroc_macro(true_N: Ints, log_p_NC: LogProbabilities, support_C: Ints) -> float:
    """Mean over the classes that have rows, and are not all rows; read a block of columns at a time."""
    if not any(0 < support < len(true_N) for support in support_C):
        return 0.5
    columns = ((c, log_p_N) for c, log_p_N in log_p_NC.columns() if 0 < support_C[c] < len(true_N))
    return float(np.mean([auroc(true_N == c, np.exp(log_p_N)) for c, log_p_N in columns]))


NUM_BINS = 15
Bin = tuple[float, float, int]


def calibration_bins(log_p_NC: Floats | LogProbabilities, true_N: Ints) -> list[Bin]:
    """(mean confidence, accuracy, rows) of the rows in each of 15 bins of equal width of the largest probability; empty bins are left out.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    if not isinstance(log_p_NC, LogProbabilities):
        return _bins(np.exp(log_p_NC.max(axis=1)), log_p_NC.argmax(axis=1) == true_N)
    return _of_rows(log_p_NC, true_N)[2]


def _bins(confidence_N: Floats, is_right_N: Array) -> list[Bin]:
    bins_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    chosen = [np.flatnonzero(bins_N == b) for b in np.unique(bins_N)]
    return [
        (float(confidence_N[rows].mean()), float(is_right_N[rows].mean()), len(rows))
        for rows in chosen
    ]


def _ece(bins: list[Bin]) -> float:
    total = sum(rows for *_, rows in bins)
    return sum(rows * abs(confidence - accuracy) for confidence, accuracy, rows in bins) / total
