"""Draw a stratified sample of the rows (`data.limit`). Legend: N rows, C classes."""

import numpy as np

from trainer.arrays import Array, Bools, Hashes, Ints
from trainer.data.labels.class_order import count_labels
from trainer.data.splitting.split import row_keys
from trainer.data.splitting.stratified import quotas
from trainer.errors import DataError


def sample_counts(counts_C: Ints, size: int, least_C: Ints | None = None) -> Ints:
    """Return the rows of each class in a sample of `size` rows with the class shares of the whole.

    Args:
        least_C: rows that each class keeps at least, at most `size` in total; None: one row of each
            class that has any.
    """
    share = size / counts_C.sum()
    if share >= 1:
        return counts_C
    least_C = np.minimum(counts_C, 1) if least_C is None else least_C
    take_C = np.maximum(quotas(counts_C, [share, 1 - share])[:, 0], least_C)
    while take_C.sum() > size and (take_C > least_C).any():  # the largest classes give rows back
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
    """Return the sorted positions of `size` rows with the label shares of the whole.

    Args:
        least: units (or rows) that are kept of each class that has as many: the number of splits.
        units_N: the rows that stay together in a split, from `linked_units`.
        label_matrix_NC: which labels each row has; `label_ids_N` are then the rarest ones.
    Raises:
        DataError: `size` is too small for `least` units of each class.
    """
    if size >= len(label_ids_N):
        return np.arange(len(label_ids_N))
    keys_N = row_keys(text_hashes_N, seed, "limit")
    is_first_N = np.zeros(len(label_ids_N), bool)  # rows that are taken before others of a class
    counts_C = np.bincount(label_ids_N)
    least_C = np.minimum(counts_C, least)
    if units_N is not None or label_matrix_NC is not None:
        targets = label_ids_N if label_matrix_NC is None else label_matrix_NC
        is_first_N[_one_of_each_unit(targets, units_N, keys_N, least)] = True
        least_C = np.bincount(label_ids_N[is_first_N], minlength=len(counts_C))
    needed = least_C.sum()
    if least > 1 and needed > size:
        raise DataError(
            f"data.limit is {size}; {least} rows of each label, so that {least} splits can have it,"
            f" are {needed} rows. Set data.limit: {needed} or more, or list labels in"
            " data.drop_labels."
        )
    picked = []
    for label_id, take in enumerate(sample_counts(counts_C, size, least_C)):
        members = np.flatnonzero(label_ids_N == label_id)
        picked.append(members[np.lexsort((keys_N[members], ~is_first_N[members]))][:take])
    return np.sort(np.concatenate(picked))


def _one_of_each_unit(targets: Array, units_N: Ints | None, keys_N: Hashes, least: int) -> Ints:
    """Return the positions of a row from each of `least` units of every class that has as many.

    The rarest class comes first.
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
