"""Who trains which cell of a comparison, and what the finished cells say together.

A worker takes the next cell that no other process holds, by a lock that the kernel takes from one that dies.
"""

import json
import shutil
import time
import warnings
from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from trainer.comparison.statistics.comparison_result import Comparison
from trainer.comparison.statistics.differences import SeedPredictions
from trainer.comparison.statistics.differences import compare as compare_predictions
from trainer.comparison.strategies import strategy_config
from trainer.comparison.trainings import (
    TEST_PREDICTIONS,
    Budget,
    Cell,
    Ground,
    balance_cell,
    judge_test,
    steps_in,
    train_cell,
)
from trainer.config.config import Config
from trainer.config.sections.compare import BASELINE
from trainer.errors import ConfigError, DataError, RunError, Stopped, TrainingError
from trainer.evaluation.blocks import Rows, Taken, joined
from trainer.files.locks import holder, if_free, locked
from trainer.launch import stopping
from trainer.run_folder import config_differences, writer
from trainer.run_folder.prediction_file import read_predictions

POLL_SECONDS = 1.0
"""How often a worker that finds no free cell looks again."""
FAILED, STEPS = "failed.json", "steps.json"
"""Beside the cells of a strategy: why it cannot be trained; how many steps its seconds hold."""
LINE = "{:>7}  {:<24}  {:>6}  {:>8}  {:>8}  {:>15}  {:>7}  {:>7}"
COLUMNS = ("cell", "strategy", "seed", "macro F1", "accuracy", "minority recall", "seconds", "left")


