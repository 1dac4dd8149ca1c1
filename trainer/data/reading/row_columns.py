"""The columns of every table of rows, and how the columns of a source become them."""

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.data.labels.label_column import LabelColumn
from trainer.data.labels.label_normalisation import label_key
from trainer.data.reading.column_text import as_text
from trainer.data.reading.places import CellFault, place_in
from trainer.errors import DataError, brief

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

SCHEMA = pa.schema(
    [(n, pa.string()) for n in ("text", "text_pair", "label", "group", "domain")]
    + [("weight", pa.float64())]
)


def schema_of(time_column: str | None) -> pa.Schema:
    """SCHEMA, with the text of each row's time where rows are split by it."""
    return SCHEMA.append(pa.field("time", pa.string())) if time_column else SCHEMA


def new_notes(files: list[list[str]]) -> dict[str, Any]:
    """What `normalise` notes down over all rows, to begin with.

    Args:
        files: what the places of rows tell of, for messages.
    """
    return {"stripped": 0, "cells": LabelColumn(), "files": files}


def normalise(
    table: pa.Table,
    data: "DataSection",
    domain_column: str | None,
    state: dict[str, Any],
    where: str,
    time_column: str | None = None,
) -> pa.Table:
    """The wanted columns in the types of SCHEMA, stripped if asked for.

    Raises:
        DataError: a column of a type, or a cell with a value, that does not fit.
    """
    try:
        return _normalised(table, data, domain_column, state, where, time_column)
    except CellFault as fault:
        raise DataError(f"{place_in(table, fault.row, state['files'])}: {fault.words}") from fault


def _normalised(
    table: pa.Table,
    data: "DataSection",
    domain_column: str | None,
    state: dict[str, Any],
    where: str,
    time_column: str | None,
) -> pa.Table:
    strip = pc.utf8_trim_whitespace if data.clean.strip else _same
    texts = [data.text_column] if isinstance(data.text_column, str) else list(data.text_column)
    columns = [as_text(table.column(c), c, where) for c in texts]
    stripped = [strip(c) for c in columns]
    if data.clean.strip:
        changed = [
            pc.not_equal(pc.binary_length(a), pc.binary_length(b))
            for a, b in zip(columns, stripped, strict=True)
        ]
        state["stripped"] += sum(pc.sum(c).as_py() or 0 for c in changed)
    nothing = pa.nulls(table.num_rows, pa.string())
    pair = nothing
    if len(stripped) > 1:
        pair = pc.binary_join_element_wise(
            *stripped[1:], "\n", null_handling="replace", null_replacement=""
        )
        pair = pair.cast(pa.string())
    label = state["cells"].read(table, data, where)
    group = _keys(table, data.group_column, where) if data.group_column else nothing
    domain = _keys(table, domain_column, where) if domain_column else nothing
    weight = (
        _weights(table, data.weight_column, where)
        if data.weight_column
        else pa.nulls(table.num_rows, pa.float64())
    )
    times = [as_text(table.column(time_column), time_column, where)] if time_column else []
    return pa.Table.from_arrays(
        [stripped[0], pair, label, group, domain, weight, *times], schema=schema_of(time_column)
    )


def _keys(table: pa.Table, name: str, where: str) -> pa.Array:
    """Values that are compared and not shown to a model (groups, domains), in the form in which labels are compared; empty ones are missing."""
    values = (
        pa.chunked_array(as_text(table.column(name), name, where))
        .combine_chunks()
        .dictionary_encode()
    )
    keys = pa.array(
        [label_key(value) or None for value in values.dictionary.to_pylist()], pa.string()
    )
    return keys.take(values.indices)


def _weights(table: pa.Table, name: str, where: str) -> Any:
    """Weights as numbers; empty cells and NaN are missing."""
    column = table.column(name)
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), None, column)
        weight = pc.cast(column, pa.float64())
    except pa.ArrowNotImplementedError as error:
        raise DataError(
            f"{where}: column '{name}' holds {brief(column.type)}; needed: one number a row, or nothing. Set data.weight_column."
        ) from error
    except pa.ArrowInvalid as error:
        row = next(row for row, cell in enumerate(column) if not _is_number(cell))
        words = f"weight column '{name}' holds '{brief(column[row])}'; needed: one number a row, or nothing."
        raise CellFault(row, f"{words} Mend the row, or set data.weight_column.") from error
    return pc.if_else(pc.is_nan(weight), None, weight)


def _is_number(cell: pa.Scalar) -> bool:
    try:
        cell.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True


def _same(column: Any) -> Any:
    return column
