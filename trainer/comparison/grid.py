"""The grid of trainings of a comparison: strategies x settings x seeds x folds."""

import json
import shutil
import warnings
from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainer.arrays import Floats
from trainer.comparison.baseline_training import baseline_training
from trainer.comparison.budget import Budget
from trainer.comparison.choice import best_settings
from trainer.comparison.compared_predictions import labels_path
from trainer.comparison.selection import nothing_chosen
from trainer.comparison.settings import (
    AS_CONFIGURED,
    group_of,
    setting_of,
    settings_of,
    strategy_of,
)
from trainer.comparison.shared_data import SharedData
from trainer.comparison.statistics.comparison_result import Comparison
from trainer.comparison.statistics.differences import SeedPredictions, compare
from trainer.comparison.strategies import compared_names, strategy_config, trained_name
from trainer.comparison.trainings import EVALUATIONS, TEST_PREDICTIONS, Training, predict_test
from trainer.config.sections.compare import BASELINE
from trainer.data.labels.class_order import count_labels
from trainer.evaluation.blocks import Rows, Taken, joined
from trainer.evaluation.frequency_groups import frequency_groups
from trainer.run_folder.prediction_file import read_predictions

FAILED = "failed.json"
"""The file in a group's folder that says why it cannot be trained."""


