"""Layers for CPUs against torch's own."""

import copy

import pytest
import torch
from torch import nn

from trainer.training.models.cpu_layers import (
    LARGE_ROWS,
    FastDropout,
    RowGradientEmbedding,
    dropout,
    speed_up,
)


@pytest.mark.parametrize("p", [0.1, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_a_share_of_p_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    out = dropout(torch.ones(1001, 999, dtype=dtype), p).float()
    assert (out == 0).float().mean().item() == pytest.approx(
        p, abs=0.002
    )  # 4 standard deviations of a million draws
    assert torch.unique(out).tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=0.01)
    assert out.mean().item() == pytest.approx(1.0, abs=0.006)


def test_each_of_the_four_elements_cut_from_an_integer_is_dropped_alike_and_by_itself():
    torch.manual_seed(1)
    dropped = (dropout(torch.ones(4_000_000), 0.1) == 0).view(-1, 4).double()
    assert dropped.mean(0).tolist() == pytest.approx([0.1] * 4, abs=0.0012)
    correlation = torch.corrcoef(dropped.T)
    assert (correlation - torch.eye(4)).abs().max() < 0.004


def test_gradient_of_dropout_passes_where_the_element_was_kept():
    torch.manual_seed(0)
    states = torch.randn(7, 5, requires_grad=True)
    out = dropout(states, 0.4)
    out.backward(torch.ones_like(out))
    torch.testing.assert_close(
        states.grad, torch.where(out == 0, 0.0, 1 / (1 - round(0.4 * 65536) / 65536))
    )


def test_same_seed_drops_the_same_elements():
    torch.manual_seed(3)
    first = dropout(torch.ones(1000), 0.3)
    assert not torch.equal(dropout(torch.ones(1000), 0.3), first)
    torch.manual_seed(3)
    assert torch.equal(dropout(torch.ones(1000), 0.3), first)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_rates_of_zero_and_one_keep_and_drop_everything(p):
    assert torch.equal(dropout(torch.ones(10), p), torch.full((10,), 1 - p))


def test_dropout_layer_is_off_outside_training():
    assert torch.equal(FastDropout(0.5).eval()(torch.ones(10)), torch.ones(10))


def swapped(embedding):
    out = copy.deepcopy(embedding)
    out.__class__ = RowGradientEmbedding
    return out


@pytest.mark.parametrize("padding_idx", [None, 3])
def test_row_gradient_equals_torchs_over_steps_and_accumulation(padding_idx):
    torch.manual_seed(0)
    plain = nn.Embedding(50, 4, padding_idx=padding_idx)
    ours = swapped(plain)
    optimizers = [torch.optim.AdamW(module.parameters(), lr=0.1) for module in (plain, ours)]
    for step in range(4):
        for _ in range(1 + step % 2):  # passes of one step
            ids, towards = torch.randint(0, 50, (3, 5)), torch.randn(3, 5, 4)
            for module in (plain, ours):
                (module(ids) * towards).sum().backward()
        torch.testing.assert_close(ours.weight.grad, plain.weight.grad)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        torch.testing.assert_close(ours.weight, plain.weight)


def test_gradient_that_is_scaled_in_place_leaves_nothing_for_the_next_step():
    ours = swapped(nn.Embedding(10, 2))
    ours(torch.tensor([1, 2])).sum().backward()
    nn.utils.clip_grad_norm_(ours.parameters(), 0.1)
    ours.weight.grad = None
    ours(torch.tensor([5])).sum().backward()
    assert ours.weight.grad.nonzero()[:, 0].unique().tolist() == [5]


def test_frozen_embedding_gets_no_gradient():
    ours = swapped(nn.Embedding(10, 2)).requires_grad_(False)
    assert not ours(torch.tensor([1])).requires_grad
    assert ours.weight.grad is None


def bert(vocab_size):
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(
        BertConfig(
            hidden_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            vocab_size=vocab_size,
        )
    )


def test_model_keeps_names_and_values_of_its_weights():
    model = bert(LARGE_ROWS)
    before = copy.deepcopy(model.state_dict())
    speed_up(model, own_gradients=True)
    assert isinstance(model.bert.embeddings.word_embeddings, RowGradientEmbedding)
    assert type(model.bert.embeddings.position_embeddings) is nn.Embedding
    assert not any(type(module) is nn.Dropout for module in model.modules())
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_embedding_is_left_to_whoever_else_takes_gradients():
    model = bert(LARGE_ROWS)
    speed_up(model, own_gradients=False)
    assert type(model.bert.embeddings.word_embeddings) is nn.Embedding


def test_autocast_type_holds_from_the_embeddings_to_the_last_layer():
    model = bert(100).eval()
    speed_up(model, own_gradients=True)
    kinds = []
    model.bert.encoder.layer[0].register_forward_hook(
        lambda module, args, out: kinds.append((args[0].dtype, out.dtype))
    )
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(input_ids=ids)
    with torch.no_grad():
        model(input_ids=ids)
    assert kinds == [(torch.bfloat16, torch.bfloat16), (torch.float32, torch.float32)]
