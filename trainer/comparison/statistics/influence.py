"""What each row adds to the figures of a model. Legend: N rows, C classes, L cells of the confusion matrix that hold rows, F figures.

The influence of a row is what the figure loses without it, once the other rows of its class weigh a little more, so that the class keeps its
weight; times n - 1 of the n rows of its class, so that influences within a class add up to the change by drawing rows anew. Figures of labels
are recomputed without a row, which holds for few rows too; AUROC and calibration error, sums over rows, to first order: exact for AUROC, too wide
for a calibration error that is little more than noise. All are defined as in evaluation/metrics.py.

The row of a class of one has no other that could stand for it, so it is set against one that says the opposite, as if a coin decided whether it
is right: influence is half of what the figure changes by. Where two strategies disagree on it, all of what that changes is taken for noise.

Source: Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, ch. 2; DeLong et al. 1988, https://doi.org/10.2307/2531595 (AUROC).
"""

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csc_array, csr_array, vstack

from trainer.arrays import Floats, Ints
from trainer.comparison.statistics.crossed import spread
from trainer.evaluation.blocks import Rows, Taken, column_blocks, row_blocks, row_slices
from trainer.evaluation.metrics import NUM_BINS

SUMMARIES = ("accuracy", "macro_f1", "weighted_f1", "balanced_accuracy", "mcc")


@dataclass(frozen=True)
class Influences:
    """Figures of one model's labels, and what each row adds to them.

    Attributes:
        values_F: SUMMARIES, then F1 of each class, then recall of each class; 0 for classes without rows.
        by_cell_LF: influence of a row of each cell; sparse, since a row changes few classes.
        cells_N: cell of each row.
    """

    values_F: Floats
    by_cell_LF: csc_array
    cells_N: Ints

    def by_row(self, f: int) -> Floats:
        """Influence of each row on a figure."""
        of_L: Floats = self.by_cell_LF[:, [f]].toarray()[:, 0]
        return of_L[self.cells_N]


def of_labels(label_ids_N: Ints, predicted_N: Ints, num_classes: int) -> Influences:
    """Influence of each row on the figures that depend on predicted labels alone."""
    kinds_N = label_ids_N * num_classes + predicted_N
    counts_CC = (
        np.bincount(kinds_N, minlength=num_classes**2)
        .reshape(num_classes, num_classes)
        .astype(float)
    )
    true_L, given_L = np.nonzero(counts_CC)
    cells_N = (np.cumsum(counts_CC.ravel() > 0) - 1)[kinds_N]
    support_C, given_C = counts_CC.sum(axis=1), counts_CC.sum(axis=0)
    values_F = _figures(np.diagonal(counts_CC)[None], given_C[None], support_C)[0]
    parts = []
    for cells in row_slices(
        (len(true_L), 8 * num_classes)
    ):  # of some cells at a time, of which most change few classes
        without_LF, rows_L = _without(counts_CC, true_L[cells], given_L[cells], support_C, given_C)
        parts.append(csr_array((values_F - without_LF) * ((rows_L - 1) / rows_L)[:, None]))
    return Influences(values_F, csc_array(vstack(parts)), cells_N)


def _without(
    counts_CC: Floats, true_L: Ints, given_L: Ints, support_C: Floats, given_C: Floats
) -> tuple[Floats, Floats]:
    """Figures without a row of each of these cells, and the rows of its class."""
    at_L, is_alone_L = np.arange(len(true_L)), support_C[true_L] == 1
    rows_L = np.where(is_alone_L, 2, support_C[true_L])  # a row alone and its opposite
    without_LC = counts_CC[
        true_L
    ]  # of the class of the row that is left out, the others weighing more
    without_LC[at_L, given_L] -= 1
    without_LC *= (rows_L / (rows_L - 1))[:, None]
    without_LC[at_L, true_L] = np.where(is_alone_L, true_L != given_L, without_LC[at_L, true_L])
    hits_LC = np.tile(np.diagonal(counts_CC), (len(true_L), 1))
    hits_LC[at_L, true_L] = without_LC[at_L, true_L]
    return _figures(hits_LC, given_C - counts_CC[true_L] + without_LC, support_C), rows_L


def _figures(hits_LC: Floats, given_LC: Floats, support_C: Floats) -> Floats:
    """Figures of rows right, rows predicted and rows true of each class, (L, F)."""
    present = support_C > 0
    total = support_C.sum()
    f1_LC = 2 * hits_LC / np.maximum(given_LC + support_C, 1)
    recall_LC = hits_LC / np.maximum(support_C, 1)
    right_L = hits_LC.sum(axis=1)
    covariance_L = right_L * total - given_LC @ support_C
    scale_L = np.sqrt(
        np.maximum(total**2 - np.square(given_LC).sum(axis=1), 0)
        * (total**2 - np.square(support_C).sum())
    )
    mcc_L = np.divide(
        covariance_L, scale_L, out=np.zeros_like(covariance_L), where=scale_L > 1e-9 * total
    )
    summaries = [
        right_L / total,
        f1_LC[:, present].mean(axis=1),
        f1_LC @ support_C / total,
        recall_LC[:, present].mean(axis=1),
        mcc_L,
    ]
    return np.column_stack([*summaries, f1_LC, recall_LC])


