"""Probabilities of validation rows to one threshold per class; table THRESHOLDS. Legend: N rows, C classes, K = N + 1 places to cut."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
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


def fit_thresholds(
    p_NC: Floats, label_ids_N: Ints, weights_N: Floats, fitted_C: NDArray[np.bool_], minority: int, curve: Curve, least: float
) -> tuple[Floats, list[int]]:
    """One positive threshold per class, and the classes that keep the neutral one because they do not reach the precision.

    Two classes: the point of the minority's precision-recall curve with the best score. More: one class after the other,
    the threshold that is best while the others stand, until none moves (coordinate ascent; the sum of scores never falls).
    """
    num_classes = p_NC.shape[1]
    if num_classes == 2 and not fitted_C.all():
        return np.full(2, 0.5), []
    order = [minority] if num_classes == 2 else np.flatnonzero(fitted_C).tolist()
    failed: list[int] = []
    while True:
        counted_C = np.isin(np.arange(num_classes), order) if curve is _recall_score else np.ones(num_classes, bool)
        thresholds_C = _ascend(p_NC, label_ids_N, weights_N, order, counted_C, curve, least)
        taken_N = (p_NC / thresholds_C).argmax(axis=1)
        short = [c for c in order if curve is _recall_score and _precision(taken_N == c, label_ids_N == c, weights_N) < least - 1e-9]
        if not short:
            break
        failed, order = failed + short, [c for c in order if c not in short]
    if num_classes == 2:  # p >= t of the minority is argmax of p / t and (1 - p) / (1 - t)
        odds = thresholds_C[minority] / thresholds_C[1 - minority]
        thresholds_C[minority], thresholds_C[1 - minority] = odds / (1 + odds), 1 / (1 + odds)
    return thresholds_C, sorted(failed)


def _precision(is_taken_N: NDArray[np.bool_], is_own_N: NDArray[np.bool_], weights_N: Floats) -> float:
    return float(weights_N[is_taken_N & is_own_N].sum() / max(weights_N[is_taken_N].sum(), 1e-12))


def _ascend(p_NC: Floats, label_ids_N: Ints, weights_N: Floats, order: list[int], counted_C: NDArray[np.bool_], curve: Curve, least: float) -> Floats:
    """Thresholds of the classes in `order`, each the best while the others stand, until none moves; the others stay neutral."""
    thresholds_C = np.full(p_NC.shape[1], 1 / p_NC.shape[1])
    for _ in range(1 if p_NC.shape[1] == 2 else MOST_ROUNDS):
        before_C = thresholds_C.copy()
        for c in order:
            thresholds_C[c] = _best_threshold(p_NC, label_ids_N, weights_N, thresholds_C, c, counted_C, curve, least)
        if np.allclose(before_C, thresholds_C, rtol=1e-12):
            break
    return thresholds_C


def _best_threshold(
    p_NC: Floats, label_ids_N: Ints, weights_N: Floats, thresholds_C: Floats, c: int, counted_C: NDArray[np.bool_], curve: Curve, least: float
) -> float:
    """Threshold of class c of the best score while the other thresholds stand.

    A row goes to c when p_c exceeds t_c times the best p_j / t_j of the others. Rows are taken in the order of that
    quotient; the score after each is the one of c and, with more than two classes, of all classes that count.
    """
    others_NC = p_NC / thresholds_C
    others_NC[:, c] = -1
    rival_N = others_NC.argmax(axis=1)
    quotient_N = p_NC[:, c] / others_NC[np.arange(len(p_NC)), rival_N]
    order = np.argsort(-quotient_N, kind="stable")
    quotients, rivals, labels, weights = quotient_N[order], rival_N[order], label_ids_N[order], weights_N[order]
    support: Floats = np.bincount(label_ids_N, weights=weights_N, minlength=p_NC.shape[1]).astype(np.float64)
    hits_K = np.r_[0.0, np.cumsum(weights * (labels == c))]
    taken_K = np.r_[0.0, np.cumsum(weights)]
    score_K = curve(hits_K, taken_K, support[c], least)
    if p_NC.shape[1] > 2:
        score_K = score_K + np.r_[0.0, np.cumsum(_rivals_change(rivals, labels, weights, support, counted_C, curve, least))]
    possible = np.r_[True, quotients[1:] < quotients[:-1], True]  # a threshold lies between unequal quotients
    neutral = int((quotients > thresholds_C[c]).sum())
    best = np.flatnonzero(possible & (score_K >= score_K[possible].max() - 1e-12))
    k = int(best[np.argmin(np.abs(best - neutral))])  # of equals the one nearest to where it stands
    if k == neutral:
        return float(thresholds_C[c])
    upper = quotients[k - 1] if k > 0 else quotients[0] * 2
    lower = quotients[k] if k < len(quotients) else quotients[-1] / 2
    return float(np.sqrt(max(upper, 1e-300) * max(lower, 1e-300)))


def _rivals_change(rivals: Ints, labels: Ints, weights: Floats, support_C: Floats, counted_C: NDArray[np.bool_], curve: Curve, least: float) -> Floats:
    """Change of the rival's score as each row is taken from it, in the order of taking; 0 for rivals that do not count."""
    grouped = np.argsort(rivals, kind="stable")
    change = np.zeros(len(rivals))
    for rows in np.split(grouped, np.flatnonzero(np.diff(rivals[grouped])) + 1):
        rival = rivals[rows[0]]
        if counted_C[rival]:
            w, hit = weights[rows], weights[rows] * (labels[rows] == rival)
            hits = hit.sum() - np.r_[0.0, np.cumsum(hit)]
            left = w.sum() - np.r_[0.0, np.cumsum(w)]
            change[rows] = np.diff(curve(hits, left, support_C[rival], least))
    return change
