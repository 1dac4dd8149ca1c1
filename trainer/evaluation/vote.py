"""Probabilities and labels of several models to those of their ensemble; table COMBINERS. Legend: M models, N rows, C classes."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def by_mean(p_MNC: Floats, predicted_MN: Ints) -> Ints:
    """The class of the largest mean probability."""
    return p_MNC.mean(axis=0).argmax(axis=1)


def by_majority(p_MNC: Floats, predicted_MN: Ints) -> Ints:
    """The class that most models chose; on a tie the one of these with the larger mean probability."""
    votes_NC = (predicted_MN[:, :, None] == np.arange(p_MNC.shape[2])).sum(axis=0)
    return (votes_NC + 0.5 * p_MNC.mean(axis=0)).argmax(axis=1)  # probabilities stay below a vote


COMBINERS: dict[str, Callable[[Floats, Ints], Ints]] = {"mean": by_mean, "majority": by_majority}
"""Ways to decide together (`ensemble.combine`): (probabilities, label ids of each model) -> label ids."""