def of_auroc(label_ids_N: Ints, p_NC: Rows) -> tuple[float, Floats]:
    """AUROC, one class against the rest, mean over the classes that have rows of both; and the influence of each row. 0.5 and zeros without any."""
    num_rows = len(label_ids_N)
    influence_N = np.zeros(num_rows)
    values = []
    for start, p_NB in column_blocks(p_NC):
        for label_id in range(start, start + p_NB.shape[1]):
            own_N, p_N = label_ids_N == label_id, p_NB[:, label_id - start]
            num_own = int(own_N.sum())
            if num_own in (0, num_rows):
                continue
            below_own_N, below_N = _below(p_N[own_N], p_N), _below(p_N, p_N)
            wins_N = np.where(
                own_N, (below_N - below_own_N) / (num_rows - num_own), 1 - below_own_N / num_own
            )
            values.append(wins_N[own_N].mean())
            count_N = np.where(own_N, num_own, num_rows - num_own)
            influence_N += (wins_N - np.where(count_N == 1, 0.5, values[-1])) / count_N
    return (float(np.mean(values)), influence_N / len(values)) if values else (0.5, influence_N)


def _below(values: Floats, of_N: Floats) -> Floats:
    """How many values are less than each, ties counted by half."""
    ordered = np.sort(values)
    return (np.searchsorted(ordered, of_N, "left") + np.searchsorted(ordered, of_N, "right")) / 2


def of_ece(label_ids_N: Ints, p_NC: Rows) -> tuple[float, Floats]:
    """Expected calibration error of the largest probability; and the influence of each row."""
    blocks = [
        (p_BC.max(axis=1).astype(np.float64), p_BC.argmax(axis=1) == label_ids_N[rows])
        for rows, p_BC in row_blocks(p_NC)
    ]
    confidence_N, right_N = (np.concatenate(column) for column in zip(*blocks, strict=True))
    bins_N = np.minimum((confidence_N * NUM_BINS).astype(int), NUM_BINS - 1)
    gaps = np.bincount(bins_N, weights=confidence_N - right_N, minlength=NUM_BINS)
    return float(np.abs(gaps).sum() / len(label_ids_N)), np.sign(gaps)[bins_N] * (
        confidence_N - right_N
    ) / len(label_ids_N)


@dataclass(frozen=True)
class Sample:
    """Figures and influences of every strategy and seed; rows sorted by class, which begin at `starts`."""

    starts: Ints
    of_labels: list[list[Influences]]
    of_probabilities: dict[str, list[list[tuple[float, Floats]]]]

    def figure(self, title: str, minority: int) -> tuple[Floats, Floats]:
        """Values (K, S), and their spread over rows (K, S, N)."""
        if title in SUMMARIES:
            return self._column(SUMMARIES.index(title))
        if title.startswith("minority_"):
            return self.of_class(title.removeprefix("minority_"), minority)
        found = self.of_probabilities[title]
        return self._spread(
            [[value for value, _ in seeds] for seeds in found],
            [[influence_N for _, influence_N in seeds] for seeds in found],
        )

    def of_class(self, kind: str, label_id: int) -> tuple[Floats, Floats]:
        """The same of the F1 or recall of one class."""
        num_classes = (len(self.of_labels[0][0].values_F) - len(SUMMARIES)) // 2
        return self._column(len(SUMMARIES) + label_id + (num_classes if kind == "recall" else 0))

    def _column(self, f: int) -> tuple[Floats, Floats]:
        found = self.of_labels
        return self._spread(
            [[of.values_F[f] for of in seeds] for seeds in found],
            [[of.by_row(f) for of in seeds] for seeds in found],
        )

    def _spread(
        self, values: list[list[float]], influences: list[list[Floats]]
    ) -> tuple[Floats, Floats]:
        return np.array(values), spread(np.array(influences), self.starts)


def sample(
    label_ids_N: Ints, strategies: list[tuple[Ints, Floats | list[Rows]]], num_classes: int
) -> Sample:
    """Figures and influences of strategies, each given as label ids (S, N) and probabilities (S, N, C) of its seeds."""
    order_N = np.argsort(label_ids_N, kind="stable")
    true_N = label_ids_N[order_N]
    return Sample(
        starts=np.unique(true_N, return_index=True)[1],
        of_labels=[
            [of_labels(true_N, predicted_N[order_N], num_classes) for predicted_N in predicted_SN]
            for predicted_SN, _ in strategies
        ],
        of_probabilities={
            "auroc_macro": [
                [of_auroc(true_N, Taken(p_NC, order_N)) for p_NC in p_SNC]
                for _, p_SNC in strategies
            ],
            "ece": [
                [of_ece(true_N, Taken(p_NC, order_N)) for p_NC in p_SNC] for _, p_SNC in strategies
            ],
        },
    )
