"""transformers.Trainer that a crash, a signal or a full disk costs no more than the work since its last checkpoint."""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import gather_object
from transformers import Trainer, TrainerCallback, TrainerState, TrainingArguments
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
from trainer.training.trackers import Tracker, guard


def keep_rows_per_step(arguments: TrainingArguments, checkpoint: str) -> str | None:
    """Share the optimizer steps of a checkpoint among another number of processes than saved it; what to say of that, None if it is the same.

    Raises:
        RunError: the rows of a step cannot be shared equally.
    """
    saved = json.loads((Path(checkpoint) / PROGRESS).read_text(encoding="utf-8"))
    before, now, per_process = (
        saved["num_processes"],
        arguments.world_size,
        saved["rows_per_process"],
    )
    if before == now:
        return None
    rows, rest = divmod(per_process * before, now)
    if rest:
        raise RunError(
            f"{checkpoint}: was saved by {before} process(es) that trained {per_process * before} rows a step, which {now} cannot share equally."
            f" Launch {before}, or another number that divides them, or give --resume never to start anew."
        )
    arguments.per_device_train_batch_size = max(
        size for size in range(1, arguments.per_device_train_batch_size + 1) if rows % size == 0
    )
    arguments.gradient_accumulation_steps = rows // arguments.per_device_train_batch_size
    return f"The checkpoint is of {before} process(es), now there are {now}: a step holds the same rows, so results are equal up to rounding and dropout."


