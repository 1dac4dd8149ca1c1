"""How well a score puts the rows of one class above all others. Legend: N rows."""

import numpy as np

from trainer.arrays import Array, Bools


def auroc(is_own_N: Bools, score_N: Array) -> float:
    """Area under the ROC curve, ties counted by half; some rows must be the class's own, and some not. As scikit-learn's roc_auc_score."""
    ordered, own = np.sort(score_N), score_N[is_own_N]
    below = np.searchsorted(ordered, own, "left") + np.searchsorted(ordered, own, "right")
    num_own = len(own)
    own_below = (
        num_own**2
    )  # of twice the rows below: what a class's own rows count among themselves
    return float((below.sum() - own_below) / (2 * num_own * (len(score_N) - num_own)))


def average_precision(is_own_N: Bools, score_N: Array) -> float:
    """Mean of the precision at each row of the class's own, which must have some. As scikit-learn's average_precision_score."""
    own = np.sort(score_N[is_own_N])
    above = len(score_N) - np.searchsorted(np.sort(score_N), own, "left")
    own_above = len(own) - np.searchsorted(own, own, "left")
    return float((own_above / above).mean())
