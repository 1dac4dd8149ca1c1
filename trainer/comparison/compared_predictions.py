"""What a training predicts for the compared rows: alone, and with fitted thresholds.

Thresholds cost no training: they change the labels, and not the probabilities. So the label ids of
`<strategy> + thresholds` are one more file beside the predictions of the strategy.
"""

from pathlib import Path
from typing import Any

import numpy as np

from trainer.arrays import Array
from trainer.comparison.strategies import with_thresholds
from trainer.config.config import Config
from trainer.data.prepared_data import PreparedData
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.evaluation.decision import DecisionPlan
from trainer.evaluation.frequency_groups import frequency_groups
from trainer.evaluation.multi_label_decision import DECISIONS, AnyDecision, MultiLabelPlan
from trainer.evaluation.outcome import Outcome, outcome_of
from trainer.evaluation.scores import LogProbabilities
from trainer.files import durable
from trainer.run_folder import writer
from trainer.runs import results, run_decision

THRESHOLDS = "with_thresholds"
"""The values of the thresholds in metrics.json."""

AnyPlan = DecisionPlan | MultiLabelPlan


def evaluate(
    config: Config,
    data: PreparedData,
    folder: writer.RunFolder,
    trainer: Any,
    chosen_on: TokenisedRows,
    compared: tuple[Array, TokenisedRows],
) -> dict[str, Any]:
    """Write the predictions, apply the decision to the model, and return the metrics.

    Decisions are fitted on the rows that the training chose on. If these are the compared rows,
    each row is judged by a decision that was fitted without it.

    Args:
        compared: ids and tokens of the compared rows.
    """
    ids_N, rows = compared
    logits_NC, targets = trainer.predict_logits(rows), rows.label_ids_N
    fitted_on = None
    if rows is not chosen_on:
        fitted_on = trainer.predict_logits(chosen_on), chosen_on.label_ids_N

    def decided(plan: AnyPlan) -> tuple[AnyDecision, tuple[LogProbabilities, Array]]:
        scores_NC, of = fitted_on or (logits_NC, targets)
        found, cross_fitted = run_decision.fit_on_validation(
            scores_NC, of, plan, data, config.run.seed, folder.path
        )
        return found, (found.apply(logits_NC) if fitted_on else cross_fitted)

    groups = frequency_groups(data.summary.natural_C, config.report.groups)

    def outcome(of: tuple[LogProbabilities, Array] | None) -> Outcome:
        return outcome_of(logits_NC, targets, data.labels, of, None, groups)

    plan = run_decision.decision_plan(config, data)
    decision, predictions = decided(plan) if plan else (None, None)
    found = outcome(predictions)
    folder.write_predictions({"validation": (ids_N, found)}, data.labels, keep_all=True)
    metrics: dict[str, Any] = {
        "validation": results.figures(found.alone, {}, found.alone_groups),
        "minority_label": data.summary.minority_label,
    }
    if decided_config := with_thresholds(config):
        thresholds_plan = run_decision.decision_plan(decided_config, data)
        assert thresholds_plan is not None
        thresholds, predictions = decided(thresholds_plan)
        found_too = outcome(predictions)
        save_labels(folder.path, "predictions.parquet", found_too.predicted_N)
        figures = results.figures(found_too.final, {}, found_too.groups)
        metrics[THRESHOLDS] = thresholds.figures(data.labels) | {"validation": figures}
    if decision and plan:
        applied = run_decision.apply_decision(config, data, trainer.model, decision, plan)
        metrics["decision"] = applied | {
            "validation": results.figures(found.final, {}, found.groups)
        }
    return metrics


def thresholded_labels(
    metrics: dict[str, Any], labels: list[str], log_p_NC: LogProbabilities
) -> Array | None:
    """Return the labels of the test rows with the fitted thresholds, if there are any.

    Args:
        metrics: metrics.json of the training.
        log_p_NC: log probabilities, corrected as the decision of the strategy does.
    """
    if THRESHOLDS not in metrics:
        return None
    values = metrics[THRESHOLDS] | {"temperature": 1.0, "shift": [0.0] * len(labels)}
    decision = DECISIONS[log_p_NC.multi_label].from_config(values, labels)
    return np.concatenate([decision.decide(log_p_BC) for _, log_p_BC in log_p_NC.blocks()])


def save_labels(folder: Path, name: str, predicted_N: Array) -> None:
    """Write the labels with thresholds of the rows of a file of predictions, in its order."""
    with durable.aside(labels_path(folder, name)) as partial, partial.open("wb") as file:
        np.save(file, predicted_N)


def labels_path(folder: Path, name: str) -> Path:
    """Return the path of the labels with thresholds that belong to a file of predictions."""
    return (folder / name).with_suffix(".thresholds.npy")
