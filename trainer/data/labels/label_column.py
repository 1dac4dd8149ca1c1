"""What the cells of the label column hold: one label, a list of labels, a multi-hot vector, or labels with a separator.

Rows come in batches, but all of them decide: `LabelColumn.read` keeps the cells nearly as they are and notes what they look
like, `LabelColumn.form` decides when all are read, and `LabelFormat.converted` gives each row the JSON list of its labels.
"""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trainer.data.labels.label_conversion import ONES, LabelFormat, column_lists, is_blank
from trainer.data.labels.list_parsing import item_text, parse_list
from trainer.data.reading.column_text import as_text
from trainer.data.reading.row_places import PLACE, Places
from trainer.errors import DataError, brief, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection

BINARY = {"0", "1", "true", "false"}
OPENING = ("[", "{", "(")
LOOKS_LIKE_LIST = (
    r"""^(\[[^\[\]]*,[^\[\]]*\]|\{[^{}:]*,[^{}:]*\}|[\[({]\s*['"].*['"]\s*,?\s*[\])}])$"""
)
"""Brackets around several parts or around quoted text: `[a, b]`, `{a,b}`, `('a',)`; neither `[NEG]` nor `(0, 1]`."""


@dataclass
class LabelColumn:
    """Reads the label column batch by batch, and notes what its cells look like.

    Attributes:
        label_order: label names in ClassLabel order, or in the order of `data.label_columns`, where there is one.
        has_lists: whether a column of lists was read.
        num_texts: cells of text that are not empty; `num_written` of them are lists.
        example: such a list.
        odd: config key and place of the first text that is no list, and the text.
        lengths: lengths of the lists, two of them at most.
        is_binary: whether the lists hold 0, 1, true and false alone.
        has_packed: whether a batch of lists was packed as vectors.
        has_separator: whether a cell holds `data.label_separator`.
        has_repeats: whether a list holds a value twice.
        is_typed: whether the values are fractional numbers or booleans, of which no label ids are made.
        is_whole: whether the lists hold whole numbers from 0 on alone.
        counts: a list that holds 0 several times and other numbers than 1; empty where there is none.
        fraction: a value between whole numbers.
        ones: places of the lists that hold 1 somewhere.
        num_with_blanks: lists with null or blank entries; `num_emptied` of them have no other.
        num_like_lists: cells of text that look like lists; `like_list` is one of them.
    """

    label_order: list[str] | None = None
    has_columns: bool = False
    has_lists: bool = False
    num_texts: int = 0
    num_written: int = 0
    example: str = ""
    odd: tuple[str, int, str] | None = None
    lengths: set[int] = field(default_factory=set)
    is_binary: bool = True
    has_packed: bool = False
    has_separator: bool = False
    has_repeats: bool = False
    is_typed: bool = False
    is_whole: bool = True
    counts: str = ""
    fraction: str = ""
    ones: set[int] = field(default_factory=set)
    num_with_blanks: int = 0
    num_emptied: int = 0
    num_like_lists: int = 0
    like_list: str = ""

    def read(self, table: pa.Table, data: "DataSection", where: str) -> Any:
        """Return the label cells of a batch as text.

        Raises:
            DataError: a column of another kind, or lists that `data` cannot have.
        """
        if data.label_columns:
            self.has_columns, self.label_order = True, list(data.label_columns)
            return column_lists(
                {name: as_text(table.column(name), name, where) for name in data.label_columns}
            )
        name = data.label_column
        column = table.column(name)
        if pa.types.is_null(column.type):
            cells = column.cast(pa.string())
        elif is_list(column.type):
            cells = self._read_lists(column, data, _class_names(table.schema, name), where)
        else:
            names = _class_names(table.schema, name)
            cells = _stripped(
                as_text(column, name, where) if names is None else self._named(column, names), data
            )
            self._note_texts(cells, table, where)
            if data.label_separator and not self.has_separator:
                self.has_separator = bool(
                    pc.any(pc.match_substring(cells, data.label_separator)).as_py()
                )
        return cells

    def _named(self, ids: pa.ChunkedArray, names: list[str]) -> Any:
        """The names of ClassLabel ids; -1 means no label."""
        self.label_order = names
        ids = pc.if_else(pc.less(ids, 0), None, ids)
        return pc.take(
            pa.array(names, pa.string()),
            ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids,
        )

    def _read_lists(
        self, column: pa.ChunkedArray, data: "DataSection", names: list[str] | None, where: str
    ) -> Any:
        name = data.label_column
        for key, asked in (
            ("streaming: false", data.streaming),
            ("label_separator: null", data.label_separator),
            ("labels_per_row: wide", _is_long(data)),
        ):
            if asked:
                needs = (
                    "data.streaming needs one label a row"
                    if data.streaming
                    else f"data.{key.split(':')[0]} is for cells of text"
                )
                raise DataError(f"{where}: column '{name}' holds lists; {needs}. Set data.{key}.")
        self.has_lists = True
        values, lengths = pc.list_flatten(column), pc.list_value_length(column)
        if names is not None:
            self.is_binary = self.is_whole = False  # ids
            return self._noted(_stripped(self._named(values, names), data), lengths)
        kind = values.type
        if pa.types.is_floating(kind):
            numbers = values.to_numpy()
            fractions = numbers[np.isfinite(numbers) & (numbers != np.floor(numbers))]
            self.fraction = self.fraction or (f"{fractions[0]:g}" if len(fractions) else "")
        self.is_typed |= bool(pa.types.is_floating(kind) or pa.types.is_boolean(kind))
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            packed = self._packed_vectors(values, lengths)
            if packed is not None:
                return packed
        return self._noted(_stripped(as_text(values, name, where), data), lengths)

    def _packed_vectors(self, values: pa.ChunkedArray, lengths: pa.ChunkedArray) -> pa.Array | None:
        """The places of the ones of each list, such as `3:0 2` of [1, 0, 1]; None where the lists are no vectors of 0 and 1."""
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
        rows, places = np.nonzero(matrix)
        ends = np.cumsum(np.bincount(rows, minlength=len(matrix)))
        start = f"{'b' if pa.types.is_boolean(values.type) else ''}{sizes[0]}:"
        cells = iter(
            [start + " ".join(map(str, part.tolist())) for part in np.split(places, ends[:-1])]
        )
        return pa.array(
            [None if length is None else next(cells) for length in lengths.to_pylist()], pa.string()
        )

    def _noted(self, texts: pa.ChunkedArray, lengths: pa.ChunkedArray) -> pa.Array:
        """JSON list of each row's texts, in which null stands for a missing one; missing where the list is."""
        rest, cells = iter(texts.to_pylist()), list[str | None]()
        for length in lengths.to_pylist():
            items = None if length is None else [next(rest) for _ in range(length)]
            if items is not None:
                self._note_items(items)
            cells.append(None if items is None else json.dumps(items, ensure_ascii=False))
        return pa.array(cells, pa.string())

    def _note_items(self, items: list[str | None], num_rows: int = 1) -> None:
        if len(self.lengths) < 2:
            self.lengths.add(len(items))
        held = [item for item in items if item is not None and not is_blank(item)]
        if len(held) < len(items):
            self.num_with_blanks += num_rows
            self.num_emptied += 0 if held else num_rows
        distinct = set(held)
        self.has_repeats |= len(distinct) < len(held)
        self.is_binary &= distinct <= BINARY
        self.is_whole = self.is_whole and all(item.isdecimal() for item in distinct)
        if self.is_binary:
            self.ones |= {place for place, item in enumerate(items) if item in ONES}
        elif self.is_whole and not self.counts and held.count("0") > 1 and not distinct <= BINARY:
            self.counts = f"[{', '.join(held)}]"

    def _note_texts(self, cells: Any, table: pa.Table, where: str) -> None:
        """Count the cells that are lists written as text; a column of single labels costs a glance."""
        is_text = pc.fill_null(pc.greater(pc.binary_length(cells), 0), False)
        self.num_texts += pc.sum(is_text).as_py() or 0
        is_list = pc.fill_null(pc.starts_with(cells, OPENING[0]), False)
        for bracket in OPENING[1:]:
            is_list = pc.or_(is_list, pc.fill_null(pc.starts_with(cells, bracket), False))
        if pc.any(is_list).as_py():
            bracketed = cells.filter(is_list)
            alike = bracketed.filter(pc.match_substring_regex(bracketed, LOOKS_LIKE_LIST))
            self.num_like_lists += len(alike)
            self.like_list = self.like_list or next(iter(alike.slice(0, 1).to_pylist()), "")
            lists = {
                entry["values"]: entry["counts"] for entry in pc.value_counts(bracketed).to_pylist()
            }
            others = [cell for cell, count in lists.items() if not self._note_written(cell, count)]
            self.num_written += sum(lists.values()) - sum(lists[cell] for cell in others)
            if others:
                is_list = pc.and_(is_list, pc.invert(pc.is_in(cells, value_set=pa.array(others))))
        if self.odd is None:
            place = pc.index(pc.and_(is_text, pc.invert(is_list)), True).as_py()
            if place >= 0:
                self.odd = (where, table[PLACE.name][place].as_py(), cells[place].as_py())

    def _note_written(self, cell: str, num_rows: int) -> bool:
        """Whether a cell is a list written as text; notes what it holds."""
        items = parse_list(cell)
        if items is None:
            return False
        self.example = self.example or cell
        self.is_typed |= any(isinstance(item, bool | float) for item in items)
        self.fraction = self.fraction or next(
            (f"{item:g}" for item in items if isinstance(item, float) and item % 1 > 0), ""
        )
        self._note_items([item_text(item) for item in items], num_rows)
        return True

    def form(self, data: "DataSection", files: list[list[str]]) -> LabelFormat:
        """Return what the cells hold, judged by all that were read.

        Args:
            files: the files that the places of rows tell of.
        Raises:
            DataError: cells of several kinds, or that do not fit `label_names`, `label_separator`, `labels_per_row` or `streaming`.
        """
        if self.has_columns:
            return LabelFormat("columns", self.label_order)
        column, is_written = f"column '{data.label_column}'", self.num_written > self.num_texts / 2
        if is_written and (data.streaming or data.label_separator or _is_long(data)):
            key = (
                "streaming: false"
                if data.streaming
                else "label_separator: null"
                if data.label_separator
                else "labels_per_row: wide"
            )
            raise DataError(
                f"{column} holds lists written as text, such as {brief(self.example)}, which fit no data.{key.split(':')[0]}. Set data.{key}."
            )
        if data.label_separator:
            words = f"Labels: the cells of {column} are split at '{data.label_separator}'; an empty cell is a row without a label."
            remedy = "Set it to the text between the labels, or to null."
            warning = (
                ""
                if self.has_separator
                else f"data.label_separator is '{data.label_separator}', but no cell of {column} holds it. {remedy}"
            )
            return LabelFormat(
                "delimited", self.label_order, data.label_separator, True, words, warning
            )
        if not self.has_lists and not is_written:
            if data.label_names:
                raise DataError(
                    f"data.label_names is set, but {column} holds no multi-hot vectors. Remove data.label_names, or set data.label_column."
                )
            return LabelFormat("one", self.label_order, warning=self._like_lists(column))
        if self.odd and self.num_texts > self.num_written:
            self._refuse_odd(column, is_written, files)
        self._refuse_numbers(column)
        if self._are_vectors(data, column):
            return self._vector_form(data, column)
        words = (
            f"Labels: {column} holds lists written as text, such as {brief(self.example)}; they are read as lists of labels."
            if is_written
            else ""
        )
        changes = bool(is_written or self.has_repeats or self.has_packed or self.num_with_blanks)
        return LabelFormat(
            "list", self.label_order, None, changes, f"{words} {self._blanks(column)}".strip()
        )

    def _blanks(self, column: str) -> str:
        """Words for entries of lists that are no labels."""
        if not self.num_with_blanks:
            return ""
        emptied = (
            f" {self.num_emptied:,} of these rows then {'has' if self.num_emptied == 1 else 'have'} no label."
            if self.num_emptied
            else ""
        )
        words = f"Null and blank entries are left out of the lists of {column} ({_rows(self.num_with_blanks)})."
        return words + emptied

    def _like_lists(self, column: str) -> str:
        """Words for single labels that look like lists."""
        if not self.num_like_lists:
            return ""
        return (
            f"{column}: {self.num_like_lists:,} of {self.num_texts:,} labels look like lists, such as {brief(self.like_list)}, but each is read as one label."
            " If a row may have several labels, write all labels as lists, such as ['a', 'b']."
        )

    def _refuse_numbers(self, column: str) -> None:
        """Raises DataError for probabilities and counts."""
        if self.fraction:
            raise DataError(
                f"{column} holds lists with {self.fraction}; needed: label names, whole numbers, or vectors of 0 and 1."
                " Set each value to 0 or 1, such as by a threshold of 0.5."
            )
        if self.counts and self.is_whole and len(self.lengths) == 1:
            raise DataError(
                f"{column} holds lists of one length with counts, such as {brief(self.counts)}; needed: vectors of 0 and 1, or lists that name each label once."
                " Set counts above 1 to 1, or remove the repeated values."
            )

    def _refuse_odd(self, column: str, is_written: bool, files: list[list[str]]) -> None:
        where, place, cell = self.odd or ("", 0, "")
        if not is_written:
            raise DataError(
                f"{where}: {column} holds lists in some rows and single labels in others; needed: one kind. Mend the files."
            )
        raise DataError(
            f"{Places(np.array([place]), files).where(0)}: label '{brief(cell)}' is no list, but {self.num_written:,} of {self.num_texts:,} labels are lists"
            f" written as text, such as {brief(self.example)}. Write it as a list."
        )

    def _are_vectors(self, data: "DataSection", column: str) -> bool:
        """Whether the lists are multi-hot: of one length, of 0 and 1 alone, and no label ids.

        Ids are whole and never repeat; and where they would give every row the same two labels, they are vectors too.
        """
        if self.is_binary and self.has_repeats and len(self.lengths) > 1:
            sizes = " and ".join(map(str, sorted(self.lengths)))
            raise DataError(
                f"{column} holds vectors of 0 and 1 of several lengths, such as {sizes}; needed: one value for each label. Mend the column."
            )
        are_vectors = (
            self.is_binary and min(self.lengths, default=0) >= 2 and len(self.lengths) == 1
        )
        are_vectors &= (
            self.has_repeats or self.is_typed or not self.num_with_blanks or bool(data.label_names)
        )
        if data.label_names and not are_vectors:
            raise DataError(
                f"data.label_names is set, but the lists of {column} are no vectors of 0 and 1 of one length. Remove data.label_names."
            )
        return are_vectors

    def _vector_form(self, data: "DataSection", column: str) -> LabelFormat:
        size = next(iter(self.lengths))
        names = data.label_names or [f"label_{place}" for place in range(size)]
        if len(names) != size:
            raise DataError(
                f"data.label_names has {len(names)} names, but the multi-hot vectors of {column} have {size} values. Give {size} names."
            )
        unused = [names[place] for place in range(size) if place not in self.ones]
        words = f"Labels: {column} holds multi-hot vectors of {size} labels{f'; no row has {listing(unused)}' if unused else ''}."
        span = " and ".join(names) if size == 2 else f"{names[0]} to {names[-1]}"
        warning = f"{column}: the {size} labels of the multi-hot vectors have no names and are called {span}. Set data.label_names."
        return LabelFormat("vector", names, None, True, words, "" if data.label_names else warning)


def _is_long(data: "DataSection") -> bool:
    return data.labels_per_row == "long"


def _stripped(texts: Any, data: "DataSection") -> Any:
    return pc.utf8_trim_whitespace(texts) if data.clean.strip else texts


def _rows(count: int) -> str:
    return f"{count:,} row{'' if count == 1 else 's'}"


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists."""
    return bool(
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _class_names(schema: pa.Schema, name: str) -> list[str] | None:
    """Names of a ClassLabel column, or of a list of them."""
    if b"huggingface" not in (schema.metadata or {}):
        return None
    from datasets import Features

    feature = Features.from_arrow_schema(schema).get(name)
    return getattr(getattr(feature, "feature", feature), "names", None)
