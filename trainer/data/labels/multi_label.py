"""Rows with any number of labels: their matrix, their classes, their weights.

In the table of rows, the labels of a row are one text, a JSON list in the order of the source. `[]`
is a row without a label, which is allowed. A missing value is a row whose labels are unknown, which
cleaning drops. Legend: N rows, C labels.
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
"""The name of rows without a label if they are counted as a class."""


def _distinct(label_column: pa.ChunkedArray, names: Names = None) -> tuple[list[list[str]], Ints]:
    """Return the lists that occur, and which of them each row has; -1 for a missing row.

    Args:
        names: {spelling: name of its class, None to drop it}; None: spellings are names.
    """
    encoded = pa.chunked_array(label_column).combine_chunks().dictionary_encode()
    lists = [json.loads(text) for text in encoded.dictionary.to_pylist()]
    if names is not None:
        lists = [[name for name in map(names.get, own) if name is not None] for own in lists]
    return lists, pc.fill_null(encoded.indices.cast(pa.int64()), -1).to_numpy()


def count_spellings(label_column: pa.ChunkedArray) -> dict[str, int]:
    """Return {spelling of a label: rows that have it}."""
    counts: Counter[str] = Counter()
    for labels, rows in count_values(label_column).items():
        counts.update(dict.fromkeys(json.loads(labels), rows))
    return dict(counts)


def label_matrix(label_column: pa.ChunkedArray, labels: Labels, names: Names = None) -> Bools:
    """Return which labels each row has, (N, C); all False if the row is missing."""
    lists, list_ids_N = _distinct(label_column, names)
    ids = {name: label_id for label_id, name in enumerate(labels.names)}
    distinct = np.zeros((len(lists) + 1, len(labels)), bool)  # the last one is for missing rows
    for place, own in enumerate(lists):
        distinct[place, [ids[name] for name in own if name in ids]] = True
    return distinct[list_ids_N]


def first_label_ids(label_column: pa.ChunkedArray, labels: Labels, names: Names = None) -> Ints:
    """Return the id of the label that each row names first; C for a row without a label."""
    lists, list_ids_N = _distinct(label_column, names)
    ids = {name: label_id for label_id, name in enumerate(labels.names)}
    none = len(labels)
    firsts = [ids.get(own[0], none) if own else none for own in [*lists, []]]
    return np.array(firsts, np.int64)[list_ids_N]


def rarest_label_ids(label_matrix_NC: Bools, kept_N: Bools) -> Ints:
    """Return the id of each row's rarest label among the kept rows.

    It is C for a row without a label, and -1 for a row that is not kept.
    """
    num_labels = label_matrix_NC.shape[1]
    order_C = np.argsort(label_matrix_NC[kept_N].sum(axis=0), kind="stable")
    rarest_N = order_C[label_matrix_NC[:, order_C].argmax(axis=1)]
    rarest_N[~label_matrix_NC.any(axis=1)] = num_labels
    rarest_N[~kept_N] = -1
    return rarest_N.astype(np.int64)


def label_set_ids(label_matrix_NC: Bools) -> Ints:
    """Return a number for each row, equal for rows with the same labels."""
    packed = np.packbits(label_matrix_NC, axis=1)
    return np.unique(packed, axis=0, return_inverse=True)[1].ravel().astype(np.int64)


def label_set_words(names: list[str]) -> str:
    """Return the labels of a row as text; names with a comma or a quote are quoted."""
    words = [json.dumps(n, ensure_ascii=False) if set(n) & set(',"') else n for n in names]
    return ", ".join(words) or NO_LABEL


def positive_none(counts_C: Ints, num_rows: int, beta: float) -> Floats:
    """Return the weight 1 for every label."""
    return np.ones(len(counts_C))


def positive_balanced(counts_C: Ints, num_rows: int, beta: float) -> Floats:
    """Return (N - n_c) / n_c for each label, or 1 if every row has the label.

    The rows of a label then weigh as much together as the rows without it. Weights are not capped.

    Source: the `pos_weight` of torch.nn.BCEWithLogitsLoss.
    """
    return np.where(counts_C < num_rows, (num_rows - counts_C) / np.maximum(counts_C, 1), 1.0)


def label_effective_number(counts_C: Ints, num_rows: int, beta: float) -> Floats:
    """Return 1 / (1 - beta^n_c) for each label, which falls to 1 for frequent labels.

    Source: Cui et al. 2019, https://arxiv.org/abs/1901.05555. With beta 0.9 these are the weights
        of Huang et al. 2021, https://arxiv.org/abs/2109.04712, with their factor 10.
    """
    return 1 / (1 - beta ** np.maximum(counts_C, 1).astype(float))


POSITIVE_WEIGHTINGS: dict[str, Callable[[Ints, int, float], Floats]] = {
    "none": positive_none,
    "balanced": positive_balanced,
    "effective_number": label_effective_number,
}
"""Named weightings: (rows drawn with each label, all rows drawn, beta) -> one weight per label."""


def positive_weights(
    counts_C: Ints,
    num_rows: int,
    weighting: str | dict[str, float],
    labels: list[str],
    *,
    beta: float | None = None,
) -> Floats:
    """Return the weight of each label (C,), as `loss.class_weights` documents it.

    Args:
        counts_C: rows of each label among the rows drawn for one epoch.
        num_rows: rows drawn for one epoch.
        weighting: a name in POSITIVE_WEIGHTINGS, or {label: weight}; other labels weigh 1.
        beta: of `effective_number`, by default 0.9.
    Raises:
        ConfigError: multi-label rows cannot have the weighting, or the data lack one of its labels.
    """
    if isinstance(weighting, str):
        if weighting not in POSITIVE_WEIGHTINGS:
            raise ConfigError(
                f"loss.class_weights is '{weighting}'; with multi-label data known:"
                f" {listing(POSITIVE_WEIGHTINGS)}, or one weight a label."
            )
        return POSITIVE_WEIGHTINGS[weighting](counts_C, num_rows, beta or 0.9)
    given = by_class(weighting, labels, "loss.class_weights")
    return np.array([given.get(label, 1.0) for label in labels])


def answer_weights(weights_C: Floats, weighting: str | Mapping[str, float]) -> Floats:
    """Return the weights of rows without and with each label, (2, C)."""
    is_of_label = weighting == "effective_number"
    return np.stack([weights_C if is_of_label else np.ones_like(weights_C), weights_C])