@dataclass(frozen=True)
class TrainingGrid:
    """The trainings of strategies with all seeds and folds, as configured or as frozen heads.

    Attributes:
        folder: holds `<group>/seed-<n>/` or `<group>/seed-<n>-fold-<k>/`. A group is a strategy
            with one setting of `compare.tune`; without it, a strategy.
        mode: `model.mode` of all trainings.
        keeps_models: whether to keep the models of the baseline and of the best strategy so far,
            until they have predicted the test rows.
        identity: digest of all that the results depend on.
        for_shortlist: whether the trainings only choose which strategies are compared.
    """

    shared: SharedData
    folder: Path
    strategies: tuple[str, ...]
    mode: str
    keeps_models: bool
    identity: str
    for_shortlist: bool = False

    @property
    def seeds(self) -> list[int]:
        """Return the seeds of each strategy."""
        config = self.shared.config
        return [(config.run.seed + number) % 2**32 for number in range(config.compare.seeds)]

    @cached_property
    def settings(self) -> dict[str, dict[str, Any]]:
        """Return {setting: its values} that every strategy tries, that of the config first."""
        found = settings_of(self.shared.config)
        return {AS_CONFIGURED: {}} if self.for_shortlist else found

    @property
    def is_tuned(self) -> bool:
        """Return whether strategies choose among settings."""
        return len(self.settings) > 1

    @cached_property
    def trainings(self) -> dict[str, list[Training]]:
        """Return {group: its trainings}, without the budget; the config's setting comes first."""
        return {
            group: [
                self._training(group, seed, fold)
                for seed in self.seeds
                for fold in self.shared.folds
            ]
            for setting in self.settings
            for group in (group_of(strategy, setting) for strategy in self.strategies)
        }

    def _training(self, group: str, seed: int, fold: int | None) -> Training:
        name = f"seed-{seed}" if fold is None else f"seed-{seed}-fold-{fold + 1}"
        path, config = self.folder / group / name, self.shared.config
        config = strategy_config(config, group, path, mode=self.mode, seed=seed)
        if self.shared.selection.used == "last_step":
            config = nothing_chosen(config)
        return Training(group, config, fold, self.judges_selection)

    @property
    def judges_selection(self) -> bool:
        """Return whether the trainings are judged on the selection rows, not the compared ones.

        Folds have no such rows: those of one fold are compared in another.
        """
        is_nested = self.shared.selection.used == "nested"
        return self.for_shortlist and is_nested and None in self.shared.folds

    @cached_property
    def budgets(self) -> dict[str, Budget]:
        """Return {setting: what every strategy may spend with it}."""
        config, data = self.shared.config, self.shared.first.unbalanced
        return {
            setting: Budget.of(config.with_training(**values), data, self.mode)
            for setting, values in self.settings.items()
        }

    @property
    def budget(self) -> Budget:
        """Return what every strategy may spend with the setting of the config."""
        return self.budgets[AS_CONFIGURED]

    def with_budget(self, group: str) -> list[Training]:
        """Return the trainings of a group with their budget.

        Raises:
            TrainerError: the strategy cannot use these rows.
        """
        trainings, as_configured = self.trainings[group], self.trainings[strategy_of(group)][0]
        values = self.budgets[setting_of(group)].training_of(as_configured, self.shared)
        if not values:
            return trainings
        return [replace(each, config=each.config.with_training(**values)) for each in trainings]

    @property
    def failed(self) -> dict[str, str]:
        """Return {group: why it cannot be trained}; a strategy takes its settings with it."""
        found: dict[str, str] = {}
        for group in self.trainings:
            path = self.folder / group / FAILED
            note = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            if note.get("identity") == self.identity:
                found[group] = note["reason"]
            elif reason := found.get(strategy_of(group)):
                found[group] = reason
        return found

    @property
    def trained(self) -> list[str]:
        """Return the groups that have not failed, the baseline first."""
        failed = self.failed
        return [group for group in self.trainings if group not in failed]

    @property
    def compared(self) -> list[str]:
        """Return the names of the compared strategies, with and without thresholds."""
        config, failed = self.shared.config, self.failed
        strategies = [strategy for strategy in self.strategies if strategy not in failed]
        return [name for strategy in strategies for name in compared_names(config, strategy)]

    @property
    def finished(self) -> list[str]:
        """Return the groups whose trainings are all finished."""
        return [
            group
            for group, trainings in self.trainings.items()
            if all(training.is_finished for training in trainings)
        ]

    @property
    def tested(self) -> list[str]:
        """Return the groups whose models have ever predicted the test rows."""
        paths = self.folder.glob(f"*/*/{TEST_PREDICTIONS}")
        return sorted({path.parent.parent.name for path in paths})

    def as_configured(self) -> dict[str, list[Training]]:
        """Return {compared strategy: its trainings with the setting of the config}."""
        return {name: self.trainings[trained_name(name)] for name in self.compared}

    def scores(self, name: str) -> dict[str, Floats]:
        """Return {setting: scores (seeds, folds) on the selection rows} of a compared strategy.

        Settings with an unfinished training are left out.
        """
        strategy, metric = trained_name(name), self.shared.config.compare.metric
        finished, has_thresholds = {*self.finished} - {*self.failed}, name != strategy
        return {
            setting: np.reshape(
                [
                    training.selection_score(metric, thresholds=has_thresholds)
                    for training in self.trainings[group]
                ],
                (len(self.seeds), -1),
            )
            for setting in self.settings
            if (group := group_of(strategy, setting)) in finished
        }

    def chosen(self) -> dict[str, list[Training]]:
        """Return {compared strategy: its trainings with the setting that it chose}.

        Each fold chooses by itself. Strategies without a finished group are left out.
        """
        if not self.is_tuned:
            finished = {*self.finished}
            return {
                name: trainings
                for name, trainings in self.as_configured().items()
                if trained_name(name) in finished
            }
        found = {}
        for name in self.compared:
            if scores := self.scores(name):
                groups = [group_of(trained_name(name), each) for each in best_settings(scores)]
                of_folds = [self.trainings[group] for group in groups]
                found[name] = [
                    of_folds[i % len(groups)][i] for i in range(len(self.seeds) * len(groups))
                ]
        return found

    @property
    def total_seconds(self) -> float:
        """Return the seconds of all trainings, with loading and evaluation."""
        trainings = (training for group in self.trained for training in self.trainings[group])
        return float(sum(training.clock("wall_seconds") for training in trainings))

    def baseline_training(self, trainings: list[Training]) -> dict[str, Any] | None:
        """Return whether the baseline was trained long enough; None for heads.

        Args:
            trainings: those of the baseline.
        """
        if self.budget.kind == "fit":
            return None
        found = [training.metrics[EVALUATIONS] for training in trainings]
        is_nested = self.shared.selection.used == "nested"
        return baseline_training(
            BASELINE, found, f"{'selection' if is_nested else 'validation'} rows"
        )

    def models_to_keep(self) -> set[str]:
        """Return the groups whose models may predict the test rows: baseline and best."""
        if not self.keeps_models:
            return set()
        metric, chosen = self.shared.config.compare.metric, self.chosen()

        def mean(name: str) -> float:
            has_thresholds = name != trained_name(name)
            return float(
                np.mean([each.figure(metric, thresholds=has_thresholds) for each in chosen[name]])
            )

        best = max(chosen, key=mean, default=BASELINE)
        kept = (training for name in {BASELINE, best} for training in chosen.get(name, ()))
        return {training.strategy for training in kept}

    def drop_models(self, *, keep: Container[str] = ()) -> None:
        """Remove the models of finished and failed groups, and the latter's checkpoints.

        Args:
            keep: groups whose models stay.
        """
        failed = self.failed
        for group in {*self.finished, *failed}:
            names = ["model", "adapter", *(["checkpoints"] if group in failed else [])]
            for training in self.trainings[group] if group not in keep else []:
                for name in names:
                    shutil.rmtree(training.path / name, ignore_errors=True)

    def compare(
        self, split: str, strategies: dict[str, list[Training]], *, num_left_out: int = 0
    ) -> Comparison:
        """Return the comparison of strategies on a split; predict its test rows first.

        Args:
            strategies: {name with or without thresholds: its trainings}.
            num_left_out: strategies that the same rows left out of the comparison.
        """
        if split == "test":
            self._predict_test(strategies)
        config, data = self.shared.config, self.shared.first.unbalanced
        metric, labels, minority = config.compare.metric, data.labels, data.summary.minority_label
        groups = frequency_groups(data.summary.natural_C, config.report.groups)
        found = {name: self._predictions(name, of, split) for name, of in strategies.items()}
        true_N = next(iter(found.values()))[0]
        support_C = count_labels(true_N, len(labels))
        if metric.startswith("minority") and not support_C[labels.index(minority)]:
            warnings.warn(
                f"compare.metric: {metric} cannot be measured on {split}, which has no row of "
                f"'{minority}'; macro_f1 is compared there. Add rows of the class, or set "
                "compare.metric: macro_f1.",
                stacklevel=2,
            )
            metric = "macro_f1"
        return compare(
            true_N,
            {strategy: predictions for strategy, (_, predictions) in found.items()},
            labels,
            minority_label=minority,
            metric=metric,
            baseline=BASELINE,
            num_left_out=num_left_out,
            groups={name: [labels[c] for c in of.label_ids] for name, of in groups.items()},
        )

    def _predict_test(self, strategies: dict[str, list[Training]]) -> None:
        """Predict the test rows with the trainings of strategies, unless they did before."""
        trainings = [training for of in strategies.values() for training in of]
        paths = {training.path for training in trainings}
        for group in dict.fromkeys(training.strategy for training in trainings):
            for training in self.with_budget(group):
                if training.path in paths:
                    predict_test(training, self.shared)

    def _predictions(
        self, strategy: str, trainings: list[Training], split: str
    ) -> tuple[Any, SeedPredictions]:
        """Return the label ids or label sets of a split's rows and the predictions of each seed.

        The folds of a seed validate different rows, so they are joined. On test, every fold's model
        counts as a seed.
        """
        labels = self.shared.first.unbalanced.labels
        has_thresholds = strategy != trained_name(strategy)
        size, name = len(self.shared.folds), "predictions.parquet"
        if split == "test":
            size, name = 1, TEST_PREDICTIONS
        predicted: list[Any] = []
        probabilities: list[Rows] = []
        for start in range(0, len(trainings), size):
            parts = [
                read_predictions(training.path, split, labels, name)
                for training in trainings[start : start + size]
            ]
            rows_N, true_N, predicted_N = (
                np.concatenate(column) for column in list(zip(*parts, strict=True))[:3]
            )
            order = np.argsort(rows_N, kind="stable")
            if has_thresholds:
                paths = [labels_path(of.path, name) for of in trainings[start : start + size]]
                predicted_N = np.concatenate([np.load(path) for path in paths])
            predicted.append(predicted_N[order])
            p_NC = joined([p_NC for *_, p_NC in parts], trainings[start].path)
            probabilities.append(Taken(p_NC, order))
        return true_N[order], SeedPredictions(np.stack(predicted), probabilities)
