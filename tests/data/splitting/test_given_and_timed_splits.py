"""Splits that the data say themselves: `data.split_column` and `split.by_time`."""

import json
import re
import warnings
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.config.config import Config
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.prepare import read_splits
from trainer.data.split_rows import Fold
from trainer.errors import DataError

POOL = {"method": "undersample", "scope": "all"}
BY_TIME = SplitSection(train=0.6, validation=0.2, test=0.2, by_time="when")


@pytest.fixture
def splits_of(tmp_path):
    """Function (rows or a file, split, ...) -> {split: texts}, and what else is known of the
    splits."""

    def read(rows, split=None, *, fold=None, seed=0, **data):
        path = tmp_path / "rows.jsonl"
        if isinstance(rows, list):
            path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
        data = {"source": str(path if isinstance(rows, list) else rows)} | data
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            clean, splits = read_splits(
                DataSection(**data),
                split,
                BalanceSection(),
                seed=seed,
                cache_dir=tmp_path / "cache",
                fold=fold,
            )
        found = {
            name: clean.rows.table["text"].take(ids).to_pylist()
            for name, ids in splits.named.items()
        }
        return found | {
            "ranges": splits.time_ranges,
            "counts": clean.counts,
            "warnings": [str(w.message) for w in caught],
            "labels": clean.labels.names,
        }

    return read


def rows_of(*parts):
    """(value of the split column, label, how many) -> rows."""
    return [
        {"text": f"{part} {label} {i}", "label": label, "part": part}
        for part, label, count in parts
        for i in range(count)
    ]


# data.split_column


def test_a_column_says_where_rows_belong_in_all_its_spellings(splits_of):
    spelt = (
        ["train"] * 4
        + [" Training "] * 3
        + ["VAL", "valid", "dev", "Validation\u200b", "development"]
        + ["test", "Testing"]
    )
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "part": part} for i, part in enumerate(spelt)]
    found = splits_of(rows, split_column="part")
    assert [numbers(found[name]) for name in ("train", "validation", "test")] == [
        list(range(7)),
        list(range(7, 12)),
        [12, 13],
    ]


def test_without_validation_rows_a_fifth_of_train_validates(splits_of):
    found = splits_of(
        rows_of(("train", "a", 50), ("train", "b", 50), ("test", "a", 5)), split_column="part"
    )
    assert [len(found[name]) for name in ("train", "validation", "test")] == [80, 20, 5]
    folds = [
        splits_of(
            rows_of(("train", "a", 50), ("train", "b", 50), ("test", "a", 5)),
            split_column="part",
            fold=Fold(n, 4),
        )
        for n in range(4)
    ]
    assert sorted(text for fold in folds for text in fold["validation"]) == sorted(
        found["train"] + found["validation"]
    )
    assert [fold["test"] for fold in folds] == [found["test"]] * 4


def test_folds_and_validation_rows_exclude_each_other(splits_of):
    with pytest.raises(
        DataError, match=r"^data.part holds validation rows, but folds cut validation themselves."
    ):
        splits_of(
            rows_of(("train", "a", 9), ("train", "b", 9), ("dev", "a", 5)),
            split_column="part",
            fold=Fold(0, 3),
        )


def test_values_that_name_no_split_are_refused_with_their_rows(splits_of):
    empty = [{"text": "x", "label": "a", "part": None}, {"text": "y", "label": "a", "part": " "}]
    rows = [*rows_of(("train", "a", 4), ("holdout", "b", 3), ("test", "a", 1)), *empty]
    with pytest.raises(DataError) as raised:
        splits_of(rows, split_column="part")
    words = (
        "rows.jsonl:5: data.split_column: column 'part' holds 'holdout' (3 rows), no value (2 "
        "rows), which name no split."
    )
    known = (
        "Known, in any case: train, training, validation, valid, val, dev, development, test, "
        "testing."
    )
    assert str(raised.value).split("/")[-1] == f"{words} {known} Rename or remove these rows."


