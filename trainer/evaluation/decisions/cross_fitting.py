"""Fit a decision on all validation rows, and evaluate each row with one fitted without it.

Legend: N rows, C classes. In multi-label data, label sets (N, C) take the place of label ids.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from trainer.arrays import Array, Floats, Ints
from trainer.data.labels.multi_label import label_set_ids
from trainer.evaluation.blocks import MOST_IN_MEMORY, ByColumn, Rows, Taken, release, room
from trainer.evaluation.decisions.decision import LEAST_ROWS, Decision, DecisionPlan, fit_decision
from trainer.evaluation.decisions.multi_label_decision import (
    AnyDecision,
    MultiLabelDecision,
    MultiLabelPlan,
    fit_label_decision,
)
from trainer.evaluation.decisions.thresholds import THRESHOLDS
from trainer.evaluation.scores import LogProbabilities

NUM_FOLDS = 5


def fit_and_cross_fit(
    logits_NC: Array,
    label_ids_N: Ints,
    weights_N: Floats,
    plan: DecisionPlan,
    *,
    seed: int,
    folder: Path | None = None,
) -> tuple[Decision, tuple[LogProbabilities, Ints]]:
    """Return the decision of all validation rows, and the result of `cross_fit`.

    Every fold fits thresholds of the same classes.

    Args:
        folder: where a temporary copy of large logits is stored, see `blocks.room`.
    """
    fitted_C = np.bincount(label_ids_N, minlength=len(plan.labels)) >= LEAST_ROWS
    read_NC: Rows = logits_NC
    if plan.thresholds in THRESHOLDS and logits_NC.nbytes > MOST_IN_MEMORY:
        read_NC = ByColumn(logits_NC, np.flatnonzero(fitted_C).tolist(), folder)

    def fit(rows: Ints) -> Decision:
        return fit_decision(
            Taken(read_NC, rows),
            label_ids_N[rows],
            plan,
            weights_N=weights_N[rows],
            fitted_C=fitted_C,
        )

    return fit(np.arange(len(label_ids_N))), cross_fit(logits_NC, label_ids_N, fit, seed=seed)


def fit_and_cross_fit_labels(
    logits_NC: Array,
    targets_NC: Array,
    plan: MultiLabelPlan,
    *,
    seed: int,
    folder: Path | None = None,
) -> tuple[MultiLabelDecision, tuple[LogProbabilities, Array]]:
    """Return the decision of all multi-label validation rows, and the result of `cross_fit`.

    Every fold fits thresholds of the same labels.

    Args:
        folder: where a large array is stored, see `blocks.room`.
    """
    fitted_C = targets_NC.sum(axis=0) >= LEAST_ROWS

    def fit(rows: Ints) -> MultiLabelDecision:
        return fit_label_decision(Taken(logits_NC, rows), targets_NC[rows], plan, fitted_C)

    decision = fit(np.arange(len(targets_NC)))
    return decision, cross_fit(logits_NC, targets_NC, fit, seed=seed, folder=folder)


def cross_fit(
    logits_NC: Rows,
    targets: Array,
    fit: Callable[[Ints], AnyDecision],
    *,
    seed: int,
    folder: Path | None = None,
) -> tuple[LogProbabilities, Array]:
    """Return log probabilities and predictions, each from a decision fitted without the row.

    Args:
        targets: label ids (N,), or label sets (N, C), by which the folds are stratified.
        fit: returns the decision of the validation rows at some positions.
        folder: see `blocks.room`.
    """
    is_multi_label = targets.ndim > 1
    strata_N = label_set_ids(targets > 0) if is_multi_label else targets
    order = np.lexsort((np.random.default_rng(seed).permutation(len(strata_N)), strata_N))
    folds_N = np.empty(len(strata_N), np.int64)
    folds_N[order] = np.arange(len(strata_N)) % NUM_FOLDS  # stratified for any class size
    decisions = [fit(np.flatnonzero(folds_N != fold)) for fold in np.unique(folds_N)]
    log_p_NC = LogProbabilities(
        logits_NC, tuple(each.correction for each in decisions), folds_N, is_multi_label
    )
    predicted = room(targets.shape, np.bool_ if is_multi_label else np.int64, folder)
    for rows, log_p_BC in log_p_NC.blocks():
        for fold, decision in enumerate(decisions):
            of_fold = np.flatnonzero(folds_N[rows] == fold)
            predicted[rows][of_fold] = decision.decide(log_p_BC[of_fold])
        release(predicted)
    return log_p_NC, predicted
