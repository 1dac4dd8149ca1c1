"""Find traces of a wrong conversion in texts: mojibake, HTML entities, invisible characters."""

import re
from html.entities import name2codepoint
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from trainer.arrays import Ints
from trainer.data.labels.class_order import count_drawn

if TYPE_CHECKING:
    from trainer.data.cleaning.clean import CleanRows


MOST_EXAMPLES = 5
AROUND_CHARACTERS = 60
"""Characters shown before and after the place that was found."""
_BEHIND = "\u0080-\u00bf" + "".join(
    sorted(set(bytes(range(0x80, 0xA0)).decode("cp1252", "ignore")))
)
"""What follows the first byte of a UTF-8 character when it is read as Latin-1 or cp1252."""
_MAC_ROMAN = "©†®§∂ºü±ß≠≥°∫ñÑúØ¢™¥"
"""The second byte of letters such as é, à, ö and ß, read as Mac Roman."""

PATTERNS: dict[str, str] = {
    "replacement character": "\ufffd",
    "mojibake": (
        f"[ÂÃ][{_BEHIND}]|â[\u0080€][{_BEHIND}]|ð[\u009fŸ]|ï»¿|(?:[ÐÑ][{_BEHIND}]){{2}}"
        f"|√[{_MAC_ROMAN}]|\u201aÄ[ôúùìîò¶]"
    ),
    "HTML entity": (
        f"&(?:#[0-9]{{1,7}}|#[xX][0-9a-fA-F]{{1,6}}|apos|{'|'.join(sorted(name2codepoint))});"
    ),
    "control character": "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]",
    "invisible character": "[\u00ad\u200b\u2060\ufeff\u202a-\u202e\u2066-\u2069]",
}
"""A regular expression for each kind, in the syntax that Arrow (RE2) and Python share.

Mojibake is UTF-8 that was read as Latin-1, cp1252 or Mac Roman. Control characters are all except
tab, line feed, carriage return and next line. Invisible characters are zero-width spaces, soft
hyphens, byte order marks and marks of text direction. Joiners are not, since emoji and Persian need
them.
"""
REMEDIES: dict[str, str] = {
    "replacement character": (
        "the characters are lost: export the data again from their origin, as UTF-8"
    ),
    "mojibake": (
        "read the file in its own data.encoding, or repair the texts, for instance with ftfy"
    ),
    "HTML entity": "convert the texts with html.unescape",
    "control character": "remove them, or read the file in its own data.encoding",
    "invisible character": "remove them, unless their language needs them",
}


def find_text_artifacts(clean: "CleanRows", ids_N: Ints) -> dict[str, dict[str, Any]]:
    """Return {kind: rows, share, by_label, examples} of the given rows, for every kind.

    `by_label` is {label: rows}. Where it differs between labels, the model can learn the label from
    the artifacts.
    """
    found = {}
    for kind, pattern in PATTERNS.items():
        masks = (
            pc.match_substring_regex(clean.rows.table[name], pattern).fill_null(False).to_numpy()
            for name in ("text", "text_pair")
        )
        has_N = np.logical_or(*masks)[ids_N]
        counts_C = count_drawn(clean.targets, ids_N[has_N], len(clean.labels))
        found[kind] = {
            "rows": int(has_N.sum()),
            "share": float(has_N.mean()) if len(ids_N) else 0.0,
            "by_label": {clean.labels.names[c]: int(counts_C[c]) for c in np.flatnonzero(counts_C)},
            "examples": [
                _example(clean, int(row), pattern) for row in ids_N[has_N][:MOST_EXAMPLES]
            ],
        }
    return found


def _example(clean: "CleanRows", row: int, pattern: str) -> dict[str, Any]:
    record = clean.rows.table.slice(row, 1).to_pylist()[0]
    place = re.search(pattern, record["text"] or "")
    text = record["text"] if place else record["text_pair"]
    place = place or re.search(pattern, text)
    assert place is not None
    start, end = max(0, place.start() - AROUND_CHARACTERS), place.end() + AROUND_CHARACTERS
    shown = f"{'…' if start else ''}{visible(text[start:end])}{'…' if end < len(text) else ''}"
    return {"row": row, "label": clean.label_words(row), "text": shown}


def visible(text: str) -> str:
    """Return the text on one line, with spaces for tabs and line ends, and escapes for the rest."""
    return "".join(c if c.isprintable() else " " if c in "\t\n\r" else repr(c)[1:-1] for c in text)
