"""Faster layers for CPUs that compute the same: dropout, and the gradient of large embeddings."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.training.models.probe import keep_if_same, probe_batch

LEVELS = 1 << 16
"""Steps in which the rate of dropout is rounded."""
LARGE_ROWS = 4096
"""Rows of the smallest embedding whose gradient gets a buffer of its own."""


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, p: float) -> Tensor:
        num_dropped = round(p * LEVELS)
        bits = torch.empty(-(-states.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        levels = bits.view(torch.int16)[: states.numel()].view(states.shape)
        factors = torch.empty_like(states, memory_format=torch.contiguous_format)
        torch.ge(levels, num_dropped - LEVELS // 2, out=factors)  # a bool mask is slow to convert
        factors *= LEVELS / (LEVELS - num_dropped)
        ctx.save_for_backward(factors)
        return states * factors

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (factors,) = ctx.saved_tensors
        return gradient * factors, None


def dropout(states: Tensor, p: float) -> Tensor:
    """Apply dropout, with the random numbers of four elements cut from one 64-bit integer.

    torch draws one number for each element, which takes 18 % of a training step of a small encoder
    on a CPU. On other devices, and in compiled code, torch's own dropout is used.

    Args:
        states: tensor of any shape.
        p: rate, rounded to 1/65,536.
    """
    is_torchs = states.device.type != "cpu" or torch.compiler.is_compiling()
    if is_torchs or round(p * LEVELS) in (0, LEVELS):
        return F.dropout(states, p)
    return _Dropout.apply(states, p)  # type: ignore[no-any-return, no-untyped-call]


class FastDropout(nn.Dropout):
    """nn.Dropout that uses `dropout`."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the input; in training, with elements dropped and the others scaled up."""
        return dropout(input, self.p) if self.training else input


class _RowLookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Tensor, ids: Tensor, layer: "RowGradientEmbedding") -> Tensor:
        ctx.save_for_backward(ids)
        ctx.layer = layer
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, None, None]:  # type: ignore[override]
        (ids,) = ctx.saved_tensors
        ctx.layer.add_gradient(ids.flatten(), gradient.flatten(0, -2))
        return None, None, None


class RowGradientEmbedding(nn.Embedding):
    """nn.Embedding that keeps its gradient in one buffer and clears only the rows that were used.

    torch allocates a gradient as large as the whole vocabulary at each step, and fills it with 0.
    """

    buffer: Tensor | None = None
    touched: list[Tensor]

    def forward(self, input: Tensor) -> Tensor:
        """Return the vectors of the ids."""
        needs_gradient = self.weight.requires_grad and torch.is_grad_enabled()
        if needs_gradient and self.weight.device.type == "cpu":
            return _RowLookup.apply(self.weight, input, self)  # type: ignore[no-any-return, no-untyped-call]
        return super().forward(input)

    def add_gradient(self, ids: Tensor, gradient: Tensor) -> None:
        """Add to the weight's gradient, which starts at 0 whenever the optimizer has dropped it."""
        if self.weight.grad is None:
            if self.buffer is None:
                self.buffer = torch.zeros_like(self.weight)
            else:
                for rows in self.touched:
                    self.buffer.index_fill_(0, rows, 0.0)
            self.weight.grad, self.touched = self.buffer, []
        if self.padding_idx is not None:
            is_token = ids != self.padding_idx
            ids, gradient = ids[is_token], gradient[is_token]
        self.touched.append(ids)
        self.weight.grad.index_add_(0, ids, gradient.to(self.weight.dtype))

    def used_gradient(self) -> Tensor:
        """Return the rows of the weight's gradient that may differ from 0, in any order."""
        gradient: Any = self.weight.grad
        rows = torch.cat(self.touched).unique() if gradient is self.buffer else slice(None)
        return gradient[rows]  # type: ignore[no-any-return]


def speed_up(model: Any, *, own_gradients: bool) -> str | None:
    """Put faster layers into a transformers model, in place; names and values of weights stay.

    The layers are kept only if the logits of the model, and the gradients of its embeddings, do
    not change.

    Args:
        own_gradients: whether only the optimizer reads the gradients. DistributedDataParallel, for
            example, reads them too.
    Returns:
        None if layers were changed, else the reason why not.
    """
    modules = list(model.modules())
    owners = Counter(
        id(weight)
        for module in modules
        for _, weight in module.named_parameters(recurse=False, remove_duplicate=False)
    )
    large = [
        module
        for module in modules
        if type(module) is nn.Embedding
        and module.num_embeddings >= LARGE_ROWS
        and module.max_norm is None
        and not module.scale_grad_by_freq
        and not module.sparse
        and owners[id(module.weight)] == 1
    ]
    large = large if own_gradients else []
    weights = [module.weight for module in large if module.weight.requires_grad]

    def difference(expected: list[Tensor]) -> str | None:
        for found, wanted in zip(_logits_and_gradients(model, weights), expected, strict=True):
            if not torch.allclose(found, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max())):
                return "its answers or gradients change"
        return None

    return keep_if_same(
        model,
        partial(_logits_and_gradients, model, weights),
        partial(_swap, model, large),
        difference,
    )


def _swap(model: Any, embeddings: list[nn.Embedding]) -> Callable[[], None]:
    """Put the fast layers in, and return a function that takes them out again."""
    plain: list[tuple[nn.Module, type]] = []
    for module in model.modules():
        if type(module) is nn.Dropout and not module.inplace:
            plain.append((module, nn.Dropout))
            module.__class__ = FastDropout
    for embedding in embeddings:
        plain.append((embedding, nn.Embedding))
        embedding.__class__ = RowGradientEmbedding
    hook = _embeddings_of(model.base_model)
    handle = hook.register_forward_hook(_in_autocast_type) if hook is not None else None

    def undo() -> None:
        for module, kind in plain:
            module.__class__ = kind
            module.__dict__.pop("buffer", None)
        if handle is not None:
            handle.remove()

    return undo


def _embeddings_of(encoder: Any) -> nn.Module | None:
    """Return the module whose output enters the first layer, None if there is none (CANINE)."""
    try:
        return getattr(encoder, "embeddings", None) or encoder.get_input_embeddings()
    except NotImplementedError:
        return None


def _logits_and_gradients(model: Any, weights: list[nn.Parameter]) -> list[Tensor]:
    """Return the logits of a few short rows without dropout, and gradients of embeddings.

    Args:
        weights: weights of the embeddings; their gradients are cleared.
    """
    found = []
    for lengths_B in ([6, 4], [4]):  # twice, since the first gradient may leave values behind
        batch = probe_batch(model.config, lengths_B)
        logits_BC = model(**batch).logits
        found.append(logits_BC.detach())
        if weights:
            logits_BC.square().sum().backward(inputs=weights)
        ids = batch["input_ids"].unique()
        for weight in weights:
            if weight.grad is not None:
                found += [weight.grad.sum(1), weight.grad[ids[ids < len(weight)]]]
            weight.grad = None
    return found


def _in_autocast_type(module: nn.Module, args: Any, states: Any) -> Any:
    """Convert the states to the type of autocast once, and not in every layer.

    Layer norms and sums keep the type that they get.
    """
    if isinstance(states, Tensor) and torch.is_autocast_enabled("cpu"):
        return states.to(torch.get_autocast_dtype("cpu"))
    return states
