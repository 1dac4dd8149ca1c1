"""Symbolic links that lead out of a folder whose files are shown or uploaded."""

import os
from pathlib import Path


def target_outside(path: Path, folder: Path) -> Path | None:
    """Return where a path really lies if that is outside its folder; None where it lies inside.

    A snapshot in the Hub's cache consists of links to files of its own repository; they count as inside.
    """
    target, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    repository = next((p.parent for p in (root, *root.parents) if p.name == "snapshots"), None)
    is_cached = repository is not None and repository.name.startswith(
        ("models--", "datasets--", "spaces--")
    )
    place = repository if is_cached and repository is not None else root
    return None if target.is_relative_to(place) else target
