"""The folder of our caches: what is in it, how large and how old each entry is, and which entries may be deleted.

Only files and folders with the names that our caches give are ever listed or deleted, only directly in that folder, and no
symbolic link is followed.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from trainer.errors import ConfigError
from trainer.files.locks import if_free, is_dead

KINDS = {
    "rows": "rows of a data source",
    "stream": "rows chosen by data.streaming",
    "tokens": "token ids",
    "embeddings": "vectors of a frozen encoder",
    "completions": "texts that a language model wrote",
    "weights": "models whose pickled weights were converted",
}
"""Kinds of entries, which are the first part of their names."""
NAME = re.compile(
    rf"(?P<entry>(?P<kind>{'|'.join(KINDS)})-(?:mean-)?(?:bf16-)?[0-9a-f]{{32}})(?:\.[\w.-]+)?"
)
ABOUT = "about.txt"
"""In the folder of an entry: what it was made from."""
UNITS = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


@dataclass(frozen=True)
class Entry:
    """One entry: all files, or the folder, of one name.

    Attributes:
        name: the kind and the digest of what it was made from.
        paths: its files; locks and partial files are among them.
        num_bytes: space on the disk.
        last_used: seconds since 1970; the last time that a file of it was written, or that a run found it.
        state: `whole`; `unfinished`, with partial files alone; or `lock`, the file that its last writer locked.
    """

    name: str
    kind: str
    paths: list[Path]
    num_bytes: int
    last_used: float
    state: str

    @property
    def made_from(self) -> str:
        """What the entry was made from, in words; empty where that is not known."""
        for path in self.paths:
            read = _MADE_FROM.get("" if path.is_dir() else path.suffix)
            if read and ".partial" not in path.name:
                with (
                    suppress(OSError, ValueError, LookupError, TypeError, EOFError, BadZipFile),
                    _leaving_times(path / ABOUT if path.is_dir() else path),
                ):
                    return read(path)
        return ""


def _of_completions(path: Path) -> str:
    with path.open(encoding="utf-8") as lines:
        return str(json.loads(next(lines, "{}"))["made_from"])


def _of_tokens(path: Path) -> str:
    with np.load(path) as index:
        return str(index["made_from"])


_MADE_FROM: dict[str, Callable[[Path], str]] = {
    "": lambda folder: (folder / ABOUT).read_text(encoding="utf-8"),
    ".json": lambda path: str(json.loads(path.read_text(encoding="utf-8"))["made_from"]),
    ".jsonl": _of_completions,
    ".npz": _of_tokens,
}
"""How the file of an entry says what the entry was made from, by its ending; of a folder without one."""


@contextmanager
def _leaving_times(path: Path) -> Iterator[None]:
    """To list an entry is not to use it."""
    stat = path.stat()
    try:
        yield
    finally:
        with suppress(OSError):
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cache_dir() -> Path:
    """Return the folder of our caches, beside those of `datasets` and of the Hub (moved by the environment variable HF_HOME)."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "equipoise"


def seconds_of(age: str) -> float:
    """Return the seconds of an age such as 12h, 30d or 2w.

    Raises:
        ConfigError: anything else.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", age.strip())
    if not found:
        raise ConfigError(
            f"--older-than is '{age}'; needed: a number and h (hours), d (days) or w (weeks), such as 12h, 30d or 2w."
        )
    return float(found[1]) * UNITS[found[2]]


def entries(folder: Path, *, older_than: float = 0.0) -> list[Entry]:
    """Return the entries of the folder that were last used longer ago than so many seconds, the longest unused first."""
    paths: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        found = NAME.fullmatch(path.name)
        if found and not path.is_symlink():
            paths.setdefault(found["entry"], []).append(path)
    all_entries = [_entry(name, files) for name, files in paths.items()]
    latest = time.time() - older_than
    return sorted(
        (entry for entry in all_entries if not older_than or entry.last_used < latest),
        key=lambda entry: (entry.last_used, entry.name),
    )


def _entry(name: str, paths: list[Path]) -> Entry:
    num_bytes, last_used = 0, 0.0
    for path in (file for top in paths for file in _files(top)):
        with suppress(FileNotFoundError):  # another process is at work
            stat = path.lstat()
            num_bytes += stat.st_size
            if path.suffix != ".lock":  # who looks whether a lock is free changes its time
                last_used = max(last_used, stat.st_mtime, stat.st_atime)
    content = [path for path in paths if path.suffix != ".lock"]
    state = (
        "lock"
        if not content
        else "whole"
        if any(".partial" not in path.name for path in content)
        else "unfinished"
    )
    return Entry(name, name.partition("-")[0], paths, num_bytes, last_used, state)


def _files(path: Path) -> list[Path]:
    """The file itself, or the files in a folder; links are not followed."""
    return (
        [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
        if path.is_dir()
        else [path]
    )


def clear(folder: Path, *, older_than: float = 0.0) -> tuple[list[Entry], list[Entry]]:
    """Delete the entries that were not used for so many seconds, all by default.

    Entries that a running process writes or has mapped are skipped. Processes on other machines are known by their locks and
    partial files alone.

    Returns:
        (entries that were deleted, entries that are in use).
    """
    deleted: list[Entry] = []
    in_use: list[Entry] = []
    mapped = _mapped_files()
    for entry in entries(folder, older_than=older_than):
        lock = folder / f"{entry.name}.lock"
        had_lock = lock.exists()
        with if_free(lock) as is_free:
            is_used = not is_free or _is_used(entry, mapped)
            if not is_used:
                for path in entry.paths:
                    _delete(path)
            if not had_lock or not is_used:
                lock.unlink(missing_ok=True)
        (in_use if is_used else deleted).append(entry)
    return deleted, in_use


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _is_used(entry: Entry, mapped: set[str]) -> bool:
    """Whether a process of this machine has a file of the entry mapped, or any process is writing one."""
    files = [file for path in entry.paths for file in _files(path)]
    if any(str(path.resolve()) in mapped for path in files):
        return True
    return any(".partial" in path.name and not is_dead(path) for path in {*entry.paths, *files})


def _mapped_files() -> set[str]:
    """The files that running processes of this machine have mapped into memory, as far as this user may know them (Linux)."""
    found: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # another user's process, or one that ended
            lines = [
                line.split(maxsplit=5)
                for line in maps.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
            ]
            found.update(
                parts[5] for parts in lines if len(parts) == 6 and parts[5].startswith("/")
            )
    return found
