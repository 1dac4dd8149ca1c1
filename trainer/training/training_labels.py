"""The labels of a training data set: rows and weights of each class.

Legend: N rows, C classes.
"""

from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.data.balancing.label_rounds import expected_counts
from trainer.data.balancing.weights import WEIGHTINGS, class_weights
from trainer.data.labels.multi_label import (
    POSITIVE_WEIGHTINGS,
    answer_weights,
    positive_weights,
)
from trainer.errors import did_you_mean, listing
from trainer.training.losses.one_label import IGNORED

LABEL_COLUMNS = ("labels", "label", "label_ids")
"""Names of label columns that the collators of transformers know."""

Weights: TypeAlias = (
    Literal["none", "balanced", "sqrt", "effective_number"] | Mapping[Any, float] | Tensor | Floats
)


@dataclass(frozen=True)
class TrainingLabels:
    """The labels of a training data set, which are read when they are first needed.

    Args:
        dataset: data set of any kind that `transformers.Trainer` takes.
        columns: further names of the label column, before LABEL_COLUMNS.
        names: class names (C,).
        is_multi_label: whether a row has a vector of 0 and 1 for a label.
        given_counts: rows of each class (C,), for data sets without a label column.
        given_rows: rows of an epoch, if they are not those of the data set.
        is_balanced: whether the sampler draws every class equally often.
    """

    dataset: Any
    columns: Sequence[str]
    names: Sequence[str]
    is_multi_label: bool
    given_counts: Sequence[int] | Ints | None = None
    given_rows: int | None = None
    is_balanced: bool = False

    @cached_property
    def labels(self) -> Array:
        """The labels of the rows: class ids (N,), or 0 and 1 for each class (N, C).

        Raises:
            ValueError: labels that cannot be read.
        """
        return read_labels(self.dataset, self.columns)

    @cached_property
    def counts_C(self) -> Ints:
        """The rows of each class that an epoch draws (C,), in int64.

        Raises:
            ValueError: labels that cannot be read, or lie outside [0, C); counts that are none.
        """
        num_labels = len(self.names)
        if self.given_counts is not None:
            counts_C = np.asarray(self.given_counts)
            if (counts_C != np.round(counts_C)).any() or (counts_C < 0).any() or not counts_C.any():
                raise ValueError(
                    f"class_counts is {listing(counts_C.tolist())}; give the rows of each class,"
                    " whole numbers from 0"
                )
        elif self.labels.ndim == 2:
            counts_C = (self.labels > 0).sum(0)  # IGNORED is below 0
        else:
            counts_C = np.bincount(self.labels[self.labels >= 0], minlength=num_labels)
        if counts_C.shape != (num_labels,):
            raise ValueError(
                f"the labels or class_counts name {len(counts_C)} classes; "
                f"model.config.num_labels is {num_labels}"
            )
        if self.is_balanced and self.is_multi_label:
            return expected_counts(self.labels > 0)
        if self.is_balanced:
            present_C = counts_C > 0
            counts_C = present_C * max(counts_C.sum() // present_C.sum(), 1)
        return counts_C.astype(np.int64)

    @property
    def num_rows(self) -> int:
        """The rows of an epoch.

        Raises:
            ValueError: the data set has no length, and it was not given.
        """
        if self.given_rows is None and not isinstance(self.dataset, Sized):
            raise ValueError(
                "class_weights and losses of several labels a row need train_dataset's length; give"
                " num_rows="
            )
        return len(self.dataset) if self.given_rows is None else self.given_rows

    def refuse_unsampled(self) -> None:
        """Raise ValueError if the labels of a row are not known, so that no class draws it."""
        is_ignored_N: Bools = self.labels < 0
        if self.is_multi_label:
            if self.labels.ndim != 2:
                raise ValueError(
                    "model.config.problem_type is 'multi_label_classification', but the labels are"
                    " class ids; give a vector of 0 and 1 for each row"
                )
            is_ignored_N = np.logical_and.reduce(is_ignored_N, axis=1)
        if num_ignored := int(is_ignored_N.sum()):
            raise ValueError(
                f"sampler is 'class_balanced', but rows with the label {IGNORED} have no class"
                f" ({num_ignored:,} of {len(self.labels):,}); leave them out of train_dataset"
            )

    def weights(self, given: Weights | None, beta: float | None) -> Tensor:
        """Return the class weights in float32, as `WeightedTrainer` documents them.

        Returns:
            One weight per class (C,); with `effective_number` and several labels a row, the weights
            of rows without and with each label (2, C).

        Raises:
            ValueError: an unknown name or class, or a tensor of another shape.
        """
        if given is None or (isinstance(given, str) and given == "none"):
            return torch.ones(len(self.names))
        if isinstance(given, Tensor | np.ndarray):
            weights_C = torch.as_tensor(given, dtype=torch.float32)
            shapes = [(len(self.names),), *([(2, len(self.names))] if self.is_multi_label else [])]
            if weights_C.shape not in shapes:
                raise ValueError(
                    f"class_weights has the shape {tuple(weights_C.shape)}; "
                    f"give ({len(self.names)},), one weight a class"
                )
            if not (weights_C.isfinite() & (weights_C >= 0)).all():
                raise ValueError("class_weights holds a value below 0, nan or inf; give others")
            return weights_C
        if isinstance(given, str):
            known = POSITIVE_WEIGHTINGS if self.is_multi_label else WEIGHTINGS
            refuse_unknown("class_weights", given, list(known))
            named: Any = given
        elif isinstance(given, Mapping):
            named = self._by_name(given)
        else:
            raise ValueError(
                f"class_weights is of type {type(given).__name__}; give a name, a mapping"
                " {class: weight} or a tensor (C,)"
            )
        if self.is_multi_label:
            positive_C = positive_weights(
                self.counts_C, self.num_rows, named, list(self.names), beta=beta
            )
            found_C = answer_weights(positive_C, named)
        else:
            found_C = class_weights(self.counts_C, named, list(self.names), beta=beta or 0.999)
        return torch.as_tensor(found_C, dtype=torch.float32)

    def _by_name(self, weights: Mapping[Any, float]) -> dict[str, float]:
        """Return the weights by class name; keys are class ids or names."""
        found: dict[str, float] = {}
        for key, value in weights.items():
            is_id = isinstance(key, int | np.integer) and 0 <= key < len(self.names)
            if not is_id and key not in self.names:
                hint = did_you_mean(str(key), self.names)
                raise ValueError(
                    f"class_weights names {key!r}; known: {listing(self.names)}.{hint}"
                )
            name, weight = self.names[key] if is_id else key, float(value)
            if name in found:
                raise ValueError(f"class_weights names {name!r} twice, by its name and by its id")
            if not 0 < weight < inf:
                raise ValueError(f"the weight of {name!r} is {weight:g}; give a number above 0")
            found[name] = weight
        return found


def read_labels(dataset: Any, columns: Sequence[str] = ()) -> Array:
    """Return the labels of a training data set: class ids (N,), or 0 and 1 for each class (N, C).

    The column of a table is read at once, the rows of any other data set one by one.

    Args:
        dataset: data set of any kind that `transformers.Trainer` takes.
        columns: further names of the label column, before LABEL_COLUMNS.
    Raises:
        ValueError: there are no rows, no labels, or labels that are no whole numbers.
    """
    names = tuple(dict.fromkeys((*columns, *LABEL_COLUMNS)))
    remedy = "give class_counts=, the rows of each class"
    kind = type(dataset).__name__
    if dataset is None:
        raise ValueError(f"the training labels cannot be read without train_dataset; {remedy}")
    is_table = getattr(dataset, "column_names", None) is not None
    if is_table:
        # a transform that is applied on access may need more columns than the labels
        dataset = dataset.with_format(None) if hasattr(dataset, "with_format") else dataset
        first: Any = dict.fromkeys(dataset.column_names)
    elif isinstance(dataset, Sized) and hasattr(dataset, "__getitem__") and len(dataset):
        first = dataset[0]
    else:
        raise ValueError(
            f"the training labels cannot be read: {kind} has no numbered rows; {remedy}"
        )
    column = next((name for name in names if isinstance(first, Mapping) and name in first), None)
    if column is None:
        raise ValueError(
            f"the training labels cannot be read: the rows of {kind} have no "
            f"{', '.join(names)}; {remedy}"
        )
    if is_table:
        values = dataset[column]
        labels = np.asarray(values[:] if isinstance(values, Sequence) else list(values))
    else:
        labels = np.asarray([np.asarray(dataset[row][column]) for row in range(len(dataset))])
    if labels.dtype.kind not in "biuf" or (labels != np.round(labels)).any():
        raise ValueError(
            f"the training labels in {column!r} are like {labels.ravel()[0]!r}; "
            "give class ids, whole numbers from 0"
        )
    return labels.astype(np.int64)


def refuse_unknown(name: str, value: Any, known: Sequence[Any]) -> None:
    """Raise ValueError with the nearest known name."""
    if value not in known:
        hint = did_you_mean(str(value), [str(each) for each in known])
        raise ValueError(f"{name} is {value!r}; known: {', '.join(map(repr, known))}.{hint}")