@dataclass(frozen=True)
class Phase:
    """Cells that are trained side by side: strategies as configured, or as heads on the frozen encoder.

    Attributes:
        folder: holds `<strategy>/seed-<n>/` or `<strategy>/seed-<n>-fold-<k>/`.
        mode: `model.mode` of all cells.
        keeps_models: keep the models of the baseline and of the best strategy so far, until the test rows were touched.
        identity: digest of all that the results depend on.
    """

    ground: Ground
    folder: Path
    strategies: tuple[str, ...]
    mode: str
    keeps_models: bool
    identity: str

    @cached_property
    def unbudgeted(self) -> dict[str, list[Cell]]:
        """{strategy: its cells}, all seeds and folds, with the config's own length of training."""
        return {
            s: [
                Cell(s, self._config(s, seed, fold), fold)
                for seed in self.seeds
                for fold in self.ground.rows
            ]
            for s in self.strategies
        }

    @cached_property
    def budget(self) -> Budget:
        """What each cell may spend."""
        return Budget.of(self.ground.config, self.ground.plain, self.mode)

    @property
    def seeds(self) -> list[int]:
        """Of each strategy's trainings."""
        config = self.ground.config
        return [(config.run.seed + number) % 2**32 for number in range(config.compare.seeds)]

    def cells_of(self, strategy: str) -> list[Cell]:
        """The strategy's cells, with their budget.

        Raises:
            TrainerError: a strategy that these rows cannot have.
        """
        found = self.unbudgeted[strategy]
        training = self._training(found[0])
        return (
            [replace(cell, config=cell.config.with_training(**training)) for cell in found]
            if training
            else found
        )

    def _config(self, strategy: str, seed: int, fold: int | None) -> Config:
        path = (
            self.folder
            / strategy
            / (f"seed-{seed}" if fold is None else f"seed-{seed}-fold-{fold + 1}")
        )
        return strategy_config(self.ground.config, strategy, path, mode=self.mode, seed=seed)

    def _training(self, cell: Cell) -> dict[str, Any]:
        """Keys of the `training` section that make a strategy's budget."""
        budget, data = self.budget, balance_cell(cell, self.ground)
        if budget.kind == "fit":
            return {}
        if budget.kind == "steps":
            return budget.training(int(budget.amount))
        if budget.kind == "rows":
            return budget.training(budget.steps_of(data.plan, self.ground.config.training_values))
        return budget.training(self._steps(cell))

    def _steps(self, cell: Cell) -> int:
        """Optimizer steps in the seconds of the budget, timed once for each strategy, so that all its seeds train alike."""
        path = self.folder / cell.strategy / STEPS
        of = {
            key: value
            for key, value in config_differences.flat(cell.config.to_dict()).items()
            if not (config_differences.is_not_compared(key) or key.startswith("run."))
        }
        timed = {"seconds": self.budget.amount, "of": of}
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock"), f"the steps of {cell.strategy} are being timed"):
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            if {key: known.get(key) for key in timed} != timed:
                known = timed | {"steps": steps_in(self.budget.amount, cell, self.ground)}
                writer.RunFolder(path.parent).write_json(STEPS, known)
        return int(known["steps"])

    @property
    def failed(self) -> dict[str, str]:
        """{strategy: why} of those that cannot be trained."""
        paths = {strategy: self.folder / strategy / FAILED for strategy in self.strategies}
        noted = {
            strategy: json.loads(path.read_text(encoding="utf-8"))
            for strategy, path in paths.items()
            if path.is_file()
        }
        return {
            strategy: note["reason"]
            for strategy, note in noted.items()
            if note["identity"] == self.identity
        }

    @property
    def trained(self) -> list[str]:
        """Strategies with results, the baseline first."""
        failed = self.failed
        return [strategy for strategy in self.strategies if strategy not in failed]

    def work(self) -> None:
        """Train cells until all are finished, by whatever worker.

        Raises:
            RunError: cells of another config or other rows lie there.
            TrainingError: the baseline cannot be trained.
            Stopped: on a signal.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for strategy, reason in self.failed.items():
            tqdm.write(
                f"{strategy} failed before: {reason} To try it again, remove {self.folder / strategy / FAILED}."
            )
        cells: list[Cell] = []
        for strategy in self.trained:
            with self._failing(strategy):
                cells += self.cells_of(strategy)
        with locked(self.folder / writer.LOCK, "cells are being looked through"):
            self.refuse_others(cells)
        tqdm.write(
            f"{len(self.strategies)} strategies, {len(self.seeds)} seeds: {self.budget.words}."
        )
        table = CellTable(len(cells), sum(cell.is_finished for cell in cells))
        while open_cells := self._open(cells):
            if (
                signal := stopping.received()
            ):  # after the last step of a cell; heads on known embeddings take no steps at all
                raise Stopped(f"stopped by {signal} between two trainings")
            if not any(self._try(cell, table) for cell in open_cells):
                table.wait(len(open_cells))
                time.sleep(
                    POLL_SECONDS
                )  # others train the rest; the kernel frees the cell of one that dies
            table.found(sum(cell.is_finished for cell in cells))
        table.close()

    def _open(self, cells: list[Cell]) -> list[Cell]:
        """Those that are not finished, of strategies that have not failed."""
        failed = self.failed
        return [cell for cell in cells if cell.strategy not in failed and not cell.is_finished]

    def _try(self, cell: Cell, table: "CellTable") -> bool:
        """Train the cell, unless another worker holds it; whether it was done here."""
        cell.path.mkdir(parents=True, exist_ok=True)
        with if_free(cell.path / writer.LOCK) as is_free:
            if not is_free or not self._open([cell]):
                return False
            table.begin(cell)
            with self._failing(cell.strategy):
                train_cell(cell, self.ground, keeps_model=self.keeps_models)
            if cell.is_finished:
                table.end(cell)
        with locked(self.folder / writer.LOCK, "models are being removed"):
            self.drop_models(keep=self._worth_testing() if self.keeps_models else ())
        return True

    @contextmanager
    def _failing(self, strategy: str) -> Iterator[None]:
        """What a strategy cannot do is noted, so that the rest goes on without it."""
        try:
            yield
        except (ConfigError, DataError, TrainingError) as error:
            if strategy == BASELINE:
                raise TrainingError(
                    f"compare: '{BASELINE}', which all others are measured against, cannot be trained: {error}"
                ) from error
            path = self.folder / strategy
            path.mkdir(parents=True, exist_ok=True)
            with locked(
                path / writer.LOCK, f"the fault of {strategy} is being noted"
            ):  # all workers find most faults, and at the same time
                writer.RunFolder(path).write_json(
                    FAILED, {"reason": str(error), "identity": self.identity}
                )
            tqdm.write(f"{strategy} failed, the others go on: {error}")

    def refuse_others(self, cells: list[Cell] | None = None) -> None:
        """Raises RunError for cells of another config or other rows.

        Args:
            cells: may be removed with `run.overwrite`, where no process trains them; left out: all, and none is removed.
        """
        fingerprint, is_looking = self.ground.plain.clean.fingerprint, cells is None
        for cell in (
            [cell for strategy in self.trained for cell in self.cells_of(strategy)]
            if cells is None
            else cells
        ):
            if not (cell.path / "config.yaml").is_file() or not (
                differs := config_differences.first_differences(
                    cell.path, cell.config.to_dict(), fingerprint
                )
            ):
                continue
            remedy = (
                "Set run.overwrite: true or --resume never to train it anew, or another run.name."
            )
            if is_looking or not self.ground.config.run.overwrite:
                raise RunError(f"{cell.path}: holds a training that differs: {differs}. {remedy}")
            with if_free(cell.path / writer.LOCK) as is_free:
                if not is_free:
                    raise RunError(
                        f"{cell.path}: is being trained by {holder(cell.path / writer.LOCK)}, and differs: {differs}. End it first."
                    )
                shutil.rmtree(cell.path)

    def drop_models(self, *, keep: Container[str] = ()) -> None:
        """Remove the models of strategies that are finished, or failed, but those to keep; of the failed the checkpoints too."""
        failed = self.failed
        for strategy, cells in self.unbudgeted.items():
            if strategy not in keep and (
                strategy in failed or all(cell.is_finished for cell in cells)
            ):
                for cell in cells:
                    for name in (
                        "model",
                        "adapter",
                        *(("checkpoints",) if strategy in failed else ()),
                    ):
                        shutil.rmtree(cell.path / name, ignore_errors=True)

    @property
    def tested(self) -> list[str]:
        """Strategies whose models were ever asked about the test rows."""
        return sorted(
            {path.parent.parent.name for path in self.folder.glob(f"*/*/{TEST_PREDICTIONS}")}
        )

    def _worth_testing(self) -> set[str]:
        """The baseline and the best of the strategies that are finished."""
        finished = [
            strategy
            for strategy, cells in self.unbudgeted.items()
            if all(cell.is_finished for cell in cells)
        ]
        metric = self.ground.config.compare.metric
        best = max(
            finished,
            key=lambda strategy: np.mean(
                [cell.figure(metric) for cell in self.unbudgeted[strategy]]
            ),
            default=BASELINE,
        )
        return {BASELINE, best}

    def compare(self, split: str, strategies: list[str]) -> Comparison:
        """What the strategies' predictions of a split say; those of test rows are made now, where they were not before."""
        if split == "test":
            for strategy in strategies:
                for cell in self.cells_of(strategy):
                    judge_test(cell, self.ground)
        labels = self.ground.plain.labels
        predictions = {strategy: self._predictions(strategy, split) for strategy in strategies}
        metric, minority = (
            self.ground.config.compare.metric,
            self.ground.plain.summary.minority_label,
        )
        if (
            metric.startswith("minority")
            and labels.index(minority) not in predictions[strategies[0]][0]
        ):
            words = f"compare.metric: {metric} cannot be measured on {split}, which has no row of '{minority}'; macro_f1 is compared there"
            warnings.warn(
                f"{words}. Add rows of the class, or set compare.metric: macro_f1.", stacklevel=2
            )
            metric = "macro_f1"
        return compare_predictions(
            predictions[strategies[0]][0],
            {strategy: found for strategy, (_, found) in predictions.items()},
            labels,
            minority_label=minority,
            metric=metric,
            baseline=BASELINE,
        )

    def _predictions(self, strategy: str, split: str) -> tuple[Any, SeedPredictions]:
        """Label ids of the split's rows and what each seed made of them; folds are put together, where each judged other rows."""
        labels, name = (
            self.ground.plain.labels,
            "predictions.parquet" if split == "validation" else TEST_PREDICTIONS,
        )
        cells = self.unbudgeted[strategy]
        size = (
            len(self.ground.rows) if split == "validation" else 1
        )  # on test every fold's model counts by itself
        predicted: list[Any] = []
        probabilities: list[Rows] = []
        for start in range(0, len(cells), size):
            parts = [
                read_predictions(cell.path, split, labels, name)
                for cell in cells[start : start + size]
            ]
            rows_N, true_N, predicted_N = (
                np.concatenate(column) for column in list(zip(*parts, strict=True))[:3]
            )
            order = np.argsort(rows_N, kind="stable")
            predicted.append(predicted_N[order])
            probabilities.append(
                Taken(joined([p_NC for *_, p_NC in parts], cells[start].path), order)
            )
        return true_N[order], SeedPredictions(np.stack(predicted), probabilities)

    @property
    def seconds(self) -> dict[str, float]:
        """{strategy: mean seconds of training of one cell}."""
        return {
            strategy: float(
                np.mean([cell.metrics["training"]["seconds"] for cell in self.unbudgeted[strategy]])
            )
            for strategy in self.trained
        }

    @property
    def total_seconds(self) -> float:
        """Of all cells, with loading and evaluation."""
        return float(
            sum(
                cell.metrics["training"]["wall_seconds"]
                for strategy in self.trained
                for cell in self.unbudgeted[strategy]
            )
        )


