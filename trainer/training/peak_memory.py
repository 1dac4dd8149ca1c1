"""The peak memory of one training, whatever ran before it in the same process."""

import sys
from pathlib import Path

import psutil
import torch

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
RESET_PEAK = "5"
"""What Linux expects in CLEAR to reset the peak of a process, see proc(5)."""
SLACK_BYTES = 32 * 2**20
"""Memory that may be allocated between resetting the peak and reading it."""


class PeakMemory:
    """Peak memory since this object was made.

    On an accelerator that counts its memory, tensors are counted, else the resident memory of this
    process.

    Args:
        device: device that trains.
    Attributes:
        of: "accelerator", "process", or "process since its start" if the system cannot reset the
            peak.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if _reset_accelerator(device):
            self.of = "accelerator"
        else:
            self.of = "process" if _reset_process() else "process since its start"

    def figures(self) -> dict[str, int | str]:
        """Return the entries of metrics.json about memory."""
        return {"peak_memory_bytes": self.num_bytes, "peak_memory_of": self.of}

    @property
    def num_bytes(self) -> int:
        """The peak so far, in bytes."""
        if self.of == "accelerator":
            return int(torch.accelerator.max_memory_allocated(self.device))
        if self.of == "process":
            return _status_bytes("VmHWM")
        if resource is None:
            held = psutil.Process().memory_info()
            return int(getattr(held, "peak_wset", held.rss))
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _reset_accelerator(device: torch.device) -> bool:
    """Reset the peak of an accelerator; return whether it counts its memory."""
    if device.type == "cpu":
        return False
    try:
        torch.accelerator.reset_peak_memory_stats(device)
    except RuntimeError:  # the allocator of this device does not count
        return False
    return True


def _reset_process() -> bool:
    """Reset the peak of this process; return whether that had an effect."""
    try:
        CLEAR.write_text(RESET_PEAK, encoding="ascii")
        return 0 < _status_bytes("VmHWM") <= _status_bytes("VmRSS") + SLACK_BYTES
    except OSError:  # no Linux, or a sandbox that forbids it
        return False


def _status_bytes(name: str) -> int:
    """Return the value of a line of /proc/self/status in bytes, 0 if the line is missing."""
    lines = STATUS.read_text(encoding="ascii", errors="replace").split("\n")
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:")), 0)
