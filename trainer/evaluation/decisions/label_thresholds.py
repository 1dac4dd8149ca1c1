"""Fit one threshold per label on multi-label validation rows; table LABEL_OBJECTIVES.

Legend: N rows, C labels, K cuts of rows that are sorted by their probability.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.special import expit

from trainer.arrays import Array, Bools, Floats, Ints
from trainer.evaluation.decisions.thresholds import THRESHOLDS
from trainer.evaluation.scores import THRESHOLD, LogProbabilities, log_odds

MOST_LOG_ODDS = 36.0
"""Thresholds stay within these log odds, since the next float64 probability above is 1."""
END_GAP = float(np.log(2))
"""How far a threshold lies, in log odds, above all rows or below all rows."""

Score = Callable[[Floats, Floats, Floats], Floats]


@dataclass(frozen=True)
class Cuts:
    """The cuts that can be best: directly below a row that has the label, and above all rows.

    Attributes:
        thresholds_K: in the middle, in log odds, between the rows on both sides; ascending.
        hits_K, given_K: rows with the label above each cut, and all rows above it.
        support: rows with the label.
    """

    thresholds_K: Floats
    hits_K: Floats
    given_K: Floats
    support: int

    def best(self, score_K: Floats) -> int:
        """Return the cut with the best score; of equal ones that with a threshold nearest to 0.5.

        Args:
            score_K: one score per cut.
        """
        best = np.flatnonzero(score_K >= score_K.max() - 1e-12)
        return int(best[np.abs(self.thresholds_K[best] - THRESHOLD).argmin()])

    def precision(self, k: int) -> float:
        """Return the precision of a cut; 0 if it gives the label to no row."""
        return float(self.hits_K[k] / max(self.given_K[k], 1))


@dataclass(frozen=True)
class Columns:
    """The labels of rows, read one by one: (log probabilities, which rows have the label)."""

    log_p_NC: LogProbabilities
    targets_NC: Array

    def __iter__(self) -> Iterator[tuple[Floats, Bools]]:
        for c, log_p_N in self.log_p_NC.columns():
            yield log_p_N, self.targets_NC[:, c] > 0


def cuts_of(columns: Iterable[tuple[Floats, Bools]]) -> Cuts:
    """Return the cuts of one label, or of several labels that have one threshold.

    Args:
        columns: of each label the log probabilities of all rows, and which rows have it. They are
            read twice.
    """
    own = [log_p_N[has_N] for log_p_N, has_N in columns]
    values_V, counts_V = np.unique(np.concatenate(own), return_counts=True)
    others_K = np.zeros(len(values_V) + 1, np.int64)
    below_K = np.r_[-np.inf, values_V]
    for log_p_N, has_N in columns:
        without = log_p_N[~has_N]
        places = np.searchsorted(values_V, without, side="right")
        others_K += np.bincount(places, minlength=len(others_K))
        np.maximum.at(below_K, places, without)
    hits_K = np.r_[_from_each(counts_V), 0]
    given_K = hits_K + np.r_[_from_each(others_K)[1:], 0]
    return Cuts(
        _between(values_V, below_K),
        hits_K.astype(np.float64),
        given_K.astype(np.float64),
        int(counts_V.sum()),
    )


def _between(values_V: Floats, below_K: Floats) -> Floats:
    """Return the thresholds in the middle between the rows on both sides of each cut."""
    limit = 2 * MOST_LOG_ODDS
    upper_K = np.r_[np.clip(log_odds(values_V), -limit, limit), 0.0]
    lower_K = np.clip(log_odds(below_K), -limit, limit)
    upper_K[-1] = lower_K[-1] + 2 * END_GAP
    if np.isneginf(below_K[0]):
        lower_K[0] = upper_K[0] - 2 * END_GAP
    return np.asarray(expit(np.clip((lower_K + upper_K) / 2, -MOST_LOG_ODDS, MOST_LOG_ODDS)))


def _from_each(counts: Ints) -> Ints:
    """Return the sum of the counts from each place to the end."""
    return np.cumsum(counts[::-1])[::-1]


@dataclass(frozen=True)
class LabelThresholds:
    """The thresholds of multi-label rows.

    Attributes:
        thresholds_C: the threshold of each label.
        common: the one threshold that is best for all labels together.
        short: labels that do not reach the precision, so they keep the common threshold.
    """

    thresholds_C: Floats
    common: float
    short: tuple[int, ...] = ()


def fit_label_thresholds(
    log_p_NC: LogProbabilities,
    targets_NC: Array,
    fitted_C: Bools,
    *,
    objective: str,
    min_precision: float,
) -> LabelThresholds:
    """Return the thresholds that are best on validation rows.

    Args:
        fitted_C: labels with a threshold of their own; the others get the common one.
        objective: a name in LABEL_OBJECTIVES.
    """
    columns = Columns(log_p_NC, targets_NC)
    curve = "recall_at_precision" if objective == "recall_at_precision" else "f1"
    score = partial(THRESHOLDS[curve], min_precision=min_precision)
    least = min_precision if objective == "recall_at_precision" else 0.0
    common = _common(cuts_of(columns), score, least)
    return LABEL_OBJECTIVES[objective](columns, fitted_C, common, score, least)


def _common(cuts: Cuts, score: Score, least: float) -> float:
    """Return the best threshold of all labels together; 0.5 if none reaches the precision."""
    k = cuts.best(score(cuts.hits_K, cuts.given_K, np.array(float(cuts.support))))
    is_fitted = cuts.support > 0 and cuts.precision(k) >= least - 1e-9
    return float(cuts.thresholds_K[k]) if is_fitted else THRESHOLD


Objective = Callable[[Columns, Bools, float, Score, float], LabelThresholds]


def _one_for_all(
    columns: Columns, fitted_C: Bools, common: float, score: Score, least: float
) -> LabelThresholds:
    """Return the common threshold for every label."""
    return LabelThresholds(np.full(len(fitted_C), common), common)


def _each_alone(
    columns: Columns, fitted_C: Bools, common: float, score: Score, least: float
) -> LabelThresholds:
    """Return the best threshold of each label by itself."""
    thresholds_C, short = np.full(len(fitted_C), common), []
    for c, column in enumerate(columns):
        if not fitted_C[c]:
            continue
        cuts = cuts_of([column])
        k = cuts.best(score(cuts.hits_K, cuts.given_K, np.array(float(cuts.support))))
        if cuts.support == 0 or cuts.precision(k) < least - 1e-9:
            short.append(c)
        else:
            thresholds_C[c] = cuts.thresholds_K[k]
    return LabelThresholds(thresholds_C, common, tuple(short))


def _together(
    columns: Columns, fitted_C: Bools, common: float, score: Score, least: float
) -> LabelThresholds:
    """Return the thresholds with the highest micro F1, by Dinkelbach's iteration.

    For a given value F of micro F1, each label's cut with the largest hits - F / 2 * given is best.
    F is computed again from these cuts until it stops growing, which gives the exact maximum.

    Source: Dinkelbach 1967, https://doi.org/10.1287/mnsc.13.7.492.
    """
    cuts_of_label: dict[int, Cuts] = {}
    hits = given = support = 0.0
    for c, (log_p_N, has_N) in enumerate(columns):
        support += has_N.sum()
        if fitted_C[c]:
            cuts_of_label[c] = cuts_of([(log_p_N, has_N)])
        else:
            is_given_N = log_p_N >= np.log(common)
            hits, given = hits + (is_given_N & has_N).sum(), given + is_given_N.sum()
    f1, chosen = -1.0, dict.fromkeys(cuts_of_label, 0)
    while True:
        factor = max(f1, 0.0) / 2
        found = {
            c: cuts.best(cuts.hits_K - factor * cuts.given_K) for c, cuts in cuts_of_label.items()
        }
        all_hits = hits + sum(cuts_of_label[c].hits_K[k] for c, k in found.items())
        all_given = given + sum(cuts_of_label[c].given_K[k] for c, k in found.items())
        value = 2 * all_hits / max(all_given + support, 1.0)
        if value <= f1:
            break
        f1, chosen = value, found
    thresholds_C = np.full(len(fitted_C), common)
    for c, k in chosen.items():
        thresholds_C[c] = cuts_of_label[c].thresholds_K[k]
    return LabelThresholds(thresholds_C, common)


LABEL_OBJECTIVES: dict[str, Objective] = {
    "f1": _each_alone,
    "micro_f1": _together,
    "recall_at_precision": _each_alone,
    "common": _one_for_all,
}
"""Values of `decision.thresholds` that are fitted to multi-label rows."""