class ResumableTrainer(Trainer):
    """Trainer whose resumed run is its unbroken run, bit for bit on a CPU.

    To what transformers keeps (weights, optimizer, schedule, random numbers of every process, log, early stopping) it adds the running loss,
    the evaluation that was due, and the best step, whatever the save interval: a step that is better than all before is always saved.

    Args:
        save_total_limit: checkpoints kept, the newest and the best always; None for all.
        plan_digest: what must be equal for a checkpoint to be resumed, beside config and data: the rows of each epoch and their weights.
    """

    model: Any
    model_wrapped: Any

    def __init__(
        self, *, save_total_limit: int | None = 2, plan_digest: str = "", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.save_total_limit, self.plan_digest = save_total_limit, plan_digest
        self.clock = StepClock()
        self._epoch_end = _EpochEnd(self)
        self._progress: dict[str, Any] | None = None
        self._saved_step: int | None = None
        self.add_callback(self._epoch_end)
        self.add_callback(self.clock)
        guard(self.callback_handler.callbacks)

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return Path(str(self.args.output_dir))

    @property
    def best_step(self) -> int | None:
        """Optimizer step of the model that is kept, None where it is the last one."""
        return self.state.best_global_step if self.args.load_best_model_at_end else None

    def finish_trackers(self) -> None:
        """Let the trackers of `report_to` end and upload; called when the run is saved."""
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, Tracker):
                callback.finish()

    def resume(self, checkpoint: str | None) -> None:
        """Train from the start or a checkpoint to the end; then the best model is loaded, if that is asked for.

        Raises:
            Stopped: a signal came; the step it names is saved.
            RunError: the checkpoint is of another balance plan, or one could not be saved.
        """
        if checkpoint:
            self._progress = json.loads(
                (Path(checkpoint) / PROGRESS).read_text(encoding="utf-8")
            ) | {"checkpoint": checkpoint}
            if self._progress["plan_digest"] != self.plan_digest:
                raise RunError(
                    f"{checkpoint}: was saved with other training rows or class weights. Give --resume never to start anew."
                )
            self.args.eval_on_start = False
        self.train(resume_from_checkpoint=checkpoint)

    def _init_training_state(self, *args: Any, **kwargs: Any) -> tuple[int, int]:
        done = super()._init_training_state(*args, **kwargs)
        if self._progress:
            self._progress["is_over"] = (
                self.control.should_training_stop
            )  # transformers forgets it when training begins
            best = self._progress["best_step"]
            self.state.best_model_checkpoint = (
                None if best is None else str(checkpoint_path(self.checkpoints, best))
            )
        return done

    def restore_progress(self) -> None:
        """On a resumed run, what transformers does not restore, and the evaluation and checkpoint that were due."""
        saved = self._progress
        if saved is None:
            return
        losses = saved["running_losses"]
        own = (
            losses[self.args.process_index]
            if len(losses) == self.args.world_size
            else float(np.mean(losses))
        )
        self._tr_loss = torch.tensor(own, device=self.args.device)
        self._total_loss_scalar, self._globalstep_last_logged = (
            saved["total_loss"],
            saved["last_logged_step"],
        )
        self.clock.seconds, self.clock.steps = saved["seconds"], saved["timed_steps"]
        self._saved_step = self.state.global_step
        self._load_rng_state(
            saved["checkpoint"]
        )  # before a checkpoint of the same step can take the place of this one
        self._maybe_log_save_evaluate(
            self._tr_loss, None, self.model_wrapped, None, self.state.epoch, None, None
        )
        self.control.should_training_stop |= saved["is_over"]

    def _run_epoch(self, **kwargs: Any) -> None:
        if not self.control.should_training_stop:  # so on a resumed run that was over
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
        except Stopped:  # in the evaluation, which is still due
            self._save_checkpoint(model, trial, is_save_due=self.control.should_save)
            raise
        if stopping.agreed():
            if self._saved_step != self.state.global_step:
                self._save_checkpoint(model, trial)
            stopping.stop_if_agreed(self.state.global_step)

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether this step is the best so far; if the best model is wanted in the end, it is saved whatever the interval."""
        if self.args.metric_for_best_model is None:
            return False
        value, best = (
            metrics[f"eval_{self.args.metric_for_best_model.removeprefix('eval_')}"],
            self.state.best_metric,
        )
        is_best = best is None or (value > best if self.args.greater_is_better else value < best)
        if is_best:
            self.state.best_metric, self.state.best_global_step = value, self.state.global_step
            self.state.best_model_checkpoint = str(
                checkpoint_path(self.checkpoints, self.state.global_step)
            )
            self.control.should_save |= self.args.load_best_model_at_end
        return is_best

    def _save_checkpoint(self, model: Any, trial: Any, *, is_save_due: bool = False) -> None:
        """Save aside, then publish; a fault of one process is raised in all."""
        step, folder = self.state.global_step, self.checkpoints
        partial = partial_path(folder, step)
        self.control.should_save = is_save_due
        self.store_flos()
        with self._failing_together(partial):
            if is_main():
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir()
        with self._failing_together(partial):
            self.save_model(str(partial), _internal_call=True)
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
        exportable = [
            callback
            for callback in [*self.callback_handler.callbacks, self.control]
            if isinstance(callback, ExportableState)
        ]
        self.state.stateful_callbacks = TrainerState(
            stateful_callbacks=exportable
        ).stateful_callbacks  # type: ignore[arg-type]
        self.state.save_to_json(str(partial / TRAINER_STATE_NAME))
        progress = {
            "best_step": self.best_step,
            "running_losses": losses,
            "total_loss": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
            "seconds": self.clock.seconds,
            "timed_steps": self.clock.steps,
            "num_processes": self.args.world_size,
            "rows_per_process": self.args.per_device_train_batch_size
            * self.args.gradient_accumulation_steps,
            "plan_digest": self.plan_digest,
        }
        (partial / PROGRESS).write_text(json.dumps(progress, indent=1), encoding="utf-8")

    @contextmanager
    def _failing_together(self, partial: Path) -> Iterator[None]:
        """A fault of saving in one process is raised in all, and what is half-written removed."""
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
    """Tells of each checkpoint when it has its name.

    Args:
        tell: takes its folder and its step; called in the process that has this callback, which waits for it.
    """

    def __init__(self, tell: Callable[[Path, int], None]) -> None:
        self.tell = tell

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell of it."""
        self.tell(checkpoint_path(Path(args.output_dir), state.global_step), state.global_step)


class _EpochEnd(TrainerCallback):
    """Moves what falls due at the last step of an epoch to the epoch's end, so that no checkpoint lies between that step and its evaluation.

    Attributes:
        is_near: the last step is done, the epoch's end follows.
    """

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.is_near = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Restore what a checkpoint holds."""
        self.trainer.restore_progress()
        return self.trainer.control

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell whether the epoch ends here."""
        self.is_near = float(state.epoch).is_integer() or control.should_training_stop

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """What was due at the step is done now."""
        self.is_near = False
