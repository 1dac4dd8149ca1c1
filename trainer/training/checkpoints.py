"""Which checkpoints are whole: a manifest of sizes is written last, and only whole ones are resumed."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from trainer.errors import RunError

MANIFEST = "whole.json"


def mark_whole(checkpoint: Path) -> None:
    """Write the manifest of a checkpoint whose files are all saved."""
    sizes = {str(p.relative_to(checkpoint)): p.stat().st_size for p in sorted(checkpoint.rglob("*")) if p.is_file()}
    partial = checkpoint / f"{MANIFEST}.partial"
    partial.write_text(json.dumps(sizes, indent=1), encoding="utf-8")
    os.replace(partial, checkpoint / MANIFEST)


def is_whole(checkpoint: Path) -> bool:
    """Whether every file of the manifest is there in its full size."""
    try:
        sizes = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return all((checkpoint / name).is_file() and (checkpoint / name).stat().st_size == size for name, size in sizes.items())


def newest_whole(folder: Path) -> Path | None:
    """The whole checkpoint with the most steps in a folder, if there is one."""
    found = [p for p in folder.glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit() and is_whole(p)]
    return max(found, key=lambda p: int(p.name.removeprefix("checkpoint-")), default=None)


def last_good(folder: Path) -> str:
    """Words that name the newest whole checkpoint."""
    good = newest_whole(folder)
    return f"the last good checkpoint is {good}" if good else "no checkpoint was saved before"


@contextmanager
def saving(target: Path, checkpoints: Path) -> Iterator[None]:
    """Turns what torch, safetensors and the system raise while they save into a RunError that names the last good checkpoint."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(checkpoints).free >> 20 if checkpoints.exists() else 0
        kept = f"{last_good(checkpoints)}{'; run the same command again to go on from it' if newest_whole(checkpoints) else ''}"
        raise RunError(f"{target}: could not be saved ({str(error).splitlines()[0]}); {free} MiB are free there. Free space; {kept}.") from error
