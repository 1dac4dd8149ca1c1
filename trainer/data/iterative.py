"""Train, validation and test of multi-label rows by iterative stratification. Legend: N rows, C labels, S sides."""

import numpy as np
from numpy.typing import NDArray

from trainer.data.balance import stage_generator
from trainer.data.split import Ints, place_linked, refuse_small_classes, row_keys
from trainer.data.text_hashes import Hashes
from trainer.errors import DataError, listing


def iterative_split(
    label_matrix_NC: NDArray[np.bool_], text_hashes_N: Hashes, groups_N: Ints | None, shares_S: list[float], *, labels: list[str], seed: int, stage: str
) -> list[Ints]:
    """Sorted positions of each side, every label and every number of rows near its share, every label on every side.

    Rows that belong together (equal texts, groups) are placed first, greedily, each set with the counts of all its
    labels; the single rows follow by iterative stratification, in the order of their texts' hashes.

    Args:
        groups_N: group id of each row or None; rows of one group, and equal texts, stay on one side.
        shares_S: shares that add up to 1.
    Raises:
        DataError: a label that cannot stand on every side.
    Source: Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10, as implemented by the package iterative-stratification.
    """
    from iterstrat.ml_stratifiers import IterativeStratification

    refuse_small_classes(label_matrix_NC.sum(axis=0), labels, len(shares_S))
    keys_N = row_keys(text_hashes_N, seed, stage)
    sides_N = np.full(len(keys_N), -1, np.int64)
    counted_NC = np.c_[label_matrix_NC, np.ones(len(keys_N), bool)]  # the last column counts the rows themselves
    quota_CS = np.outer(counted_NC.sum(axis=0), shares_S)
    left_CS = quota_CS.copy()
    place_linked(text_hashes_N, groups_N, counted_NC, keys_N, left_CS, quota_CS, sides_N)
    single = np.flatnonzero(sides_N < 0)
    single = single[np.argsort(keys_N[single])]  # each has a text of its own, so the order of the file has no say
    if len(single):
        lacking_S = np.maximum(0, left_CS[-1])
        generator = stage_generator(seed, stage, "iterative")
        sides_N[single] = IterativeStratification(labels=label_matrix_NC[single], r=lacking_S / lacking_S.sum(), random_state=generator)
        _lend(label_matrix_NC, single, sides_N, len(shares_S))
    for side in range(len(shares_S)):
        lacking = np.flatnonzero(~label_matrix_NC[sides_N == side].any(axis=0))
        if len(lacking):
            names = listing(labels[c] for c in lacking)
            raise DataError(
                f"the rows of {names} are tied to other labels or groups and cannot stand in {len(shares_S)} splits."
                " Merge the label, or list it in data.drop_labels."
            )
    return [np.flatnonzero(sides_N == side) for side in range(len(shares_S))]


def _lend(label_matrix_NC: NDArray[np.bool_], single: Ints, sides_N: Ints, num_sides: int) -> None:
    """One row to each side that a label is missing from, rarest label first, from the side that has most of it; no side loses a label."""
    for c in np.argsort(label_matrix_NC.sum(axis=0), kind="stable"):
        for side in range(num_sides):
            counts_SC = np.array([label_matrix_NC[sides_N == s].sum(axis=0) for s in range(num_sides)])
            if counts_SC[side, c]:
                continue
            rows = single[label_matrix_NC[single, c]]
            rows = rows[((counts_SC[sides_N[rows]] > 1) | ~label_matrix_NC[rows]).all(axis=1)]
            if len(rows):
                richest_first = np.lexsort((label_matrix_NC[rows].sum(axis=1), -counts_SC[sides_N[rows], c]))
                sides_N[rows[richest_first[0]]] = side
