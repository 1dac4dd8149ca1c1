"""Decide the format of the label column: one label, lists, multi-hot vectors, or separated labels.

All rows decide together, so the evidence is collected while the column is read.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trainer.data.labels.label_conversion import LabelFormat
from trainer.data.reading.row_places import Places
from trainer.errors import DataError, brief, counted, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection


@dataclass
class FormatEvidence:
    """The evidence from the values of the label column.

    Attributes:
        label_order: label names in ClassLabel order, or in the order of `data.label_columns`.
        has_columns: whether each label has a column of its own.
        has_lists: whether a column of lists was read.
        num_texts: values of text that are not empty; `num_written` of them are lists, such as
            `example`.
        odd: config key and place of the first text that is not a list, and the text.
        lengths: lengths of the lists, two of them at most.
        is_binary: whether the lists hold only 0, 1, true and false.
        has_packed: whether a batch of lists was packed as vectors.
        has_separator: whether a value holds `data.label_separator`.
        has_repeats: whether a list holds a value twice.
        is_typed: whether the values are fractional numbers or booleans, which are never label ids.
        is_whole: whether the lists hold only whole numbers from 0 on.
        counts: a list that holds 0 several times and numbers above 1; empty if there is none.
        fraction: a value between whole numbers.
        ones: places of the lists that hold 1 somewhere.
        num_with_blanks: lists with null or blank entries; `num_emptied` of them have no others.
        num_like_lists: values of text that look like lists, such as `like_list`.
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

    def form(self, data: "DataSection", files: list[list[str]]) -> LabelFormat:
        """Return the format that fits all values that were read.

        Args:
            files: the files that the places of rows refer to.
        Raises:
            DataError: the values have several formats, or do not fit `label_names`,
                `label_separator`, `labels_per_row` or `streaming`.
        """
        if self.has_columns:
            return LabelFormat("columns", self.label_order)
        column, is_written = f"column '{data.label_column}'", self.num_written > self.num_texts / 2
        setting = setting_for_lists(data)
        if is_written and setting:
            raise DataError(
                f"{column} holds lists written as text, such as {brief(self.example)}, which"
                f" data.{setting.split(':')[0]} does not allow. Set data.{setting}."
            )
        if data.label_separator:
            return self._delimited(data.label_separator, column)
        if not self.has_lists and not is_written:
            if data.label_names:
                raise DataError(
                    f"data.label_names is set, but {column} holds no multi-hot vectors. Remove"
                    " data.label_names, or set data.label_column."
                )
            return LabelFormat("one", self.label_order, warning=self._warning_of_lists(column))
        if self.odd and self.num_texts > self.num_written:
            self._refuse_odd(column, is_written, files)
        self._refuse_numbers(column)
        if self._are_vectors(data, column):
            return self._vectors(data, column)
        words = [
            f"Labels: {column} holds lists written as text, such as {brief(self.example)}; they are"
            " read as lists of labels."
        ]
        words = [*words[: int(is_written)], *self._sentences_of_blanks(column)]
        changes = bool(is_written or self.has_repeats or self.has_packed or self.num_with_blanks)
        return LabelFormat("list", self.label_order, None, changes, " ".join(words))

    def _delimited(self, separator: str, column: str) -> LabelFormat:
        words = (
            f"Labels: the values of {column} are split at '{separator}'; an empty value is a row"
            " without a label."
        )
        warning = ""
        if not self.has_separator:
            warning = (
                f"data.label_separator is '{separator}', but no value of {column} holds it. Set it"
                " to the text between the labels, or to null."
            )
        return LabelFormat("delimited", self.label_order, separator, True, words, warning)

    def _sentences_of_blanks(self, column: str) -> list[str]:
        """Return sentences about the entries of lists that are not labels."""
        left_out = (
            f"Null and blank entries are left out of the lists of {column}"
            f" ({counted(self.num_with_blanks, 'row')})."
        )
        has = "has" if self.num_emptied == 1 else "have"
        emptied = f"{self.num_emptied:,} of these rows then {has} no label."
        return [left_out] * bool(self.num_with_blanks) + [emptied] * bool(self.num_emptied)

    def _warning_of_lists(self, column: str) -> str:
        """Return a warning if single labels look like lists."""
        if not self.num_like_lists:
            return ""
        return (
            f"{column}: {self.num_like_lists:,} of {self.num_texts:,} labels look like lists, such"
            f" as {brief(self.like_list)}, but each is read as one label. If a row may have several"
            " labels, write all labels as lists, such as ['a', 'b']."
        )

    def _refuse_numbers(self, column: str) -> None:
        """Raise DataError for probabilities and counts."""
        if self.fraction:
            raise DataError(
                f"{column} holds lists with {self.fraction}; needed: label names, whole numbers, or"
                " vectors of 0 and 1. Set each value to 0 or 1, such as by a threshold of 0.5."
            )
        if self.counts and self.is_whole and len(self.lengths) == 1:
            raise DataError(
                f"{column} holds lists of one length with counts, such as {brief(self.counts)};"
                " needed: vectors of 0 and 1, or lists that name each label once. Set counts above"
                " 1 to 1, or remove the repeated values."
            )

    def _refuse_odd(self, column: str, is_written: bool, files: list[list[str]]) -> None:
        """Raise DataError for a value that is not a list among lists."""
        where, place, text = self.odd or ("", 0, "")
        if not is_written:
            raise DataError(
                f"{where}: {column} holds lists in some rows and single labels in others; needed:"
                " one kind. Fix the files."
            )
        raise DataError(
            f"{Places(np.array([place]), files).where(0)}: label '{brief(text)}' is not a list, but"
            f" {self.num_written:,} of {self.num_texts:,} labels are lists written as text, such as"
            f" {brief(self.example)}. Write it as a list."
        )

    def _are_vectors(self, data: "DataSection", column: str) -> bool:
        """Return whether the lists are multi-hot: all of one length, with 0 and 1 only.

        Lists of the label ids 0 and 1 look alike. Ids are whole and never repeat, and if they gave
        every row the same two labels, the lists are vectors too.
        """
        if self.is_binary and self.has_repeats and len(self.lengths) > 1:
            sizes = " and ".join(map(str, sorted(self.lengths)))
            raise DataError(
                f"{column} holds vectors of 0 and 1 of several lengths, such as {sizes}; needed:"
                " one value for each label. Fix the column."
            )
        are_no_ids = self.has_repeats or self.is_typed or not self.num_with_blanks
        has_one_size = len(self.lengths) == 1 and min(self.lengths) >= 2
        are_vectors = self.is_binary and has_one_size and (are_no_ids or bool(data.label_names))
        if data.label_names and not are_vectors:
            raise DataError(
                f"data.label_names is set, but the lists of {column} are not vectors of 0 and 1 of"
                " one length. Remove data.label_names."
            )
        return are_vectors

    def _vectors(self, data: "DataSection", column: str) -> LabelFormat:
        (size,) = self.lengths
        names = data.label_names or [f"label_{place}" for place in range(size)]
        if len(names) != size:
            raise DataError(
                f"data.label_names has {len(names)} names, but the multi-hot vectors of {column}"
                f" have {size} values. Give {size} names."
            )
        unused = listing(names[place] for place in range(size) if place not in self.ones)
        words = f"Labels: {column} holds multi-hot vectors of {size} labels"
        words += f"; no row has {unused}." if unused else "."
        span = " and ".join(names) if size == 2 else f"{names[0]} to {names[-1]}"
        warning = ""
        if not data.label_names:
            warning = (
                f"{column}: the {size} labels of the multi-hot vectors have no names and are called"
                f" {span}. Set data.label_names."
            )
        return LabelFormat("vector", names, None, True, words, warning)


def setting_for_lists(data: "DataSection") -> str:
    """Return the setting that lists of labels need, or '' if the config allows lists."""
    if data.streaming:
        return "streaming: false"
    if data.label_separator:
        return "label_separator: null"
    return "labels_per_row: wide" if data.labels_per_row == "long" else ""
