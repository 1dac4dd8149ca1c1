"""Errors for classes that cleaning leaves without a row, or without a row to train on."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trainer.errors import DataError, did_you_mean, listing

if TYPE_CHECKING:
    from trainer.data.cleaning.clean import CleanRows


def refuse_lost_classes(lost: Mapping[str, Mapping[str, int]]) -> None:
    """Raise DataError if cleaning leaves no row of a class.

    Args:
        lost: {class: {reason: dropped rows}}.
    """
    if lost:
        classes = listing(
            (
                f"'{name}' ({', '.join(f'{rows:,} {reason}' for reason, rows in found.items())})"
                for name, found in lost.items()
            ),
            5,
        )
        raise DataError(
            f"cleaning leaves no row of {classes}. Fix these rows, switch the rule off in"
            " data.clean, rename the label by data.label_map, or leave it out by data.drop_labels."
        )


def refuse_one_class(labels: Sequence[str]) -> None:
    """Raise DataError if there is one class only.

    Args:
        labels: names of the classes.
    """
    if len(labels) < 2:
        raise DataError(
            f"the training rows have one class only, '{labels[0]}'; a classifier needs two."
        )


def refuse_unseen_labels(clean: "CleanRows") -> None:
    """Raise DataError if given validation or test rows have a label that the training rows lack."""
    names = np.array(clean.labels.names, object)
    trains_C = clean.labels.counts(clean.targets[clean.kept("train")]) > 0
    for slot in ("validation", "test"):
        is_here_C = clean.labels.counts(clean.targets[clean.kept(slot)]) > 0
        unseen, trained = names[is_here_C & ~trains_C], names[trains_C]
        if len(unseen):
            raise DataError(
                f"{clean.rows.key(slot)}: holds {listing(unseen)}, which the training rows lack;"
                f" labels of train: {listing(trained)}.{did_you_mean(unseen[0], trained)} Add rows"
                " to train, rename labels with data.label_map, or list them in data.drop_labels."
            )
