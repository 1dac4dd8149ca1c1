"""Parse lists that are written as text: JSON, Python and numpy style, as in CSV files of pandas."""

import ast
import io
import itertools
import json
import math
import tokenize
from typing import Any

from trainer.data.reading.column_text import number_text

ITEMS = (tokenize.STRING, tokenize.NUMBER, tokenize.NAME)
LAYOUT = (tokenize.NEWLINE, tokenize.NL, tokenize.ENDMARKER)


def parse_list(text: str) -> list[Any] | None:
    """Return the texts, numbers, booleans and None of a list, or None if the text is not a list.

    Example:
        >>> parse_list("['toxic', 'insult']"), parse_list("[0. 1. 0.]"), parse_list("['a' 'b']")
        (['toxic', 'insult'], [0.0, 1.0, 0.0], ['a', 'b'])
        >>> parse_list("[NEG]")
    """
    text = text.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = _parse_python(text)
    is_flat = isinstance(found, list) and all(
        item is None or isinstance(item, str | bool | int | float) for item in found
    )
    return found if is_flat else None


def _parse_python(text: str) -> list[Any] | None:
    """Return a list as Python writes it, or numpy, which writes no commas."""
    try:
        lines = io.StringIO(text).readline
        tokens = [t for t in tokenize.generate_tokens(lines) if t.type not in LAYOUT]
        pairs = [
            (first, second)
            for first, second in itertools.pairwise(tokens)
            if first.type in ITEMS and second.type in ITEMS
        ]
        if not pairs:
            return ast.literal_eval(text)
        has_commas = any(token.string == "," for token in tokens)
        if has_commas or any(first.end == second.start for first, second in pairs):
            return None  # Python would join two texts that are next to each other
        return [ast.literal_eval(token.string) for token in tokens[1:-1]]
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return None


def item_text(item: Any) -> str | None:
    """Return an item of a list as readers spell labels; None for NaN.

    Numbers are written as `number_text` writes them, booleans as `true` and `false`.

    Example:
        >>> item_text(1.0), item_text(True), item_text(0.5), item_text("a")
        ('1', 'true', '0.5', 'a')
    """
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, float):
        return None if math.isnan(item) else number_text(item)
    return item if item is None else str(item)
