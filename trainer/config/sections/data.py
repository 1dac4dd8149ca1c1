"""Where rows come from, how they are cleaned and split."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from trainer.config.sections.labels import LabelList, LabelMap
from trainer.config.sections.training import Section


class CleanSection(Section):
    """The cleaning rules; each can be switched off."""

    strip: bool = True
    """Cut white space around texts and labels."""
    empty: bool = True
    """Drop rows whose text is empty or a spelt-out missing value (nan, NaN, None, null, NULL)."""
    duplicates: bool = True
    """Keep a text that occurs several times with one label once."""
    conflicts: bool = True
    """Settle a text with several labels by majority vote; on a tie `data.weight_column` decides, else all are dropped."""
    leakage: bool = True
    """With given files: drop training rows whose text is also in validation or test (and validation rows also in test)."""
    evaluation: bool = False
    """Apply `duplicates` and `conflicts` to given validation and test files too. By default these files stay whole, so that
    scores can be compared with published ones; only rows without a text or a label are left out."""


Location = str | list[str]


def _one_character(text: str) -> str:
    if len(text) != 1 or not text.isascii():
        raise ValueError(
            f'is {text!r}; needed: one ASCII character, such as ";" or "|"; a tab is written "\\t", in double quotes'
        )
    return text


OneCharacter = Annotated[str, AfterValidator(_one_character)]


class DataSection(Section):
    """Where the rows come from and what their columns are called."""

    source: Location | None = None
    """One pool of rows to split: file, glob, list of them, saved `datasets` folder, Hub id, or `package:<distribution>/<path>`."""
    train: Location | None = None
    """Given training rows, instead of `source`."""
    validation: Location | None = None
    """Given validation rows; left out: cut from `train` by `split`."""
    test: Location | None = None
    """Given test rows."""
    text_column: str | Annotated[list[str], Field(min_length=1)] = "text"
    """Column of the text. A list of two is a text pair, e.g. [prompt, completion]; of a longer list the rest is joined by line breaks."""
    label_column: str = "label"
    """Column of the label: text, whole numbers or ClassLabel. A column of lists makes the data multi-label, and so do lists written
    as text, such as `['toxic', 'insult']`; an empty list is a row without a label. Lists of 0 and 1 of one length are multi-hot."""
    label_columns: Annotated[list[str], Field(min_length=2)] | None = None
    """Multi-label data with one column a label, of 0 and 1 or true and false, instead of `label_column`."""
    group_column: str | None = None
    """Rows of one group (author, document) never stand in two splits."""
    weight_column: str | None = None
    """Confidence of each row; only breaks ties between conflicting labels."""
    label_names: list[str] | None = None
    """Names of the labels of multi-hot vectors such as [0, 1, 0], in their order; left out: `label_0`, `label_1` ..."""
    label_separator: Annotated[str, Field(min_length=1)] | None = None
    """Text between the labels of one cell, such as ";" in `toxic;insult`; makes the data multi-label. White space around a label
    does not count, and an empty cell is a row without a label."""
    labels_per_row: Literal["wide", "long"] = "wide"
    """`wide`: a row holds all labels of its text. `long`: a row holds one label, and a text with several labels has several
    rows; they are joined, which makes the data multi-label. A row with an empty label cell is left out, as in `wide`."""
    label_map: LabelMap = Field(default_factory=dict)
    """New names of labels: {hatespeech: hate, "3": positive}. Several labels may get one name. `null` drops the label:
    its rows with one label a row, the label alone with several."""
    drop_labels: LabelList = Field(default_factory=list)
    """Labels whose rows are left out; of multi-label data every row that has one of them. Applied after `label_map`."""
    split_column: str | None = None
    """Column of `source` that says where a row belongs: train (training), validation (valid, val,
    dev, development) or test
    (testing), in any case. Other values, and missing ones, are refused. Replaces `split`; without
    validation rows 20 % of train validate."""
    limit: int | None = Field(default=None, ge=2)
    """Stratified, seeded sample of so many rows of `source` or `train`, for trials."""
    streaming: bool = False
    """Data that fit neither memory nor the local disk: all files are read twice, and only the rows chosen for training and evaluation are kept.

    Rows are split by the hash of their text; with `balance.method: undersample` exactly the rows that it draws are kept."""
    streaming_rows: int = Field(default=1_000_000, ge=2)
    """streaming: most training rows kept. With `balance.method: none` in natural shares; else rows of the largest classes go first."""
    streaming_evaluation_rows: int = Field(default=50_000, ge=2)
    """streaming: most rows kept of validation, and of test, in natural shares."""
    encoding: str = "utf-8"
    """Text encoding of CSV, TSV and JSON files, packed or not (.gz, .xz, .zst, .zip)."""
    separator: OneCharacter | None = None
    """Separator of CSV files, one ASCII character; left out: comma, or tab for .tsv and .tab."""
    quote_char: OneCharacter | Literal[""] = '"'
    """Quote character of CSV files, ASCII; empty: none, quotes are part of the text."""
    escape_char: OneCharacter | None = None
    """Character that stands before a quote inside a quoted cell of CSV files, usually a backslash; left out: quotes are doubled.
    Before a quote or itself it is left out of the text; before anything else it is text, as in `C:\\new`."""
    multiline_cells: bool = False
    """Accept quoted cells of CSV files whose lines look like rows. By default they are refused, since an open quote causes them."""
    skip_initial_space: bool = False
    """Ignore spaces behind the separator of CSV files, as in `neutral, "a text, quoted"`."""
    sheet: str | None = None
    """Sheet of an .xlsx file; left out: the first one, which is said. Reading .xlsx needs the extra `xlsx`."""
    column_names: list[str] | None = None
    """Column names of CSV and .xlsx files without a header line."""
    skip_lines: int = Field(default=0, ge=0)
    """Lines above the header of CSV files."""
    skip_lines_after_header: int = Field(default=0, ge=0)
    """Lines below the header that hold no rows (Orange files have 2)."""
    on_bad_rows: Literal["error", "skip"] = "error"
    """What to do with rows that cannot be read: stop, or leave them out and list them in dropped.jsonl."""
    subset: str | None = None
    """Configuration name of a Hub data set."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""
    split_names: dict[Literal["source", "train", "validation", "test"], str] = Field(
        default_factory=dict
    )
    """Split of a Hub or saved data set to read for each of the keys above; left out: their own name, `train` for source."""
    clean: CleanSection = CleanSection()
    """Cleaning rules."""

    @model_validator(mode="after")
    def _one_way_in(self) -> "DataSection":
        if (self.source is None) == (self.train is None):
            raise ValueError(
                "needs either source: (one file, split here) or train: (given files), not both or neither"
            )
        if self.source is not None and (self.validation is not None or self.test is not None):
            raise ValueError(
                "has source: together with validation: or test:; given files start with train:"
            )
        texts = self.text_columns
        if self.label_columns and self.label_column != "label":
            raise ValueError("has both label_column and label_columns; needed: one of them")
        if len(set(self.label_columns or [])) < len(self.label_columns or []):
            raise ValueError("label_columns names a column twice")
        marks = {
            name: getattr(self, name)
            for name in ("separator", "quote_char", "escape_char")
            if getattr(self, name)
        }
        if len(set(marks.values())) < len(marks) or {"\n", "\r"} & set(marks.values()):
            raise ValueError(
                "separator, quote_char and escape_char must be three different characters, none of them a line end"
            )
        if self.escape_char and not self.quote_char:
            raise ValueError(
                "escape_char is set with quote_char: ''; there is no quote to escape; needed: one of them"
            )
        if self.skip_initial_space and self.separator == " ":
            raise ValueError(
                "skip_initial_space is set with separator: ' '; the spaces behind a space would be lost; needed: one of them"
            )
        if self.split_column and self.source is None:
            raise ValueError(
                "split_column is set with train:, whose files are splits already; give source: instead, or remove split_column"
            )
        if self.streaming and self.split_column:
            raise ValueError(
                "split_column is set with streaming: true, which splits by text alone; give train: and test: files, or set streaming: false"
            )
        if self.streaming and self.limit:
            raise ValueError(
                "limit is set with streaming: true; needed: streaming_rows and streaming_evaluation_rows instead"
            )
        if self.streaming and self.group_column:
            raise ValueError(
                "group_column is set with streaming: true, which splits by text alone; remove group_column, or set streaming: false"
            )
        self._check_several()
        both = [column for column in self.label_columns or [self.label_column] if column in texts]
        if both:
            raise ValueError(
                f"label_column{'s' if self.label_columns else ''} and text_column are both '{both[0]}'; the label would be its own text"
            )
        return self

    def _check_several(self) -> None:
        """Raises ValueError for keys that describe the labels of a row in two ways, or with streaming."""
        ways = {
            "label_columns": bool(self.label_columns),
            "label_names": bool(self.label_names),
            "label_separator": bool(self.label_separator),
            "labels_per_row: long": self.labels_per_row == "long",
        }
        given = [key for key, is_given in ways.items() if is_given]
        if len(given) > 1:
            raise ValueError(
                f"has both {given[0]} and {given[1]}, which are two ways to write several labels; needed: one of them"
            )
        if self.streaming and given:
            key = given[0].split(":")[0]
            raise ValueError(
                f"{key} is set with streaming: true, which needs one label a row; remove {key}, or set streaming: false"
            )
        if len(set(self.label_names or [])) < len(self.label_names or []):
            raise ValueError(
                "label_names holds a name twice; needed: one name for each value of the vectors"
            )

    @property
    def text_columns(self) -> list[str]:
        """The columns of `text_column`, also where it names a single one."""
        return [self.text_column] if isinstance(self.text_column, str) else self.text_column

    @property
    def pool(self) -> Literal["source", "train"]:
        """Which rows are split here: all of `source`, or those given as training rows, by a file or
        by `split_column`.
        """
        return "source" if self.source is not None and self.split_column is None else "train"


