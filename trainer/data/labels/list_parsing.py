"""Lists written as text: JSON, Python and numpy style, as CSV files of pandas and of this package hold them."""

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


def parse_list(cell: str) -> list[Any] | None:
    """Return the texts, numbers, booleans and None of a list that is written as text; None where the cell is no list.

    Example:
        >>> parse_list("['toxic', 'insult']"), parse_list("[0. 1. 0.]"), parse_list("['a' 'b']"), parse_list("[NEG]")
        (['toxic', 'insult'], [0.0, 1.0, 0.0], ['a', 'b'], None)
    """
    cell = cell.strip()
    if not (cell.startswith("[") and cell.endswith("]")):
        return None
    try:
        found = json.loads(cell)
    except (ValueError, RecursionError):
        found = _parse_python(cell)
    is_flat = isinstance(found, list) and all(
        item is None or isinstance(item, str | bool | int | float) for item in found
    )
    return found if is_flat else None


def _parse_python(cell: str) -> list[Any] | None:
    """Lists of Python, and of numpy, which has no commas."""
    try:
        tokens = [
            token
            for token in tokenize.generate_tokens(io.StringIO(cell).readline)
            if token.type not in LAYOUT
        ]
        pairs = [
            pair
            for pair in itertools.pairwise(tokens)
            if pair[0].type in ITEMS and pair[1].type in ITEMS
        ]
        if pairs and (
            any(token.string == "," for token in tokens)
            or any(first.end == second.start for first, second in pairs)
        ):
            return None  # Python would join two texts side by side
        if not pairs:
            return ast.literal_eval(cell)
        return [ast.literal_eval(token.string) for token in tokens[1:-1]]
    except (ValueError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        return None


def item_text(item: Any) -> str | None:
    """Return an item as readers spell labels: numbers as `number_text` writes them, booleans as
    `true` and `false`; None for NaN.

    Example:
        >>> item_text(1.0), item_text(True), item_text(0.5), item_text("a")
        ('1', 'true', '0.5', 'a')
    """
    if isinstance(item, bool):
        return str(item).lower()
    if isinstance(item, float):
        return None if math.isnan(item) else number_text(item)
    return item if item is None else str(item)
