"""Ranking metrics of one class against all others. Legend: N rows."""

import numpy as np

from trainer.arrays import Array, Bools


def auroc(is_own_N: Bools, score_N: Array) -> float:
    """Return the area under the ROC curve; ties count one half.

    Equals scikit-learn's roc_auc_score. There must be rows of the class and other rows.
    """
    ordered, own = np.sort(score_N), score_N[is_own_N]
    below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
    num_own = len(own)  # `below` counts the class's own rows too, num_own**2 in all
    return float((below.sum() - num_own**2) / (2 * num_own * (len(score_N) - num_own)))


def average_precision(is_own_N: Bools, score_N: Array) -> float:
    """Return the mean of the precision at each row of the class, which must have rows.

    Equals scikit-learn's average_precision_score.
    """
    own = np.sort(score_N[is_own_N])
    above = len(score_N) - np.searchsorted(np.sort(score_N), own, "left")
    own_above = len(own) - np.searchsorted(own, own, "left")
    return float((own_above / above).mean())
