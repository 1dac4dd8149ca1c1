"""The order of the classes, which fixes their label ids, and counts in this order.

Legend: N rows, C classes.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.arrays import Array, Ints
from trainer.data.labels.label_normalisation import in_data
from trainer.errors import ConfigError, DataError

T = TypeVar("T")
NUMBER = re.compile(r"-?\d+(\.\d+)?")


@dataclass(frozen=True)
class Labels:
    """The names of the classes; the position in the list is the label id."""

    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def counts(self, targets: Array) -> Ints:
        """Return the rows of each class, in the order of the ids."""
        return count_labels(targets, len(self.names))


def count_labels(targets: Array, num_labels: int) -> Ints:
    """Return the rows of each class, (C,).

    Args:
        targets: label ids (N,), or which labels each row has (N, C); a row then counts for each of
            its labels.
    """
    one_label = targets.ndim == 1
    counts_C = np.bincount(targets, minlength=num_labels) if one_label else targets.sum(axis=0)
    return counts_C.astype(np.int64)


def count_drawn(targets: Array, positions: Ints, num_labels: int) -> Ints:
    """Return the rows of each class, (C,), among the rows at some positions, which may repeat.

    No copy of a label matrix is made.

    Args:
        targets: as for `count_labels`.
    """
    if targets.ndim == 1:
        return count_labels(targets[positions], num_labels)
    times_N = np.bincount(positions, minlength=len(targets))
    rows = np.flatnonzero(times_N)
    places, label_ids = np.nonzero(targets[rows])
    return np.bincount(label_ids, times_N[rows][places], minlength=num_labels).astype(np.int64)


def rows_of_labels(targets: Array, num_labels: int) -> list[Ints]:
    """Return the rows of each class.

    Args:
        targets: as for `count_labels`.
    """
    rows_M, ids_M = (np.arange(len(targets)), targets) if targets.ndim == 1 else np.nonzero(targets)
    ends_C = np.cumsum(np.bincount(ids_M, minlength=num_labels))
    return np.split(rows_M[np.argsort(ids_M, kind="stable")], ends_C[:-1])


def order_labels(
    found: set[str], class_label_order: list[str] | None, dropped: Mapping[str, int] | None = None
) -> Labels:
    """Return the labels in ClassLabel order if the source has one; else numbers by value, or names.

    Args:
        dropped: {reason: rows that cleaning dropped}, for the message.
    Raises:
        DataError: fewer than two classes are found.
    """
    names = sorted(found)
    if class_label_order:
        names = [name for name in class_label_order if name in found]
        names += sorted(found - set(names))
    elif all(NUMBER.fullmatch(name) for name in found):
        names.sort(key=Decimal)  # '1' and '01' are two labels of one value
    if len(names) < 2:
        classes = f"one class only, '{names[0]}'" if names else "no class"
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in (dropped or {}).items() if n)
        reasons = f" (rows that cleaning dropped: {reasons})" if reasons else ""
        raise DataError(
            f"the rows hold {classes}; a classifier needs two{reasons}. Check data.label_column,"
            " data.label_map and data.drop_labels."
        )
    return Labels(names)


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Return {value: rows} of a column of text, without missing values."""
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()}
    counts.pop(None, None)
    return counts


def encode(
    label_column: pa.ChunkedArray, labels: Labels, names: Mapping[str, str | None] | None = None
) -> Ints:
    """Return the label id of each row, -1 if its label is missing or not among `labels`.

    Args:
        names: {spelling in the column: name of its class}; None: spellings are names.
    """
    id_of = {name: label_id for label_id, name in enumerate(labels.names)}
    if names is not None:
        id_of = {spelling: id_of[name] for spelling, name in names.items() if name in id_of}
    places = pc.index_in(label_column, value_set=pa.array(list(id_of), pa.string()))
    ids = np.array([*id_of.values(), -1], np.int64)
    return ids[pc.fill_null(places, -1).to_numpy()]  # -1, no label, finds the last one


def by_class(values: Mapping[str, T], labels: Sequence[str], config_key: str) -> dict[str, T]:
    """Return the values of a config's mapping by class name; `1` also means the label '1.0'.

    Raises:
        ConfigError: the mapping names labels that the data lack, or one class twice.
    """
    names = in_data(values, labels, config_key, ConfigError)
    for name, times in Counter(names).items():
        if times > 1:
            raise ConfigError(
                f"{config_key} names '{name}' twice, in two spellings. Remove one of them."
            )
    return dict(zip(names, values.values(), strict=True))
