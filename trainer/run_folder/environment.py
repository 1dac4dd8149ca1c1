"""Describe what made a run: versions, commit, hardware and data.

No environment variable is recorded, so that no token can be.
"""

import json
import os
import platform
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path
from typing import Any

Commits = dict[str, dict[str, str | None]]
"""{"model" or "data": {Hub id: commit that was read, or None if unknown}}, without local files."""
NAME = "equipoise"
"""Name of this project and of its distribution."""
PACKAGE = Path(__file__).resolve().parent.parent
PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "evaluate",
    "scikit-learn",
    "numpy",
    "pyarrow",
    "tokenizers",
)


def describe_environment(
    fingerprint: str, counts: dict[str, int], num_processes: int, commits: Commits | None = None
) -> dict[str, Any]:
    """Return the contents of environment.json.

    Args:
        fingerprint: digest of the cleaned rows.
        counts: number of rows by what cleaning did to them.
        commits: commits of the base model and of the data.
    """
    import torch

    from trainer import __version__

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    if (
        not gpus
        and (found := torch.accelerator.current_accelerator())
        and torch.accelerator.is_available()
    ):
        gpus = [found.type] * torch.accelerator.device_count()
    return {
        "versions": {"python": platform.python_version(), "equipoise": __version__}
        | {name: version(name) for name in PACKAGES},
        "commit": code_commit(),
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


def code_commit(package: Path = PACKAGE) -> str | None:
    """Return the commit of this code, ending in '-dirty' if files were changed, or None if unknown.

    A repository around an installed package is the user's own. So git is asked only if the package
    lies in a checkout of this project; otherwise pip may have recorded the commit.

    Args:
        package: folder of the code.
    """
    if (commit := _commit_of_checkout(package)) is not None:
        return commit
    try:
        installed = distribution(NAME)
    except PackageNotFoundError:
        return None
    if Path(str(installed.locate_file(PACKAGE.name))).resolve() != package.resolve():
        return None
    noted = json.loads(installed.read_text("direct_url.json") or "{}")
    return noted.get("vcs_info", {}).get("commit_id")


def _commit_of_checkout(package: Path) -> str | None:
    """Return the commit if the package lies in a checkout of this project, else None."""
    try:
        with (package.parent / "pyproject.toml").open("rb") as file:
            name = tomllib.load(file).get("project", {}).get("name")
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None
    top = _git(package, "rev-parse", "--show-toplevel")
    if name != NAME or top is None or Path(top).resolve() != package.parent.resolve():
        return None
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    return _git(package, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of git in a folder, or None if it fails.

    Variables such as GIT_DIR, which name another repository, are removed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
            env=environment,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _processor() -> str:
    if sys.platform == "linux":
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    return platform.processor()
