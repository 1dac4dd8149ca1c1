"""Attention within each row of a batch without padding, and layers that read only first tokens.

Legend: B rows, T tokens of all rows together, L tokens of the longest row, P = B x L places, h
heads, d units of a head.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainer.training.batches.flash_attention import flash_attention, flash_fault
from trainer.training.batches.packed_rows import PackedRows
from trainer.training.models.cpu_layers import dropout


def attention_pads(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether attention pads rows of different lengths on a device.

    Args:
        dtype: type of queries, keys and values.
    """
    return flash_fault(device, dtype) is not None


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed_rows: PackedRows,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Compute attention within each row; an entry of transformers' AttentionInterface.

    Args:
        query: (1, h, T, d), or (1, h, B, d) with only the first token of each row.
        key, value: (1, h or fewer, T, d).
        packed_rows: the rows.
        sliding_window: a token attends to tokens that are less than so many places away.
    Returns:
        (1, T or B, h, d), and None in place of attention weights.
    Raises:
        NotImplementedError: the model asks for an unsupported kind of attention.
    """
    packed_rows.windows.add(sliding_window)
    for name in ("softcap", "position_bias", "s_aux"):
        if others.get(name) is not None:
            raise NotImplementedError(f"attention with {name}")
    is_causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    dtype = _type_in_autocast(query)
    # the kernels would take a single query for the last token of its row
    is_last_for_kernels = query.shape[2] != key.shape[2] and (is_causal or sliding_window)
    compute: Callable[..., Tensor] = _without_flash
    if not is_last_for_kernels and flash_fault(query.device, dtype) is None:
        compute = flash_attention
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    q_Thd, k_Thd, v_Thd = (states[0].transpose(0, 1) for states in (query, key, value))
    out = compute(
        q_Thd,
        k_Thd,
        v_Thd,
        packed_rows,
        scale=scale,
        dropout=dropout,
        is_causal=is_causal,
        sliding_window=sliding_window,
    )
    return out.contiguous()[None], None  # equal strides, or torch.compile would compile again


def _type_in_autocast(states: Tensor) -> torch.dtype:
    """Return the type in which autocast computes attention; without autocast the tensor's own."""
    kind = states.device.type
    if torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return states.dtype


def _without_flash(
    q_Thd: Tensor,
    k_Thd: Tensor,
    v_Thd: Tensor,
    rows: PackedRows,
    *,
    scale: float,
    dropout: float,
    is_causal: bool,
    sliding_window: int | None,
) -> Tensor:
    device, first_only = q_Thd.device, len(q_Thd) != len(k_Thd)
    extra, states = len(k_Thd) - rows.num_tokens, (q_Thd, k_Thd, v_Thd)
    q_hTd, k_hTd, v_hTd = (each[: rows.num_tokens].transpose(0, 1) for each in states)
    groups = len(q_hTd) // len(k_hTd)
    if groups > 1:
        k_hTd, v_hTd = k_hTd.repeat_interleave(groups, 0), v_hTd.repeat_interleave(groups, 0)
    attend = partial(_attend, scale=scale, dropout_p=dropout)
    visible = partial(_visible, is_causal=is_causal, sliding_window=sliding_window, device=device)
    compute = _attend_equal if len(set(rows.lengths_B)) == 1 else _attend_padded
    out = compute(q_hTd, k_hTd, v_hTd, rows, attend, visible, first_only)
    return out if first_only or not extra else F.pad(out, (0, 0, 0, 0, 0, extra))


def _attend_equal(
    q_hTd: Tensor,
    k_hTd: Tensor,
    v_hTd: Tensor,
    rows: PackedRows,
    attend: Callable[..., Tensor],
    visible: Callable[[int], Tensor | None],
    first_only: bool,
) -> Tensor:
    num_rows, length = len(rows.lengths_B), rows.lengths_B[0]
    q, k, v = (
        states_hTd.unflatten(1, (num_rows, -1)).transpose(0, 1)
        for states_hTd in (q_hTd, k_hTd, v_hTd)
    )
    mask = visible(length)
    if first_only and mask is not None:
        mask = mask[:1]
    return attend(q, k, v, mask).transpose(1, 2).flatten(0, 1)


