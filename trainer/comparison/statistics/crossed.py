"""How sure a mean over seeds is when seeds and rows both vary. Legend: N rows, S seeds, K strategies, P pairs, B draws.

Every seed is judged on the same rows: seeds and rows are crossed random factors. The variance of a mean over seeds is that of drawing the rows
anew for all seeds at once, plus that of the seeds, less what a seed and a row do together, which is in both. Rows enter by their
influence on a figure: the limit of a bootstrap of ever more resamples, without the noise of its draws, and with n / (n - 1) for classes
of few rows. Every class keeps its number of rows, as in a stratified split; that of a class of one row counts in full, for nothing
says what another would do (evaluation/influence.py). scripts/bench/calibration.py shows by simulation how far it
holds: false alarms and coverage near the level for 3, 5 and 10 seeds.

Source: Satterthwaite 1946, https://doi.org/10.2307/3002019 (degrees of freedom of a sum); Owen 2007, https://arxiv.org/abs/0712.1111
(crossed factors); Efron 1982, The Jackknife, the Bootstrap and Other Resampling Plans, ch. 6 (influence); Hothorn, Bretz and Westfall 2008,
https://doi.org/10.1002/bimj.200810425 (simultaneous intervals).
"""

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import optimize, special

from trainer.arrays import Floats, Ints
from trainer.evaluation.intervals import LEVEL, Interval

NUM_DRAWS = 4000
"""Draws for the largest of several correlated differences; its quantile is sure to about 1 %."""
LEAST_VARIANCE = 1e-24
"""Less is rounding: one row of 10 million that differs gives 1e-14."""
SURE_OF_SHARED = 2 / 3
"""The seeds' variance is taken as at least this part of what the rows say that seeds and rows do together. Three seeds that happen to agree
would claim too much without (7 % false alarms where rows vary most), and all of it makes intervals too wide (97 % hold)."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds, or a difference of two.

    Attributes:
        seed_variance: of the mean, by training with other seeds, with what a seed does to single rows; 0 with one seed, which cannot tell.
        row_variance: of the mean, by judging on other rows, as far as all seeds share it.
        degrees_of_freedom: of the t distribution; NaN where nothing varies.
    """

    value: float
    seed_variance: float
    row_variance: float
    degrees_of_freedom: float

    @property
    def deviation(self) -> float:
        """Standard error; 0 where nothing varies."""
        return float(np.sqrt(self.seed_variance + self.row_variance))

    @property
    def p(self) -> float:
        """Two-sided p value of 0; 1 where nothing varies, for then nothing can be told."""
        return (
            float(2 * special.stdtr(self.degrees_of_freedom, -abs(self.value) / self.deviation))
            if self.deviation
            else 1.0
        )

    def interval(self, quantile: float | None = None) -> Interval | None:
        """Low and high of the 95 % interval, or of one `quantile` standard errors wide on each side.

        None where nothing varies: rows that are all right, or all wrong, on both sides say nothing of rows not drawn.
        """
        if not self.deviation:
            return None
        half = self.deviation * (
            quantile or float(special.stdtrit(self.degrees_of_freedom, (1 + LEVEL) / 2))
        )
        return self.value - half, self.value + half


def spread(influence: Floats, starts: Ints) -> Floats:
    """Influences less the mean of their class, scaled so that the sum of their squares is the variance over rows; of the same shape.

    Args:
        influence: what each row adds to a figure, (..., N), rows sorted by class. That of a class of one row stays as it is.
        starts: place of the first row of each class.
    """
    counts = _counts(influence, starts)
    means = np.where(counts > 1, np.add.reduceat(influence, starts, axis=-1) / counts, 0)
    scale = np.sqrt(counts / np.maximum(counts - 1, 1))
    return (influence - np.repeat(means, counts, axis=-1)) * np.repeat(scale, counts)


def estimate(values_S: Floats, spread_SN: Floats, starts: Ints) -> Estimate:
    """Mean over seeds with its variance, and the degrees of freedom that seeds and the rows of each class leave.

    What a seed and a row do together is in the variance of either: it is estimated from how much less the mean over seeds varies by rows
    than a single seed does, and counted once.

    Args:
        values_S: a figure of each seed, or the difference of two strategies' figures.
        spread_SN: see `spread`.
        starts: place of the first row of each class.
    """
    num_seeds, freedom_C = len(values_S), np.maximum(_counts(spread_SN, starts) - 1, 1)
    by_class_C = np.add.reduceat(np.square(spread_SN.mean(axis=0)), starts)
    row = rows_alone = float(by_class_C.sum())
    seed = 0.0
    if num_seeds > 1:
        shared = max(0.0, (float(np.square(spread_SN).sum()) / num_seeds - row) / (num_seeds - 1))
        seed = max(float(values_S.var(ddof=1)) / num_seeds, SURE_OF_SHARED * shared)
        rows_alone = max(0.0, row - shared)
    if seed + rows_alone < LEAST_VARIANCE:
        return Estimate(float(values_S.mean()), 0.0, 0.0, float("nan"))
    squares = seed**2 / max(num_seeds - 1, 1)
    if rows_alone:
        squares += (rows_alone / row) ** 2 * float((np.square(by_class_C) / freedom_C).sum())
    return Estimate(float(values_S.mean()), seed, rows_alone, (seed + rows_alone) ** 2 / squares)


def all_pairs_quantile(values_KS: Floats, spread_KSN: Floats, starts: Ints) -> float:
    """How many standard errors on each side make the intervals of all differences of two strategies hold at once.

    The 95 % quantile of the largest |t| of all pairs, in a multivariate t of their estimated correlations with the smallest degrees of freedom
    of any pair. All pairs, since the best is chosen by looking; the smallest, since with few seeds anything larger raises too many false
    alarms. Pairs that never differ are left out; NaN where none is left.
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
    variances_P = (
        covariance_KK[first, first]
        + covariance_KK[second, second]
        - 2 * covariance_KK[first, second]
    )
    squares_B = (np.square(drawn_BK[:, first] - drawn_BK[:, second]) / variances_P).max(axis=1)
    single, most = (
        float(special.stdtrit(smallest, 1 - (1 - LEVEL) / 2 / number)) for number in (1, len(first))
    )  # alone, and by Bonferroni

    def excess(quantile: float) -> float:
        """Chance of a larger |t| less what is allowed; the common denominator of the t is integrated, not drawn."""
        return float(special.chdtr(smallest, smallest * squares_B / quantile**2).mean()) - (
            1 - LEVEL
        )

    return max(single, float(optimize.brentq(excess, single / 2, most * 2, rtol=1e-4)))


def _covariance(values_KS: Floats, spread_KSN: Floats) -> Floats:
    """Of the strategies' means, by rows and by seeds; for their correlations only, as what seeds and rows do together is in both."""
    mean_KN = spread_KSN.mean(axis=1)
    num_seeds = values_KS.shape[1]
    by_seed_KS = (values_KS - values_KS.mean(axis=1, keepdims=True)) / np.sqrt(
        num_seeds * max(num_seeds - 1, 1)
    )
    return mean_KN @ mean_KN.T + by_seed_KS @ by_seed_KS.T


def _counts(by_row: Floats, starts: Ints) -> Ints:
    """Rows of each class."""
    return np.diff(np.append(starts, by_row.shape[-1]))
