"""Copies of batches to a device, for which neither the CPU nor queued work waits."""

from functools import cache
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

ALIGNMENT = 16
"""Bytes that divide the place of each tensor in a buffer."""
NEAR = ("cpu", "mps")
"""Devices that use the memory of the CPU, so that nothing is gained by one copy of all."""


def send(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Return the tensors on a device, sent in one copy.

    Args:
        tensors: tensors on the CPU.
    """
    if device.type in NEAR:
        return {name: tensor.to(device) for name, tensor in tensors.items()}
    sizes = [-(-tensor.nbytes // ALIGNMENT) * ALIGNMENT for tensor in tensors.values()]
    starts = dict(zip(tensors, accumulate(sizes, initial=0), strict=False))
    host = torch.empty(sum(sizes), dtype=torch.uint8, pin_memory=device.type == "cuda")
    for name, tensor in tensors.items():
        _part(host, starts[name], tensor).copy_(tensor)
    sent = _copied(host, device)
    return {name: _part(sent, starts[name], tensor) for name, tensor in tensors.items()}


def _part(buffer: Tensor, start: int, like: Tensor) -> Tensor:
    """Return a tensor of the shape and type of another one, whose values lie in a buffer.

    It is no view: autograd would take a change of one part for a change of all of them.
    """
    part: Any = torch.empty(0, dtype=like.dtype, device=buffer.device)
    return part.set_(buffer.untyped_storage(), start // like.itemsize, like.shape)


def _copied(host: Tensor, device: torch.device) -> Tensor:
    """Return a copy on the device; CUDA makes it while it still computes earlier steps."""
    if device.type != "cuda":
        return host.to(device)
    copying, computing = _copy_stream(device), torch.cuda.current_stream(device)
    with torch.cuda.stream(copying):
        sent = host.to(device, non_blocking=True)
    computing.wait_stream(copying)
    sent.record_stream(computing)  # so that its memory is not used again before
    return sent


@cache
def _copy_stream(device: torch.device) -> Any:
    return torch.cuda.Stream(device)
