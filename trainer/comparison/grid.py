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

from trainer.comparison.budget import Budget
from trainer.comparison.shared_data import SharedData
from trainer.comparison.statistics.comparison_result import Comparison
from trainer.comparison.statistics.differences import SeedPredictions, compare
from trainer.comparison.strategies import strategy_config
from trainer.comparison.trainings import TEST_PREDICTIONS, Training, predict_test
from trainer.config.sections.compare import BASELINE
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
    """

    shared: SharedData
    folder: Path
    strategies: tuple[str, ...]
    mode: str
    keeps_models: bool
    identity: str

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
        return Training(strategy, config, fold)

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
        """Return {strategy: mean training seconds}."""
        return {
            strategy: float(np.mean(self._clock(strategy, "seconds"))) for strategy in self.trained
        }

    @property
    def total_seconds(self) -> float:
        """Return the seconds of all trainings, with loading and evaluation."""
        return float(sum(sum(self._clock(strategy, "wall_seconds")) for strategy in self.trained))

    def _clock(self, strategy: str, name: str) -> list[float]:
        return [training.metrics["training"][name] for training in self.trainings[strategy]]

    def models_to_keep(self) -> set[str]:
        """Return the strategies whose models may predict the test rows: baseline and best."""
        if not self.keeps_models:
            return set()
        metric = self.shared.config.compare.metric

        def mean(strategy: str) -> float:
            figures = [training.figure(metric) for training in self.trainings[strategy]]
            return float(np.mean(figures))

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

    def compare(self, split: str, strategies: list[str]) -> Comparison:
        """Return the comparison of strategies on a split; predict its test rows first."""
        if split == "test":
            for strategy in strategies:
                for training in self.with_budget(strategy):
                    predict_test(training, self.shared)
        config, data = self.shared.config, self.shared.first.unbalanced
        metric, labels, minority = config.compare.metric, data.labels, data.summary.minority_label
        groups = frequency_groups(data.summary.natural_C, config.report.groups)
        found = {strategy: self._predictions(strategy, split) for strategy in strategies}
        true_N = found[strategies[0]][0]
        if metric.startswith("minority") and labels.index(minority) not in true_N:
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
            groups={name: [labels[c] for c in of.label_ids] for name, of in groups.items()},
        )

    def _predictions(self, strategy: str, split: str) -> tuple[Any, SeedPredictions]:
        """Return the label ids of a split's rows and the predictions of each seed.

        The folds of a seed validate different rows, so they are joined. On test, every fold's model
        counts as a seed.
        """
        trainings, labels = self.trainings[strategy], self.shared.first.unbalanced.labels
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
            predicted.append(predicted_N[order])
            p_NC = joined([p_NC for *_, p_NC in parts], trainings[start].path)
            probabilities.append(Taken(p_NC, order))
        return true_N[order], SeedPredictions(np.stack(predicted), probabilities)
