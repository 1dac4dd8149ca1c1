"""The layers of an encoder or decoder: how deep each weight lies, and new top layers."""

from typing import Any

import torch
from torch import nn

from trainer.errors import ModelError


def encoder_layers(model: Any) -> list[nn.Module]:
    """Return the layers of a classifier's encoder, from the embeddings to the head.

    Raises:
        ModelError: the layers cannot be told apart, for example because they share their weights.
    """
    depth = getattr(model.config.get_text_config(), "num_hidden_layers", 0)
    lists = [
        module
        for module in model.base_model.modules()
        if isinstance(module, nn.ModuleList) and len(module) == depth
    ]
    sizes = [sum(weight.numel() for weight in layers.parameters()) for layers in lists]
    if not lists or not max(sizes):
        raise ModelError(
            f"{type(model).__name__} has no list of {depth} layers that can be told apart. Remove"
            " training.layerwise_learning_rate_decay and model.reinitialise_layers."
        )
    return list(lists[sizes.index(max(sizes))])


def weight_depths(model: Any) -> dict[int, int]:
    """Return how many layers lie above each weight, by the weight's id.

    It is 0 for the head and for what follows the last layer, 1 for the last of L layers, L for the
    first, and L + 1 for embeddings.
    """
    layers = encoder_layers(model)
    depths: dict[int, int] = {}
    for number, layer in enumerate(layers):
        depths |= dict.fromkeys(map(id, layer.parameters()), len(layers) - number)
    embeddings = len(layers) + 1
    for module in model.base_model.modules():
        if isinstance(module, nn.Embedding):
            for weight in module.parameters():
                depths.setdefault(id(weight), embeddings)
    before_layers = True
    for weight in model.base_model.parameters():
        before_layers &= depths.get(id(weight), embeddings) == embeddings
        depths.setdefault(id(weight), embeddings if before_layers else 0)
    return {id(weight): depths.get(id(weight), 0) for weight in model.parameters()}


def set_layer_rates(optimizer: torch.optim.Optimizer, depths: dict[int, int], decay: float) -> None:
    """Multiply the learning rate of each weight by decay ** depth.

    Each group of weights is divided by depth. The head comes first: its rate is the one that logs
    show.

    Args:
        depths: depth of each weight, by its id.
    """
    groups, optimizer.param_groups = list(optimizer.param_groups), []
    for depth in sorted(set(depths.values())):
        for group in groups:
            weights = [weight for weight in group["params"] if depths[id(weight)] == depth]
            if weights:
                rate = group["lr"] * decay**depth
                optimizer.add_param_group({**group, "params": weights, "lr": rate})


def reinitialise_layers(model: Any, number: int) -> None:
    """Draw the weights of the last layers, and of what follows them in the encoder, again.

    The model's own rule is used, and torch's generator.

    Raises:
        ModelError: the encoder has fewer layers.
    """
    layers = encoder_layers(model)
    if number > len(layers):
        raise ModelError(
            f"model.reinitialise_layers is {number}, but {type(model).__name__} has"
            f" {len(layers)} layers. Set {len(layers)} or less."
        )
    depths = weight_depths(model)
    for module in model.base_model.modules():
        own = list(module.parameters(recurse=False))
        if own and all(depths[id(weight)] <= number for weight in own):
            for weight in own:
                weight._is_hf_initialized = False  # type: ignore[attr-defined]
            model._init_weights(module)
