"""The WeightedTrainer of a run: early checks, clear errors, and facts to report.

It adds packing and passes (pass_trainer.py), work queued on a device (device_trainer.py), and
resuming bit for bit (resuming/resumable_trainer.py) to weighted_trainer.py.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback

from trainer.errors import ConfigError, ModelError, Stopped, TrainingError, first_line
from trainer.launch import watch
from trainer.training import memory
from trainer.training.batches.widths import EQUAL_LENGTHS
from trainer.training.frozen.head import HeadRows
from trainer.training.length import ENDED_EARLY, PlannedLength, TrainingLength, training_length
from trainer.training.models.encoder_layers import set_layer_rates, weight_depths
from trainer.training.models.layers import final_linear
from trainer.training.models.lora import merged
from trainer.training.pass_trainer import PassTrainer
from trainer.training.peak_memory import PeakMemory
from trainer.training.progress import epoch_rows
from trainer.training.refit import REFITS
from trainer.training.resuming.checkpoints import last_good, saving


class RunTrainer(PassTrainer):
    """Trainer of a run, which stops with a clear error if a loss is not a number.

    Args:
        halve_on_out_of_memory: whether the next start may take smaller passes if memory runs out.
        layer_decay: factor of the learning rate from each layer to the one below it; None for one
            rate.
        refit: an entry of trainer.training.refit.REFITS that changes the final layer after
            training, and its rows; None if the layer stays.
    Attributes:
        length: whether the finished training ended too early.
        refitted: what happened to the final layer after training, in a sentence.
    """

    def __init__(
        self,
        *,
        halve_on_out_of_memory: bool = True,
        layer_decay: float | None = None,
        refit: tuple[str, HeadRows] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer_decay, self.refit = layer_decay, refit
        if refit is not None and final_linear(self.model) is None:
            raise ModelError(
                f"training.refit_head fits a final Linear layer, and {type(self.model).__name__}"
                " has none. Remove it."
            )
        self.length: TrainingLength | None = None
        self.refitted = ""
        self.halve_on_out_of_memory = halve_on_out_of_memory
        self.num_trained = self.model.num_parameters(only_trainable=True)
        self.num_parameters = self.model.num_parameters()

    def run(self, checkpoint: str | None) -> dict[str, Any]:
        """Train, from a checkpoint if one is given.

        Returns:
            The entries of metrics.json under `training`.
        Raises:
            Stopped: a signal came; or memory ran out, and the next start takes smaller passes.
            TrainingError: memory ran out, and smaller passes are not wanted or not possible.
        """
        peak = PeakMemory(self.args.device)
        try:
            self.resume(checkpoint)
        except RuntimeError as error:
            if not memory.is_out_of_memory(error):
                raise
            step = self.state.global_step
            given: tuple[Any, ...] = (self.train_dataset, self.eval_dataset)
            longest = max(int(rows.lengths_N.max()) for rows in given if rows is not None)
            largest = min(self.tokens_per_pass, self._largest_pass or self.tokens_per_pass)
            message = memory.halve_passes(
                self.checkpoints,
                largest,
                longest,
                step,
                wanted=self.halve_on_out_of_memory,
            )
            raise Stopped(message, step, is_alone=True) from error
        if self.refit is not None:
            # removes autocast from the forward method of the model
            self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
            kind, rows_of_head = self.refit
            self.refitted = REFITS[kind](self, rows_of_head)
        clock, sampler = self.clock, self.get_train_dataloader().batch_sampler
        steps_per_epoch = -(-len(sampler) // self.args.gradient_accumulation_steps)
        rows = clock.steps * sampler.num_rows / max(1, steps_per_epoch)
        self.length = self._length(sampler.num_rows)
        return {
            "seconds": clock.seconds,
            "rows_per_second": rows / clock.seconds if clock.seconds else 0.0,
            **peak.figures(),
            "steps": self.state.global_step,
            "length": self.length.to_dict(),
        }

    def _length(self, num_rows: int) -> TrainingLength:
        """Return whether the finished training ended while it still improved.

        Args:
            num_rows: training rows of an epoch.
        """
        args, state = self.args, self.state
        patience = [
            callback
            for callback in self.callback_handler.callbacks
            if isinstance(callback, EarlyStoppingCallback)
            and callback.early_stopping_patience_counter >= callback.early_stopping_patience
        ]
        rows: Any = self.eval_dataset
        targets = np.zeros(0, int) if rows is None else np.asarray(rows.label_ids_N)
        rows_C = targets.sum(0) if targets.ndim == 2 else np.bincount(targets)
        rows_C = rows_C[rows_C > 0]
        return training_length(
            PlannedLength(
                num_rows,
                self.model.config.num_labels,
                args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
                args.num_train_epochs,
                args.max_steps,
            ),
            state.log_history,
            metric=args.metric_for_best_model or "loss",
            greater_is_better=bool(args.greater_is_better),
            learning_rate=args.learning_rate,
            row_value=1 / (len(rows_C) * int(rows_C.min())) if len(rows_C) else 0.0,
            stopped_early=bool(patience) or state.global_step < state.max_steps,
        )

    def figures(self) -> str:
        """Return the mean loss since the last log, and the rows per second, for the bar."""
        args, clock = self.args, self.clock
        steps = max(1, self.state.global_step - self._globalstep_last_logged)
        rows = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        speed = clock.steps * rows / clock.seconds if clock.seconds else 0.0
        return f"loss {self._tr_loss.item() / steps:.3f}, {speed:,.0f} rows/s"

    def check_optimizer(self) -> None:
        """Build optimizer, schedule and batches once, so that bad values show before a run starts.

        Raises:
            ConfigError: transformers or torch refuse the values, or an epoch has no whole step.
        """
        if len(self.get_train_dataloader()) == 0:
            raise ConfigError(
                "training.dataloader_drop_last drops every row: an epoch holds no whole step."
                " Lower per_device_train_batch_size."
            )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return
        try:
            self.create_optimizer_and_scheduler(num_training_steps=10)
        except (ValueError, TypeError, ImportError, RuntimeError, KeyError) as error:
            raise ConfigError(
                f"training: optim {self.args.optim} or lr_scheduler_type"
                f" {self.args.lr_scheduler_type}: {first_line(error)}"
            ) from error
        self.optimizer = self.lr_scheduler = None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Return the optimizer, whose learning rates fall from layer to layer if this is wanted.

        Raises:
            ConfigError: the weights are sharded, so that layers cannot have their own rates.
        """
        is_new = self.optimizer is None
        optimizer: torch.optim.Optimizer = super().create_optimizer(model)
        if self.layer_decay is not None and is_new:
            if self.is_fsdp_enabled or self.is_deepspeed_enabled:
                raise ConfigError(
                    "training.layerwise_learning_rate_decay needs whole weights, but they are"
                    " sharded. Remove it."
                )
            set_layer_rates(optimizer, weight_depths(self.model), self.layer_decay)
        return optimizer

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss, and report progress so that a hanging process can be identified."""
        loss = super().compute_loss(*args, **kwargs)
        watch.progress(f"step {self.state.global_step + 1}")
        return loss

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Compute loss and gradient of a micro-batch.

        Raises:
            TrainingError: the loss is not a number. On an accelerator it is read later, with the
                log, since reading it here would wait for the step.
        """
        loss = super().training_step(*args, **kwargs)
        if self.args.device.type == "cpu":
            self._refuse_not_finite(loss, "training", step=self.state.global_step + 1)
        return loss

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        if self.control.should_log or self.control.should_save or self.control.should_evaluate:
            self._refuse_not_finite(tr_loss, "training", "or before")
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._refuse_not_finite(self._tr_loss, "training", "or before")
        super()._save_checkpoint(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the validation metrics, with the prefix eval_.

        Raises:
            TrainingError: the validation loss is not a number.
        """
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        loss = torch.tensor(metrics.get("eval_loss", 0.0), dtype=torch.float64)
        self._refuse_not_finite(loss, "validation")
        return metrics

    def _refuse_not_finite(
        self, loss: torch.Tensor, split: str, suffix: str = "", step: int | None = None
    ) -> None:
        if not torch.isfinite(loss):
            step = self.state.global_step if step is None else step
            raise TrainingError(
                f"the {split} loss is {loss.item()} at step {f'{step} {suffix}'.strip()};"
                f" {last_good(self.checkpoints)}. Lower training.learning_rate, or look for broken"
                " rows."
            )

    def merge_adapter(self, folder: Path) -> None:
        """Save the adapter of `model.mode: lora`, and merge it into the model.

        From then on the ordinary model is evaluated and saved.
        """
        adapted = self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        if self.args.should_save:
            with saving(folder, self.checkpoints):
                adapted.save_pretrained(str(folder))
            (folder / "README.md").unlink(missing_ok=True)  # the empty card of peft
        self.model = self.model_wrapped = merged(adapted)

    def epoch_rows(self) -> list[dict[str, float]]:
        """Return the table of evaluations so far."""
        return epoch_rows(self.state.log_history)

    def describe(self) -> list[str]:
        """Return sentences about the training for the model card."""
        parameters = f"trained parameters: {self.num_trained:,} of {self.num_parameters:,}"
        reason, words = self.padded_because, self.length.words if self.length else ""
        batches = f"batches: {f'padded, since {reason}' if reason else 'without padding'}"
        return [
            *([f"{ENDED_EARLY}: {words}"] if words else []),
            *([self.refitted] if self.refitted else []),
            parameters,
            EQUAL_LENGTHS if self.equal_lengths else batches,
        ]
