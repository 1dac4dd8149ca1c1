"""Cut the pool of rows into splits or folds, and apply `split.rare_classes` to rare classes."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trainer.arrays import Array, Bools, Ints
from trainer.data.cleaning.clean import CleanRows
from trainer.data.labels.class_order import count_labels
from trainer.data.labels.multi_label import NO_LABEL, first_label_ids
from trainer.data.splitting.groups import group_ids, linked_units
from trainer.data.splitting.stratified import UnplaceableClassesError, stratified_split

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection, SplitSection


class Splitter:
    """Cuts rows in several stages; a class that is too rare at one stage is rare at all later ones.

    With `split.rare_classes: keep`, the rows of a rare class, and all rows that are linked to them,
    only train. With `drop`, they are left out if the first cut finds the class too rare; later cuts
    treat them like `keep`, so that no fold or balanced pool changes the rows of test. With `error`,
    the run stops.

    Attributes:
        by_time: whether rows are cut by their time, not by their classes.
        rare: ids of the labels that are too rare; `len(labels)` stands for rows without a label
            (`primary_label`).
        dropped: ids of the labels whose rows are left out.
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
        has_label_sets = clean.label_matrix_NC is not None
        self.primary_label = bool(split and split.primary_label) and has_label_sets
        self.rare: set[int] = set()
        self.dropped: set[int] = set()
        self._is_cut = False
        groups_N = group_ids(clean, pool) if data.group_column else None
        units_N = linked_units(clean.text_hashes_N[pool], groups_N)
        self._units_N: Ints | None = None
        if units_N is not None:
            self._units_N = np.zeros(len(clean.label_ids_N), np.int64)
            self._units_N[pool] = units_N

    def units(self, rows: Ints) -> Ints | None:
        """Return the unit of each row, whose rows stay together; None if all units are one row."""
        return None if self._units_N is None else self._units_N[rows]

    def cut(self, pool: Ints, shares: list[float], stage: str) -> list[Ints]:
        """Return the row ids of each split; rows that can only train are in the first split."""
        splits, _ = self._cut(pool, shares, stage, first_trains=True)
        self._is_cut = True
        return splits

    def folds(self, pool: Ints, total: int) -> tuple[list[Ints], Ints]:
        """Return the row ids of each of `total` folds, and of the rows that train in every fold."""
        return self._cut(pool, [1 / total] * total, "folds", first_trains=False)

    def _cut(
        self, pool: Ints, shares: list[float], stage: str, *, first_trains: bool
    ) -> tuple[list[Ints], Ints]:
        """Return the row ids of each split, and of the rows that can only train."""
        names = self.clean.labels.names
        while True:
            rows, only_train_N = self.usable(pool, len(shares), first_trains=first_trains)
            cut_N = ~only_train_N | first_trains
            cut = rows[cut_N]
            try:
                splits = stratified_split(
                    self._targets(cut),
                    self.clean.text_hashes_N[cut],
                    self.units(cut),
                    shares,
                    labels=[*names, NO_LABEL] if self.primary_label else names,
                    seed=self.seed,
                    stage=stage,
                    held_N=only_train_N[cut_N],
                )
                return [cut[positions] for positions in splits], rows[only_train_N]
            except UnplaceableClassesError as error:
                if self.policy == "error":
                    raise
                self._add_rare(set(error.class_ids))

    def without_dropped(self, rows: Ints) -> Ints:
        """Return the rows that `split.rare_classes: drop` keeps."""
        return rows[~self._has_label(rows, self.dropped)]

    def usable(self, pool: Ints, num_splits: int, *, first_trains: bool) -> tuple[Ints, Bools]:
        """Return the rows that are not dropped, and which of them can only train.

        These are the rows of classes that have fewer units than there are splits.

        Args:
            first_trains: whether the first split is training, so that these rows count there.
        """
        matrix_NC = self.clean.label_matrix_NC
        while True:
            rows = self.without_dropped(pool)
            all_targets = [self._targets(rows)]
            if self.primary_label and matrix_NC is not None:
                all_targets.append(matrix_NC[rows])  # labels that no row names first train too
            units_N = self.units(rows)
            only_train_N = self._linked_to_rare(rows, all_targets[0], units_N)
            found: set[int] = set()
            for targets in all_targets:
                size = len(self.clean.labels) + (targets.ndim == 1)  # one for rows without a label
                counts_C = units_of_classes(units_N, targets, ~only_train_N, size)
                held_C = count_labels(targets[only_train_N], size)
                is_few_C = counts_C + ((held_C > 0) & first_trains) < num_splits
                found |= set(np.flatnonzero((counts_C + held_C > 0) & is_few_C).tolist())
            found -= self.rare
            if self.policy == "error":  # rows without a label need not be in every split
                found &= {len(self.clean.labels)}
            if not found:
                return rows, only_train_N
            self._add_rare(found)

    def _has_label(self, rows: Ints, label_ids: set[int]) -> Bools:
        """Return which rows have one of the labels."""
        wanted, matrix_NC = sorted(label_ids), self.clean.label_matrix_NC
        if matrix_NC is None or not wanted:
            return np.isin(self.clean.label_ids_N[rows], wanted)
        return np.asarray(matrix_NC[rows][:, wanted].any(axis=1), bool)

    def _linked_to_rare(self, rows: Ints, targets: Array, units_N: Ints | None) -> Bools:
        """Return which rows have a rare label, or are linked to such rows."""
        no_label = len(self.clean.labels)
        found_N = self._has_label(rows, self.rare - {no_label})
        if no_label in self.rare and targets.ndim == 1:
            found_N |= targets == no_label
        return found_N if units_N is None else np.isin(units_N, units_N[found_N])

    def _add_rare(self, label_ids: set[int]) -> None:
        self.rare |= label_ids
        if self.policy == "drop" and not self._is_cut:
            self.dropped |= label_ids - {len(self.clean.labels)}

    def _targets(self, rows: Ints) -> Array:
        """Return label ids, the first label of each row (`primary_label`), or label sets."""
        if not self.primary_label:
            return self.clean.targets[rows]
        column = self.clean.rows.table["label"].take(pa.array(rows))
        return first_label_ids(column, self.clean.labels, self.clean.naming.names)


def units_of_classes(units_N: Ints | None, targets: Array, rows_N: Bools, num_classes: int) -> Ints:
    """Return the units of each class among the marked rows; rows, if no two are linked."""
    if units_N is None:
        return count_labels(targets[rows_N], num_classes)
    rows, classes = (
        (np.flatnonzero(rows_N), targets[rows_N])
        if targets.ndim == 1
        else np.nonzero(targets & rows_N[:, None])
    )
    size = int(units_N.max(initial=0)) + 1
    return np.bincount(np.unique(classes * size + units_N[rows]) // size, minlength=num_classes)
