"""Rows with any number of labels: their matrix, their classes, their weights. Legend: N rows, C labels.

In the table of rows the labels of a row are one text, a JSON list in the order of the source; `[]` is a row without a
label, which is legal, and a missing value is a row whose labels are not known, which cleaning drops.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.arrays import Bools, Floats, Ints
from trainer.data.labels.class_order import Labels, by_class, count_values
from trainer.errors import ConfigError, listing

Names = Mapping[str, str | None] | None

NO_LABEL = "(no label)"
"""Name of the rows without a label, where they are counted as a class."""


def _distinct(label_column: pa.ChunkedArray, names: Names = None) -> tuple[list[list[str]], Ints]:
    """The lists that occur, and which of them each row has (-1: none, the row is missing).

    Args:
        names: {spelling: name of its class, None to leave the label out}; left out: spellings are names.
    """
    encoded = pa.chunked_array(label_column).combine_chunks().dictionary_encode()
    lists = [json.loads(text) for text in encoded.dictionary.to_pylist()]
    if names is not None:
        lists = [
            [name for name in map(names.get, spellings) if name is not None] for spellings in lists
        ]
    return lists, pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy()


def count_spellings(label_column: pa.ChunkedArray) -> dict[str, int]:
    """Return {spelling of a label: rows that have it}."""
    counts: Counter[str] = Counter()
    for labels, rows in count_values(label_column).items():
        counts.update(dict.fromkeys(json.loads(labels), rows))
    return dict(counts)


def label_matrix(label_column: pa.ChunkedArray, labels: Labels, names: Names = None) -> Bools:
    """Which labels each row has, (N, C); all False where the row is missing."""
    lists, list_ids_N = _distinct(label_column, names)
    ids = {name: label_id for label_id, name in enumerate(labels.names)}
    held = [
        [ids[name] for name in own if name in ids] for own in [*lists, []]
    ]  # the last one stands for missing
    distinct = np.zeros((len(held), len(labels)), bool)
    distinct[
        np.repeat(np.arange(len(held)), [len(own) for own in held]),
        [label_id for own in held for label_id in own],
    ] = True
    return distinct[list_ids_N]


def first_label_ids(label_column: pa.ChunkedArray, labels: Labels, names: Names = None) -> Ints:
    """Id of the label that each row names first; C for a row without a label."""
    lists, list_ids_N = _distinct(label_column, names)
    ids = {name: label_id for label_id, name in enumerate(labels.names)}
    firsts = np.array(
        [ids.get(held[0], len(labels)) if held else len(labels) for held in [*lists, []]], np.int64
    )
    return firsts[list_ids_N]


def rarest_label_ids(label_matrix_NC: Bools, kept_N: Bools) -> Ints:
    """Id of each row's rarest label, counted over the kept rows; C for a row without a label, -1 for rows that are not kept."""
    num_labels = label_matrix_NC.shape[1]
    order_C = np.argsort(label_matrix_NC[kept_N].sum(axis=0), kind="stable")
    rarest_N = order_C[label_matrix_NC[:, order_C].argmax(axis=1)]
    rarest_N[~label_matrix_NC.any(axis=1)] = num_labels
    rarest_N[~kept_N] = -1
    return rarest_N.astype(np.int64)


def label_set_ids(label_matrix_NC: Bools) -> Ints:
    """A number per row, equal for rows with the same labels."""
    return (
        np.unique(np.packbits(label_matrix_NC, axis=1), axis=0, return_inverse=True)[1]
        .ravel()
        .astype(np.int64)
    )


def positive_none(counts_C: Ints, num_rows: int) -> Floats:
    """Weight 1 for every label."""
    return np.ones(len(counts_C))


def positive_balanced(counts_C: Ints, num_rows: int) -> Floats:
    """(N - n_c) / n_c, so that a label's rows weigh as much together as the rows without it; not capped; 1 where every row has the label.

    Source: the `pos_weight` of torch.nn.BCEWithLogitsLoss.
    """
    return np.where(counts_C < num_rows, (num_rows - counts_C) / np.maximum(counts_C, 1), 1.0)


POSITIVE_WEIGHTINGS: dict[str, Callable[[Ints, int], Floats]] = {
    "none": positive_none,
    "balanced": positive_balanced,
}
"""Named positive weights: rows with each label among the rows drawn, and all rows drawn -> one weight per label."""


def positive_weights(
    counts_C: Ints, num_rows: int, weighting: str | dict[str, float], labels: list[str]
) -> Floats:
    """Weight of each label's rows against those without it.

    Args:
        counts_C: rows of each label among the rows drawn for one epoch.
        num_rows: rows drawn for one epoch.
        weighting: a name in POSITIVE_WEIGHTINGS, or {label: weight} as given, where labels left out weigh 1.
    Raises:
        ConfigError: a weighting that multi-label rows cannot have, or a weight for a label that the data lacks.
    """
    if isinstance(weighting, str):
        if weighting not in POSITIVE_WEIGHTINGS:
            raise ConfigError(
                f"loss.class_weights is '{weighting}'; with multi-label data known: {listing(POSITIVE_WEIGHTINGS)}, or one weight a label."
            )
        return POSITIVE_WEIGHTINGS[weighting](counts_C, num_rows)
    given = by_class(weighting, labels, "loss.class_weights")
    return np.array([given.get(label, 1.0) for label in labels])
