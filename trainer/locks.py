"""File locks that the kernel takes from a process that dies; a killed holder never blocks the others."""

import os
import shutil
import socket
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from pathlib import Path

from trainer.errors import RunError

PATIENCE_SECONDS = 5.0
"""Waiting longer is said."""
WITHOUT_LOCKS = (ENOSYS, ENOLCK, EOPNOTSUPP)
"""Answers of file systems that are mounted without locks, such as Lustre without `-o flock`."""


@contextmanager
def locked(path: Path, what: str, *, refuse: str | None = None) -> Iterator[None]:
    """Hold the lock file while the block runs; where the file system knows no locks, go on with a warning.

    Args:
        what: what the holder does, for messages.
        refuse: remedy for who finds it held for PATIENCE_SECONDS, who then gets an error; left out: wait as long as it takes.
    Raises:
        RunError: another process holds it; with its process id and host.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(path, fallback_to_soft=False, on_acquired=_sign)  # a soft lock would outlive a killed holder
    try:
        try:
            lock.acquire(timeout=PATIENCE_SECONDS)
        except Timeout:
            if refuse is not None:
                raise RunError(f"{path.parent}: {what} by {holder(path)}. {refuse}") from None
            print(f"{path}: waiting, {what} by {holder(path)}", file=sys.stderr, flush=True)
            lock.acquire(poll_interval=0.5)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        warnings.warn(f"{path}: this file system knows no locks; go on without, so start no second run on the same files.", stacklevel=2)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def if_free(path: Path) -> Iterator[bool]:
    """Hold the lock file while the block runs, if no other process does: whether it is held, told at once. Without locks it always is, with a warning."""
    from filelock import FileLock, Timeout

    lock = FileLock(path, fallback_to_soft=False, on_acquired=_sign)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        warnings.warn(f"{path}: this file system knows no locks; go on without, so start no second run on the same files.", stacklevel=2)
    try:
        yield True
    finally:
        lock.release()


def write_once(path: Path, write: Callable[[], None]) -> None:
    """Make a file of a cache unless it is there, in one process of all that want it at the same time, on whatever machine.

    Args:
        write: writes a file or folder `<stem>.<anything>partial<anything>` and gives it its name when it is whole; what killed writers left is removed before.
    """
    if path.exists():
        return
    with locked(path.with_suffix(".lock"), "being written"):
        if path.exists():
            return
        for left in path.parent.glob(f"{path.stem}.*partial*"):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
        write()


def _sign(descriptor: int) -> None:
    """Write into the lock file who holds it."""
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)


def holder(path: Path) -> str:
    """Who holds a lock file, in words."""
    try:
        return path.read_text(encoding="utf-8") or "a process unknown"
    except OSError:
        return "a process unknown"
