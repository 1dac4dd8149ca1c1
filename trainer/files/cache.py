"""The folder of our caches: its entries, their size and age, and which of them may be deleted.

Only files and folders directly in this folder are listed or deleted, and only if they have a name
that our caches give. Symbolic links are not followed.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from trainer.errors import ConfigError
from trainer.files.locks import delete, if_free, is_dead

KINDS = {
    "rows": "rows of a data source",
    "stream": "rows chosen by data.streaming",
    "tokens": "token ids",
    "embeddings": "vectors of a frozen encoder",
    "completions": "texts that a language model wrote",
    "weights": "models whose pickled weights were converted",
}
"""Kinds of entries. The kind is the first part of the name of an entry."""
NAME = re.compile(
    rf"(?P<entry>(?P<kind>{'|'.join(KINDS)})-(?:mean-)?(?:bf16-)?[0-9a-f]{{32}})(?:\.[\w.-]+)?"
)
ABOUT = "about.txt"
"""Name of the file in the folder of an entry that says what the entry was made from."""
UNITS = {"h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}


@dataclass(frozen=True)
class Entry:
    """An entry: the folder, or all files, of one name.

    Attributes:
        name: the kind, and a digest of what the entry was made from.
        paths: its files, including locks and partial files.
        num_bytes: space on the disk.
        last_used: when a file of it was last written or used, in seconds since 1970.
        state: `whole`; `unfinished`, if there are only partial files; or `lock`, if there is only
            the lock file of its last writer.
    """

    name: str
    kind: str
    paths: list[Path]
    num_bytes: int
    last_used: float
    state: str

    @property
    def made_from(self) -> str:
        """What the entry was made from, in words; empty if that is not known."""
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
"""How to read what an entry was made from, by the ending of its file; "" is for a folder."""


@contextmanager
def _leaving_times(path: Path) -> Iterator[None]:
    """Reset the times of a file after the block, because listing an entry is not a use of it."""
    stat = path.stat()
    try:
        yield
    finally:
        with suppress(OSError):
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def cache_dir() -> Path:
    """Return the folder of our caches, in HF_HOME like those of `datasets` and of the Hub."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "equipoise"


def seconds_of(age: str) -> float:
    """Return the seconds of an age such as 12h, 30d or 2w.

    Raises:
        ConfigError: the text is not such an age.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([hdw])", age.strip())
    if not found:
        raise ConfigError(
            f"--older-than is '{age}'; needed: a number and h (hours), d (days) or w (weeks), such"
            " as 12h, 30d or 2w."
        )
    return float(found[1]) * UNITS[found[2]]


def entries(folder: Path, *, older_than: float = 0.0) -> list[Entry]:
    """Return the entries that were not used for the given seconds, longest unused first."""
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
        with suppress(FileNotFoundError):  # another process has removed it
            stat = path.lstat()
            num_bytes += stat.st_size
            if path.suffix != ".lock":  # checking whether a lock is free changes its time
                last_used = max(last_used, stat.st_mtime, stat.st_atime)
    content = [path for path in paths if path.suffix != ".lock"]
    is_whole = any(".partial" not in path.name for path in content)
    state = "whole" if is_whole else "unfinished" if content else "lock"
    return Entry(name, name.partition("-")[0], paths, num_bytes, last_used, state)


def _files(path: Path) -> list[Path]:
    """Return the file itself, or the files in a folder; links are not followed."""
    return (
        [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
        if path.is_dir()
        else [path]
    )


def clear(folder: Path, *, older_than: float = 0.0) -> tuple[list[Entry], list[Entry]]:
    """Delete the entries that were not used for the given seconds; by default, all.

    Entries that a running process writes or has mapped are skipped. On other machines, only locks
    and partial files show that an entry is in use.

    Returns:
        (deleted entries, entries that are in use).
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
                    delete(path)
            if not had_lock or not is_used:
                lock.unlink(missing_ok=True)
        (in_use if is_used else deleted).append(entry)
    return deleted, in_use


def _is_used(entry: Entry, mapped: set[str]) -> bool:
    """Return whether a process here has mapped a file of the entry, or any process writes one."""
    files = [file for path in entry.paths for file in _files(path)]
    if any(str(path.resolve()) in mapped for path in files):
        return True
    return any(".partial" in path.name and not is_dead(path) for path in {*entry.paths, *files})


def _mapped_files() -> set[str]:
    """Return the files that processes of this machine have mapped, as far as we may see (Linux)."""
    found: set[str] = set()
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):  # a process of another user, or one that has ended
            text = maps.read_text(encoding="utf-8", errors="surrogateescape")
            found.update(re.findall(r"^(?:\S+ +){5}(/.*)$", text, re.MULTILINE))
    return found
