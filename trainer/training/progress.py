"""What the user sees while a model trains: a progress bar, and a line of the per-epoch table after each evaluation."""

import sys
import time
from collections.abc import Callable
from typing import Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

COLUMNS = (
    "training_loss",
    "epoch",
    "step",
    "validation_loss",
    "accuracy",
    "macro_f1",
    "minority_recall",
)
HEADINGS = (
    "Training Loss",
    "Epoch",
    "Step",
    "Validation Loss",
    "Accuracy",
    "Macro F1",
    "Minority Recall",
)


def epoch_rows(log_history: list[dict[str, float]]) -> list[dict[str, float]]:
    """The per-epoch table (COLUMNS) from the Trainer's log, which checkpoints carry, so a resumed run keeps its lines."""
    rows, training_loss = [], float("nan")
    for entry in log_history:
        training_loss = entry.get("loss", training_loss)
        if "eval_macro_f1" in entry:
            values = (
                training_loss,
                entry["epoch"],
                entry["step"],
                *(entry[f"eval_{n}"] for n in ("loss", *COLUMNS[4:])),
            )
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


def headings(*, head: bool) -> tuple[str, ...]:
    """Headings of the table; where the head alone is trained, a line stands for a fit with one L2 strength."""
    return (HEADINGS[0], "Fit", *HEADINGS[2:], "     L2") if head else HEADINGS


def row_cells(row: dict[str, float]) -> list[str]:
    """One line of the table as text, in the order of COLUMNS, and the L2 strength where a line has one."""
    cells = [
        f"{row[name]:.0f}"
        if name == "step"
        else f"{row[name]:.4g}"
        if name == "epoch"
        else f"{row[name]:.4f}"
        for name in COLUMNS
    ]
    return [*cells, f"{row['l2']:g}"] if "l2" in row else cells


def table_line(row: dict[str, float]) -> str:
    """One line of the table, as wide as its headings."""
    return "  ".join(
        cell.rjust(len(heading))
        for cell, heading in zip(row_cells(row), headings(head="l2" in row), strict=True)
    )


class EpochTable(TrainerCallback):
    """The per-epoch table, and a progress bar on terminals (elsewhere a line every minute)."""

    def __init__(
        self, write_epochs: Callable[[list[dict[str, float]]], None] | None = None
    ) -> None:
        self.write_epochs = write_epochs
        self.bar: Any = None
        self.num_printed = 0
        self.last_sign = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar and print the headings, with the lines of a resumed run."""
        if not state.is_world_process_zero:
            return
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            desc="Training",
            unit=" steps",
            disable=None,
        )
        tqdm.write("  ".join(HEADINGS))
        self._print_new(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is None:
            return
        self.bar.update(1)
        if self.bar.disable and time.monotonic() - self.last_sign > 60:
            self.last_sign = time.monotonic()
            print(f"step {state.global_step} of {state.max_steps}", file=sys.stderr, flush=True)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print and save the new lines of the table."""
        self._print_new(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()

    def _print_new(self, state: Any) -> None:
        rows = epoch_rows(state.log_history)
        if self.bar is None or len(rows) == self.num_printed:
            return
        for row in rows[self.num_printed :]:
            tqdm.write(table_line(row))
        self.num_printed = len(rows)
        if self.write_epochs:
            self.write_epochs(rows)


class StepClock(TrainerCallback):
    """Seconds spent in training steps and in fetching their batches, without evaluation and saving.

    An accelerator works on after Python has queued a step. It is waited for where the clock stops for a log, an evaluation,
    a save or the end of an epoch, so that no work is left out, and not after every step, which would slow training.

    Attributes:
        seconds: over the steps of this process; a resumed run counts from its checkpoint on.
        steps: optimizer steps in those seconds.
    """

    def __init__(self) -> None:
        self.seconds, self.steps, self._mark = 0.0, 0, time.perf_counter()

    def _restart(self, args: Any, *others: Any, **kwargs: Any) -> None:
        _wait_for(args.device)
        self._mark = time.perf_counter()

    on_train_begin = on_epoch_begin = on_evaluate = on_save = on_log = _restart

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the time since the last step, evaluation or save."""
        if (
            control.should_log
            or control.should_evaluate
            or control.should_save
            or control.should_training_stop
        ):
            _wait_for(args.device)
        self._add()
        self.steps += 1

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the time that an accelerator still needs for the last steps."""
        _wait_for(args.device)
        self._add()

    def _add(self) -> None:
        now = time.perf_counter()
        self.seconds, self._mark = self.seconds + now - self._mark, now


def _wait_for(device: Any) -> None:
    """Wait until an accelerator has done what was queued, so that a clock read next tells of it."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)