class CellTable:
    """A line for each cell that is finished here, and a progress bar over all on terminals."""

    def __init__(self, total: int, finished: int) -> None:
        self.total, self.finished, self.at_start, self.begun = (
            total,
            finished,
            finished,
            time.monotonic(),
        )
        self.is_waiting = False
        self.bar = tqdm(total=total, initial=finished, unit=" cells", disable=None)
        tqdm.write(f"{total} cells, {finished} of them finished" if finished else f"{total} cells")
        tqdm.write(LINE.format(*COLUMNS))

    def begin(self, cell: Cell) -> None:
        """Name the cell in the bar."""
        self.bar.set_description(cell.name)

    def wait(self, others: int) -> None:
        """Say once that others are waited for."""
        if not self.is_waiting:
            tqdm.write(
                f"waiting: other processes train {'the last cell' if others == 1 else f'the last {others} cells'}"
            )
        self.is_waiting = True

    def found(self, finished: int) -> None:
        """Move the bar to what all workers have finished."""
        self.bar.update(finished - self.finished)
        self.finished = finished

    def end(self, cell: Cell) -> None:
        """Print the line of a cell."""
        self.found(self.finished + 1)
        left = (
            (time.monotonic() - self.begun)
            / (self.finished - self.at_start)
            * (self.total - self.finished)
        )
        figures = [
            f"{cell.figure(name):.4f}" for name in ("macro_f1", "accuracy", "minority_recall")
        ]
        seconds = f"{cell.metrics['training']['wall_seconds']:.0f}"
        seed = f"{cell.config.run.seed}" + ("" if cell.fold is None else f"/{cell.fold + 1}")
        tqdm.write(
            LINE.format(
                f"{self.finished}/{self.total}",
                cell.strategy,
                seed,
                *figures,
                seconds,
                f"{left / 60:.0f} min",
            )
        )

    def close(self) -> None:
        """Close the bar."""
        self.bar.close()
