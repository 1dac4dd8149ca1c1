"""The command `equipoise`, and the public API of `trainer` under the name of the distribution.

Other distributions also install a package called `trainer`. So this module checks that `trainer`
is the package of this project before it imports it.

    from equipoise import WeightedTrainer
"""

import sys
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer import *  # noqa: F403

FIRST_LINE = '"""Equipoise: '
"""Start of the file `trainer/__init__.py` of this project."""


def main() -> None:
    """Run the command `equipoise`."""
    if fault := _fault():
        print(fault, file=sys.stderr)
        raise SystemExit(2)
    from trainer.cli import main as run

    run()


def _fault() -> str | None:
    """Return why `trainer` is not the package of this project, or None if it is."""
    spec = find_spec("trainer")
    origin = spec.origin if spec else None
    if origin and Path(origin).read_text(encoding="utf-8").startswith(FIRST_LINE):
        return None
    others = sorted({*packages_distributions().get("trainer", ())} - {"equipoise"})
    theirs = f" without {listed}" if (listed := ", ".join(others)) else ""
    return (
        f"equipoise needs its own package 'trainer'; found: {origin or 'no file __init__.py'}."
        " Leave the folder that holds another package of that name, or install equipoise again in"
        f" an environment{theirs}."
    )


def __getattr__(name: str) -> Any:
    """Return a name of the public API of `trainer`, which is imported now."""
    if name.startswith("__") and name not in ("__all__", "__version__"):
        raise AttributeError(f"module 'equipoise' has no attribute '{name}'")
    if fault := _fault():
        raise ImportError(fault)
    import trainer

    return getattr(trainer, name)


def __dir__() -> list[str]:
    """Return the names of the public API."""
    import trainer

    return ["main", *trainer.__all__]
