"""Class counts to row indices and class weights; table METHODS. Legend: N rows, C classes.

A method draws positions into the rows it is given and never copies text. It is handed the labels of the rows it may
draw from and nothing else, so validation and test rows cannot arrive here.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ConfigError, DataError, listing

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def stage_generator(seed: int, *stage: str | int) -> np.random.Generator:
    """Random generator of one stage, derived from the run's seed and the stage's name."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in stage)])


def draw_all(label_ids_N: Ints, row_keys_N: NDArray[np.uint64], generator: np.random.Generator) -> Ints:
    """Every row once."""
    return np.arange(len(label_ids_N), dtype=np.int64)


def draw_undersample(label_ids_N: Ints, row_keys_N: NDArray[np.uint64], generator: np.random.Generator) -> Ints:
    """As many rows of each class as the smallest class has, drawn without replacement.

    Source: random undersampling; counts as imbalanced-learn's RandomUnderSampler with sampling_strategy 'auto'.
    """
    classes, counts = np.unique(label_ids_N, return_counts=True)
    smallest = counts.min()
    drawn = []
    for label_id in classes:
        members = np.flatnonzero(label_ids_N == label_id)
        members = members[np.argsort(row_keys_N[members], kind="stable")]  # the order of the file has no say
        drawn.append(generator.choice(members, size=smallest, replace=False))
    return np.sort(np.concatenate(drawn))


METHODS: dict[str, Callable[[Ints, NDArray[np.uint64], np.random.Generator], Ints]] = {
    "none": draw_all,
    "undersample": draw_undersample,
}
"""Ways to draw training rows: (label ids, row keys, generator) -> sorted positions into the rows given."""


@dataclass(frozen=True)
class BalancePlan:
    """Which training rows are seen in each epoch.

    Attributes:
        label_ids_N: label id of each training row.
        row_keys_N: a number that depends on the row's text alone; makes the draw independent of the order of rows.
    """

    method: str
    label_ids_N: Ints
    row_keys_N: NDArray[np.uint64]
    num_labels: int
    seed: int
    resample_each_epoch: bool = False

    def positions(self, epoch: int = 0) -> Ints:
        """Sorted positions into the training rows that this epoch sees."""
        stage = epoch if self.resample_each_epoch else 0
        generator = stage_generator(self.seed, "balance", stage)
        return METHODS[self.method](self.label_ids_N, self.row_keys_N, generator)

    @property
    def counts_C(self) -> Ints:
        """Rows of each class in one epoch (the same in every epoch)."""
        return np.bincount(self.label_ids_N[self.positions(0)], minlength=self.num_labels)


def plan_balance(
    train_label_ids_N: Ints,
    row_keys_N: NDArray[np.uint64],
    *,
    labels: list[str],
    method: str,
    seed: int,
    resample_each_epoch: bool = False,
) -> BalancePlan:
    """Plan of the rows drawn from the training split.

    Raises:
        DataError: no rows, or a class without a row.
    """
    counts_C = np.bincount(train_label_ids_N, minlength=len(labels)) if len(train_label_ids_N) else np.zeros(len(labels), int)
    missing = [label for label, count in zip(labels, counts_C, strict=True) if count == 0]
    if missing:
        raise DataError(f"the training rows hold no row of {listing(missing)}. Add rows, or list them in data.drop_labels.")
    if (counts_C > 0).sum() < 2:
        raise DataError(f"the training rows hold one class only, '{labels[0]}'; a classifier needs two.")
    return BalancePlan(method, train_label_ids_N, row_keys_N, len(labels), seed, resample_each_epoch)


def plan_pool(label_ids_N: Ints, row_keys_N: NDArray[np.uint64], *, method: str, seed: int) -> Ints:
    """Sorted positions kept of the whole pool before it is split into train and validation (`balance.scope: all`).

    The one exception to 'only training rows are balanced'; test rows have been split off before.
    """
    return METHODS[method](label_ids_N, row_keys_N, stage_generator(seed, "pool"))


def weight_none(counts_C: Ints) -> Floats:
    """Weight 1 for every class."""
    return np.ones(len(counts_C))


def weight_balanced(counts_C: Ints) -> Floats:
    """N / (K n_c), as scikit-learn's compute_class_weight('balanced'). Source: King and Zeng 2001."""
    return counts_C.sum() / (len(counts_C) * np.maximum(counts_C, 1))


WEIGHTINGS: dict[str, Callable[[Ints], Floats]] = {"none": weight_none, "balanced": weight_balanced}
"""Named class weights: counts of the drawn rows -> one weight per class."""


def class_weights(counts_C: Ints, weighting: str | dict[str, float], labels: list[str]) -> Floats:
    """One weight per class, rescaled to mean 1 over the rows drawn for training.

    Args:
        counts_C: rows of each class among the rows drawn for one epoch.
        weighting: a name in WEIGHTINGS, or {label: weight} where labels left out weigh 1.
    Raises:
        ConfigError: a weight for a label that the data lacks.
    """
    if isinstance(weighting, str):
        weights_C = WEIGHTINGS[weighting](counts_C)
    else:
        unknown = sorted(set(weighting) - set(labels))
        if unknown:
            raise ConfigError(f"loss.class_weights names {listing(unknown)}; labels in the data: {listing(labels)}.")
        weights_C = np.array([weighting.get(label, 1.0) for label in labels])
    return weights_C * counts_C.sum() / (weights_C * counts_C).sum()
