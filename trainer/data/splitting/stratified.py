"""Cut rows into splits in which each class keeps its share, and that each class is in.

Legend: N rows, M rows of one class, C classes, S splits.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Array, Bools, Hashes, Ints
from trainer.data.balancing.balance import stage_generator
from trainer.data.labels.class_order import count_labels
from trainer.data.splitting.groups import place_units
from trainer.data.splitting.iterative import stratify
from trainer.data.splitting.rare_class_placement import place_in_every_split
from trainer.data.splitting.split import row_keys
from trainer.errors import DataError, listing

RARE_REMEDY = (
    "Merge it by data.label_map, list it in data.drop_labels, or set split.rare_classes: keep."
)


class UnplaceableClassesError(DataError):
    """Classes that cannot be in every split.

    Attributes:
        class_ids: the fewest classes without which all others can be in every split.
    """

    def __init__(self, message: str, class_ids: list[int]) -> None:
        super().__init__(message)
        self.class_ids = class_ids


def stratified_split(
    targets: Array,
    text_hashes_N: Hashes,
    units_N: Ints | None,
    shares_S: list[float],
    *,
    labels: list[str],
    seed: int,
    stage: str,
    held_N: Bools,
) -> list[Ints]:
    """Return the sorted positions of the rows of each split.

    Args:
        targets: label ids (N,), or which labels each row has (N, C).
        units_N: the rows that stay together, from `linked_units`.
        shares_S: shares that add up to 1.
        held_N: rows that must be in the first split, with all rows that are linked to them.
    Raises:
        DataError: a class has fewer rows than there are splits.
        UnplaceableClassesError: the groups or the other labels of a class keep it out of a split.
    """
    num_classes, num_splits = len(labels), len(shares_S)
    free_C = count_labels(targets[~held_N], num_classes)
    held_C = count_labels(targets[held_N], num_classes)
    refuse_small_classes(np.where(free_C > 0, free_C + (held_C > 0), 0), labels, num_splits)
    keys_N = row_keys(text_hashes_N, seed, stage)
    splits_N = np.where(held_N, 0, -1).astype(np.int16)
    if targets.ndim == 1:
        _place_single_labels(targets, keys_N, units_N, shares_S, splits_N, num_classes)
    else:
        generator = stage_generator(seed, stage, "iterative")
        _place_label_sets(targets, keys_N, units_N, shares_S, splits_N, generator)
    unplaceable = place_in_every_split(
        units_N, keys_N, held_N, targets, splits_N, np.flatnonzero(free_C), num_splits
    )
    if unplaceable:
        names = listing(labels[c] for c in unplaceable)
        words = (
            f"the groups of {names} are too few or too large to be in each of {num_splits} splits"
            if targets.ndim == 1
            else f"the rows of {names} are tied to other labels or groups and cannot be in each of"
            f" {num_splits} splits"
        )
        raise UnplaceableClassesError(f"{words}. {RARE_REMEDY}", unplaceable)
    return [np.flatnonzero(splits_N == split) for split in range(num_splits)]


def refuse_small_classes(counts_C: Ints, labels: list[str], num_splits: int) -> None:
    """Raise DataError if a class has rows, but fewer than there are splits."""
    small = [
        f"'{labels[c]}' has {counts_C[c]} row{'' if counts_C[c] == 1 else 's'}"
        for c in range(len(labels))
        if 0 < counts_C[c] < num_splits
    ]
    if small:
        needed = f"{num_splits} stratified splits need {num_splits}"
        raise DataError(f"label {listing(small)}; {needed}. {RARE_REMEDY}")


def quotas(counts_C: Ints, shares_S: list[float]) -> Ints:
    """Return the rows of each class that each split gets, (C, S), within one row of its share.

    Each split gets at least one row of a class that has enough rows. The rows that are left after
    rounding go to the split that lacks most of the class and of all classes together, so that
    splits also keep their share of all rows.
    """
    wanted_CS = np.outer(counts_C, shares_S)
    quota_CS = np.floor(wanted_CS + 1e-9).astype(np.int64)
    for c in np.argsort(counts_C, kind="stable"):
        for _ in range(int(counts_C[c] - quota_CS[c].sum())):
            lacking_S = wanted_CS[c] - quota_CS[c]
            lacking_in_all_S = wanted_CS.sum(axis=0) - quota_CS.sum(axis=0)
            scores_S = np.where(lacking_S > 1e-9, lacking_S + lacking_in_all_S, -np.inf)
            quota_CS[c, int(np.argmax(scores_S))] += 1
        for split in range(len(shares_S)):
            if quota_CS[c, split] == 0 and counts_C[c] >= len(shares_S):
                quota_CS[c, int(np.argmax(quota_CS[c]))] -= 1
                quota_CS[c, split] += 1
    return quota_CS


def _place_single_labels(
    label_ids_N: Ints,
    keys_N: Hashes,
    units_N: Ints | None,
    shares_S: list[float],
    splits_N: NDArray[np.int16],
    num_classes: int,
) -> None:
    """Place the units of several rows, then the other rows of each class, in place."""
    quota_CS = quotas(np.bincount(label_ids_N, minlength=num_classes), shares_S)
    left_CS = quota_CS.astype(np.float64)
    left_CS[:, 0] -= count_labels(label_ids_N[splits_N == 0], num_classes)
    place_units(units_N, label_ids_N, keys_N, left_CS, quota_CS, splits_N)
    for c in range(num_classes):
        rows_M = np.flatnonzero((label_ids_N == c) & (splits_N < 0))
        lacking_S = np.maximum(0, left_CS[c])
        # The splits share the rows by what they lack; without linked rows that is exact.
        scale = len(rows_M) / lacking_S.sum() if lacking_S.any() else 0
        ends_S = np.rint(np.cumsum(lacking_S) * scale).astype(np.int64)
        cuts = ends_S[:-1][ends_S[:-1] < len(rows_M)]
        keys_M, splits_N[rows_M] = keys_N[rows_M], 0
        if len(cuts):  # np.partition takes a 15th of the time of sorting 10 million keys
            for first_key in np.partition(keys_M, cuts)[cuts]:
                splits_N[rows_M] += keys_M >= first_key


def _place_label_sets(
    label_matrix_NC: Bools,
    keys_N: Hashes,
    units_N: Ints | None,
    shares_S: list[float],
    splits_N: NDArray[np.int16],
    generator: np.random.Generator,
) -> None:
    """Place the units of several rows, then the other rows by iterative stratification, in place.

    Units are placed by the counts of all their labels and of their rows.
    """
    counted_NC = np.c_[label_matrix_NC, np.ones(len(keys_N), bool)]  # the last column counts rows
    quota_CS = np.outer(counted_NC.sum(axis=0), shares_S)
    left_CS = quota_CS.copy()
    left_CS[:, 0] -= counted_NC[splits_N == 0].sum(axis=0)
    place_units(units_N, counted_NC, keys_N, left_CS, quota_CS, splits_N)
    rows_M = np.flatnonzero(splits_N < 0)
    if len(rows_M):
        rows_M = rows_M[np.argsort(keys_N[rows_M])]  # the order of the file must not matter
        lacking_S = np.maximum(0, left_CS[-1])
        shares = lacking_S / lacking_S.sum()
        splits_N[rows_M] = stratify(label_matrix_NC[rows_M], shares, generator)
