"""Low-rank adapters on the encoder's linear layers, and the ordinary model that they become. Source: Hu et al. 2021, https://arxiv.org/abs/2106.09685."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.errors import ModelError, first_line, listing
from trainer.training.models.layers import untrained_modules
from trainer.training.models.model_checks import in_mode, probe_batch

if TYPE_CHECKING:
    from trainer.config.sections.model import LoraSection

NAMES_OF_EXPERTS = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
"""Layers that stay as they are in a mixture of experts: peft takes these names for parts of the fused experts, whatever layer has them."""


def add_adapter(model: Any, lora: "LoraSection", missing_keys: Iterable[str]) -> Any:
    """A PeftModel that trains low-rank matrices in the encoder, and in full the head and what the checkpoint lacked.

    Raises:
        ModelError: `target_modules` names no layer that can be adapted.
    """
    from peft import LoraConfig, get_peft_model

    in_full = [
        name
        for name, module in model.named_children()
        if module is not model.base_model and any(True for _ in module.parameters())
    ]
    in_full += [
        name
        for name in untrained_modules(model, missing_keys)
        if name.partition(".")[0] not in in_full
    ]
    linears = _linear_layers(model)
    targets = sorted(set(linears) - set(in_full))
    if any(
        weight.ndim == 3 and name.rpartition(".")[0].endswith("experts")
        for name, weight in model.named_parameters()
    ):
        targets = [name for name in targets if name.rpartition(".")[2] not in NAMES_OF_EXPERTS]
    if not targets:
        raise ModelError(
            f"model.mode lora adapts torch's Linear layers, and {type(model).__name__} has none. Set model.mode: full."
        )
    if lora.target_modules is not None:
        known = {name.rpartition(".")[2] for name in targets}
        unknown = [
            name
            for name in lora.target_modules
            if not any(target == name or target.endswith(f".{name}") for target in targets)
        ]
        if unknown:
            raise ModelError(
                f"model.lora.target_modules: {listing(unknown)} is no linear layer of the encoder that LoRA adapts here; known: {listing(known)}."
            )
        targets = lora.target_modules
    config = LoraConfig(
        task_type="SEQ_CLS",
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        modules_to_save=in_full,
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in linears.values()),
    )
    return get_peft_model(model, config)


def _linear_layers(model: Any) -> dict[str, nn.Module]:
    """Return the linear layers of the encoder that give one tensor, by name; a router of experts gives several."""
    encoder = {id(module) for module in model.base_model.modules()}
    kinds = (nn.Linear, Conv1D)
    linears = {n: m for n, m in model.named_modules() if isinstance(m, kinds) and id(m) in encoder}
    routers: set[int] = set()

    def note(module: nn.Module, args: Any, output: Any) -> None:
        if not isinstance(output, Tensor):
            routers.add(id(module))

    handles = [module.register_forward_hook(note) for module in linears.values()]
    try:
        with in_mode(model, training=False), torch.no_grad():
            model(**probe_batch(model.config, [4]))
    except Exception as error:
        name = type(model).__name__
        raise ModelError(
            f"{name} fails on a few tokens: {type(error).__name__}: {first_line(error)}"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return {name: module for name, module in linears.items() if id(module) not in routers}


def merged(model: Any) -> Any:
    """The ordinary model, with each low-rank product added to the weight that it adapts."""
    return model.merge_and_unload(safe_merge=True)
