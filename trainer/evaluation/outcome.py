"""The results of a model on one split: alone, with its decision, and for each domain."""

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trainer.arrays import Array, Ints
from trainer.evaluation.blocks import Rows, Taken, largest
from trainer.evaluation.frequency_groups import FrequencyGroup, group_figures
from trainer.evaluation.multi_label import AnyEvaluation, assigned_rows, evaluate
from trainer.evaluation.scores import CorrectedScores, LogProbabilities, as_log_probabilities


@dataclass(frozen=True)
class Outcome:
    """The results on one split.

    Attributes:
        alone: evaluation of the model's own probabilities and their largest class, or the labels of
            at least 0.5.
        decided: evaluation with the decision, if there is one.
        label_ids_N: true label ids, or the true label sets (N, C) of multi-label rows.
        alone_log_p_NC: log probabilities of the model alone, computed when they are read.
        log_p_NC, predicted_N: final log probabilities and predictions: with the decision if there
            is one.
        domains: {domain: final evaluation of its rows} (`balance.by`).
        alone_domains: {domain: evaluation of its rows without the decision}.
        groups: {frequency group: final results of its classes} (`report.groups`).
        alone_groups: {frequency group: results of its classes without the decision}.
    """

    alone: AnyEvaluation
    decided: AnyEvaluation | None
    label_ids_N: Array
    alone_log_p_NC: LogProbabilities
    log_p_NC: LogProbabilities
    predicted_N: Array
    domains: dict[str, AnyEvaluation] = field(default_factory=dict)
    alone_domains: dict[str, AnyEvaluation] = field(default_factory=dict)
    groups: dict[str, dict[str, Any]] = field(default_factory=dict)
    alone_groups: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def final(self) -> AnyEvaluation:
        """Return the evaluation with the decision, or alone if there is no decision."""
        return self.decided or self.alone


def outcome_of(
    logits_NC: Rows,
    label_ids_N: Array,
    labels: list[str],
    decided: tuple[Rows, Array] | None,
    domains: tuple[Ints, list[str]] | None,
    groups: dict[str, FrequencyGroup] | None = None,
) -> Outcome:
    """Return the results on one split.

    Args:
        decided: log probabilities and predictions with the decision, if there is one.
        domains: domain id of each row and the names of the domains.
        groups: as `frequency_groups` returns them.
    """
    is_multi_label = label_ids_N.ndim > 1
    alone_log_p_NC = LogProbabilities(logits_NC, multi_label=is_multi_label)
    alone_N = assigned_rows(logits_NC) if is_multi_label else largest(logits_NC)
    alone_domains = _by_domain(logits_NC, label_ids_N, labels, alone_N, domains)
    log_p_NC, predicted_N = alone_log_p_NC, alone_N
    if decided:
        log_p_NC, predicted_N = as_log_probabilities(decided[0]), decided[1]
    scores_NC: Rows = CorrectedScores(log_p_NC) if is_multi_label else log_p_NC
    alone = evaluate(logits_NC, label_ids_N, labels, alone_N)
    final = evaluate(scores_NC, label_ids_N, labels, predicted_N) if decided else alone
    return Outcome(
        alone=alone,
        decided=final if decided else None,
        label_ids_N=label_ids_N,
        alone_log_p_NC=alone_log_p_NC,
        log_p_NC=log_p_NC,
        predicted_N=predicted_N,
        domains=_by_domain(scores_NC, label_ids_N, labels, predicted_N, domains)
        if decided
        else alone_domains,
        alone_domains=alone_domains,
        groups=group_figures(groups or {}, final, predicted_N),
        alone_groups=group_figures(groups or {}, alone, alone_N),
    )


def _by_domain(
    scores_NC: Rows,
    label_ids_N: Array,
    labels: list[str],
    predicted_N: Array,
    domains: tuple[Ints, list[str]] | None,
) -> dict[str, AnyEvaluation]:
    """Return {domain: evaluation of its rows} of the domains that have rows."""
    if domains is None:
        return {}
    rows_of = {name: np.flatnonzero(domains[0] == d) for d, name in enumerate(domains[1])}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a domain may lack a label
        return {
            name: evaluate(_take(scores_NC, rows), label_ids_N[rows], labels, predicted_N[rows])
            for name, rows in rows_of.items()
            if len(rows)
        }


def _take(scores_NC: Rows, rows: Ints) -> Rows:
    if isinstance(scores_NC, LogProbabilities):
        return scores_NC.take(rows)
    return Taken(scores_NC, rows)
