"""Read the label column batch by batch, and collect evidence of its format."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.data.labels.label_conversion import ONES, column_lists, is_blank
from trainer.data.labels.label_format import FormatEvidence, setting_for_lists
from trainer.data.labels.list_parsing import item_text, parse_list
from trainer.data.reading.column_text import as_text
from trainer.data.reading.row_places import PLACE
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

BINARY = {"0", "1", "true", "false"}
OPENING = ["[", "{", "("]
LOOKS_LIKE_LIST = (
    r"""^(\[[^\[\]]*,[^\[\]]*\]|\{[^{}:]*,[^{}:]*\}|[\[({]\s*['"].*['"]\s*,?\s*[\])}])$"""
)
"""Brackets around several parts or quoted text: `[a, b]`, `{a,b}`, `('a',)`, but not `[NEG]`."""


@dataclass
class LabelColumn(FormatEvidence):
    """Reads the label column; the values stay nearly as they are until the format is known."""

    def read(self, table: pa.Table, data: "DataSection", where: str) -> Any:
        """Return the labels of a batch as text, one value a row.

        Raises:
            DataError: the column has another type, or lists that the config does not allow.
        """
        if data.label_columns:
            self.has_columns, self.label_order = True, list(data.label_columns)
            return column_lists(
                {name: as_text(table.column(name), name, where) for name in data.label_columns}
            )
        name = data.label_column
        column, names = table.column(name), _class_names(table.schema, name)
        if pa.types.is_null(column.type):
            return column.cast(pa.string())
        if is_list(column.type):
            return self._read_lists(column, data, names, where)
        texts = as_text(column, name, where) if names is None else self._named(column, names)
        texts = _stripped(texts, data)
        self._note_texts(texts, table, where)
        if data.label_separator and not self.has_separator:
            found = pc.match_substring(texts, data.label_separator)
            self.has_separator = bool(pc.any(found).as_py())
        return texts

    def _named(self, ids: pa.ChunkedArray, names: list[str]) -> Any:
        """Return the names of ClassLabel ids; -1 means no label."""
        self.label_order = names
        ids = pa.chunked_array(pc.if_else(pc.less(ids, 0), None, ids)).combine_chunks()
        return pc.take(pa.array(names, pa.string()), ids)

    def _read_lists(
        self, column: pa.ChunkedArray, data: "DataSection", names: list[str] | None, where: str
    ) -> Any:
        """Return each row's labels as a JSON list, or as a packed vector."""
        if setting := setting_for_lists(data):
            raise DataError(
                f"{where}: column '{data.label_column}' holds lists, which"
                f" data.{setting.split(':')[0]} does not allow. Set data.{setting}."
            )
        self.has_lists = True
        values, lengths = pc.list_flatten(column), pc.list_value_length(column)
        if names is not None:
            self.is_binary = self.is_whole = False  # ids
            return self._noted(_stripped(self._named(values, names), data), lengths)
        is_float, is_boolean = pa.types.is_floating(values.type), pa.types.is_boolean(values.type)
        if is_float:
            numbers = values.to_numpy()
            fractions = numbers[np.isfinite(numbers) & (numbers != np.floor(numbers))]
            self.fraction = self.fraction or (f"{fractions[0]:g}" if len(fractions) else "")
        self.is_typed |= bool(is_float or is_boolean)
        if is_float or is_boolean or pa.types.is_integer(values.type):
            packed = self._packed_vectors(values, lengths)
            if packed is not None:
                return packed
        return self._noted(_stripped(as_text(values, data.label_column, where), data), lengths)

    def _packed_vectors(self, values: pa.ChunkedArray, lengths: pa.ChunkedArray) -> pa.Array | None:
        """Return the places of the ones of each list, such as `3:0 2` for [1, 0, 1].

        Return None if the lists are not vectors of 0 and 1.
        """
        sizes = pc.unique(lengths.drop_null()).to_pylist()
        if len(sizes) != 1 or sizes[0] < 2 or values.null_count:
            return None
        numbers = values.to_numpy()
        if not np.isin(numbers, (0, 1)).all():
            return None
        self.has_packed = True
        matrix = (numbers == 1).reshape(-1, sizes[0])
        self.lengths = set(sorted({*self.lengths, sizes[0]})[:2])
        self.has_repeats |= sizes[0] > 2 or bool((matrix[:, 0] == matrix[:, 1]).any())
        self.ones |= set(np.flatnonzero(matrix.any(axis=0)).tolist())
        start = f"{'b' if pa.types.is_boolean(values.type) else ''}{sizes[0]}:"
        rows, places = np.nonzero(matrix)
        ends = np.cumsum(np.bincount(rows, minlength=len(matrix)))
        packed = (start + " ".join(map(str, part.tolist())) for part in np.split(places, ends[:-1]))
        return pa.array(
            [None if length is None else next(packed) for length in lengths.to_pylist()],
            pa.string(),
        )

    def _noted(self, texts: pa.ChunkedArray, lengths: pa.ChunkedArray) -> pa.Array:
        """Return the JSON list of each row's texts, null for a missing entry or list."""
        rest, lists = iter(texts.to_pylist()), list[str | None]()
        for length in lengths.to_pylist():
            items = None if length is None else [next(rest) for _ in range(length)]
            if items is not None:
                self._note_items(items)
            lists.append(None if items is None else json.dumps(items, ensure_ascii=False))
        return pa.array(lists, pa.string())

    def _note_items(self, items: list[str | None], num_rows: int = 1) -> None:
        """Collect the evidence of a list that `num_rows` rows hold."""
        if len(self.lengths) < 2:
            self.lengths.add(len(items))
        kept = [item for item in items if item is not None and not is_blank(item)]
        if len(kept) < len(items):
            self.num_with_blanks += num_rows
            self.num_emptied += 0 if kept else num_rows
        distinct = set(kept)
        self.has_repeats |= len(distinct) < len(kept)
        self.is_binary &= distinct <= BINARY
        self.is_whole = self.is_whole and all(item.isdecimal() for item in distinct)
        if self.is_binary:
            self.ones |= {place for place, item in enumerate(items) if item in ONES}
        elif self.is_whole and not self.counts and kept.count("0") > 1 and not distinct <= BINARY:
            self.counts = f"[{', '.join(kept)}]"

    def _note_texts(self, texts: Any, table: pa.Table, where: str) -> None:
        """Count the lists that are written as text; this is fast for a column of single labels."""
        is_text = pc.fill_null(pc.greater(pc.binary_length(texts), 0), False)
        self.num_texts += pc.sum(is_text).as_py() or 0
        first = pc.utf8_slice_codeunits(texts, 0, 1)
        may_be_list = pc.is_in(first, value_set=pa.array(OPENING))
        if pc.any(may_be_list).as_py():
            bracketed = texts.filter(may_be_list)
            alike = bracketed.filter(pc.match_substring_regex(bracketed, LOOKS_LIKE_LIST))
            self.num_like_lists += len(alike)
            self.like_list = self.like_list or next(iter(alike.slice(0, 1).to_pylist()), "")
            counts = pc.value_counts(bracketed).to_pylist()
            others = [e["values"] for e in counts if not self._note_written(**e)]
            is_other = pc.is_in(texts, value_set=pa.array(others, pa.string()))
            may_be_list = pc.and_(may_be_list, pc.invert(is_other))
            self.num_written += pc.sum(may_be_list).as_py() or 0
        if self.odd is None:
            place = pc.index(pc.and_(is_text, pc.invert(may_be_list)), True).as_py()
            if place >= 0:
                self.odd = (where, table[PLACE.name][place].as_py(), texts[place].as_py())

    def _note_written(self, values: str, counts: int) -> bool:
        """Return whether a text, which `counts` rows hold, is a list, and note what it holds."""
        items = parse_list(values)
        if items is None:
            return False
        self.example = self.example or values
        self.is_typed |= any(isinstance(item, bool | float) for item in items)
        fractions = (f"{item:g}" for item in items if isinstance(item, float) and item % 1 > 0)
        self.fraction = self.fraction or next(fractions, "")
        self._note_items([item_text(item) for item in items], counts)
        return True


def _stripped(texts: Any, data: "DataSection") -> Any:
    return pc.utf8_trim_whitespace(texts) if data.clean.strip else texts


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _class_names(schema: pa.Schema, name: str) -> list[str] | None:
    """Return the names of a ClassLabel column, or of a list of them."""
    if b"huggingface" not in (schema.metadata or {}):
        return None
    from datasets import Features

    feature = Features.from_arrow_schema(schema).get(name)
    return getattr(getattr(feature, "feature", feature), "names", None)
