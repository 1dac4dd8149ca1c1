"""What the user sees while a model trains: a progress bar and the table of evaluations."""

import sys
import time
from collections.abc import Callable
from typing import Any

from transformers import EvalPrediction, TrainerCallback

from trainer.evaluation.multi_label import evaluate
from trainer.progress import print_line, progress_bar

COLUMNS = (
    "training_loss",
    "epoch",
    "step",
    "validation_loss",
    "accuracy",
    "macro_f1",
    "minority_recall",
)
FIGURES_SECONDS = 1.0
"""Seconds between two readings of the loss for the bar."""
SIGN_SECONDS = 600.0
"""Seconds between two signs of life where there is no bar."""
HEADINGS = tuple(name.replace("_", " ").title() for name in COLUMNS)


def table_row(
    training_loss: float, epoch: float, step: float, metrics: dict[str, float], prefix: str = ""
) -> dict[str, float]:
    """Return a row of the table, with one value for each of COLUMNS.

    Args:
        metrics: metrics of an evaluation.
        prefix: prefix of their names.
    """
    measured = (metrics[f"{prefix}{name}"] for name in ("loss", *COLUMNS[4:]))
    return dict(zip(COLUMNS, (training_loss, epoch, step, *measured), strict=True))


def epoch_metrics(
    labels: list[str], minority_label: str
) -> Callable[[EvalPrediction], dict[str, float]]:
    """Return the `compute_metrics` of transformers.Trainer.

    It gives the numbers of an Evaluation and the recall of the minority class.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        logits_NC: Any = prediction.predictions
        targets: Any = prediction.label_ids
        evaluation = evaluate(logits_NC, targets, labels)
        values = evaluation.to_dict().items()
        numbers = {name: value for name, value in values if isinstance(value, int | float)}
        return numbers | {"minority_recall": evaluation.per_class[minority_label]["recall"]}

    return compute


def epoch_rows(log_history: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the table of evaluations from the Trainer's log.

    Checkpoints contain the log, so a resumed run keeps the rows of the table.
    """
    rows, training_loss = [], float("nan")
    for entry in log_history:
        training_loss = entry.get("loss", training_loss)
        if "eval_macro_f1" in entry:
            rows.append(table_row(training_loss, entry["epoch"], entry["step"], entry, "eval_"))
    return rows


def headings(*, head: bool) -> tuple[str, ...]:
    """Return the headings of the table.

    Args:
        head: whether only the head is trained; then a row is a fit with one L2 strength.
    """
    return (HEADINGS[0], "Fit", *HEADINGS[2:], "     L2") if head else HEADINGS


def row_cells(row: dict[str, float]) -> list[str]:
    """Return a row of the table as text, in the order of COLUMNS, with the L2 strength if any."""
    formats = {"step": ".0f", "epoch": ".4g"}
    cells = [format(row[name], formats.get(name, ".4f")) for name in COLUMNS]
    return [*cells, f"{row['l2']:g}"] if "l2" in row else cells


def table_line(row: dict[str, float]) -> str:
    """Return a row of the table as a line, aligned with the headings."""
    columns = zip(row_cells(row), headings(head="l2" in row), strict=True)
    return "  ".join(cell.rjust(len(heading)) for cell, heading in columns)


class EpochTable(TrainerCallback):
    """The table of evaluations, and a progress bar.

    Where no bar can be shown, a line is printed every SIGN_SECONDS.

    Args:
        write_epochs: saves the rows of the table.
        figures: gives the figures of the training beside the bar. It is called once in
            FIGURES_SECONDS, since an accelerator finishes its queued steps first.
    """

    def __init__(
        self,
        write_epochs: Callable[[list[dict[str, float]]], None] | None = None,
        figures: Callable[[], str] = str,
    ) -> None:
        self.write_epochs, self.figures = write_epochs, figures
        self.bar: Any = None
        self.num_printed = 0
        self.macro_f1 = ""
        self.last_sign = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the bar and print the headings, with the rows of a resumed run."""
        if state.is_world_process_zero:
            self.bar = progress_bar(
                total=state.max_steps,
                initial=state.global_step,
                desc="Training",
                bar_format="{desc} |{bar}| {n_fmt}/{total_fmt}, {remaining} left{postfix}",
                smoothing=0,  # the time left includes evaluations
                leave=True,
            )
            print_line("  ".join(HEADINGS))
            self.on_log(args, state, control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar is None:
            return
        seconds = time.monotonic() - self.last_sign
        if seconds > (SIGN_SECONDS if self.bar.disable else FIGURES_SECONDS):
            self.last_sign = time.monotonic()
            figures = self.figures() + self.macro_f1
            if self.bar.disable:
                print_line(f"step {state.global_step} of {state.max_steps}, {figures}", sys.stderr)
            else:
                self.bar.set_postfix_str(figures, refresh=False)
        self.bar.update(1)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Print and save the new rows of the table."""
        rows = epoch_rows(state.log_history)
        if self.bar is None or len(rows) == self.num_printed:
            return
        for row in rows[self.num_printed :]:
            print_line(table_line(row))
        self.num_printed = len(rows)
        self.macro_f1 = f", macro F1 {rows[-1]['macro_f1']:.3f}"
        if self.write_epochs:
            self.write_epochs(rows)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Close the bar."""
        if self.bar is not None:
            self.bar.close()


class StepClock(TrainerCallback):
    """Seconds spent in training steps and in loading their batches.

    Evaluation and saving are not counted. An accelerator still computes after Python has queued a
    step. The clock waits for it before a log, an evaluation, a save and the end of an epoch, so
    that no work is left out. Waiting after every step would slow training down.

    Attributes:
        seconds: seconds of this process; a resumed run adds to those of its checkpoint.
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
        is_due = control.should_log or control.should_evaluate or control.should_save
        if is_due or control.should_training_stop:
            _wait_for(args.device)
        self._add()
        self.steps += 1

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Add the time that an accelerator needs to finish the last steps."""
        _wait_for(args.device)
        self._add()

    def _add(self) -> None:
        now = time.perf_counter()
        self.seconds, self._mark = self.seconds + now - self._mark, now


def _wait_for(device: Any) -> None:
    """Wait until an accelerator has finished the queued work."""
    if device.type != "cpu":
        import torch

        torch.accelerator.synchronize(device)
