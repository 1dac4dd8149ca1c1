"""WeightedTrainer that computes a micro-batch in passes of a limited number of tokens.

Legend: N rows, B rows of a batch, C classes.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction, PrinterCallback, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput

from trainer.arrays import Floats32, Ints
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.evaluation.blocks import release, room
from trainer.launch import stopping, watch
from trainer.launch.distributed import largest_of_all
from trainer.progress import progress_bar, stage
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
from trainer.training.batches.compiled_layers import compile_layers
from trainer.training.batches.flash_attention import flash_fault
from trainer.training.batches.packed_attention import attention_pads
from trainer.training.batches.packed_rows import PackedRows
from trainer.training.clipping import clip_in_optimizer
from trainer.training.device_trainer import (
    DeviceTrainer,
    classifier_of,
    fit_to_model,
    pack_on_device,
    type_in_training,
)
from trainer.training.memory import in_smaller_passes
from trainer.training.models.cpu_layers import speed_up

PLAIN_OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "rmsprop", "adagrad", "adafactor")
"""Optimizers that do not change the gradient, so that its rows without a token stay 0."""

GATHERED_BYTES = 1 << 26
"""Bytes of the logits that all processes gather at once."""


@contextmanager
def converted_once() -> Iterator[None]:
    """Let autocast keep the weights that it converts for all passes in this block.

    Otherwise each pass converts them again.
    """
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()


class PassTrainer(DeviceTrainer):
    """Trainer whose gradient depends only on the rows of an optimizer step, however they are cut.

    A micro-batch is cut into passes of similar tokens, and the encoder skips padding where the
    model allows it.

    Args:
        positions: function (epoch) -> rows of `train_dataset` in this epoch; without it, all rows.
        sampling: an entry of trainer.training.batches.batching.SAMPLERS.
        balanced_batches: whether every optimizer step holds each class equally often.
        draws_S: draws for each label of multi-label rows, see `StepBatchSampler`.
        packing: whether to compute without padding if the model allows it.
        fast_layers: whether to replace layers that are slow on CPUs.
        tokens_per_pass: most tokens of a forward pass; without it, the device decides.
    Attributes:
        padded_because: why batches are padded; None if they are not.
        attention_padded_because: why attention alone pads rows on an accelerator, if it does.
        equal_lengths: whether the rows of a batch must have equal lengths.
        plain_because: why the layers for CPUs are not replaced; None if they are, or need not be.
    """

    def __init__(
        self,
        *,
        model: Any,
        args: TrainingArguments,
        positions: Callable[[int], Ints] | None = None,
        sampling: str = "group_by_length",
        balanced_batches: bool = False,
        draws_S: Ints | None = None,
        packing: bool = True,
        fast_layers: bool = True,
        tokens_per_pass: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.padded_because = pack_on_device(model, args) if packing else "speed.packing is off"
        collate = kwargs.get("data_collator")
        # all processes must ask, or none
        is_asked = self.padded_because is not None or args.world_size > 1
        self.equal_lengths = (
            is_asked and isinstance(collate, Collator) and fit_to_model(model, collate, args)
        )
        dtype, on_cpu = type_in_training(args), args.device.type == "cpu"
        self._pads = self.padded_because is not None or attention_pads(args.device, dtype)
        is_exempt = on_cpu or self.padded_because is not None
        self.attention_padded_because = None if is_exempt else flash_fault(args.device, dtype)
        self._largest_pass = 0
        # Trainer would make the folder of the checkpoints before the run is started
        checkpoints, args.output_dir = args.output_dir, tempfile.gettempdir()
        compiles = args.torch_compile and self.padded_because is None
        backend = args.torch_compile_backend
        if compiles:  # accelerate would compile the whole model, for each shape of a batch
            args.torch_compile_backend = None
        super().__init__(model=model, args=args, **kwargs)
        args.output_dir, args.torch_compile_backend = checkpoints, backend
        self.remove_callback(PrinterCallback)  # EpochTable prints instead
        self.positions, self.sampling, self.balanced_batches = positions, sampling, balanced_batches
        self.draws_S = draws_S
        self.tokens_per_pass = tokens_per_pass or default_tokens_per_pass(args.device)
        self.plain_because: str | None = None
        self._clips_in_optimizer = False
        if fast_layers and on_cpu:
            own_gradients = args.world_size == 1 and args.optim in PLAIN_OPTIMIZERS
            self.plain_because = speed_up(classifier_of(self.model), own_gradients=own_gradients)
            self._clips_in_optimizer = own_gradients and args.optim == "adamw_torch_fused"
        if compiles:
            with stage() as done:
                compile_layers(
                    classifier_of(self.model), dtype, backend=backend, mode=args.torch_compile_mode
                )
                done("Compiled the layers")

    def get_train_dataloader(self) -> StepDataLoader:
        """Return the micro-batches of this process, which accelerate need not divide again."""
        dataset, args = self.train_dataset, self.args
        if not isinstance(dataset, TokenisedRows):
            raise TypeError(
                f"train_dataset is {type(dataset).__name__}; RunTrainer takes TokenisedRows"
            )
        sampler = StepBatchSampler(
            self.positions or (lambda epoch: np.arange(len(dataset))),
            dataset.lengths_N,
            strategy=self.sampling,
            seed=args.seed,
            rows_per_batch=args.per_device_train_batch_size,
            batches_per_step=args.gradient_accumulation_steps,
            num_shards=args.world_size,
            shard=args.process_index,
            drop_last=args.dataloader_drop_last,
            balanced_label_ids_N=dataset.label_ids_N if self.balanced_batches else None,
            draws_S=self.draws_S,
        )
        return StepDataLoader(
            dataset,  # type: ignore[arg-type]
            batch_sampler=sampler,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            prefetch_factor=args.dataloader_prefetch_factor,
            # so that torch's own generator is not used
            generator=torch.Generator().manual_seed(args.seed),
        )

    def _get_num_items_in_batch(
        self, batch_samples: list[Any], device: torch.device
    ) -> torch.Tensor:
        """Return the number of labels of an optimizer step in all processes, on the CPU.

        Every process knows the rows of the whole step. transformers would gather their number from
        the devices and wait for it.
        """
        sampler: Any = self.callback_handler.train_dataloader.batch_sampler
        rows: Any = self.train_dataset
        labels_per_row = rows.label_ids_N[:1].size
        return torch.tensor(sampler.rows_of_step(self.state.global_step) * labels_per_row)

    def training_step(
        self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Compute loss and gradient of a micro-batch, in passes of `tokens_per_pass`."""
        losses = []
        starts = self._pass_starts(inputs["attention_mask"].sum(1).tolist())
        collate = self.data_collator
        multiple = collate.multiple if self.equal_lengths else max(8, collate.multiple)
        passes = cut_into_passes(inputs, starts, multiple=multiple, least=collate.least)
        # checkpointing may convert weights without gradients, and FSDP frees gathered weights
        is_kept = not (self.is_fsdp_enabled or self.args.gradient_checkpointing)
        with converted_once() if is_kept else nullcontext():
            for number, batch in enumerate(passes, start=1):
                with nullcontext() if number == len(passes) else self.accelerator.no_sync(model):
                    losses.append(
                        super().training_step(model, self.packed(batch), num_items_in_batch)
                    )
        return torch.stack(losses).sum()

    def _clip_grad_norm(self, model: Any) -> torch.Tensor:
        if not self._clips_in_optimizer:
            return super()._clip_grad_norm(model)
        optimizer: Any = self.optimizer
        return clip_in_optimizer(optimizer.optimizer, model, self.args.max_grad_norm)

    def _pass_starts(self, lengths_B: list[int]) -> list[int]:
        """Return the first row of each pass of a micro-batch.

        With FSDP every process needs the same number of passes. DeepSpeed would take each pass for
        a step, so there is only one.
        """
        if self.is_deepspeed_enabled:
            return [0]
        cut = partial(
            pass_starts,
            lengths_B,
            self.tokens_per_pass,
            pads=self._pads,
            equal_lengths=self.equal_lengths,
        )
        starts = cut()
        if self.is_fsdp_enabled and self.args.world_size > 1:
            starts = cut(at_least=largest_of_all(len(starts)))
        return starts

    def packed(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch, with the places of its rows if the model computes without padding."""
        mask_BL = batch["attention_mask"]
        computed = tokens_computed(mask_BL.sum(1).tolist(), pads=self._pads)
        self._largest_pass = max(self._largest_pass, computed)
        if self.padded_because:
            return batch
        return batch | {"packed_rows": PackedRows(mask_BL.bool(), self.args.device)}

    def evaluation_loop(
        self, dataloader: Any, description: str, *_: Any, metric_key_prefix: str = "eval", **__: Any
    ) -> EvalLoopOutput:
        """Return logits and metrics of all rows.

        The loss is computed once over all rows, and not as a mean of the means of batches.
        """
        rows: TokenisedRows = dataloader.dataset
        label_ids_N: Any = rows.label_ids_N
        logits_NC = self.logits(rows, description)
        prediction = EvalPrediction(logits_NC, label_ids_N)
        metrics = self.compute_metrics(prediction) if self.compute_metrics else {}
        named = {f"{metric_key_prefix}_{name}": value for name, value in metrics.items()}
        return EvalLoopOutput(logits_NC, label_ids_N, named, len(rows))

    def logits(self, rows: TokenisedRows, description: str) -> Floats32:
        """Return the logits (N, C) in the order of the rows.

        Every process computes its share, in as many passes as the others. Large arrays lie in a
        file of the run folder.

        Args:
            rows: rows of token ids.
            description: name of the work, for the progress bar.
        """
        world, num_labels = self.args.world_size, self.model.config.num_labels
        model = self.model_wrapped if self.is_fsdp_enabled else self.model
        if not (self.is_fsdp_enabled or self.is_deepspeed_enabled):  # they place the weights
            model.to(self.args.device)
        model.eval()
        batches = token_batches(
            rows.lengths_N, self.tokens_per_pass, equal_lengths=self.equal_lengths
        )
        logits_NC = room((len(rows), num_labels), np.float32, self.checkpoints.parent)
        bar = progress_bar(total=len(batches), desc=description, unit=" batches", delay=2)
        with torch.no_grad(), bar:
            for piece in _pieces(batches, world, num_labels):
                found = []
                for start in range(0, len(piece), world):
                    stopping.stop_if_agreed(self.state.global_step)
                    found.append(self._share_of_logits(model, rows, piece, start))
                    bar.update(min(world, len(piece) - start))
                    watch.progress(f"{description.lower()} after step {self.state.global_step}")
                self._place(torch.cat(found), piece, logits_NC)
        return logits_NC

    def _share_of_logits(
        self, model: Any, rows: TokenisedRows, batches: list[Ints], start: int
    ) -> torch.Tensor:
        """Return the logits of this process's batch; of none if fewer batches are left.

        It then computes the last batch in vain, since all processes need the same passes.
        """
        own = start + self.args.process_index
        chosen: Any = rows.__getitems__(batches[min(own, len(batches) - 1)])
        batch = self.data_collator(chosen)
        del batch["labels"]
        logits_BC = model(**self._prepare_inputs(self.packed(batch))).logits.float()
        return logits_BC if own < len(batches) else logits_BC[:0]

    def _place(self, found_BC: torch.Tensor, batches: list[Ints], logits_NC: Floats32) -> None:
        """Gather the logits of some batches, and write them to the places of their rows.

        Args:
            found_BC: logits of the batches that this process computed.
        """
        world, none = self.args.world_size, np.empty(0, np.int64)
        rows = [np.concatenate([none, *batches[process::world]]) for process in range(world)]
        longest = max(map(len, rows))
        # of equal length, so that they can be gathered
        padded_BC = torch.nn.functional.pad(found_BC, (0, 0, 0, longest - len(found_BC)))
        gathered: Any = self.accelerator.gather(padded_BC) if world > 1 else padded_BC
        found = gathered.cpu().numpy().reshape(world, longest, -1)
        for process, places in enumerate(rows):
            logits_NC[places] = found[process, : len(places)]
        release(logits_NC)

    def predict_logits(self, dataset: TokenisedRows) -> Floats32:
        """Return the logits in the order of the rows, in float32 whatever training used.

        If memory is too small, passes become smaller. Several processes keep their passes, since
        each would have to know of the others' lack of memory.
        """
        # removes autocast from the forward method of the model
        self.accelerator.unwrap_model(self.model_wrapped, keep_fp32_wrapper=False)

        def compute(tokens: int) -> Floats32:
            self.tokens_per_pass = tokens
            return self.logits(dataset, "Predicting")

        is_alone = self.args.world_size == 1
        longest = int(dataset.lengths_N.max(initial=0)) if is_alone else self.tokens_per_pass
        return in_smaller_passes(compute, self.tokens_per_pass, longest)[0]


def _pieces(batches: list[Ints], world: int, num_labels: int) -> Iterator[list[Ints]]:
    """Divide batches into lists whose logits have about GATHERED_BYTES.

    The length of a list is a multiple of the number of processes, except for the last one.
    """
    piece: list[Ints] = []
    for start in range(0, len(batches), world):
        piece = piece + batches[start : start + world]
        if sum(map(len, piece)) * num_labels * 4 >= GATHERED_BYTES:
            yield piece
            piece = []
    if piece:
        yield piece
