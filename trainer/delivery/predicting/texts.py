"""The texts that a caller passes to a classifier: one text, one pair, or an iterable of them."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

Text = str | dict[str, str]
KEYS = ("text", "text_pair")
MISSING = ("NoneType", "float", "NAType", "NaTType")
"""Types of missing cells."""
HALF_A_PAIR = re.compile("[\ud800-\udfff]")
NEEDED = 'needed: a text, a pair {"text": ..., "text_pair": ...}, or a list of them'


def is_single(texts: Any) -> bool:
    """Return whether this is one text or one pair, not a list."""
    return isinstance(texts, str | Mapping)


def as_list(texts: Any) -> list[Text]:
    """Return the texts as a list, from one text, a list, a column, an array or a generator.

    Raises:
        TypeError: None, a number, a table (iterating it gives the names of its columns), a set
            (it has no order), or a value that is no text.
        ValueError: a text that tokenizers cannot read.
    """
    if is_single(texts):
        return [_checked(texts, "")]
    if hasattr(texts, "columns"):
        raise TypeError(
            f"a {type(texts).__name__} holds columns, not texts."
            " Give one of them, such as table['text'], as a list."
        )
    if (
        not isinstance(texts, Iterable)
        or isinstance(texts, bytes | bytearray | set | frozenset)
        or getattr(texts, "ndim", 1) == 0
    ):
        raise TypeError(f"{type(texts).__name__} is no list of texts; {NEEDED}.")
    # the columns of Arrow hold scalars of their own
    values = texts.to_pylist() if hasattr(texts, "to_pylist") else texts
    return [_checked(value, f"text {number}: ") for number, value in enumerate(values)]


def _checked(value: Any, where: str) -> Text:
    """Return the text or pair; raise TypeError for anything else.

    Args:
        where: beginning of the message.
    """
    if isinstance(value, str):
        _refuse_unreadable(value, where)
        return value
    if not isinstance(value, Mapping):
        missing = (
            " Fill or leave out missing texts first." if type(value).__name__ in MISSING else ""
        )
        raise TypeError(f"{where}found {type(value).__name__}; {NEEDED}.{missing}")
    unknown = sorted(str(key) for key in value if key not in KEYS)
    if (
        unknown
        or not isinstance(value.get("text"), str)
        or not isinstance(value.get("text_pair"), str | None)
    ):
        found = (
            f"the key{'s' if len(unknown) > 1 else ''} {', '.join(unknown[:5])[:200]}"
            if unknown
            else "a value that is no text"
        )
        raise TypeError(
            f"{where}a pair with {found}; needed: the key text, and for pairs the key text_pair,"
            " each with a text."
        )
    for text in value.values():
        _refuse_unreadable(text or "", where)
    return dict(value)


def _refuse_unreadable(text: str, where: str) -> None:
    """Raise ValueError for half a surrogate pair, which tokenizers cannot read."""
    if HALF_A_PAIR.search(text):
        raise ValueError(
            f"{where}the text holds half a surrogate pair (an emoji cut in two), which is not"
            " valid text. Correct or replace it."
        )
