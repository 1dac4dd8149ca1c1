"""Labels out of whatever a user trains on.

Legend: N rows, C classes.
"""

from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np

from trainer.arrays import Array

LABEL_COLUMNS = ("labels", "label", "label_ids")
"""Names of label columns that the collators of transformers know."""


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
