"""Fit one threshold per class on validation rows; table THRESHOLDS.

Legend: N rows, C classes, B rows of a block, K = N + 1 possible cuts of sorted rows.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from trainer.arrays import Bools, Floats, Ints
from trainer.evaluation.blocks import CACHED_BYTES
from trainer.evaluation.scores import LogProbabilities

MOST_ROUNDS = 10
PENALTY = 1e4
"""Recall that a missing precision of 1 costs; larger than any recall, so precision comes first."""

Curve = Callable[..., Floats]


def _f1_score(hits_K: Floats, taken_K: Floats, support: Floats, min_precision: float) -> Floats:
    """Return the F1 of a class that gets the first k rows."""
    return 2 * hits_K / np.maximum(taken_K + support, 1e-12)


def _recall_score(hits_K: Floats, taken_K: Floats, support: Floats, min_precision: float) -> Floats:
    """Return the recall, less a large penalty for a precision below the minimum."""
    lack_K = np.maximum(min_precision - hits_K / np.maximum(taken_K, 1e-12) - 1e-12, 0)
    return hits_K / np.maximum(support, 1e-12) - PENALTY * lack_K


THRESHOLDS: dict[str, Curve] = {"f1": _f1_score, "recall_at_precision": _recall_score}
"""Objectives of thresholds: (true positives, predicted rows, support, minimum precision) of a class
-> score. The scores of classes are summed."""


@dataclass(frozen=True)
class _Objective:
    """The rows and the score that thresholds are fitted to.

    Attributes:
        label_ids_N, weights_N: true class and weight of each row.
        support_C: sum of the weights of each class's rows.
        counted_C: classes whose scores are summed.
        curve: (true positives, predicted rows, support) of a class -> score.
    """

    label_ids_N: Ints
    weights_N: Floats
    support_C: Floats
    counted_C: Bools
    curve: Callable[[Floats, Floats, Floats], Floats]


def fit_thresholds(
    log_p_NC: LogProbabilities,
    label_ids_N: Ints,
    weights_N: Floats,
    fitted_C: Bools,
    *,
    minority: int,
    curve: Curve,
    min_precision: float,
) -> tuple[Floats, list[int]]:
    """Return a positive threshold per class, and the classes that do not reach the precision.

    These classes keep the neutral threshold. With two classes, the threshold is the point of the
    minority's precision-recall curve with the best score. With more, each class in turn gets the
    threshold that is best while the others are fixed, until no threshold changes (coordinate
    ascent; the sum of scores never falls).
    """
    num_classes = log_p_NC.shape[1]
    if num_classes == 2 and not fitted_C.all():
        return np.full(2, 0.5), []
    order = [minority] if num_classes == 2 else np.flatnonzero(fitted_C).tolist()
    failed: list[int] = []
    support_C = np.bincount(label_ids_N, weights_N, num_classes).astype(np.float64)
    counted_C = np.ones(num_classes, bool)
    objective = _Objective(
        label_ids_N, weights_N, support_C, counted_C, partial(curve, min_precision=min_precision)
    )
    while True:
        if curve is _recall_score:
            objective = replace(objective, counted_C=np.isin(np.arange(num_classes), order))
        leaders = _ascend(log_p_NC, objective, order)
        thresholds_C, taken_N = leaders.thresholds_C, leaders.class_ids_2N[0]
        short = [
            c
            for c in order
            if curve is _recall_score
            and _precision(taken_N == c, label_ids_N == c, weights_N) < min_precision - 1e-9
        ]
        if not short:
            break
        failed, order = failed + short, [c for c in order if c not in short]
    if num_classes == 2:  # p >= t of the minority is argmax of p / t and (1 - p) / (1 - t)
        odds = thresholds_C[minority] / thresholds_C[1 - minority]
        thresholds_C[minority], thresholds_C[1 - minority] = odds / (1 + odds), 1 / (1 + odds)
    return thresholds_C, sorted(failed)


def _precision(is_taken_N: Bools, is_own_N: Bools, weights_N: Floats) -> float:
    return float(weights_N[is_taken_N & is_own_N].sum() / max(weights_N[is_taken_N].sum(), 1e-12))


class Leaders:
    """The two classes with the largest p_c / t_c of each row, updated as thresholds change.

    They give the best of all classes but one, so no matrix of quotients is stored.

    Attributes:
        class_ids_2N: the first and the second class; of equal quotients the lower id comes first,
            as in argmax.
        quotients_2N: their p_c / t_c.
    """

    def __init__(self, log_p_NC: LogProbabilities) -> None:
        num_rows, num_classes = log_p_NC.shape
        self.log_p_NC, self.thresholds_C = log_p_NC, np.full(num_classes, 1 / num_classes)
        self.class_ids_2N = np.empty((2, num_rows), np.int64)
        self.quotients_2N = np.empty((2, num_rows))
        for rows, log_p_BC in log_p_NC.blocks():
            self._lead(rows, np.exp(log_p_BC))

    def rivals(self, c: int) -> tuple[Ints, Floats]:
        """Return the best other class of each row, and its quotient."""
        leads_N = self.class_ids_2N[0] == c
        (first_id_N, second_id_N), (first_N, second_N) = self.class_ids_2N, self.quotients_2N
        return np.where(leads_N, second_id_N, first_id_N), np.where(leads_N, second_N, first_N)

    def move(self, c: int, threshold: float, p_N: Floats) -> None:
        """Change the threshold of class c."""
        self.thresholds_C[c] = threshold
        quotient_N = p_N / threshold
        (best_N, second_N), (best_id_N, second_id_N) = self.quotients_2N, self.class_ids_2N
        is_first = (quotient_N > best_N) | ((quotient_N == best_N) & (c < best_id_N))
        is_second = ~is_first & (
            (quotient_N > second_N) | ((quotient_N == second_N) & (c < second_id_N))
        )
        led_N = (self.class_ids_2N == c).any(axis=0)
        first, second = np.flatnonzero(is_first & ~led_N), np.flatnonzero(is_second & ~led_N)
        second_N[first], second_id_N[first] = best_N[first], best_id_N[first]
        best_N[first], best_id_N[first] = quotient_N[first], c
        second_N[second], second_id_N[second] = quotient_N[second], c
        led = np.flatnonzero(led_N)  # here a third class may be among the first two now
        for rows, log_p_BC in self.log_p_NC.take(led).blocks(CACHED_BYTES):
            self._lead(led[rows], np.exp(log_p_BC))

    def _lead(self, rows: slice | Ints, p_BC: Floats) -> None:
        quotients_BC, places = p_BC / self.thresholds_C, np.arange(len(p_BC))
        for place in (0, 1):
            first_B = quotients_BC.argmax(axis=1)
            self.class_ids_2N[place, rows] = first_B
            self.quotients_2N[place, rows] = quotients_BC[places, first_B]
            quotients_BC[places, first_B] = -1


def _ascend(log_p_NC: LogProbabilities, objective: _Objective, order: list[int]) -> Leaders:
    """Fit the thresholds of the classes in `order`, the others fixed, until none changes."""
    leaders = Leaders(log_p_NC)
    for _ in range(1 if log_p_NC.shape[1] == 2 else MOST_ROUNDS):
        before_C = leaders.thresholds_C.copy()
        for c, log_p_N in log_p_NC.columns(sorted(order)):
            p_N = np.exp(log_p_N)
            found = _best_threshold(p_N, leaders, objective, c)
            if found != leaders.thresholds_C[c]:
                leaders.move(c, found, p_N)
        if np.allclose(before_C, leaders.thresholds_C, rtol=1e-12):
            break
    return leaders


def _best_threshold(p_N: Floats, leaders: Leaders, objective: _Objective, c: int) -> float:
    """Return the best threshold of class c while the others are fixed.

    A row is predicted as c if p_c / t_c exceeds the best p_j / t_j of the other classes. Rows are
    sorted by p_c over that quotient. The score of each cut is that of c and, with more than two
    classes, the sum over all classes that count.
    """
    rival_N, best_N = leaders.rivals(c)
    thresholds_C, quotient_N = leaders.thresholds_C, p_N / best_N
    order = _descending(quotient_N)
    quotients = quotient_N[order]
    labels, weights = objective.label_ids_N[order], objective.weights_N[order]
    hits_K = np.r_[0.0, np.cumsum(weights * (labels == c))]
    taken_K = np.r_[0.0, np.cumsum(weights)]
    score_K = objective.curve(hits_K, taken_K, objective.support_C[c])
    if len(thresholds_C) > 2:
        change_N = _rivals_change(rival_N[order], labels, weights, objective)
        score_K = score_K + np.r_[0.0, np.cumsum(change_N)]
    is_cut_K = np.r_[True, quotients[1:] < quotients[:-1], True]  # none between equal quotients
    neutral = int((quotients > thresholds_C[c]).sum())
    best = np.flatnonzero(is_cut_K & (score_K >= score_K[is_cut_K].max() - 1e-12))
    k = int(best[np.argmin(np.abs(best - neutral))])  # of equal scores, the least change
    if k == neutral:
        return float(thresholds_C[c])
    upper = quotients[k - 1] if k > 0 else quotients[0] * 2
    lower = quotients[k] if k < len(quotients) else quotients[-1] / 2
    return float(np.sqrt(max(upper, 1e-300) * max(lower, 1e-300)))


def _descending(values_N: Floats) -> Ints:
    """Return the stable order of descending values; faster than a stable sort."""
    order = np.argsort(-values_N)
    is_equal = values_N[order[1:]] == values_N[order[:-1]]
    tied = np.flatnonzero(np.r_[is_equal, False] | np.r_[False, is_equal])
    run = np.cumsum(~np.r_[False, is_equal])[tied]
    order[tied] = order[tied][np.lexsort((order[tied], run))]
    return order


def _rivals_change(rivals: Ints, labels: Ints, weights: Floats, objective: _Objective) -> Floats:
    """Return how the rival's score changes as it loses each row, in the order of the rows."""
    is_small = len(objective.support_C) <= np.iinfo(np.uint16).max  # sorted by radix, faster
    grouped = np.argsort(rivals.astype(np.uint16) if is_small else rivals, kind="stable")
    ids, w = rivals[grouped], weights[grouped]
    is_last = np.r_[ids[1:] != ids[:-1], True]
    hits = _to_the_end(np.where(labels[grouped] == ids, w, 0.0), is_last)
    before = objective.curve(hits, _to_the_end(w, is_last), objective.support_C[ids])
    after = np.r_[before[1:], 0.0]
    after[is_last] = objective.curve(np.zeros(1), np.zeros(1), objective.support_C[ids[is_last]])
    change = np.empty(len(rivals))
    change[grouped] = np.where(objective.counted_C[ids], after - before, 0.0)
    return change


def _to_the_end(values: Floats, is_last: Bools) -> Floats:
    """Return the sum of the values from each place to the end of its group.

    Long doubles keep the sums of small groups exact beside the sum of all rows.
    """
    sums = np.cumsum(values, dtype=np.longdouble)
    ends = np.repeat(sums[is_last], np.diff(np.flatnonzero(is_last), prepend=-1))
    return (ends - sums + values).astype(np.float64)
