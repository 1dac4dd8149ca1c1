"""Normalise labels: two spellings with one key are one label, and its class has one name.

Every reader, config key and given file uses this rule.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache

from trainer.data.reading.column_text import number_text
from trainer.errors import DataError, TrainerError, did_you_mean, listing

VISIBLE_FORMATS = {*range(0x600, 0x606), 0x6DD, 0x70F, *range(0xE0020, 0xE0080)}
"""Format characters that are visible: signs before Arabic and Syriac numbers, and emoji tags."""
WHOLE_NUMBER = re.compile(r"(-?\d+)\.0+")
EXPONENT = re.compile(r"-?\d(\.\d+)?[eE][+-]\d{2,3}")
"""The format in which Python and pandas write numbers near 0, and very large ones."""
NUMBER = re.compile(r"-?\d+(\.\d+)?|true|false")
"""Keys that are always the name of their class."""


@lru_cache(maxsize=1 << 16)
def label_key(label: str) -> str:
    """Return the text by which labels are compared.

    The text is in Unicode NFC, without white space at its ends and without format characters
    (zero-width spaces, joiners, byte order marks). `1.0` becomes `1`, `-0` becomes `0` and `1e-05`
    becomes `0.00001`, while `01`, `1.10` and `1e3` stay; `True` and `FALSE` become `true` and
    `false`, which are not 1 and 0.

    Example:
        >>> label_key(" 3.0"), label_key("True"), label_key("toxic\\u200b"), label_key("01")
        ('3', 'true', 'toxic', '01')
    """
    if not label.isascii():
        label = unicodedata.normalize("NFC", "".join(c for c in label if not is_invisible(c)))
    label = label.strip()
    if whole := WHOLE_NUMBER.fullmatch(label):
        label = whole[1]
    elif EXPONENT.fullmatch(label) and label.lower() == repr(float(label)):
        return number_text(float(label))
    if label == "-0":
        return "0"
    return label.lower() if label.lower() in ("true", "false") else label


def is_invisible(character: str) -> bool:
    """Return whether this is an invisible format character, such as a zero-width space."""
    return unicodedata.category(character) == "Cf" and ord(character) not in VISIBLE_FORMATS


def class_names(counts: Mapping[str, int]) -> dict[str, str]:
    """Return {spelling: name of its class}.

    Spellings with one key are one class. Its name is its most frequent spelling, trimmed and in
    NFC, so that joiners within an emoji stay. A number or boolean is named by its key, so that
    all file formats agree.

    Args:
        counts: {spelling: rows}. Of equally frequent spellings, the key itself comes first, then
            the first by code points.
    """
    groups: dict[str, list[str]] = {}
    for spelling in counts:
        groups.setdefault(label_key(spelling), []).append(spelling)
    names = {}
    for key, spellings in groups.items():
        best = min(spellings, key=lambda spelling: (-counts[spelling], spelling != key, spelling))
        name = key if NUMBER.fullmatch(key) else _trimmed(best)
        names.update(dict.fromkeys(spellings, name))
    return names


def _trimmed(spelling: str) -> str:
    """Return the spelling in NFC, without white space and format characters at its ends."""
    spelling = unicodedata.normalize("NFC", spelling)
    kept = [i for i, c in enumerate(spelling) if not (c.isspace() or is_invisible(c))]
    return spelling[kept[0] : kept[-1] + 1] if kept else ""


def known_as(label: str, names: Iterable[str]) -> str | None:
    """Return the class name among `names` that has the same key as `label`, or None."""
    key = label_key(label)
    return next((name for name in names if label_key(name) == key), None)


def in_data(
    labels: Iterable[str],
    names: Iterable[str],
    config_key: str,
    fault: type[TrainerError] = DataError,
) -> list[str]:
    """Return the class names that the labels of a config mean.

    Raises:
        fault: no class has one of the labels; the message has the nearest known name.
    """
    by_key = {label_key(name): name for name in names}
    labels = list(labels)
    unknown = sorted(label for label in labels if label_key(label) not in by_key)
    if unknown:
        known = listing(by_key.values())
        nearest = did_you_mean(unknown[0], by_key.values())
        raise fault(f"{config_key} names {listing(unknown)}; labels in the data: {known}.{nearest}")
    return [by_key[label_key(label)] for label in labels]
