"""Where a classifier ends: its final Linear layer, and the layers before it that its checkpoint lacked."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainer.errors import ModelError

SLOPE, OFFSET = 0.05, 0.5
"""Weight and bias of a layer that passes its input through. Encoders end in a layer norm, so inputs are of size 1 (outliers
10): 0.5 + 0.05 x stays where tanh, relu and gelu all rise and are nearly straight, so that what follows loses nothing.
A plain identity would lose the negative half to DistilBERT's relu and saturate RoBERTa's tanh."""


def final_linear(model: Any) -> Any:
    """The model's last layer, which gives the logits; None where the last layer is of another kind."""
    encoder = {id(module) for module in model.base_model.modules()}
    heads = [
        m
        for m in model.modules()
        if id(m) not in encoder
        and isinstance(m, nn.Linear)
        and m.out_features == model.config.num_labels
    ]
    return heads[-1] if heads else None


def final_layer(model: Any) -> str:
    """Name of the layer that gives the logits.

    Raises:
        ModelError: it is no Linear layer, so a head cannot be trained by itself.
    """
    layer = final_linear(model)
    if layer is None:
        raise ModelError(
            f"model.mode head trains a final Linear layer, and {type(model).__name__} has none. Set model.mode: full."
        )
    return next(name for name, module in model.named_modules() if module is layer)


def untrained_modules(model: Any, missing_keys: Iterable[str]) -> list[str]:
    """Names of the modules, in or after the encoder, that have weights which the checkpoint lacks."""
    owners = {key.rpartition(".")[0] for key in missing_keys}
    return [name for name, _ in model.named_modules() if name in owners]


def pass_through(model: Any, missing_keys: Iterable[str]) -> list[str]:
    """Make untrained square Linear layers before the final one hand on what the encoder gives; their names.

    A frozen layer of random weights would only blur the encoder's output. Layers of another shape, and norms, stay as they were drawn.
    """
    last, passed = final_layer(model), []
    for name in untrained_modules(model, missing_keys):
        layer = model.get_submodule(name)
        if (
            name != last
            and isinstance(layer, nn.Linear)
            and layer.in_features == layer.out_features
        ):
            with torch.no_grad():
                layer.weight.copy_(SLOPE * torch.eye(layer.in_features))
                if layer.bias is not None:
                    layer.bias.fill_(OFFSET)
            passed.append(name)
    return passed


def trainable_parameters(model: Any) -> tuple[int, int]:
    """(parameters that training changes, all parameters)."""
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trained in sizes if trained), sum(size for size, _ in sizes)
