"""Batches sent to a device in one copy; a CPU plays the device."""

import pytest
import torch

from trainer.training.batches import sending

CPU = torch.device("cpu")


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_tensors_of_all_types_and_shapes_arrive_as_they_were(mode, monkeypatch):
    wide = torch.arange(24).view(4, 6)
    tensors = {
        "columns of a wider batch": wide[:, 1:4],
        "mask": wide > 7,
        "targets": torch.rand(3, 5),
        "offsets": torch.arange(3, dtype=torch.int32),
        "nothing": torch.empty(0, 2),
        "number": torch.tensor(7),
    }
    assert all(sent is tensors[name] for name, sent in sending.send(tensors, CPU).items())
    monkeypatch.setattr(sending, "NEAR", ())
    with mode():
        found = sending.send(tensors, CPU)
    assert list(found) == list(tensors)
    for name, tensor in tensors.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor)


def test_a_model_may_change_one_of_the_tensors_in_place(monkeypatch):
    monkeypatch.setattr(sending, "NEAR", ())
    sent = sending.send({"values": torch.ones(3), "mask": torch.ones(3)}, CPU)
    weights = torch.ones(3, requires_grad=True)
    product = weights * sent["values"]
    sent["mask"].zero_()
    product.sum().backward()  # reads the values, which a view of one buffer would call changed
    assert weights.grad.tolist() == [1, 1, 1]
