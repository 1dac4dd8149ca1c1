"""Checkpoints that appear whole or not at all.

A checkpoint is written under another name, hashed and renamed. A run resumes only from checkpoints
whose files still have their hashes.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import xxhash
from safetensors import SafetensorError

from trainer.errors import RunError
from trainer.files.durable import replace, sync_tree

MANIFEST = "whole.json"
PROGRESS = "progress.json"
"""File with what transformers does not save: running loss, best step, processes, balance plan."""
BLOCK_BYTES = 1 << 22


def checkpoint_path(folder: Path, step: int) -> Path:
    """Return the folder of the checkpoint of an optimizer step."""
    return folder / f"checkpoint-{step}"


def partial_path(folder: Path, step: int) -> Path:
    """Return the folder in which a checkpoint is written until `publish` renames it."""
    return folder / f"checkpoint-{step}.partial"


def mark_whole(checkpoint: Path) -> None:
    """Write the sizes and XXH3 digests of a checkpoint's files, and flush all to the disk."""
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    files = {str(path.relative_to(checkpoint)): _describe(path) for path in paths}
    (checkpoint / MANIFEST).write_text(json.dumps(files, indent=1), encoding="utf-8")
    sync_tree(checkpoint)


def publish(folder: Path, step: int) -> None:
    """Rename a checkpoint that is marked whole to its final name.

    A checkpoint of the same step is replaced; at each moment one of the two is there. The new name
    is on the disk when this function returns, so older checkpoints may be removed.
    """
    target, replaced = checkpoint_path(folder, step), folder / f"replaced-checkpoint-{step}"
    if target.exists():
        os.rename(target, replaced)
    replace(partial_path(folder, step), target)
    shutil.rmtree(replaced, ignore_errors=True)


def fault_of(checkpoint: Path) -> str | None:
    """Return why a checkpoint is not whole, or None if it is."""
    try:
        files = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        for name, (size, digest) in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} of {size:,} bytes"
            if _describe(path)[1] != digest:
                return f"{name} was changed after it was saved"
        other = _best_of(checkpoint) if PROGRESS in files else checkpoint
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return f"{MANIFEST} or {PROGRESS} cannot be read ({type(error).__name__})"
    fault = None if other == checkpoint else fault_of(other)
    return f"{other.name}, the best so far, is not whole: {fault}" if fault else None


def newest_whole(folder: Path) -> Path | None:
    """Return the whole checkpoint with the most steps in a folder, if there is one."""
    return next((path for path in _newest_first(folder) if fault_of(path) is None), None)


def tidy(folder: Path) -> None:
    """Remove incomplete checkpoints of interrupted saves.

    A checkpoint that was being replaced gets its name back.
    """
    for path in folder.glob("checkpoint-*.partial"):
        shutil.rmtree(path)
    for path in folder.glob("replaced-checkpoint-*"):
        target = folder / path.name.removeprefix("replaced-")
        if target.exists():
            shutil.rmtree(path)
        else:
            os.rename(path, target)


def set_aside(folder: Path, newest: Path | None) -> list[str]:
    """Rename the checkpoints after the newest whole one to corrupt-checkpoint-N.

    Returns:
        A warning for each of them.
    """
    warnings = []
    for path in _newest_first(folder):
        if path == newest:
            break
        kept = path.with_name(f"corrupt-{path.name}")
        warnings.append(
            f"{path} cannot be resumed: {fault_of(path)}. It is renamed to {kept.name}."
        )
        shutil.rmtree(kept, ignore_errors=True)
        os.rename(path, kept)
    return warnings


def drop_old(folder: Path, limit: int | None) -> None:
    """Remove old checkpoints until their number is within a limit.

    The newest ones stay. Each needs the checkpoint that was the best one when it was saved.
    """
    ordered = _newest_first(folder)
    kept: set[Path] = set()
    for path in ordered:
        try:
            needed = kept | {path, _best_of(path)}
        except (OSError, ValueError, KeyError):  # it has been damaged
            continue
        if path == ordered[0] or limit is None or len(needed) <= limit:
            kept = needed
    for path in ordered:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


def last_good(folder: Path) -> str:
    """Return a clause that names the newest whole checkpoint."""
    good = newest_whole(folder)
    return f"the last good checkpoint is {good}" if good else "no checkpoint was saved before"


@contextmanager
def saving(target: Path, checkpoints: Path) -> Iterator[None]:
    """Turn errors of saving into a RunError that names the last good checkpoint."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        free = shutil.disk_usage(checkpoints).free >> 20 if checkpoints.exists() else 0
        resume = "; run the same command again to resume from it"
        raise RunError(
            f"{target}: could not be saved ({str(error).splitlines()[0]}); {free} MiB are free"
            f" there. Free space; {last_good(checkpoints)}"
            f"{resume if newest_whole(checkpoints) else ''}."
        ) from error


def _best_of(checkpoint: Path) -> Path:
    """Return the checkpoint that was the best one when this one was saved."""
    best = json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))["best_step"]
    return checkpoint if best is None else checkpoint_path(checkpoint.parent, best)


def _newest_first(folder: Path) -> list[Path]:
    steps = {path.name.removeprefix("checkpoint-"): path for path in folder.glob("checkpoint-*")}
    return [steps[step] for step in sorted(filter(str.isdigit, steps), key=int, reverse=True)]


def _describe(path: Path) -> tuple[int, str]:
    """Return the size of a file in bytes and its XXH3 digest."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return path.stat().st_size, digest.hexdigest()
