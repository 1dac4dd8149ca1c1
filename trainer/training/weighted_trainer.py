"""transformers.Trainer with our loss and our batches, as little else overridden as can be."""

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm.auto import tqdm
from transformers import EvalPrediction, PrinterCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from trainer.arrays import Floats, Floats32, Ints
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.errors import ConfigError, Stopped, TrainingError, first_line
from trainer.evaluation.blocks import release, room
from trainer.evaluation.multi_label import evaluate
from trainer.launch import stopping, watch
from trainer.launch.distributed import largest_of_all
from trainer.training import memory
from trainer.training.batches.batching import (
    Collator,
    StepBatchSampler,
    StepDataLoader,
    cut_into_passes,
    pass_starts,
    token_batches,
    tokens_computed,
)
from trainer.training.batches.batching import tokens_per_pass as default_tokens_per_pass
from trainer.training.batches.packed_rows import PackedRows
from trainer.training.batches.packing import runs_without_padding
from trainer.training.device_trainer import (
    DeviceTrainer,
    classifier_of,
    fit_to_model,
    pack_on_device,
)
from trainer.training.losses import step_loss
from trainer.training.models.cpu_layers import speed_up
from trainer.training.models.layers import trainable_parameters
from trainer.training.models.lora import merged
from trainer.training.models.model_checks import EQUAL_LENGTHS
from trainer.training.peak_memory import PeakMemory
from trainer.training.progress import epoch_rows
from trainer.training.resuming.checkpoints import last_good, saving

PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "rmsprop", "adagrad", "adafactor")
"""Optimizers that leave the gradient as it is, so that its rows without a token stay zero."""

GATHERED_BYTES = 1 << 26
"""Logits of one piece, of all processes together."""


