"""The influence of each row on the metrics of a model for several labels a row.

Legend: N rows, C labels, M pairs of a row and a label that it has or gets, F metrics.

The influence of a row is what a metric loses without the row, times (N - 1) / N, as in
row_influence.py. All rows are one stratum, since label sets have no classes. A row changes the F1
of few labels, so influences are sparse. A label of one row is compared with the opposite result, as
if a coin decided it. Average precision is computed again without each row; scores that are equal
count as ordered there.
"""

from typing import Any

import numpy as np
from scipy.sparse import csc_array, hstack

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.comparison.statistics.comparison_result import LABEL_SET_METRICS
from trainer.comparison.statistics.row_influence import Influences, Sample
from trainer.evaluation.blocks import Rows, column_blocks
from trainer.evaluation.ranking import average_precision

SUMMARIES = ("accuracy", "macro_f1", "weighted_f1", "micro_f1", "samples_f1")


def of_label_sets(true_NC: Bools, given_NC: Bools) -> Influences:
    """Return the influence of each row on the metrics of predicted label sets."""
    num_rows, num_labels = true_NC.shape
    rows_M, ids_M = np.nonzero(true_NC | given_NC)
    true_M, given_M = true_NC[rows_M, ids_M], given_NC[rows_M, ids_M]
    both_M = true_M & given_M
    hits_C, given_C, support_C = (
        np.bincount(ids_M[of], minlength=num_labels).astype(float)
        for of in (both_M, given_M, true_M)
    )
    f1_C = _ratio(2 * hits_C, given_C + support_C)
    recall_C = _ratio(hits_C, support_C)
    less_M, alone_M = _without(ids_M, true_M, given_M, hits_C, given_C, support_C)
    hits_M, total_M, own_M = less_M
    less = (num_rows - 1) / num_rows
    scale_M = np.where(alone_M, 0.5, less)
    without_M, recall_M = _ratio(2 * hits_M, total_M), _ratio(hits_M, own_M)

    def by_row(values_M: Floats) -> csc_array:
        return csc_array((values_M * scale_M, (rows_M, ids_M)), shape=true_NC.shape)

    f1_NC = by_row(f1_C[ids_M] - without_M)
    recall_NC = by_row(np.where(true_M, recall_C[ids_M] - recall_M, 0))
    present = support_C > 0
    exact_N, samples_N = _of_rows(rows_M, both_M, true_M, given_M, num_rows)
    moved_M = f1_C[ids_M] * support_C[ids_M] - without_M * (support_C[ids_M] - true_M)
    labels_N = np.bincount(rows_M, weights=true_M, minlength=num_rows)
    part, whole = float(f1_C @ support_C), float(support_C.sum())
    moved_N = np.bincount(rows_M, weights=moved_M, minlength=num_rows)
    hits_N = np.bincount(rows_M, weights=both_M, minlength=num_rows)
    all_N = labels_N + np.bincount(rows_M, weights=given_M, minlength=num_rows)
    hits, total = float(hits_C.sum()), float((given_C + support_C).sum())
    micro = 2 * hits / total if total else 0.0
    summaries = np.column_stack(
        [
            (exact_N - exact_N.mean()) / num_rows,
            f1_NC[:, np.flatnonzero(present)].sum(axis=1) / max(int(present.sum()), 1),
            (part / max(whole, 1) - _ratio(part - moved_N, whole - labels_N)) * less,
            (micro - _ratio(2 * (hits - hits_N), total - all_N)) * less,
            (samples_N - samples_N.mean()) / num_rows,
        ]
    )
    macro = float(f1_C[present].mean()) if present.any() else 0.0
    values = [exact_N.mean(), macro, part / max(whole, 1), micro, samples_N.mean()]
    by_entry = csc_array(hstack([csc_array(summaries), f1_NC, recall_NC]))
    return Influences(np.concatenate([values, f1_C, recall_C]), by_entry, np.arange(num_rows))


