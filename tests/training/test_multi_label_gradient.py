"""Binary cross-entropy of multi-label rows; its gradient depends only on the rows of a step."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import two_process_gradient as worker
from test_gradient import launch, relative

from trainer.data.tokens.tokenise import PADDING, TokenisedRows
from trainer.training.losses.several_labels import binary_cross_entropy
from trainer.training.losses.step_loss import step_loss

WEIGHTS = [0.5, 3.0, 40.0]


def test_loss_and_gradient_equal_torch_with_pos_weight():
    torch.manual_seed(0)
    logits, targets = torch.randn(9, 3, requires_grad=True), (torch.rand(9, 3) < 0.3).float()
    binary_cross_entropy(logits, targets, class_weights_C=torch.tensor(WEIGHTS)).backward()
    ours, logits.grad = logits.grad, None
    reference = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(WEIGHTS), reduction="sum")(
        logits, targets
    )
    reference.backward()
    assert torch.allclose(ours, logits.grad)
    assert binary_cross_entropy(
        logits, targets, class_weights_C=torch.tensor(WEIGHTS)
    ).item() == pytest.approx(reference.item())


def test_loss_by_hand():
    class Outputs:
        logits = torch.zeros(
            3, 2
        )  # every entry costs ln 2, times 5 where the row has the second label

    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-100.0, -100.0]])
    found = step_loss(binary_cross_entropy, torch.tensor([1.0, 5.0]))(
        Outputs(), targets, num_items_in_batch=torch.tensor(4)
    )
    assert found.item() == pytest.approx(0.6931472 * (1 + 1 + 1 + 5) / 4)


def test_ignored_entries_count_zero():
    logits = torch.randn(3, 2, requires_grad=True)
    binary_cross_entropy(
        logits,
        torch.tensor([[1.0, 0.0], [-100.0, -100.0], [-100.0, 1.0]]),
        class_weights_C=torch.ones(2),
    ).backward()
    assert (logits.grad != 0).tolist() == [[True, True], [False, False], [False, True]]


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_gradients_are_finite_at_extreme_logits_in_half_precision(size):
    logits = torch.tensor([[size, -size]], dtype=torch.bfloat16, requires_grad=True)
    binary_cross_entropy(
        logits, torch.tensor([[0.0, 1.0]]), class_weights_C=torch.tensor([2.0, 2.0])
    ).backward()
    assert torch.isfinite(logits.grad).all()


def test_padding_row_has_ignored_targets():
    rows = TokenisedRows(
        {"input_ids": np.array([5, 6], np.int32)},
        np.array([0, 1, 2]),
        np.array([[True, False], [False, False]]),
        np.zeros(2, bool),
    )
    assert rows[0]["labels"] == [1.0, 0.0]
    assert rows[PADDING]["labels"] == [-100.0, -100.0]


def test_same_sixteen_rows_give_the_same_gradient_and_loss_however_cut(tiny_model, tmp_path):
    whole, quarters, ones = (
        worker.step(
            str(tiny_model),
            str(tmp_path / "x"),
            batch,
            accumulation,
            WEIGHTS,
            16,
            0.0,
            multi_label=True,
        )
        for batch, accumulation in ((16, 1), (4, 4), (1, 16))
    )
    for cut in (quarters, ones):
        assert relative(cut["gradient"], whole["gradient"]) < 1e-6
        assert cut["losses"] == pytest.approx(whole["losses"], rel=1e-6)


@pytest.mark.exhaustive
def test_two_processes_give_the_same_run_as_one_with_an_uneven_last_step(tiny_model, tmp_path):
    two = launch(tiny_model, tmp_path, 4, 2, WEIGHTS, 37, multi_label=True)
    one = worker.step(
        str(tiny_model),
        str(tmp_path / "x"),
        16,
        1,
        WEIGHTS,
        37,
        0.0,
        epochs=2,
        multi_label=True,
    )
    assert (two["processes"], one["processes"]) == (2, 1)
    assert relative(two["gradient"], one["gradient"]) < 1e-6
    assert two["losses"] == pytest.approx(one["losses"], rel=1e-6)
    assert relative(two["parameters"], one["parameters"]) < 1e-6
