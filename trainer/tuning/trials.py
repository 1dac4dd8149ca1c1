"""Train one trial: a run on the search rows, which reports its evaluations to Optuna."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from transformers import TrainerCallback

from trainer.comparison.trainings import (
    Training,
    balanced_data,
    figure_of,
    opened_folder,
    trainer_builder,
)
from trainer.config.config import Config
from trainer.data.prepared_data import PreparedData
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.evaluation.decisions.multi_label_decision import AnyDecision
from trainer.evaluation.outcome import outcome_of
from trainer.runs import results, run_decision, training_run
from trainer.tuning.rows import SearchData

HELD_OUT = "held_out.parquet"
"""The predictions for the held-out rows, in the folders of the few trials that make them."""


class Reports(TrainerCallback):
    """Reports the macro F1 of each evaluation to Optuna, and stops a trial that is pruned.

    Args:
        prunes: whether the trial may be pruned.
    """

    def __init__(self, trial: optuna.Trial, *, prunes: bool) -> None:
        self.trial, self.prunes = trial, prunes
        known = trial.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        self.reported = set(known)  # of a trial that is resumed

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the evaluation; raise TrialPruned if the trial is not worth its time."""
        tenths = round(10 * state.epoch)
        if tenths not in self.reported:
            self.trial.report(kwargs["metrics"]["eval_macro_f1"], tenths)
            self.reported.add(tenths)
        is_last = state.global_step >= state.max_steps
        if self.prunes and not is_last and self.trial.should_prune():
            raise optuna.TrialPruned


def train(trial: optuna.Trial, training: Training, data: SearchData) -> float:
    """Train or resume a trial; return its metric on the search rows.

    The output goes to training.log in its folder.

    Raises:
        TrainerError: these settings cannot be trained; Stopped on a signal, after a checkpoint.
        optuna.TrialPruned: the trial was stopped early.
    """
    metric = data.whole.config.tune.metric
    if training.is_finished:  # the worker died just after it
        return figure_of(training.metrics, metric)
    config, (shared, held_out) = training.config, data.of(training.config)
    rows = balanced_data(training, shared)
    with opened_folder(training, rows, shared) as (folder, checkpoint):
        build = trainer_builder(training, shared, rows, folder)
        reporting = _reporting(build, trial, data.whole.config)
        trainer, clock = training_run.run_trainer(reporting, folder, checkpoint)
        metrics, decision = _evaluate(config, trainer, rows, shared.first.tokens["validation"])
        if trial.number == 0 or figure_of(metrics, metric) >= _best_value(trial.study):
            logits_NC = trainer.predict_logits(held_out)
            decided = decision.apply(logits_NC) if decision else None
            found = outcome_of(logits_NC, held_out.label_ids_N, rows.labels, decided, None)
            parts = {"held_out": (data.held_out_rows, found)}
            folder.write_predictions(parts, rows.labels, HELD_OUT, keep_all=True)
        folder.finish(metrics | {"training": clock})
        trainer.trackers.finish(folder.path)
    return figure_of(metrics, metric)


def _reporting(build: Callable[[], Any], trial: optuna.Trial, config: Config) -> Callable[[], Any]:
    """Return a function that builds a trainer which reports to Optuna; heads are never pruned."""

    def reporting() -> Any:
        trainer = build()
        if config.model.mode != "head":
            prunes = config.tune.prune and trial.number > 0
            trainer.add_callback(Reports(trial, prunes=prunes))
        return trainer

    return reporting


def _evaluate(
    config: Config, trainer: Any, rows: PreparedData, tokens: TokenisedRows
) -> tuple[dict[str, Any], AnyDecision | None]:
    """Return the metrics on the search rows, and the decision fitted on them."""
    plan = run_decision.decision_plan(config, rows)
    outcomes, decision = results.evaluate_splits(
        trainer, config, rows, {"validation": tokens}, plan
    )
    outcome = outcomes["validation"]
    metrics: dict[str, Any] = {
        "validation": results.figures(outcome.alone, {}, {}),
        "minority_label": rows.summary.minority_label,
    }
    if decision:
        metrics["decision"] = {"validation": results.figures(outcome.final, {}, {})}
    return metrics, decision


def _best_value(study: optuna.Study) -> float:
    """Return the best value so far.

    The best trial of all is at least as good as all before it, so it predicts the held-out rows.
    """
    complete = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    return max((each.value for each in complete if each.value is not None), default=-1.0)


def drop_checkpoints(path: Path) -> None:
    """Remove what only resuming needs, of a trial that was pruned or has failed."""
    shutil.rmtree(path / "checkpoints", ignore_errors=True)
