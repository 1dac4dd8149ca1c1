"""The budget of a comparison: how long every strategy trains."""

import json
import math
import tempfile
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any

from trainer.comparison.shared_data import SharedData
from trainer.comparison.trainings import Training, balanced_data, trainer_builder
from trainer.config.config import Config
from trainer.data.balancing.balance import BalancePlan
from trainer.data.prepared_data import PreparedData
from trainer.files.locks import locked
from trainer.launch import stopping
from trainer.run_folder import config_differences, writer
from trainer.runs import training_run
from trainer.training.memory import release

STEPS = "steps.json"
"""The file of a strategy's steps in the seconds of the budget."""
WARM_UP_STEPS, TIMED_STEPS = 3, 10
"""Steps that are timed for a budget in seconds."""
NO_CALLBACKS = {
    "eval_strategy": "no",
    "save_strategy": "no",
    "logging_strategy": "no",
    "load_best_model_at_end": False,
    "early_stopping_patience": None,
    "report_to": "none",
}


@dataclass(frozen=True)
class Budget:
    """What every strategy may spend.

    Attributes:
        kind: steps, rows or seconds; `fit` if heads are fitted until they converge.
        amount: number of steps, rows or seconds.
        evaluations: number of evaluations on validation, evenly spaced; None: as configured.
        rows_per_step: rows of an optimizer step.
    """

    kind: str
    amount: float
    evaluations: int | None
    rows_per_step: int

    @classmethod
    def of(cls, config: Config, unbalanced: PreparedData, mode: str) -> "Budget":
        """Return the budget that the config asks for; by default what the baseline takes."""
        values, asked = config.training_values, config.compare
        accumulated = values.get("gradient_accumulation_steps") or 1
        rows_per_step = values["per_device_train_batch_size"] * accumulated
        if mode == "head":
            return cls("fit", 0, None, rows_per_step)
        num_rows, num_steps = _epoch(unbalanced.plan, rows_per_step, values)
        epochs, given = values["num_train_epochs"], values.get("max_steps") or -1
        steps = given if given > 0 else math.ceil(epochs * num_steps)
        rows = given * rows_per_step if given > 0 else math.ceil(epochs * num_rows)
        evaluations = {
            "epoch": max(1, round(epochs)),
            "steps": max(1, steps // max(1, int(values.get("eval_steps") or 1))),
            "no": None,
        }[values["eval_strategy"]]
        amount = asked.amount or {"steps": steps, "rows": rows}[asked.budget]
        budget = cls(asked.budget, amount, evaluations, rows_per_step)
        if asked.budget == "steps":  # rounded up to whole evaluations
            return replace(budget, amount=budget.training(math.ceil(amount))["max_steps"])
        return budget

    @property
    def words(self) -> str:
        """Return the budget in words."""
        if self.kind == "fit":
            return "every head is fitted until it converges, on embeddings of the frozen encoder"
        amount = f"{self.amount:,g} {self.kind} of training"
        if self.kind == "steps":
            amount = f"{self.amount:,.0f} optimizer steps of {self.rows_per_step:,} rows"
        times = f", evaluated {self.evaluations} times" if (self.evaluations or 1) > 1 else ""
        return f"{amount} for every strategy{times}"

    def to_dict(self) -> dict[str, Any]:
        """Return the values for comparison.json."""
        values = {name: getattr(self, name) for name in ("kind", "amount", "evaluations")}
        return values | {"words": self.words}

    def training(self, steps: int) -> dict[str, Any]:
        """Return the keys of `training` for so many steps, rounded up to whole evaluations."""
        fixed = {"early_stopping_patience": None}
        if self.evaluations is None:
            return fixed | {"max_steps": steps}
        each = max(1, math.ceil(steps / self.evaluations))
        every = {
            f"{what}_{key}": value
            for what in ("eval", "save", "logging")
            for key, value in (("strategy", "steps"), ("steps", each))
        }
        return fixed | every | {"max_steps": each * self.evaluations}

    def steps_of(self, plan: BalancePlan, values: dict[str, Any]) -> int:
        """Return the steps in which a strategy sees the rows of the budget.

        Args:
            values: the section `training`.
        """
        num_rows, num_steps = _epoch(plan, self.rows_per_step, values)
        epochs, rest = divmod(math.ceil(self.amount), max(1, num_rows))
        return epochs * num_steps + math.ceil(rest * num_steps / max(1, num_rows))

    def training_of(self, training: Training, shared: SharedData) -> dict[str, Any]:
        """Return the keys of `training` that give the strategy of a training its budget.

        Raises:
            TrainerError: the strategy cannot use these rows.
        """
        data = balanced_data(training, shared)
        if self.kind == "fit":
            return {}
        if self.kind == "steps":
            return self.training(int(self.amount))
        if self.kind == "rows":
            return self.training(self.steps_of(data.plan, shared.config.training_values))
        return self.training(_steps_once(self.amount, training, shared))


def _epoch(plan: BalancePlan, rows_per_step: int, values: dict[str, Any]) -> tuple[int, int]:
    """Return the rows and optimizer steps of an epoch, as `StepBatchSampler` makes them.

    A class-balanced step has equally many rows of each class. The last step may be dropped.
    """
    if plan.balanced_batches:
        rows_per_step = rows_per_step // plan.num_labels * plan.num_labels
    whole, rest = divmod(len(plan.positions()), max(1, rows_per_step))
    if values.get("dataloader_drop_last"):
        rest = 0
    return whole * rows_per_step + rest, whole + (rest > 0)


def _steps_once(seconds: float, training: Training, shared: SharedData) -> int:
    """Return the steps in some seconds, timed once, so that all seeds train equally long."""
    path = training.path.parent / STEPS
    compared = {
        key: value
        for key, value in config_differences.flat(training.config.to_dict()).items()
        if not (config_differences.is_not_compared(key) or key.startswith("run."))
    }
    timed = {"seconds": seconds, "of": compared}
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), f"the steps of {training.strategy} are being timed"):
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if {key: known.get(key) for key in timed} != timed:
            known = timed | {"steps": steps_in(seconds, training, shared)}
            writer.RunFolder(path.parent).write_json(STEPS, known)
    return int(known["steps"])


def steps_in(seconds: float, training: Training, shared: SharedData) -> int:
    """Return the optimizer steps that take some seconds here, measured on a few steps."""
    data = balanced_data(training, shared)
    with (
        tempfile.TemporaryDirectory() as scratch,
        redirect_stdout(StringIO()),
        redirect_stderr(StringIO()),
        stopping.at_agreed_steps(),
    ):
        folder = writer.RunFolder(Path(scratch))
        for steps in (WARM_UP_STEPS, TIMED_STEPS):
            config = training.config.with_training(**NO_CALLBACKS, max_steps=steps)
            timed = replace(training, config=config)
            build = trainer_builder(timed, shared, data, folder)
            trainer, clock = training_run.run_trainer(build, folder, None)
            del trainer  # the next one needs its memory
            release()
    return max(1, int(seconds * clock["steps"] / clock["seconds"]))
