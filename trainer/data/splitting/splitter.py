"""Cut a pool of rows into sides, and decide what becomes of classes that are too rare to stand on
every side.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trainer.arrays import Bools, Ints
from trainer.data.cleaning.clean import CleanRows
from trainer.data.labels.multi_label import NO_LABEL, first_label_ids
from trainer.data.splitting.groups import group_ids, linked_units
from trainer.data.splitting.iterative import iterative_split
from trainer.data.splitting.stratified import ClassesApartError, stratified_split

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection, SplitSection


def held_by(clean: CleanRows, pool: Ints, label_ids: set[int]) -> Bools:
    """Which rows of a pool have one of the labels."""
    wanted = sorted(label_ids)
    if not wanted:
        return np.zeros(len(pool), bool)
    if clean.label_matrix_NC is not None:
        return np.asarray(clean.label_matrix_NC[pool][:, wanted].any(axis=1), bool)
    return np.isin(clean.label_ids_N[pool], wanted)


class Splitter:
    """Cuts rows one stage after the other; a class found too rare at one stage is treated as rare
    at all later ones.

    With `split.rare_classes: keep` its rows, and all that are linked to them, only train. With
    `drop` they are left out where the first cut finds the class too rare; later cuts treat them as
    `keep` does, so that no fold or balanced pool changes the rows of test. With `error` the run
    stops.

    Attributes:
        rare: ids of the labels that were found too rare; `len(labels)` stands for rows without a
            label (`primary_label`).
        by_time: rows are cut by their time, not by their classes.
        dropped: ids of those whose rows are left out.
    """

    by_time = False

    def __init__(
        self,
        clean: CleanRows,
        pool: Ints,
        data: "DataSection",
        split: "SplitSection | None",
        seed: int,
    ) -> None:
        """Args:
        pool: ids of all rows that will be cut.
        """
        self.clean, self.seed = clean, seed
        self.policy = split.rare_classes if split else "keep"
        self.primary_label = (
            bool(split and split.primary_label) and clean.label_matrix_NC is not None
        )
        self.rare: set[int] = set()
        self.dropped: set[int] = set()
        self._is_cut = False
        units_N = linked_units(
            clean.text_hashes_N[pool], group_ids(clean, pool) if data.group_column else None
        )
        self._units_N = None
        if units_N is not None:
            self._units_N = np.zeros(len(clean.label_ids_N), np.int64)
            self._units_N[pool] = units_N

    def units(self, rows: Ints) -> Ints | None:
        """Number of the set of rows that must stay together, for each of these rows; None where
        every row stands alone.
        """
        return None if self._units_N is None else self._units_N[rows]

    def cut(self, pool: Ints, shares: list[float], stage: str) -> list[Ints]:
        """Row ids of each side by its share; rows that can only train stand on the first side."""
        while True:
            rows, only_train_N = self.usable(pool, len(shares), first_trains=True)
            try:
                sides = [rows[side] for side in self._split(rows, shares, stage, only_train_N)]
            except ClassesApartError as error:
                self._give_up(error)
                continue
            self._is_cut = True
            return sides

    def folds(self, pool: Ints, total: int) -> tuple[list[Ints], Ints]:
        """Row ids of each of so many folds, and those of the rows that train in every fold."""
        while True:
            rows, only_train_N = self.usable(pool, total, first_trains=False)
            free = rows[~only_train_N]
            try:
                sides = (
                    self._split(free, [1 / total] * total, "folds", np.zeros(len(free), bool))
                    if len(free)
                    else [free] * total
                )
            except ClassesApartError as error:
                self._give_up(error)
                continue
            return [free[side] for side in sides], rows[only_train_N]

    def without_dropped(self, rows: Ints) -> Ints:
        """The rows that `split.rare_classes: drop` leaves of these."""
        return rows[~held_by(self.clean, rows, self.dropped)] if self.dropped else rows

    def usable(self, pool: Ints, num_sides: int, *, first_trains: bool) -> tuple[Ints, Bools]:
        """Rows that are not dropped, and which of them can only train, since a class of theirs has
        fewer units than there are sides.

        Args:
            first_trains: the first side is training, where these rows count; else none of the sides
                is.
        """
        while True:
            rows = self.without_dropped(pool)
            targets, units_N = self._targets(rows), self.units(rows)
            only_train_N = self._linked_to_rare(rows, targets, units_N)
            found = self._few(targets, units_N, only_train_N, num_sides, first_trains=first_trains)
            if (
                self.primary_label and self.clean.label_matrix_NC is not None
            ):  # labels that no row names first must be trained too
                found |= self._few(
                    self.clean.label_matrix_NC[rows],
                    units_N,
                    only_train_N,
                    num_sides,
                    first_trains=first_trains,
                )
            found -= self.rare
            if self.policy == "error":  # rows without a label need not stand everywhere
                found &= {len(self.clean.labels)}
            if not found:
                return rows, only_train_N
            self._add_rare(found)

    def _few(
        self,
        targets: Ints | Bools,
        units_N: Ints | None,
        only_train_N: Bools,
        num_sides: int,
        *,
        first_trains: bool,
    ) -> set[int]:
        """The classes with too few units for the sides, of those that have any."""
        size = len(self.clean.labels) + (targets.ndim == 1)
        counts_C = units_of_classes(units_N, targets, ~only_train_N, size)
        held_C = units_of_classes(None, targets, only_train_N, size)
        few_C = counts_C + ((held_C > 0) & first_trains) < num_sides
        return set(np.flatnonzero((counts_C + held_C > 0) & few_C).tolist())

    def _linked_to_rare(self, rows: Ints, targets: Ints | Bools, units_N: Ints | None) -> Bools:
        found_N = held_by(self.clean, rows, self.rare - {len(self.clean.labels)})
        if len(self.clean.labels) in self.rare and targets.ndim == 1:
            found_N |= targets == len(self.clean.labels)
        return (
            found_N if units_N is None or not found_N.any() else np.isin(units_N, units_N[found_N])
        )

    def _give_up(self, error: ClassesApartError) -> None:
        if self.policy == "error":
            raise error
        self._add_rare(set(error.class_ids))

    def _add_rare(self, label_ids: set[int]) -> None:
        self.rare |= label_ids
        if self.policy == "drop" and not self._is_cut:
            self.dropped |= label_ids - {len(self.clean.labels)}

    def _targets(self, rows: Ints) -> Ints | Bools:
        """What is stratified by: label ids, the labels that rows name first, or which labels each
        row has.
        """
        if self.primary_label:
            return first_label_ids(
                self.clean.rows.table["label"].take(pa.array(rows)),
                self.clean.labels,
                self.clean.naming.names,
            )
        return (
            self.clean.label_ids_N[rows]
            if self.clean.label_matrix_NC is None
            else self.clean.label_matrix_NC[rows]
        )

    def _split(self, rows: Ints, shares: list[float], stage: str, held_N: Bools) -> list[Ints]:
        targets, names = self._targets(rows), self.clean.labels.names
        labels = [*names, NO_LABEL] if self.primary_label else names
        split: Callable[..., list[Ints]] = (
            stratified_split if targets.ndim == 1 else iterative_split
        )
        return split(
            targets,
            self.clean.text_hashes_N[rows],
            self.units(rows),
            shares,
            labels=labels,
            seed=self.seed,
            stage=stage,
            held_N=held_N,
        )


def units_of_classes(
    units_N: Ints | None, targets: Ints | Bools, rows_N: Bools, num_classes: int
) -> Ints:
    """Units that hold each class among the rows marked; rows where no two are linked."""
    if units_N is None:
        return (
            np.bincount(targets[rows_N], minlength=num_classes)
            if targets.ndim == 1
            else targets[rows_N].sum(axis=0)
        )
    rows, classes = (
        (np.flatnonzero(rows_N), targets[rows_N])
        if targets.ndim == 1
        else np.nonzero(targets & rows_N[:, None])
    )
    size = int(units_N.max(initial=0)) + 1
    return np.bincount(np.unique(classes * size + units_N[rows]) // size, minlength=num_classes)
