"""Map the spellings of labels to class names: normalise, apply `label_map`, then `drop_labels`."""

import json
import unicodedata
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from trainer.data.labels.label_normalisation import class_names, in_data, known_as, label_key
from trainer.errors import DataError, counted, listing

MISSING_LABELS = {"nan", "null", "na", "n/a", "#n/a", "<na>"}
"""Lower-case names that are usually missing values; "none" is a class of many data sets."""
MOST_WARNINGS = 5
MOST_SENTENCES = 10
VARIATION_SELECTORS = {chr(code) for code in range(0xFE00, 0xFE10)}


@dataclass(frozen=True)
class LabelNames:
    """The class of each spelling of a label.

    Attributes:
        names: {spelling: name of its class}; None if `label_map` maps it to null, or `drop_labels`
            lists it.
        dropped: spellings that `drop_labels` lists.
        merged: {class: {spelling or former name: rows}} of the classes that are merged or renamed.
        unmapped: {label that `label_map` maps to null: rows}.
    """

    names: dict[str, str | None]
    dropped: frozenset[str] = frozenset()
    merged: dict[str, dict[str, int]] = field(default_factory=dict)
    unmapped: dict[str, int] = field(default_factory=dict)

    @property
    def classes(self) -> list[str]:
        """The names of all classes, sorted."""
        return sorted({name for name in self.names.values() if name is not None})

    def order(self, spellings: Sequence[str] | None) -> list[str] | None:
        """Return the class names in an order of spellings (of a ClassLabel)."""
        if spellings is None:
            return None
        by_key = {label_key(name): name for name in self.classes}
        names = (self.names.get(text) or by_key.get(label_key(text)) for text in spellings)
        return list(dict.fromkeys(name for name in names if name is not None))

    def sentences(self) -> list[str]:
        """Return sentences about merged, renamed and removed labels, at most MOST_SENTENCES."""
        sentences = []
        for name, spellings in self.merged.items():
            found = listing(f"{_shown(text)} ({rows:,} rows)" for text, rows in spellings.items())
            sentences.append(
                f"Labels {found} are one class, '{name}'."
                if len(spellings) > 1
                else f"Label {found} is named '{name}'."
            )
        if len(sentences) > MOST_SENTENCES:
            rest = f"{len(sentences) - MOST_SENTENCES:,} more classes"
            sentences[MOST_SENTENCES:] = [f"And {rest} of several labels or with a new name."]
        removed = listing(f"{_shown(n)} ({counted(r, 'row')})" for n, r in self.unmapped.items())
        return (
            [*sentences, f"Labels removed by data.label_map: {removed}."] if removed else sentences
        )


def name_labels(
    counts: Mapping[str, int], label_map: Mapping[str, str | None], drop_labels: Sequence[str]
) -> LabelNames:
    """Return the class of each spelling; warn of names that look alike or like missing values.

    Args:
        counts: {spelling: rows} over all rows, including those that cleaning drops.
        label_map: {label: its new name, or None to drop it}, compared by key, applied to all labels
            at once.
        drop_labels: labels to leave out, after `label_map`.
    Raises:
        DataError: `label_map` or `drop_labels` names a label that no row has, or `label_map` maps
            one label to two names.
    """
    counts = {spelling: rows for spelling, rows in counts.items() if label_key(spelling)}
    own_names = class_names(counts)
    rows_of: Counter[str] = Counter()
    for spelling, rows in counts.items():
        rows_of[own_names[spelling]] += rows
    new_names = _new_names(rows_of, label_map)
    present = sorted({name for name in new_names.values() if name is not None})
    unwanted = set(in_data(drop_labels, present, "data.drop_labels"))
    finals = {spelling: new_names[own_names[spelling]] for spelling in counts}
    merged: dict[str, dict[str, int]] = {}
    for spelling, name in finals.items():
        if name is not None and name not in unwanted:
            merged.setdefault(name, {})[spelling] = counts[spelling]
    kept = {name: sum(spellings.values()) for name, spellings in merged.items()}
    _warn_of_alike(kept)
    _warn_of_missing(kept)
    return LabelNames(
        {spelling: None if name in unwanted else name for spelling, name in finals.items()},
        frozenset(spelling for spelling, name in finals.items() if name in unwanted),
        {name: found for name, found in sorted(merged.items()) if list(found) != [name]},
        {name: rows_of[name] for name, new in sorted(new_names.items()) if new is None},
    )


