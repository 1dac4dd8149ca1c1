"""A sparse confusion matrix and the metrics that follow from it.

Legend: N rows, C classes, K some of the classes, L nonzero entries of the matrix.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.arrays import Floats, Ints

MOST_DENSE = 1000
"""Above this number of classes, metrics.json holds the sparse matrix, and predictions.parquet does
not hold a probability of every class."""


@dataclass(frozen=True)
class Confusion:
    """The nonzero entries of a confusion matrix, sorted by true class, then by predicted class.

    Attributes:
        true_L, predicted_L: class ids of each entry.
        counts_L: number of rows of each entry.
    """

    num_classes: int
    true_L: Ints
    predicted_L: Ints
    counts_L: Ints

    @classmethod
    def count(cls, true_N: Ints, predicted_N: Ints, num_classes: int) -> "Confusion":
        """Return the confusion matrix of some rows."""
        pairs_L, counts_L = np.unique(
            true_N.astype(np.int64) * num_classes + predicted_N, return_counts=True
        )
        return cls(num_classes, pairs_L // num_classes, pairs_L % num_classes, counts_L)

    @classmethod
    def read(cls, value: Any, num_classes: int) -> "Confusion":
        """Return the matrix that metrics.json holds, in either form.

        Raises:
            ValueError, KeyError: the value has neither of the two forms.
        """
        if isinstance(value, dict):
            entries = [np.array(value[name], np.int64) for name in ("rows", "columns", "counts")]
            if value.get("format") != "sparse" or len({len(column) for column in entries}) > 1:
                raise ValueError("confusion_matrix is no sparse matrix of rows, columns and counts")
            return cls(num_classes, *entries)
        counts_CC = np.array(value, np.int64).reshape(num_classes, num_classes)
        true_L, predicted_L = np.nonzero(counts_CC)
        return cls(num_classes, true_L, predicted_L, counts_CC[true_L, predicted_L])

    def plain(self) -> list[list[int]] | dict[str, Any]:
        """Return the value for metrics.json: the whole matrix, or a sparse one (MOST_DENSE)."""
        if self.num_classes <= MOST_DENSE:
            return self.within(np.arange(self.num_classes)).tolist()
        entries = {"rows": self.true_L, "columns": self.predicted_L, "counts": self.counts_L}
        return {"format": "sparse", **{name: values.tolist() for name, values in entries.items()}}

    def within(self, class_ids: Ints) -> Ints:
        """Return the matrix of some classes (K, K), in the order given."""
        places_C = np.full(self.num_classes, -1)
        places_C[class_ids] = np.arange(len(class_ids))
        true_L, predicted_L = places_C[self.true_L], places_C[self.predicted_L]
        kept = (true_L >= 0) & (predicted_L >= 0)
        counts_KK = np.zeros((len(class_ids), len(class_ids)), np.int64)
        counts_KK[true_L[kept], predicted_L[kept]] = self.counts_L[kept]
        return counts_KK

    def among(self, class_ids: Ints) -> Ints:
        """Return `within`; if it omits classes, a last column counts the rows predicted as them."""
        counts = self.within(class_ids)
        if len(class_ids) == self.num_classes:
            return counts
        return np.column_stack([counts, self.support_C[class_ids] - counts.sum(axis=1)])

    @property
    def support_C(self) -> Ints:
        """Return the number of rows of each class."""
        return np.bincount(self.true_L, self.counts_L, self.num_classes).astype(np.int64)

    @property
    def given_C(self) -> Ints:
        """Return the number of rows that are predicted as each class."""
        return np.bincount(self.predicted_L, self.counts_L, self.num_classes).astype(np.int64)

    @property
    def hits_C(self) -> Ints:
        """Return the number of rows of each class that are predicted correctly."""
        is_right = self.true_L == self.predicted_L
        true_L, counts_L = self.true_L[is_right], self.counts_L[is_right]
        return np.bincount(true_L, counts_L, self.num_classes).astype(np.int64)

    @property
    def f1_C(self) -> Floats:
        """Return the F1 of each class, 0 without a correct row."""
        return np.asarray(2 * self.hits_C / np.maximum(self.support_C + self.given_C, 1))

    @property
    def mcc(self) -> float:
        """Return the Matthews correlation, 0 where it is undefined.

        Equals scikit-learn's matthews_corrcoef.
        """
        support_C, given_C = self.support_C.astype(np.float64), self.given_C.astype(np.float64)
        right, total = float(self.hits_C.sum()), float(self.counts_L.sum())
        given, true = total**2 - given_C @ given_C, total**2 - support_C @ support_C
        if not true * given:
            return 0.0
        return float((right * total - support_C @ given_C) / np.sqrt(true * given))
