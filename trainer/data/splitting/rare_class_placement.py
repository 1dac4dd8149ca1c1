"""Move rows between the sides of a split until every class stands on every side, where possible.

Rows that must stay together (equal texts, groups) form a unit. The splitters place units near
their shares, which may leave a side without a class. To put every class on every side is a set
splitting problem: a solver of integer programs takes over where simple moves do not do.
Legend: U units, C classes, S sides.
"""

from typing import Any

import numpy as np

from trainer.arrays import Array, Bools, Hashes, Ints

MOST_UNITS = 400
"""Units of one class and side that the solver may move, those of the smallest keys; a class with
more is not what makes a split hard.
"""
MOST_NODES = 20_000
"""Branches that the solver looks at. A number of seconds would make the split depend on the
machine.
"""


class Units:
    """Sets of rows that stay on one side, numbered by their smallest key, so that the order of the
    rows has no say.

    Attributes:
        rows_N: unit of each row.
        sizes_U: rows of each unit.
        held_U: whether the unit must stay where it is.
    """

    def __init__(
        self,
        units_N: Ints | None,
        keys_N: Hashes,
        held_N: Bools,
        targets: Array,
        num_classes: int,
    ) -> None:
        """Args:
        units_N: any number for each row, equal for rows that stay together; None: each row is a
            unit of its own.
        held_N: rows that must stay on their side.
        targets: label ids (N,), or which labels each row has (N, C).
        """
        order = np.argsort(keys_N, kind="stable")
        found, first = np.unique((order if units_N is None else units_N[order]), return_index=True)
        ranks = np.empty(len(found), np.int64)
        ranks[np.argsort(first)] = np.arange(len(found))
        self.rows_N = ranks[
            np.searchsorted(found, np.arange(len(keys_N)) if units_N is None else units_N)
        ]
        self.sizes_U = np.bincount(self.rows_N)
        self.held_U = np.bincount(self.rows_N, weights=held_N) > 0
        rows, classes = (
            (np.arange(len(targets)), targets) if targets.ndim == 1 else np.nonzero(targets)
        )
        inside = classes < num_classes
        shape = (len(found), num_classes)
        from scipy.sparse import csr_matrix

        holds_UC = csr_matrix(
            (np.ones(int(inside.sum()), np.int64), (self.rows_N[rows[inside]], classes[inside])),
            shape=shape,
        )
        holds_UC.data[:] = 1  # a unit counts once for a class
        self.holds_UC = holds_UC
        self.by_class: Any = holds_UC.tocsc()

    def of_class(self, class_id: int) -> Ints:
        """The units that hold a class, in the order of their keys."""
        return np.sort(
            self.by_class.indices[
                self.by_class.indptr[class_id] : self.by_class.indptr[class_id + 1]
            ]
        ).astype(np.int64)

    def counts(self, sides_U: Ints, num_sides: int) -> Ints:
        """Units of each class on each side, (S, C)."""
        from scipy.sparse import csr_matrix

        on_side = csr_matrix(
            (np.ones(len(sides_U), np.int64), (sides_U, np.arange(len(sides_U)))),
            shape=(num_sides, len(sides_U)),
        )
        return np.asarray((on_side @ self.holds_UC).todense(), np.int64)


def place_in_every_split(units: Units, sides_N: Array, num_sides: int) -> list[int]:
    """Move units, in place, until every class that has units to move stands on every side; as few
    rows as possible where moves are not obvious.

    Args:
        sides_N: side of each row, equal within a unit.
    Returns:
        Ids of classes without which the others can stand on every side; empty where all do, and
        only then rows are moved.
    """
    sides_U = np.empty(len(units.sizes_U), np.int64)
    sides_U[units.rows_N] = sides_N
    counts_SC = units.counts(sides_U, num_sides)
    present_C: Bools = np.asarray(units.holds_UC[~units.held_U].sum(axis=0)).ravel() > 0
    if (counts_SC[:, present_C] > 0).all():
        return []
    _move_freely(units, sides_U, counts_SC, present_C)
    if not (counts_SC[:, present_C] > 0).all():
        given_up = _solve(units, sides_U, counts_SC, present_C)
        if given_up:
            return given_up
    sides_N[:] = sides_U[units.rows_N]
    return []


