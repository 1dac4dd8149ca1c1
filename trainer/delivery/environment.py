"""What a run was made with: versions, commit, hardware, data. No environment variable is recorded, so no token can be."""

import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

Commits = dict[str, dict[str, str | None]]
"""{"model" or "data": {Hub id: commit that was read, None where it is not known}}; what is not there is local."""
PACKAGES = ("equipoise", "torch", "transformers", "datasets", "accelerate", "evaluate", "scikit-learn", "numpy", "pyarrow", "tokenizers")


def describe_environment(fingerprint: str, counts: dict[str, int], num_processes: int, commits: Commits | None = None) -> dict[str, Any]:
    """Plain values for environment.json.

    Args:
        fingerprint: digest of the cleaned rows.
        counts: rows by what cleaning did to them.
        commits: of the base model and of the data.
    """
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": {"python": platform.python_version()} | {name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "hardware": {
            "platform": platform.platform(),
            "processor": _processor(),
            "threads": torch.get_num_threads(),
            "processes": num_processes,
            "gpus": gpus,
        },
        "data": {"fingerprint": fingerprint, "rows": counts},
        "hub": commits or {},
    }


def _commit() -> str | None:
    """Commit of the code that runs, with '-dirty' where files were changed."""
    here = Path(__file__).resolve().parent
    try:
        command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()
