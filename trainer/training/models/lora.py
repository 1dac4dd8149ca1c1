"""Low-rank adapters on the encoder's linear layers, and the ordinary model they merge into.

Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.config.sections.model import LoraSection
from trainer.errors import ModelError, first_line, listing
from trainer.training.models.layers import untrained_modules
from trainer.training.models.probe import in_mode, probe_batch

NAMES_OF_EXPERTS = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
"""Layers of a mixture of experts that get no adapter.

peft takes these names for parts of the fused experts, whichever layer has them.
"""


def add_adapter(model: Any, lora: LoraSection, missing_keys: Iterable[str]) -> Any:
    """Return a PeftModel that trains low-rank matrices in the encoder.

    The head, and layers whose weights the checkpoint lacked, are trained in full.

    Raises:
        ModelError: `target_modules` names no layer that can be adapted.
    """
    from peft import LoraConfig, get_peft_model

    in_full = [
        name
        for name, module in model.named_children()
        if module is not model.base_model and any(True for _ in module.parameters())
    ]
    untrained = untrained_modules(model, missing_keys)
    in_full += [name for name in untrained if name.partition(".")[0] not in in_full]
    linears = _linear_layers(model)
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_target_modules(model, lora, sorted(set(linears) - set(in_full))),
        modules_to_save=in_full,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linears.values()),
    )
    return get_peft_model(model, config)


def _target_modules(model: Any, lora: LoraSection, linears: list[str]) -> list[str]:
    """Return the layers that get an adapter: those of the config, or all that can have one."""
    has_experts = any(
        weight.ndim == 3 and name.rpartition(".")[0].endswith("experts")
        for name, weight in model.named_parameters()
    )
    left_out = NAMES_OF_EXPERTS if has_experts else ()
    targets = [name for name in linears if name.rpartition(".")[2] not in left_out]
    if not targets:
        raise ModelError(
            f"model.mode lora adapts torch's Linear layers, and {type(model).__name__} has none."
            " Set model.mode: full."
        )
    if lora.target_modules is None:
        return targets
    unknown = [
        name
        for name in lora.target_modules
        if not any(target == name or target.endswith(f".{name}") for target in targets)
    ]
    if unknown:
        known = {name.rpartition(".")[2] for name in targets}
        raise ModelError(
            f"model.lora.target_modules: {listing(unknown)} is no linear layer of the encoder that"
            f" LoRA can adapt here; known: {listing(known)}."
        )
    return lora.target_modules


def _linear_layers(model: Any) -> dict[str, nn.Module]:
    """Return the encoder's linear layers by name, without routers of experts.

    A router returns several tensors, and LoRA adapts layers that return one.
    """
    encoder = {id(module) for module in model.base_model.modules()}
    linears = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module) in encoder
    }
    routers: set[int] = set()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            routers.add(id(module))

    handles = [module.register_forward_hook(note) for module in linears.values()]
    try:
        with in_mode(model, training=False), torch.no_grad():
            model(**probe_batch(model.config, [4]))
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} fails on a few tokens: {type(error).__name__}:"
            f" {first_line(error)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return {name: module for name, module in linears.items() if id(module) not in routers}


def merged(model: Any) -> Any:
    """Return the ordinary model, with each low-rank product added to the weight it adapts."""
    return model.merge_and_unload(safe_merge=True)