def _move_freely(units: Units, sides_U: Ints, counts_SC: Ints, present_C: Bools) -> None:
    """A unit to each side that a class is missing from, the rarest class first, where no side loses
    a class by it; the smallest such unit.
    """
    lacking = [
        c
        for c in np.argsort(counts_SC.sum(axis=0), kind="stable")
        if present_C[c] and not counts_SC[:, c].all()
    ]
    for c in lacking:
        for side in np.flatnonzero(counts_SC[:, c] == 0):
            movable = [
                u
                for u in units.of_class(c)
                if not units.held_U[u] and _is_spare(units, u, sides_U, counts_SC)
            ]
            if movable:
                unit = min(movable, key=lambda u: (units.sizes_U[u], -counts_SC[sides_U[u], c], u))
                classes = _classes_of(units, unit)
                counts_SC[sides_U[unit], classes] -= 1
                counts_SC[side, classes] += 1
                sides_U[unit] = side


def _classes_of(units: Units, unit: int) -> Ints:
    found: Ints = units.holds_UC.indices[
        units.holds_UC.indptr[unit] : units.holds_UC.indptr[unit + 1]
    ]
    return found


def _is_spare(units: Units, unit: int, sides_U: Ints, counts_SC: Ints) -> bool:
    return bool((counts_SC[sides_U[unit], _classes_of(units, unit)] > 1).all())


def _solve(units: Units, sides_U: Ints, counts_SC: Ints, present_C: Bools) -> list[int]:
    """Move the fewest rows, in place, so that all classes stand on every side; else give up the
    fewest classes, and return them.

    Classes become conditions as they are found to be broken, so that the program stays small.
    """
    asked = set(np.flatnonzero(present_C & ~counts_SC.all(axis=0)).tolist())
    while True:
        moved, placed, given_up = _program(units, sides_U, sorted(asked), len(counts_SC))
        if given_up:
            return given_up
        after_U = sides_U.copy()
        after_U[moved] = placed
        broken = set(
            np.flatnonzero(present_C & ~units.counts(after_U, len(counts_SC)).all(axis=0)).tolist()
        )
        if not broken:
            sides_U[:] = after_U
            return []
        if broken <= asked:  # the solver stopped at MOST_NODES without an answer
            return sorted(broken)
        asked |= broken


def _program(
    units: Units, sides_U: Ints, asked: list[int], num_sides: int
) -> tuple[Ints, Ints, list[int]]:
    """Units that may move, the side of each, and the classes that have to be given up.

    Variables: is a unit on a side (U, S), is a class given up (C). Every unit stands on one side,
    and every class that is asked for and not given up has a unit on every side. To give up a class
    costs more than to move all rows, and the rarest class costs least.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import coo_matrix, vstack

    moving = np.unique(
        np.concatenate(
            [_movable(units, c, sides_U, side) for c in asked for side in range(num_sides)]
        )
    )
    num_x = len(moving) * num_sides
    size = num_x + len(asked)
    one_side = coo_matrix(
        (np.ones(num_x), (np.repeat(np.arange(len(moving)), num_sides), np.arange(num_x))),
        shape=(len(moving), size),
    )
    rows: list[int] = []
    columns: list[int] = []
    needed: list[int] = []
    for a, c in enumerate(asked):
        own = units.of_class(c)
        staying, places = (
            np.setdiff1d(own, moving),
            np.searchsorted(moving, np.intersect1d(own, moving)),
        )
        for side in np.setdiff1d(np.arange(num_sides), sides_U[staying]):
            rows += [len(needed)] * (len(places) + 1)
            columns += [*(places * num_sides + side), num_x + a]
            needed.append(1)
    on_sides = coo_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(needed), size))
    least = np.r_[np.ones(len(moving)), needed]
    most = np.r_[np.ones(len(moving)), np.full(len(needed), np.inf)]
    cost = np.zeros(size)
    shares = units.sizes_U[moving] / units.sizes_U[moving].sum()
    cost[:num_x] = np.repeat(shares, num_sides)
    cost[np.arange(len(moving)) * num_sides + sides_U[moving]] = 0
    cost[num_x:] = [2 + len(units.of_class(c)) / len(units.sizes_U) for c in asked]
    found = milp(
        cost,
        constraints=LinearConstraint(vstack([one_side, on_sides]).tocsr(), least, most),
        integrality=np.ones(size),
        bounds=Bounds(0, 1),
        options={"node_limit": MOST_NODES},
    )
    if found.x is None:
        return moving, sides_U[moving], []
    placed = found.x[:num_x].reshape(len(moving), num_sides).argmax(axis=1)
    return (
        moving,
        placed.astype(np.int64),
        [c for a, c in enumerate(asked) if found.x[num_x + a] > 0.5],
    )


def _movable(units: Units, class_id: int, sides_U: Ints, side: int) -> Ints:
    own = units.of_class(class_id)
    return own[(sides_U[own] == side) & ~units.held_U[own]][:MOST_UNITS]
