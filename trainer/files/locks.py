"""File locks, which the system releases when a process dies, and files not yet complete."""

import hashlib
import os
import re
import secrets
import shutil
import socket
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import ENOLCK, ENOSYS, EOPNOTSUPP
from functools import cache
from pathlib import Path
from typing import Any

from trainer.errors import RunError

PATIENCE_SECONDS = 5.0
"""How long a process waits for a lock before it says so."""
POLL_SECONDS = 0.1
"""Pause between two attempts to get a lock."""
BEING_WRITTEN = "is being written"
WAIT = "Wait for it, or give another --output."
WITHOUT_LOCKS = (ENOSYS, ENOLCK, EOPNOTSUPP)
"""Errors of file systems without locks, such as Lustre that is mounted without `-o flock`."""
WRITER = re.compile(r"\.(?P<machine>[0-9a-f]{12})-(?P<pid>\d+)-[0-9a-f]{8}\.")
"""The part of the name of a partial file that identifies its writer."""
DEAD_AFTER_SECONDS = 24 * 3600
"""A partial file of another machine is left over if nothing changed it for this time."""


@contextmanager
def locked(path: Path, what: str, *, refuse: str | None = None) -> Iterator[None]:
    """Hold the lock file while the block runs.

    Args:
        what: what the holder of the lock does, for messages.
        refuse: if given, another holder is an error after PATIENCE_SECONDS; this is the remedy in
            its message. By default, wait until the lock is free.

    Raises:
        RunError: another process holds the lock; the message names its process id and host.
    """
    with if_free(path, wait_seconds=PATIENCE_SECONDS) as is_held:
        if is_held:
            yield
            return
    if refuse is not None:
        raise _refused(path, what, refuse)
    print(f"{path}: waiting, {what} by {holder(path)}", file=sys.stderr, flush=True)
    with if_free(path, wait_seconds=-1):
        yield


@contextmanager
def if_free(path: Path, *, wait_seconds: float = 0.0) -> Iterator[bool]:
    """Hold the lock file while the block runs, and yield whether no other process holds it.

    A file system without locks gives a warning, and every lock counts as free.

    Args:
        wait_seconds: how long to wait for a lock that is not free; without limit if negative.
    """
    from filelock import FileLock, Timeout

    # A soft lock would survive a process that is killed.
    lock = FileLock(path, fallback_to_soft=False, poll_interval=POLL_SECONDS, on_acquired=_sign)
    try:
        lock.acquire(timeout=wait_seconds)
    except Timeout:
        yield False
        return
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        warnings.warn(
            f"{path}: this file system does not support locks. The run continues without them; do"
            " not start a second run on the same files.",
            stacklevel=2,
        )
    try:
        yield True
    finally:
        lock.release()


def _refused(path: Path, what: str, remedy: str) -> RunError:
    return RunError(f"{path.parent.resolve()}: {what} by {holder(path)}. {remedy}")


def work_file(target: Path, kind: str) -> Path:
    """Return the path of a hidden file beside `target` that we need for a time."""
    return target.with_name(f".{target.name}.equipoise-{kind}")


@contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Hold a lock file beside `target`, so that only one process writes it.

    Raises:
        RunError: another process writes it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    lock = work_file(target, "lock")
    with locked(lock, f"{target.name} {BEING_WRITTEN}", refuse=WAIT):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def refuse_while_written(target: Path) -> None:
    """Raise RunError at once if another process writes `target`; for use before a slow start."""
    lock = work_file(target, "lock")
    if lock.is_file():
        with if_free(lock) as is_free:
            if not is_free:
                raise _refused(lock, f"{target.name} {BEING_WRITTEN}", WAIT)


def write_once(path: Path, write: Callable[[], None], load: Callable[[], Any] | None = None) -> Any:
    """Return the content of an entry of a cache; write the entry first if necessary.

    If several processes need a missing entry at the same time, on any machine, one of them writes
    it. On a file system without locks several may write it, each to a partial file of its own
    (`partial_path`), so the entry is correct whichever finishes last.

    Args:
        path: the file of the entry that is written last.
        write: writes to `partial_path(path)`, and renames complete files.
        load: returns the content, or None if a file is missing or damaged. By default, only check
            whether `path` exists.

    Raises:
        RunError: the new entry cannot be loaded.
    """
    load = load or (lambda: path.exists() or None)
    if (found := load()) is not None:
        mark_used(path)
        return found
    with locked(path.with_suffix(".lock"), "being written"):
        if (found := load()) is not None:
            return found
        if path.exists():
            warnings.warn(
                f"{path}: this entry of the cache is damaged or incomplete. It is written again.",
                stacklevel=2,
            )
        remove_dead(path.parent, f"{path.stem}.*partial*")
        write()
        found = load()
    if found is None:
        raise RunError(
            f"{path}: was written, but cannot be read back. Check the disk, or set HF_HOME to a"
            " folder on another disk."
        )
    return found


def mark_used(path: Path) -> None:
    """Record this use in the access time of a file, which `equipoise cache` shows."""
    with suppress(OSError):  # a read-only cache is still useful
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def partial_path(path: Path, ending: str = ".partial") -> Path:
    """Return a new path beside `path` for a file or folder that is not complete yet.

    No other process, on this or another machine, uses the same path.
    """
    return path.with_name(f"{path.stem}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{ending}")


def remove_dead(folder: Path, pattern: str) -> None:
    """Remove the partial files and folders that match a glob pattern and whose writers are dead."""
    for path in filter(is_dead, folder.glob(pattern)):
        delete(path)


def delete(path: Path) -> None:
    """Remove a file, a link, or a folder with its content; it may be missing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def is_dead(partial: Path) -> bool:
    """Return whether a partial file has no writer: the process has ended, or the file is old."""
    written_by = WRITER.search(partial.name)
    if written_by and written_by["machine"] == _machine():
        return not _is_running(int(written_by["pid"]))
    times = [partial, *(partial.iterdir() if partial.is_dir() else ())]
    with suppress(FileNotFoundError):
        return time.time() - max(path.lstat().st_mtime for path in times) > DEAD_AFTER_SECONDS
    return False


def _is_running(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


@cache
def _machine() -> str:
    """Return a digest of what makes process ids unique: host, start of the system, container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=6).hexdigest()


def _sign(descriptor: int) -> None:
    """Write the process id and the host into the lock file."""
    with suppress(OSError):  # the lock also works on a full disk
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode())


def holder(path: Path) -> str:
    """Return the process that holds a lock file, in words."""
    with suppress(OSError):
        if text := path.read_text(encoding="utf-8"):
            return text
    return "an unknown process"
