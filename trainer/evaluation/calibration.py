"""How often a model is right against how sure it says it is. Legend: N rows, C classes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

NUM_BINS = 15


def calibration_bins(log_p_NC: NDArray[np.float64], true_N: NDArray[Any]) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, rows) of the rows in each of 15 bins of equal width of the largest probability; empty bins are left out.

    Source: Guo et al. 2017, https://arxiv.org/abs/1706.04599.
    """
    confidence_N, right_N = np.exp(log_p_NC.max(axis=1)), log_p_NC.argmax(axis=1) == true_N
    bins_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    chosen = [np.flatnonzero(bins_N == b) for b in np.unique(bins_N)]
    return [(float(confidence_N[rows].mean()), float(right_N[rows].mean()), len(rows)) for rows in chosen]


def expected_calibration_error(bins: list[tuple[float, float, int]]) -> float:
    """Mean distance of confidence and accuracy over the rows of `calibration_bins`."""
    total = sum(rows for *_, rows in bins)
    return sum(rows * abs(confidence - accuracy) for confidence, accuracy, rows in bins) / total