def _new_names(
    rows_of: Mapping[str, int], label_map: Mapping[str, str | None]
) -> dict[str, str | None]:
    """Return the name of each class after `label_map`; a target with a class's key has its name."""
    targets: dict[str, str | None] = {}
    names = in_data(label_map, rows_of, "data.label_map")
    for name, target in zip(names, label_map.values(), strict=True):
        if name in targets and targets[name] != target:
            raise DataError(
                f"data.label_map maps '{name}' to '{targets[name]}' and to '{target}'. Remove one"
                " of the two."
            )
        targets[name] = target
    kept = {name: name for name in rows_of if name not in targets}
    spelt = class_names({target: 1 for target in targets.values() if target is not None})
    return kept | {
        name: target if target is None else known_as(target, kept) or spelt[target]
        for name, target in targets.items()
    }


def proposed_map(rows_of: Mapping[str, int]) -> dict[str, str | None]:
    """Return a `data.label_map` that merges names that look alike, and drops missing values.

    Args:
        rows_of: rows of each class.
    """
    proposed: dict[str, str | None] = {}
    for names in _alike(rows_of):
        most = max(names, key=lambda name: rows_of[name])
        proposed |= {name: most for name in names if name != most}
    return proposed | {name: None for name in rows_of if name.casefold() in MISSING_LABELS}


def _alike(rows_of: Mapping[str, int]) -> list[list[str]]:
    """Return the groups of classes whose names look alike."""
    groups: dict[str, list[str]] = {}
    for name in sorted(rows_of):
        groups.setdefault(_without_overlooked(name), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


def _warn_of_alike(rows_of: Mapping[str, int]) -> None:
    """Warn of classes whose names look alike."""
    alike = _alike(rows_of)
    for number, names in enumerate(alike[:MOST_WARNINGS], 1):
        most = max(names, key=lambda name: rows_of[name])
        found = listing(f"{_shown(name)} ({rows_of[name]:,} rows)" for name in names)
        others = [name for name in names if name != most]
        merge = ", ".join(f"{json.dumps(name)}: {json.dumps(most)}" for name in others)
        rest = len(alike) - MOST_WARNINGS if number == MOST_WARNINGS else 0
        more = f" (and {rest:,} more such groups)" if rest else ""
        warnings.warn(
            "labels that differ only in capitals, spaces or character variants are classes of their"
            f" own: {found}{more}. To merge them set data.label_map: {{{merge}}}.",
            stacklevel=4,
        )


def _without_overlooked(name: str) -> str:
    """Return the name without differences that readers overlook: capitals, spaces, variants."""
    shown = (
        " " if unicodedata.category(character) == "Cc" else character
        for character in unicodedata.normalize("NFKC", name).casefold()
        if character not in VARIATION_SELECTORS
    )
    return " ".join("".join(shown).split())


def _shown(name: str) -> str:
    """Return the name in quotes, with escapes for characters that readers overlook."""
    is_plain = (
        name.isprintable()
        and name == name.strip()
        and unicodedata.is_normalized("NFC", name)
        and not VARIATION_SELECTORS & set(name)
    )
    return f"'{name}'" if is_plain else ascii(name)


def _warn_of_missing(rows_of: Mapping[str, int]) -> None:
    """Warn of classes whose names look like missing values."""
    names = [name for name in sorted(rows_of) if name.casefold() in MISSING_LABELS]
    if names:
        found = listing(f"'{name}' ({rows_of[name]:,} rows)" for name in names)
        drop = ", ".join(f"{json.dumps(name)}: null" for name in names)
        warnings.warn(
            f"labels that look like missing values are classes of their own: {found}. To drop their"
            f" rows set data.label_map: {{{drop}}}.",
            stacklevel=4,
        )
