"""The end of a classifier: its final Linear layer, and the untrained layers before it."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from trainer.arrays import Floats
from trainer.errors import ModelError

SLOPE, OFFSET = 0.05, 0.5
"""Weight and bias of a layer that passes its input through.

Encoders end in a layer norm, so inputs have size 1 (outliers: 10). At 0.5 + 0.05 x, tanh, relu and
gelu all rise and are nearly straight, so no information is lost. A plain identity would lose the
negative half to DistilBERT's relu and saturate RoBERTa's tanh.
"""


def final_linear(model: Any) -> Any:
    """Return the Linear layer that gives the logits, None if the last layer is of another kind."""
    encoder = {id(module) for module in model.base_model.modules()}
    heads = [
        module
        for module in model.modules()
        if id(module) not in encoder
        and isinstance(module, nn.Linear)
        and module.out_features == model.config.num_labels
    ]
    return heads[-1] if heads else None


def final_layer(model: Any) -> str:
    """Return the name of the Linear layer that gives the logits.

    Raises:
        ModelError: the last layer is of another kind, so it cannot be trained by itself.
    """
    layer = final_linear(model)
    if layer is None:
        raise ModelError(
            f"model.mode head trains a final Linear layer, and {type(model).__name__} has none."
            " Set model.mode: full."
        )
    return next(name for name, module in model.named_modules() if module is layer)


def untrained_modules(model: Any, missing_keys: Iterable[str]) -> list[str]:
    """Return the names of the modules that have weights which the checkpoint lacks."""
    owners = {key.rpartition(".")[0] for key in missing_keys}
    return [name for name, _ in model.named_modules() if name in owners]


def pass_through(model: Any, missing_keys: Iterable[str]) -> list[str]:
    """Let untrained square Linear layers before the final one pass their input through.

    A frozen layer with random weights would only blur the output of the encoder. Layers of
    another shape, and norms, keep their initial values.

    Returns:
        The names of the changed layers.
    """
    last, passed = final_layer(model), []
    for name in untrained_modules(model, missing_keys):
        layer = model.get_submodule(name)
        is_square = isinstance(layer, nn.Linear) and layer.in_features == layer.out_features
        if name != last and is_square:
            with torch.no_grad():
                layer.weight.copy_(SLOPE * torch.eye(layer.in_features))
                if layer.bias is not None:
                    layer.bias.fill_(OFFSET)
            passed.append(name)
    return passed


def renew_head(model: Any) -> None:
    """Initialise the final layer again, as it was trained for other labels of the same number."""
    head = final_linear(model)
    if head is not None:
        nn.init.normal_(head.weight, std=getattr(model.config, "initializer_range", 0.02))
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def fold_into_head(model: Any, temperature: float, shift_C: Floats) -> bool:
    """Change the final layer so that it gives logits / temperature + shift.

    Returns:
        False, without any change, if there is no final Linear layer with a bias.
    """
    head = final_linear(model)
    if head is None or head.bias is None:
        return False
    with torch.no_grad():
        head.weight /= temperature
        head.bias /= temperature
        head.bias += torch.as_tensor(shift_C, dtype=head.bias.dtype, device=head.bias.device)
    return True
