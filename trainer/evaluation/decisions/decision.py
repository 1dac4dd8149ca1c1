"""Fit a decision on validation rows: from logits to probabilities and labels.

Legend: N rows, C classes. A model trained on balanced rows gives logits z_c = log p(c | x) under a
prior q that differs from the data's. If the decision corrects the prior to pi, probabilities are
softmax((z - log q) / T + log pi), else softmax(z / T). Both have the form scale * z + shift.
No function here takes test rows.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.data.labels.class_order import by_class
from trainer.errors import DataError, counted
from trainer.evaluation.blocks import Rows
from trainer.evaluation.decisions.calibration import (
    fit_temperature,
    natural_weights,
    target_log_prior,
    training_log_prior,
)
from trainer.evaluation.decisions.thresholds import THRESHOLDS, fit_thresholds
from trainer.evaluation.scores import Correction, LogProbabilities, corrected, log_softmax

if TYPE_CHECKING:
    from trainer.config.sections.balancing import DecisionSection

LEAST_ROWS = 20
"""A class with fewer validation rows keeps the neutral threshold, since a fitted one is noise."""


@dataclass(frozen=True)
class CorrectingDecision:
    """What decisions share, whether a row has one label or several: the correction of the logits.

    Attributes:
        temperature: T; above 1 if the model is overconfident.
        shift_C: added to logits / T.
    """

    temperature: float
    shift_C: Floats

    NOT_IN_CONFIG: ClassVar = frozenset({"neutral", "common_threshold"})

    @property
    def correction(self) -> Correction:
        """Return the correction of prior and temperature."""
        return Correction(self.temperature, self.shift_C)

    def correct(self, logits_NC: Array) -> Floats:
        """Return logits with prior and temperature corrected."""
        return corrected(logits_NC, self.correction)

    def figures(self, labels: list[str]) -> dict[str, Any]:
        """Return the values for metrics.json."""
        return {
            "temperature": self.temperature,
            "shift": dict(zip(labels, self.shift_C.tolist(), strict=True)),
        }

    def to_config(self, labels: list[str], *, is_folded: bool) -> dict[str, Any]:
        """Return the values for the config of the saved model.

        Args:
            is_folded: whether the weights of the model already include temperature and shift.
        """
        values = self.figures(labels) | {"shift": self.shift_C.tolist()}
        left_out = self.NOT_IN_CONFIG | ({"temperature", "shift"} if is_folded else set())
        return {name: value for name, value in values.items() if name not in left_out}


@dataclass(frozen=True)
class Decision(CorrectingDecision):
    """The rule from logits to probabilities and labels.

    Attributes:
        thresholds_C: the label is argmax p_c / t_c; None: argmax p_c. They sum to 1.
        costs_CC: cost of each predicted class (column) by true class (row); the label is the class
            with the least expected cost.
        neutral: labels whose threshold could not be fitted, and why.
    """

    thresholds_C: Floats | None = None
    costs_CC: Floats | None = None
    neutral: tuple[str, ...] = ()

    def log_probabilities(self, logits_NC: Array) -> Floats:
        """Return corrected log probabilities."""
        return log_softmax(self.correct(logits_NC))

    def decide(self, log_p_NC: Floats) -> Ints:
        """Return the label id of each row."""
        if self.costs_CC is not None:
            return (np.exp(log_p_NC) @ self.costs_CC).argmin(axis=1)
        if self.thresholds_C is not None:
            log_p_NC = log_p_NC - np.log(self.thresholds_C)
        return log_p_NC.argmax(axis=1)

    def apply(self, logits_NC: Rows) -> tuple[LogProbabilities, Ints]:
        """Return the log probabilities, computed when they are read, and the label ids."""
        log_p_NC = LogProbabilities(logits_NC, (self.correction,))
        predicted_N = np.empty(len(log_p_NC), np.int64)
        for rows, log_p_BC in log_p_NC.blocks():
            predicted_N[rows] = self.decide(log_p_BC)
        return log_p_NC, predicted_N

    def figures(self, labels: list[str]) -> dict[str, Any]:
        """Return the values for metrics.json."""
        values = super().figures(labels)
        if self.thresholds_C is not None:
            values |= {
                "thresholds": dict(zip(labels, self.thresholds_C.tolist(), strict=True)),
                "neutral": list(self.neutral),
            }
        return values | ({"costs": self.costs_CC.tolist()} if self.costs_CC is not None else {})

    @classmethod
    def from_config(cls, values: dict[str, Any], labels: list[str]) -> "Decision":
        """Return the decision of a saved model's `config.decision`; {} is a plain argmax."""
        thresholds, costs = values.get("thresholds"), values.get("costs")
        return cls(
            temperature=values.get("temperature", 1.0),
            shift_C=np.array(values.get("shift", [0.0] * len(labels))),
            thresholds_C=np.array([thresholds[label] for label in labels]) if thresholds else None,
            costs_CC=np.array(costs) if costs else None,
        )


