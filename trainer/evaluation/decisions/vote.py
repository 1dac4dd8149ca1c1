"""Combine the models of an ensemble; table COMBINERS. Legend: M models, N rows, C classes.

Models of rows with several labels are combined label by label, by a decision that comes from
theirs, see `mean_decision`. It also keeps the result within its `at_least_one` and `at_most`.
"""

from collections.abc import Callable

import numpy as np

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.evaluation.decisions.multi_label_decision import MultiLabelDecision


def by_mean(p_MNC: Floats, predicted_MN: Ints) -> Ints:
    """Return the class with the largest mean probability."""
    return p_MNC.mean(axis=0).argmax(axis=1)


def by_majority(p_MNC: Floats, predicted_MN: Ints) -> Ints:
    """Return the class that most models predict; mean probabilities decide ties."""
    votes_NC = (predicted_MN[:, :, None] == np.arange(p_MNC.shape[2])).sum(axis=0)
    return (votes_NC + 0.5 * p_MNC.mean(axis=0)).argmax(axis=1)  # 0.5: less than one vote


def all_by_mean(p_MNC: Floats, given_MNC: Bools, decision: MultiLabelDecision) -> Bools:
    """Return the labels that the decision gives to the mean probabilities."""
    return decision.decide(_log_mean(p_MNC))


def all_by_majority(p_MNC: Floats, given_MNC: Bools, decision: MultiLabelDecision) -> Bools:
    """Return every label that most models give, by their own decisions.

    In a tie, a label is given if its mean probability reaches the threshold of the decision.
    """
    log_p_NC = _log_mean(p_MNC)
    lead_NC = given_MNC.sum(axis=0) - len(given_MNC) / 2
    given_NC = (lead_NC > 0) | ((lead_NC == 0) & decision.reached(log_p_NC))
    less_than_half = np.arctan(decision.margins(log_p_NC)) / 4
    return decision.limit(given_NC, lead_NC + less_than_half)


def _log_mean(p_MNC: Floats) -> Floats:
    return np.log(np.maximum(p_MNC.mean(axis=0, dtype=np.float64), LEAST))


LEAST = 1e-30
"""Smaller probabilities are raised to this, so that logarithms are finite."""


COMBINERS: dict[str, Callable[[Floats, Ints], Ints]] = {"mean": by_mean, "majority": by_majority}
"""Values of `ensemble.combine`: (probabilities, label ids of each model) -> label ids."""

MULTI_LABEL_COMBINERS: dict[str, Callable[[Floats, Bools, MultiLabelDecision], Bools]] = {
    "mean": all_by_mean,
    "majority": all_by_majority,
}
"""The same for multi-label models: (probabilities, labels of each model (M, N, C), decision) ->
labels (N, C)."""


def combine(
    name: str, p_MNC: Floats, predicted: Array, decision: MultiLabelDecision | None
) -> Array:
    """Return the label ids (N,), or which labels each row gets (N, C).

    Args:
        name: a key of COMBINERS.
        predicted: label ids (M, N), or which labels each model gives (M, N, C).
        decision: of multi-label models; None for one label a row.
    """
    if decision is None:
        return COMBINERS[name](p_MNC, predicted)
    return MULTI_LABEL_COMBINERS[name](p_MNC, predicted, decision)
