"""Fit a decision on multi-label validation rows: from logits to label sets.

Legend: N rows, C labels. Each label is a yes or no of its own. If the decision corrects the prior,
probabilities are sigmoid((z - logit q) / T + logit pi), else sigmoid(z / T), where q is the share
of a label that training taught and pi its natural share. Both have the form scale * z + shift.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit, logit

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.data.labels.class_order import by_class
from trainer.errors import counted
from trainer.evaluation.blocks import Rows, release, room
from trainer.evaluation.decisions.calibration import fit_label_temperature, label_log_odds
from trainer.evaluation.decisions.decision import (
    LEAST_ROWS,
    CorrectingDecision,
    Decision,
    refuse_no_rows,
)
from trainer.evaluation.decisions.label_thresholds import (
    LABEL_OBJECTIVES,
    LabelThresholds,
    fit_label_thresholds,
)
from trainer.evaluation.scores import (
    THRESHOLD,
    Correction,
    LogProbabilities,
    log_odds,
    log_sigmoid,
)

if TYPE_CHECKING:
    from trainer.config.sections.balancing import DecisionSection


@dataclass(frozen=True)
class MultiLabelDecision(CorrectingDecision):
    """The rule from logits to probabilities and label sets.

    The margin of a label is the log odds of its probability less those of its threshold.

    Attributes:
        thresholds_C: a row gets the labels with p_c >= t_c; None: 0.5 for every label.
        common: the threshold of labels without one of their own; None if none was fitted.
        neutral: labels that keep the common threshold, and why.
        at_least_one: a row without a label gets the one with the largest margin.
        at_most: a row keeps so many labels, those with the largest margins; None: all.
    """

    thresholds_C: Floats | None = None
    common: float | None = None
    neutral: tuple[str, ...] = ()
    at_least_one: bool = False
    at_most: int | None = None

    def log_probabilities(self, logits_NC: Array) -> Floats:
        """Return the corrected log probability of each label."""
        return log_sigmoid(self.correct(logits_NC))

    @property
    def each_threshold_C(self) -> Floats:
        """Return the threshold of each label, also where none was fitted."""
        if self.thresholds_C is None:
            return np.full(len(self.shift_C), THRESHOLD)
        return self.thresholds_C

    def margins(self, log_p_NC: Floats) -> Floats:
        """Return the margin of each label of each row."""
        return log_odds(log_p_NC) - logit(self.each_threshold_C)

    def reached(self, log_p_NC: Floats) -> Bools:
        """Return which labels reach their threshold in each row."""
        return np.asarray(log_p_NC >= np.log(self.each_threshold_C))

    def decide(self, log_p_NC: Floats) -> Bools:
        """Return which labels each row gets."""
        return self.limit(self.reached(log_p_NC), self.margins(log_p_NC))

    def limit(self, given_NC: Bools, ranks_NC: Floats) -> Bools:
        """Apply `at_least_one` and `at_most`, in place.

        Args:
            given_NC: which labels each row would get.
            ranks_NC: the larger, the more the row should have the label.
        """
        places = np.arange(len(given_NC))
        if self.at_least_one:
            given_NC[places, ranks_NC.argmax(axis=1)] |= ~given_NC.any(axis=1)
        if self.at_most is not None:
            order_NC = np.argsort(np.where(given_NC, -ranks_NC, np.inf), axis=1, kind="stable")
            given_NC[places[:, None], order_NC[:, self.at_most :]] = False
        return given_NC

    def apply(self, logits_NC: Rows) -> tuple[LogProbabilities, Bools]:
        """Return the log probabilities, computed when they are read, and the label sets."""
        log_p_NC = LogProbabilities(logits_NC, (self.correction,), multi_label=True)
        given_NC: Bools = room(log_p_NC.shape, np.bool_)
        for rows, log_p_BC in log_p_NC.blocks():
            given_NC[rows] = self.decide(log_p_BC)
            release(given_NC)
        return log_p_NC, given_NC

    def figures(self, labels: list[str]) -> dict[str, Any]:
        """Return the values for metrics.json."""
        values = super().figures(labels) | {
            "at_least_one": self.at_least_one,
            "at_most": self.at_most,
        }
        if self.thresholds_C is not None:
            values["thresholds"] = dict(zip(labels, self.thresholds_C.tolist(), strict=True))
            values["neutral"] = list(self.neutral)
        return values | ({} if self.common is None else {"common_threshold": self.common})

    @classmethod
    def from_config(cls, values: dict[str, Any], labels: list[str]) -> "MultiLabelDecision":
        """Return the decision of a saved model's `config.decision`; {} gives labels from 0.5."""
        thresholds = values.get("thresholds")
        return cls(
            temperature=values.get("temperature", 1.0),
            shift_C=np.array(values.get("shift", [0.0] * len(labels))),
            thresholds_C=np.array([thresholds[label] for label in labels]) if thresholds else None,
            at_least_one=values.get("at_least_one", False),
            at_most=values.get("at_most"),
        )


def mean_decision(decisions: Sequence[MultiLabelDecision]) -> MultiLabelDecision:
    """Return the decision on the mean of the probabilities of several models.

    The threshold of a label is the mean of the models' thresholds: the label is given if the
    models' probabilities exceed their own thresholds on average. `at_least_one` and `at_most` hold
    as far as they hold for every model.
    """
    most = [decision.at_most for decision in decisions]
    return MultiLabelDecision(
        1.0,
        np.zeros(len(decisions[0].shift_C)),
        thresholds_C=np.mean([decision.each_threshold_C for decision in decisions], axis=0),
        at_least_one=all(decision.at_least_one for decision in decisions),
        at_most=None if None in most else max(filter(None, most)),
    )