def test_many_unknown_values_make_a_short_message(splits_of):
    rows = [{"text": f"t{i}", "label": "a", "part": f"{i} " * 200} for i in range(300)]
    with pytest.raises(DataError) as raised:
        splits_of(rows, split_column="part")
    assert len(str(raised.value)) <= 600


def test_a_column_without_training_rows_is_refused(splits_of):
    with pytest.raises(
        DataError,
        match=(
            r"^data.split_column: no row of column 'part' is for training; found: test, "
            r"validation."
        ),
    ):
        splits_of(rows_of(("val", "a", 4), ("test", "b", 3)), split_column="part")


def test_texts_shared_with_test_leave_training_and_unseen_labels_are_refused(splits_of):
    rows = [
        *rows_of(("train", "a", 5), ("train", "b", 5), ("dev", "a", 2), ("test", "b", 2)),
        {"text": "train a 0", "label": "a", "part": "test"},
    ]
    found = splits_of(rows, split_column="part")
    assert (
        "train a 0" in found["train"],
        "train a 0" in found["test"],
        found["counts"]["text also in validation or test"],
    ) == (False, True, 1)
    with pytest.raises(
        DataError,
        match=r"^data.split_column \(test\): no row is left of 1 after cleaning: 1 empty text.",
    ):
        splits_of([*rows[:-3], {"text": "", "label": "a", "part": "test"}], split_column="part")
    with pytest.raises(
        DataError,
        match=(
            r"^data.split_column \(test\): holds c, which the training rows lack; labels of "
            r"train: a, b."
        ),
    ):
        splits_of([*rows, {"text": "new", "label": "c", "part": "test"}], split_column="part")


def test_groups_of_the_column_may_not_be_in_two_splits(splits_of):
    rows = [
        row | {"author": i % 3}
        for i, row in enumerate(rows_of(("train", "a", 5), ("train", "b", 5), ("test", "b", 2)))
    ]
    with pytest.raises(DataError, match="is in train and in"):
        splits_of(rows, split_column="part", group_column="author")


def test_the_column_is_read_alike_from_csv_and_parquet(splits_of, tmp_path):
    rows = rows_of(("train", "a", 4), ("train", "b", 4), ("dev", "a", 2), ("test", "b", 2))
    (tmp_path / "rows.csv").write_text(
        "\n".join(
            ["text,label,part", *(f"{r['text']},{r['label']},{r['part']}" for r in rows), ""]
        ),
        encoding="utf-8",
    )
    table = pa.Table.from_pylist(rows)
    pq.write_table(
        table.set_column(2, "part", table["part"].dictionary_encode()), tmp_path / "rows.parquet"
    )
    copies = [
        splits_of(source, split_column="part")
        for source in (rows, tmp_path / "rows.csv", tmp_path / "rows.parquet")
    ]
    assert copies[0] == copies[1] == copies[2]


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        (
            {
                "data": {"source": "a", "split_column": "part"},
                "split": {"train": 0.7, "validation": 0.3},
            },
            "split is set with data.split_column",
        ),
        (
            {"data": {"source": "a", "split_column": "part"}, "split": {"by_time": "when"}},
            "split is set with data.split_column",
        ),
        ({"data": {"train": "a", "split_column": "part"}}, "split_column is set with train:"),
        (
            {"data": {"source": "a", "split_column": "part", "streaming": True}},
            "split_column is set with streaming: true",
        ),
        (
            {"data": {"source": "a", "split_column": "part"}, "balance": POOL},
            "balance.scope is 'all' with data.split_column",
        ),
        (
            {
                "data": {"source": "a"},
                "split": {"by_time": "when"},
                "ensemble": {"size": 3, "kind": "folds"},
            },
            "split.by_time is set with ensemble.kind: folds",
        ),
        (
            {"data": {"source": "a", "streaming": True}, "split": {"by_time": "when"}},
            "split.by_time is set with data.streaming",
        ),
        (
            {"data": {"source": "a"}, "split": {"by_time": "when"}, "balance": POOL},
            "split.by_time is set with balance.scope: all",
        ),
        (
            {"data": {"source": "a"}, "split": {"by_time": "when", "primary_label": True}},
            "by_time is set with primary_label",
        ),
    ],
)
def test_keys_that_exclude_each_other_are_refused_by_name(sections, words):
    with pytest.raises(ValueError, match=words):
        Config.model_validate({"model": {"name": "m"}} | sections)


