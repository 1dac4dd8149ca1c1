"""The `data:` and `split:` sections: which rows are read, and how they are cleaned and split."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from trainer.config.sections.labels import LabelList, LabelMap
from trainer.config.sections.section import Section, refuse


class CleanSection(Section):
    """The cleaning rules. Each can be switched off."""

    strip: bool = True
    """Remove white space at the start and end of texts and labels."""
    empty: bool = True
    """Drop rows whose text is empty or a written missing value (nan, NaN, None, null, NULL)."""
    duplicates: bool = True
    """If a text occurs several times with the same label, keep it once."""
    conflicts: bool = True
    """If a text occurs with several labels, keep the label of the majority. `data.weight_column`
    decides ties; without it, all rows of the text are dropped."""
    leakage: bool = True
    """With given files: drop training rows whose text is also in validation or test, and validation
    rows whose text is also in test."""
    evaluation: bool = False
    """Apply `duplicates` and `conflicts` to given validation and test files too. By default, only
    rows without a text or a label are removed from these files, so that scores can be compared with
    published ones."""


Location = str | list[str]


def _one_character(text: str) -> str:
    if len(text) != 1 or not text.isascii():
        raise ValueError(
            f'is {text!r}; needed: one ASCII character, such as ";" or "|"; a tab is written "\\t",'
            " in double quotes"
        )
    return text


OneCharacter = Annotated[str, AfterValidator(_one_character)]


class DataSection(Section):
    """Which rows are read, and how their columns are named. Set either `source` or `train`."""

    source: Location | None = None
    """All rows, which are then split: a file, a glob, a list of them, a saved `datasets` folder, a
    Hub id, or `package:<distribution>/<path>`."""
    train: Location | None = None
    """Training rows, if the data are already split; the same kinds of places as `source`."""
    validation: Location | None = None
    """Validation rows. By default, `split` takes them from `train`."""
    test: Location | None = None
    """Test rows."""
    text_column: str | Annotated[list[str], Field(min_length=1)] = "text"
    """Column of the text. A list of two columns is a text pair, such as [prompt, completion]. In a
    longer list, the second and all later columns are joined by line breaks."""
    label_column: str = "label"
    """Column of the label: text, whole numbers or ClassLabel. A column of lists makes the data
    multi-label, also if the lists are written as text, such as `['toxic', 'insult']`. An empty list
    is a row without a label. Lists of 0 and 1 with equal lengths are multi-hot vectors."""
    label_columns: Annotated[list[str], Field(min_length=2)] | None = None
    """Multi-label data with one column per label, which contains 0 and 1 or true and false. Set it
    instead of `label_column`."""
    group_column: str | None = None
    """Column of groups, such as authors. All rows of a group go to the same split."""
    weight_column: str | None = None
    """Column with the confidence of each row. It only decides ties between conflicting labels."""
    label_names: list[str] | None = None
    """Names of the labels of multi-hot vectors such as [0, 1, 0], in their order. Default:
    `label_0`, `label_1` and so on."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """Text between the labels in one cell, such as ";" in `toxic;insult`. It makes the data
    multi-label. White space around labels is removed; an empty cell is a row without a label."""
    labels_per_row: Literal["wide", "long"] = "wide"
    """`wide`: a row contains all labels of its text. `long`: a row contains one label, and a text
    with several labels has several rows. These are joined, which makes the data multi-label. A row
    with an empty label cell is left out, as in `wide`."""
    label_map: LabelMap = Field(default_factory=dict)
    """New names of labels: {hatespeech: hate, "3": positive}. Several labels can get the same name.
    `null` drops the label: with one label per row also its rows, with several only the label."""
    drop_labels: LabelList = Field(default_factory=list)
    """Labels whose rows are left out. In multi-label data, these are all rows that have one of the
    labels. Applied after `label_map`."""
    split_column: str | None = None
    """Column of `source` with the split of each row: train (training), validation (valid, val, dev,
    development) or test (testing), in upper or lower case. Other and missing values are refused. It
    replaces `split`; if no row is for validation, 20 % of train are used."""
    limit: int | None = Field(default=None, ge=2)
    """For trials: use only this many rows of `source` or `train`, a stratified, seeded sample."""
    streaming: bool = False
    """For data that fit neither into memory nor on the local disk: read all files twice, and keep
    only the rows that are chosen for training and evaluation.

    Rows are split by the hash of their text. With `balance.method: undersample`, exactly the rows
    that it draws are kept."""
    streaming_rows: int = Field(default=1_000_000, ge=2)
    """With `streaming`: maximum number of training rows. With `balance.method: none`, they have the
    natural class shares; with other methods, rows of the largest classes are removed first."""
    streaming_evaluation_rows: int = Field(default=50_000, ge=2)
    """With `streaming`: maximum number of rows of validation, and of test, in natural shares."""
    encoding: str = "utf-8"
    """Text encoding of CSV, TSV and JSON files, also of compressed ones (.gz, .xz, .zst, .zip)."""
    separator: OneCharacter | None = None
    """Separator of CSV files, one ASCII character. Default: a comma; a tab for .tsv and .tab."""
    quote_char: OneCharacter | Literal[""] = '"'
    """Quote character of CSV files, one ASCII character. If empty, quotes are part of the text."""
    escape_char: OneCharacter | None = None
    """Character before a quote inside a quoted cell of CSV files, usually a backslash. It is
    removed before a quote or before itself; elsewhere it is part of the text, as in `C:\\new`. By
    default, quotes inside a quoted cell are doubled."""
    multiline_cells: bool = False
    """Accept quoted cells of CSV files whose lines look like rows. By default, they are refused,
    because a missing closing quote causes them."""
    skip_initial_space: bool = False
    """Ignore spaces after the separator of CSV files, as in `neutral, "a text, quoted"`."""
    sheet: str | None = None
    """Sheet of an .xlsx file. By default, the first one is read, with a message. Reading .xlsx
    files needs the extra `xlsx`."""
    column_names: list[str] | None = None
    """Column names of CSV and .xlsx files without a header."""
    skip_lines: int = Field(default=0, ge=0)
    """Number of lines to skip above the header of CSV files."""
    skip_lines_after_header: int = Field(default=0, ge=0)
    """Number of lines to skip below the header of CSV files (Orange files have 2)."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """If a row cannot be read: `error` stops, `skip` drops it and lists it in dropped.jsonl."""
    subset: str | None = None
    """Configuration name of a Hub data set."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""
    split_names: dict[Literal["source", "train", "validation", "test"], str] = Field(
        default_factory=dict
    )
    """Which split of a Hub or saved data set each of these keys reads. Default: the split of the
    same name, and `train` for `source`."""
    clean: CleanSection = CleanSection()
    """The cleaning rules."""

    @model_validator(mode="after")
    def _check(self) -> "DataSection":
        refuse(
            (
                (self.source is None) == (self.train is None),
                "needs either source: (one file, split here) or train: (given files), not both or"
                " neither",
            ),
            (
                self.source is not None and (self.validation is not None or self.test is not None),
                "has source: together with validation: or test:; given files start with train:",
            ),
            (
                self.label_columns and self.label_column != "label",
                "has both label_column and label_columns; needed: one of them",
            ),
            (_has_repeats(self.label_columns), "label_columns names a column twice"),
        )
        self._check_csv()
        self._check_split_column()
        self._check_several_labels()
        refuse(
            (
                self.streaming and self.limit,
                "limit is set with streaming: true; needed: streaming_rows and"
                " streaming_evaluation_rows instead",
            ),
            (
                self.streaming and self.group_column,
                "group_column is set with streaming: true, which splits by text alone; remove"
                " group_column, or set streaming: false",
            ),
        )
        for label_column in self.label_columns or [self.label_column]:
            if label_column in self.text_columns:
                key = "label_columns" if self.label_columns else "label_column"
                raise ValueError(
                    f"{key} and text_column are both '{label_column}'; the label would be its own"
                    " text"
                )
        return self

    def _check_csv(self) -> None:
        marks = [mark for mark in (self.separator, self.quote_char, self.escape_char) if mark]
        refuse(
            (
                _has_repeats(marks) or {"\n", "\r"} & set(marks),
                "separator, quote_char and escape_char must be three different characters, none of"
                " them a line end",
            ),
            (
                self.escape_char and not self.quote_char,
                "escape_char is set with quote_char: ''; there is no quote to escape; needed: one"
                " of them",
            ),
            (
                self.skip_initial_space and self.separator == " ",
                "skip_initial_space is set with separator: ' '; the spaces behind a space would be"
                " lost; needed: one of them",
            ),
        )

    def _check_split_column(self) -> None:
        refuse(
            (
                self.split_column and self.source is None,
                "split_column is set with train:, whose files are splits already; give source:"
                " instead, or remove split_column",
            ),
            (
                self.streaming and self.split_column,
                "split_column is set with streaming: true, which splits by text alone; give train:"
                " and test: files, or set streaming: false",
            ),
        )

    def _check_several_labels(self) -> None:
        """Raise ValueError if labels per row are described in two ways, or with streaming."""
        ways = {
            "label_columns": self.label_columns,
            "label_names": self.label_names,
            "label_separator": self.label_separator,
            "labels_per_row: long": self.labels_per_row == "long",
        }
        given = [way for way, is_given in ways.items() if is_given]
        key = "".join(given[:1]).split(":")[0]
        refuse(
            (
                len(given) > 1,
                f"has both {' and '.join(given[:2])}, which are two ways to write several labels;"
                " needed: one of them",
            ),
            (
                self.streaming and given,
                f"{key} is set with streaming: true, which needs one label a row; remove {key}, or"
                " set streaming: false",
            ),
            (
                _has_repeats(self.label_names),
                "label_names holds a name twice; needed: one name for each value of the vectors",
            ),
        )

    @property
    def text_columns(self) -> list[str]:
        """The columns of `text_column`, as a list."""
        return [self.text_column] if isinstance(self.text_column, str) else self.text_column

    @property
    def pool(self) -> Literal["source", "train"]:
        """The rows that are split here: all of `source`, or those that are given as training rows
        by a file or by `split_column`.
        """
        return "source" if self.source is not None and self.split_column is None else "train"


