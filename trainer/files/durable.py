"""Files that survive a power failure, because they are on the disk and not only in memory."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path

from trainer.files.locks import partial_path, remove_dead

WITHOUT_FSYNC = (errno.EINVAL, errno.ENOTSUP)
"""Errors of file systems that cannot flush files or folders, such as some network and FUSE ones."""


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk.

    Windows flushes names by itself, and files only if they are open for writing.
    """
    if sys.platform == "win32" and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in WITHOUT_FSYNC:
            raise
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Flush a folder, with all files and folders in it, to the disk."""
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.is_file():
            sync(path)
    sync(folder)


def replace(source: Path, target: Path) -> None:
    """Rename a file or folder to `target`, which is replaced, and flush the new name."""
    os.replace(source, target)
    sync(target.parent)


@contextmanager
def aside(path: Path) -> Iterator[Path]:
    """Yield a path to write to; afterwards the file gets its name, complete and on the disk.

    If the block fails, nothing gets the name. No other process uses the same path, so two processes
    can write the same file. Partial files of dead processes are removed.
    """
    remove_dead(path.parent, f".{escape(path.name)}.*.partial")
    partial = partial_path(path.with_name(f".{path.name}.file"))
    try:
        yield partial
        sync(partial)
        replace(partial, path)
    except OSError as error:  # on a full disk, the error of a write names no file
        error.filename = error.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
