"""Keep rows together that belong together: rows of one group, and rows with one text.

A unit is a set of rows that stays in one split. Legend: N rows, C classes, S splits.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.arrays import Array, Floats, Hashes, Ints
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.text_hashes import repeated
from trainer.data.labels.class_order import count_labels


def group_ids(clean: CleanRows, pool: Ints) -> Ints:
    """Return the id of each row's group; a row without a group is a group of its own."""
    column = clean.rows.table["group"].take(pa.array(pool)).combine_chunks()
    indices = pc.dictionary_encode(column).indices.cast(pa.int64())
    ids = pc.fill_null(indices, -1).to_numpy(zero_copy_only=False).copy()
    without_group = ids < 0
    ids[without_group] = ids.max(initial=0) + 1 + np.arange(int(without_group.sum()))
    return ids


def linked_units(text_hashes_N: Hashes, groups_N: Ints | None) -> Ints | None:
    """Return the unit of each row, or None if every row is a unit of its own.

    Rows with an equal text or an equal group are in one unit, also through other rows.
    """
    if groups_N is None and not len(repeated(text_hashes_N)):
        return None
    texts_N = np.unique(text_hashes_N, return_inverse=True)[1].astype(np.int64)
    return texts_N if groups_N is None else linked_by_either(texts_N, groups_N)


def linked_by_either(first_N: Ints, second_N: Ints) -> Ints:
    """Return the set of each row; rows that share a number of either array are in one set."""
    size = int(first_N.max(initial=-1)) + 1
    total = size + int(second_N.max(initial=-1)) + 1
    return connected_sets(first_N, size + second_N, total)[first_N]


def connected_sets(first_L: Ints, second_L: Ints, size: int) -> Ints:
    """Return the set of each of `size` items; the L links connect first and second items."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = (np.ones(len(first_L), np.int8), (first_L, second_L))
    sets = connected_components(coo_matrix(links, shape=(size, size)), directed=False)[1]
    return np.asarray(sets, np.int64)


def place_units(
    units_N: Ints | None,
    targets: Array,
    keys_N: Hashes,
    left_CS: Floats,
    quota_CS: Array,
    splits_N: Array,
) -> None:
    """Place each unit of several rows in the split that is then nearest to its shares, in place.

    The largest units are placed first, and the distance counts every class.

    Args:
        units_N: the unit of each row, from `linked_units`.
        targets: label ids (N,), or which labels each row has (N, C).
        left_CS: rows of each class that each split still needs; placed rows are subtracted.
        splits_N: split of each row; -1 if it is not placed yet.
    Source: the greedy rule of scikit-learn's StratifiedGroupKFold, for shares instead of folds.
    """
    if units_N is None:
        return
    rows_M = np.flatnonzero(splits_N < 0)
    order = rows_M[np.lexsort((keys_N[rows_M], units_N[rows_M]))]
    starts = np.flatnonzero(np.r_[True, np.diff(units_N[order]) != 0][: len(order)])
    sizes = np.diff(np.r_[starts, len(order)])
    several = np.flatnonzero(sizes > 1)
    first_keys = keys_N[order[starts[several]]]
    num_splits = left_CS.shape[1]
    for unit in several[np.lexsort((first_keys, -sizes[several]))]:
        members = order[starts[unit] : starts[unit] + sizes[unit]]
        counts_C = count_labels(targets[members], len(left_CS))
        after_CSS = np.repeat(left_CS[:, :, None], num_splits, axis=2)
        for split in range(num_splits):
            after_CSS[:, split, split] -= counts_C
        scaled = after_CSS / np.maximum(1, quota_CS)[:, :, None]
        nearest = int(np.argmin((scaled**2).sum(axis=(0, 1))))
        left_CS[:, nearest] -= counts_C
        splits_N[members] = nearest
