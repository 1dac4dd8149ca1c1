"""Probabilities of validation rows to one threshold per class; table THRESHOLDS. Legend: N rows, C classes, K = N + 1 places to cut."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from trainer.arrays import Bools, Floats, Ints
from trainer.evaluation.blocks import CACHED_BYTES
from trainer.evaluation.scores import LogProbabilities

MOST_ROUNDS = 10
FINE = 1e4
"""Recall that a class would give for its whole precision: precision comes first."""

Curve = Callable[[Floats, Floats, Floats, float], Floats]


def _f1_score(hits_K: Floats, taken_K: Floats, support: Floats, least: float) -> Floats:
    """F1 of a class when it takes the first k rows."""
    return 2 * hits_K / np.maximum(taken_K + support, 1e-12)


def _recall_score(hits_K: Floats, taken_K: Floats, support: Floats, least: float) -> Floats:
    """Recall, less a fine that outweighs it for precision below `least`; the precision of no row is 0."""
    precision_K = hits_K / np.maximum(taken_K, 1e-12)
    return hits_K / np.maximum(support, 1e-12) - FINE * np.maximum(least - precision_K - 1e-12, 0)


THRESHOLDS: dict[str, Curve] = {"f1": _f1_score, "recall_at_precision": _recall_score}
"""What thresholds are fitted for: (hits, rows taken, support, least precision) of a class -> its score; the scores are added."""


@dataclass(frozen=True)
class _Rows:
    """What thresholds are fitted to.

    Attributes:
        label_ids_N, weights_N: true class and weight of each row.
        support_C: summed weights of the rows of each class.
        counted_C: classes whose scores are added.
        curve, least: the score, and the least precision that it asks for.
    """

    label_ids_N: Ints
    weights_N: Floats
    support_C: Floats
    counted_C: Bools
    curve: Curve
    least: float


def fit_thresholds(
    log_p_NC: LogProbabilities,
    label_ids_N: Ints,
    weights_N: Floats,
    fitted_C: Bools,
    minority: int,
    curve: Curve,
    least: float,
) -> tuple[Floats, list[int]]:
    """One positive threshold per class, and the classes that keep the neutral one because they do not reach the precision.

    Two classes: the point of the minority's precision-recall curve with the best score. More: one class after the other,
    the threshold that is best while the others stand, until none moves (coordinate ascent; the sum of scores never falls).
    """
    num_classes = log_p_NC.shape[1]
    if num_classes == 2 and not fitted_C.all():
        return np.full(2, 0.5), []
    order = [minority] if num_classes == 2 else np.flatnonzero(fitted_C).tolist()
    failed: list[int] = []
    support_C: Floats = np.bincount(label_ids_N, weights=weights_N, minlength=num_classes).astype(
        np.float64
    )
    judged = _Rows(label_ids_N, weights_N, support_C, np.ones(num_classes, bool), curve, least)
    while True:
        if curve is _recall_score:
            judged = replace(judged, counted_C=np.isin(np.arange(num_classes), order))
        leaders = _ascend(log_p_NC, judged, order)
        thresholds_C, taken_N = leaders.thresholds_C, leaders.class_ids_2N[0]
        short = [
            c
            for c in order
            if curve is _recall_score
            and _precision(taken_N == c, label_ids_N == c, weights_N) < least - 1e-9
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
    """The two classes of the largest p_c / t_c of each row, while thresholds move one at a time.

    Whoever is asked for the best of all classes but one needs no more than these, so no matrix of quotients is held.

    Attributes:
        class_ids_2N: the first and the second; of equal quotients the lower class id is first, as argmax has it.
        quotients_2N: their p_c / t_c.
    """

    def __init__(self, log_p_NC: LogProbabilities) -> None:
        num_rows, num_classes = log_p_NC.shape
        self.log_p_NC, self.thresholds_C = log_p_NC, np.full(num_classes, 1 / num_classes)
        self.class_ids_2N, self.quotients_2N = (
            np.empty((2, num_rows), np.int64),
            np.empty((2, num_rows)),
        )
        for rows, log_p_BC in log_p_NC.blocks():
            self._lead(rows, np.exp(log_p_BC))

    def rivals(self, c: int) -> tuple[Ints, Floats]:
        """The best of the other classes for each row, and its quotient."""
        leads_N = self.class_ids_2N[0] == c
        (first_id_N, second_id_N), (first_N, second_N) = self.class_ids_2N, self.quotients_2N
        return np.where(leads_N, second_id_N, first_id_N), np.where(leads_N, second_N, first_N)

    def move(self, c: int, threshold: float, p_N: Floats) -> None:
        """Give class c another threshold."""
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
        led = np.flatnonzero(led_N)  # a third class may be better now
        for rows, log_p_BC in self.log_p_NC.take(led).blocks(CACHED_BYTES):
            self._lead(led[rows], np.exp(log_p_BC))

    def _lead(self, rows: slice | Ints, p_BC: Floats) -> None:
        quotients_BC, places = p_BC / self.thresholds_C, np.arange(len(p_BC))
        for place in (0, 1):
            first_B = quotients_BC.argmax(axis=1)
            self.class_ids_2N[place, rows], self.quotients_2N[place, rows] = (
                first_B,
                quotients_BC[places, first_B],
            )
            quotients_BC[places, first_B] = -1


def _ascend(log_p_NC: LogProbabilities, judged: _Rows, order: list[int]) -> Leaders:
    """Thresholds of the classes in `order`, each the best while the others stand, until none moves; the others stay neutral."""
    leaders = Leaders(log_p_NC)
    for _ in range(1 if log_p_NC.shape[1] == 2 else MOST_ROUNDS):
        before_C = leaders.thresholds_C.copy()
        for c, log_p_N in log_p_NC.columns(sorted(order)):
            p_N = np.exp(log_p_N)
            found = _best_threshold(p_N, leaders, judged, c)
            if found != leaders.thresholds_C[c]:
                leaders.move(c, found, p_N)
        if np.allclose(before_C, leaders.thresholds_C, rtol=1e-12):
            break
    return leaders


def _best_threshold(p_N: Floats, leaders: Leaders, judged: _Rows, c: int) -> float:
    """Threshold of class c of the best score while the other thresholds stand.

    A row goes to c when p_c exceeds t_c times the best p_j / t_j of the others. Rows are taken in the order of that
    quotient; the score after each is the one of c and, with more than two classes, of all classes that count.
    """
    rival_N, best_N = leaders.rivals(c)
    thresholds_C, quotient_N = leaders.thresholds_C, p_N / best_N
    order = _descending(quotient_N)
    quotients, labels, weights = (
        quotient_N[order],
        judged.label_ids_N[order],
        judged.weights_N[order],
    )
    hits_K = np.r_[0.0, np.cumsum(weights * (labels == c))]
    taken_K = np.r_[0.0, np.cumsum(weights)]
    score_K = judged.curve(hits_K, taken_K, judged.support_C[c], judged.least)
    if len(thresholds_C) > 2:
        score_K = (
            score_K + np.r_[0.0, np.cumsum(_rivals_change(rival_N[order], labels, weights, judged))]
        )
    possible = np.r_[
        True, quotients[1:] < quotients[:-1], True
    ]  # a threshold lies between unequal quotients
    neutral = int((quotients > thresholds_C[c]).sum())
    best = np.flatnonzero(possible & (score_K >= score_K[possible].max() - 1e-12))
    k = int(best[np.argmin(np.abs(best - neutral))])  # of equals the one nearest to where it stands
    if k == neutral:
        return float(thresholds_C[c])
    upper = quotients[k - 1] if k > 0 else quotients[0] * 2
    lower = quotients[k] if k < len(quotients) else quotients[-1] / 2
    return float(np.sqrt(max(upper, 1e-300) * max(lower, 1e-300)))


def _descending(values_N: Floats) -> Ints:
    """Places of the values, the largest first, equal ones in their order: as a stable sort, which takes longer."""
    order = np.argsort(-values_N)
    is_equal = values_N[order[1:]] == values_N[order[:-1]]
    tied = np.flatnonzero(np.r_[is_equal, False] | np.r_[False, is_equal])
    run = np.cumsum(~np.r_[False, is_equal])[tied]
    order[tied] = order[tied][np.lexsort((order[tied], run))]
    return order


def _rivals_change(rivals: Ints, labels: Ints, weights: Floats, judged: _Rows) -> Floats:
    """Change of the rival's score as each row is taken from it, in the order of taking; 0 for rivals that do not count."""
    is_small = len(judged.support_C) <= np.iinfo(np.uint16).max  # NumPy sorts these by radix
    grouped = np.argsort(rivals.astype(np.uint16) if is_small else rivals, kind="stable")
    ids, w = rivals[grouped], weights[grouped]
    is_last = np.r_[ids[1:] != ids[:-1], True]
    hits, left = (
        _to_the_end(np.where(labels[grouped] == ids, w, 0.0), is_last),
        _to_the_end(w, is_last),
    )
    support = judged.support_C[ids]
    before = judged.curve(hits, left, support, judged.least)
    after = np.r_[before[1:], 0.0]
    after[is_last] = judged.curve(np.zeros(1), np.zeros(1), support[is_last], judged.least)
    change = np.empty(len(rivals))
    change[grouped] = np.where(judged.counted_C[ids], after - before, 0.0)
    return change


def _to_the_end(values: Floats, is_last: Bools) -> Floats:
    """Sum of the values from each place to the end of its group; in long doubles, since groups are small beside all rows."""
    sums = np.cumsum(values, dtype=np.longdouble)
    ends = sums[is_last]
    return (np.repeat(ends, np.diff(np.flatnonzero(is_last), prepend=-1)) - sums + values).astype(
        np.float64
    )
