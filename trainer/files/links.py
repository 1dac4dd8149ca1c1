"""Symbolic links that lead out of a folder, whose files are to be shown or uploaded."""

import os
from pathlib import Path


def target_outside(path: Path, folder: Path) -> Path | None:
    """Return the real location of a path if it is outside the folder; None if it is inside.

    A snapshot in the cache of the Hub consists of links to files of its repository. They count as
    inside.
    """
    target, root = Path(os.path.realpath(path)), Path(os.path.realpath(folder))
    repository = next((p.parent for p in (root, *root.parents) if p.name == "snapshots"), None)
    if repository and repository.name.startswith(("models--", "datasets--", "spaces--")):
        root = repository
    return None if target.is_relative_to(root) else target
