"""Every multi-label loss: against the formulas of its paper in float64, limits, and extremes."""

import numpy as np
import pytest
import torch

from trainer.data.labels.multi_label import answer_weights, positive_weights
from trainer.training.losses.several_labels import (
    MULTI_LABEL_LOSSES,
    asymmetric,
    binary_cross_entropy,
    binary_focal,
    distribution_balanced,
    multi_label_options,
)

COUNTS, NUM_ROWS, LABELS = np.array([60, 9, 1, 0]), 80, ["a", "b", "c", "d"]
EVERY_LOSS = pytest.mark.parametrize("name", MULTI_LABEL_LOSSES)
CLASS_BALANCED = answer_weights(
    positive_weights(COUNTS, NUM_ROWS, "effective_number", LABELS), "effective_number"
)
PLAIN = np.ones(4)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def log_odds(count):
    return -np.log(NUM_ROWS / max(count, 1) - 1)


def focal_term(q, gamma):
    return -0.5 * (1 - q) ** gamma * np.log(q)


def answer(name, z, has_label, label, own_labels):
    """The loss of one answer, from the formulas of the papers.

    Huang et al. 2021, sections 3.1 to 3.4, with Wu et al. 2020; Ridnik et al. 2021, equation 7.
    """
    if name == "cross_entropy":
        return -np.log(sigmoid(z if has_label else -z))
    if name == "asymmetric":
        shifted = max(sigmoid(z) - 0.05, 0)
        return -np.log(sigmoid(z)) if has_label else -(shifted**4) * np.log(1 - shifted)
    if name == "focal":
        return focal_term(sigmoid(z if has_label else -z), 2)
    nu, scale = -0.05 * log_odds(COUNTS[label]), 2.0
    term = (
        focal_term(sigmoid(z - nu), 2)
        if has_label
        else focal_term(1 - sigmoid(scale * (z - nu)), 2) / scale
    )
    if name == "cb_ntr":
        return 10 * (1 - 0.9) / (1 - 0.9 ** max(COUNTS[label], 1)) * term
    if name == "distribution_balanced":
        repeats = sum(1 / max(COUNTS[own], 1) for own in own_labels)
        share = 1 / max(COUNTS[label], 1) / repeats
        return (0.1 + sigmoid(10 * (share - 0.9))) * term
    return term


def material(seed=0):
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 3, (30, 4))
    targets = (generator.random((30, 4)) < 0.4).astype(float)
    targets[targets.sum(1) == 0, 0] = 1  # a row without a label is tested below
    targets[3] = -100
    targets[4, 2] = -100
    return logits, targets


def computed(name, logits, targets, settings=None):
    options = multi_label_options(name, settings or {}, COUNTS, NUM_ROWS)
    weights = torch.tensor(CLASS_BALANCED if name == "cb_ntr" else PLAIN, dtype=torch.float32)
    return MULTI_LABEL_LOSSES[name](logits, targets, class_weights_C=weights, **options)


@EVERY_LOSS
def test_value_equals_the_formulas_of_the_paper(name):
    logits, targets = material()
    total = sum(
        answer(name, logits[row, label], target > 0, label, np.flatnonzero(targets[row] > 0))
        for (row, label), target in np.ndenumerate(targets)
        if target != -100
    )
    found = computed(name, torch.tensor(logits), torch.tensor(targets))
    assert found.item() == pytest.approx(total, rel=1e-6)


@EVERY_LOSS
def test_gradient_equals_finite_differences(name):
    logits, targets = material(1)
    tensor = torch.tensor(logits[:3], dtype=torch.float32, requires_grad=True)
    computed(name, tensor, torch.tensor(targets[:3])).backward()
    rows = [np.flatnonzero(own > 0) for own in targets[:3]]
    for (row, label), target in np.ndenumerate(targets[:3]):
        z, step = float(np.float32(logits[row, label])), 1e-5
        high, low = (answer(name, z + side, target > 0, label, rows[row]) for side in (step, -step))
        assert tensor.grad[row, label].item() == pytest.approx(
            (high - low) / (2 * step), rel=1e-4, abs=1e-5
        )


