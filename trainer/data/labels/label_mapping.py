"""From the spellings of labels in the data to the names of classes: one key one class, then `label_map`, then `drop_labels`."""

import json
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.data.labels.label_normalisation import class_names, in_data, known_as, label_key
from trainer.errors import DataError, listing

MISSING_LABELS = {"nan", "null", "na", "n/a", "#n/a", "<na>"}
"""Names, in small letters, that are more often a missing value than a class; "none" is a class of many data sets."""
MOST_WARNINGS = 5
VARIATION_SELECTORS = {chr(code) for code in range(0xFE00, 0xFE10)}


@dataclass(frozen=True)
class LabelNames:
    """Which class each spelling of a label stands for.

    Attributes:
        names: {spelling: name of its class}; None where `label_map` maps it to null or `drop_labels` holds it.
        dropped: spellings that `drop_labels` holds.
        merged: {name of a class: {spelling or former name: rows}} of classes that several of them form, or that have a new name.
    """

    names: dict[str, str | None]
    dropped: frozenset[str] = frozenset()
    merged: dict[str, dict[str, int]] = field(default_factory=dict)
    unmapped: dict[str, int] = field(default_factory=dict)
    """{label that `label_map` maps to null: rows that have it}."""

    @property
    def classes(self) -> list[str]:
        """The names of all classes, sorted."""
        return sorted({name for name in self.names.values() if name is not None})

    def order(self, spellings: Sequence[str] | None) -> list[str] | None:
        """An order of spellings (of a ClassLabel) as an order of class names."""
        if spellings is None:
            return None
        by_key = {label_key(name): name for name in self.classes}
        named = (
            self.names.get(spelling) or by_key.get(label_key(spelling)) for spelling in spellings
        )
        return list(dict.fromkeys(name for name in named if name is not None))

    def sentences(self, most: int = 10) -> list[str]:
        """What was merged, renamed or removed, in words: one sentence a class, at most so many, and one of removed labels."""
        told = []
        for name, spellings in self.merged.items():
            found = listing(
                f"{_shown(spelling)} ({rows:,} rows)" for spelling, rows in spellings.items()
            )
            told.append(
                f"Labels {found} are one class, '{name}'."
                if len(spellings) > 1
                else f"Label {found} is named '{name}'."
            )
        if len(told) > most:
            told = [
                *told[:most],
                f"And {len(told) - most:,} more classes of several labels or with a new name.",
            ]
        removed = listing(
            f"{_shown(name)} ({rows:,} row{'' if rows == 1 else 's'})"
            for name, rows in self.unmapped.items()
        )
        return [*told, f"Labels removed by data.label_map: {removed}."] if removed else told


def name_labels(
    counts: Mapping[str, int], label_map: Mapping[str, str | None], drop_labels: Sequence[str]
) -> LabelNames:
    """Return the class of each spelling; a warning names classes that differ in case alone.

    Args:
        counts: {spelling: rows} over all rows, those that cleaning drops included.
        label_map: {label: its new name, or None to drop it}, compared by key; applied to all labels at once, not in a chain.
        drop_labels: labels to leave out, after `label_map`.
    Raises:
        DataError: `label_map` or `drop_labels` names a label that no row has, or maps one label to two names.
    """
    counts = {spelling: rows for spelling, rows in counts.items() if label_key(spelling)}
    own_names = class_names(counts)
    rows_of: Counter[str] = Counter()
    for spelling, rows in counts.items():
        rows_of[own_names[spelling]] += rows
    new_names = _new_names(rows_of, label_map)
    present = sorted({name for name in new_names.values() if name is not None})
    unwanted = set(in_data(drop_labels, present, "data.drop_labels"))
    kept: Counter[str] = Counter()
    for old, new in new_names.items():
        if new is not None and new not in unwanted:
            kept[new] += rows_of[old]
    _warn_of_alike(kept)
    _warn_of_missing(kept)
    finals = {spelling: new_names[own_names[spelling]] for spelling in counts}
    merged: dict[str, dict[str, int]] = {}
    for spelling, name in finals.items():
        if name is not None and name not in unwanted:
            merged.setdefault(name, {})[spelling] = counts[spelling]
    return LabelNames(
        {spelling: None if name in unwanted else name for spelling, name in finals.items()},
        frozenset(spelling for spelling, name in finals.items() if name in unwanted),
        {
            name: spellings
            for name, spellings in sorted(merged.items())
            if list(spellings) != [name]
        },
        {name: rows_of[name] for name, new in sorted(new_names.items()) if new is None},
    )


def _new_names(
    rows_of: Mapping[str, int], label_map: Mapping[str, str | None]
) -> dict[str, str | None]:
    """The name of each class after `label_map`; targets with the key of a class have its name."""
    targets: dict[str, str | None] = {}
    for name, target in zip(
        in_data(label_map, rows_of, "data.label_map"), label_map.values(), strict=True
    ):
        if name in targets and targets[name] != target:
            raise DataError(
                f"data.label_map maps '{name}' to '{targets[name]}' and to '{target}'. Remove one of the two."
            )
        targets[name] = target
    kept = {name: name for name in rows_of if name not in targets}
    spelt = class_names({target: 1 for target in targets.values() if target is not None})
    return kept | {
        name: target if target is None else known_as(target, kept) or spelt[target]
        for name, target in targets.items()
    }


def _warn_of_alike(rows_of: Mapping[str, int]) -> None:
    """Warn of classes whose names look alike: equal but for capitals, spaces, or variants of the same characters."""
    groups: dict[str, list[str]] = {}
    for name in sorted(rows_of):
        groups.setdefault(_looks(name), []).append(name)
    alike = [names for names in groups.values() if len(names) > 1]
    for names in alike[:MOST_WARNINGS]:
        most = max(names, key=lambda name: rows_of[name])
        told = listing(f"{_shown(name)} ({rows_of[name]:,} rows)" for name in names)
        merge = ", ".join(
            f"{json.dumps(name)}: {json.dumps(most)}" for name in names if name != most
        )
        rest = (
            f" (and {len(alike) - MOST_WARNINGS:,} more such groups)"
            if names is alike[:MOST_WARNINGS][-1] and len(alike) > MOST_WARNINGS
            else ""
        )
        words = f"labels that differ only in capitals, spaces or character variants are classes of their own: {told}{rest}"
        warnings.warn(f"{words}. To merge them set data.label_map: {{{merge}}}.", stacklevel=4)


def _looks(name: str) -> str:
    """The name without what readers overlook."""
    shown = (
        character
        for character in unicodedata.normalize("NFKC", name).casefold()
        if character not in VARIATION_SELECTORS
    )
    return " ".join(
        "".join(
            " " if unicodedata.category(character) == "Cc" else character for character in shown
        ).split()
    )


def _shown(name: str) -> str:
    """The name in quotes, with escapes in place of characters that readers overlook."""
    is_plain = (
        name.isprintable()
        and name == name.strip()
        and unicodedata.is_normalized("NFC", name)
        and not VARIATION_SELECTORS & set(name)
    )
    return f"'{name}'" if is_plain else ascii(name)


def _warn_of_missing(rows_of: Mapping[str, int]) -> None:
    """Warn of classes whose names look like missing values."""
    found = [name for name in sorted(rows_of) if name.casefold() in MISSING_LABELS]
    if found:
        told = listing(f"'{name}' ({rows_of[name]:,} rows)" for name in found)
        drop = ", ".join(f"{json.dumps(name)}: null" for name in found)
        words = f"labels that look like missing values are classes of their own: {told}"
        warnings.warn(f"{words}. To drop their rows set data.label_map: {{{drop}}}.", stacklevel=4)
