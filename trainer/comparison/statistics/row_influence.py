"""The influence of each row on the metrics of a model.

Legend: N rows, C classes, L nonzero entries of the confusion matrix, F metrics.

The influence of a row is what a metric loses without the row, if the other rows of its class weigh
more so that the class keeps its weight, times (n - 1) / n for a class of n rows. Metrics of labels
are computed again without the row, which is exact for few rows too. AUROC and calibration error,
which are sums over rows, use the first order: exact for AUROC, too wide for a calibration error
near 0. All metrics are defined as in evaluation/metrics.py.

A class of one row has no other row that could take its weight. It is compared with a row of the
opposite result, as if a coin decided it: its influence is half of the change. If two strategies
disagree on it, the whole change counts as noise.

Sources: Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, ch. 2; DeLong et al.
1988, https://doi.org/10.2307/2531595 (AUROC).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csc_array, csr_array, vstack

from trainer.arrays import Floats, Ints
from trainer.comparison.statistics.comparison_result import ALL_METRICS
from trainer.comparison.statistics.variance_components import spread
from trainer.evaluation.blocks import Rows, Taken, column_blocks, row_blocks, row_slices
from trainer.evaluation.metrics import NUM_BINS

SUMMARIES = ("accuracy", "macro_f1", "weighted_f1", "balanced_accuracy", "mcc")


@dataclass(frozen=True)
class Influences:
    """Metrics of one model's predicted labels, and the influence of each row on them.

    Attributes:
        values_F: SUMMARIES, then F1 of each class, then recall of each class; 0 without rows.
        by_entry_LF: influence of a row of each entry; sparse, since a row changes few classes.
        entries_N: the entry of each row.
    """

    values_F: Floats
    by_entry_LF: csc_array
    entries_N: Ints

    def by_row(self, metrics: Ints) -> Floats:
        """Return the influence of each row on the mean of some metrics."""
        by_entry_L: Floats = np.asarray(self.by_entry_LF[:, metrics].mean(axis=1))
        return by_entry_L[self.entries_N]


def of_labels(label_ids_N: Ints, predicted_N: Ints, num_classes: int) -> Influences:
    """Return the influence of each row on the metrics of predicted labels."""
    pairs_N = label_ids_N * num_classes + predicted_N
    counts_CC = np.bincount(pairs_N, minlength=num_classes**2).astype(float)
    counts_CC = counts_CC.reshape(num_classes, num_classes)
    true_L, given_L = np.nonzero(counts_CC)
    entries_N = (np.cumsum(counts_CC.ravel() > 0) - 1)[pairs_N]
    support_C, given_C = counts_CC.sum(axis=1), counts_CC.sum(axis=0)
    values_F = _figures(np.diagonal(counts_CC)[None], given_C[None], support_C)[0]
    parts = []
    for some in row_slices((len(true_L), 8 * num_classes)):
        without_LF, rows_L = _without(counts_CC, true_L[some], given_L[some], support_C, given_C)
        parts.append(csr_array((values_F - without_LF) * ((rows_L - 1) / rows_L)[:, None]))
    return Influences(values_F, csc_array(vstack(parts)), entries_N)


def _without(
    counts_CC: Floats, true_L: Ints, given_L: Ints, support_C: Floats, given_C: Floats
) -> tuple[Floats, Floats]:
    """Return the metrics without a row of each of these entries, and the rows of its class."""
    at_L, is_alone_L = np.arange(len(true_L)), support_C[true_L] == 1
    rows_L = np.where(is_alone_L, 2, support_C[true_L])  # a single row counts with its opposite
    without_LC = counts_CC[true_L]
    without_LC[at_L, given_L] -= 1
    without_LC *= (rows_L / (rows_L - 1))[:, None]
    without_LC[at_L, true_L] = np.where(is_alone_L, true_L != given_L, without_LC[at_L, true_L])
    hits_LC = np.tile(np.diagonal(counts_CC), (len(true_L), 1))
    hits_LC[at_L, true_L] = without_LC[at_L, true_L]
    return _figures(hits_LC, given_C - counts_CC[true_L] + without_LC, support_C), rows_L


def _figures(hits_LC: Floats, given_LC: Floats, support_C: Floats) -> Floats:
    """Return the metrics (L, F) of the correct, predicted and true rows of each class."""
    present, total = support_C > 0, support_C.sum()
    f1_LC = 2 * hits_LC / np.maximum(given_LC + support_C, 1)
    recall_LC = hits_LC / np.maximum(support_C, 1)
    right_L = hits_LC.sum(axis=1)
    covariance_L = right_L * total - given_LC @ support_C
    known_L = np.maximum(total**2 - np.square(given_LC).sum(axis=1), 0)
    scale_L = np.sqrt(known_L * (total**2 - np.square(support_C).sum()))
    is_defined_L, zeros_L = scale_L > 1e-9 * total, np.zeros_like(covariance_L)
    mcc_L = np.divide(covariance_L, scale_L, out=zeros_L, where=is_defined_L)
    summaries = [
        right_L / total,
        f1_LC[:, present].mean(axis=1),
        f1_LC @ support_C / total,
        recall_LC[:, present].mean(axis=1),
        mcc_L,
    ]
    return np.column_stack([*summaries, f1_LC, recall_LC])


def of_auroc(label_ids_N: Ints, p_NC: Rows) -> tuple[float, Floats]:
    """Return the macro AUROC and the influence of each row; 0.5 and zeros if it is undefined."""
    num_rows, values = len(label_ids_N), []
    influence_N = np.zeros(num_rows)
    for start, p_NB in column_blocks(p_NC):
        for label_id in range(start, start + p_NB.shape[1]):
            own_N, p_N = label_ids_N == label_id, p_NB[:, label_id - start]
            num_own = int(own_N.sum())
            if num_own in (0, num_rows):
                continue
            below_own_N, below_N = _below(p_N[own_N], p_N), _below(p_N, p_N)
            num_others = num_rows - num_own
            over_others_N = (below_N - below_own_N) / num_others
            wins_N = np.where(own_N, over_others_N, 1 - below_own_N / num_own)
            values.append(wins_N[own_N].mean())
            count_N = np.where(own_N, num_own, num_others)
            influence_N += (wins_N - np.where(count_N == 1, 0.5, values[-1])) / count_N
    return (float(np.mean(values)), influence_N / len(values)) if values else (0.5, influence_N)


def _below(values: Floats, of_N: Floats) -> Floats:
    """Return how many values are below each; ties count one half."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, of_N, "left") + np.searchsorted(ordered, of_N, "right")) / 2


