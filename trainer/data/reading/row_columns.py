"""The columns of every table of rows, and how the columns of a source become them."""

from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from trainer.config.sections.data import DataSection
from trainer.data.labels.label_column import LabelColumn
from trainer.data.labels.label_normalisation import label_key
from trainer.data.reading.column_text import as_text
from trainer.data.reading.row_places import PLACE, CellFault, Places
from trainer.errors import DataError, brief

SCHEMA = pa.schema(
    [(n, pa.string()) for n in ("text", "text_pair", "label", "group", "domain")]
    + [("weight", pa.float64())]
)


@dataclass
class RowColumns:
    """Turns the columns of a source into the columns of SCHEMA, table by table.

    Args:
        data: names the columns.
        domain_column: the column that becomes `domain` (`balance.by`).
        time_column: the column that becomes `time` (`split.by_time`).
        files: the files that the places of rows refer to, for messages.
    Attributes:
        num_stripped: number of texts that lost white space at their ends.
        cells: what the label cells of all tables look like.
    """

    data: DataSection
    domain_column: str | None = None
    time_column: str | None = None
    files: list[list[str]] = field(default_factory=list)
    num_stripped: int = 0
    cells: LabelColumn = field(default_factory=LabelColumn)

    @property
    def wanted(self) -> list[str]:
        """The columns that a source must have, each once."""
        data = self.data
        labels = data.label_columns or [data.label_column]
        others = (data.group_column, data.weight_column, self.domain_column, data.split_column)
        named = [*data.text_columns, *labels, *others, self.time_column]
        return [column for column in dict.fromkeys(named) if column]

    @property
    def schema(self) -> pa.Schema:
        """SCHEMA, with the text of each row's time if rows are split by time."""
        return SCHEMA.append(pa.field("time", pa.string())) if self.time_column else SCHEMA

    def rows(self, table: pa.Table, where: str) -> pa.Table:
        """Return the wanted columns in the types of SCHEMA, stripped if the config asks for it.

        Args:
            table: has the column PLACE.
            where: the config key, for messages.
        Raises:
            DataError: the type of a column, or the value of a cell, does not fit.
        """
        try:
            return self._rows(table, where)
        except CellFault as fault:
            code = table[PLACE.name].slice(fault.row, 1).to_numpy()
            place = Places(code, self.files).where(0)
            raise DataError(f"{place}: {fault.words}") from fault

    def _rows(self, table: pa.Table, where: str) -> pa.Table:
        data, nothing = self.data, pa.nulls(table.num_rows, pa.string())
        texts = [as_text(table[name], name, where) for name in data.text_columns]
        if data.clean.strip:
            stripped = [pc.utf8_trim_whitespace(text) for text in texts]
            for before, after in zip(texts, stripped, strict=True):
                changed = pc.not_equal(pc.binary_length(before), pc.binary_length(after))
                self.num_stripped += pc.sum(changed).as_py() or 0
            texts = stripped
        pair = nothing
        if len(texts) > 1:
            pair = pc.binary_join_element_wise(
                *texts[1:], "\n", null_handling="replace", null_replacement=""
            ).cast(pa.string())
        label = self.cells.read(table, data, where)
        keys = [
            _keys(table, name, where) if name else nothing
            for name in (data.group_column, self.domain_column)
        ]
        weight = pa.nulls(table.num_rows, pa.float64())
        if data.weight_column:
            weight = _weights(table, data.weight_column, where)
        names = [self.time_column] if self.time_column else []
        times = [as_text(table[name], name, where) for name in names]
        return pa.Table.from_arrays(
            [texts[0], pair, label, *keys, weight, *times], schema=self.schema
        )


def _keys(table: pa.Table, name: str, where: str) -> pa.Array:
    """Return groups or domains in the form in which labels are compared; empty ones are missing."""
    column = pa.chunked_array(as_text(table.column(name), name, where)).combine_chunks()
    values = column.dictionary_encode()
    keys = [label_key(value) or None for value in values.dictionary.to_pylist()]
    return pa.array(keys, pa.string()).take(values.indices)


def _weights(table: pa.Table, name: str, where: str) -> Any:
    """Return weights as numbers; empty cells and NaN are missing."""
    column = table.column(name)
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = pc.utf8_trim_whitespace(column)
            column = pc.if_else(pc.equal(column, ""), None, column)
        weight = pc.cast(column, pa.float64())
    except pa.ArrowNotImplementedError as error:
        raise DataError(
            f"{where}: column '{name}' holds {brief(column.type)}; needed: one number a row, or "
            "nothing. Set data.weight_column."
        ) from error
    except pa.ArrowInvalid as error:
        row = next(row for row, cell in enumerate(column) if not _is_number(cell))
        raise CellFault(
            row,
            f"weight column '{name}' holds '{brief(column[row])}'; needed: one number a row, or "
            "nothing. Fix the row, or set data.weight_column.",
        ) from error
    return pc.if_else(pc.is_nan(weight), None, weight)


def _is_number(cell: pa.Scalar) -> bool:
    try:
        cell.cast(pa.float64())
    except pa.ArrowInvalid:
        return False
    return True
