"""Probabilities and labels of several models to those of their ensemble; table COMBINERS. Legend: M models, N rows, C classes."""

from collections.abc import Callable

import numpy as np

from trainer.arrays import Bools, Floats, Ints
from trainer.evaluation.scores import THRESHOLD


def by_mean(p_MNC: Floats, predicted_MN: Ints) -> Ints:
    """The class of the largest mean probability."""
    return p_MNC.mean(axis=0).argmax(axis=1)


def by_majority(p_MNC: Floats, predicted_MN: Ints) -> Ints:
    """The class that most models chose; on a tie the one of these with the larger mean probability."""
    votes_NC = (predicted_MN[:, :, None] == np.arange(p_MNC.shape[2])).sum(axis=0)
    return (votes_NC + 0.5 * p_MNC.mean(axis=0)).argmax(axis=1)  # probabilities stay below a vote


def all_by_mean(p_MNC: Floats, given_MNC: Bools) -> Bools:
    """Every label whose mean probability reaches the threshold."""
    return p_MNC.mean(axis=0) >= THRESHOLD


def all_by_majority(p_MNC: Floats, given_MNC: Bools) -> Bools:
    """Every label that more than half of the models give; on a tie the mean probability decides."""
    lead_NC = given_MNC.sum(axis=0) - len(given_MNC) / 2
    return (
        lead_NC + (p_MNC.mean(axis=0) - THRESHOLD) / 2 >= 0
    )  # probabilities stay below half a vote


COMBINERS: dict[str, Callable[[Floats, Ints], Ints]] = {"mean": by_mean, "majority": by_majority}
"""Ways to decide together (`ensemble.combine`): (probabilities, label ids of each model) -> label ids."""

MULTI_LABEL_COMBINERS: dict[str, Callable[[Floats, Bools], Bools]] = {
    "mean": all_by_mean,
    "majority": all_by_majority,
}
"""The same of models that give a row any number of labels: (probabilities, labels given by each model (M, N, C)) -> labels given (N, C)."""