def _attend_padded(
    q_hTd: Tensor,
    k_hTd: Tensor,
    v_hTd: Tensor,
    rows: PackedRows,
    attend: Callable[..., Tensor],
    visible: Callable[[int], Tensor | None],
    first_only: bool,
) -> Tensor:
    num_rows, length = rows.right_mask_BL.shape

    def padded(states_hTd: Tensor) -> Tensor:
        found: Tensor = _PaddedRows.apply(  # type: ignore[no-untyped-call]
            states_hTd.transpose(0, 1), rows
        )
        return found.unflatten(0, (num_rows, length)).transpose(1, 2)

    mask, within = rows.right_mask_BL[:, None, None, :], visible(length)
    if within is not None:
        mask = mask & (within[:1] if first_only else within)
    k, v = padded(k_hTd), padded(v_hTd)
    if first_only:
        return attend(q_hTd.transpose(0, 1)[:, :, None], k, v, mask)[:, :, 0]
    found = attend(padded(q_hTd), k, v, mask)
    return found.transpose(1, 2).flatten(0, 1).index_select(0, rows.right_places_T)


class _PaddedRows(torch.autograd.Function):
    """The states of rows (T, h, d), padded on the right (P, h, d).

    Padded places repeat the first token. The mask hides them as keys, and their outputs are
    dropped, so their gradient is 0 and is left out. Copying into zeros takes three times as long.
    """

    @staticmethod
    def forward(ctx: Any, states_Thd: Tensor, rows: PackedRows) -> Tensor:
        ctx.rows = rows
        return states_Thd.index_select(0, rows.right_tokens_P)

    @staticmethod
    def backward(ctx: Any, gradient_Phd: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return gradient_Phd.index_select(0, ctx.rows.right_places_T), None


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scale: float, dropout_p: float
) -> Tensor:
    """Return (B, h, L or 1, d) from queries, keys and values of B rows.

    torch's own attention has no kernel with dropout for CPUs. It would compute the same operations
    as below, with slower random numbers. Autocast would convert the scores to float32 and back.
    """
    if q.device.type != "cpu" or dropout_p == 0:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale
        )
    dtype = _type_in_autocast(q)
    q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    with torch.autocast("cpu", enabled=False):
        scores = torch.matmul(q * scale, k.transpose(-1, -2))
        if mask is not None:
            # faster than filling the scores, which are larger than the mask. With -inf, a padded
            # row whose window holds no token would give NaN
            least = torch.finfo(dtype).min / 2
            scores = scores + torch.zeros_like(mask, dtype=dtype).masked_fill(~mask, least)
        return torch.matmul(dropout(scores.softmax(-1), dropout_p), v)


def _visible(
    length: int, *, is_causal: bool, sliding_window: int | None, device: torch.device
) -> Tensor | None:
    """Return which tokens each token of a row attends to, (L, L), or None for all."""
    if not is_causal and (sliding_window is None or length <= sliding_window):
        return None
    places_L = torch.arange(length, device=device)
    back_LL = places_L[:, None] - places_L[None, :]
    near_LL = back_LL.abs() < (sliding_window or length)
    return near_LL & (back_LL >= 0) if is_causal else near_LL


def _bert_first_tokens(layer: Any, first: Tensor, hidden: Tensor, **kwargs: Any) -> Tensor:
    attention = layer.attention.self
    found = _attend_first(
        attention,
        attention.query(first),
        attention.key(hidden),
        attention.value(hidden),
        attention.attention_head_size,
        **kwargs,
    )
    return layer.feed_forward_chunk(layer.attention.output(found, first))


def _distilbert_first_tokens(layer: Any, first: Tensor, hidden: Tensor, **kwargs: Any) -> Tensor:
    attention = layer.attention
    found = _attend_first(
        attention,
        attention.q_lin(first),
        attention.k_lin(hidden),
        attention.v_lin(hidden),
        attention.attention_head_size,
        **kwargs,
    )
    attended = layer.sa_layer_norm(attention.out_lin(found) + first)
    return layer.output_layer_norm(layer.ffn(attended) + attended)


def _attend_first(
    attention: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_size: int,
    *,
    packed_rows: PackedRows,
    **_: Any,
) -> Tensor:
    q, k, v = (
        states.unflatten(-1, (-1, head_size)).transpose(1, 2) for states in (query, key, value)
    )
    rate = attention.dropout.p if attention.training else 0.0
    return packed_attention(
        attention, q, k, v, None, packed_rows=packed_rows, scaling=attention.scaling, dropout=rate
    )[0].flatten(2)


LAST_LAYERS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "BertForSequenceClassification": ("encoder.layer", _bert_first_tokens),
    "CamembertForSequenceClassification": ("encoder.layer", _bert_first_tokens),
    "DistilBertForSequenceClassification": ("transformer.layer", _distilbert_first_tokens),
    "ElectraForSequenceClassification": ("encoder.layer", _bert_first_tokens),
    "RobertaForSequenceClassification": ("encoder.layer", _bert_first_tokens),
    "XLMRobertaForSequenceClassification": ("encoder.layer", _bert_first_tokens),
}
"""Classifiers whose head reads only the first token of each row.

Each name maps to the path of the encoder's layers and a function that computes one layer for first
tokens.
"""