class WeightedTrainer(DeviceTrainer):
    """Trainer whose gradient depends on the rows of an optimizer step alone, however they are cut.

    The stock Trainer's gradient for sequence classification comes out gradient_accumulation_steps x processes too large
    (https://github.com/huggingface/transformers/issues/47688), and a per-batch weighted mean weighs micro-batches
    instead of rows. Here the loss is summed and divided once by the rows of the whole step.

    Args:
        positions: epoch -> rows of `train_dataset` that this epoch sees; left out: all.
        class_weights_C: one weight per class, or the positive weights of multi-label rows; left out: 1.
        loss: an entry of trainer.training.losses.LOSSES or MULTI_LABEL_LOSSES.
        loss_options: what that loss takes beside class weights; label smoothing comes from `args`.
        balanced_batches: every optimizer step holds every class equally.
        sampling: an entry of trainer.training.batches.batching.SAMPLERS, which form the steps of an epoch.
        packing: run the encoder over the tokens alone, where the model allows it.
        fast_layers: replace layers that are slow on CPUs.
        tokens_per_pass: most tokens of one forward pass; left out: by the device.
    """

    model: Any
    model_wrapped: Any

    def __init__(
        self,
        *,
        args: TrainingArguments,
        positions: Callable[[int], Ints] | None = None,
        class_weights_C: Floats | None = None,
        loss: str = "cross_entropy",
        loss_options: dict[str, Any] | None = None,
        sampling: str = "group_by_length",
        balanced_batches: bool = False,
        packing: bool = True,
        fast_layers: bool = True,
        tokens_per_pass: int | None = None,
        halve_on_out_of_memory: bool = True,
        **kwargs: Any,
    ) -> None:
        num_labels = kwargs["model"].config.num_labels
        weights_C = (
            torch.ones(num_labels)
            if class_weights_C is None
            else torch.as_tensor(class_weights_C, dtype=torch.float32)
        )
        smoothing = (
            {"label_smoothing": args.label_smoothing_factor} if args.label_smoothing_factor else {}
        )
        kwargs["compute_loss_func"] = step_loss(loss, weights_C, (loss_options or {}) | smoothing)
        self.padded_because = (
            pack_on_device(kwargs["model"], args) if packing else "speed.packing is off"
        )
        collate = kwargs.get("data_collator")
        is_asked = self.padded_because is not None or args.world_size > 1  # by all or by none
        self.equal_lengths = False
        if is_asked and isinstance(collate, Collator):
            self.equal_lengths = fit_to_model(kwargs["model"], collate, args)
        self._largest_pass = 0
        args._n_gpu = min(
            args.n_gpu, 1
        )  # several GPUs are used through accelerate, never through DataParallel
        checkpoints, args.output_dir = (
            args.output_dir,
            tempfile.gettempdir(),
        )  # Trainer would create the folder before a run is started
        super().__init__(args=args, **kwargs)
        args.output_dir = checkpoints
        self.remove_callback(PrinterCallback)  # EpochTable prints
        self.positions, self.sampling, self.balanced_batches = positions, sampling, balanced_batches
        self.num_trained, self.num_parameters = trainable_parameters(self.model)
        self.tokens_per_pass, self.halve_on_out_of_memory = (
            tokens_per_pass or default_tokens_per_pass(args.device),
            halve_on_out_of_memory,
        )
        self.plain_because: str | None = None
        if fast_layers and args.device.type == "cpu":
            self.plain_because = speed_up(
                classifier_of(self.model),
                own_gradients=args.world_size == 1 and args.optim in PLAIN_OPTIMIZERS,
            )

    def get_train_dataloader(self) -> StepDataLoader:
        """Micro-batches of this process; already sharded, so accelerate does not touch them."""
        dataset = self.train_dataset
        if not isinstance(dataset, TokenisedRows):
            raise TypeError(
                f"train_dataset is {type(dataset).__name__}; WeightedTrainer takes TokenisedRows"
            )
        sampler = StepBatchSampler(
            self.positions or (lambda epoch: np.arange(len(dataset))),
            dataset.lengths_N,
            strategy=self.sampling,
            seed=self.args.seed,
            rows_per_batch=self.args.per_device_train_batch_size,
            batches_per_step=self.args.gradient_accumulation_steps,
            num_shards=self.args.world_size,
            shard=self.args.process_index,
            drop_last=self.args.dataloader_drop_last,
            balanced_label_ids_N=dataset.label_ids_N if self.balanced_batches else None,
        )
        return StepDataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """One micro-batch, in passes of `tokens_per_pass`; stops the run when its loss is not a number.

        Raises:
            TrainingError: naming the step and the last whole checkpoint.
        """
        losses = []
        starts = self._pass_starts(inputs["attention_mask"].sum(1).tolist())
        collate = self.data_collator
        multiple = collate.multiple if self.equal_lengths else max(8, collate.multiple)
        passes = cut_into_passes(inputs, starts, multiple=multiple, least=collate.least)
        for number, batch in enumerate(passes, start=1):
            with nullcontext() if number == len(passes) else self.accelerator.no_sync(model):
                losses.append(super().training_step(model, self.packed(batch), num_items_in_batch))
        loss = torch.stack(losses).sum()
        if (
            self.args.device.type == "cpu"
        ):  # reading it from a GPU would wait for the step: there it is read with the log
            self._refuse_not_finite(loss, f"at step {self.state.global_step + 1}")
        return loss

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """The loss; whoever hangs before it is behind those that wait in the backward pass."""
        loss = super().compute_loss(*args, **kwargs)
        watch.progress(f"step {self.state.global_step + 1}")
        return loss

    def _pass_starts(self, lengths_B: list[int]) -> list[int]:
        """First rows of the passes of a micro-batch; with FSDP every process makes as many, and DeepSpeed takes each pass for a step."""
        if self.is_deepspeed_enabled:
            return [0]
        cut = partial(
            pass_starts,
            lengths_B,
            self.tokens_per_pass,
            most_runs=self._most_runs,
            equal_lengths=self.equal_lengths,
        )
        starts = cut()
        if self.is_fsdp_enabled and self.args.world_size > 1:
            starts = cut(at_least=largest_of_all(len(starts)))
        return starts

    @property
    def _most_runs(self) -> int:
        """See `batching.tokens_computed`."""
        return 0 if self.padded_because else runs_without_padding(self.args.device)

    def packed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch, with its rows' places where the model runs without padding."""
        lengths_B = batch["attention_mask"].sum(1).tolist()
        self._largest_pass = max(self._largest_pass, tokens_computed(lengths_B, self._most_runs))
        return (
            batch
            if self.padded_because
            else batch
            | {"packed_rows": PackedRows(batch["attention_mask"].bool(), self.args.device)}
        )

    def _refuse_not_finite(self, loss: torch.Tensor, when: str) -> None:
        if not torch.isfinite(loss):
            raise TrainingError(
                _not_finite("training loss", loss.item(), when, Path(str(self.args.output_dir)))
            )

    def _maybe_log_save_evaluate(self, tr_loss: torch.Tensor, *args: Any, **kwargs: Any) -> None:
        if self.control.should_log or self.control.should_save or self.control.should_evaluate:
            self._refuse_not_finite(tr_loss, f"at step {self.state.global_step} or before")
        super()._maybe_log_save_evaluate(tr_loss, *args, **kwargs)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        self._refuse_not_finite(self._tr_loss, f"at step {self.state.global_step} or before")
        super()._save_checkpoint(*args, **kwargs)

    def evaluation_loop(
        self, dataloader: Any, description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """Predictions and metrics of all rows; the loss is computed once over them, never as a mean of means."""
        rows: TokenisedRows = dataloader.dataset
        logits_NC = self.logits(rows, description)
        metrics = (
            self.compute_metrics(EvalPrediction(logits_NC, rows.label_ids_N))
            if self.compute_metrics
            else {}
        )  # type: ignore[arg-type]
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(logits_NC, rows.label_ids_N, named, len(rows))  # type: ignore[arg-type]

    def logits(self, rows: TokenisedRows, description: str) -> Floats32:
        """Logits (N, C) in the order of the rows; every process computes its share, in as many passes as the others.

        They are collected in pieces of GATHERED_BYTES, in an array that lies in a file of the run folder where it is large.
        """
        model = self.model_wrapped if self.is_fsdp_enabled else self.model
        if not (
            self.is_fsdp_enabled or self.is_deepspeed_enabled
        ):  # those place the weights themselves
            model.to(self.args.device)
        model.eval()
        batches, world = (
            token_batches(rows.lengths_N, self.tokens_per_pass, equal_lengths=self.equal_lengths),
            self.args.world_size,
        )
        logits_NC = room(
            (len(rows), self.model.config.num_labels),
            np.float32,
            Path(str(self.args.output_dir)).parent,
        )
        gathered: list[torch.Tensor] = []
        begun = 0
        with (
            torch.no_grad(),
            tqdm(
                total=len(batches),
                desc=description,
                unit=" batches",
                delay=2,
                disable=None,
                leave=False,
            ) as bar,
        ):
            for start in range(0, len(batches), world):
                stopping.stop_if_agreed(self.state.global_step)
                own = start + self.args.process_index
                batch = self.data_collator(rows.__getitems__(batches[min(own, len(batches) - 1)]))  # type: ignore[arg-type]
                del batch["labels"]
                found_BC = model(**self._prepare_inputs(self.packed(batch))).logits
                gathered.append(found_BC.float() if own < len(batches) else found_BC[:0].float())
                ended = min(start + world, len(batches))
                if (
                    ended == len(batches)
                    or _num_rows(batches[begun:ended]) * logits_NC.shape[1] * 4 >= GATHERED_BYTES
                ):
                    self._place(torch.cat(gathered), batches[begun:ended], logits_NC)
                    gathered, begun = [], ended
                bar.update(min(world, len(batches) - start))
                watch.progress(f"{description.lower()} after step {self.state.global_step}")
        return logits_NC

    def _place(
        self,
        found_BC: torch.Tensor,
        batches: list[Ints],
        logits_NC: Floats32,
    ) -> None:
        """Put the logits of some batches, of which every process has computed each `world_size`th, where their rows stand."""
        world = self.args.world_size
        rows = [
            np.concatenate([np.empty(0, np.int64), *batches[process::world]])
            for process in range(world)
        ]
        if world > 1:  # of equal length, so that they can be gathered
            longest = max(map(len, rows))
            padded_BC = torch.nn.functional.pad(found_BC, (0, 0, 0, longest - len(found_BC)))
            found = self.accelerator.gather(padded_BC).cpu().numpy().reshape(world, longest, -1)  # type: ignore[union-attr]
        else:
            found = found_BC.cpu().numpy()[None]
        for process, places in enumerate(rows):
            logits_NC[places] = found[process, : len(places)]
        release(logits_NC)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation metrics, under the prefix eval_.

        Raises:
            TrainingError: the validation loss is not a number.
        """
        metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        loss = metrics.get("eval_loss", 0.0)
        if not np.isfinite(loss):
            raise TrainingError(
                _not_finite(
                    "validation loss",
                    loss,
                    f"at step {self.state.global_step}",
                    Path(str(self.args.output_dir)),
                )
            )
        return metrics

    def run(self, checkpoint: str | None) -> dict[str, Any]:
        """Train, from a checkpoint if one is given; what metrics.json holds under `training`.

        Raises:
            Stopped: by a signal; or memory ran out, and the next start takes smaller passes.
            TrainingError: memory ran out, and no smaller passes are wanted or possible.
        """
        peak = PeakMemory(self.args.device)
        try:
            self.resume(checkpoint)
        except RuntimeError as error:
            if not memory.is_out_of_memory(error):
                raise
            step, longest = self.state.global_step, self._longest_row
            largest = min(self.tokens_per_pass, self._largest_pass or self.tokens_per_pass)
            note = memory.halve_passes(
                self.checkpoints, largest, longest, step, wanted=self.halve_on_out_of_memory
            )
            raise Stopped(note, step, is_alone=True) from error
        clock, sampler = self.clock, self.get_train_dataloader().batch_sampler
        rows = (
            clock.steps
            * sampler.num_rows
            / max(1, -(-len(sampler) // self.args.gradient_accumulation_steps))
        )  # type: ignore[union-attr, arg-type]
        return {
            "seconds": clock.seconds,
            "rows_per_second": rows / clock.seconds if clock.seconds else 0.0,
            **peak.figures(),
            "steps": self.state.global_step,
        }

    @property
    def _longest_row(self) -> int:
        """Tokens of the longest row that this trainer is given for training and evaluation."""
        return max(
            int(rows.lengths_N.max())
            for rows in (self.train_dataset, self.eval_dataset)
            if rows is not None
        )  # type: ignore[union-attr]

    def check_optimizer(self) -> None:
        """Build optimizer, schedule and batches once and drop them, so that bad values are told before a run is touched.

        Raises:
            ConfigError: values that transformers or torch refuse, or no whole step in an epoch.
        """
        if len(self.get_train_dataloader()) == 0:
            raise ConfigError(
                "training.dataloader_drop_last drops every row: an epoch holds no whole step. Lower per_device_train_batch_size."
            )
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            return
        try:
            self.create_optimizer_and_scheduler(num_training_steps=10)
        except (ValueError, TypeError, ImportError, RuntimeError, KeyError) as error:
            raise ConfigError(
                f"training: optim {self.args.optim} or lr_scheduler_type {self.args.lr_scheduler_type}: {first_line(error)}"
            ) from error
        self.optimizer = self.lr_scheduler = None

    def merge_adapter(self, folder: Path) -> None:
        """Save the adapter of `model.mode: lora` by itself; from then on the ordinary model it becomes is evaluated and saved."""
        adapted = self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)
        if self.args.should_save:
            with saving(folder, Path(str(self.args.output_dir))):
                adapted.save_pretrained(str(folder))
            (folder / "README.md").unlink(missing_ok=True)  # peft's empty card
        self.model = self.model_wrapped = merged(adapted)

    def epoch_rows(self) -> list[dict[str, float]]:
        """The per-epoch table so far."""
        return epoch_rows(self.state.log_history)

    def describe(self) -> list[str]:
        """What the card says of the training beside its arguments, a sentence each."""
        batches = (
            f"padded, since {self.padded_because}" if self.padded_because else "without padding"
        )
        return [
            f"trained parameters: {self.num_trained:,} of {self.num_parameters:,}",
            EQUAL_LENGTHS if self.equal_lengths else f"batches: {batches}",
        ]

    def predict_logits(self, dataset: TokenisedRows) -> Floats32:
        """Logits in the order of `dataset`, in float32 whatever training used; in smaller passes where memory is too small.

        Several processes keep their passes: each would have to know of the other's lack of memory.
        """
        self.accelerator.unwrap_model(
            self.model_wrapped, keep_fp32_wrapper=False
        )  # takes autocast off the model's forward

        def compute(tokens: int) -> Floats32:
            self.tokens_per_pass = tokens
            return self.logits(dataset, "Predicting")

        longest = (
            int(dataset.lengths_N.max(initial=0))
            if self.args.world_size == 1
            else self.tokens_per_pass
        )
        return memory.in_smaller_passes(compute, self.tokens_per_pass, longest)[0]


def _num_rows(batches: list[Ints]) -> int:
    return sum(map(len, batches))


def epoch_metrics(
    labels: list[str], minority_label: str
) -> Callable[[EvalPrediction], dict[str, float]]:
    """The `compute_metrics` of transformers.Trainer: the numbers of an Evaluation, and recall of the minority class."""

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        evaluation = evaluate(prediction.predictions, prediction.label_ids, labels)  # type: ignore[arg-type]
        numbers = {
            name: value
            for name, value in evaluation.to_dict().items()
            if isinstance(value, int | float)
        }
        return numbers | {"minority_recall": evaluation.per_class[minority_label]["recall"]}

    return compute


def _not_finite(what: str, value: float, when: str, checkpoint_dir: Path) -> str:
    return f"the {what} is {value} {when}; {last_good(checkpoint_dir)}. Lower training.learning_rate, or look for broken rows."
