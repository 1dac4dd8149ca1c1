"""Whether a training is long enough: foreseen from its steps, and seen from its evaluations.

Comparisons of methods are often decided by trainings that are too short (Galke et al. 2022,
https://arxiv.org/abs/2204.03954; Mosbach et al. 2021, https://arxiv.org/abs/2006.04884). Imports no
torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import ceil
from typing import Any

import numpy as np

STEPS, STEPS_PER_CLASS = 500, 20
"""A training has at least so many optimizer steps, and so many for each class: a new head learns
each class from its own rows."""
FEWEST_EPOCHS, MOST_EPOCHS = 3, 20
ENDED_EARLY = "The training ended too early"
LAST_PART = 0.75
"""Share of the training after which it should hardly improve any more."""
FEW_EVALUATIONS = 4
"""With fewer, a gain must be twice as large: the value after three quarters is then interpolated,
which overstates the gain of a curve that flattens."""
LEAST_GAIN = 0.01
LEAST_FALL = 0.05
"""Smallest gain of a score, and smallest fall of the loss as a share of it, that count."""
NOISE = 2
"""A gain is at least so many times the largest step back. Of flat curves whose evaluations scatter
by one point, 2 % (10 evaluations) to 10 % (4) are then called too short."""
CHANCE = 1.05
"""A macro recall of at most so much over the number of classes is that of a constant answer."""


@dataclass(frozen=True)
class PlannedLength:
    """The optimizer steps of a training, and whether they are enough.

    Attributes:
        num_rows: training rows of an epoch.
        rows_per_step: rows of an optimizer step in all processes.
        epochs: `training.num_train_epochs`.
        max_steps: `training.max_steps`, which overrides the epochs; 0 or less if it is not set.
    """

    num_rows: int
    num_classes: int
    rows_per_step: int
    epochs: float
    max_steps: int = -1

    @classmethod
    def of(
        cls, training: Mapping[str, Any], num_rows: int, num_classes: int, num_processes: int = 1
    ) -> "PlannedLength":
        """Return the length of a training with these keys of the section `training`."""
        batches = training.get("gradient_accumulation_steps") or 1
        return cls(
            num_rows,
            num_classes,
            training["per_device_train_batch_size"] * batches * num_processes,
            training["num_train_epochs"],
            training.get("max_steps") or -1,
        )

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch."""
        return max(1, ceil(self.num_rows / self.rows_per_step))

    @property
    def steps(self) -> int:
        """Steps of the training, unless it stops early."""
        return self.max_steps if self.max_steps > 0 else ceil(self.epochs * self.steps_per_epoch)

    @property
    def wanted(self) -> int:
        """Steps that a training of so many classes needs."""
        return max(STEPS, STEPS_PER_CLASS * self.num_classes)

    @property
    def enough_epochs(self) -> int:
        """Epochs that give the wanted steps, from FEWEST_EPOCHS to MOST_EPOCHS."""
        return min(MOST_EPOCHS, max(FEWEST_EPOCHS, ceil(self.wanted / self.steps_per_epoch)))

    @property
    def longer(self) -> dict[str, int]:
        """The key of `training` that makes a training longer that ended too early."""
        if self.max_steps > 0:
            return {"max_steps": max(2 * self.max_steps, self.wanted)}
        return {"num_train_epochs": max(ceil(2 * self.epochs), self.enough_epochs)}

    @property
    def settings(self) -> dict[str, int]:
        """The key of `training` that gives the wanted steps; empty if more epochs hardly help."""
        if self.steps >= self.wanted:
            return {}
        if self.max_steps > 0:
            return {"max_steps": self.wanted}
        return {"num_train_epochs": self.enough_epochs} if self.epochs < self.enough_epochs else {}

    @property
    def sentence(self) -> str:
        """A warning if the steps are probably too few, and the remedy; else empty."""
        if self.steps >= self.wanted:
            return ""
        words = f"{_few(self.steps, self.num_classes, self.wanted)}. "
        if not self.settings:
            return f"{words}More than {MOST_EPOCHS} epochs of the same rows hardly help: add rows."
        return f"{words}Set {_setting(self.settings)}."


def _few(steps: int, num_classes: int, wanted: int) -> str:
    return (
        f"Training has {steps:,} optimizer step{'' if steps == 1 else 's'}, probably too few for"
        f" {num_classes:,} classes: a new head needs about {wanted:,}"
    )


def _setting(values: Mapping[str, int]) -> str:
    ((key, value),) = values.items()
    return f"`training.{key}: {value}`"


