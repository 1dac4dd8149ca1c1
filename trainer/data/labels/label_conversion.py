"""Convert the values of a label column to lists of labels, once their format is known."""

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
    """Return whether an entry of a list is not a label: null, or without a visible character."""
    return item is None or not label_key(item)


@dataclass(frozen=True)
class LabelFormat:
    """The format of a label column, and its conversion to JSON lists of labels.

    Attributes:
        kind: one, list, vector, delimited, or columns (one column a label).
        names: the labels of the places of a vector; else in ClassLabel order, if there is one.
        separator: text between the labels of a delimited value.
        changes: whether `converted` changes any value.
        sentence: how the column was understood, for the user; empty if that is obvious.
        warning: what the user should set, or empty.
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
        """Return each row's labels as a JSON list, each label once.

        The list is missing if the value is, or if a vector lacks a value. Null and blank entries of
        a list are left out.
        """
        values = pa.chunked_array(column).combine_chunks().dictionary_encode()
        labels_of = [self._labels(value) for value in values.dictionary.to_pylist()]
        texts = [
            None if labels is None else json.dumps(list(dict.fromkeys(labels)), ensure_ascii=False)
            for labels in labels_of
        ]
        converted = pa.array(texts, pa.string()).take(values.indices)
        # An empty delimited value is a row without a label.
        return pc.fill_null(converted, "[]") if self.kind == "delimited" else converted

    def _labels(self, value: str) -> list[str] | None:
        if self.kind == "delimited":
            return [part.strip() for part in value.split(self.separator) if part.strip()]
        if not value.startswith("["):
            return self._unpacked(value) if value.strip() else None
        items = [item_text(item) for item in parse_list(value) or []]
        if self.kind != "vector":
            return [item for item in items if item is not None and not is_blank(item)]
        if any(is_blank(item) for item in items):
            return None
        return [name for name, item in zip(self.names or [], items, strict=True) if item in ONES]

    def _unpacked(self, value: str) -> list[str]:
        """Return the labels of a packed vector, such as `3:0 2` of [1, 0, 1]."""
        size, _, places = value.lstrip("b").partition(":")
        ones = {int(place) for place in places.split()}
        if self.kind == "vector":
            return [name for place, name in enumerate(self.names or []) if place in ones]
        no, yes = ("false", "true") if value.startswith("b") else ("0", "1")
        return [yes if place in ones else no for place in range(int(size))]


def column_lists(columns: dict[str, pa.ChunkedArray]) -> pa.Array:
    """Return the JSON list of each row's labels from one column of text a label.

    The list is missing if one of the values is.

    Raises:
        CellFault: a value is not 0, 1, true or false.
    """
    present, missing = [], []
    for name, column in columns.items():
        text = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        is_one, is_zero, is_missing = (
            pc.is_in(text, value_set=pa.array(values, pa.string())).to_numpy()
            for values in (YES, NO, ["", None])
        )
        wrong = np.flatnonzero(~(is_one | is_zero | is_missing))
        if len(wrong):
            raise CellFault(
                int(wrong[0]),
                f"label column '{name}' holds '{brief(column[int(wrong[0])])}'; needed: 0, 1, true"
                " or false. Fix the column, or set data.label_columns.",
            )
        present.append(is_one)
        missing.append(is_missing)
    names = np.array(list(columns), object)
    return pa.array(
        [json.dumps(names[row].tolist(), ensure_ascii=False) for row in np.array(present, bool).T],
        pa.string(),
        mask=np.logical_or.reduce(missing),
    )
