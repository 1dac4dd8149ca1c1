"""What a training predicts for the compared rows: alone, and with fitted thresholds.

Thresholds cost no training: they change the labels, and not the probabilities. So the label ids of
`<strategy> + thresholds` are one more file beside the predictions of the strategy.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from trainer.arrays import Array
from trainer.comparison.strategies import with_thresholds
from trainer.config.config import Config
from trainer.config.sections.compare import Metric
from trainer.data.prepared_data import PreparedData
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.evaluation.decisions.decision import DecisionPlan
from trainer.evaluation.decisions.multi_label_decision import DECISIONS, AnyDecision, MultiLabelPlan
from trainer.evaluation.frequency_groups import frequency_groups
from trainer.evaluation.outcome import Outcome, outcome_of
from trainer.evaluation.scores import LogProbabilities
from trainer.files import durable
from trainer.run_folder import writer
from trainer.runs import results, run_decision

DECIDED, THRESHOLDS = "decided", "with_thresholds"
"""The values of the configured decision, and of the fitted thresholds, in metrics.json."""
METRIC_NAMES: tuple[str, ...] = get_args(Metric)

SELECTION = "selection"
"""The metrics on the selection rows in metrics.json, decided as configured and with thresholds."""

AnyPlan = DecisionPlan | MultiLabelPlan


@dataclass(frozen=True)
class _Scores:
    """The scores of the rows that are compared, and of the rows that a decision is fitted on.

    Attributes:
        compared: logits and labels of the compared rows.
        chosen_on: logits and labels of the selection rows; None if the compared rows are these.
    """

    config: Config
    data: PreparedData
    folder: Path
    compared: tuple[Array, Array]
    chosen_on: tuple[Array, Array] | None

    def outcomes(self, plan: AnyPlan | None) -> tuple[AnyDecision | None, Outcome, Outcome | None]:
        """Return a decision, and the results on the compared rows and on the selection rows.

        A row that the decision is fitted on is judged by a decision that was fitted without it.
        """
        data, found, applied, cross_fitted = self.data, None, None, None
        fitted_on = self.chosen_on or self.compared
        if plan:
            seed = self.config.run.seed
            found, cross_fitted = run_decision.fit_on_validation(
                *fitted_on, plan, data, seed, self.folder
            )
            applied = found.apply(self.compared[0]) if self.chosen_on else cross_fitted
        groups = frequency_groups(data.summary.natural_C, self.config.report.groups)
        judged = outcome_of(*self.compared, data.labels, applied, None, groups)
        if not self.chosen_on:
            return found, judged, None
        return found, judged, outcome_of(*fitted_on, data.labels, cross_fitted, None)


def evaluate(
    config: Config,
    data: PreparedData,
    folder: writer.RunFolder,
    trainer: Any,
    chosen_on: TokenisedRows,
    compared: tuple[Array, TokenisedRows],
) -> dict[str, Any]:
    """Write the predictions, apply the decision to the model, and return the metrics.

    Decisions are fitted on the rows that the training chose on. If these are not the compared rows,
    the metrics on them are there too: they choose the settings of `compare.tune`.

    Args:
        compared: ids and tokens of the compared rows.
    """
    ids_N, rows = compared
    logits_NC = trainer.predict_logits(rows)
    fitted_on = None
    if rows is not chosen_on:
        fitted_on = trainer.predict_logits(chosen_on), chosen_on.label_ids_N
    scores = _Scores(config, data, folder.path, (logits_NC, rows.label_ids_N), fitted_on)
    plan = run_decision.decision_plan(config, data)
    decision, found, selected = scores.outcomes(plan)
    of_selection = {DECIDED: selected}
    folder.write_predictions({"validation": (ids_N, found)}, data.labels, keep_all=True)
    minority = data.summary.minority_label
    metrics: dict[str, Any] = {
        "validation": results.figures(found.alone, {}, found.alone_groups),
        "minority_label": minority,
    }
    if decided_config := with_thresholds(config):
        plan_too = run_decision.decision_plan(decided_config, data)
        thresholds, found_too, of_selection[THRESHOLDS] = scores.outcomes(plan_too)
        assert thresholds is not None
        save_labels(folder.path, "predictions.parquet", found_too.predicted_N)
        figures = results.figures(found_too.final, {}, found_too.groups)
        metrics[THRESHOLDS] = thresholds.figures(data.labels) | {"validation": figures}
    if decision and plan:
        applied = run_decision.apply_decision(config, data, trainer.model, decision, plan)
        metrics["decision"] = applied | {
            "validation": results.figures(found.final, {}, found.groups)
        }
    metrics[SELECTION] = {
        name: {metric: metric_of(each.final.to_dict(), metric, minority) for metric in METRIC_NAMES}
        for name, each in of_selection.items()
        if each
    }
    return metrics


def metric_of(figures: dict[str, Any], metric: str, minority_label: str) -> float | None:
    """Return a metric of the figures of some rows; None if they do not have it."""
    if metric.startswith("minority_"):
        found = figures["per_class"][minority_label][metric.removeprefix("minority_")]
    else:
        found = figures.get(metric)
    return None if found is None else float(found)


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
