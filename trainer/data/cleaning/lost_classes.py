"""Errors for splits and classes that cleaning leaves without rows."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from trainer.errors import DataError, did_you_mean, listing

if TYPE_CHECKING:
    from trainer.data.cleaning.clean import CleanRows


def refuse_lost_classes(lost: Mapping[str, Mapping[str, int]]) -> None:
    """Raises DataError for classes of which cleaning left no row."""
    if lost:
        told = listing(
            (
                f"'{name}' ({', '.join(f'{count:,} {reason}' for reason, count in found.items())})"
                for name, found in lost.items()
            ),
            5,
        )
        raise DataError(
            f"cleaning leaves no row of {told}. Mend these rows, switch the rule off in data.clean,"
            " rename the label by data.label_map, or leave it out by data.drop_labels."
        )


def refuse_unseen_labels(clean: "CleanRows") -> None:
    """Raises DataError when given validation or test rows hold a label that the training rows lack."""
    is_trained_C = clean.labels.counts(clean.targets[clean.kept("train")]) > 0
    trained = [
        name
        for name, is_trained in zip(clean.labels.names, is_trained_C, strict=True)
        if is_trained
    ]
    for slot in ("validation", "test"):
        unseen = np.flatnonzero(
            (clean.labels.counts(clean.targets[clean.kept(slot)]) > 0) & ~is_trained_C
        )
        if len(unseen):
            names = [clean.labels.names[i] for i in unseen]
            hint = did_you_mean(names[0], trained)
            found = f"{clean.rows.key(slot)}: holds {listing(names)}, which the training rows lack; labels of train: {listing(trained)}.{hint}"
            raise DataError(
                f"{found} Add rows to train, rename labels with data.label_map, or list them in data.drop_labels."
            )
