"""Whether the baseline was trained long enough for a fair comparison."""

import math
from typing import Any

import numpy as np

LEAST_EVALUATIONS = 4
"""With fewer, no evaluation lies near the last quarter of the training."""
MOST_GAIN = 0.005
"""Macro F1 that a baseline may gain in its last quarter and still count as trained."""


def baseline_training(
    name: str, evaluations: list[list[list[float]]], rows: str
) -> dict[str, Any] | None:
    """Return whether the baseline still gained at the end of its training, and words for it.

    Strategies that learn faster look better than a baseline that had no time to learn. None if
    nothing was evaluated.

    Args:
        evaluations: (step, macro F1) of each evaluation, for each training.
        rows: on which they were made, in words.
    """
    counts = {len(of) for of in evaluations}
    if not counts or min(counts) == 0:
        return None
    if min(counts) < LEAST_EVALUATIONS:
        words = (
            f"Whether {name} was trained long enough cannot be told: {min(counts)} evaluations, "
            f"{LEAST_EVALUATIONS} needed. Set training.eval_strategy: steps and "
            "training.eval_steps."
        )
        return {"gain": None, "is_enough": None, "words": words}
    gain = float(np.mean([_last_quarter(of) for of in evaluations]))
    told = f"{name} gained {100 * gain:+.1f} points of macro F1 on {rows} in its last quarter"
    if gain < MOST_GAIN:
        return {"gain": gain, "is_enough": True, "words": f"{told}: it was trained long enough."}
    words = (
        f"{told}: it was not trained long enough, so strategies that only learn faster look "
        "better. Raise training.num_train_epochs or training.learning_rate."
    )
    return {"gain": gain, "is_enough": False, "words": words}


def _last_quarter(evaluations: list[list[float]]) -> float:
    """Return the last macro F1 minus the one after three quarters of the steps."""
    last = evaluations[-1]
    before = [f1 for step, f1 in evaluations if step <= math.ceil(0.75 * last[0])]
    return last[1] - (before or [evaluations[0][1]])[-1]
