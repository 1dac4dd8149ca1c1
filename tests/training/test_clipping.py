"""Clipping within the fused optimizer gives the weights of torch's clipping."""

import copy

import pytest
import torch
from torch import nn

from trainer.training.clipping import clip_in_optimizer
from trainer.training.models.cpu_layers import RowGradientEmbedding


def model():
    torch.manual_seed(0)
    embedding = RowGradientEmbedding(50, 8, padding_idx=0)
    return nn.Sequential(embedding, nn.Flatten(), nn.Linear(32, 3))


def steps(net, clip, optimizer):
    """Norms of five steps on different ids, some of which repeat or are padding."""
    norms = []
    generator = torch.Generator().manual_seed(1)
    for _ in range(5):
        for _ in range(2):  # the second pass adds to the gradient of the first
            ids = torch.randint(0, 50, (6, 4), generator=generator)
            (net(ids).square().sum() * 3).backward()
        norms.append(clip(net))
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(norms)


@pytest.mark.parametrize("max_norm", [1.0, 1e6])
def test_weights_and_norms_are_those_of_clip_grad_norm(max_norm):
    ours = model()
    theirs = copy.deepcopy(ours)
    options = {"lr": 0.05, "weight_decay": 0.1, "fused": True}
    fused, reference = (torch.optim.AdamW(net.parameters(), **options) for net in (ours, theirs))
    norms = steps(ours, lambda net: clip_in_optimizer(fused, net, max_norm), fused)
    expected = steps(
        theirs, lambda net: nn.utils.clip_grad_norm_(net.parameters(), max_norm), reference
    )
    assert (expected > 1).all()  # with max_norm 1, every step is clipped
    torch.testing.assert_close(norms, expected)
    for found, wanted in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_gradient_that_is_not_clipped_is_the_same_to_the_last_bit():
    ours, plain = model(), model()
    fused, reference = (
        torch.optim.AdamW(net.parameters(), lr=0.05, fused=True) for net in (ours, plain)
    )
    steps(ours, lambda net: clip_in_optimizer(fused, net, 1e6), fused)
    steps(plain, lambda _: torch.zeros(()), reference)
    for found, wanted in zip(ours.parameters(), plain.parameters(), strict=True):
        assert torch.equal(found, wanted)
