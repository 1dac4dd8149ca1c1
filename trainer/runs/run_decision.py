"""The decision of a run: its plan before training, its fit on validation, and its use."""

from pathlib import Path
from typing import Any

import numpy as np

from trainer.arrays import Array
from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.data.prepared_data import PreparedData
from trainer.evaluation.decisions.calibration import natural_weights
from trainer.evaluation.decisions.cross_fitting import fit_and_cross_fit, fit_and_cross_fit_labels
from trainer.evaluation.decisions.decision import DecisionPlan, plan_decision
from trainer.evaluation.decisions.multi_label_decision import (
    AnyDecision,
    MultiLabelPlan,
    plan_label_decision,
)
from trainer.evaluation.scores import LogProbabilities


def decision_plan(config: Config, data: PreparedData) -> DecisionPlan | MultiLabelPlan | None:
    """Return the plan of the decision; None without a decision.

    Raises:
        ConfigError: labels that the data do not have; before any model is loaded.
    """
    loss, summary = config.loss, data.summary
    if data.is_multi_label:
        num_rows = summary.num_rows or {}
        return plan_label_decision(
            config.decision,
            labels=data.labels,
            drawn=(summary.counts["drawn"], num_rows["drawn"]),
            natural=(summary.natural_C, num_rows["natural"]),
            weights_2C=data.loss_weights(loss.weighting),
        )
    tau = {"logit_adjusted": 1.0 if loss.tau is None else loss.tau, "balanced_softmax": 1.0}.get(
        loss.name, 0.0
    )
    return plan_decision(
        config.decision,
        labels=data.labels,
        counts_C=summary.counts["drawn"],
        class_weights_C=data.class_weights_C,
        natural_C=summary.natural_C,
        tau=tau,
    )


def fit_on_validation(
    logits_NC: Array,
    label_ids_N: Array,
    plan: DecisionPlan | MultiLabelPlan,
    data: PreparedData,
    seed: int,
    folder: Path,
) -> tuple[AnyDecision, tuple[LogProbabilities, Array]]:
    """Return the decision of the validation rows, and their cross-fitted predictions."""
    if isinstance(plan, MultiLabelPlan):
        return fit_and_cross_fit_labels(logits_NC, label_ids_N, plan, seed=seed, folder=folder)
    weights_N = (
        np.ones(len(label_ids_N))
        if data.splits.pool is None
        else natural_weights(label_ids_N, data.summary.natural_C)
    )
    return fit_and_cross_fit(logits_NC, label_ids_N, weights_N, plan, seed=seed, folder=folder)


def apply_decision(
    config: Config,
    data: PreparedData,
    model: Any,
    decision: AnyDecision,
    plan: DecisionPlan | MultiLabelPlan,
) -> dict[str, Any]:
    """Write the decision into the model and its config; return its values for metrics.json."""
    from trainer.training.models.layers import fold_into_head

    is_folded = fold_into_head(model, decision.temperature, decision.shift_C)
    model.config.decision = decision.to_config(data.labels, is_folded=is_folded)
    figures = decision.figures(data.labels) | {"folded_into_weights": is_folded}
    if plan.target_prior_C is None:
        return figures
    return figures | {
        "training_prior": dict(zip(data.labels, plan.training_prior_C.tolist(), strict=True)),
        "target_prior": dict(zip(data.labels, plan.target_prior_C.tolist(), strict=True)),
        "prior_is_approximate": is_prior_approximate(config, data),
    }


def is_prior_approximate(config: Config, data: PreparedData) -> bool:
    """Return whether balancing changed the rows of a class, and not only their number.

    The rows drawn of one label bring other labels with them.
    """
    draws, is_augmented = config.balance.method != "none", len(data.splits.synthetic) > 0
    if data.is_multi_label:
        return draws or is_augmented
    by_domain = config.balance.by is not None and draws
    return by_domain or config.balance.method in SYNTHESIS_METHODS or is_augmented
