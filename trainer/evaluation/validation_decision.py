"""Fit a decision to validation rows from Python. Legend: N rows, C classes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.config.conflicts import one_label_decision_rules
from trainer.config.faults import checked_section
from trainer.config.sections.balancing import DecisionSection
from trainer.errors import DataError
from trainer.evaluation import decision
from trainer.evaluation.decision import Decision
from trainer.evaluation.scores import check_label_ids


def fit_decision(
    logits_NC: Any,
    label_ids_N: Any,
    labels: Sequence[str],
    *,
    prior: Literal["natural", "uniform"] | Mapping[str, float] | None = None,
    temperature: bool = False,
    thresholds: Literal["f1", "recall_at_precision", "cost"] | None = None,
    min_precision: float | None = None,
    costs: Mapping[str, Mapping[str, float]] | None = None,
    training_counts_C: Any = None,
    class_weights_C: Any = None,
) -> Decision:
    """Return the decision from logits to probabilities and labels that validation rows give.

    Never fit it to the rows that you test on.

    Args:
        logits_NC: logits of the validation rows.
        label_ids_N: their label ids.
        labels: the class names, in the order of the logits.
        prior: correct the class shares that training taught: to those of the validation rows
            (`natural`), to equal shares, or to {label: share}.
        temperature: fit one temperature.
        thresholds: fit one threshold per class for macro F1 or for recall at a precision, or
            decide by least expected cost.
        min_precision: of `recall_at_precision`; 0.9 if not given.
        costs: {true label: {predicted label: cost}} of `cost`.
        training_counts_C: rows of each class that training saw; with `prior`. If not given, the
            counts of the validation rows.
        class_weights_C: class weights of the loss; 1 if not given.
    Returns:
        The decision: `decide(log_probabilities(logits_NC))` gives label ids.
    Raises:
        DataError: there are no rows.
        ConfigError: a label that is not in `labels`.
        ValueError: settings or shapes that do not fit together, or a label id that is no class.

    Source: temperature scaling, Guo et al. 2017, https://arxiv.org/abs/1706.04599; prior
    correction, Saerens et al. 2002, https://doi.org/10.1162/089976602753284446.

    Example:
        >>> logits = np.array([[3.0, 0.0], [2.0, 0.0], [0.5, 0.0], [0.0, 1.0]] * 10)
        >>> found = fit_decision(logits, [0, 0, 1, 1] * 10, ["a", "b"], thresholds="f1")
        >>> found.decide(found.log_probabilities(logits))[:4]
        array([0, 0, 1, 1])
    """
    values: dict[str, Any] = {"prior": prior, "temperature": temperature, "thresholds": thresholds}
    values |= {"min_precision": min_precision, "costs": costs}
    section = checked_section(DecisionSection, values)
    for is_broken, words in one_label_decision_rules(section):
        if is_broken:
            raise ValueError(words)
    num_labels, ids_N = len(labels), _label_ids(label_ids_N, len(labels))
    scores_NC = _array("logits_NC", logits_NC, (len(ids_N), num_labels))
    counts_C = natural_C = np.bincount(ids_N, minlength=num_labels)
    if training_counts_C is not None:
        counts_C = _array("training_counts_C", training_counts_C, (num_labels,)).astype(np.int64)
    weights_C: Floats = np.ones(num_labels)
    if class_weights_C is not None:
        weights_C = _array("class_weights_C", class_weights_C, (num_labels,))
    plan = decision.plan_decision(
        section,
        labels=list(labels),
        counts_C=counts_C,
        class_weights_C=weights_C,
        natural_C=natural_C,
        tau=0.0,
    )
    if plan is None:
        return Decision(1.0, np.zeros(len(labels)))
    return decision.fit_decision(scores_NC, ids_N, plan)


def _label_ids(values: Any, num_labels: int) -> Ints:
    """Return the label ids as an array (N,).

    Raises:
        DataError: there are no rows.
        ValueError: a value that is no label id.
    """
    ids_N = np.asarray(values)
    if not len(ids_N):
        raise DataError("fit_decision needs validation rows, and there are none.")
    if ids_N.ndim != 1:
        raise ValueError(
            f"label_ids_N has the shape {ids_N.shape}; give one label id per row. Label sets are"
            " decided by the section decision of a config."
        )
    check_label_ids("label_ids_N", ids_N, num_labels)
    return ids_N.astype(np.int64)


def _array(name: str, values: Any, shape: tuple[int, ...]) -> Floats:
    """Return the values as an array; raise ValueError if its shape is another."""
    array = np.asarray(values, np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has the shape {array.shape}; needed: {shape}")
    return array
