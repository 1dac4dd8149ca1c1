"""torch.compile for the layers of a packed encoder, in training."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface

from trainer.errors import ModelError, first_line
from trainer.training.batches.packed_attention import packed_attention
from trainer.training.batches.packing import NAME
from trainer.training.models.encoder_layers import encoder_layers
from trainer.training.models.probe import in_mode, kept_randomness, probe_batch


def compile_layers(
    model: Any, dtype: torch.dtype, *, backend: str | None = None, mode: str | None = None
) -> None:
    """Compile the layers of a packed classifier for training, in place.

    The layers share their compiled code, which takes any number of tokens. Attention stays outside
    of it, since it reads the lengths of the rows. The last layer stays as it is if it computes
    only first tokens. Evaluation does not use compiled code. Names and values of weights stay.

    Args:
        model: transformers classifier, on the device of the training.
        dtype: type of autocast in training.
        backend, mode: arguments of torch.compile; None for its defaults.
    Raises:
        ModelError: the layers cannot be compiled here, or there are none.
    """
    layers = [layer for layer in _layers(model) if "forward" not in vars(layer)]
    if not layers:
        raise ModelError(
            f"training.torch_compile: {type(model).__name__} has no layers that can be compiled."
            " Remove training.torch_compile."
        )
    torch.compiler.reset()  # torch keeps 8 compilations of a function, then it stops compiling
    AttentionInterface.register(NAME, torch.compiler.disable(packed_attention))
    compiled: dict[type, Callable[..., Any]] = {
        kind: torch.compile(kind.forward, backend=backend or "inductor", mode=mode, dynamic=True)
        for kind in {type(layer) for layer in layers}
    }
    for layer in layers:
        layer.forward = partial(_forward, compiled[type(layer)], layer)
    try:
        _try(model, dtype)
    except Exception as error:  # from the compiler: none installed, or code that it cannot read
        cause = getattr(error, "inner_exception", error)
        raise ModelError(
            f"training.torch_compile: the layers of {type(model).__name__} cannot be compiled:"
            f" {type(cause).__name__}: {first_line(cause)} Remove training.torch_compile."
        ) from error


def _layers(model: Any) -> list[Any]:
    try:
        return list(encoder_layers(model))
    except ModelError:
        return []


def _forward(compiled: Callable[..., Any], layer: Any, *args: Any, **kwargs: Any) -> Any:
    run = compiled if layer.training else type(layer).forward
    return run(layer, *args, **kwargs)


def _try(model: Any, dtype: torch.dtype) -> None:
    """Compute a gradient of a few short rows, and drop it."""
    device = next(model.parameters()).device
    batch = {name: each.to(device) for name, each in probe_batch(model.config, [7, 4]).items()}
    precision = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    with kept_randomness(device), in_mode(model, training=True), precision:
        model(**batch).logits.sum().backward()
    model.zero_grad()
