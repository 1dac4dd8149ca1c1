"""Turn a column of any type into text."""

from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.errors import DataError, brief


def number_text(number: float) -> str:
    """Return the shortest text that reads back as the number, without '.0'.

    A text of at most 40 characters has no exponent.

    Example:
        >>> number_text(2.0), number_text(1e-05), number_text(-0.0)
        ('2', '0.00001', '0')
    """
    plain = format(Decimal(repr(number)), "f").removesuffix(".0")
    return "0" if plain == "-0" else plain if len(plain) <= 40 else repr(number)


def as_text(column: pa.ChunkedArray, name: str, where: str) -> Any:
    """Return the column as text, with numbers as `number_text` writes them and NaN as null.

    Raises:
        DataError: the column holds lists, objects or bytes.
    """
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_floating(kind):
        return _floats_as_text(column)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise DataError(
            f"{where}: column '{name}' holds {brief(kind)}; needed: one text or number a row."
        )
    return pc.cast(column, pa.string())


def _floats_as_text(column: pa.ChunkedArray) -> pa.Array:
    """Return numbers as text in the width of the column: 0.1 in 32 bits is '0.1'."""
    numbers = pa.chunked_array(column).combine_chunks()
    if pa.types.is_float16(numbers.type):  # Arrow writes 16-bit numbers as if they had 32 bits.
        numbers = pa.array(numbers.to_numpy(zero_copy_only=False).astype(str)).cast(pa.float64())
    numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    wide = numbers.cast(pa.float64())
    # Each number decides for itself, since a later batch may hold fractions.
    is_whole = pc.and_(pc.equal(wide, pc.floor(wide)), pc.less(pc.abs(wide), 2.0**53))
    whole = pc.if_else(is_whole, wide, None).cast(pa.int64()).cast(pa.string())
    texts = pc.coalesce(whole, numbers.cast(pa.string()))
    has_exponent = pc.fill_null(pc.match_substring(texts, "e"), False)
    found = [number_text(float(text)) for text in texts.filter(has_exponent).to_pylist()]
    return pc.replace_with_mask(texts, has_exponent, pa.array(found, pa.string()))
