"""WeightedTrainer whose steps do not wait for an accelerator.

It also saves the random state of every kind of accelerator.
"""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from trainer.errors import ModelError, first_line
from trainer.launch.distributed import from_main
from trainer.training.batches.batching import Collator
from trainer.training.batches.packing import pack
from trainer.training.batches.sending import send
from trainer.training.batches.widths import TOLERANCE, fit_collator, multiple_in_training
from trainer.training.models.probe import in_mode
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
"""Tolerance of `fit_collator` if matrix products keep 10 bits."""
SAVED_BY_TRANSFORMERS = ("cpu", "cuda", "npu", "hpu", "mlu", "musa", "xla")
"""Kinds of devices whose random state transformers saves with a checkpoint."""


class DeviceTrainer(ResumableTrainer):
    """Trainer that queues the work of a step without waiting for the device.

    Only a log, an evaluation or a save waits for it.
    """

    is_fsdp_enabled: bool

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.is_fsdp_enabled:
            fit_to_sharding(self.model, self.accelerator.state.fsdp_plugin)
        self._whole = without_weights(self.model) if self.is_fsdp_enabled else None

    def gather_shards(self) -> None:
        """Replace a model that FSDP shards by an ordinary one in float32, in every process.

        This is called after training, since the next steps need whole weights: the adapter is
        merged, the decision is folded into the head, and the saved model is evaluated. The
        optimizer is dropped.
        """
        if self._whole is None:
            return
        gather_into(self._whole, self.model_wrapped, self.accelerator)
        self.model = self.model_wrapped = self._whole
        self._whole, self.is_fsdp_enabled = None, False
        self.optimizer = self.lr_scheduler = None
        self.accelerator.free_memory()

    def _prepare_input(self, data: Any) -> Any:
        """Copy the tensors of a batch to the device, without letting the CPU wait for the copy."""
        if not isinstance(data, dict) or self.is_deepspeed_enabled:
            return super()._prepare_input(data)
        tensors = {name: each for name, each in data.items() if isinstance(each, torch.Tensor)}
        return data | send(tensors, self.args.device)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self._has_own_state:
            state = torch.get_device_module(self.args.device).get_rng_state()
            torch.save(state, self._random_state_path(output_dir))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        super()._load_rng_state(checkpoint)
        if checkpoint and self._has_own_state:
            path = self._random_state_path(checkpoint)
            if path.is_file():
                state = torch.load(path, weights_only=True)
                torch.get_device_module(self.args.device).set_rng_state(state)

    @property
    def _has_own_state(self) -> bool:
        """Whether the device, such as an Apple GPU, has a random state that is saved here."""
        return self.args.device.type not in SAVED_BY_TRANSFORMERS

    def _random_state_path(self, folder: str) -> Path:
        return Path(folder) / f"{self.args.device.type}_rng_state_{self.args.process_index}.pt"


def classifier_of(model: Any) -> Any:
    """Return the transformers model, also from within an adapter."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def pack_on_device(model: Any, args: TrainingArguments) -> str | None:
    """Pack the model on the device and in the precision of the training.

    Returns:
        None if it is packed, else the reason why it is not.
    """
    if args.torch_compile and (is_sharded(args) or args.gradient_checkpointing):
        return "training.torch_compile compiles a sharded or checkpointed model as a whole"
    if args.neftune_noise_alpha is not None:
        return "training.neftune_noise_alpha depends on the width of padded batches"
    dtype = type_in_training(args)
    with on_device(model, args.device, keep=not is_sharded(args)):
        return pack(classifier_of(model), None if dtype == torch.float32 else dtype)


def type_in_training(args: TrainingArguments) -> torch.dtype:
    """Return the type of matrix products in training."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32


def fit_to_model(model: Any, collate: Collator, args: TrainingArguments) -> bool:
    """Set the widths of batches that a model takes in training.

    The main process tries them on its model, since all processes have to cut batches alike. With
    DeepSpeed nothing is tried, since the weights may be sharded already and passes are not used.

    Returns:
        Whether the rows of a batch need equal lengths.
    Raises:
        ModelError: the model fails on a few tokens.
    """
    if is_deepspeed(args):
        return False
    classifier = classifier_of(model)
    tolerance = TF32_TOLERANCE if args.tf32 else TOLERANCE

    def measure() -> tuple[bool, int, int]:
        try:
            with on_device(model, args.device, keep=not is_sharded(args)):
                with in_mode(classifier, training=False):
                    equal_lengths = fit_collator(
                        lambda batch: classifier(**batch).logits,
                        classifier.config,
                        classifier.device,
                        collate,
                        tolerance=tolerance,
                    )
                return equal_lengths, collate.least, multiple_in_training(classifier)
        except ModelError:
            raise
        except Exception as error:  # the model's own code; other processes wait for the answer
            name, fault = type(classifier).__name__, f"{type(error).__name__}: {first_line(error)}"
            raise ModelError(f"{name} fails on a few tokens: {fault}") from error

    equal_lengths, collate.least, multiple = from_main(measure)
    collate.multiple = multiple if equal_lengths else max(collate.multiple, multiple)
    return equal_lengths
