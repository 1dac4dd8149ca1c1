"""Files that outlive a power loss: what is on the disk, and not only in the system's memory."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from trainer.files.locks import partial_path, remove_dead_like

WITHOUT_FSYNC = (errno.EINVAL, errno.ENOTSUP)
"""What file systems answer that cannot flush a file or a folder, such as some network and FUSE ones."""


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in WITHOUT_FSYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush a folder with all files and folders in it to the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.is_file():
            sync(path)
    sync(folder)


def replace(source: Path, target: Path) -> None:
    """Rename a file or folder that is on the disk, in place of `target`; the new name is on the disk too."""
    os.replace(source, target)
    sync(target.parent)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Where a file is written that then gets its name, whole and on the disk, or not at all.

    No other process writes there, so two that make the same file do not mix. What dead processes left of it is removed.
    """
    remove_dead(path.parent, escape(path.name))
    partial = partial_path(path.with_name(f".{path.name}.file"))
    try:
        yield partial
        sync(partial)
        replace(partial, path)
    except OSError as error:  # of a write on a full disk, which names no file
        error.filename = error.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def remove_dead(folder: Path, pattern: str) -> None:
    """Remove what processes that are gone left of files whose names match the pattern."""
    remove_dead_like(folder, f".{pattern}.*.partial")
