"""Choose the columns of text, label, group, time, split and weight from their profiles."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.errors import DataError, did_you_mean, listing
from trainer.starting.recognition.column_words import (
    GROUP_NAMES,
    LABEL_NAMES,
    PAIRS,
    TEXT_NAMES,
    TIME_NAMES,
    WEIGHT_NAMES,
)
from trainer.starting.recognition.profiles import Profile

MOST_CLASSES = 2_000
LONGEST_LABEL_WORDS = 6
FEWEST_GROUPS = 10
LARGEST_GROUP = 0.2
"""Largest share of the rows that one group may have."""


@dataclass(frozen=True)
class Columns:
    """The columns of a file by their use.

    Attributes:
        text: one column, or two for a text pair.
        labels: one column, or several with 0 and 1.
        separator: text between several labels in one cell.
        rivals: other columns that may be the label with equal right.
        reasons: {key of the section `data`: why it is set}.
    """

    text: list[str]
    labels: list[str]
    separator: str | None = None
    group: str | None = None
    time: str | None = None
    split: str | None = None
    weight: str | None = None
    rivals: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """The keys of the section `data` that name the columns."""
        found: dict[str, Any] = {
            "text_column": self.text[0] if len(self.text) == 1 else self.text,
            "label_column": self.labels[0] if len(self.labels) == 1 else None,
            "label_columns": self.labels if len(self.labels) > 1 else None,
            "label_separator": self.separator,
            "group_column": self.group,
            "weight_column": self.weight,
            "split_column": self.split,
        }
        return {key: value for key, value in found.items() if value is not None}


def choose_columns(
    found: Sequence[Profile], where: str, *, text: Sequence[str] = (), label: Sequence[str] = ()
) -> Columns:
    """Return the use of each column.

    Args:
        where: the file, for messages.
        text: columns of the text that the user named.
        label: columns of the label that the user named.

    Raises:
        DataError: a named column is missing, or no column can be the text or the label.
    """
    by_name = {profile.name: profile for profile in found}
    for option, names in (("--text", text), ("--label", label)):
        for name in names:
            if name not in by_name:
                raise DataError(
                    f"{where}: {option} {name}: no such column; found: {listing(by_name)}."
                    f"{did_you_mean(name, by_name)}"
                )
    labels, rivals = (list(label), []) if label else _labels(found, list(text), where)
    texts = list(text) or _texts([each for each in found if each.name not in labels], where)
    separator = None
    if len(labels) == 1 and not by_name[labels[0]].holds_lists:
        _refuse_unusable(by_name[labels[0]], where)
        separator = by_name[labels[0]].separator
    rest = [each for each in found if each.name not in (*texts, *labels)]
    reasons = {}
    if separator:
        reasons["label_separator"] = "cells hold several labels, such as " + next(
            value for value in by_name[labels[0]].values if separator in value
        )
    return Columns(
        texts,
        labels,
        separator,
        group=_first(rest, _is_group),
        time=_first(rest, lambda each: each.is_time or _is_numeric_time(each)),
        split=_first(rest, lambda each: each.is_split),
        weight=_first(rest, lambda each: bool(each.words & WEIGHT_NAMES) and each.is_number),
        rivals=[name for name in rivals if name not in texts],
        reasons=reasons,
    )


def _first(found: Sequence[Profile], is_it: Any) -> str | None:
    return next((each.name for each in found if each.counts and is_it(each)), None)


def _labels(found: Sequence[Profile], texts: list[str], where: str) -> tuple[list[str], list[str]]:
    """Return the label columns, and others that may be the label with equal right."""
    others = [each for each in found if each.name not in texts]
    able = [each for each in others if _may_be_label(each)]
    named = [each for each in able if _label_rank(each)]
    binary = [each for each in able if each.is_binary and not each.holds_lists]
    if len(binary) > 1 and not [each for each in named if not each.is_binary]:
        return [each.name for each in binary], []
    best_text = max(others, key=_text_score, default=None)
    able = [each for each in able if texts or each is not best_text or len(others) == 1]
    able.sort(key=_label_order)
    if not able:
        about = "; ".join(f"{each.name}: {each.words_about}" for each in others[:6])
        more = f"; and {len(others) - 6} more" if len(others) > 6 else ""
        raise DataError(
            f"{where}: no column looks like a label, which few values share among all rows."
            f" Columns: {about}{more}. Name it with --label if there is one."
        )
    first = able[0]
    rivals = [each.name for each in able[1:] if _label_rank(each) == _label_rank(first)]
    return [first.name], rivals


def _label_rank(profile: Profile) -> int:
    """Return 2 if the name is that of a label, 1 if a word of it is, else 0."""
    is_named = profile.name.strip().casefold() in LABEL_NAMES
    return 2 if is_named else int(bool(profile.words & LABEL_NAMES))


def _label_order(profile: Profile) -> tuple[int, bool, int]:
    return -_label_rank(profile), profile.is_number, len(profile.counts)


def _may_be_label(profile: Profile) -> bool:
    if profile.holds_lists:
        return True
    distinct = len(profile.counts)
    if not profile.is_usable or distinct < 2 or profile.is_time or profile.is_split:
        return False
    if profile.is_number and not profile.is_whole:
        return False
    if profile.words & (GROUP_NAMES | WEIGHT_NAMES | {"id", "index", ""}):
        return False
    if _text_rank(profile) and not _label_rank(profile) and profile.mean_words > 3:
        return False
    is_short = profile.mean_words <= LONGEST_LABEL_WORDS
    is_shared = distinct <= max(2, profile.num_filled / 2) and distinct <= MOST_CLASSES
    return is_short and (is_shared or (profile.separator is not None))


def _text_rank(profile: Profile) -> bool:
    return bool(profile.words & TEXT_NAMES)


def _text_score(profile: Profile) -> float:
    """Return how likely a column is the text: long, filled, of many words, and named like one."""
    if not profile.is_usable or profile.holds_lists or profile.is_time or len(profile.counts) < 2:
        return 0.0
    if profile.is_number or profile.is_split:
        return 0.0
    is_code = profile.mean_words < 1.2 and "".join(profile.values[:50]).isascii()
    weight = (3 if _text_rank(profile) else 1) * (0.1 if is_code else 1)
    return profile.mean_characters * profile.num_filled / max(1, profile.num_rows) * weight


def _texts(found: Sequence[Profile], where: str) -> list[str]:
    """Return the text column, or the two of a known pair."""
    able = {each.name.strip().casefold(): each for each in found if _text_score(each)}
    for first, second in PAIRS:
        if first in able and second in able:
            return [able[first].name, able[second].name]
    if not able:
        about = "; ".join(f"{each.name}: {each.words_about}" for each in found[:6])
        raise DataError(
            f"{where}: no column looks like a text. Columns beside the label: {about or 'none'}."
            " Name it with --text if there is one."
        )
    return [max(able.values(), key=_text_score).name]


def _refuse_unusable(profile: Profile, where: str) -> None:
    """Raise DataError for a label column with one value, or with another value in each row."""
    distinct = len(profile.counts)
    if distinct < 2:
        raise DataError(
            f"{where}: column '{profile.name}' has {profile.words_about}; a classifier needs two"
            " classes. Name another column with --label."
        )
    if distinct == profile.num_filled > 2 and not profile.separator:
        raise DataError(
            f"{where}: column '{profile.name}' has another value in each row, so no class can be"
            " learned. Name another column with --label."
        )


def _is_group(profile: Profile) -> bool:
    if not profile.words & GROUP_NAMES or profile.holds_lists:
        return False
    largest = max(profile.counts.values()) / max(1, profile.num_filled)
    distinct = len(profile.counts)
    return FEWEST_GROUPS <= distinct <= 0.9 * profile.num_filled and largest <= LARGEST_GROUP


def _is_numeric_time(profile: Profile) -> bool:
    return profile.is_whole and bool(profile.words & TIME_NAMES) and not profile.is_binary
