"""Classes with too few rows for every split: a warning names them, or they are left out."""

import warnings
from dataclasses import replace

import numpy as np

from trainer.arrays import Ints
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.reasons import KEPT, RARE
from trainer.data.labels.class_order import count_drawn, order_labels
from trainer.data.labels.multi_label import rarest_label_ids
from trainer.data.splitting.split import Splits
from trainer.errors import brief, counted, listing

MOST_SHOWN = 30
"""Characters of a label that a warning shows."""


def missing_classes(clean: CleanRows, splits: Splits) -> dict[str, list[int]]:
    """Return the ids of the labels that each split lacks and another split has."""
    counts = {name: clean.labels.counts(clean.targets[ids]) for name, ids in splits.named.items()}
    has_rows_C = np.any(list(counts.values()), axis=0)
    missing = {name: np.flatnonzero(has_rows_C & (of_C == 0)) for name, of_C in counts.items()}
    return {name: ids.tolist() for name, ids in missing.items() if len(ids)}


def missing_classes_words(missing: dict[str, list[str]], most: int = 8) -> str:
    """Return words such as 'no row of jet, platinum in validation, of platinum in test'."""
    if len(missing) > 1 and len(set(map(tuple, missing.values()))) == 1:
        return f"no row of {listing(next(iter(missing.values())), most)} in {' and '.join(missing)}"
    parts = [f"of {listing(names, most)} in {split}" for split, names in missing.items()]
    return f"no row {', '.join(parts)}"


def warn_of_missing_classes(clean: CleanRows, splits: Splits) -> None:
    """Warn of the classes without a row in validation or test, with the rows that they have."""
    counts_C = clean.labels.counts(clean.targets[np.concatenate(list(splits.named.values()))])
    missing = {
        name: [
            f"'{brief(clean.labels.names[c], MOST_SHOWN)}' ({counted(counts_C[c], 'row')} in all)"
            for c in ids
        ]
        for name, ids in missing_classes(clean, splits).items()
        if name != "train"
    }
    if missing:
        warnings.warn(
            f"split: {missing_classes_words(missing, 5)}: such a class is trained, but not"
            " measured there. Add rows, merge labels with data.label_map, or list them in"
            " data.drop_labels.",
            stacklevel=3,
        )


def without_classes(clean: CleanRows, label_ids: Ints) -> CleanRows:
    """Return the rows without some classes (`split.rare_classes: drop`), with a warning.

    The rows of these classes are counted as dropped.

    Raises:
        DataError: fewer than two classes are left.
    """
    matrix_NC = clean.label_matrix_NC
    is_gone_N = (
        np.isin(clean.label_ids_N, label_ids)
        if matrix_NC is None
        else matrix_NC[:, label_ids].any(axis=1)
    )
    is_gone_N &= clean.reasons_N == KEPT
    if len(label_ids):
        _warn_of_dropped_classes(clean, label_ids, int(is_gone_N.sum()))
    reasons_N = np.where(is_gone_N, RARE, clean.reasons_N)
    reasons_N = reasons_N.astype(clean.reasons_N.dtype)
    stays_C = ~np.isin(np.arange(len(clean.labels)), label_ids)
    names = [name for name, stays in zip(clean.labels.names, stays_C, strict=True) if stays]
    if matrix_NC is None:
        new_ids = np.append(np.where(stays_C, np.cumsum(stays_C) - 1, -1), -1)
        label_ids_N = new_ids[clean.label_ids_N]  # -1, no label, finds the last one
    else:
        matrix_NC = matrix_NC[:, stays_C]
        label_ids_N = rarest_label_ids(matrix_NC, reasons_N == KEPT)
    return replace(
        clean,
        labels=order_labels(set(names), names),
        reasons_N=reasons_N,
        label_ids_N=label_ids_N,
        label_matrix_NC=matrix_NC,
    )


def _warn_of_dropped_classes(clean: CleanRows, label_ids: Ints, num_rows: int) -> None:
    counts_C = count_drawn(
        clean.targets, np.flatnonzero(clean.reasons_N == KEPT), len(clean.labels)
    )
    gone = [
        f"'{brief(clean.labels.names[c], MOST_SHOWN)}' ({counted(counts_C[c], 'row')})"
        for c in label_ids
    ]
    warnings.warn(
        f"split.rare_classes: drop leaves out {listing(gone, 5)}, which have too few rows for every"
        f" split: {counted(num_rows, 'row')}. To train on them, set split.rare_classes: keep.",
        stacklevel=3,
    )
