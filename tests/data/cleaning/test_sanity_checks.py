"""Data that were probably read in another way than their owner means are warned of."""

import json
import warnings
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection
from trainer.data.cleaning.sanity_checks import class_size_problems
from trainer.data.prepare import read_splits
from trainer.errors import bounded


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([100] * 1000, ""),
        ([100] * 1001, "there are 1,001 classes, such as c0000, c0001, c0002, c0003, c0004."),
        ([5] * 30, ""),
        ([4] * 16 + [500] * 14, "half of the 30 classes have at most 4 training rows, such as"),
        ([4] * 15 + [500] * 15, ""),  # the median is 252
        (
            [2] * 2000,
            (
                "there are 2,000 classes and half of the 2,000 classes have at most 2 "
                "training rows, such as"
            ),
        ),
        ([0] * 500 + [9] * 600, ""),  # classes that training lacks do not count
        (
            [3, 3],
            (
                "half of the 2 classes have at most 3 training rows, such as c0000, c0001. "
                "That is hardly enough to learn from."
            ),
        ),
        (
            [28, 1, 1],
            (
                "half of the 3 classes have at most 1 training row, such as c0001, c0002. "
                "That is hardly enough to learn from. Add rows, or merge"
            ),
        ),
        ([], ""),
    ],
)
def test_more_than_a_thousand_classes_and_a_median_under_five_rows_are_told(counts, words):
    found = class_size_problems(
        np.array(counts, np.int64), [f"c{n:04}" for n in range(len(counts))]
    )
    assert found.startswith(words)
    assert bool(found) == bool(words)
    if len(counts) >= 20 and words:
        assert found.endswith(
            "Check it, or merge classes with data.label_map, or leave rare ones out with "
            "data.drop_labels."
        )


@pytest.mark.parametrize("streaming", [False, True])
def test_a_column_of_ids_is_warned_of_by_name_and_shortly(tmp_path, streaming):
    number = 22_000 if streaming else 4_000
    labels = [f"id {n % 1100} " + "x" * 900 for n in range(number)]
    pq.write_table(
        pa.table({"text": [f"t {n}" for n in range(number)], "label": labels}),
        tmp_path / "rows.parquet",
    )
    data = DataSection(source=str(tmp_path / "rows.parquet"), streaming=streaming)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        read_splits(data, None, BalanceSection(), seed=1, cache_dir=tmp_path / "cache")
    (words,) = [str(warning.message) for warning in told if "label_column" in str(warning.message)]
    assert words.startswith("data.label_column 'label': there are 1,100 classes")
    assert "such as id 0 x" in words
    assert bounded(words) == words


@pytest.fixture
def warned(tmp_path, monkeypatch):
    """Function (rows, **data section) -> the warnings of reading and splitting them."""
    monkeypatch.chdir(tmp_path)

    def read(rows, **section):
        Path("rows.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            read_splits(
                DataSection(source="rows.jsonl", **section),
                None,
                BalanceSection(),
                seed=1,
                cache_dir=tmp_path / "cache",
            )
        return [
            str(warning.message)
            for warning in caught
            if "hardly enough" not in str(warning.message)
        ]

    return read


def labelled(*labels, start=0):
    return [
        {"text": f"text {number}", "label": label} for number, label in enumerate(labels, start)
    ]


def test_cleaning_that_drops_most_rows_is_warned_of_with_the_reasons(warned):
    rows = labelled(*"ab" * 10)
    dropped = labelled(*[None] * 15, start=100) + [{"text": "", "label": "a"}] * 6
    assert warned([*rows, *dropped[:20]]) == []
    (warning,) = warned([*rows, *dropped])
    assert warning.startswith(
        "cleaning keeps only 20 of 41 rows (15 missing label, 6 empty text). Look at dropped.jsonl"
    )


def test_label_that_every_row_has_is_warned_of(warned):
    (warning,) = warned(labelled(*[["a", "b"], ["a"], ["a", "c"], ["c", "a"], ["b", "a"]] * 5))
    assert warning.startswith("every row has the label a, so nothing can be learnt about it.")
    assert warned(labelled(*[["a", "b"], ["a"], ["c"]] * 5)) == []


def test_label_column_that_never_says_yes_is_warned_of(warned):
    rows = [
        {"text": f"text {n}", "a": n % 2, "b": 1 - n % 2, "c": 0, "d": int(n % 3 == 0)}
        for n in range(24)
    ]
    (warning,) = warned(rows, label_columns=["a", "b", "c", "d"], drop_labels=["d"])
    assert warning == (
        "data.label_columns: no row has c, so the model will not know it. Add rows, or "
        "remove the column."
    )
