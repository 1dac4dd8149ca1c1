"""Move rows between splits until every class is in every split, where that is possible.

Rows that must stay together (equal texts, groups) form a unit. Stratification places units near
their shares, which may leave a split without a class. Giving every split a unit of every class is
a set splitting problem: where simple moves are not enough, a solver of integer programs finds it.
Legend: N rows, U units, C classes, S splits.
"""

from typing import Any

import numpy as np

from trainer.arrays import Array, Bools, Hashes, Ints
from trainer.data.labels.class_order import count_labels

MOST_UNITS = 400
"""Units of one class and split that the solver may move: those of the smallest keys. A class with
more units is not what makes a split hard.
"""
MOST_NODES = 20_000
"""Branches that the solver visits; a limit in seconds would make splits depend on the machine."""


class Units:
    """Sets of rows that stay in one split, numbered by their smallest key.

    The numbers do not depend on the order of the rows.

    Attributes:
        rows_N: unit of each row.
        sizes_U: rows of each unit.
        held_U: whether the unit must stay where it is.
        holds_UC: which classes each unit has, as a sparse matrix by rows; `by_class` by columns.
    """

    def __init__(
        self, units_N: Ints | None, keys_N: Hashes, held_N: Bools, targets: Array, num_classes: int
    ) -> None:
        """Args:
        units_N: a number for each row, equal for rows that stay together; None: no rows do.
        held_N: rows that must stay in their split.
        targets: label ids (N,), or which labels each row has (N, C).
        """
        from scipy.sparse import csr_matrix

        units_N = np.arange(len(keys_N)) if units_N is None else units_N
        order = np.argsort(keys_N, kind="stable")
        found, first = np.unique(units_N[order], return_index=True)
        ranks = np.empty(len(found), np.int64)
        ranks[np.argsort(first)] = np.arange(len(found))
        self.rows_N = ranks[np.searchsorted(found, units_N)]
        self.sizes_U = np.bincount(self.rows_N)
        self.held_U = np.bincount(self.rows_N, weights=held_N) > 0
        rows, classes = (
            (np.arange(len(targets)), targets) if targets.ndim == 1 else np.nonzero(targets)
        )
        entries = (np.ones(len(rows), np.int64), (self.rows_N[rows], classes))
        self.holds_UC: Any = csr_matrix(entries, shape=(len(found), num_classes))
        self.holds_UC.data[:] = 1  # a unit counts once for a class
        self.by_class: Any = self.holds_UC.tocsc()

    def of_class(self, class_id: int) -> Ints:
        """Return the units that have a class, in the order of their keys."""
        start, end = self.by_class.indptr[class_id : class_id + 2]
        return np.sort(self.by_class.indices[start:end]).astype(np.int64)

    def classes_of(self, unit: int) -> Ints:
        """Return the classes that a unit has."""
        start, end = self.holds_UC.indptr[unit : unit + 2]
        return np.asarray(self.holds_UC.indices[start:end])

    def counts(self, splits_U: Ints, num_splits: int) -> Ints:
        """Return the units of each class in each split, (S, C)."""
        from scipy.sparse import csr_matrix

        units = np.arange(len(splits_U))
        is_in_SU = csr_matrix((np.ones_like(units), (splits_U, units)), (num_splits, len(units)))
        return np.asarray((is_in_SU @ self.holds_UC).todense(), np.int64)


def place_in_every_split(
    units_N: Ints | None,
    keys_N: Hashes,
    held_N: Bools,
    targets: Array,
    splits_N: Array,
    classes: Ints,
    num_splits: int,
) -> list[int]:
    """Move units, in place, until every split has each of the classes.

    Where moves are not obvious, as few rows as possible are moved.

    Args:
        splits_N: split of each row, equal within a unit.
        classes: ids of the classes that have rows which may be moved.
    Returns:
        Ids of classes without which the others can be in every split; rows are moved only if it is
        empty.
    """
    num_classes = int(targets.max(initial=0)) + 1 if targets.ndim == 1 else targets.shape[1]
    in_splits = [count_labels(targets[splits_N == s], num_classes) for s in range(num_splits)]
    if np.array(in_splits)[:, classes].all():
        return []
    units = Units(units_N, keys_N, held_N, targets, num_classes)
    splits_U = np.empty(len(units.sizes_U), np.int64)
    splits_U[units.rows_N] = splits_N
    counts_SC = units.counts(splits_U, num_splits)
    present_C: Bools = np.asarray(units.holds_UC[~units.held_U].sum(axis=0)).ravel() > 0
    _move_freely(units, splits_U, counts_SC, present_C)
    if not counts_SC[:, present_C].all():
        given_up = _solve(units, splits_U, counts_SC, present_C)
        if given_up:
            return given_up
    splits_N[:] = splits_U[units.rows_N]
    return []