def test_rare_classes_may_be_set_beside_a_split_column():
    sections = {
        "model": {"name": "m"},
        "data": {"source": "a", "split_column": "part"},
        "split": {"rare_classes": "error"},
    }
    assert (
        Config.model_validate(Config.model_validate(sections).to_dict()).split.rare_classes
        == "error"
    )


# split.by_time


def timed(times, labels="ab"):
    return [
        {"text": f"t{i}", "label": labels[i % len(labels)], "when": when}
        for i, when in enumerate(times)
    ]


def numbers(texts):
    return sorted(int(text[1:]) for text in texts)


def test_the_newest_rows_test_the_next_validate_whatever_the_order(splits_of):
    days = [f"2024-01-{day:02d}" for day in range(1, 21)]
    rows = timed(days)
    for order in (range(20), range(19, -1, -1), np.random.default_rng(0).permutation(20)):
        found = splits_of([rows[i] for i in order], BY_TIME)
        assert [numbers(found[name]) for name in ("train", "validation", "test")] == [
            list(range(12)),
            [12, 13, 14, 15],
            [16, 17, 18, 19],
        ]
        assert found["ranges"] == {
            "train": (days[0], days[11]),
            "validation": (days[12], days[15]),
            "test": (days[16], days[19]),
        }


def test_without_test_the_newest_rows_validate(splits_of):
    found = splits_of(timed(range(10)), SplitSection(by_time="when"))
    assert (numbers(found["train"]), numbers(found["validation"]), "test" in found) == (
        list(range(8)),
        [8, 9],
        False,
    )


@pytest.mark.parametrize(
    "times",
    [
        [1, 2, 3, 10, 20, 30, 100, 200, 300, 1000],
        [0.5, 0.75, 1, 1.5, 2, 10, 11.5, 12, 100, 1e3],
        [f"2024-05-01T{hour:02d}:00:00Z" for hour in range(10)],
        [
            "2024-05-01T12:00:00+09:00",
            "2024-05-01T04:00:00Z",
            *(f"2024-05-0{day}" for day in range(2, 10)),
        ],
        [f"{day}.05.2024" for day in range(8, 18)],
        [f"May {day}, 2024" for day in range(8, 18)],
        [f"Wed, {day:02d} May 2024 10:00:00 +0000" for day in range(8, 18)],
        [f"Wed May {day:02d} 10:00:00 +0000 2024" for day in range(8, 18)],
        [f"2024/05/{day:02d} 10:00" for day in range(8, 18)],
    ],
)
def test_numbers_and_common_dates_are_read(splits_of, times):
    found = splits_of(timed(times), BY_TIME)
    assert [numbers(found[name]) for name in ("train", "validation", "test")] == [
        list(range(6)),
        [6, 7],
        [8, 9],
    ]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([datetime(2024, 5, 1, hour, tzinfo=UTC) for hour in range(10)]),
        pa.array([datetime(2024, 5, 1, hour) for hour in range(10)], pa.timestamp("ns")),
        pa.array([date(2024, 5, day) for day in range(1, 11)]),
        pa.array(range(10), pa.int64()),
    ],
)
def test_times_of_parquet_files_are_read(splits_of, tmp_path, column):
    table = pa.table(
        {"text": [f"t{i}" for i in range(10)], "label": list("ab" * 5), "when": column}
    )
    pq.write_table(table, tmp_path / "rows.parquet")
    found = splits_of(tmp_path / "rows.parquet", BY_TIME)
    assert [numbers(found[name]) for name in ("train", "validation", "test")] == [
        list(range(6)),
        [6, 7],
        [8, 9],
    ]


