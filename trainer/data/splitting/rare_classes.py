"""Classes that stand in training alone, since they have too few rows for every split: said by name,
or left out.
"""

import warnings
from dataclasses import replace

import numpy as np

from trainer.arrays import Ints
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.reasons import KEPT, RARE
from trainer.data.labels.class_order import order_labels
from trainer.data.labels.multi_label import rarest_label_ids
from trainer.data.splitting.split import Splits
from trainer.errors import brief, listing

MOST_SHOWN = 30
"""Characters of a label that a warning shows."""


def missing_classes(clean: CleanRows, splits: Splits) -> dict[str, list[int]]:
    """{validation or test: ids of the labels that have no row there}; splits without rows, or that
    lack nothing, are left out.
    """
    has_rows_C = clean.labels.counts(clean.targets[np.concatenate(list(splits.named.values()))]) > 0
    found = {
        name: np.flatnonzero(has_rows_C & (clean.labels.counts(clean.targets[ids]) == 0)).tolist()
        for name, ids in splits.named.items()
        if name != "train"
    }
    return {name: missing for name, missing in found.items() if missing}


def missing_classes_words(missing: dict[str, list[str]], most: int = 8) -> str:
    """'no row of jet, platinum in validation, of platinum in test'."""
    if len(missing) > 1 and len(set(map(tuple, missing.values()))) == 1:
        return f"no row of {listing(next(iter(missing.values())), most)} in {' and '.join(missing)}"
    return "no row " + ", ".join(
        f"of {listing(names, most)} in {split}" for split, names in missing.items()
    )


def warn_of_missing_classes(clean: CleanRows, splits: Splits) -> None:
    """Name the classes that validation or test cannot measure, with the rows they have."""
    counts_C = clean.labels.counts(clean.targets[np.concatenate(list(splits.named.values()))])

    def named(c: int) -> str:
        return f"'{brief(clean.labels.names[c], MOST_SHOWN)}' ({counts_C[c]:,} row{'' if counts_C[c] == 1 else 's'} in all)"

    missing = {
        name: [named(c) for c in ids] for name, ids in missing_classes(clean, splits).items()
    }
    if missing:
        words = f"split: {missing_classes_words(missing, 5)}: such a class is trained, but not measured there"
        warnings.warn(
            f"{words}. Add rows, merge labels with data.label_map, or list them in data.drop_labels.",
            stacklevel=3,
        )


def without_classes(clean: CleanRows, label_ids: Ints) -> CleanRows:
    """The rows without some classes (`split.rare_classes: drop`), whose rows are counted as
    dropped.

    Raises:
        DataError: fewer than two classes are left.
    """
    gone_N = (
        np.isin(clean.label_ids_N, label_ids)
        if clean.label_matrix_NC is None
        else clean.label_matrix_NC[:, label_ids].any(axis=1)
    )
    reasons_N = np.where((clean.reasons_N == KEPT) & gone_N, RARE, clean.reasons_N).astype(
        clean.reasons_N.dtype
    )
    stays_C = ~np.isin(np.arange(len(clean.labels)), label_ids)
    names = [name for name, stays in zip(clean.labels.names, stays_C, strict=True) if stays]
    labels = order_labels(set(names), names)
    if clean.label_matrix_NC is not None:
        matrix_NC = clean.label_matrix_NC[:, stays_C]
        return replace(
            clean,
            labels=labels,
            reasons_N=reasons_N,
            label_ids_N=rarest_label_ids(matrix_NC, reasons_N == KEPT),
            label_matrix_NC=matrix_NC,
        )
    new_ids = np.r_[
        np.where(stays_C, np.cumsum(stays_C) - 1, -1), -1
    ]  # -1, no label, finds the last one
    return replace(
        clean, labels=labels, reasons_N=reasons_N, label_ids_N=new_ids[clean.label_ids_N]
    )
