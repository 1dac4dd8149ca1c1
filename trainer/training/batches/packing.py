"""Padding-free batches: the encoder runs over the tokens of a batch alone, whatever the lengths of its rows.

Legend: B rows, T tokens of all rows together, L tokens of the longest row, H hidden units, h heads, d units of a head.
The model is called as ever, with padded input ids. A hook takes the padding out before the encoder and puts it back after
it, so that heads and pooling work unchanged; attention stays within each row. In models whose head reads the first token
alone, the last layer computes that token alone.
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AttentionInterface

from trainer.training.batches.packed_rows import PackedRows
from trainer.training.models.cpu_layers import dropout
from trainer.training.models.model_checks import keep_if_same, probe_batch

NAME = "packed"
MOST_RUNS = 8
"""Stretches of equally long rows up to which attention takes each by itself; beyond, it pads queries, keys and values (CPU, 32 tweets: 1.1x)."""
MOST_ROUNDING = 3.0
"""Times the rounding error of padded logits that packed ones may have: both round, in another order."""
SUPPORTED_LAYERS = {"full_attention", "sliding_attention"}


def runs_without_padding(device: torch.device) -> int:
    """Return the stretches of equally long rows up to which packed attention computes no padding; 0 where it always pads."""
    return MOST_RUNS if device.type == "cpu" else 0


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
    """Attention within each row; an entry of transformers' AttentionInterface.

    Args:
        query: (1, h, T, d), or (1, h, B, d) for the first token of each row alone.
        key, value: (1, h or fewer, T, d).
        sliding_window: tokens attend to those less than so many places away.
    Returns:
        (1, T or B, h, d), and None in place of attention weights.
    Raises:
        NotImplementedError: a kind of attention that only the model's own code knows.
    """
    packed_rows.windows.add(sliding_window)
    unknown = [
        name for name in ("softcap", "position_bias", "s_aux") if others.get(name) is not None
    ]
    if unknown:
        raise NotImplementedError(f"attention with {unknown[0]}")
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    is_causal = getattr(module, "is_causal", False) if is_causal is None else is_causal
    attend = partial(
        _attend, scale=query.shape[-1] ** -0.5 if scaling is None else scaling, dropout_p=dropout
    )
    visible = partial(
        _visible, is_causal=is_causal, sliding_window=sliding_window, device=query.device
    )
    first_only = query.shape[2] != key.shape[2]
    if len(packed_rows.runs) <= runs_without_padding(query.device):
        out = _attend_by_runs(query[0], key[0], value[0], packed_rows, attend, visible, first_only)
    else:
        out = _attend_padded(query[0], key[0], value[0], packed_rows, attend, visible, first_only)
    return out[None], None


def _attend_by_runs(
    q_hTd: Tensor,
    k_hTd: Tensor,
    v_hTd: Tensor,
    rows: PackedRows,
    attend: Callable[..., Tensor],
    visible: Callable[[int], Tensor | None],
    first_only: bool,
) -> Tensor:
    out, row, token = [], 0, 0
    for num_rows, length in rows.runs:
        tokens = slice(token, token + num_rows * length)
        k, v = (
            states[:, tokens].unflatten(1, (num_rows, length)).transpose(0, 1)
            for states in (k_hTd, v_hTd)
        )
        q = (
            q_hTd[:, row : row + num_rows, None]
            if first_only
            else q_hTd[:, tokens].unflatten(1, (num_rows, length))
        )
        mask = visible(length)
        found = attend(
            q.transpose(0, 1), k, v, None if mask is None else mask[:1] if first_only else mask
        )
        out.append(found.transpose(1, 2).flatten(0, 1))
        row, token = row + num_rows, tokens.stop
    return torch.cat(out)


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
        states_Thd = states_hTd.transpose(0, 1)
        places = states_Thd.new_zeros(num_rows * length, *states_Thd.shape[1:])
        return (
            places.index_copy(0, rows.right_places_T, states_Thd)
            .unflatten(0, (num_rows, length))
            .transpose(1, 2)
        )

    mask, within = rows.right_mask_BL[:, None, None, :], visible(length)
    k, v = padded(k_hTd), padded(v_hTd)
    if first_only:
        return attend(
            q_hTd.transpose(0, 1)[:, :, None], k, v, mask if within is None else mask & within[:1]
        )[:, :, 0]
    found = attend(padded(q_hTd), k, v, mask if within is None else mask & within)
    return found.transpose(1, 2).flatten(0, 1).index_select(0, rows.right_places_T)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, scale: float, dropout_p: float
) -> Tensor:
    """(B, h, L or 1, d) from queries, keys and values of B rows.

    torch's own attention has no kernel for dropout on CPUs and falls back on steps like these with slower random numbers.
    """
    if q.device.type != "cpu" or dropout_p == 0:
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, dropout_p=dropout_p, scale=scale
        )
    scores = torch.matmul(q * scale, k.transpose(-1, -2))
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return torch.matmul(dropout(scores.softmax(-1), dropout_p), v)


def _visible(
    length: int, *, is_causal: bool, sliding_window: int | None, device: torch.device
) -> Tensor | None:
    """Which tokens a token of one row attends to, (L, L); None for all of them."""
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
    return layer.feed_forward_chunk(layer.attention.output(found, first))  # type: ignore[no-any-return]


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
    return layer.output_layer_norm(layer.ffn(attended) + attended)  # type: ignore[no-any-return]


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
"""Classifiers whose head reads the first token of each row alone: where their layers are, and one of them for first tokens."""


def pack(model: Any, dtype: torch.dtype | None = None) -> str | None:
    """Make a classifier run without padding; nothing is changed where that does not give the same logits.

    Args:
        model: a transformers sequence classifier in float32, on the device that will compute it.
        dtype: of autocast, with which it will be computed; None for float32.
    Returns:
        None when it is packed, else why it is not.
    """
    unsupported = set(getattr(model.config, "layer_types", None) or ()) - SUPPORTED_LAYERS
    if unsupported or not model._can_set_attn_implementation():
        return f"its attention ({', '.join(sorted(unsupported)) or type(model).__name__}) cannot be replaced"

    def measure() -> tuple[Tensor, Tensor]:
        expected = _probe(model, {})[0]
        return expected, expected if dtype is None else _probe(model, {}, dtype)[0]

    return keep_if_same(
        model, measure, partial(_install, model), lambda padded: _difference(model, *padded, dtype)
    )


def _difference(
    model: Any, expected: Tensor, rounded: Tensor, dtype: torch.dtype | None
) -> str | None:
    """What tells that a packed model is another one: its logits, or a sliding window that its attention was never told of.

    Args:
        expected: padded logits in float32.
        rounded: padded logits in the precision that trains, which tell how much rounding may change.
    """
    found, windows = _probe_packed(model, None)
    scale = float(expected.abs().max())
    if scale == 0 or not torch.allclose(found, expected, rtol=0.0, atol=1e-3 * scale):
        return "its logits come out different"
    if dtype is not None:
        error = float((_probe_packed(model, dtype)[0] - expected).square().mean().sqrt())
        if (
            not error
            <= MOST_ROUNDING * float((rounded - expected).square().mean().sqrt()) + 1e-2 * scale
        ):
            return f"its logits come out different in {str(dtype).removeprefix('torch.')}"
    config = model.config.get_text_config()
    layers = getattr(config, "layer_types", None)
    is_sliding = (
        "sliding_attention" in layers
        if layers
        else bool(getattr(config, "sliding_window", None))
        and getattr(config, "use_sliding_window", True)
    )
    return "its sliding window is in its mask alone" if is_sliding and windows <= {None} else None


PROBE_LENGTHS = ([7, 4, 4], list(range(MOST_RUNS + 3, 1, -1)))
"""Rows of two batches: attention takes the first by runs of equal lengths, and pads the second."""


def _probe_packed(model: Any, dtype: torch.dtype | None) -> tuple[Tensor, set[int | None]]:
    device = next(model.parameters()).device
    masks = [
        probe_batch(model.config, lengths_B)["attention_mask"].bool() for lengths_B in PROBE_LENGTHS
    ]
    return _probe(model, {"packed_rows": [PackedRows(mask_BL, device) for mask_BL in masks]}, dtype)


def _probe(
    model: Any, given: dict[str, list[PackedRows]], dtype: torch.dtype | None = None
) -> tuple[Tensor, set[int | None]]:
    """Logits of some short rows, padded or as given, and the sliding windows that packed attention was told of."""
    device, logits = next(model.parameters()).device, []
    for number, lengths_B in enumerate(PROBE_LENGTHS):
        batch = {
            name: tensor.to(device) for name, tensor in probe_batch(model.config, lengths_B).items()
        }
        own = {name: rows[number] for name, rows in given.items()}
        with torch.no_grad(), torch.autocast(device.type, dtype, enabled=dtype is not None):
            logits.append(model(**batch, **own).logits.float())
    return torch.cat(logits), set().union(*(rows.windows for rows in given.get("packed_rows", [])))


def _install(model: Any) -> Callable[[], None]:
    """Put the hooks in; gives what takes them out again."""
    encoder, before = model.base_model, model.config._attn_implementation
    signature = inspect.signature(encoder.forward)
    AttentionInterface.register(NAME, packed_attention)
    model.set_attn_implementation(NAME)
    last = None
    if type(model).__name__ in LAST_LAYERS:
        path, first_tokens = LAST_LAYERS[type(model).__name__]
        last = encoder.get_submodule(path)[-1]
        last.forward = partial(_last_layer, last, first_tokens)
    handles = [
        encoder.register_forward_pre_hook(partial(_take_padding_out, signature), with_kwargs=True),
        encoder.register_forward_hook(
            partial(_put_padding_back, last is not None), with_kwargs=True
        ),
    ]

    def undo() -> None:
        for handle in handles:
            handle.remove()
        if last is not None:
            del last.forward
        model.set_attn_implementation(before)

    return undo


def _take_padding_out(
    signature: inspect.Signature, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[()], dict[str, Any]]:
    given = signature.bind(*args, **kwargs).arguments
    named = {name: value for name, value in given.items() if name != "kwargs"} | given.get(
        "kwargs", {}
    )
    ids_BL, mask_BL = named["input_ids"], named.get("attention_mask")
    rows = named.pop("packed_rows", None)
    if rows is None:
        rows = PackedRows(
            torch.ones_like(ids_BL, dtype=torch.bool).cpu()
            if mask_BL is None
            else mask_BL.bool().cpu(),
            ids_BL.device,
        )
    for name in ("input_ids", "token_type_ids"):
        if named.get(name) is not None:
            named[name] = named[name].flatten()[rows.places_T][None]
    if "position_ids" in signature.parameters:
        named["position_ids"] = _position_ids(encoder, ids_BL, rows)[None]
    if "use_cache" in signature.parameters:
        named["use_cache"] = False
    return (), named | {"attention_mask": None, "packed_rows": rows}


def _position_ids(encoder: Any, ids_BL: Tensor, rows: PackedRows) -> Tensor:
    """Positions of the tokens (T): as the model gives them, if it derives them from token ids, else from 0.

    RoBERTa counts from behind the padding's id, and not at a padding token that a text itself holds.
    """
    embeddings = getattr(encoder, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):
        positions_BL = embeddings.create_position_ids_from_input_ids(ids_BL, embeddings.padding_idx)  # type: ignore[union-attr]
        return positions_BL.flatten()[rows.places_T]
    return rows.position_ids_T


def _put_padding_back(
    first_only: bool, encoder: Any, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    rows: PackedRows = kwargs["packed_rows"]
    hidden = output.last_hidden_state[0]
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
