"""Print the contents of the cache folder."""

import time
from pathlib import Path

from rich.table import Table

from trainer.display.terminal import console
from trainer.errors import brief
from trainer.files.cache import KINDS, Entry

MOST_CHARACTERS = 120


def print_kinds(folder: Path, entries: list[Entry], older_than: str | None) -> None:
    """Print one line per kind of entry: number, size, and when the oldest and newest were used."""
    table = Table("kind", title=_title(folder, entries, older_than), title_justify="left")
    table.add_column("entries", justify="right")
    table.add_column("size", justify="right")
    table.add_column("last used")
    table.add_column("holds")
    unfinished = {"unfinished": "left by processes that are running or were killed"}
    for kind, words in (KINDS | unfinished).items():
        own = [
            entry
            for entry in entries
            if (entry.kind if entry.state == "whole" else entry.state) == kind
        ]
        if own:
            first, last = _age(own[0].last_used), _age(own[-1].last_used)
            ages = first if first == last else f"{first} to {last}"
            table.add_row(kind, f"{len(own):,}", _size(own), ages, words)
    _print(table)


def print_entries(folder: Path, entries: list[Entry], older_than: str | None) -> None:
    """Print one line per entry, the longest unused entry first."""
    table = Table(title=_title(folder, entries, older_than), title_justify="left")
    table.add_column("entry", no_wrap=True)
    table.add_column("size", justify="right")
    table.add_column("last used", overflow="fold")
    table.add_column("made from", overflow="fold")
    for entry in entries:
        if entry.state != "lock":
            words = "unfinished" if entry.state == "unfinished" else entry.made_from
            age = _age(entry.last_used)
            table.add_row(entry.name, _size([entry]), age, brief(words, MOST_CHARACTERS))
    _print(table)


def _print(table: Table) -> None:
    console.print(table if table.rows else f"{table.title}: no entries.")


def print_cleared(folder: Path, deleted: list[Entry], in_use: list[Entry]) -> None:
    """Print what was deleted and what was skipped."""
    whole = [entry for entry in deleted if entry.state != "lock"]
    console.print(f"{folder}: deleted {_number(whole)}, {_size(deleted)} freed.")
    if in_use:
        names = ", ".join(entry.name for entry in in_use[:5])
        number = f"{_number(in_use)} ({_size(in_use)})"
        console.print(f"Skipped {number} that running processes use: {names}")


def _number(entries: list[Entry]) -> str:
    return f"{len(entries):,} {'entry' if len(entries) == 1 else 'entries'}"


def _title(folder: Path, entries: list[Entry], older_than: str | None) -> str:
    words = f"{folder}, {_size(entries)}"
    return f"{words}, unused for {older_than}" if older_than else words


def _size(entries: list[Entry]) -> str:
    size = float(sum(entry.num_bytes for entry in entries))
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _age(last_used: float) -> str:
    seconds = max(0.0, time.time() - last_used)
    for unit, length in (("day", 24 * 3600), ("hour", 3600), ("minute", 60)):
        if seconds >= length:
            number = int(seconds // length)
            return f"{number:,} {unit}{'' if number == 1 else 's'} ago"
    return "just now"
