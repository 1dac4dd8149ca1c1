"""Divide the trainings of a comparison among any number of workers.

A worker takes the next training that no other process has locked. If a process dies, the kernel
releases its lock.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.comparison.compared_predictions import SELECTION
from trainer.comparison.grid import FAILED, TrainingGrid
from trainer.comparison.settings import strategy_of, tune_words
from trainer.comparison.trainings import ROWS, Training, train
from trainer.config.sections.compare import BASELINE
from trainer.errors import ConfigError, DataError, RunError, Stopped, TrainingError
from trainer.files.locks import holder, if_free, locked
from trainer.launch import stopping
from trainer.progress import print_line, progress_bar
from trainer.run_folder import config_differences, writer

POLL_SECONDS = 1.0
"""Seconds between two looks for a free training."""
REMEDY = "Set run.overwrite: true or --resume never to train it again, or set another run.name."
LINE = "{:>8}  {:<{width}}  {:>6}  {:>8}  {:>8}  {:>15}  {:>7}  {:>7}"
FIGURES = {
    False: {"macro_f1": "macro F1", "accuracy": "accuracy", "minority_recall": "minority recall"},
    True: {"macro_f1": "macro F1", "micro_f1": "micro F1", "minority_recall": "minority recall"},
}
"""{whether a row may have several labels: {metric: its heading}} in the line of a training."""


def work(grid: TrainingGrid) -> None:
    """Train until all trainings of a grid are finished, by this worker or by others.

    Raises:
        RunError: the folder holds trainings of another config or other rows.
        TrainingError: the baseline cannot be trained.
        Stopped: on a signal.
    """
    grid.folder.mkdir(parents=True, exist_ok=True)
    for group, reason in grid.failed.items():
        if (path := grid.folder / group / FAILED).is_file():
            print_line(f"{group} failed before: {reason} Remove {path} to try it again.")
    trainings: list[Training] = []
    for group in grid.trained:
        if strategy_of(group) not in grid.failed:
            with _noting_failure(grid, group):
                trainings += grid.with_budget(group)
    with locked(grid.folder / writer.LOCK, "the trainings are being checked"):
        remove_differing(grid, trainings)
    print_line(f"{len(grid.strategies)} strategies, {len(grid.seeds)} seeds: {grid.budget.words}.")
    if grid.is_tuned:
        print_line(tune_words(grid.shared.config, len(grid.strategies)))
    table = ProgressTable(trainings, FIGURES[grid.shared.is_multi_label])
    while unfinished := _unfinished(grid, trainings):
        if signal := stopping.received():  # fitting a head has no steps at which it could stop
            raise Stopped(f"stopped by {signal} between two trainings")
        if not any(_train_if_free(grid, training, table) for training in unfinished):
            table.wait(len(unfinished))
            time.sleep(POLL_SECONDS)
        table.update()
    table.bar.close()


def _unfinished(grid: TrainingGrid, trainings: list[Training]) -> list[Training]:
    """Return the unfinished trainings of groups that have not failed."""
    failed = grid.failed
    return [each for each in trainings if each.strategy not in failed and not each.is_finished]


def _train_if_free(grid: TrainingGrid, training: Training, table: "ProgressTable") -> bool:
    """Train unless another worker has the training; return whether this worker did it."""
    training.path.mkdir(parents=True, exist_ok=True)
    with if_free(training.path / writer.LOCK) as is_free:
        if not is_free or not _unfinished(grid, [training]):
            return False
        table.bar.set_description(training.name)
        with _noting_failure(grid, training.strategy):
            train(training, grid.shared, keeps_model=grid.keeps_models)
        if training.is_finished:
            table.add(training)
    with locked(grid.folder / writer.LOCK, "models are being removed"):
        grid.drop_models(keep=grid.models_to_keep())
    return True


@contextmanager
def _noting_failure(grid: TrainingGrid, group: str) -> Iterator[None]:
    """Write down why a group cannot be trained, so that the others continue without it."""
    try:
        yield
    except (ConfigError, DataError, TrainingError) as error:
        if group == BASELINE:
            raise TrainingError(
                f"compare: the baseline '{BASELINE}' cannot be trained: {error}"
            ) from error
        path = grid.folder / group
        path.mkdir(parents=True, exist_ok=True)
        with locked(path / writer.LOCK, f"the failure of {group} is being written"):
            writer.RunFolder(path).write_json(
                FAILED, {"reason": str(error), "identity": grid.identity}
            )
        print_line(f"{group} failed, the others continue: {error}")


def differing(grid: TrainingGrid, trainings: list[Training]) -> Iterator[tuple[Training, str]]:
    """Yield trainings whose folder has another config or other rows, and the difference."""
    for training in trainings:
        if (training.path / "config.yaml").is_file():
            config, fingerprint = training.config.to_dict(), grid.shared.first.clean.fingerprint
            if differs := config_differences.first_differences(training.path, config, fingerprint):
                yield training, f"{training.path}: holds a training that differs: {differs}."
            elif training.is_finished and (differs := _other_rows(grid, training)):
                yield training, f"{training.path}: holds a training that {differs}."


def _other_rows(grid: TrainingGrid, training: Training) -> str:
    """Return how the rows that a training chose or was judged on differ, or an empty string."""
    path, wanted = training.path / ROWS, training.rows_note(grid.shared)
    if not path.is_file():
        return "chose on the rows that are compared, as an earlier version did"
    found = json.loads(path.read_text(encoding="utf-8"))
    if wanted["thresholds"] and not found["thresholds"]:
        return "was judged without thresholds (compare.thresholds was false)"
    if grid.is_tuned and not training.metrics.get(SELECTION):
        return "has no scores on selection rows, which compare.tune needs, as of an earlier version"
    same = ("digest", "for_shortlist")
    if [found[key] for key in same] != [wanted[key] for key in same]:
        return "chose or was judged on other rows (compare.selection)"
    return ""


def refuse_differing(grid: TrainingGrid) -> None:
    """Raise RunError if a training has another config or other rows."""
    trainings = [each for group in grid.trained for each in grid.with_budget(group)]
    for _, fault in differing(grid, trainings):
        raise RunError(f"{fault} {REMEDY}")


def remove_differing(grid: TrainingGrid, trainings: list[Training]) -> None:
    """Remove trainings of another config or other rows.

    Raises:
        RunError: `run.overwrite` is not set, or another process is training one of them.
    """
    for training, fault in differing(grid, trainings):
        if not grid.shared.config.run.overwrite:
            raise RunError(f"{fault} {REMEDY}")
        lock = training.path / writer.LOCK
        with if_free(lock) as is_free:
            if not is_free:
                raise RunError(f"{fault} It is being trained by {holder(lock)}. Stop it first.")
            shutil.rmtree(training.path)


class ProgressTable:
    """A line for each training that this worker finishes, and a progress bar in terminals."""

    def __init__(self, trainings: list[Training], figures: dict[str, str]) -> None:
        self.figures = figures
        self.width = max([24, *(len(training.strategy) for training in trainings)])
        self.trainings, self.begun, self.is_waiting = trainings, time.monotonic(), False
        self.finished = self.at_start = self._count()
        self.bar = progress_bar(
            total=len(trainings), initial=self.finished, unit=" trainings", leave=True
        )
        print_line(f"{len(trainings)} trainings, {self.finished} of them finished")
        headings = ("training", "strategy", "seed", *figures.values(), "seconds", "left")
        print_line(LINE.format(*headings, width=self.width))

    def _count(self) -> int:
        return sum(training.is_finished for training in self.trainings)

    def wait(self, others: int) -> None:
        """Say once that this worker waits for others."""
        if not self.is_waiting:
            print_line(f"Waiting for other workers; trainings left: {others}.")
        self.is_waiting = True

    def update(self) -> None:
        """Show how many trainings all workers have finished."""
        before, self.finished = self.finished, self._count()
        self.bar.update(self.finished - before)

    def add(self, training: Training) -> None:
        """Print the line of a training that has just finished."""
        self.update()
        total, fold = len(self.trainings), training.fold
        mean_seconds = (time.monotonic() - self.begun) / max(1, self.finished - self.at_start)
        print_line(
            LINE.format(
                f"{self.finished}/{total}",
                training.strategy,
                f"{training.config.run.seed}" + ("" if fold is None else f"/{fold + 1}"),
                *(f"{training.figure(name):.4f}" for name in self.figures),
                f"{training.metrics['training']['wall_seconds']:.0f}",
                f"{mean_seconds * (total - self.finished) / 60:.0f} min",
                width=self.width,
            )
        )
