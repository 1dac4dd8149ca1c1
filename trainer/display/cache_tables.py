"""The folder of our caches in the terminal."""

import time
from pathlib import Path

from rich.table import Table

from trainer.display.terminal import console
from trainer.errors import brief
from trainer.files.cache import KINDS, Entry

MOST_CHARACTERS = 120


def print_kinds(folder: Path, entries: list[Entry], older_than: str | None) -> None:
    """One line for each kind: number of entries, size, when the longest and the shortest unused one was last used."""
    table = Table(title=_title(folder, entries, older_than), title_justify="left")
    for heading in ("kind", "entries", "size", "last used", "holds"):
        table.add_column(heading, justify="right" if heading in ("entries", "size") else "left")
    for kind, words in [
        *KINDS.items(),
        ("unfinished", "left by runs that are at work, or were killed"),
    ]:
        own = [
            entry
            for entry in entries
            if (entry.kind if entry.state == "whole" else entry.state) == kind
        ]
        if own:
            first, last = _age(own[0].last_used), _age(own[-1].last_used)
            table.add_row(
                kind,
                f"{len(own):,}",
                _size(own),
                first if first == last else f"{first} to {last}",
                words,
            )
    if table.rows:
        console.print(table)
    else:
        console.print(f"{_title(folder, entries, older_than)}: no entries.")


def print_entries(folder: Path, entries: list[Entry], older_than: str | None) -> None:
    """One line for each entry, the longest unused first."""
    table = Table(title=_title(folder, entries, older_than), title_justify="left")
    for heading in ("entry", "size", "last used", "made from"):
        table.add_column(
            heading,
            justify="right" if heading == "size" else "left",
            overflow="fold",
            no_wrap=heading == "entry",
        )
    for entry in entries:
        if entry.state != "lock":
            words = "unfinished" if entry.state == "unfinished" else entry.made_from
            table.add_row(
                entry.name, _size([entry]), _age(entry.last_used), brief(words, MOST_CHARACTERS)
            )
    if table.rows:
        console.print(table)
    else:
        console.print(f"{_title(folder, entries, older_than)}: no entries.")


def print_cleared(folder: Path, deleted: list[Entry], in_use: list[Entry]) -> None:
    """What was freed, and what was skipped."""
    whole = [entry for entry in deleted if entry.state != "lock"]
    console.print(f"{folder}: deleted {_number(whole)}, {_size(deleted)} freed.")
    if in_use:
        console.print(
            f"Skipped {_number(in_use)} ({_size(in_use)}) that running processes use: {', '.join(entry.name for entry in in_use[:5])}"
        )


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
