from typing import get_args

import numpy as np
import pytest
import torch
from scipy.special import log_softmax
from torch.nn import functional as F

from trainer.config.sections.balancing import LossName
from trainer.training.losses.one_label import (
    LOSSES,
    cross_entropy,
    focal,
    logit_adjusted,
    loss_options,
)
from trainer.training.losses.step_loss import step_loss

COUNTS = np.array([90, 9, 1])
EVERY_LOSS = pytest.mark.parametrize("name", LOSSES)


class Outputs:
    def __init__(self, logits):
        self.logits = logits


def options(name, counts=COUNTS):
    return loss_options(name, {}, counts)


def reference(name, logits, labels, weights, gamma=2.0, tau=1.0, smoothing=0.0):
    """Each loss in float64 NumPy, from the formulas of the papers, row by row."""
    logits = logits.astype(np.float64)
    if name in ("logit_adjusted", "balanced_softmax"):
        logits = logits + tau * np.log(COUNTS / COUNTS.sum())
    total = 0.0
    for row, label in zip(log_softmax(logits, axis=1), labels, strict=True):
        if label == -100:
            continue
        if name == "focal":
            total -= weights[label] * (1 - np.exp(row[label])) ** gamma * row[label]
        else:
            total -= (1 - smoothing) * weights[label] * row[label] + smoothing / len(row) * (
                weights * row
            ).sum()
    return total


def test_the_config_knows_exactly_these_losses():
    assert set(get_args(LossName)) == set(LOSSES)


@EVERY_LOSS
def test_value_and_gradient_equal_a_float64_reference(name):
    generator = np.random.default_rng(0)
    logits, labels, weights = (
        generator.normal(0, 3, (40, 3)),
        generator.integers(0, 3, 40),
        np.array([0.4, 1.3, 2.0]),
    )
    labels[5] = -100
    tensor = torch.tensor(logits, dtype=torch.float32, requires_grad=True)
    loss = LOSSES[name](
        tensor,
        torch.tensor(labels),
        class_weights_C=torch.tensor(weights, dtype=torch.float32),
        **options(name),
    )
    loss.backward()
    assert loss.item() == pytest.approx(reference(name, logits, labels, weights), rel=1e-5)
    for row, column in ((0, 0), (3, 2), (5, 1)):
        nudge = np.zeros_like(logits)
        nudge[row, column] = 1e-5
        slope = (
            reference(name, logits + nudge, labels, weights)
            - reference(name, logits - nudge, labels, weights)
        ) / 2e-5
        assert tensor.grad[row, column].item() == pytest.approx(slope, rel=1e-3, abs=1e-5)


def test_limits_give_cross_entropy():
    torch.manual_seed(0)
    logits, labels, weights = (
        torch.randn(9, 3),
        torch.randint(0, 3, (9,)),
        torch.tensor([0.5, 1.0, 3.0]),
    )
    plain = F.cross_entropy(logits, labels, weight=weights, reduction="sum").item()
    log_prior = torch.tensor(np.log(COUNTS / 100), dtype=torch.float32)
    assert cross_entropy(logits, labels, class_weights_C=weights).item() == pytest.approx(plain)
    assert focal(logits, labels, class_weights_C=weights, gamma=0).item() == pytest.approx(plain)
    assert logit_adjusted(
        logits, labels, class_weights_C=weights, log_prior_C=log_prior, tau=0
    ).item() == pytest.approx(plain)
    equal = torch.full((3,), -1.0986123)
    assert logit_adjusted(
        logits, labels, class_weights_C=weights, log_prior_C=equal, tau=1
    ).item() == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("name", ["cross_entropy", "logit_adjusted"])
def test_label_smoothing_equals_the_reference(name):
    logits, labels, weights = (
        np.random.default_rng(1).normal(size=(7, 3)),
        np.array([0, 1, 2, 0, 1, 2, 2]),
        np.array([0.5, 1.0, 3.0]),
    )
    found = LOSSES[name](
        torch.tensor(logits),
        torch.tensor(labels),
        class_weights_C=torch.tensor(weights, dtype=torch.float32),
        label_smoothing=0.2,
        **options(name),
    )
    assert found.item() == pytest.approx(
        reference(name, logits, labels, weights, smoothing=0.2), rel=1e-5
    )


@EVERY_LOSS
def test_ignored_rows_count_zero(name):
    logits = torch.randn(4, 3, requires_grad=True)
    loss = LOSSES[name](
        logits,
        torch.tensor([0, -100, 2, -100]),
        class_weights_C=torch.tensor([1.0, 2.0, 3.0]),
        **options(name),
    )
    loss.backward()
    assert logits.grad[1].abs().sum() == logits.grad[3].abs().sum() == 0
    assert logits.grad[0].abs().sum() > 0


@EVERY_LOSS
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("size", [1e4, -1e4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_gradients_are_finite_at_extreme_logits(name, gamma, size, dtype):
    chosen = options(name, np.array([9, 1])) | ({"gamma": gamma} if name == "focal" else {})
    logits = torch.tensor([[size, 0.0], [0.0, size], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = LOSSES[name](
        logits, torch.tensor([1, 1, 0]), class_weights_C=torch.tensor([0.5, 1.5]), **chosen
    )
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


def test_weighted_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # every row costs ln 2
    labels = torch.tensor([0, 0, 1])
    compute = step_loss(cross_entropy, torch.tensor([0.5, 2.0]))
    assert compute(
        Outputs(logits), labels, num_items_in_batch=torch.tensor(3)
    ).item() == pytest.approx(0.6931472 * (0.5 + 0.5 + 2.0) / 3)
    # a quarter of it with gamma 2, since 1 - p is one half
    compute = step_loss(focal, torch.tensor([0.5, 2.0]), {"gamma": 2.0})
    assert compute(Outputs(logits), labels, num_items_in_batch=3).item() == pytest.approx(
        0.6931472 * 3.0 / 12
    )
    # shares 3/4 and 1/4 become the probabilities themselves
    compute = step_loss(logit_adjusted, torch.ones(2), options("logit_adjusted", np.array([3, 1])))
    assert compute(Outputs(logits), labels, num_items_in_batch=3).item() == pytest.approx(
        (2 * 0.2876821 + 1.3862944) / 3
    )
