"""How the cells of a label column become lists of labels, once it is known what they hold."""

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.data.labels.label_normalisation import label_key
from trainer.data.labels.list_parsing import item_text, parse_list
from trainer.data.reading.row_places import CellFault
from trainer.errors import brief

ONES = {"1", "true"}
YES, NO = ["1", "1.0", "true"], ["0", "0.0", "false"]


def is_blank(item: str | None) -> bool:
    """Return whether an entry of a list is no label: null, or without a visible character."""
    return item is None or not label_key(item)


@dataclass(frozen=True)
class LabelFormat:
    """What the cells of a label column hold, and how they become JSON lists of labels.

    Attributes:
        kind: one, list, vector, delimited, or columns (one column a label).
        names: labels of the places of a vector; else in ClassLabel order where the source has one.
        separator: text between the labels of a delimited cell.
        changes: whether `converted` changes any cell.
        sentence: what was understood, for the user; empty where nothing was guessed or asked for.
        warning: what the user should set; mostly empty.
    """

    kind: str = "one"
    names: list[str] | None = None
    separator: str | None = None
    changes: bool = False
    sentence: str = ""
    warning: str = ""

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have any number of labels."""
        return self.kind != "one"

    def converted(self, column: pa.ChunkedArray | pa.Array) -> pa.Array:
        """Return each row's labels as a JSON list, each once.

        Missing where the cell is, and where a vector lacks a value. Null and blank entries of a list are left out.
        """
        cells = pa.chunked_array(column).combine_chunks().dictionary_encode()
        texts: list[str | None] = []
        for cell in cells.dictionary.to_pylist():
            labels = self._labels(cell)
            texts.append(
                None
                if labels is None
                else json.dumps(list(dict.fromkeys(labels)), ensure_ascii=False)
            )
        if self.kind == "delimited":  # an empty cell is a row without a label
            return pc.fill_null(pa.array(texts, pa.string()).take(cells.indices), "[]")
        return pa.array(texts, pa.string()).take(cells.indices)

    def _labels(self, cell: str) -> list[str] | None:
        if self.kind == "delimited":
            return [part.strip() for part in cell.split(self.separator) if part.strip()]
        if not cell.startswith("["):
            return self._packed(cell) if cell.strip() else None
        items = [item_text(item) for item in parse_list(cell) or []]
        if self.kind == "vector":
            if any(is_blank(item) for item in items):
                return None
            return [
                name for name, item in zip(self.names or [], items, strict=True) if item in ONES
            ]
        return [item for item in items if item is not None and not is_blank(item)]

    def _packed(self, cell: str) -> list[str]:
        """The labels of a vector that `_packed_vectors` packed."""
        size, _, places = cell.lstrip("b").partition(":")
        ones = {int(place) for place in places.split()}
        if self.kind == "vector":
            return [name for place, name in enumerate(self.names or []) if place in ones]
        no, yes = ("false", "true") if cell.startswith("b") else ("0", "1")
        return [yes if place in ones else no for place in range(int(size))]


def column_lists(columns: dict[str, pa.ChunkedArray]) -> pa.Array:
    """Return the JSON list of each row's labels from one text column a label; missing where one of the cells is.

    Raises:
        CellFault: a cell that is not 0, 1, true or false.
    """
    held, missing = [], []
    for name, column in columns.items():
        text = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        first = pc.index(
            pc.is_in(text, value_set=pa.array([*YES, *NO, "", None], pa.string())), False
        ).as_py()
        if first >= 0:
            remedy = "Mend the column, or set data.label_columns."
            raise CellFault(
                first,
                f"label column '{name}' holds '{brief(column[first])}'; needed: 0, 1, true or false. {remedy}",
            )
        held.append(pc.is_in(text, value_set=pa.array(YES)).to_numpy())
        missing.append(pc.is_in(text, value_set=pa.array(["", None], pa.string())).to_numpy())
    names = list(columns)
    rows = zip(np.array(held).T, np.logical_or.reduce(missing), strict=True)
    return pa.array(
        [
            None
            if gone
            else json.dumps([names[c] for c in np.flatnonzero(row)], ensure_ascii=False)
            for row, gone in rows
        ],
        pa.string(),
    )
