"""Draw the labels of rows with several labels equally often (`class_balanced_batches`).

A draw chooses a label, then a row that has it. Every label gets the same number of draws, and its
rows are repeated only after all of them were drawn. Rows without a label get as many draws as one
label, but none is repeated. A label also occurs in rows that are drawn for others, so an epoch sees
it at least as often as it is drawn. Legend: N rows, C labels, S strata (the labels, then the rows
without one), D draws.
"""

from typing import Any

import numpy as np

from trainer.arrays import Bools, Floats, Ints
from trainer.data.balancing.balance import draw


def draws_per_label(num_rows: float, num_labels: int, num_without: int) -> float:
    """Return the draws of each label for which all draws together are `num_rows`.

    Args:
        num_without: rows without a label, which get as many draws, but at most their number.

    Example:
        >>> draws_per_label(100, 4, 20), draws_per_label(100, 4, 4)
        (20.0, 24.0)
    """
    return max(num_rows / (num_labels + (num_without > 0)), (num_rows - num_without) / num_labels)


def drawn_of_strata(counts_S: Ints, is_label_S: Bools, num_rows: int) -> Ints:
    """Return the draws of each stratum in an epoch of at least `num_rows` draws.

    Args:
        counts_S: rows of each stratum, 1 or more.
        is_label_S: False for the rows without a label.
    """
    without = int(counts_S[~is_label_S].sum())
    each = int(np.ceil(draws_per_label(num_rows, int(is_label_S.sum()), without) - 1e-9))
    return np.where(is_label_S, each, np.minimum(each, counts_S)).astype(np.int64)


def draw_evenly(strata: Any, ranks_N: Ints, drawn_S: Ints, generator: np.random.Generator) -> Ints:
    """Return the row of each draw (D,), the draws of the first stratum first.

    Args:
        strata: trainer.data.balancing.label_balance.Strata.
        ranks_N: places of the rows in an order of their own, from which the generator draws.
    """
    by_stratum = strata.members.tocsc()
    rows_M = by_stratum.indices.astype(np.int64)
    strata_M = np.repeat(np.arange(len(drawn_S)), np.diff(by_stratum.indptr))
    return rows_M[draw(strata_M, ranks_N[rows_M].astype(np.uint64), drawn_S, generator)]


def order_in_rounds(drawn_S: Ints, generator: np.random.Generator) -> Ints:
    """Return the draws in a random order (D,) in which the strata take turns.

    A round holds every stratum once; strata with fewer draws are spread evenly over the rounds. So
    consecutive draws are balanced up to one draw a stratum.

    Args:
        drawn_S: draws of each stratum, 1 or more; the draws of the first stratum come first.
    """
    strata_D = np.repeat(np.arange(len(drawn_S)), drawn_S)
    shuffled_D = np.lexsort((generator.random(len(strata_D)), strata_D))
    ranks_D = np.arange(len(strata_D)) - (np.cumsum(drawn_S) - drawn_S)[strata_D]
    offsets_S = generator.random(len(drawn_S))
    rounds_D = np.floor((ranks_D + offsets_S[strata_D]) * (drawn_S.max() / drawn_S)[strata_D])
    return shuffled_D[np.lexsort((generator.random(len(strata_D)), rounds_D))]


def expected_counts(label_matrix_NC: Bools) -> Ints:
    """Return the rows of each label that an epoch of N draws sees on average, (C,)."""
    counts_C = label_matrix_NC.sum(axis=0)
    without_N = ~label_matrix_NC.any(axis=1)
    num_without, num_rows = int(without_N.sum()), len(label_matrix_NC)
    each = draws_per_label(num_rows, int((counts_C > 0).sum()), num_without)
    of_label_C: Floats = np.where(counts_C > 0, each / np.maximum(counts_C, 1), 0.0)
    times_N = label_matrix_NC @ of_label_C  # rows without a label count for no label
    return np.round(times_N @ label_matrix_NC).astype(np.int64)
