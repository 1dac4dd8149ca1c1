"""Class weights of the loss from class counts; table WEIGHTINGS. Legend: C classes."""

from collections.abc import Callable

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.data.labels.class_order import by_class


def weight_none(counts_C: Ints, beta: float) -> Floats:
    """Return weight 1 for every class."""
    return np.ones(len(counts_C))


def weight_balanced(counts_C: Ints, beta: float) -> Floats:
    """Return N / (K n_c), as scikit-learn's compute_class_weight('balanced') does.

    Source: King and Zeng 2001.
    """
    return counts_C.sum() / (len(counts_C) * np.maximum(counts_C, 1))


def weight_sqrt(counts_C: Ints, beta: float) -> Floats:
    """Return the square root of the balanced weights, half way to no weights in logarithms.

    Source: Mahajan et al. 2018, https://arxiv.org/abs/1805.00932.
    """
    return np.sqrt(weight_balanced(counts_C, beta))


def weight_effective_number(counts_C: Ints, beta: float) -> Floats:
    """Return (1 - beta) / (1 - beta^n_c): rows beyond about 1 / (1 - beta) add little.

    Source: Cui et al. 2019, https://arxiv.org/abs/1901.05555.
    """
    return (1 - beta) / -np.expm1(np.maximum(counts_C, 1) * np.log(beta))


WEIGHTINGS: dict[str, Callable[[Ints, float], Floats]] = {
    "none": weight_none,
    "balanced": weight_balanced,
    "sqrt": weight_sqrt,
    "effective_number": weight_effective_number,
}
"""{name: function from (rows of each class, beta) to one weight per class, not normalised}."""


def class_weights(
    counts_C: Ints,
    weighting: str | dict[str, float],
    labels: list[str],
    *,
    beta: float = 0.999,
    mean_over: str = "rows",
) -> Floats:
    """Return one weight per class.

    Args:
        counts_C: rows of each class among the rows drawn for one epoch.
        weighting: a name in WEIGHTINGS, or {label: weight}; labels left out have weight 1.
        beta: parameter of effective_number, in (0, 1).
        mean_over: 'rows' rescales the weights to mean 1 over the rows drawn, as scikit-learn does.
            The mean loss then keeps its scale, and the learning rate its meaning. 'classes'
            rescales to mean 1 over the classes (Cui et al.). This multiplies every gradient by
            the mean weight of the rows, which is below 1 if rare classes weigh more.

    Raises:
        ConfigError: `weighting` names a label that the data lacks.
    """
    if isinstance(weighting, str):
        weights_C = WEIGHTINGS[weighting](counts_C, beta)
    else:
        given = by_class(weighting, labels, "loss.class_weights")
        weights_C = np.array([given.get(label, 1.0) for label in labels])
    mean_over_C = counts_C if mean_over == "rows" else np.ones(len(labels))
    return weights_C / (weights_C * (mean_over_C / mean_over_C.sum())).sum()
