"""What a model did on each split: by itself, with the decision, and domain by domain."""

import warnings
from dataclasses import dataclass, field

import numpy as np

from trainer.arrays import Array, Ints
from trainer.evaluation.blocks import Rows, Taken, largest
from trainer.evaluation.decision import Decision
from trainer.evaluation.multi_label import AnyEvaluation, assigned_rows, evaluate
from trainer.evaluation.scores import LogProbabilities, as_log_probabilities


@dataclass(frozen=True)
class Outcome:
    """Results on one split.

    Attributes:
        alone: the model's own probabilities and their largest class.
        decided: with the decision, where there is one.
        log_p_NC, predicted_N: log probabilities, computed when they are read, and label ids that count: decided where there
            is a decision.
        label_ids_N: true label ids; of multi-label rows, as predicted_N, which labels each has, (N, C).
        domains: {domain: Evaluation of its rows} of what counts (`balance.by`); alone_domains: of the model alone.
    """

    alone: AnyEvaluation
    decided: AnyEvaluation | None
    label_ids_N: Array
    alone_log_p_NC: LogProbabilities
    log_p_NC: LogProbabilities
    predicted_N: Array
    domains: dict[str, AnyEvaluation] = field(default_factory=dict)
    alone_domains: dict[str, AnyEvaluation] = field(default_factory=dict)

    @property
    def final(self) -> AnyEvaluation:
        """What counts: with the decision where there is one."""
        return self.decided or self.alone


def outcome_of(
    logits_NC: Rows,
    label_ids_N: Array,
    labels: list[str],
    decided: tuple[Rows | LogProbabilities, Ints] | None,
    domains: tuple[Ints, list[str]] | None,
) -> Outcome:
    """Outcome of one split.

    Args:
        decided: log probabilities and label ids with the decision, None without one.
        domains: domain id of each row and the names of the domains.
    """
    alone_log_p_NC = LogProbabilities(logits_NC, multi_label=label_ids_N.ndim > 1)
    alone_predicted_N = assigned_rows(logits_NC) if label_ids_N.ndim > 1 else largest(logits_NC)
    log_p_NC, predicted_N = (
        (as_log_probabilities(decided[0]), decided[1])
        if decided
        else (alone_log_p_NC, alone_predicted_N)
    )
    scores_NC = log_p_NC if decided else logits_NC
    alone_domains = _by_domain(logits_NC, label_ids_N, labels, alone_predicted_N, domains)
    return Outcome(
        evaluate(logits_NC, label_ids_N, labels, alone_predicted_N),
        evaluate(log_p_NC, label_ids_N, labels, predicted_N) if decided else None,
        label_ids_N,
        alone_log_p_NC,
        log_p_NC,
        predicted_N,
        _by_domain(scores_NC, label_ids_N, labels, predicted_N, domains)
        if decided
        else alone_domains,
        alone_domains,
    )


def _by_domain(
    scores_NC: Rows | LogProbabilities,
    label_ids_N: Array,
    labels: list[str],
    predicted_N: Array,
    domains: tuple[Ints, list[str]] | None,
) -> dict[str, AnyEvaluation]:
    """{domain: Evaluation of its rows} of the domains that have rows."""
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


def _take(scores_NC: Rows | LogProbabilities, rows: Ints) -> Rows | LogProbabilities:
    return (
        scores_NC.take(rows) if isinstance(scores_NC, LogProbabilities) else Taken(scores_NC, rows)
    )


def decided_by(decision: Decision, logits_NC: Rows) -> tuple[LogProbabilities, Ints]:
    """Log probabilities and label ids of a decision."""
    return decision.judge(logits_NC)
