"""The most memory that one training held, whatever ran before it in the same process."""

import resource
import sys
from pathlib import Path

import torch

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_PEAK = "5"
"""What Linux takes to start the peak of a process anew, see proc(5)."""
SLACK_BYTES = 32 * 2**20
"""Memory that may come between resetting the peak and reading it."""


class PeakMemory:
    """Measures from when it is made: what tensors hold on an accelerator that counts it, else the resident memory of this process.

    Args:
        device: that trains.
    Attributes:
        of: "accelerator"; "process"; or "process since its start", where the system cannot start the peak anew.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.of = (
            "accelerator"
            if _reset_accelerator(device)
            else "process"
            if _reset()
            else "process since its start"
        )

    def figures(self) -> dict[str, int | str]:
        """Return what metrics.json holds of it."""
        return {"peak_memory_bytes": self.num_bytes, "peak_memory_of": self.of}

    @property
    def num_bytes(self) -> int:
        """The most so far, in bytes."""
        if self.of == "accelerator":
            return int(torch.accelerator.max_memory_allocated(self.device))
        if self.of == "process":
            return _status_bytes("VmHWM")
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset_accelerator(device: torch.device) -> bool:
    """Start the peak of an accelerator anew; whether there is one that counts its memory."""
    if device.type == "cpu":
        return False
    try:
        torch.accelerator.reset_peak_memory_stats(device)
    except RuntimeError:  # of a device whose allocator keeps no counts
        return False
    return True


def _reset() -> bool:
    """Start the peak of this process anew; whether that had an effect."""
    try:
        CLEAR.write_text(RESET_PEAK, encoding="ascii")
        return 0 < _status_bytes("VmHWM") <= _status_bytes("VmRSS") + SLACK_BYTES
    except OSError:  # no Linux, or a sandbox that forbids it
        return False


def _status_bytes(name: str) -> int:
    """Return a line of /proc/self/status in bytes; 0 where it is missing."""
    lines = STATUS.read_text(encoding="ascii", errors="replace").split("\n")
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