def test_rows_of_equal_time_are_divided_by_their_texts_and_not_by_their_order(splits_of):
    rows = timed(["2023"] * 10 + ["2024"] * 10)
    first, again = (
        splits_of(part, SplitSection(by_time="when", train=0.75, validation=0.25))
        for part in (rows, rows[::-1])
    )
    assert numbers(first["validation"]) == numbers(again["validation"])
    assert len(first["validation"]) == 5
    assert set(numbers(first["validation"])) < set(range(10, 20))


def test_a_group_is_as_old_as_its_newest_row_and_is_in_one_split(splits_of):
    rows = [row | {"author": f"g{i}"} for i, row in enumerate(timed(range(20)))]
    rows[0]["author"] = rows[19]["author"]
    found = splits_of(rows, BY_TIME, group_column="author")
    assert {"t0", "t19"} <= set(found["test"])
    assert [len(found[name]) for name in ("train", "validation", "test")] == [12, 4, 4]


@pytest.mark.parametrize(
    ("value", "others", "words"),
    [
        (
            "yesterday",
            "2024-05-01",
            "column 'when' holds 'yesterday' (1 row in all); needed: a date such as",
        ),
        (
            "01/02/2024",
            "2024-05-01",
            "column 'when' holds '01/02/2024' (1 row in all); needed: a date such as",
        ),
        (None, "2024-05-01", "column 'when' has no value (1 row in all); needed: a date such as"),
        (
            "soon",
            17,
            "column 'when' holds 'soon' (1 row in all); needed: a number, as most rows have",
        ),
    ],
)
def test_a_time_that_cannot_be_read_is_named_with_its_row(splits_of, value, others, words):
    rows = timed([str(others)] * 10)
    rows[3]["when"] = value
    with pytest.raises(DataError) as raised:
        splits_of(rows, BY_TIME)
    assert re.search(rf"rows\.jsonl:4: split\.by_time: {re.escape(words)}", str(raised.value))


def test_times_without_a_zone_beside_others_are_warned_of(splits_of):
    found = splits_of(
        timed(["2024-05-01T10:00:00Z", *(f"2024-05-{day:02d}" for day in range(2, 21))]), BY_TIME
    )
    assert (
        "split.by_time: some times of column 'when' have no zone; they count as UTC."
        in found["warnings"]
    )


def test_a_class_that_training_lacks_is_refused_or_dropped_and_one_that_test_lacks_warned_of(
    splits_of,
):
    rows = timed(range(40))
    for i in (35, 37):
        rows[i]["label"] = "new"
    with pytest.raises(
        DataError,
        match=(
            r"^split.by_time: train has no row of new, whose rows are all of another time. "
            r"Set split.rare_classes: drop"
        ),
    ):
        splits_of(rows, BY_TIME)
    found = splits_of(rows, BY_TIME.model_copy(update={"rare_classes": "drop"}))
    assert (
        found["labels"],
        found["counts"]["class too rare to split"],
        numbers(found["test"]),
    ) == (["a", "b"], 2, [32, 33, 34, 36, 38, 39])
    rows = timed(range(20))
    for i in range(3):
        rows[i]["label"] = "old"
    found = splits_of(rows, BY_TIME)
    assert "no row of 'old' (3 rows in all) in validation and test" in found["warnings"][0]
    with pytest.raises(DataError, match=r"^split.by_time: validation has no row of old"):
        splits_of(rows, BY_TIME.model_copy(update={"rare_classes": "error"}))


