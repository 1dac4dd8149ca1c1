"""The grid of trainings of a comparison: strategies x seeds x folds."""

import json
import shutil
import warnings
from collections.abc import Container
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from trainer.comparison.baseline_training import baseline_training
from trainer.comparison.budget import Budget
from trainer.comparison.compared_predictions import labels_path
from trainer.comparison.selection import nothing_chosen
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
"""The file in a strategy's folder that says why it cannot be trained."""


@dataclass(frozen=True)
class TrainingGrid:
    """The trainings of strategies with all seeds and folds, as configured or as frozen heads.

    Attributes:
        folder: holds `<strategy>/seed-<n>/` or `<strategy>/seed-<n>-fold-<k>/`.
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
    def trainings(self) -> dict[str, list[Training]]:
        """Return {strategy: its trainings}, without the budget."""
        return {
            strategy: [
                self._training(strategy, seed, fold)
                for seed in self.seeds
                for fold in self.shared.folds
            ]
            for strategy in self.strategies
        }

    def _training(self, strategy: str, seed: int, fold: int | None) -> Training:
        name = f"seed-{seed}" if fold is None else f"seed-{seed}-fold-{fold + 1}"
        path, config = self.folder / strategy / name, self.shared.config
        config = strategy_config(config, strategy, path, mode=self.mode, seed=seed)
        if self.shared.selection.used == "last_step":
            config = nothing_chosen(config)
        return Training(strategy, config, fold, self.judges_selection)

    @property
    def judges_selection(self) -> bool:
        """Return whether the trainings are judged on the selection rows, not the compared ones.

        Folds have no such rows: those of one fold are compared in another.
        """
        is_nested = self.shared.selection.used == "nested"
        return self.for_shortlist and is_nested and None in self.shared.folds

    @cached_property
    def budget(self) -> Budget:
        """Return what every strategy may spend."""
        return Budget.of(self.shared.config, self.shared.first.unbalanced, self.mode)

    def with_budget(self, strategy: str) -> list[Training]:
        """Return the trainings of a strategy with their budget.

        Raises:
            TrainerError: the strategy cannot use these rows.
        """
        trainings = self.trainings[strategy]
        values = self.budget.training_of(trainings[0], self.shared)
        if not values:
            return trainings
        return [replace(each, config=each.config.with_training(**values)) for each in trainings]

    @property
    def failed(self) -> dict[str, str]:
        """Return {strategy: why it cannot be trained}."""
        found = {}
        for strategy in self.strategies:
            path = self.folder / strategy / FAILED
            note = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            if note.get("identity") == self.identity:
                found[strategy] = note["reason"]
        return found

    @property
    def trained(self) -> list[str]:
        """Return the strategies that have not failed, the baseline first."""
        failed = self.failed
        return [strategy for strategy in self.strategies if strategy not in failed]

    @property
    def compared(self) -> list[str]:
        """Return the names of the compared strategies, with and without thresholds."""
        config = self.shared.config
        return [name for strategy in self.trained for name in compared_names(config, strategy)]

    @property
    def finished(self) -> list[str]:
        """Return the strategies whose trainings are all finished."""
        return [
            strategy
            for strategy, trainings in self.trainings.items()
            if all(training.is_finished for training in trainings)
        ]

    @property
    def tested(self) -> list[str]:
        """Return the strategies whose models have ever predicted the test rows."""
        paths = self.folder.glob(f"*/*/{TEST_PREDICTIONS}")
        return sorted({path.parent.parent.name for path in paths})

    @property
    def seconds(self) -> dict[str, float]:
        """Return {compared strategy: mean training seconds}."""
        return {
            name: float(np.mean(self._clock(trained_name(name), "seconds")))
            for name in self.compared
        }

    @property
    def total_seconds(self) -> float:
        """Return the seconds of all trainings, with loading and evaluation."""
        return float(sum(sum(self._clock(strategy, "wall_seconds")) for strategy in self.trained))

    def _clock(self, strategy: str, name: str) -> list[float]:
        return [training.metrics["training"][name] for training in self.trainings[strategy]]

    @property
    def baseline_training(self) -> dict[str, Any] | None:
        """Return whether the baseline was trained long enough; None for heads."""
        if self.budget.kind == "fit":
            return None
        found = [training.metrics[EVALUATIONS] for training in self.trainings[BASELINE]]
        is_nested = self.shared.selection.used == "nested"
        return baseline_training(
            BASELINE, found, f"{'selection' if is_nested else 'validation'} rows"
        )

    def models_to_keep(self) -> set[str]:
        """Return the strategies whose models may predict the test rows: baseline and best."""
        if not self.keeps_models:
            return set()
        metric = self.shared.config.compare.metric

        def mean(strategy: str) -> float:
            names = compared_names(self.shared.config, strategy)
            return max(
                float(np.mean([of.figure(metric, thresholds=of_thresholds) for of in trainings]))
                for trainings in [self.trainings[strategy]]
                for of_thresholds in (False, True)[: len(names)]
            )

        return {BASELINE, max(self.finished, key=mean, default=BASELINE)}

    def drop_models(self, *, keep: Container[str] = ()) -> None:
        """Remove the models of finished and failed strategies, and the latter's checkpoints.

        Args:
            keep: strategies whose models stay.
        """
        failed = self.failed
        for strategy in {*self.finished, *failed}:
            names = ["model", "adapter", *(["checkpoints"] if strategy in failed else [])]
            for training in self.trainings[strategy] if strategy not in keep else []:
                for name in names:
                    shutil.rmtree(training.path / name, ignore_errors=True)

    def compare(self, split: str, strategies: list[str], *, num_left_out: int = 0) -> Comparison:
        """Return the comparison of strategies on a split; predict its test rows first.

        Args:
            strategies: names with and without thresholds.
            num_left_out: strategies that the same rows left out of the comparison.
        """
        if split == "test":
            for strategy in dict.fromkeys(map(trained_name, strategies)):
                for training in self.with_budget(strategy):
                    predict_test(training, self.shared)
        config, data = self.shared.config, self.shared.first.unbalanced
        metric, labels, minority = config.compare.metric, data.labels, data.summary.minority_label
        groups = frequency_groups(data.summary.natural_C, config.report.groups)
        found = {strategy: self._predictions(strategy, split) for strategy in strategies}
        true_N = found[strategies[0]][0]
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

    def _predictions(self, strategy: str, split: str) -> tuple[Any, SeedPredictions]:
        """Return the label ids or label sets of a split's rows and the predictions of each seed.

        The folds of a seed validate different rows, so they are joined. On test, every fold's model
        counts as a seed.
        """
        trainings = self.trainings[trained_name(strategy)]
        labels, has_thresholds = self.shared.first.unbalanced.labels, strategy not in self.trainings
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
