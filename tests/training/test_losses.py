import pytest
import torch
from torch.nn import functional as F

from trainer.training.losses import LOSSES, step_loss


class Outputs:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize("name", LOSSES)
def test_weights_of_one_give_torch_cross_entropy(name):
    torch.manual_seed(0)
    logits, labels = torch.randn(9, 4), torch.randint(0, 4, (9,))
    assert LOSSES[name](logits, labels, class_weights_C=torch.ones(4)).item() == pytest.approx(F.cross_entropy(logits, labels).item() * 9)


@pytest.mark.parametrize("name", LOSSES)
def test_ignored_rows_count_zero(name):
    logits = torch.randn(4, 3, requires_grad=True)
    loss = LOSSES[name](logits, torch.tensor([0, -100, 2, -100]), class_weights_C=torch.tensor([1.0, 2.0, 3.0]))
    loss.backward()
    assert logits.grad[1].abs().sum() == logits.grad[3].abs().sum() == 0
    assert logits.grad[0].abs().sum() > 0


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("size", [1e4, -1e4])
def test_gradients_are_finite_at_extreme_logits_in_half_precision(name, size):
    logits = torch.tensor([[size, 0.0], [0.0, size]], dtype=torch.bfloat16, requires_grad=True)
    LOSSES[name](logits, torch.tensor([1, 1]), class_weights_C=torch.tensor([0.5, 1.5])).backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad.abs().sum() > 0


def test_weighted_loss_by_hand():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]])  # every row costs ln 2
    compute = step_loss("cross_entropy", torch.tensor([0.5, 2.0]), 0.0)
    found = compute(Outputs(logits), torch.tensor([0, 0, 1]), num_items_in_batch=torch.tensor(3))
    assert found.item() == pytest.approx(0.6931472 * (0.5 + 0.5 + 2.0) / 3)
