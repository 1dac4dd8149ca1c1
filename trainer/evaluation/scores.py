"""Logits to log probabilities and to the labels of multi-label rows; NumPy and SciPy alone, so that who predicts loads no more. Legend: N rows, C labels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLD = 0.5
"""Probability from which a multi-label row is given a label."""


def log_softmax(logits_NC: NDArray[Any]) -> Floats:
    """Log probabilities in float64."""
    shifted = logits_NC.astype(np.float64) - logits_NC.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def log_sigmoid(logits_NC: NDArray[Any]) -> Floats:
    """Log probability of each label in float64."""
    return -np.logaddexp(0, -logits_NC.astype(np.float64))


def assigned(logits_NC: NDArray[Any]) -> Bools:
    """Which labels each row is given, (N, C)."""
    return expit(logits_NC.astype(np.float64)) >= THRESHOLD


def over_classes(per_class: dict[str, dict[str, float]]) -> str:
    """' over 46 of 52 classes' for macro averages that leave out classes without a row; else
    nothing.
    """
    measured = sum(values["support"] > 0 for values in per_class.values())
    return "" if measured == len(per_class) else f" over {measured} of {len(per_class)} classes"