class SplitSection(Section):
    """Shares of the rows; they add up to 1."""

    train: float = Field(default=0.8, gt=0, lt=1)
    """Share trained on."""
    validation: float = Field(default=0.2, gt=0, lt=1)
    """Share that selects the best epoch."""
    test: float | None = Field(default=None, gt=0, lt=1)
    """Share never seen before the final evaluation; left out: no test split."""
    rare_classes: Literal["keep", "error", "drop"] = "keep"
    """What to do with a class that has fewer rows (or groups) than there are splits. `keep`: its rows go to train, and the class
    cannot be measured on the other splits; `error`: stop; `drop`: leave its rows out. Folds drop no class: one that cannot
    stand in every fold only trains."""
    by_time: str | None = None
    """Column of dates or numbers: the newest rows become test, the next newest validation. No
    stratification by label then.
    Dates are ISO 8601 (2024-05-01, 2024-05-01T12:00:00Z) or written with the month's name; times
    without a zone count as UTC.
    Rows that stay together (equal texts, groups) count as old as the newest of them."""
    primary_label: bool = False
    """Multi-label data: stratify by the label that each row names first, instead of by all labels (iterative stratification)."""

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of train, validation and test."""
        return self.train, self.validation, self.test or 0.0

    @model_validator(mode="after")
    def _whole(self) -> "SplitSection":
        total = self.train + self.validation + (self.test or 0)
        if abs(total - 1) > 1e-6:
            raise ValueError(f"shares add up to {total:.6g}; they must add up to 1")
        if self.by_time and self.primary_label:
            raise ValueError(
                "by_time is set with primary_label, which stratifies by label; remove one of them"
            )
        return self