@dataclass(frozen=True)
class Curve:
    """The values of a metric over the evaluations of a training.

    Attributes:
        metric: its name in metrics.json.
        steps: optimizer step of each evaluation.
        rises: whether larger values are better.
    """

    metric: str
    steps: Sequence[float]
    values: Sequence[float]
    rises: bool

    @property
    def ends(self) -> tuple[float, float]:
        """The best value after three quarters of the training, interpolated, and at its end."""
        best = (np.maximum if self.rises else np.minimum).accumulate(np.array(self.values, float))
        return float(np.interp(LAST_PART * self.steps[-1], self.steps, best)), float(best[-1])

    @property
    def noise(self) -> float:
        """The largest step back between neighbouring evaluations of the second half."""
        late = [v for s, v in zip(self.steps, self.values, strict=True) if s >= self.steps[-1] / 2]
        sign = 1 if self.rises else -1
        return max((sign * (a - b) for a, b in pairwise(late)), default=0.0)

    def still_improves(self, row_value: float) -> bool:
        """Return whether the last quarter improves the best value by more than noise.

        Args:
            row_value: what one row of the rarest class changes in a macro average.
        """
        before, after = self.ends
        least = max(LEAST_GAIN, row_value) if self.rises else LEAST_FALL * before
        least *= 2 if len(self.steps) < FEW_EVALUATIONS else 1
        return bool(abs(after - before) >= max(least, NOISE * self.noise) and before != after)

    @property
    def words(self) -> str:
        """What happened in the last quarter, in words."""
        before, after = self.ends
        is_loss = self.metric == "loss"
        name = "validation loss" if is_loss else self.metric.replace("_", " ").replace("f1", "F1")
        return f"{name} {'rose' if self.rises else 'fell'} from {before:.3f} to {after:.3f}"


@dataclass(frozen=True)
class TrainingLength:
    """Whether a training ended too early: an entry of metrics.json.

    Attributes:
        evaluations: number of evaluations during training.
        last_quarter: {metric: best value after three quarters, best value at the end}.
        words: what still improved, and the remedy; empty if the training was long enough.
    """

    ended_too_early: bool
    evaluations: int
    last_quarter: dict[str, tuple[float, float]]
    words: str

    def to_dict(self) -> dict[str, Any]:
        """Return the attributes as plain values."""
        return asdict(self)


def training_length(
    planned: PlannedLength,
    log_history: Sequence[Mapping[str, float]],
    *,
    metric: str,
    greater_is_better: bool,
    learning_rate: float,
    row_value: float,
    stopped_early: bool,
) -> TrainingLength:
    """Return whether a training ended while it still improved.

    A training ended too early if the best value of the metric, or the lowest validation loss,
    improved in the last quarter by more than noise, or if it learnt nothing. With one evaluation or
    none this cannot be seen, and the number of steps decides. A training was long enough if early
    stopping ended it, or if hardly anything is left to gain. An evaluation before training does not
    count.

    Args:
        log_history: the log of transformers.Trainer.
        metric: name of the metric that selects the best model.
        row_value: what one row of the rarest class changes in a macro average over validation.
        stopped_early: whether early stopping ended the training.
    """
    rows = [entry for entry in log_history if "eval_loss" in entry and entry["step"] > 0]
    curves = _curves(rows, metric.removeprefix("eval_"), greater_is_better)
    if stopped_early:
        words = ""
    elif len(rows) < 2:
        words = _words_by_steps(planned, len(rows))
    elif max(entry["eval_macro_recall"] for entry in rows) <= CHANCE / planned.num_classes:
        words = "No evaluation was better than giving all rows the same answer"
    else:
        is_done = greater_is_better and curves[0].ends[1] > 1 - LEAST_GAIN
        improving = [curve.words for curve in curves if curve.still_improves(row_value)]
        words = f"In {_last_quarter(planned)}, {' and '.join(improving)}"
        words = words if improving and not is_done else ""
    if words:
        words += (
            f". Train longer: {_setting(planned.longer)}, or raise `training.learning_rate`"
            f" (now {learning_rate:g})."
        )
    last_quarter = {curve.metric: curve.ends for curve in curves} if len(rows) > 1 else {}
    return TrainingLength(bool(words), len(rows), last_quarter, words)


def _words_by_steps(planned: PlannedLength, num_evaluations: int) -> str:
    """Return that too few steps were made, where no curve can show it; empty if they suffice."""
    if planned.steps >= planned.wanted:
        return ""
    shown = "one evaluation" if num_evaluations else "no evaluation"
    few = _few(planned.steps, planned.num_classes, planned.wanted)
    return f"{few}, and {shown} cannot show whether it still improves"


def _last_quarter(planned: PlannedLength) -> str:
    length = f"{planned.epochs:g} epochs"
    if planned.max_steps > 0:
        length = f"{planned.max_steps:,} steps"
    return f"the last quarter of {length}"


def _curves(
    rows: Sequence[Mapping[str, float]], metric: str, greater_is_better: bool
) -> list[Curve]:
    """Return the curves of the metric and of the loss over the evaluations, if there are any."""
    directions = {metric: greater_is_better, "loss": False}
    steps = [row["step"] for row in rows]
    return [
        Curve(name, steps, [row[f"eval_{name}"] for row in rows], rises)
        for name, rises in directions.items()
        if rows
    ]
