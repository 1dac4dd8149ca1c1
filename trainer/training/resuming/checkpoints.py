"""Checkpoints that appear whole or not at all: written aside, hashed, renamed; only those whose files still have their hashes are resumed."""

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
"""What transformers does not keep of a training: running loss, best step, layout of the processes, balance plan."""
BLOCK_BYTES = 1 << 22


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of an optimizer step lies."""
    return folder / f"checkpoint-{step}"


def partial_path(folder: Path, step: int) -> Path:
    """Where it is written, until `publish` gives it its name."""
    return folder / f"checkpoint-{step}.partial"


def mark_whole(checkpoint: Path) -> None:
    """Write the manifest, sizes and XXH3 digests, of a checkpoint whose files are all saved; all are on the disk then, should the power fail."""
    files = {
        str(p.relative_to(checkpoint)): _describe(p)
        for p in sorted(checkpoint.rglob("*"))
        if p.is_file()
    }
    (checkpoint / MANIFEST).write_text(json.dumps(files, indent=1), encoding="utf-8")
    sync_tree(checkpoint)


def publish(folder: Path, step: int) -> None:
    """Give a checkpoint that is marked whole its name; one of the same step that is there is replaced, and never missing without a twin.

    The name is on the disk when this returns, so older checkpoints may be removed.
    """
    target, replaced = checkpoint_path(folder, step), folder / f"replaced-checkpoint-{step}"
    if target.exists():
        os.rename(target, replaced)
    replace(partial_path(folder, step), target)
    shutil.rmtree(replaced, ignore_errors=True)


def fault_of(checkpoint: Path) -> str | None:
    """Why a checkpoint is not whole, in words; None if it is."""
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
    """The whole checkpoint with the most steps in a folder, if there is one."""
    return next((path for path in _newest_first(folder) if fault_of(path) is None), None)


def tidy(folder: Path) -> None:
    """Remove what a killed save left half-written; a checkpoint killed between the two renames of its replacement gets its name back."""
    for path in folder.glob("checkpoint-*.partial"):
        shutil.rmtree(path)
    for path in folder.glob("replaced-checkpoint-*"):
        target = folder / path.name.removeprefix("replaced-")
        if target.exists():
            shutil.rmtree(path)
        else:
            os.rename(path, target)


def set_aside(folder: Path, newest: Path | None) -> list[str]:
    """Rename the checkpoints after the newest whole one to corrupt-checkpoint-N; a warning for each."""
    warnings = []
    for path in _newest_first(folder):
        if path == newest:
            break
        kept = path.with_name(f"corrupt-{path.name}")
        warnings.append(
            f"{path} cannot be resumed: {fault_of(path)}. It is set aside as {kept.name}."
        )
        shutil.rmtree(kept, ignore_errors=True)
        os.rename(path, kept)
    return warnings


def drop_old(folder: Path, limit: int | None) -> None:
    """Remove checkpoints over a limit; the newest stay, each with the best of its time, without which it could not be resumed."""
    ordered = _newest_first(folder)
    kept: set[Path] = set()
    for path in ordered:
        try:
            needed = kept | {path, _best_of(path)}
        except (OSError, ValueError, KeyError):  # it was damaged since
            continue
        if path == ordered[0] or limit is None or len(needed) <= limit:
            kept = needed
    for path in ordered:
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)


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
        raise RunError(
            f"{target}: could not be saved ({str(error).splitlines()[0]}); {free} MiB are free there. Free space; {kept}."
        ) from error


def _best_of(checkpoint: Path) -> Path:
    """The best checkpoint when this one was saved, which may be itself."""
    best = json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))["best_step"]
    return checkpoint if best is None else checkpoint_path(checkpoint.parent, best)


def _newest_first(folder: Path) -> list[Path]:
    found = [
        path
        for path in folder.glob("checkpoint-*")
        if path.name.removeprefix("checkpoint-").isdigit()
    ]
    return sorted(found, key=lambda path: -int(path.name.removeprefix("checkpoint-")))


def _describe(path: Path) -> tuple[int, str]:
    """Bytes of a file and their XXH3 digest."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return path.stat().st_size, digest.hexdigest()