def _has_repeats(names: list[str] | None) -> bool:
    return names is not None and len(set(names)) < len(names)


class SplitSection(Section):
    """Shares of the rows in each split. They add up to 1. By default, 80 % are for training
    and 20 % for validation, unless these rows are given as files.
    """

    train: float = Field(default=0.8, gt=0, lt=1)
    """Share of the rows to train on."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share of the rows that select the best epoch."""
    test: float | None = Field(default=None, gt=0, lt=1)
    """Share of the rows that are used only for the final evaluation. Default: no test split."""
    rare_classes: Literal["keep", "error", "drop"] = "keep"
    """What to do with a class that has fewer rows (or groups) than there are splits. `keep`: use
    its rows for training; the class is then not measured on the other splits. `error`: stop.
    `drop`: leave its rows out. Folds never drop a class: if it cannot be in every fold, it is only
    used for training."""
    by_time: str | None = None
    """Column of dates or numbers. The newest rows become test, and the next newest validation; the
    split is then not stratified by label. Dates are ISO 8601 (2024-05-01, 2024-05-01T12:00:00Z) or
    contain the name of the month; times without a time zone count as UTC. Rows that stay together
    (equal texts, groups) count as old as the newest of them."""
    primary_label: bool = False
    """With multi-label data: stratify by the first label of each row, instead of by all labels
    (iterative stratification)."""

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of train, validation and test."""
        return self.train, self.validation, self.test or 0.0

    @model_validator(mode="after")
    def _check(self) -> "SplitSection":
        total = sum(self.shares)
        refuse(
            (abs(total - 1) > 1e-6, f"shares add up to {total:.6g}; they must add up to 1"),
            (
                self.by_time and self.primary_label,
                "by_time is set with primary_label, which stratifies by label; remove one of them",
            ),
        )
        return self
