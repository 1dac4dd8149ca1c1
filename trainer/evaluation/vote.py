"""Combine the models of an ensemble; table COMBINERS. Legend: M models, N rows, C classes."""

from collections.abc import Callable

import numpy as np

from trainer.arrays import Bools, Floats, Ints
from trainer.evaluation.scores import THRESHOLD


def by_mean(p_MNC: Floats, predicted_MN: Ints) -> Ints:
    """Return the class with the largest mean probability."""
    return p_MNC.mean(axis=0).argmax(axis=1)


def by_majority(p_MNC: Floats, predicted_MN: Ints) -> Ints:
    """Return the class that most models predict; mean probabilities decide ties."""
    votes_NC = (predicted_MN[:, :, None] == np.arange(p_MNC.shape[2])).sum(axis=0)
    return (votes_NC + 0.5 * p_MNC.mean(axis=0)).argmax(axis=1)  # 0.5: less than one vote


def all_by_mean(p_MNC: Floats, given_MNC: Bools) -> Bools:
    """Return every label whose mean probability reaches the threshold."""
    return p_MNC.mean(axis=0) >= THRESHOLD


def all_by_majority(p_MNC: Floats, given_MNC: Bools) -> Bools:
    """Return every label that most models predict; mean probabilities decide ties."""
    lead_NC = given_MNC.sum(axis=0) - len(given_MNC) / 2
    return lead_NC + (p_MNC.mean(axis=0) - THRESHOLD) / 2 >= 0  # a half: less than half a vote


COMBINERS: dict[str, Callable[[Floats, Ints], Ints]] = {"mean": by_mean, "majority": by_majority}
"""Values of `ensemble.combine`: (probabilities, label ids of each model) -> label ids."""

MULTI_LABEL_COMBINERS: dict[str, Callable[[Floats, Bools], Bools]] = {
    "mean": all_by_mean,
    "majority": all_by_majority,
}
"""The same for multi-label models: (probabilities, predicted labels (M, N, C)) -> labels (N, C)."""
