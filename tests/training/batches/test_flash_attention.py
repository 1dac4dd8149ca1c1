"""Attention by torch's flash kernels, on a CPU for which the test registers plain ones.

The real operator, its arguments and its derivative run; only a GPU can show its kernels.
"""

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from test_packing import LENGTHS, PACKED, batch_of, build, close, logits_and_gradients

from trainer.training.batches import flash_attention, packed_attention
from trainer.training.batches.packed_rows import PackedRows
from trainer.training.batches.packing import pack


def plain(q, k, v, cu_q, cu_k, max_q, max_k, dropout, is_causal, scale, left, right):
    """What torch documents of attention over rows that start at `cu_q` and `cu_k`."""
    assert (cu_q.dtype, cu_k.dtype) == (torch.int32, torch.int32)
    assert (len(q), len(k)) == (cu_q[-1], cu_k[-1])
    assert (max_q, max_k) == (cu_q.diff().max(), cu_k.diff().max())
    assert q.shape[-1] % 8 == 0
    right = 0 if is_causal else right
    out = []
    for row in range(len(cu_q) - 1):
        q_h, k_h, v_h = (
            x[cu[row] : cu[row + 1]].transpose(0, 1) for x, cu in ((q, cu_q), (k, cu_k), (v, cu_k))
        )
        groups = q_h.shape[0] // k_h.shape[0]
        k_h, v_h = k_h.repeat_interleave(groups, 0), v_h.repeat_interleave(groups, 0)
        (_, rows, _), columns = q_h.shape, k_h.shape[1]
        # the last query is that of the last key
        ahead = torch.arange(columns) - torch.arange(rows)[:, None] - (columns - rows)
        far = ((ahead < -left) & (left >= 0)) | ((ahead > right) & (right >= 0))
        scores = (q_h @ k_h.transpose(1, 2) * scale).masked_fill(far, -torch.inf)
        out.append((scores.softmax(-1) * (1 - dropout) @ v_h).transpose(0, 1))
    return torch.cat(out)


def gradients(grad, inputs, given):
    """The gradients of queries, keys and values, by autograd."""
    states = [each.detach().requires_grad_() for each in inputs]
    return torch.autograd.grad(plain(*states, *given), states, grad)


@pytest.fixture
def calls(monkeypatch):
    """Register plain kernels for the CPU, and give the arguments of their calls."""
    calls = []

    def forward(q, k, v, cu_q, cu_k, max_q, max_k, dropout, is_causal, debug, **others):
        window = others.pop("window_size_left"), others.pop("window_size_right")
        given = (cu_q, cu_k, max_q, max_k, dropout, is_causal, others.pop("scale"), *window)
        calls.append(("forward", *given))
        assert not debug
        assert not any(value is not None for value in others.values())
        nothing = q.new_zeros(0)
        state = torch.zeros(2, dtype=torch.uint64)
        return plain(q, k, v, *given), nothing, state, state[0], nothing

    def backward(
        grad, q, k, v, out, lse, cu_q, cu_k, max_q, max_k, dropout, is_causal, *_, **named
    ):
        window = named["window_size_left"], named["window_size_right"]
        given = (cu_q, cu_k, max_q, max_k, dropout, is_causal, named["scale"], *window)
        calls.append(("backward", *given))
        # below autograd nothing is recorded in this thread
        with ThreadPoolExecutor(1) as other:
            return other.submit(gradients, grad, (q, k, v), given).result()

    kernels = torch.library.Library("aten", "IMPL")
    kernels.impl("_flash_attention_forward", forward, "CPU")
    kernels.impl("_flash_attention_backward", backward, "CPU")
    monkeypatch.setattr(packed_attention, "flash_fault", lambda device, dtype: None)
    yield calls
    kernels._destroy()


@pytest.mark.parametrize("kind", PACKED)
def test_rows_packed_for_the_kernels_give_the_logits_and_gradients_of_padded_ones(kind, calls):
    padded = build(*PACKED[kind])
    packed = copy.deepcopy(padded)
    assert pack(packed) is None
    for lengths in LENGTHS.values():
        calls.clear()
        batch = batch_of(lengths, padded)
        expected, wanted = logits_and_gradients(padded, batch)
        logits, found = logits_and_gradients(packed, batch)
        torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)
        close(found, wanted)
        assert {name for name, *_ in calls} == {"forward", "backward"}


def test_last_layer_asks_for_one_query_of_each_row(calls):
    model = build(*PACKED["bert"])
    assert pack(model) is None
    calls.clear()
    model(**batch_of([5, 3], model))
    (_, first, *_), (_, last, keys, longest, *_) = calls[0], calls[-1]
    assert (first.tolist(), last.tolist(), keys.tolist()) == ([0, 5, 8], [0, 1, 2], [0, 5, 8])
    assert longest == 1


def test_window_and_causal_order_are_said_as_to_varlen_attn(calls):
    rows = PackedRows(torch.arange(6) < torch.tensor([6, 4])[:, None], torch.device("cpu"))
    states = torch.randn(10, 2, 8)
    asked = {(False, None): (False, -1, -1), (True, None): (True, -1, 0)}
    asked |= {(False, 3): (False, 2, 2), (True, 3): (False, 2, 0)}
    for (is_causal, window), expected in asked.items():
        flash_attention.flash_attention(
            states, states, states, rows, scale=1.0, is_causal=is_causal, sliding_window=window
        )
        *_, causal, _, left, right = calls[-1]
        assert (causal, left, right) == expected


def test_heads_whose_size_the_kernels_do_not_take_are_filled_up(calls):
    rows = PackedRows(torch.arange(6) < torch.tensor([6, 4])[:, None], torch.device("cpu"))
    states = torch.randn(10, 2, 12)
    found = flash_attention.flash_attention(states, states, states, rows, scale=0.5)
    wanted = [
        torch.nn.functional.scaled_dot_product_attention(*[row.transpose(0, 1)] * 3, scale=0.5)
        for row in states.split([6, 4])
    ]
    torch.testing.assert_close(found, torch.cat([each.transpose(0, 1) for each in wanted]))


def test_dropout_of_training_reaches_the_kernels_of_both_directions(calls):
    model = build("Bert", PACKED["bert"][1] | {"attention_probs_dropout_prob": 0.25}).train()
    assert pack(model) is None
    calls.clear()
    model(**batch_of([5, 3], model)).logits.sum().backward()
    assert {name: rate for name, _, _, _, _, rate, *_ in calls} == dict.fromkeys(
        ("forward", "backward"), 0.25
    )


def test_trial_finds_kernels_that_work_those_that_do_not_and_those_that_are_not_there(
    calls, monkeypatch
):
    cpu, half = torch.device("cpu"), torch.bfloat16
    assert flash_attention._trial(cpu, half) is None
    real = flash_attention.flash_attention
    monkeypatch.setattr(flash_attention, "flash_attention", lambda *a, **o: 1.1 * real(*a, **o))
    assert "other values" in flash_attention._trial(cpu, half)
    assert flash_attention.flash_fault(cpu, half) == "only NVIDIA and AMD GPUs have the kernels"
    cuda = torch.device("cuda")
    assert "training.bf16" in flash_attention.flash_fault(cuda, torch.float32)
