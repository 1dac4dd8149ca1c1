"""Cut rows with one label each into splits in which each class keeps its share."""

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Array, Bools, Floats, Hashes, Ints
from trainer.data.labels.class_order import count_labels
from trainer.data.splitting.groups import place_units
from trainer.data.splitting.rare_class_placement import Units, place_in_every_split
from trainer.data.splitting.split import row_keys
from trainer.errors import DataError, listing

RARE_REMEDY = (
    "Merge it by data.label_map, list it in data.drop_labels, or set split.rare_classes: keep."
)
"""What to do with a class that cannot stand on every side."""


class ClassesApartError(DataError):
    """Classes that cannot stand on every side.

    Attributes:
        class_ids: the fewest classes without which the others can.
    """

    def __init__(self, message: str, class_ids: list[int]) -> None:
        super().__init__(message)
        self.class_ids = class_ids


def quotas(counts_C: Ints, shares_S: list[float]) -> Ints:
    """Rows of each class for each side, (C, S): within one row of its share, and at least one row where a class has enough.

    Sides keep their share of all rows too: a class's odd row goes to the side that the class and all classes together owe most.
    """
    wanted_CS = counts_C[:, None] * np.array(shares_S)[None, :]
    out_CS = np.floor(wanted_CS + 1e-9).astype(np.int64)
    for c in np.argsort(counts_C, kind="stable"):
        for _ in range(int(counts_C[c] - out_CS[c].sum())):
            owed_S = wanted_CS[c] - out_CS[c]
            behind_S = wanted_CS.sum(axis=0) - out_CS.sum(axis=0)
            open_S = owed_S > 1e-9
            side = int(np.argmax(np.where(open_S, owed_S + behind_S, -np.inf)))
            out_CS[c, side] += 1
        for side in range(len(shares_S)):
            if out_CS[c, side] == 0 and counts_C[c] >= len(shares_S):
                out_CS[c, int(np.argmax(out_CS[c]))] -= 1
                out_CS[c, side] += 1
    return out_CS


def refuse_small_classes(counts_C: Ints, labels: list[str], num_sides: int) -> None:
    """Raises DataError naming the classes that have fewer rows than there are sides."""
    small = [
        f"'{labels[c]}' has {counts_C[c]} row{'' if counts_C[c] == 1 else 's'}"
        for c in range(len(labels))
        if 0 < counts_C[c] < num_sides
    ]
    if small:
        raise DataError(
            f"label {listing(small)}; {num_sides} stratified splits need {num_sides}. {RARE_REMEDY}"
        )


def stratified_split(
    label_ids_N: Ints,
    text_hashes_N: Hashes,
    units_N: Ints | None,
    shares_S: list[float],
    *,
    labels: list[str],
    seed: int,
    stage: str,
    held_N: Bools | None = None,
) -> list[Ints]:
    """Sorted positions of each side.

    Args:
        units_N: the set of rows that each row stays together with, from `linked_units`.
        shares_S: shares that add up to 1.
        held_N: rows that belong to the first side whatever its share, with all rows that are linked
            to them.
    Raises:
        DataError: a class has fewer rows than there are sides; ClassesApartError: its groups cannot
            stand on every side.
    """
    counts_C = np.bincount(label_ids_N, minlength=len(labels))
    held_N = np.zeros(len(label_ids_N), bool) if held_N is None else held_N
    refuse_small_classes(placeable(label_ids_N, held_N, len(labels)), labels, len(shares_S))
    keys_N = row_keys(text_hashes_N, seed, stage)
    quota_CS = quotas(counts_C, shares_S)
    sides_N = np.where(held_N, 0, -1).astype(np.int16)
    left_CS = quota_CS.astype(np.float64)
    left_CS[:, 0] -= count_labels(label_ids_N[held_N], len(labels))
    place_units(units_N, label_ids_N, keys_N, left_CS, quota_CS, sides_N)
    for c in range(len(labels)):
        members = np.flatnonzero((label_ids_N == c) & (sides_N < 0))
        sides_N[members] = _fill(keys_N[members], left_CS[c])
    apart = settle(units_N, keys_N, held_N, label_ids_N, sides_N, len(labels), len(shares_S))
    if apart:
        words = f"the groups of {listing(labels[c] for c in apart)} are too few or too large to stand in {len(shares_S)} splits"
        raise ClassesApartError(f"{words}. {RARE_REMEDY}", apart)
    return [np.flatnonzero(sides_N == side) for side in range(len(shares_S))]


def placeable(targets: Array, held_N: Bools, num_labels: int) -> Ints:
    """Rows of each class that can give a side its row: those that are not held, and one for the
    side of the held ones; 0 where all are held.
    """
    free_C, held_C = (
        count_labels(targets[~held_N], num_labels),
        count_labels(targets[held_N], num_labels),
    )
    return np.where(free_C > 0, free_C + (held_C > 0), 0)


def settle(
    units_N: Ints | None,
    keys_N: Hashes,
    held_N: Bools,
    targets: Array,
    sides_N: Array,
    num_labels: int,
    num_sides: int,
) -> list[int]:
    """Ids of the classes that cannot stand on every side; where all can, rows are moved so that all
    do, in place.
    """
    counts_SC = np.array(
        [count_labels(targets[sides_N == side], num_labels) for side in range(num_sides)]
    )
    if (counts_SC > 0)[:, count_labels(targets[~held_N], num_labels) > 0].all():
        return []
    return place_in_every_split(
        Units(units_N, keys_N, held_N, targets, num_labels), sides_N, num_sides
    )


def _fill(keys_M: Hashes, left_S: Floats) -> NDArray[np.int16]:
    """Side of each row by the order of the keys, no two of them equal; in proportion to what the sides still lack (exactly it, where groups took nothing)."""
    lacking_S = np.maximum(0, left_S)
    total = lacking_S.sum()
    ends_S = np.rint(np.cumsum(lacking_S) * (len(keys_M) / total if total else 0)).astype(np.int64)
    cuts = ends_S[:-1][ends_S[:-1] < len(keys_M)]
    sides_M = np.zeros(len(keys_M), np.int16)
    if len(cuts):  # partition, since a sort of 10 million keys takes 15 times as long
        for first_key in np.partition(keys_M, cuts)[cuts]:
            sides_M += keys_M >= first_key
    return sides_M
