"""Label names to ids and counts; the one place that fixes the order of the classes."""

import re
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
    """Names of the classes; the position in the list is the label id."""

    names: list[str]

    def __len__(self) -> int:
        return len(self.names)

    def counts(self, targets: Array) -> Ints:
        """Rows of each class, in the order of the ids."""
        return count_labels(targets, len(self.names))


def count_labels(targets: Array, num_labels: int) -> Ints:
    """Rows of each class, (C,).

    Args:
        targets: label ids (N,), or which labels each row has (N, C): a row then counts for each of its labels.
    """
    return (
        np.bincount(targets, minlength=num_labels) if targets.ndim == 1 else targets.sum(axis=0)
    ).astype(np.int64)


def count_drawn(targets: Array, positions: Ints, num_labels: int) -> Ints:
    """Rows of each class, (C,), among the rows at these positions, which may repeat; no copy of a matrix is made.

    Args:
        targets: as of `count_labels`.
    """
    if targets.ndim == 1:
        return count_labels(targets[positions], num_labels)
    times_N = np.bincount(positions, minlength=len(targets))
    rows = np.flatnonzero(times_N)
    places, label_ids = np.nonzero(targets[rows])
    return np.bincount(label_ids, times_N[rows][places], minlength=num_labels).astype(np.int64)


def order_labels(
    found: set[str], class_label_order: list[str] | None, dropped: Mapping[str, int] | None = None
) -> Labels:
    """Labels in ClassLabel order where the source has one; numbers by value; else by name.

    Args:
        dropped: {reason: rows that cleaning dropped for it}, for the message.
    Raises:
        DataError: fewer than two classes.
    """
    if class_label_order:
        names = [name for name in class_label_order if name in found] + sorted(
            found - set(class_label_order)
        )
    elif all(NUMBER.fullmatch(name) for name in found):
        names = sorted(
            found, key=lambda name: (Decimal(name), name)
        )  # '1' and '01' are two labels of one value
    else:
        names = sorted(found)
    if len(names) < 2:
        what = f"one class only, '{names[0]}'" if names else "no class"
        gone = ", ".join(
            f"{count:,} {reason}" for reason, count in (dropped or {}).items() if count
        )
        words = f"the rows hold {what}; a classifier needs two{f' (rows that cleaning dropped: {gone})' if gone else ''}"
        raise DataError(f"{words}. Check data.label_column, data.label_map and data.drop_labels.")
    return Labels(names)


def count_values(column: pa.ChunkedArray) -> dict[str, int]:
    """Return {value: rows} of a column of texts; missing values are left out."""
    return {
        entry["values"]: entry["counts"]
        for entry in pc.value_counts(column).to_pylist()
        if entry["values"] is not None
    }


def encode(
    label_column: pa.ChunkedArray, labels: Labels, names: Mapping[str, str | None] | None = None
) -> Ints:
    """Label id of each row, -1 where the label is missing or not among `labels`.

    Args:
        names: {spelling in the column: name of its class}; left out: spellings are names.
    """
    places = {name: label_id for label_id, name in enumerate(labels.names)}
    spellings = (
        places
        if names is None
        else {spelling: places[name] for spelling, name in names.items() if name in places}
    )
    found_N = pc.fill_null(
        pc.index_in(label_column, value_set=pa.array(list(spellings), pa.string())), -1
    ).to_numpy()
    return np.array([*spellings.values(), -1], np.int64)[
        found_N
    ]  # -1, no label, finds the last one


def by_class(values: Mapping[str, T], labels: Sequence[str], config_key: str) -> dict[str, T]:
    """Return the values of a config's mapping by class names; labels are compared by key, so `1` means '1.0' too.

    Raises:
        ConfigError: labels that the data lacks, or one class named twice.
    """
    found: dict[str, T] = {}
    for name, value in zip(
        in_data(values, labels, config_key, ConfigError), values.values(), strict=True
    ):
        if name in found:
            raise ConfigError(
                f"{config_key} names '{name}' twice, in two spellings. Remove one of them."
            )
        found[name] = value
    return found
