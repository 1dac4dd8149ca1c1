"""Attention within packed rows by torch's flash kernels: no padding, no mask, with dropout.

Legend: B rows, T tokens of all rows together, h heads, d units of a head.
"""

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

from trainer.errors import first_line
from trainer.training.batches.packed_rows import PackedRows
from trainer.training.models.probe import kept_randomness

MULTIPLE_OF_UNITS = 8
"""Number that divides the units of a head that the kernels take."""
MOST_ERROR = 2e-2
"""Largest difference to exact attention, as a share of the largest value."""


@cache
def flash_fault(device: torch.device, dtype: torch.dtype) -> str | None:
    """Return why flash kernels cannot be used, None if a trial on the device gives what it should.

    Args:
        device: device of the model.
        dtype: type of queries, keys and values.
    """
    if device.type != "cuda":
        return "only NVIDIA and AMD GPUs have the kernels"
    if dtype not in (torch.bfloat16, torch.float16):
        return "the kernels need training.bf16 or training.fp16"
    try:
        with kept_randomness(device), torch.enable_grad():
            return _trial(device, dtype)
    except Exception as error:  # a GPU or a torch without the kernels
        return f"{type(error).__name__}: {first_line(error)}"


def _trial(device: torch.device, dtype: torch.dtype) -> str | None:
    """Compare output and gradient of two rows with torch's plain attention."""
    rows = PackedRows(torch.arange(24) < torch.tensor([24, 9])[:, None], device)
    states_Thd = torch.arange(33 * 2 * 64, device=device).sin().view(33, 2, 64).to(dtype)
    packed, plain = states_Thd.requires_grad_(), states_Thd.detach().float().requires_grad_()
    flash_attention(packed, packed, packed, rows, scale=0.125, dropout=0.1)  # that it runs at all
    found = flash_attention(packed, packed, packed, rows, scale=0.125)
    each_hTd = [row.transpose(0, 1) for row in plain.split(rows.lengths_B)]
    alone_hTd = [F.scaled_dot_product_attention(x, x, x, scale=0.125) for x in each_hTd]
    wanted = torch.cat(alone_hTd, 1).transpose(0, 1)
    slopes_Thd = torch.arange(wanted.numel(), device=device).cos().view_as(wanted)
    ours, exact = (
        torch.cat([out, *torch.autograd.grad((out * slopes_Thd).sum(), states)]).float()
        for out, states in ((found, packed), (wanted, plain))
    )
    is_same = torch.allclose(ours, exact, rtol=0.0, atol=MOST_ERROR * float(exact.abs().max()))
    return None if is_same else "they give other values than torch's plain attention"


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    rows: PackedRows,
    *,
    scale: float,
    dropout: float = 0.0,
    is_causal: bool = False,
    sliding_window: int | None = None,
) -> Tensor:
    """Compute attention within each row; `torch.nn.attention.varlen_attn` with dropout.

    Args:
        query: (T, h, d), or (B, h, d) with only the first token of each row.
        key, value: (T, h or fewer, d).
        rows: the rows.
        is_causal: whether a token attends only to itself and tokens before it.
        sliding_window: a token attends to tokens that are less than so many places away.
    Returns:
        (T or B, h, d).
    """
    first_only, longest, units = len(query) != len(key), max(rows.lengths_B), query.shape[-1]
    missing = -units % MULTIPLE_OF_UNITS
    q, k, v = (F.pad(each, (0, missing)) if missing else each for each in (query, key, value))
    reach = -1 if sliding_window is None else sliding_window - 1
    found: Tensor = torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        rows.row_offsets_B1 if first_only else rows.offsets_B1,
        rows.offsets_B1,
        1 if first_only else longest,
        longest,
        dropout,
        is_causal and reach < 0,  # with a window, the reach to the right says it
        False,  # return_debug_mask
        scale=scale,
        window_size_left=reach,
        window_size_right=0 if is_causal else reach,
    )[0]
    return found[..., :units]
