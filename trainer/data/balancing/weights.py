"""Class counts to class weights of the loss; table WEIGHTINGS. Legend: C classes."""

from collections.abc import Callable

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.data.labels.class_order import by_class


def weight_none(counts_C: Ints, beta: float) -> Floats:
    """Weight 1 for every class."""
    return np.ones(len(counts_C))


def weight_balanced(counts_C: Ints, beta: float) -> Floats:
    """N / (K n_c), as scikit-learn's compute_class_weight('balanced'). Source: King and Zeng 2001."""
    return counts_C.sum() / (len(counts_C) * np.maximum(counts_C, 1))


def weight_sqrt(counts_C: Ints, beta: float) -> Floats:
    """Square root of the balanced weights: half way, in logarithms, to no weights at all. Source: Mahajan et al. 2018, https://arxiv.org/abs/1805.00932."""
    return np.sqrt(weight_balanced(counts_C, beta))


def weight_effective_number(counts_C: Ints, beta: float) -> Floats:
    """(1 - beta) / (1 - beta^n_c): rows beyond about 1 / (1 - beta) add little that is new. Source: Cui et al. 2019, https://arxiv.org/abs/1901.05555."""
    return (1 - beta) / -np.expm1(np.maximum(counts_C, 1) * np.log(beta))


WEIGHTINGS: dict[str, Callable[[Ints, float], Floats]] = {
    "none": weight_none,
    "balanced": weight_balanced,
    "sqrt": weight_sqrt,
    "effective_number": weight_effective_number,
}
"""Named class weights: (rows of each class drawn, beta) -> one weight per class, before normalisation."""


def class_weights(
    counts_C: Ints,
    weighting: str | dict[str, float],
    labels: list[str],
    *,
    beta: float = 0.999,
    mean_over: str = "rows",
) -> Floats:
    """One weight per class.

    Args:
        counts_C: rows of each class among the rows drawn for one epoch.
        weighting: a name in WEIGHTINGS, or {label: weight} where labels left out weigh 1.
        beta: of effective_number, in (0, 1).
        mean_over: 'rows' rescales to mean 1 over the rows drawn, so that the mean loss keeps its scale and the learning rate its
            meaning (scikit-learn's convention); 'classes' to mean 1 over classes (Cui et al.), which multiplies every gradient
            by the mean weight of the rows, below 1 where rare classes weigh more.
    Raises:
        ConfigError: a weight for a label that the data lacks.
    """
    if isinstance(weighting, str):
        weights_C = WEIGHTINGS[weighting](counts_C, beta)
    else:
        given = by_class(weighting, labels, "loss.class_weights")
        weights_C = np.array([given.get(label, 1.0) for label in labels])
    shares_C = (
        counts_C / counts_C.sum() if mean_over == "rows" else np.full(len(labels), 1 / len(labels))
    )
    return weights_C / (weights_C * shares_C).sum()