@EVERY_LOSS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_are_finite_at_extreme_logits(name, dtype):
    for size in (1e4, -1e4, 0.0):
        logits = torch.full((3, 4), size, dtype=dtype, requires_grad=True)
        targets = torch.tensor([[1.0, 1, 1, 1], [0, 0, 0, 0], [1, 0, -100, -100]])
        for gamma in (None, 0.5, 0.0):
            settings = {} if gamma is None or name == "cross_entropy" else {"gamma": gamma}
            logits.grad = None
            loss = computed(name, logits, targets, settings)
            loss.backward()
            assert torch.isfinite(loss)
            assert torch.isfinite(logits.grad).all()


@EVERY_LOSS
def test_answers_that_are_left_out_count_nothing(name):
    logits = torch.zeros(2, 4, requires_grad=True)
    targets = torch.tensor([[1.0, 0, -100, -100], [-100, -100, -100, -100]])
    computed(name, logits, targets).backward()
    assert (logits.grad != 0).tolist() == [[True, True, False, False], [False] * 4]


@EVERY_LOSS
def test_loss_of_a_step_is_the_sum_of_its_parts(name):
    logits, targets = map(torch.tensor, material())
    whole = computed(name, logits, targets)
    parts = sum(
        computed(name, *each) for each in zip(logits.split(7), targets.split(7), strict=True)
    )
    assert parts.item() == pytest.approx(whole.item(), rel=1e-6)


def test_limits_are_binary_cross_entropy():
    logits, targets = map(torch.tensor, material())
    weights = torch.tensor([1.0, 2.0, 3.0, 4.0])
    plain = binary_cross_entropy(logits, targets, class_weights_C=weights).item()
    off = {"gamma": 0.0, "margin": 0.0}
    assert asymmetric(logits, targets, class_weights_C=weights, **off).item() == pytest.approx(
        plain
    )
    assert binary_focal(
        logits, targets, class_weights_C=weights, gamma=0.0
    ).item() == pytest.approx(plain / 2)


def test_weights_of_both_answers_by_hand():
    logits, targets = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])  # every answer costs ln 2
    both = torch.tensor([[2.0, 3.0], [5.0, 7.0]])  # rows without and with the label
    found = binary_cross_entropy(logits, targets, class_weights_C=both)
    assert found.item() == pytest.approx((5 + 3) * 0.6931472)


@EVERY_LOSS
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_answers_of_weight_0_count_nothing_at_extreme_logits(name, size):
    logits = torch.full((2, 4), size, requires_grad=True)
    targets = torch.tensor([[1.0, 1, 0, 0], [0.0, 0, 1, 1]])
    weights = torch.tensor([[0.0, 1, 0, 1], [1.0, 0, 0, 1]])
    options = multi_label_options(name, {}, COUNTS, NUM_ROWS)
    loss = MULTI_LABEL_LOSSES[name](logits, targets, class_weights_C=weights, **options)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()
    assert (logits.grad[[1, 0, 0, 1], [0, 1, 2, 2]] == 0).all()


def test_effective_number_of_labels_equals_the_published_weights():
    weights = positive_weights(COUNTS, NUM_ROWS, "effective_number", LABELS)
    assert weights == pytest.approx(10 * (1 - 0.9) / (1 - 0.9 ** np.array([60, 9, 1, 1])))


def test_row_without_a_label_gets_the_largest_weight_of_a_balanced_distribution():
    logits, targets = torch.zeros(1, 4), torch.zeros(1, 4)
    options = multi_label_options("distribution_balanced", {"prior_bias": 0.0}, COUNTS, NUM_ROWS)
    found = distribution_balanced(logits, targets, class_weights_C=torch.ones(4), **options)
    # each of 4 answers: 1.1 x 0.5 x 0.5^2 x ln 2 / 2
    assert found.item() == pytest.approx(4 * 1.1 * 0.125 * 0.6931472 / 2)