@dataclass(frozen=True)
class DecisionPlan:
    """What is known of a decision before training.

    Attributes:
        log_q_C: the prior that training taught, see `training_log_prior`.
        log_target_C: the prior of future rows, see `target_log_prior`. Thresholds are fitted for
            this prior, by weights of the validation rows. None: the prior is not corrected, and
            thresholds are fitted for validation as it is.
        temperature: whether to fit a temperature.
        thresholds: a name in THRESHOLDS; any other value fits none.
        min_precision: the precision that "recall_at_precision" must reach.
        costs_CC: see `Decision`.
        minority: the class id for which the threshold of two classes is fitted.
    """

    labels: list[str]
    log_q_C: Floats
    log_target_C: Floats | None = None
    temperature: bool = False
    thresholds: str | None = None
    min_precision: float = 0.9
    costs_CC: Floats | None = None
    minority: int = 0

    @property
    def training_prior_C(self) -> Floats:
        """Return the class shares that training taught."""
        return np.exp(self.log_q_C)

    @property
    def target_prior_C(self) -> Floats | None:
        """Return the class shares of future rows; None if the prior is not corrected."""
        return None if self.log_target_C is None else np.exp(self.log_target_C)


def plan_decision(
    section: "DecisionSection",
    *,
    labels: list[str],
    counts_C: Ints,
    class_weights_C: Floats,
    natural_C: Ints,
    tau: float,
) -> DecisionPlan | None:
    """Return the plan of a decision, or None if the section asks for none.

    Args:
        counts_C: rows of each class drawn for training.
        natural_C: rows of each class after cleaning and before balancing.
        tau: strength of logit adjustment, 0 without.
    Raises:
        ConfigError: the section names labels that the data do not have.
    """
    if not section.is_set:
        return None
    prior, costs = section.prior, section.costs
    return DecisionPlan(
        labels=labels,
        log_q_C=training_log_prior(counts_C, class_weights_C, tau),
        log_target_C=None if prior is None else target_log_prior(prior, natural_C, labels),
        temperature=section.temperature,
        thresholds=section.thresholds,
        min_precision=section.min_precision or 0.9,
        costs_CC=None if costs is None else cost_matrix(costs, labels),
        minority=int(natural_C.argmin()),
    )


def cost_matrix(costs: dict[str, dict[str, float]], labels: list[str]) -> Floats:
    """Return the costs by true and predicted class, (C, C).

    Omitted costs are 1 for a wrong class and 0 for the true one.

    Raises:
        ConfigError: the costs name a label that the data do not have.
    """
    rows = {
        true: by_class(row, labels, "decision.costs")
        for true, row in by_class(costs, labels, "decision.costs").items()
    }
    return np.array(
        [
            [rows.get(true, {}).get(guess, float(true != guess)) for guess in labels]
            for true in labels
        ]
    )


def refuse_no_rows(num_rows: int) -> None:
    """Raise DataError if there are no validation rows."""
    if num_rows == 0:
        raise DataError(
            "decision needs validation rows, and there are none. Give split.validation or "
            "data.validation, or remove the section decision."
        )


def fit_decision(
    logits_NC: Rows,
    label_ids_N: Ints,
    plan: DecisionPlan,
    *,
    weights_N: Floats | None = None,
    fitted_C: Bools | None = None,
) -> Decision:
    """Return the decision that validation rows give.

    Args:
        weights_N: one weight per row; 1 if not given.
        fitted_C: classes whose thresholds are fitted; those with LEAST_ROWS rows if not given.
    Raises:
        DataError: there are no validation rows.
    """
    refuse_no_rows(len(label_ids_N))
    weights_N = np.ones(len(label_ids_N)) if weights_N is None else weights_N
    log_q_C, log_target_C, t = plan.log_q_C, plan.log_target_C, 1.0
    if plan.temperature:
        corrected_C = None if log_target_C is None else log_q_C
        t = fit_temperature(logits_NC, label_ids_N, weights_N, corrected_C)
    shift_C = np.zeros(len(plan.labels)) if log_target_C is None else log_target_C - log_q_C / t
    decision = Decision(t, shift_C, costs_CC=plan.costs_CC)
    if plan.thresholds not in THRESHOLDS:
        return decision
    if log_target_C is not None:
        weights_N = natural_weights(label_ids_N, np.exp(log_target_C))
    counts_C = np.bincount(label_ids_N, minlength=len(plan.labels))
    fitted_C = counts_C >= LEAST_ROWS if fitted_C is None else fitted_C
    found_C, failed = fit_thresholds(
        LogProbabilities(logits_NC, (decision.correction,)),
        label_ids_N,
        weights_N,
        fitted_C,
        minority=plan.minority,
        curve=THRESHOLDS[plan.thresholds],
        min_precision=plan.min_precision,
    )
    few = [
        f"{plan.labels[c]} ({counted(counts_C[c], 'validation row')}, {LEAST_ROWS} needed)"
        for c in np.flatnonzero(~fitted_C)
    ]
    short = [f"{plan.labels[c]} (precision {plan.min_precision:g} is not reached)" for c in failed]
    return replace(decision, thresholds_C=found_C / found_C.sum(), neutral=(*few, *short))
