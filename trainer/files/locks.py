"""File locks that the kernel takes from a process that dies; a killed holder never blocks the others."""

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
"""Waiting longer is said."""
BEING_WRITTEN = "is being written"
WAIT = "Wait for it, or give another --output."
WITHOUT_LOCKS = (ENOSYS, ENOLCK, EOPNOTSUPP)
"""Answers of file systems that are mounted without locks, such as Lustre without `-o flock`."""
WRITER = re.compile(r"\.(?P<machine>[0-9a-f]{12})-(?P<pid>\d+)-[0-9a-f]{8}\.")
"""Who writes a partial file, in its name."""
DEAD_AFTER_SECONDS = 24 * 3600
"""A partial file of another machine that nobody touched for so long is left over."""


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

    lock = FileLock(
        path, fallback_to_soft=False, on_acquired=_sign
    )  # a soft lock would outlive a killed holder
    try:
        try:
            lock.acquire(timeout=PATIENCE_SECONDS)
        except Timeout:
            if refuse is not None:
                raise _held(path, what, refuse) from None
            print(f"{path}: waiting, {what} by {holder(path)}", file=sys.stderr, flush=True)
            lock.acquire(poll_interval=0.5)
    except OSError as error:
        if error.errno not in WITHOUT_LOCKS:
            raise
        warnings.warn(
            f"{path}: this file system knows no locks; go on without, so start no second run on the same files.",
            stacklevel=2,
        )
    try:
        yield
    finally:
        lock.release()


def _held(path: Path, what: str, remedy: str) -> RunError:
    return RunError(f"{path.parent.resolve()}: {what} by {holder(path)}. {remedy}")


def work_file(target: Path, kind: str) -> Path:
    """Return the name of a file that we keep beside `target` for a time: hidden, and with our name in it."""
    return target.with_name(f".{target.name}.equipoise-{kind}")


@contextmanager
def only_writer(target: Path) -> Iterator[None]:
    """Refuse to write `target` while another process writes it; the lock file beside it is removed at the end.

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
    """Raises RunError at once where another process writes `target`; for the time before a model is loaded."""
    lock = work_file(target, "lock")
    if not lock.is_file():
        return
    with if_free(lock) as is_free:
        if not is_free:
            raise _held(lock, f"{target.name} {BEING_WRITTEN}", WAIT)


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
        warnings.warn(
            f"{path}: this file system knows no locks; go on without, so start no second run on the same files.",
            stacklevel=2,
        )
    try:
        yield True
    finally:
        lock.release()


def write_once(path: Path, write: Callable[[], None], load: Callable[[], Any] | None = None) -> Any:
    """Return what an entry of a cache holds; write it first where it is missing or damaged.

    Of all processes that want the entry at the same time, on whatever machine, one writes it. Where the file system knows no
    locks several may; each writes a partial file of its own (`partial_path`), so the entry is right whoever comes last.

    Args:
        path: the file that is written last; where it is, the entry should be whole.
        write: writes to `partial_path(path)` and gives the files their names when they are whole.
        load: gives the content, or None where a file is missing or damaged; left out: whether `path` exists.
    Raises:
        RunError: what was written cannot be loaded.
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
                f"{path}: this entry of the cache is damaged or incomplete, so it is written anew.",
                stacklevel=2,
            )
        remove_dead(path)
        write()
        found = load()
    if found is None:
        raise RunError(
            f"{path}: was written, but cannot be read back. Check the disk, or set HF_HOME to a folder on another one."
        )
    return found


def mark_used(path: Path) -> None:
    """Note the time of use as the file's access time, which the command `cache` shows; the time of writing stays."""
    with suppress(OSError):  # a cache that cannot be written can still be read
        os.utime(path, ns=(time.time_ns(), path.stat().st_mtime_ns))


def partial_path(path: Path, ending: str = ".partial") -> Path:
    """Return a new name beside `path` for what is not whole yet: no other process, on this machine or another, writes there."""
    return path.with_name(f"{path.stem}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{ending}")


def remove_dead(path: Path) -> None:
    """Remove what killed writers of `path` left behind; files that another process may still be writing stay."""
    remove_dead_like(path.parent, f"{path.stem}.*partial*")


def remove_dead_like(folder: Path, pattern: str) -> None:
    """Remove what killed writers left behind under names like this glob pattern."""
    for left in folder.glob(pattern):
        if is_dead(left):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def is_dead(partial: Path) -> bool:
    """Whether nobody writes a partial file or folder any more: its process is gone from this machine, or it is a day old."""
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
    """Name of what process ids count in: host, start of the system and, in containers that share a host name, their processes."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip(),
            os.readlink("/proc/self/ns/pid"),
        ]
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=6).hexdigest()


def _sign(descriptor: int) -> None:
    """Write into the lock file who holds it."""
    with suppress(
        OSError
    ):  # a full disk: the lock holds all the same, and who writes the file itself says so
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)


def holder(path: Path) -> str:
    """Who holds a lock file, in words."""
    try:
        return path.read_text(encoding="utf-8") or "a process unknown"
    except OSError:
        return "a process unknown"
