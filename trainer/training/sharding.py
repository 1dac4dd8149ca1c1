"""Sharded weights (FSDP, DeepSpeed): fixes for encoders, and the whole model at the end."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import broadcast, parse_flag_from_env
from torch import nn

from trainer.errors import ConfigError
from trainer.training.memory import is_out_of_memory, release


def is_sharded(args: Any) -> bool:
    """Return whether TrainingArguments or accelerate's launcher ask for FSDP or DeepSpeed."""
    return bool(args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP") or is_deepspeed(args))


def is_deepspeed(args: Any) -> bool:
    """Return whether DeepSpeed places the weights."""
    return bool(args.deepspeed or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED"))


@contextmanager
def on_device(model: Any, device: torch.device, *, keep: bool) -> Iterator[None]:
    """Move a model to a device for the block.

    Args:
        keep: whether the model stays there afterwards. If not, it is moved back, and a model that
            is too large for the device is not moved.
    """
    home = next(model.parameters()).device
    try:
        model.to(device)
    except RuntimeError as error:
        if keep or not is_out_of_memory(error):
            raise
        model.to(home)
        release()
    try:
        yield
    finally:
        if not keep:
            model.to(home)


def fit_to_sharding(model: Any, plugin: Any) -> None:
    """Remove classes from a model's `_no_split_modules` that accelerate cannot shard.

    Since https://github.com/huggingface/accelerate/pull/4015 accelerate shards the input embedding
    by itself. That fails if it was sharded before as part of a class in `_no_split_modules`, such
    as BertEmbeddings or RobertaEmbeddings.

    Args:
        model: transformers model.
        plugin: accelerate's FullyShardedDataParallelPlugin.
    Raises:
        ConfigError: the plugin saves shards, so transformers would save no model at the end.
    """
    if "FULL_STATE_DICT" not in str(plugin.state_dict_type):
        raise ConfigError(
            f"FSDP's state_dict_type is {plugin.state_dict_type.name}; allowed: FULL_STATE_DICT,"
            " since a model is saved from whole weights. Set fsdp_state_dict_type in accelerate's"
            " config, as configs/accelerate/fsdp2.yaml does."
        )
    embedding = model.get_input_embeddings()
    holders = {
        type(module).__name__
        for module in model.modules()
        if module is not embedding and embedding in module.modules()
    }
    names = model._no_split_modules or ()
    model._no_split_modules = [name for name in names if name not in holders]


def without_weights(model: Any) -> Any:
    """Return a copy of a model's modules and hooks without weights, for `gather_into`."""
    empty = {
        id(weight): nn.Parameter(torch.empty_like(weight, device="meta"), weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, empty)


def gather_into(whole: Any, sharded: Any, accelerator: Any) -> None:
    """Copy the whole weights of a model that FSDP shards into a model, in every process.

    Args:
        whole: result of `without_weights` before the model was sharded; it gets float32 weights on
            the device of this process.
        sharded: the sharded model.
        accelerator: accelerate's Accelerator, which sharded the model.
    """
    state = accelerator.get_state_dict(sharded)  # on the CPU of the main process
    gathered: dict[int, nn.Parameter] = {}
    for name, empty in list(whole.named_parameters(remove_duplicate=False)):
        if id(empty) not in gathered:
            weight = torch.empty(empty.shape, dtype=torch.float32, device=accelerator.device)
            if accelerator.is_main_process:
                weight.copy_(state[name])
            broadcast(weight, from_process=0)
            gathered[id(empty)] = nn.Parameter(weight, empty.requires_grad)
        owner, _, own_name = name.rpartition(".")
        setattr(whole.get_submodule(owner), own_name, gathered[id(empty)])
    trained = dict(sharded.named_buffers())
    for name, buffer in whole.named_buffers():
        if name in trained:
            buffer.data = trained[name].detach().clone()
    whole.to(accelerator.device)
