"""Train, validation and test of multi-label rows by iterative stratification. Legend: N rows, C labels, S sides."""

import numpy as np
from numpy.typing import NDArray

from trainer.data.balance import stage_generator
from trainer.data.split import ClassesApartError, Ints, place_linked, placeable, refuse_small_classes, row_keys, settle
from trainer.data.text_hashes import Hashes
from trainer.errors import listing


def iterative_split(
    label_matrix_NC: NDArray[np.bool_],
    text_hashes_N: Hashes,
    units_N: Ints | None,
    shares_S: list[float],
    *,
    labels: list[str],
    seed: int,
    stage: str,
    held_N: NDArray[np.bool_] | None = None,
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
    Source: Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10, as implemented by the package iterative-stratification.
    """
    from iterstrat.ml_stratifiers import IterativeStratification

    held_N = np.zeros(len(label_matrix_NC), bool) if held_N is None else held_N
    refuse_small_classes(placeable(label_matrix_NC, held_N, len(labels)), labels, len(shares_S))
    keys_N = row_keys(text_hashes_N, seed, stage)
    sides_N = np.where(held_N, 0, -1)
    counted_NC = np.c_[label_matrix_NC, np.ones(len(keys_N), bool)]  # the last column counts the rows themselves
    quota_CS = np.outer(counted_NC.sum(axis=0), shares_S)
    left_CS = quota_CS.copy()
    left_CS[:, 0] -= counted_NC[held_N].sum(axis=0)
    place_linked(units_N, counted_NC, keys_N, left_CS, quota_CS, sides_N)
    single = np.flatnonzero(sides_N < 0)
    single = single[np.argsort(keys_N[single])]  # each has a text of its own, so the order of the file has no say
    if len(single):
        lacking_S = np.maximum(0, left_CS[-1])
        generator = stage_generator(seed, stage, "iterative")
        sides_N[single] = IterativeStratification(labels=label_matrix_NC[single], r=lacking_S / lacking_S.sum(), random_state=generator)
    apart = settle(units_N, keys_N, held_N, label_matrix_NC, sides_N, len(labels), len(shares_S))
    if apart:
        words = f"the rows of {listing(labels[c] for c in apart)} are tied to other labels or groups and cannot stand in {len(shares_S)} splits"
        raise ClassesApartError(f"{words}. Merge the label, or list it in data.drop_labels.", apart)
    return [np.flatnonzero(sides_N == side) for side in range(len(shares_S))]
