"""Train, validation and test of multi-label rows by iterative stratification. Legend: N rows, C labels, S sides."""

from collections.abc import Iterable

import numpy as np

from trainer.arrays import Bools, Floats, Hashes, Ints
from trainer.data.balancing.balance import stage_generator
from trainer.data.splitting.groups import place_units
from trainer.data.splitting.split import row_keys
from trainer.data.splitting.stratified import (
    RARE_REMEDY,
    ClassesApartError,
    placeable,
    refuse_small_classes,
    settle,
)
from trainer.errors import listing


def iterative_split(
    label_matrix_NC: Bools,
    text_hashes_N: Hashes,
    units_N: Ints | None,
    shares_S: list[float],
    *,
    labels: list[str],
    seed: int,
    stage: str,
    held_N: Bools | None = None,
) -> list[Ints]:
    """Sorted positions of each side, every label and every number of rows near its share, every label on every side.

    Rows that belong together (equal texts, groups) are placed first, greedily, each set with the counts of all its
    labels; the single rows follow by iterative stratification, in the order of their texts' hashes.

    Args:
        units_N: the set of rows that each row stays together with, from `linked_units`.
        shares_S: shares that add up to 1.
        held_N: rows that belong to the first side whatever its share, with all rows that are linked
            to them.
    Raises:
        DataError: a label that has fewer rows than there are sides; ClassesApartError: one that
            cannot stand on every side.
    Source: Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10
    """
    held_N = np.zeros(len(label_matrix_NC), bool) if held_N is None else held_N
    refuse_small_classes(placeable(label_matrix_NC, held_N, len(labels)), labels, len(shares_S))
    keys_N = row_keys(text_hashes_N, seed, stage)
    sides_N = np.where(held_N, 0, -1)
    counted_NC = np.c_[
        label_matrix_NC, np.ones(len(keys_N), bool)
    ]  # the last column counts the rows themselves
    quota_CS = np.outer(counted_NC.sum(axis=0), shares_S)
    left_CS = quota_CS.copy()
    left_CS[:, 0] -= counted_NC[held_N].sum(axis=0)
    place_units(units_N, counted_NC, keys_N, left_CS, quota_CS, sides_N)
    single = np.flatnonzero(sides_N < 0)
    single = single[
        np.argsort(keys_N[single])
    ]  # each has a text of its own, so the order of the file has no say
    if len(single):
        lacking_S = np.maximum(0, left_CS[-1])
        generator = stage_generator(seed, stage, "iterative")
        sides_N[single] = stratify(label_matrix_NC[single], lacking_S / lacking_S.sum(), generator)
    apart = settle(units_N, keys_N, held_N, label_matrix_NC, sides_N, len(labels), len(shares_S))
    if apart:
        words = f"the rows of {listing(labels[c] for c in apart)} are tied to other labels or groups and cannot stand in {len(shares_S)} splits"
        raise ClassesApartError(f"{words}. {RARE_REMEDY}", apart)
    return [np.flatnonzero(sides_N == side) for side in range(len(shares_S))]


def stratify(
    label_matrix_NC: Bools,
    shares_S: Floats,
    generator: np.random.Generator,
) -> Ints:
    """Return the side of each row by iterative stratification.

    The label with the fewest rows left is shared out first; each of its rows goes to the side that lacks most of the
    label, then most rows; ties are drawn. Rows without a label come last. What a row changes is counted on, never anew.

    Source: Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10; the same result as the package
    iterative-stratification 0.1.9 gives with the same generator.
    """
    num_rows, num_labels = label_matrix_NC.shape
    labels_of, rows_of = _members(label_matrix_NC), _members(label_matrix_NC.T)
    rows_left_C = label_matrix_NC.sum(axis=0)
    lacking_S: list[float] = (shares_S * num_rows).tolist()
    lacking_CS: list[list[float]] = np.outer(rows_left_C, shares_S).tolist()
    sides: list[int] = [-1] * num_rows
    for _ in range(num_labels):
        least = rows_left_C[rows_left_C > 0].min(initial=num_rows + 1)
        tied_C = np.flatnonzero(rows_left_C == least)
        if not len(tied_C):
            break
        label = int(tied_C[generator.choice(len(tied_C))] if len(tied_C) > 1 else tied_C[0])
        for row in rows_of[label]:
            if sides[row] >= 0:
                continue
            wanted_S = lacking_CS[label]
            tied = _largest(wanted_S, range(len(wanted_S)))
            side = _drawn(tied if len(tied) == 1 else _largest(lacking_S, tied), generator)
            sides[row] = side
            lacking_S[side] -= 1
            for other in labels_of[row]:
                lacking_CS[other][side] -= 1
            rows_left_C[labels_of[row]] -= 1
    for row in range(num_rows):
        if sides[row] < 0:
            sides[row] = _drawn(_largest(lacking_S, range(len(lacking_S))), generator)
            lacking_S[sides[row]] -= 1
    return np.array(sides, np.int64)


def _members(matrix_NC: Bools) -> list[list[int]]:
    """The columns that are true, of each row."""
    rows, columns = np.nonzero(matrix_NC)
    ends = np.cumsum(np.bincount(rows, minlength=len(matrix_NC)))
    return [part.tolist() for part in np.split(columns, ends[:-1])]


def _largest(values: list[float], places: Iterable[int]) -> list[int]:
    """Those of the places that hold the largest value."""
    places = list(places)
    most = max(values[place] for place in places)
    return [place for place in places if values[place] == most]


def _drawn(sides: list[int], generator: np.random.Generator) -> int:
    return sides[generator.choice(len(sides))] if len(sides) > 1 else sides[0]
