"""transformers.Trainer that lets no step wait for an accelerator, and keeps the random state of each kind of them."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from trainer.errors import ModelError, first_line
from trainer.launch.distributed import from_main, sum_of_all
from trainer.training.batches.batching import Collator
from trainer.training.batches.packed_rows import to_device
from trainer.training.batches.packing import pack
from trainer.training.losses import IGNORED
from trainer.training.models.model_checks import (
    TOLERANCE,
    fit_collator,
    in_mode,
    multiple_in_training,
)
from trainer.training.resuming.resumable_trainer import ResumableTrainer
from trainer.training.sharding import (
    fit_to_sharding,
    gather_into,
    is_deepspeed,
    is_sharded,
    on_device,
    without_weights,
)

TF32_TOLERANCE = 1e-2
"""As `fit_collator` takes it, where matrix products keep 10 bits."""
KEPT_BY_TRANSFORMERS = ("cpu", "cuda", "npu", "hpu", "mlu", "musa", "xla")
"""Kinds of devices whose random state transformers saves with a checkpoint."""


class DeviceTrainer(ResumableTrainer):
    """Trainer that queues the work of a step without waiting for the device: only a log, an evaluation or a save waits."""

    is_fsdp_enabled: bool

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.is_fsdp_enabled:
            fit_to_sharding(self.model, self.accelerator.state.fsdp_plugin)
        self._whole = without_weights(self.model) if self.is_fsdp_enabled else None

    def gather_shards(self) -> None:
        """Make a model that FSDP shards an ordinary one in float32, in every process; called once training is over.

        What follows reads or changes whole weights: the adapter is merged, the decision is folded into the head, and figures
        are those of the model that is saved. The optimizer goes.
        """
        if self._whole is None:
            return
        gather_into(self._whole, self.model_wrapped, self.accelerator)
        self.model = self.model_wrapped = self._whole
        self._whole, self.is_fsdp_enabled = None, False
        self.optimizer = self.lr_scheduler = None
        self.accelerator.free_memory()

    def _prepare_input(self, data: Any) -> Any:
        """Copy a tensor, or all that a batch holds, to the device; transformers would let the CPU wait for each copy."""
        if isinstance(data, torch.Tensor) and not self.is_deepspeed_enabled:
            return to_device(data, self.args.device)
        return super()._prepare_input(data)

    def _get_num_items_in_batch(
        self, batch_samples: list[Any], device: torch.device
    ) -> torch.Tensor:
        """Labels of an optimizer step in all processes, as a number on the CPU.

        transformers would copy it to the device and let the CPU wait for that.
        """
        return torch.tensor(
            sum_of_all(sum(int((batch["labels"] != IGNORED).sum()) for batch in batch_samples))
        )

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self._keeps_random_state:
            torch.save(
                torch.get_device_module(self.args.device).get_rng_state(),
                self._random_state_path(output_dir),
            )

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if (
            checkpoint
            and self._keeps_random_state
            and (path := self._random_state_path(checkpoint)).is_file()
        ):
            torch.get_device_module(self.args.device).set_rng_state(
                torch.load(path, weights_only=True)
            )

    @property
    def _keeps_random_state(self) -> bool:
        """Whether the device draws random numbers of its own, such as an Apple GPU, that transformers does not save."""
        return self.args.device.type not in KEPT_BY_TRANSFORMERS

    def _random_state_path(self, folder: str) -> Path:
        return Path(folder) / f"{self.args.device.type}_rng_state_{self.args.process_index}.pt"


def classifier_of(model: Any) -> Any:
    """The transformers model, within adapters too."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def pack_on_device(model: Any, args: TrainingArguments) -> str | None:
    """Pack the model on the device and in the precision that train; None, or why it is padded."""
    if args.torch_compile:
        return "training.torch_compile takes the model as it is"
    if args.neftune_noise_alpha is not None:
        return "training.neftune_noise_alpha is measured by padded rows"
    with on_device(model, args.device, keep=not is_sharded(args)):
        return pack(
            classifier_of(model),
            torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else None,
        )


def fit_to_model(model: Any, collate: Collator, args: TrainingArguments) -> bool:
    """Set the widths of batches that a model takes in training, and return whether its rows need equal lengths.

    The main process asks its model, since all processes have to cut batches alike. With
    DeepSpeed nothing is asked: it may have parted the weights already, and takes no passes.

    Raises:
        ModelError: the model fails on a few tokens.
    """
    if is_deepspeed(args):
        return False
    classifier = classifier_of(model)

    def ask() -> tuple[bool, int, int]:
        try:
            with on_device(model, args.device, keep=not is_sharded(args)):
                return _widths(classifier, collate, TF32_TOLERANCE if args.tf32 else TOLERANCE)
        except ModelError:
            raise
        except Exception as error:  # of the model's own code; other processes wait for the answer
            name, told = type(classifier).__name__, f"{type(error).__name__}: {first_line(error)}"
            raise ModelError(f"{name} fails on a few tokens: {told}") from error

    equal_lengths, collate.least, multiple = from_main(ask)
    collate.multiple = multiple if equal_lengths else max(collate.multiple, multiple)
    return equal_lengths


def _widths(classifier: Any, collate: Collator, tolerance: float) -> tuple[bool, int, int]:
    """Return whether rows need equal lengths, the least width of a batch, and the number that divides it."""
    with in_mode(classifier, training=False):
        equal_lengths = fit_collator(
            lambda batch: classifier(**batch).logits,
            classifier.config,
            classifier.device,
            collate,
            tolerance=tolerance,
        )
    return equal_lengths, collate.least, multiple_in_training(classifier)
