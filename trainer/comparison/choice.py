"""Choose the setting of each strategy on the selection rows (`compare.tune`).

A score is the metric of a training on the selection rows of its fold. The mean over the seeds
decides, so that no single lucky training does. With folds, each fold chooses by itself: the
selection rows of one fold are compared in another.
"""

import numpy as np

from trainer.arrays import Floats


def best_settings(scores: dict[str, Floats]) -> list[str]:
    """Return the best setting of each fold; of equally good settings the first.

    Args:
        scores: {setting: scores (seeds, folds)}.
    """
    settings, means_KF = [*scores], np.stack([of.mean(axis=0) for of in scores.values()])
    return [settings[best] for best in means_KF.argmax(axis=0)]


def best_setting(scores: dict[str, Floats]) -> str:
    """Return the setting that is best over all folds, which a new model would have."""
    return max(scores, key=lambda setting: float(scores[setting].mean()))