@pytest.mark.parametrize("per_row", ["wide", "long"])
def test_of_copies_the_newest_stays_so_that_no_order_changes_a_split(splits_of, per_row):
    rows = timed(range(1000, 1200))
    copies = [
        rows[i] | {"when": when}
        for i, when in zip(range(40), [*range(2000, 2020), *range(300, 320)], strict=True)
    ]
    newer = {f"t{i}" for i in range(20)}
    for order in (rows + copies, copies + rows, [*copies[::-1], *rows[::-1]]):
        found = splits_of(order, BY_TIME, labels_per_row=per_row)
        assert (numbers(found["test"])[:20], len(found["test"])) == (list(range(20)), 40)
        assert newer | {f"t{i}" for i in range(180, 200)} == set(found["test"])
    dates = [
        row | {"when": f"{day}.05.2024"} for day, row in zip(range(9, 29), rows, strict=False)
    ]  # as text, 9 is after 29
    found = splits_of([*dates, dates[0] | {"when": "30.05.2024"}], BY_TIME, labels_per_row=per_row)
    assert "t0" in found["test"]


def test_the_newest_copy_of_a_text_with_several_labels_stays_and_has_them_all(splits_of):
    rows = [
        *timed(range(20)),
        {"text": "t3", "label": "a", "when": 50},
        {"text": "t3", "label": "b", "when": 40},
    ]
    for order in (rows, rows[::-1]):
        found = splits_of(order, BY_TIME, labels_per_row="long")
        assert ("t3" in found["test"], found["ranges"]["test"][1]) == (True, "50")


def test_an_old_group_that_holds_nearly_all_rows_leaves_a_row_for_each_split(splits_of):
    rows = [
        row | {"author": "old" if i < 90 else f"g{i}"} for i, row in enumerate(timed(range(100)))
    ]
    found = splits_of(rows, BY_TIME, group_column="author")
    assert [len(found[name]) for name in ("train", "validation", "test")] == [90, 1, 9]
    rows = [
        row | {"author": "new" if i >= 10 else f"g{i}"} for i, row in enumerate(timed(range(100)))
    ]
    found = splits_of(rows, BY_TIME, group_column="author")
    assert [len(found[name]) for name in ("train", "validation", "test")] == [7, 3, 90]


def test_a_time_whose_rows_are_in_several_splits_is_named_with_their_numbers(splits_of):
    found = splits_of(
        timed(["2022"] * 10 + ["2024"] * 10),
        SplitSection(by_time="when", train=0.75, validation=0.25),
    )
    words = (
        "split.by_time: rows of one time are divided among splits at random: 2024 in train (5 "
        "rows) and validation (5 rows)."
    )
    assert (
        f"{words} Name a column of finer times in split.by_time, or choose shares that end "
        "between two times." in found["warnings"]
    )
    found = splits_of(timed(["2022"] * 2 + ["2024"] * 18), BY_TIME)
    assert any(
        "2024 in train (10 rows) and validation (4 rows) and test (4 rows)." in warning
        for warning in found["warnings"]
    )
    for days in (["2022"] * 12 + ["2023"] * 4 + ["2024"] * 4, range(20)):
        assert splits_of(timed(days), BY_TIME)["warnings"] == []


def test_rows_of_one_time_only_are_refused(splits_of):
    with pytest.raises(DataError) as raised:
        splits_of(timed(["2024-05-01"] * 20), BY_TIME)
    words = "split.by_time: all 20 rows have the same time in column 'when', 2024-05-01"
    assert (
        str(raised.value) == f"{words}. Name a column with the time of each row, or remove by_time."
    )


def test_the_times_of_a_given_test_file_are_not_read(splits_of, tmp_path):
    test = [{"text": f"given {i}", "label": "ab"[i % 2], "when": "once"} for i in range(4)]
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, test)) + "\n", encoding="utf-8")
    train = tmp_path / "train.jsonl"
    train.write_text("\n".join(map(json.dumps, timed(range(20)))) + "\n", encoding="utf-8")
    found = splits_of(
        [],
        SplitSection(by_time="when"),
        source=None,
        train=str(train),
        test=str(tmp_path / "test.jsonl"),
    )
    assert found["ranges"] == {"train": ("0", "15"), "validation": ("16", "19")}