AnyDecision = Decision | MultiLabelDecision
DECISIONS: dict[bool, type[Decision] | type[MultiLabelDecision]] = {
    False: Decision,
    True: MultiLabelDecision,
}
"""{whether a row may have several labels: kind of decision}."""


@dataclass(frozen=True)
class MultiLabelPlan:
    """What is known of a decision on multi-label rows before training.

    Attributes:
        log_odds_q_C: log odds of each label that training taught.
        log_odds_target_C: natural log odds; None: the prior is not corrected.
        thresholds: a name in LABEL_OBJECTIVES; any other value fits none.
        fixed_C: thresholds that follow from costs; None without.
        temperature, min_precision, at_least_one, at_most: as in the section `decision`.
    """

    labels: list[str]
    log_odds_q_C: Floats
    log_odds_target_C: Floats | None = None
    temperature: bool = False
    thresholds: str | None = None
    min_precision: float = 0.9
    fixed_C: Floats | None = None
    at_least_one: bool = False
    at_most: int | None = None

    @property
    def training_prior_C(self) -> Floats:
        """Return the share of each label that training taught."""
        return np.asarray(expit(self.log_odds_q_C))

    @property
    def target_prior_C(self) -> Floats | None:
        """Return the natural share of each label; None if the prior is not corrected."""
        return None if self.log_odds_target_C is None else expit(self.log_odds_target_C)


def plan_label_decision(
    section: "DecisionSection",
    *,
    labels: list[str],
    drawn: tuple[Ints, int],
    natural: tuple[Ints, int],
    weights_2C: Floats,
) -> MultiLabelPlan | None:
    """Return the plan of a decision on multi-label rows, or None if the section asks for none.

    Binary cross-entropy with the weights w of rows with and without a label teaches the odds
    w_with / w_without * n / (N - n), of n rows with the label among the N rows drawn.

    Args:
        drawn, natural: rows of each label and all rows, drawn for training and before balancing.
        weights_2C: weights of rows without and with each label.
    Raises:
        ConfigError: the costs name a label that the data do not have.
    """
    if not section.is_set:
        return None
    return MultiLabelPlan(
        labels=labels,
        log_odds_q_C=label_log_odds(*drawn) + np.log(weights_2C[1] / weights_2C[0]),
        log_odds_target_C=None if section.prior is None else label_log_odds(*natural),
        temperature=section.temperature,
        thresholds=section.thresholds,
        min_precision=section.min_precision or 0.9,
        fixed_C=None if section.costs is None else cost_thresholds(section.costs, labels),
        at_least_one=section.at_least_one,
        at_most=section.at_most,
    )


def cost_thresholds(costs: dict[str, dict[str, float]], labels: list[str]) -> Floats:
    """Return wrong / (missed + wrong) of each label, from which giving it costs less.

    Source: Elkan 2001, https://dl.acm.org/doi/10.5555/1642194.1642224. Omitted costs are 1.
    """
    given = by_class(costs, labels, "decision.costs")
    pairs = [
        (costs_of.get("missed", 1.0), costs_of.get("wrong", 1.0))
        for costs_of in (given.get(label, {}) for label in labels)
    ]
    return np.array([wrong / (missed + wrong) for missed, wrong in pairs])


def fit_label_decision(
    logits_NC: Rows, targets_NC: Array, plan: MultiLabelPlan, fitted_C: Bools | None = None
) -> MultiLabelDecision:
    """Return the decision that multi-label validation rows give.

    Args:
        targets_NC: the true label sets.
        fitted_C: labels with a threshold of their own; those with LEAST_ROWS rows if not given.
    Raises:
        DataError: there are no validation rows.
    """
    refuse_no_rows(len(targets_NC))
    log_odds_q_C, target_C, t = plan.log_odds_q_C, plan.log_odds_target_C, 1.0
    if plan.temperature:
        corrected_C = None if target_C is None else log_odds_q_C
        t = fit_label_temperature(logits_NC, targets_NC, corrected_C)
    shift_C = np.zeros(len(plan.labels)) if target_C is None else target_C - log_odds_q_C / t
    counts_C = targets_NC.sum(axis=0)
    fitted_C = counts_C >= LEAST_ROWS if fitted_C is None else fitted_C
    found = None
    if plan.thresholds in LABEL_OBJECTIVES:
        found = fit_label_thresholds(
            LogProbabilities(logits_NC, (Correction(t, shift_C),), multi_label=True),
            targets_NC,
            fitted_C,
            objective=plan.thresholds,
            min_precision=plan.min_precision,
        )
    return MultiLabelDecision(
        t,
        shift_C,
        thresholds_C=found.thresholds_C if found else plan.fixed_C,
        common=found.common if found else None,
        neutral=_neutral(plan, counts_C, fitted_C, found) if found else (),
        at_least_one=plan.at_least_one,
        at_most=plan.at_most,
    )


def _neutral(
    plan: MultiLabelPlan, counts_C: Ints, fitted_C: Bools, found: LabelThresholds
) -> tuple[str, ...]:
    """Return the labels that keep the common threshold though each has its own, and why."""
    if plan.thresholds == "common":
        return ()
    few = [
        f"{plan.labels[c]} ({counted(counts_C[c], 'validation row')}, {LEAST_ROWS} needed)"
        for c in np.flatnonzero(~fitted_C)
    ]
    short = [
        f"{plan.labels[c]} (precision {plan.min_precision:g} is not reached)" for c in found.short
    ]
    return (*few, *short)
