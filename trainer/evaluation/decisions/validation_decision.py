"""Fit a decision to validation rows from Python. Legend: N rows, C classes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from trainer.arrays import Array, Floats, Ints
from trainer.config.conflicts import multi_label_decision_rules, one_label_decision_rules
from trainer.config.faults import checked_section
from trainer.config.sections.balancing import DecisionSection
from trainer.data.labels.class_order import count_labels
from trainer.errors import DataError
from trainer.evaluation.decisions import decision, multi_label_decision
from trainer.evaluation.decisions.decision import Decision
from trainer.evaluation.decisions.multi_label_decision import AnyDecision, MultiLabelDecision
from trainer.evaluation.scores import check_label_ids


def fit_decision(
    logits_NC: Any,
    targets: Any,
    labels: Sequence[str],
    *,
    prior: Literal["natural", "uniform"] | Mapping[str, float] | None = None,
    temperature: bool = False,
    thresholds: Literal["f1", "micro_f1", "recall_at_precision", "common", "cost"] | None = None,
    min_precision: float | None = None,
    costs: Mapping[str, Mapping[str, float]] | None = None,
    at_least_one: bool = False,
    at_most: int | None = None,
    training_counts_C: Any = None,
    num_training_rows: int | None = None,
    class_weights_C: Any = None,
) -> AnyDecision:
    """Return the decision from logits to probabilities and labels that validation rows give.

    Never fit it to the rows that you test on. The settings are those of the section `decision:`
    of the YAML.

    Args:
        logits_NC: logits of the validation rows.
        targets: their label ids (N,), or label sets (N, C) of 0 and 1, as for `evaluate`.
        labels: the class names, in the order of the logits.
        prior: correct the class shares that training taught: to those of the validation rows
            (`natural`), to equal shares, or to {label: share}. Label sets know `natural` only.
        temperature: fit one temperature.
        thresholds: fit one threshold per class for macro F1 or for recall at a precision, or
            decide by least expected cost. Label sets also know `micro_f1` and `common`.
        min_precision: of `recall_at_precision`; 0.9 if not given.
        costs: {true label: {predicted label: cost}} of `cost`; for label sets
            {label: {missed: cost, wrong: cost}}.
        at_least_one, at_most: for label sets, the labels that a row gets at least or at most.
        training_counts_C: rows of each class that training saw; with `prior`. If not given, the
            counts of the validation rows.
        num_training_rows: all rows that training saw, for label sets with `training_counts_C`.
        class_weights_C: class weights of the loss; 1 if not given. For label sets the weights of
            rows with each label, or of rows without and with it (2, C).
    Returns:
        The decision: `decide(log_probabilities(logits_NC))` gives label ids (N,), or for label
        sets which labels each row gets (N, C).
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
        >>> sets = [[1, 0], [1, 1], [0, 1], [0, 1]] * 10
        >>> found = fit_decision(logits - 1, sets, ["a", "b"], thresholds="f1", at_least_one=True)
        >>> found.decide(found.log_probabilities(logits - 1))[:4].any(axis=1).tolist()
        [True, True, True, True]
    """
    values: dict[str, Any] = {"prior": prior, "temperature": temperature, "thresholds": thresholds}
    values |= {"min_precision": min_precision, "costs": costs}
    values |= {"at_least_one": at_least_one, "at_most": at_most}
    section, true = checked_section(DecisionSection, values), _targets(targets, len(labels))
    is_multi_label = true.ndim > 1
    rules = multi_label_decision_rules if is_multi_label else one_label_decision_rules
    for is_broken, words in rules(section):
        if is_broken:
            raise ValueError(words)
    num_labels = len(labels)
    scores_NC = _array("logits_NC", logits_NC, (len(true), num_labels))
    drawn_C = natural_C = count_labels(true, num_labels)
    if training_counts_C is not None:
        drawn_C = _array("training_counts_C", training_counts_C, (num_labels,)).astype(np.int64)
    weights: Floats = np.ones(num_labels)
    if class_weights_C is not None:
        shapes = [(num_labels,), *([(2, num_labels)] if is_multi_label else [])]
        weights = _array("class_weights_C", class_weights_C, *shapes)
    if is_multi_label:
        num_drawn = _drawn_rows(training_counts_C, num_training_rows, len(true))
        drawn, natural = (drawn_C, num_drawn), (natural_C, len(true))
        return _label_decision(scores_NC, true, list(labels), section, drawn, natural, weights)
    plan = decision.plan_decision(
        section,
        labels=list(labels),
        counts_C=drawn_C,
        class_weights_C=weights,
        natural_C=natural_C,
        tau=0.0,
    )
    if plan is None:
        return Decision(1.0, np.zeros(num_labels))
    return decision.fit_decision(scores_NC, true, plan)


def _label_decision(
    scores_NC: Floats,
    targets_NC: Array,
    labels: list[str],
    section: DecisionSection,
    drawn: tuple[Ints, int],
    natural: tuple[Ints, int],
    weights: Floats,
) -> MultiLabelDecision:
    """Return the decision of label sets."""
    plan = multi_label_decision.plan_label_decision(
        section,
        labels=labels,
        drawn=drawn,
        natural=natural,
        weights_2C=weights if weights.ndim > 1 else np.stack([np.ones_like(weights), weights]),
    )
    if plan is None:
        return MultiLabelDecision(1.0, np.zeros(len(labels)))
    return multi_label_decision.fit_label_decision(scores_NC, targets_NC, plan)


def _drawn_rows(counts_C: Any, num_rows: int | None, num_validation: int) -> int:
    """Return the rows that training saw; ValueError if only the counts of its labels are given."""
    if counts_C is not None and num_rows is None:
        raise ValueError(
            "training_counts_C is given without num_training_rows; the share of a label needs all"
            " rows that training saw"
        )
    return num_validation if num_rows is None else num_rows


def _targets(values: Any, num_labels: int) -> Array:
    """Return the label ids as an array (N,), or the label sets as flags (N, C).

    Raises:
        DataError: there are no rows.
        ValueError: a value that is no label id or no flag.
    """
    targets = np.asarray(values)
    if not len(targets):
        raise DataError("fit_decision needs validation rows, and there are none.")
    if targets.ndim == 1:
        check_label_ids("targets", targets, num_labels)
        return targets.astype(np.int64)
    if targets.shape[1:] != (num_labels,):
        raise ValueError(
            f"targets has the shape {targets.shape}; give one label id per row, or label sets"
            f" (N, {num_labels})"
        )
    if targets.dtype.kind not in "biuf" or not np.isin(targets, (0, 1)).all():
        raise ValueError("targets holds label sets with other values than 0 and 1")
    return targets > 0


def _array(name: str, values: Any, *shapes: tuple[int, ...]) -> Floats:
    """Return the values as an array; raise ValueError if it has none of the shapes."""
    array = np.asarray(values, np.float64)
    if array.shape not in shapes:
        needed = " or ".join(map(str, shapes))
        raise ValueError(f"{name} has the shape {array.shape}; needed: {needed}")
    return array
