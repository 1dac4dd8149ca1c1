"""A column of any type as text."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.data.bad_rows import cut
from trainer.errors import DataError


def as_text(column: pa.ChunkedArray, name: str, where: str) -> Any:
    """The column as text: whole numbers without '.0', NaN and null as missing."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = kind.value_type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column.cast(pa.float64()))
        is_whole = pc.and_(pc.equal(column, pc.floor(column)), pc.less(pc.abs(column), 2.0**53))  # each by itself: a later batch may hold halves
        return pc.coalesce(pc.cast(pc.cast(pc.if_else(is_whole, column, None), pa.int64()), pa.string()), pc.cast(column, pa.string()))
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        raise DataError(f"{where}: column '{name}' holds {cut(str(kind), 60)}; needed: one text or number a row.")
    return pc.cast(column, pa.string())
