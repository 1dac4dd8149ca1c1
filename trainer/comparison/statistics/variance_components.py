"""Variances of means over seeds, where seeds and rows are crossed random factors.

Legend: N rows, S seeds, K strategies, P pairs of strategies, B draws, C classes.

All seeds are evaluated on the same rows. The variance of a mean over seeds is that of drawing other
rows for all seeds at once, plus that of the seeds, minus that of their interaction, which both
include. The variance over rows comes from the rows' influence on a metric (row_influence.py). This
is the limit of a bootstrap with ever more resamples, with n / (n - 1) for classes of few rows.
Every class keeps its number of rows, as in a stratified split. The variance of a class of one row
counts in full. `scripts/bench/calibration.py` simulates how well this holds: false alarms and
coverage are near the level for 3, 5 and 10 seeds.

Sources: Satterthwaite 1946, https://doi.org/10.2307/3002019 (degrees of freedom of a sum); Owen
2007, https://arxiv.org/abs/0712.1111 (crossed factors); Efron 1982, The Jackknife, the Bootstrap
and Other Resampling Plans, ch. 6 (influence); Hothorn, Bretz and Westfall 2008,
https://doi.org/10.1002/bimj.200810425 (simultaneous intervals).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import optimize, special

from trainer.arrays import Floats, Ints
from trainer.evaluation.intervals import LEVEL, Interval

NUM_DRAWS = 4000
"""Draws of the largest of several correlated differences; they give its quantile to about 1 %."""
LEAST_VARIANCE = 1e-24
"""Smaller variances are rounding errors: one differing row of 10 million gives 1e-14."""
LEAST_INTERACTION = 3 / 4
"""The seeds' variance is at least this share of the interaction that the rows show.

