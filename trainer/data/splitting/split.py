"""Train, validation and test: by shares or as given, stratified by label, equal texts and groups kept together.

Which side a row falls on depends on the seed and on its text, never on the order of rows in the file.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Array, Bools, Floats, Hashes, Ints
from trainer.data.balancing.balance import stage_generator
from trainer.data.cleaning.text_hashes import repeated
from trainer.data.labels.label_ids import count_labels
from trainer.data.splitting.every_side import Units, stand_on_every_side
from trainer.errors import DataError, listing


@dataclass(frozen=True)
class Splits:
    """Row ids of each side, sorted; `test` may be empty."""

    train: Ints
    validation: Ints
    test: Ints
    pool: Ints | None = None
    """Rows that were balanced before the split (`balance.scope: all`), as they were before."""
    synthetic: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    """Those of `train` that a language model wrote (`augment`), at its end."""
    time_ranges: dict[str, tuple[str, str]] | None = None
    """{split: its oldest and its newest time}, of rows split by time."""

    @property
    def named(self) -> dict[str, Ints]:
        """{name: row ids} of the sides that hold rows."""
        sides = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: ids for name, ids in sides.items() if len(ids)}

    @property
    def real_train(self) -> Ints:
        """Row ids of train without the synthetic rows, which stand at its end."""
        return self.train[: len(self.train) - len(self.synthetic)]


def row_keys(text_hashes_N: Hashes, seed: int, stage: str) -> Hashes:
    """A pseudo-random number per row from its text and the seed (splitmix64)."""
    salt = stage_generator(seed, stage).integers(0, 2**64, dtype=np.uint64)
    z = text_hashes_N ^ salt
    z ^= z >> np.uint64(30)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= z >> np.uint64(27)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    return z


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


def sample_counts(counts_C: Ints, size: int, least_C: Ints | None = None) -> Ints:
    """Rows of each class in a sample of `size` rows with the class shares of the whole.

    Args:
        least_C: rows that each class keeps at least, at most `size` together; left out: one row of
            a class that has any.
    """
    share = size / counts_C.sum()
    if share >= 1:
        return counts_C
    least_C = np.minimum(counts_C, 1) if least_C is None else least_C
    take_C = np.maximum(quotas(counts_C, [share, 1 - share])[:, 0], least_C)
    while (
        take_C.sum() > size and (take_C > least_C).any()
    ):  # the rows lent to the smallest classes come from the largest
        take_C[np.argmax(np.where(take_C > least_C, take_C, -1))] -= 1
    while take_C.sum() < size:
        take_C[np.argmax(counts_C * share - take_C)] += 1
    return take_C


def stratified_sample(
    label_ids_N: Ints,
    text_hashes_N: Hashes,
    size: int,
    *,
    seed: int,
    least: int = 1,
    units_N: Ints | None = None,
    label_matrix_NC: Bools | None = None,
) -> Ints:
    """Sorted positions of `size` rows with the label shares of the whole (`data.limit`).

    Args:
        least: units (or rows) of each class that are kept where it has so many: the number of
            splits.
        units_N: set of rows that stays together in a split, from `linked_units`; None: each row
            stands alone.
        label_matrix_NC: which labels each row has, where `label_ids_N` are those of the rarest
            ones.
    Raises:
        DataError: a size too small for `least` units of each class.
    """
    if size >= len(label_ids_N):
        return np.arange(len(label_ids_N))
    keys_N = row_keys(text_hashes_N, seed, "limit")
    first_N = np.zeros(len(label_ids_N), bool)  # rows taken before others of their class
    counts_C = np.bincount(label_ids_N)
    least_C = np.minimum(counts_C, least)
    if units_N is not None or label_matrix_NC is not None:
        first_N[
            _one_of_each_unit(
                label_ids_N if label_matrix_NC is None else label_matrix_NC, units_N, keys_N, least
            )
        ] = True
        least_C = np.bincount(label_ids_N[first_N], minlength=len(counts_C))
    if least > 1 and least_C.sum() > size:
        needed = f"{least} rows of each label, so that {least} splits can hold it, are {least_C.sum()} rows"
        raise DataError(
            f"data.limit is {size}; {needed}. Set data.limit: {least_C.sum()} or more, or list labels in data.drop_labels."
        )
    picked = []
    for label_id, take in enumerate(sample_counts(counts_C, size, least_C)):
        members = np.flatnonzero(label_ids_N == label_id)
        picked.append(members[np.lexsort((keys_N[members], ~first_N[members]))][:take])
    return np.sort(np.concatenate(picked))


def _one_of_each_unit(targets: Array, units_N: Ints | None, keys_N: Hashes, least: int) -> Ints:
    """Positions of a row from each of `least` units of every class that has so many, the rarest
    class first.
    """
    units_N = np.arange(len(keys_N)) if units_N is None else units_N
    order = np.argsort(keys_N, kind="stable")
    num_classes = targets.shape[1] if targets.ndim > 1 else int(targets.max()) + 1
    is_taken_N = np.zeros(len(keys_N), bool)
    for c in np.argsort(count_labels(targets, num_classes), kind="stable"):
        rows = order[targets[order] == c] if targets.ndim == 1 else order[targets[order, c]]
        covered = np.unique(units_N[rows[is_taken_N[rows]]])
        rows = rows[~np.isin(units_N[rows], covered)]
        _, first = np.unique(units_N[rows], return_index=True)
        is_taken_N[rows[np.sort(first)][: max(0, least - len(covered))]] = True
    return np.flatnonzero(is_taken_N)


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
    place_linked(units_N, label_ids_N, keys_N, left_CS, quota_CS, sides_N)
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
    return stand_on_every_side(
        Units(units_N, keys_N, held_N, targets, num_labels), sides_N, num_sides
    )


def linked_units(text_hashes_N: Hashes, groups_N: Ints | None) -> Ints | None:
    """Id of the set of rows that must stay together: linked by an equal text or an equal group;
    None where no text is repeated and there are no groups.
    """
    if groups_N is None and not len(repeated(text_hashes_N)):
        return None
    _, texts_N = np.unique(text_hashes_N, return_inverse=True)
    if groups_N is None:
        return texts_N.astype(np.int64)
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    num_texts = int(texts_N.max()) + 1
    _, groups_N = np.unique(groups_N, return_inverse=True)
    size = num_texts + int(groups_N.max()) + 1
    links = coo_matrix(
        (np.ones(len(texts_N), np.int8), (texts_N, num_texts + groups_N)), shape=(size, size)
    )
    return connected_components(links, directed=False)[1][texts_N].astype(np.int64)


def place_linked(
    units_N: Ints | None,
    targets: Array,
    keys_N: Hashes,
    left_CS: Floats,
    quota_CS: Array,
    sides_N: Array,
) -> None:
    """Rows that must stay together, the largest sets first, each to the side that then lies nearest to its shares of every class; in place.

    Args:
        units_N: the set that each row belongs to, from `linked_units`.
        targets: label ids (N,), or which labels each row has (N, C).
        sides_N: side of each row; -1: not placed yet.

    Source: the greedy rule of scikit-learn's StratifiedGroupKFold, for shares in place of equal folds.
    """
    if units_N is None:
        return
    rows_M = np.flatnonzero(sides_N < 0)
    order = rows_M[np.lexsort((keys_N[rows_M], units_N[rows_M]))]
    starts = np.flatnonzero(np.r_[True, np.diff(units_N[order]) != 0][: len(order)])
    sizes = np.diff(np.r_[starts, len(order)])
    several = np.flatnonzero(sizes > 1)
    first_keys = keys_N[order[starts[several]]]
    for unit in several[np.lexsort((first_keys, -sizes[several]))]:
        members = order[starts[unit] : starts[unit] + sizes[unit]]
        counts_C = count_labels(targets[members], len(left_CS))
        after_CSS = np.repeat(left_CS[:, :, None], left_CS.shape[1], axis=2)
        for side in range(left_CS.shape[1]):
            after_CSS[:, side, side] -= counts_C
        scaled = after_CSS / np.maximum(1, quota_CS)[:, :, None]
        side = int(np.argmin((scaled**2).sum(axis=(0, 1))))
        left_CS[:, side] -= counts_C
        sides_N[members] = side


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
