"""Balancing for your own training code: the labels of rows become row indices or class weights.

Legend: N rows, C classes.
"""

from collections.abc import Mapping, Sequence
from math import inf, isinf
from typing import Any

import numpy as np

from trainer.arrays import Array, Floats, Ints
from trainer.config.sections.balancing import PARAMETERS
from trainer.data.balancing import weights
from trainer.data.balancing.balance import draw, stage_generator, wanted_rows
from trainer.errors import did_you_mean

Labels = Sequence[Any] | Array


def undersample(labels: Labels, *, target_ratio: float = 1.0, seed: int = 0) -> Ints:
    """Return the sorted indices of rows that remain after random undersampling.

    Args:
        labels: class of each row (N,), names or ids.
        target_ratio: size of the largest class as a multiple of the smallest, 1 or more.
        seed: of the random choice.
    Raises:
        ValueError: no rows, several labels a row, a missing label, or a number out of range.

    Source: as imbalanced-learn's RandomUnderSampler.

    Example:
        >>> undersample(["a", "a", "a", "b"], seed=1)
        array([2, 3])
    """
    return _drawn(labels, "undersample", target_ratio, seed)


def oversample(labels: Labels, *, target_ratio: float = 1.0, seed: int = 0) -> Ints:
    """Return the sorted indices of all rows, with rows of small classes repeated.

    Args:
        labels: class of each row (N,), names or ids.
        target_ratio: size of every class as a fraction of the largest, at most 1.
        seed: of the random choice.
    Raises:
        ValueError: no rows, several labels a row, a missing label, or a number out of range.

    Source: as imbalanced-learn's RandomOverSampler.

    Example:
        >>> oversample(["a", "a", "a", "b"])
        array([0, 1, 2, 3, 3, 3])
    """
    return _drawn(labels, "oversample", target_ratio, seed)


def floor(labels: Labels, *, min_share: float = 0.1, seed: int = 0) -> Ints:
    """Return the sorted indices of all rows, repeated so that each class has a minimum share.

    Args:
        labels: class of each row (N,), names or ids.
        min_share: least share of each class among the returned rows, at most 1 / C.
        seed: of the random choice.
    Raises:
        ValueError: no rows, several labels a row, a missing label, or a number out of range.
        ConfigError: `min_share` times the number of classes exceeds 1.

    Example:
        >>> np.bincount(np.array([0] * 18 + [1] * 2)[floor([0] * 18 + [1] * 2, min_share=0.25)])
        array([18,  6])
    """
    return _drawn(labels, "floor", min_share, seed)


def power(labels: Labels, *, alpha: float = 0.5, seed: int = 0) -> Ints:
    """Return the sorted indices of N rows with class shares proportional to n^alpha.

    Args:
        labels: class of each row (N,), names or ids.
        alpha: 1 keeps the natural shares, 0.5 uses square roots, 0 makes all classes equal.
        seed: of the random choice.
    Raises:
        ValueError: no rows, several labels a row, a missing label, or a number out of range.

    Source: Mahajan et al. 2018, https://arxiv.org/abs/1805.00932.

    Example:
        >>> len(power(["a"] * 8 + ["b"] * 2, alpha=0))
        10
    """
    return _drawn(labels, "power", alpha, seed)


def class_weights(
    labels: Labels,
    weighting: str | Mapping[Any, float] = "balanced",
    *,
    classes: Sequence[Any] | None = None,
    beta: float = 0.999,
    mean_over: str = "rows",
) -> Floats:
    """Return the class weights (C,), one per class, with mean 1 over the rows.

    Args:
        labels: class of each training row (N,), names or ids.
        weighting: `none`, `balanced`, `sqrt`, `effective_number`, or {class: weight}.
        classes: order of the result; by default the sorted classes of `labels`.
        beta: of `effective_number`, in (0, 1).
        mean_over: `rows`, or `classes` for mean 1 over the classes.
    Raises:
        ValueError: no rows, an unknown weighting, a weight or beta outside its range, or labels
            outside `classes`.
        ConfigError: a weight for a class that is not there.

    Source: `balanced` is scikit-learn's compute_class_weight.

    Example:
        >>> class_weights(["a", "a", "a", "b"])
        array([0.66666667, 2.        ])
    """
    found, counts = np.unique(checked_labels(labels), return_counts=True)
    rows_of = dict(zip(found.tolist(), counts.tolist(), strict=True))
    classes_C = found.tolist() if classes is None else list(classes)
    if others := rows_of.keys() - set(classes_C):
        raise ValueError(f"labels holds {min(others, key=str)!r}, which is not among classes")
    if not 0 < beta < 1:
        raise ValueError(f"beta is {beta}; give a number between 0 and 1, such as 0.999")
    if mean_over not in ("rows", "classes"):
        raise ValueError(f"mean_over is {mean_over!r}; known: rows, classes")
    names, named = [str(each) for each in classes_C], _by_name(weighting)
    counts_C = np.array([rows_of.get(each, 0) for each in classes_C])
    return weights.class_weights(counts_C, named, names, beta=beta, mean_over=mean_over)


def _by_name(weighting: str | Mapping[Any, float]) -> str | dict[str, float]:
    """Return a known weighting, or the weights by class name.

    Raises:
        ValueError: an unknown weighting, or a weight that is not above 0.
    """
    known = f"known: {', '.join(weights.WEIGHTINGS)}, or a mapping {{class: weight}}"
    if isinstance(weighting, str):
        if weighting not in weights.WEIGHTINGS:
            raise ValueError(
                f"weighting is {weighting!r}; {known}.{did_you_mean(weighting, weights.WEIGHTINGS)}"
            )
        return weighting
    if not isinstance(weighting, Mapping):
        raise ValueError(f"weighting is of type {type(weighting).__name__}; {known}")
    named = {str(key): float(weight) for key, weight in weighting.items()}
    for name, weight in named.items():
        if not 0 < weight < inf:
            raise ValueError(f"the weight of {name!r} is {weight:g}; give a number above 0")
    return named


def checked_labels(labels: Labels) -> Array:
    """Return the labels as an array (N,).

    Raises:
        ValueError: no rows, several labels a row, a missing label, or a number out of range.
    """
    labels_N = np.asarray(labels)
    if labels_N.ndim != 1 or not len(labels_N):
        raise ValueError(f"labels has the shape {labels_N.shape}; give one label a row, (N,)")
    if labels_N.dtype.kind in "fO":
        from pandas import isna  # slow to import

        if (missing_N := np.flatnonzero(isna(labels_N))).size:
            raise ValueError(f"labels lacks the label of row {missing_N[0]}; leave the row out")
    return labels_N


def _drawn(labels: Labels, method: str, parameter: float, seed: int) -> Ints:
    """Return the sorted indices of the rows that a method of METHODS draws.

    Raises:
        ValueError: the parameter is outside the range of the method.
    """
    key, _, least, most = PARAMETERS[method]
    if not least <= parameter <= most:
        limit = "or more" if isinf(most) else f"to {most:g}"
        raise ValueError(f"{key} is {parameter}; {method} takes {least:g} {limit}")
    labels_N = checked_labels(labels)
    _, ids_N, counts_C = np.unique(labels_N, return_inverse=True, return_counts=True)
    wanted_C = wanted_rows(counts_C, method, parameter)
    keys_N = np.arange(len(ids_N), dtype=np.uint64)
    return draw(ids_N, keys_N, wanted_C, stage_generator(seed, method))
