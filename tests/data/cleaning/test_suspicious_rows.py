"""Rows that were probably read in another way than their owner means."""

import json
import warnings
from pathlib import Path

import pytest

from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection
from trainer.data.prepare import read_splits


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
    assert (
        warning
        == "data.label_columns: no row has c, so the model will not know it. Add rows, or remove the column."
    )
