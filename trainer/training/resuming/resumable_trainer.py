"""WeightedTrainer that loses at most the work since its last checkpoint.

It survives a crash, a signal or a full disk.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState

from trainer.errors import RunError, Stopped
from trainer.launch import stopping
from trainer.launch.distributed import is_main
from trainer.training.progress import StepClock
from trainer.training.resuming.checkpoints import (
    PROGRESS,
    checkpoint_path,
    drop_old,
    mark_whole,
    partial_path,
    publish,
    saving,
)
from trainer.training.trackers.trackers import Trackers
from trainer.training.weighted_trainer import WeightedTrainer

STEPS_PER_QUESTION = 4
"""Optimizer steps after which several processes ask each other for a stop signal.

They count steps and not seconds, so that all ask at the same step."""


def keep_rows_per_step(arguments: TrainingArguments, checkpoint: str) -> str | None:
    """Adapt the batch size to another number of processes than the checkpoint was saved by.

    Returns:
        A message about it, or None if the number is the same.
    Raises:
        RunError: the processes cannot share the rows of a step equally.
    """
    saved = json.loads((Path(checkpoint) / PROGRESS).read_text(encoding="utf-8"))
    before, now = saved["num_processes"], arguments.world_size
    rows_per_step = saved["rows_per_process"] * before
    if before == now:
        return None
    rows, rest = divmod(rows_per_step, now)
    if rest:
        raise RunError(
            f"{checkpoint}: was saved by {before} process(es) that trained {rows_per_step} rows per"
            f" step, which {now} cannot share equally. Launch {before}, or another number that"
            " divides the rows, or use --resume never to start again."
        )
    arguments.per_device_train_batch_size = max(
        size for size in range(1, arguments.per_device_train_batch_size + 1) if rows % size == 0
    )
    arguments.gradient_accumulation_steps = rows // arguments.per_device_train_batch_size
    return (
        f"The checkpoint was saved by {before} process(es), now there are {now}. A step holds the"
        " same rows, so results are equal up to rounding and dropout."
    )


class ResumableTrainer(WeightedTrainer):
    """WeightedTrainer whose resumed run equals its uninterrupted run, bit for bit on a CPU.

    transformers saves weights, optimizer, schedule, random states, log and early stopping. This
    class adds the running loss, the evaluation that was due, and the best step. A step that is
    better than all before is saved at once, whatever the save interval.

    Args:
        save_total_limit: number of checkpoints to keep; the newest and the best always stay. None
            keeps all.
        plan_digest: digest of the rows of each epoch and their weights, which must be equal for a
            checkpoint to be resumed.
        trackers: the trackers of `training.report_to`.
    """

    model: Any
    model_wrapped: Any

    def __init__(
        self,
        *,
        save_total_limit: int | None = 2,
        plan_digest: str = "",
        trackers: Trackers | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.save_total_limit, self.plan_digest = save_total_limit, plan_digest
        self.trackers, self.clock = trackers or Trackers(), StepClock()
        self._epoch_end = _EpochEnd(self)
        self._progress: dict[str, Any] | None = None
        self._saved_step: int | None = None
        self.add_callback(self.trackers)
        self.add_callback(self._epoch_end)
        self.add_callback(self.clock)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return Path(str(self.args.output_dir))

    @property
    def best_step(self) -> int | None:
        """Optimizer step of the saved model; None for the last step."""
        return self.state.best_global_step if self.args.load_best_model_at_end else None

    def resume(self, checkpoint: str | None) -> None:
        """Train from the start or a checkpoint to the end; then load the best model if wanted.

        Raises:
            Stopped: a signal came, and the step that the error names is saved.
            RunError: the checkpoint has another balance plan, or one could not be saved.
        """
        if checkpoint:
            saved = json.loads((Path(checkpoint) / PROGRESS).read_text(encoding="utf-8"))
            if saved["plan_digest"] != self.plan_digest:
                raise RunError(
                    f"{checkpoint}: was saved with other training rows or class weights."
                    " Use --resume never to start again."
                )
            self._progress = saved | {"checkpoint": checkpoint}
            self.args.eval_on_start = False
        self.train(resume_from_checkpoint=checkpoint)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        done = super()._init_training_state(*args, **kwargs)
        if self._progress:
            # transformers resets it when training begins
            self._progress["is_over"] = self.control.should_training_stop
            best = self._progress["best_step"]
            self.state.best_model_checkpoint = (
                None if best is None else str(checkpoint_path(self.checkpoints, best))
            )
        return done

    def restore_progress(self) -> None:
        """Restore what transformers does not, and do the evaluation and saving that were due."""
        saved = self._progress
        if saved is None:
            return
        losses, rank = saved["running_losses"], self.args.process_index
        own = losses[rank] if len(losses) == self.args.world_size else float(np.mean(losses))
        self._tr_loss = torch.tensor(own, device=self.args.device)
        self._total_loss_scalar = saved["total_loss"]
        self._globalstep_last_logged = saved["last_logged_step"]
        self.clock.seconds, self.clock.steps = saved["seconds"], saved["timed_steps"]
        self._saved_step = self.state.global_step
        # before a new checkpoint of the same step can replace this one
        self._load_rng_state(saved["checkpoint"])
        self._maybe_log_save_evaluate(
            self._tr_loss, None, self.model_wrapped, None, self.state.epoch, None, None
        )
        self.control.should_training_stop |= saved["is_over"]

    def _run_epoch(self, **kwargs: Any) -> None:
        if not self.control.should_training_stop:  # true if the resumed run was over
            super()._run_epoch(**kwargs)

    def _maybe_log_save_evaluate(
        self,
        tr_loss: torch.Tensor,
        grad_norm: Any,
        model: Any,
        trial: Any,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        if self._epoch_end.is_near:
            return
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, trial, *args, **kwargs)
        except Stopped:  # during the evaluation, which is still due
            self._save_checkpoint(model, trial, is_save_due=self.control.should_save)
            raise
        is_asked = self.args.world_size == 1 or self.state.global_step % STEPS_PER_QUESTION == 0
        if is_asked and stopping.agreed():
            if self._saved_step != self.state.global_step:
                self._save_checkpoint(model, trial)
            stopping.stop_if_agreed(self.state.global_step)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Return whether this step is the best so far; have it saved if the best is wanted."""
        if self.args.metric_for_best_model is None:
            return False
        value = metrics[f"eval_{self.args.metric_for_best_model.removeprefix('eval_')}"]
        best = self.state.best_metric
        is_best = best is None or (value > best if self.args.greater_is_better else value < best)
        if is_best:
            self.state.best_metric, self.state.best_global_step = value, self.state.global_step
            self.state.best_model_checkpoint = str(
                checkpoint_path(self.checkpoints, self.state.global_step)
            )
            self.control.should_save |= self.args.load_best_model_at_end
        return is_best

    def _save_checkpoint(self, model: Any, trial: Any, *, is_save_due: bool = False) -> None:
        """Save under another name and then publish; raise a fault of one process in all."""
        step, folder = self.state.global_step, self.checkpoints
        partial = partial_path(folder, step)
        self.control.should_save = is_save_due
        self.store_flos()
        with self._failing_together(partial):
            if is_main():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
        with self._failing_together(partial):
            self.save_model(str(partial))
            self._save_optimizer_and_scheduler(str(partial))
            self._save_scaler(str(partial))
            self._save_rng_state(str(partial))
        losses = gather_object([self._tr_loss.item()])
        with self._failing_together(partial):
            if is_main():
                self._save_state(partial, losses)
                mark_whole(partial)
                publish(folder, step)
                drop_old(folder, self.save_total_limit)
        self._saved_step = step

    def _save_state(self, partial: Path, losses: list[float]) -> None:
        callbacks = [*self.callback_handler.callbacks, self.control]
        exportable: Any = [each for each in callbacks if isinstance(each, ExportableState)]
        state = TrainerState(stateful_callbacks=exportable)
        self.state.stateful_callbacks = state.stateful_callbacks
        self.state.save_to_json(str(partial / TRAINER_STATE_NAME))
        args = self.args
        progress = {
            "best_step": self.best_step,
            "running_losses": losses,
            "total_loss": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
            "seconds": self.clock.seconds,
            "timed_steps": self.clock.steps,
            "num_processes": args.world_size,
            "rows_per_process": args.per_device_train_batch_size * args.gradient_accumulation_steps,
            "plan_digest": self.plan_digest,
        }
        (partial / PROGRESS).write_text(json.dumps(progress, indent=1), encoding="utf-8")

    @contextmanager
    def _failing_together(self, partial: Path) -> Iterator[None]:
        """Raise a fault of saving in one process in all, and remove the incomplete checkpoint."""
        fault: str | None = None
        try:
            with saving(partial.with_suffix(""), self.checkpoints):
                yield
        except RunError as error:
            fault = str(error)
        faults = [text for text in gather_object([fault]) if text]
        if faults:
            if is_main():
                shutil.rmtree(partial, ignore_errors=True)
            raise RunError(faults[0])


class AfterSave(TrainerCallback):
    """Callback that calls a function after each checkpoint is saved.

    Args:
        action: function (folder of the checkpoint, step) that the saving process waits for.
    """

    def __init__(self, action: Callable[[Path, int], None]) -> None:
        self.action = action

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Call the function."""
        self.action(checkpoint_path(Path(args.output_dir), state.global_step), state.global_step)


class _EpochEnd(TrainerCallback):
    """Callback that delays what is due at the last step of an epoch until the epoch's end.

    No checkpoint is then saved between that step and its evaluation.

    Attributes:
        is_near: whether the last step is done and the end of the epoch follows.
    """

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.is_near = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Restore the progress of a checkpoint."""
        self.trainer.restore_progress()
        return self.trainer.control

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Find out whether the epoch ends here."""
        self.is_near = float(state.epoch).is_integer() or control.should_training_stop

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Allow what was delayed."""
        self.is_near = False