def _move_freely(units: Units, splits_U: Ints, counts_SC: Ints, present_C: Bools) -> None:
    """Move a unit to each split that lacks a class, if no split loses a class by it.

    The rarest class comes first, and the smallest such unit is moved.
    """

    def is_spare(unit: int) -> bool:
        return bool((counts_SC[splits_U[unit], units.classes_of(unit)] > 1).all())

    lacking_C = present_C & ~counts_SC.all(axis=0)
    order = np.argsort(counts_SC.sum(axis=0), kind="stable")
    for c in order[lacking_C[order]]:
        for split in np.flatnonzero(counts_SC[:, c] == 0):
            movable = [u for u in units.of_class(c) if not units.held_U[u] and is_spare(u)]
            if movable:
                unit = min(movable, key=lambda u: (units.sizes_U[u], -counts_SC[splits_U[u], c], u))
                classes = units.classes_of(unit)
                counts_SC[splits_U[unit], classes] -= 1
                counts_SC[split, classes] += 1
                splits_U[unit] = split


def _solve(units: Units, splits_U: Ints, counts_SC: Ints, present_C: Bools) -> list[int]:
    """Move the fewest rows, in place, so that all classes are in every split.

    If that is impossible, return the fewest classes without which it is possible. Classes become
    conditions only when they are found to be broken, so that the program stays small.
    """
    num_splits = len(counts_SC)
    asked = set(np.flatnonzero(present_C & ~counts_SC.all(axis=0)).tolist())
    while True:
        moved, placed, given_up = _solve_program(units, splits_U, sorted(asked), num_splits)
        if given_up:
            return given_up
        after_U = splits_U.copy()
        after_U[moved] = placed
        is_broken_C = present_C & ~units.counts(after_U, num_splits).all(axis=0)
        broken = set(np.flatnonzero(is_broken_C).tolist())
        if not broken:
            splits_U[:] = after_U
            return []
        if broken <= asked:  # the solver stopped at MOST_NODES without an answer
            return sorted(broken)
        asked |= broken


def _solve_program(
    units: Units, splits_U: Ints, asked: list[int], num_splits: int
) -> tuple[Ints, Ints, list[int]]:
    """Return the units that may move, the split of each, and the classes that are given up.

    Variables: is a unit in a split (U, S), is a class given up (C). Every unit is in one split, and
    every class that is asked for and not given up has a unit in every split. Giving up a class
    costs more than moving all rows, and the rarest class costs least.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_matrix, vstack

    movable = [
        own[(splits_U[own] == split) & ~units.held_U[own]][:MOST_UNITS]
        for own in map(units.of_class, asked)
        for split in range(num_splits)
    ]
    moving = np.unique(np.concatenate(movable))
    num_x = len(moving) * num_splits
    size = num_x + len(asked)
    unit_of_x = np.repeat(np.arange(len(moving)), num_splits)
    one_split = coo_matrix(
        (np.ones(num_x), (unit_of_x, np.arange(num_x))), shape=(len(moving), size)
    )
    needed = _needed_variables(units, splits_U, asked, moving, num_splits)
    rows = np.repeat(np.arange(len(needed)), [len(columns) for columns in needed])
    in_splits = coo_matrix(
        (np.ones(len(rows)), (rows, np.concatenate(needed))), shape=(len(needed), size)
    )
    most = np.r_[np.ones(len(moving)), np.full(len(needed), np.inf)]
    shares = units.sizes_U[moving] / units.sizes_U[moving].sum()
    cost = np.zeros(size)
    cost[:num_x] = np.repeat(shares, num_splits)
    cost[np.arange(len(moving)) * num_splits + splits_U[moving]] = 0
    cost[num_x:] = [2 + len(units.of_class(c)) / len(units.sizes_U) for c in asked]
    found = milp(
        cost,
        constraints=LinearConstraint(vstack([one_split, in_splits]).tocsr(), 1, most),
        integrality=np.ones(size),
        bounds=Bounds(0, 1),
        options={"node_limit": MOST_NODES},
    )
    if found.x is None:
        return moving, splits_U[moving], []
    placed = found.x[:num_x].reshape(len(moving), num_splits).argmax(axis=1).astype(np.int64)
    return moving, placed, [c for c, x in zip(asked, found.x[num_x:], strict=True) if x > 0.5]


def _needed_variables(
    units: Units, splits_U: Ints, asked: list[int], moving: Ints, num_splits: int
) -> list[Ints]:
    """Return sets of variables, one of which must be 1: a class is in a split, or given up."""
    needed = []
    for a, c in enumerate(asked):
        own = units.of_class(c)
        places = np.searchsorted(moving, np.intersect1d(own, moving))
        has_staying = splits_U[np.setdiff1d(own, moving)]
        needed += [
            np.append(places * num_splits + split, len(moving) * num_splits + a)
            for split in np.setdiff1d(np.arange(num_splits), has_staying)
        ]
    return needed
