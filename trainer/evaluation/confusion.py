"""How often which class was taken for which: the cells of a confusion matrix that hold rows. Legend: N rows, C classes, L cells."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.arrays import Floats, Ints

MOST_DENSE = 1000
"""Classes up to which metrics.json holds the whole matrix and predictions.parquet a probability of every class."""


@dataclass(frozen=True)
class Confusion:
    """The cells that hold rows, sorted by true class, then by predicted class.

    Attributes:
        true_L, predicted_L: class ids of each cell.
        counts_L: rows of each cell.
    """

    num_classes: int
    true_L: Ints
    predicted_L: Ints
    counts_L: Ints

    @classmethod
    def count(cls, true_N: Ints, predicted_N: Ints, num_classes: int) -> "Confusion":
        """The cells of some rows."""
        kinds_L, counts_L = np.unique(
            true_N.astype(np.int64) * num_classes + predicted_N, return_counts=True
        )
        return cls(num_classes, kinds_L // num_classes, kinds_L % num_classes, counts_L)

    @classmethod
    def read(cls, value: Any, num_classes: int) -> "Confusion":
        """The matrix that metrics.json holds, in either form.

        Raises:
            ValueError, KeyError: neither of the two.
        """
        if isinstance(value, dict):
            columns = (np.array(value[name], np.int64) for name in ("rows", "columns", "counts"))
            true_L, predicted_L, counts_L = columns
            if value.get("format") != "sparse" or not len(true_L) == len(predicted_L) == len(
                counts_L
            ):
                raise ValueError("confusion_matrix is no sparse matrix of rows, columns and counts")
            return cls(num_classes, true_L, predicted_L, counts_L)
        counts_CC = np.array(value, np.int64).reshape(num_classes, num_classes)
        true_L, predicted_L = np.nonzero(counts_CC)
        return cls(num_classes, true_L, predicted_L, counts_CC[true_L, predicted_L])

    def plain(self) -> list[list[int]] | dict[str, Any]:
        """As metrics.json holds it: rows of the whole matrix, or its cells where classes are more than MOST_DENSE."""
        if self.num_classes <= MOST_DENSE:
            return self.within(np.arange(self.num_classes)).tolist()  # type: ignore[no-any-return]
        cells = {"rows": self.true_L, "columns": self.predicted_L, "counts": self.counts_L}
        return {"format": "sparse", **{name: values.tolist() for name, values in cells.items()}}

    def within(self, class_ids: Ints) -> Ints:
        """(K, K) rows of some classes that were taken for one of them, in the order given."""
        places_C = np.full(self.num_classes, -1)
        places_C[class_ids] = np.arange(len(class_ids))
        kept = (places_C[self.true_L] >= 0) & (places_C[self.predicted_L] >= 0)
        counts_KK = np.zeros((len(class_ids), len(class_ids)), np.int64)
        counts_KK[places_C[self.true_L[kept]], places_C[self.predicted_L[kept]]] = self.counts_L[
            kept
        ]
        return counts_KK

    def among(self, class_ids: Ints) -> Ints:
        """(K, K) as of `within`; where other classes are left out, (K, K + 1): the last column holds the rows taken for them."""
        counts = self.within(class_ids)
        if len(class_ids) == self.num_classes:
            return counts
        return np.column_stack([counts, self.support_C[class_ids] - counts.sum(axis=1)])

    @property
    def support_C(self) -> Ints:
        """Rows of each class."""
        return np.bincount(self.true_L, self.counts_L, self.num_classes).astype(np.int64)

    @property
    def given_C(self) -> Ints:
        """Rows that were taken for each class."""
        return np.bincount(self.predicted_L, self.counts_L, self.num_classes).astype(np.int64)

    @property
    def f1_C(self) -> Floats:
        """F1 of each class; 0 where nothing is right."""
        is_right = self.true_L == self.predicted_L
        hits_C = np.bincount(self.true_L[is_right], self.counts_L[is_right], self.num_classes)
        return np.asarray(2 * hits_C / np.maximum(self.support_C + self.given_C, 1))

    @property
    def mcc(self) -> float:
        """Matthews correlation of true and predicted class; 0 where it is not defined. As scikit-learn's matthews_corrcoef."""
        support_C, given_C = self.support_C.astype(np.float64), self.given_C.astype(np.float64)
        right, total = (
            float(self.counts_L[self.true_L == self.predicted_L].sum()),
            float(self.counts_L.sum()),
        )
        given, true = total**2 - given_C @ given_C, total**2 - support_C @ support_C
        return (
            float((right * total - support_C @ given_C) / np.sqrt(true * given))
            if true * given
            else 0.0
        )
