"""Batches without padding: the encoder computes only the tokens of a batch.

The model is called as usual, with padded input ids. One hook removes the padding before the
encoder and another restores it afterwards, so heads and pooling work unchanged. Attention stays
within each row. If the head reads only the first token of a row, the last layer computes only that.

Legend: B rows, T tokens of all rows together, L tokens of the longest row.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from trainer.training.batches.packed_attention import LAST_LAYERS, packed_attention
from trainer.training.batches.packed_rows import MULTIPLE, PackedRows
from trainer.training.models.probe import keep_if_same, probe_batch

NAME = "packed"
MOST_ROUNDING = 3.0
"""Largest ratio of the rounding errors of packed and padded logits."""
SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}
PROBE_LENGTHS = ([7, 4, 4], [5, 5, 5])
"""Rows of two batches: attention pads at most the first."""

SIZES_PER_DOUBLING = 16
"""Sizes to which a CPU fills up batches in half precision, between one size and its double.

oneDNN, which multiplies the matrices, compiles a kernel for each new shape. This takes 4 to 5 ms,
longer than most of the products.
"""


def pack(model: Any, dtype: torch.dtype | None = None) -> str | None:
    """Make a classifier compute without padding, unless its logits would change.

    Args:
        model: transformers sequence classifier in float32, on the device that will run it.
        dtype: type of autocast with which it will run; None for float32.
    Returns:
        None if it is packed, else the reason why not.
    """
    unsupported = set(getattr(model.config, "layer_types", None) or ()) - SUPPORTED_LAYERS
    if unsupported or not model._can_set_attn_implementation():
        kinds = ", ".join(sorted(unsupported)) or type(model).__name__
        return f"its attention ({kinds}) cannot be replaced"

    def measure() -> tuple[Tensor, Tensor]:
        expected = _probe(model)
        return expected, expected if dtype is None else _probe(model, dtype)

    return keep_if_same(
        model, measure, partial(_install, model), lambda padded: _difference(model, *padded, dtype)
    )


def _difference(
    model: Any, expected: Tensor, rounded: Tensor, dtype: torch.dtype | None
) -> str | None:
    """Return why a packed model cannot be used, or None.

    Its logits may differ, or it may pass its sliding window only in the mask that packing replaces.

    Args:
        expected: padded logits in float32.
        rounded: padded logits in the precision of the training, which show the effect of rounding.
    """
    found, windows = _probe_packed(model, None)
    scale = float(expected.abs().max())
    if scale == 0 or not torch.allclose(found, expected, rtol=0.0, atol=1e-3 * scale):
        return "its logits would change"
    if dtype is not None:
        error = _rms(_probe_packed(model, dtype)[0] - expected)
        if not error <= MOST_ROUNDING * _rms(rounded - expected) + 1e-2 * scale:
            return f"its logits would change in {str(dtype).removeprefix('torch.')}"
    config = model.config.get_text_config()
    layers, window = getattr(config, "layer_types", None), getattr(config, "sliding_window", None)
    is_sliding = (
        "sliding_attention" in layers
        if layers
        else bool(window) and getattr(config, "use_sliding_window", True)
    )
    if is_sliding and windows <= {None}:
        return "it applies its sliding window only through the attention mask"
    return None


def _rms(errors: Tensor) -> float:
    return float(errors.square().mean().sqrt())


def _probe_packed(model: Any, dtype: torch.dtype | None) -> tuple[Tensor, set[int | None]]:
    """Return packed logits of some short rows, and the sliding windows of their attention."""
    device = next(model.parameters()).device
    batches = [probe_batch(model.config, lengths_B) for lengths_B in PROBE_LENGTHS]
    rows = [PackedRows(batch["attention_mask"].bool(), device) for batch in batches]
    logits_NC = _probe(model, dtype, [{"packed_rows": each} for each in rows])
    return logits_NC, set().union(*(each.windows for each in rows))


def _probe(
    model: Any, dtype: torch.dtype | None = None, given: Sequence[dict[str, Any]] = ({}, {})
) -> Tensor:
    """Return the logits of some short rows.

    Args:
        given: further arguments of the model for each batch.
    """
    device, logits = next(model.parameters()).device, []
    for lengths_B, own in zip(PROBE_LENGTHS, given, strict=True):
        batch = probe_batch(model.config, lengths_B)
        on_device = {name: tensor.to(device) for name, tensor in batch.items()}
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits.append(model(**on_device, **own).logits.float())
    return torch.cat(logits)


def _install(model: Any) -> Callable[[], None]:
    """Put the hooks in, and return a function that takes them out again."""
    encoder, before = model.base_model, model.config._attn_implementation
    signature = inspect.signature(encoder.forward)
    if NAME not in AttentionInterface().valid_keys():  # compiled layers use another one
        AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)
    last = None
    if type(model).__name__ in LAST_LAYERS:
        path, first_tokens = LAST_LAYERS[type(model).__name__]
        last = encoder.get_submodule(path)[-1]
        last.forward = partial(_last_layer, last, first_tokens)
    handles = [
        encoder.register_forward_pre_hook(partial(_remove_padding, signature), with_kwargs=True),
        encoder.register_forward_hook(
            partial(_restore_padding, last is not None), with_kwargs=True
        ),
    ]

    def undo() -> None:
        for handle in handles:
            handle.remove()
        if last is not None:
            del last.forward
        model.set_attn_implementation(before)

    return undo


def _remove_padding(
    signature: inspect.Signature, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    named = dict(signature.bind(*args, **kwargs).arguments)
    named |= named.pop("kwargs", {})
    ids_BL, mask_BL = named["input_ids"], named.get("attention_mask")
    rows = named.pop("packed_rows", None)
    if rows is None:
        mask_BL = torch.ones_like(ids_BL) if mask_BL is None else mask_BL
        rows = PackedRows(mask_BL.bool().cpu(), ids_BL.device)
    for name in ("input_ids", "token_type_ids"):
        if named.get(name) is not None:
            named[name] = named[name].flatten()[rows.places_T][None]
    if "position_ids" in signature.parameters:
        named["position_ids"] = _position_ids(encoder, ids_BL, rows)[None]
    if ids_BL.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
        extra = _filled_up(rows.num_tokens) - rows.num_tokens
        for name in ("input_ids", "token_type_ids", "position_ids"):
            if named.get(name) is not None:
                named[name] = F.pad(named[name], (0, extra))
    if "use_cache" in signature.parameters:
        named["use_cache"] = False
    return (), named | {"attention_mask": None, "packed_rows": rows}


def _filled_up(num_tokens: int) -> int:
    """Return the number of tokens to which a batch is filled up."""
    multiple = max(MULTIPLE, (1 << num_tokens.bit_length() - 1) // SIZES_PER_DOUBLING)
    return -(-num_tokens // multiple) * multiple


def _position_ids(encoder: Any, ids_BL: Tensor, rows: PackedRows) -> Tensor:
    """Return the positions of the tokens (T): from the model's own function, if any, else from 0.

    RoBERTa derives positions from token ids. It starts after the padding id and skips padding
    tokens that a text itself contains.
    """
    embeddings = getattr(encoder, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        positions_BL = embeddings.create_position_ids_from_input_ids(ids_BL, embeddings.padding_idx)  # type: ignore[union-attr]
        return positions_BL.flatten()[rows.places_T]
    return rows.position_ids_T


def _restore_padding(
    first_only: bool, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    rows: PackedRows = kwargs["packed_rows"]
    hidden = output.last_hidden_state[0, : rows.num_tokens]
    num_rows, length = rows.mask_BL.shape
    if first_only:
        padded = hidden[:, None]
    else:
        padded = (
            hidden.new_zeros(num_rows * length, hidden.shape[-1])
            .index_copy(0, rows.places_T, hidden)
            .unflatten(0, (num_rows, length))
        )
    output.last_hidden_state = padded
    if getattr(output, "pooler_output", None) is not None:
        output.pooler_output = encoder.pooler(padded)
    return output


def _last_layer(
    layer: Any,
    first_tokens: Callable[..., Tensor],
    hidden: Tensor,
    *_: Any,
    packed_rows: PackedRows,
    **__: Any,
) -> Tensor:
    return first_tokens(layer, hidden[:, packed_rows.first_B], hidden, packed_rows=packed_rows)