def of_ece(label_ids_N: Ints, p_NC: Rows) -> tuple[float, Floats]:
    """Return the expected calibration error and the influence of each row."""
    blocks = [
        (p_BC.max(axis=1).astype(np.float64), p_BC.argmax(axis=1) == label_ids_N[rows])
        for rows, p_BC in row_blocks(p_NC)
    ]
    confidence_N, right_N = (np.concatenate(column) for column in zip(*blocks, strict=True))
    bins_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins_N, weights=confidence_N - right_N, minlength=NUM_BINS)
    num_rows, excess_N = len(label_ids_N), confidence_N - right_N
    return float(np.abs(gaps).sum() / num_rows), np.sign(gaps)[bins_N] * excess_N / num_rows


@dataclass(frozen=True)
class Sample:
    """Metrics and influences of every strategy and seed.

    Rows are sorted by class; `starts` holds the place of the first row of each class. Label sets
    have one stratum. `summaries` names the first metrics of `Influences`, `metrics` all.
    """

    starts: Ints
    of_labels: list[list[Influences]]
    of_probabilities: dict[str, list[list[tuple[float, Floats]]]]
    summaries: tuple[str, ...] = SUMMARIES
    metrics: tuple[str, ...] = ALL_METRICS

    def figure(self, name: str, minority: int) -> tuple[Floats, Floats]:
        """Return the values (K, S) of a metric and their spread over rows (K, S, N)."""
        if name.startswith("minority_"):
            return self.of_classes(name.removeprefix("minority_"), np.array([minority]))
        if name in self.summaries:
            return self._mean(np.array([self.summaries.index(name)]))
        return self._spread(self.of_probabilities[name])

    def of_classes(self, name: str, label_ids: Ints) -> tuple[Floats, Floats]:
        """Return the same for the mean F1 or recall of some classes."""
        num_classes = (len(self.of_labels[0][0].values_F) - len(self.summaries)) // 2
        return self._mean(
            len(self.summaries) + label_ids + (num_classes if name == "recall" else 0)
        )

    def _mean(self, metrics: Ints) -> tuple[Floats, Floats]:
        return self._spread(
            [
                [(of.values_F[metrics].mean(), of.by_row(metrics)) for of in seeds]
                for seeds in self.of_labels
            ]
        )

    def _spread(self, found: list[list[tuple[float, Floats]]]) -> tuple[Floats, Floats]:
        values_KS = np.array([[value for value, _ in seeds] for seeds in found])
        influences_KSN = np.array([[influence_N for _, influence_N in seeds] for seeds in found])
        return values_KS, spread(influences_KSN, self.starts)


def sample(
    label_ids_N: Ints, strategies: list[tuple[Ints, Floats | list[Rows]]], num_classes: int
) -> Sample:
    """Return the metrics and influences of strategies.

    Args:
        strategies: label ids (S, N) and probabilities (S, N, C) of each strategy.
    """
    order_N = np.argsort(label_ids_N, kind="stable")
    true_N = label_ids_N[order_N]

    def of_probabilities(influence: Callable[..., tuple[float, Floats]]) -> list[Any]:
        return [
            [influence(true_N, Taken(p_NC, order_N)) for p_NC in p_SNC] for _, p_SNC in strategies
        ]

    return Sample(
        starts=np.unique(true_N, return_index=True)[1],
        of_labels=[
            [of_labels(true_N, predicted_N[order_N], num_classes) for predicted_N in predicted_SN]
            for predicted_SN, _ in strategies
        ],
        of_probabilities={
            "auroc_macro": of_probabilities(of_auroc),
            "ece": of_probabilities(of_ece),
        },
    )