def _without(
    ids_M: Ints, true_M: Bools, given_M: Bools, hits_C: Floats, given_C: Floats, support_C: Floats
) -> tuple[tuple[Floats, Floats, Floats], Bools]:
    """Return (hits, given and true, true) of each label without a row, and where it stays.

    The only row of a label stays, with the opposite result.
    """
    both_M = true_M & given_M
    hits_M = hits_C[ids_M] - both_M
    given_left_M, support_M = given_C[ids_M] - given_M, support_C[ids_M] - true_M
    alone_M = true_M & (support_C[ids_M] == 1)
    hits_M = np.where(alone_M, ~given_M, hits_M)
    given_left_M = np.where(alone_M, given_left_M + ~given_M, given_left_M)
    support_M = np.where(alone_M, 1, support_M)
    return (hits_M, given_left_M + support_M, support_M), alone_M


def _of_rows(
    rows_M: Ints, both_M: Bools, true_M: Bools, given_M: Bools, num_rows: int
) -> tuple[Floats, Floats]:
    """Return whether the labels of each row are exactly right, and its F1."""
    hits_N = np.bincount(rows_M, weights=both_M, minlength=num_rows)
    all_N = np.bincount(rows_M, weights=true_M.astype(float) + given_M, minlength=num_rows)
    exact_N = (2 * hits_N == all_N).astype(float)
    return exact_N, np.where(all_N > 0, _ratio(2 * hits_N, all_N), 1.0)


def of_average_precision(true_NC: Bools, p_NC: Rows) -> tuple[float, Floats]:
    """Return the mean average precision over labels with rows, and the influence of each row."""
    num_rows, values = len(true_NC), []
    influence_N = np.zeros(num_rows)
    for start, p_NB in column_blocks(p_NC):
        for place in range(p_NB.shape[1]):
            own_N, p_N = true_NC[:, start + place], p_NB[:, place].astype(np.float64)
            if not own_N.any():
                continue
            values.append(average_precision(own_N, p_N))
            if own_N.sum() == 1:
                influence_N += np.where(own_N, values[-1] - 0.5, 0)
            else:
                influence_N += _precision_lost(own_N, p_N) * (num_rows - 1) / num_rows
    return (float(np.mean(values)), influence_N / len(values)) if values else (0.0, influence_N)


def _precision_lost(own_N: Bools, p_N: Floats) -> Floats:
    """Return the average precision minus that without each row; two rows or more are own."""
    order = np.argsort(-p_N, kind="stable")
    own, rank = own_N[order], np.arange(1, len(p_N) + 1)
    above, num_own = np.cumsum(own), int(own.sum())
    one_less = np.maximum(rank - 1, 1)

    def below(terms: Floats) -> Floats:
        kept = np.where(own, terms, 0)
        return kept.sum() - np.cumsum(kept)

    before = np.cumsum(np.where(own, above / rank, 0)) - np.where(own, above / rank, 0)
    whole = float((above / rank)[own].sum()) / num_own
    without = np.where(
        own,
        (before + below((above - 1) / one_less)) / (num_own - 1),
        (before + below(above / one_less)) / num_own,
    )
    lost_N = np.empty(len(p_N))
    lost_N[order] = whole - without
    return lost_N


def sample(true_NC: Array, strategies: list[tuple[Bools, list[Rows]]]) -> Sample:
    """Return the metrics and influences of strategies.

    Args:
        strategies: label sets (S, N, C) and probabilities (S, N, C) of each strategy.
    """
    return Sample(
        starts=np.zeros(1, np.int64),
        of_labels=[
            [of_label_sets(true_NC, given_NC) for given_NC in given_SNC]
            for given_SNC, _ in strategies
        ],
        of_probabilities={
            "mean_average_precision": [
                [of_average_precision(true_NC, p_NC) for p_NC in p_SNC] for _, p_SNC in strategies
            ]
        },
        summaries=SUMMARIES,
        metrics=LABEL_SET_METRICS,
    )


def _ratio(part: Any, whole: Any) -> Floats:
    """Return part / whole, and 0 where whole is 0."""
    whole = np.asarray(whole, float)
    parts = np.broadcast_to(np.asarray(part, float), whole.shape)
    return np.divide(parts, whole, out=np.zeros(whole.shape), where=whole > 0)