Without a minimum, three seeds that agree by chance give 7 % false alarms where rows vary most. With
2/3, one of three equal strategies is called different in 6.2 % (8,000 simulations of "hard" with
three seeds); with the whole interaction, intervals are too wide (97 % coverage)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a difference of two means.

    Attributes:
        seed_variance: variance of the mean by training with other seeds, the interaction with rows
            included; 0 with one seed.
        row_variance: variance of the mean by evaluating other rows, without the interaction.
        degrees_of_freedom: of the t distribution; NaN if nothing varies.
    """

    value: float
    seed_variance: float
    row_variance: float
    degrees_of_freedom: float

    @property
    def deviation(self) -> float:
        """Return the standard error, 0 if nothing varies."""
        return float(np.sqrt(self.seed_variance + self.row_variance))

    @property
    def p(self) -> float:
        """Return the two-sided p value of no difference, 1 if nothing varies."""
        if not self.deviation:
            return 1.0
        return float(2 * special.stdtr(self.degrees_of_freedom, -abs(self.value) / self.deviation))

    def interval(self, quantile: float | None = None) -> Interval | None:
        """Return the 95 % interval, or one of `quantile` standard errors on each side.

        None if nothing varies: rows that are all correct, or all wrong, do not tell about others.
        """
        if not self.deviation:
            return None
        quantile = quantile or float(special.stdtrit(self.degrees_of_freedom, (1 + LEVEL) / 2))
        return self.value - self.deviation * quantile, self.value + self.deviation * quantile


def spread(influence: Floats, starts: Ints) -> Floats:
    """Return influences minus their class mean; the sum of their squares is the row variance.

    Args:
        influence: influence of each row on a metric, (..., N), rows sorted by class. The influence
            in a class of one row is not changed.
        starts: place of the first row of each class.
    """
    counts = _counts(influence, starts)
    means = np.where(counts > 1, np.add.reduceat(influence, starts, axis=-1) / counts, 0)
    scale = np.sqrt(counts / np.maximum(counts - 1, 1))
    return (influence - np.repeat(means, counts, axis=-1)) * np.repeat(scale, counts)


def estimate(values_S: Floats, spread_SN: Floats, starts: Ints) -> Estimate:
    """Return the mean over seeds, its variances and their degrees of freedom.

    Both variances include the interaction of seeds and rows. It is estimated by how much less the
    mean over seeds varies over rows than a single seed does, and counted once.

    Args:
        values_S: a metric for each seed, or the difference of two strategies.
        spread_SN: see `spread`.
        starts: place of the first row of each class.
    """
    num_seeds, freedom_C = len(values_S), np.maximum(_counts(spread_SN, starts) - 1, 1)
    by_class_C = np.add.reduceat(np.square(spread_SN.mean(axis=0)), starts)
    row = rows_alone = float(by_class_C.sum())
    seed = 0.0
    if num_seeds > 1:
        shared = max(0.0, (float(np.square(spread_SN).sum()) / num_seeds - row) / (num_seeds - 1))
        seed = max(float(values_S.var(ddof=1)) / num_seeds, LEAST_INTERACTION * shared)
        rows_alone = max(0.0, row - shared)
    if seed + rows_alone < LEAST_VARIANCE:
        return Estimate(float(values_S.mean()), 0.0, 0.0, float("nan"))
    squares = seed**2 / max(num_seeds - 1, 1)
    if rows_alone:
        squares += (rows_alone / row) ** 2 * float((np.square(by_class_C) / freedom_C).sum())
    return Estimate(float(values_S.mean()), seed, rows_alone, (seed + rows_alone) ** 2 / squares)


def all_pairs_quantile(values_KS: Floats, spread_KSN: Floats, starts: Ints) -> float:
    """Return the half width, in standard errors, of simultaneous intervals of all pairs.

    It is the 95 % quantile of the largest |t| of all pairs, in a multivariate t with the estimated
    correlations and the smallest degrees of freedom of any pair. All pairs count, because the best
    strategy is chosen from the data. Larger degrees of freedom raise too many false alarms with few
    seeds. Pairs that never differ are omitted; NaN if no pair is left.
    """
    pairs = np.array(list(combinations(range(len(values_KS)), 2)), dtype=np.int64).reshape(-1, 2)
    found = [
        estimate(values_KS[i] - values_KS[j], spread_KSN[i] - spread_KSN[j], starts)
        for i, j in pairs
    ]
    varies = np.array([difference.deviation > 0 for difference in found], dtype=bool)
    if not varies.any():
        return float("nan")
    smallest = min(difference.degrees_of_freedom for difference in found if difference.deviation)
    covariance_KK = _covariance(values_KS, spread_KSN)
    drawn_BK = np.random.default_rng(0).multivariate_normal(
        np.zeros(len(values_KS)), covariance_KK, size=NUM_DRAWS, method="eigh"
    )
    first, second = pairs[varies].T
    variances_K = np.diagonal(covariance_KK)
    variances_P = variances_K[first] + variances_K[second] - 2 * covariance_KK[first, second]
    squares_B = (np.square(drawn_BK[:, first] - drawn_BK[:, second]) / variances_P).max(axis=1)
    single, bonferroni = (
        float(special.stdtrit(smallest, 1 - (1 - LEVEL) / 2 / number)) for number in (1, len(first))
    )

    def excess(quantile: float) -> float:
        """Return P(larger |t|) minus the level; the denominator of t is integrated."""
        tail_B = special.chdtr(smallest, smallest * squares_B / quantile**2)
        return float(tail_B.mean()) - (1 - LEVEL)

    return max(single, float(optimize.brentq(excess, single / 2, bonferroni * 2, rtol=1e-4)))


def _covariance(values_KS: Floats, spread_KSN: Floats) -> Floats:
    """Return the covariance of the strategies' means, with the interaction counted twice.

    It serves only for correlations.
    """
    mean_KN, num_seeds = spread_KSN.mean(axis=1), values_KS.shape[1]
    scale = np.sqrt(num_seeds * max(num_seeds - 1, 1))
    by_seed_KS = (values_KS - values_KS.mean(axis=1, keepdims=True)) / scale
    return mean_KN @ mean_KN.T + by_seed_KS @ by_seed_KS.T


def _counts(by_row: Floats, starts: Ints) -> Ints:
    """Return the number of rows of each class."""
    return np.diff(np.append(starts, by_row.shape[-1]))
