import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preparing import prepare_data

from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.cleaning.clean import clean_rows
from trainer.data.cleaning.reasons import REASONS
from trainer.data.labels.multi_label import positive_weights
from trainer.data.reading.sources import check_source, read_rows
from trainer.data.split_files import export_splits
from trainer.errors import ConfigError, DataError

KEPT, _, UNLABELLED, UNWANTED, DUPLICATE, OUTVOTED, TIE, *_ = REASONS
ROWS = [("p", ["x", "y"]), ("q", ["y"]), ("r", []), ("s", ["z", "x", "z"])]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path / "rows")
    return tmp_path


@pytest.fixture
def read(folder):
    """Function (name, (text, labels) rows or content, **data section) -> Rows of the file."""

    def read(name, rows, **section):
        if isinstance(rows, str):
            Path(name).write_text(rows, encoding="utf-8")
        else:
            Path(name).write_text(
                "".join(
                    json.dumps({"text": text, "label": labels}) + "\n" for text, labels in rows
                ),
                encoding="utf-8",
            )
        return read_rows(DataSection(source=name, **section), folder / "cache")

    return read


@pytest.fixture
def clean(read):
    """Function (rows, drop_labels, **rules) -> CleanRows."""

    def clean(rows, drop_labels=(), label_map=None, **rules):
        data = DataSection(source="rows.jsonl", drop_labels=list(drop_labels), clean=rules)
        return clean_rows(read("rows.jsonl", rows), data.clean, data.drop_labels, label_map)

    return clean


@pytest.fixture
def prepare(read, folder):
    """Function (rows, split, method, weighting, **data section) -> PreparedData."""

    def prepare(rows, split=None, method="none", weighting="none", scope="train", **section):
        read("rows.jsonl", rows)
        data = DataSection(source="rows.jsonl", **section)
        shares = SplitSection(**split) if split else None
        return prepare_data(
            data,
            shares,
            BalanceSection(method=method, scope=scope),
            LossSection(class_weights=weighting),
            seed=1,
            cache_dir=folder / "cache",
        )

    return prepare


def labels_of(rows):
    return [text and json.loads(text) for text in rows.table["label"].to_pylist()]


def reasons(clean):
    return [REASONS[code] for code in clean.reasons_N]


def many(**counts):
    """Rows of a text of their own, by label sets such as a_b=3."""
    return [
        (f"{name} {n}", name.split("_") if name != "none" else [])
        for name, count in counts.items()
        for n in range(count)
    ]


def test_lists_make_the_rows_multi_label_in_the_order_given_each_label_once(read):
    rows = read("rows.jsonl", ROWS)
    assert rows.multi_label
    assert labels_of(rows) == [["x", "y"], ["y"], [], ["z", "x"]]
    assert not read("single.jsonl", [("p", "x"), ("q", "y")]).multi_label


def test_json_parquet_and_arrow_lists_are_read_alike(read, folder):
    table = pa.table({"text": [text for text, _ in ROWS], "label": [labels for _, labels in ROWS]})
    pq.write_table(table, "rows.parquet")
    with pa.ipc.new_file("rows.arrow", table.schema) as writer:
        writer.write_table(table)
    Path("rows.json").write_text(json.dumps(table.to_pylist()), encoding="utf-8")
    expected = labels_of(read("rows.jsonl", ROWS))
    for name in ("rows.parquet", "rows.arrow", "rows.json"):
        assert labels_of(read_rows(DataSection(source=name), folder / "cache")) == expected


def test_lists_of_numbers_and_of_class_labels_become_names(read, folder):
    from datasets import ClassLabel, Dataset, Features, List, Value

    assert labels_of(read("numbers.jsonl", [("p", [1, 2]), ("q", [10])])) == [["1", "2"], ["10"]]
    assert labels_of(read("mixed.jsonl", [("p", [1, "a"]), ("q", None), ("r", [None, "b"])])) == [
        ["1", "a"],
        None,
        ["b"],
    ]
    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["no", "yes"]))})
    Dataset.from_dict({"text": ["p", "q"], "label": [[1, 0], [1]]}, features=features).save_to_disk(
        "saved"
    )
    rows = read_rows(DataSection(source="saved"), folder / "cache")
    assert (labels_of(rows), rows.label_order) == ([["yes", "no"], ["yes"]], ["no", "yes"])


@pytest.mark.parametrize("cells", ["1,0\n0,true\nFalse,0\n", "1.0,0.0\n0.0,1.0\n0.0,0.0\n"])
def test_one_column_a_label_is_read_with_the_labels_in_the_order_of_the_key(read, cells):
    content = "text,b,a\n" + "".join(
        f"{text},{line}\n" for text, line in zip("pqr", cells.splitlines(), strict=True)
    )
    rows = read("rows.csv", content, label_columns=["b", "a"])
    assert labels_of(rows) == [["b"], ["a"], []]
    assert (rows.multi_label, rows.label_order) == (True, ["b", "a"])


def test_row_with_an_empty_label_cell_is_missing_its_labels(read):
    assert labels_of(read("rows.csv", "text,a,b\np,1,0\nq,,1\n", label_columns=["a", "b"])) == [
        ["a"],
        None,
    ]


@pytest.mark.parametrize("value", ["2", "yes", "0.5", "-1"])
def test_wrong_value_in_a_label_column_is_refused(read, value):
    with pytest.raises(DataError) as raised:
        read("rows.csv", f"text,a,b\np,1,0\nq,{value},1\n", label_columns=["a", "b"])
    assert str(raised.value) == (
        f"rows.csv:3: label column 'a' holds '{value}'; needed: 0, 1, true or false. Fix "
        "the column, or set data.label_columns."
    )


def test_lists_beside_single_labels_are_refused_within_a_file_and_between_files(read, folder):
    with pytest.raises(
        DataError,
        match=r"^rows.jsonl: 'label' holds a list in some rows and a single value in others; "
        r"needed: one kind. Fix the file.$",
    ):
        read("rows.jsonl", [("p", ["x"]), ("q", "y")])
    Path("a.jsonl").write_text('{"text": "p", "label": ["x"]}\n')
    Path("b.jsonl").write_text('{"text": "q", "label": "x"}\n')
    with pytest.raises(
        DataError,
        match=r"^data.source: column 'label' holds lists in some rows and single labels in "
        r"others; needed: one kind. Fix the files.$",
    ):
        read_rows(DataSection(source=["a.jsonl", "b.jsonl"]), folder / "cache")


def test_check_tells_multi_label_from_the_first_rows(read):
    read("rows.jsonl", ROWS)
    assert check_source(DataSection(source="rows.jsonl"))
    Path("single.csv").write_text("text,label\np,x\n")
    assert not check_source(DataSection(source="single.csv"))


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"label_columns": ["a", "b"], "label_column": "c"},
            "has both label_column and label_columns",
        ),
        ({"label_columns": ["a", "a"]}, "label_columns names a column twice"),
        ({"label_columns": ["a", "text"]}, "label_columns and text_column are both 'text'"),
    ],
)
def test_label_columns_that_contradict_are_refused(section, words):
    with pytest.raises(ValueError, match=words):
        DataSection(source="rows.csv", **section)


def test_row_without_a_label_is_kept_and_a_missing_list_is_not(clean):
    rows = clean([*ROWS, ("t", None)])
    assert reasons(rows) == [KEPT] * 4 + [UNLABELLED]
    assert rows.labels.names == ["x", "y", "z"]
    assert rows.label_matrix_NC.astype(int).tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [0, 0, 0],
        [1, 0, 1],
        [0, 0, 0],
    ]


def test_label_id_of_a_row_is_its_rarest_label_over_the_kept_rows(clean):
    rows = clean(
        [
            ("1", ["a", "b"]),
            ("2", ["a", "b"]),
            ("3", ["a", "c"]),
            ("4", ["a"]),
            ("5", []),
            ("6", None),
            ("7", ["b"]),
        ]
    )
    assert rows.label_ids_N.tolist() == [1, 1, 2, 0, 3, -1, 1]  # a 4 rows, b 3, c 1


def test_equal_sets_are_duplicates_and_unequal_sets_are_settled_by_majority(clean):
    vote = [
        ("p", ["x", "y"]),
        ("p", ["x"]),
        ("p", ["y", "x"]),
        ("q", ["x"]),
        ("q", ["y"]),
        ("r", ["x"]),
        ("s", ["y"]),
    ]
    assert reasons(clean(vote)) == [KEPT, OUTVOTED, DUPLICATE, TIE, TIE, KEPT, KEPT]


def test_dropped_labels_take_every_row_that_has_one_of_them(clean):
    rows = clean([*ROWS, ("t", ["x"])], drop_labels=["z"])
    assert reasons(rows) == [KEPT, KEPT, KEPT, UNWANTED, KEPT]
    assert rows.labels.names == ["x", "y"]
    with pytest.raises(
        DataError, match=r"^data.drop_labels names w; labels in the data: x, y, z.$"
    ):
        clean(ROWS, drop_labels=["w"])


def test_spellings_with_one_key_are_one_label_of_a_row(clean):
    rows = clean([("p", ["x", "x\u200b"]), ("q", ["1.0", "y"]), ("r", ["1"]), ("s", ["y"])])
    assert rows.labels.names == ["1", "x", "y"]
    assert rows.label_matrix_NC.tolist() == [
        [False, True, False],
        [True, False, True],
        [True, False, False],
        [False, False, True],
    ]


def test_map_renames_and_joins_labels_and_null_takes_a_label_from_its_rows(clean):
    rows = clean(
        [("p", ["hate", "slur"]), ("q", ["slur"]), ("r", ["spam", "ok"]), ("s", ["spam"])],
        label_map={"slur": "hate", "spam": None},
    )
    assert rows.labels.names == ["hate", "ok"]
    assert reasons(rows) == [KEPT] * 4
    assert rows.label_matrix_NC.tolist() == [
        [True, False],
        [True, False],
        [False, True],
        [False, False],
    ]


def test_label_that_stands_only_beside_a_dropped_one_is_named(clean):
    assert clean([("p", ["x", "z"]), ("q", ["w", "z"]), ("r", ["y"])], drop_labels=["x"]).lost == {}
    assert clean([("p", ["x", "z"]), ("q", ["w"]), ("r", ["y"])], drop_labels=["x"]).lost == {
        "z": {UNWANTED: 1}
    }


def test_fingerprint_changes_with_any_label(clean):
    first = clean([("p", ["x", "y"]), ("q", ["y"]), ("r", ["y"])]).fingerprint
    assert first == clean([("p", ["y", "x"]), ("q", ["y"]), ("r", ["y"])]).fingerprint
    assert first != clean([("p", ["x"]), ("q", ["y"]), ("r", ["y"])]).fingerprint


def test_counts_hold_a_row_once_for_each_of_its_labels_and_totals_hold_rows(prepare):
    data = prepare(many(a=10, a_b=10, none=10), {"train": 0.8, "validation": 0.2})
    assert data.summary.columns["train"].tolist() == [16, 8]
    assert data.summary.totals == {"train": 24, "seen per epoch": 24, "validation": 6}
    assert data.summary.minority_label == "b"
    assert (
        data.labels_per_row
        == "Multi-label: 1.00 labels a row; 33.3% of the rows have two or more, 33.3% have none."
    )


@pytest.mark.filterwarnings("ignore:balance")
def test_undersampling_cuts_labels_and_rows_without_one_to_the_smallest_label_and_says_so(prepare):
    data = prepare(
        many(a=40, a_b=10, b=20, none=20), {"train": 0.8, "validation": 0.2}, method="undersample"
    )
    drawn = data.splits.train[data.plan.positions()]
    assert data.summary.counts["train"].tolist() == [40, 24]
    assert data.summary.counts["drawn"].tolist() == [24, 24]
    assert (~data.clean.label_matrix_NC[drawn].any(axis=1)).sum() == 16  # fewer than 24: all
    assert data.summary.totals["seen per epoch"] == len(drawn)
    assert (
        data.balanced_sentence
        == "Balanced by label: an epoch sees 24 rows of every label, and 16 rows without one."
    )
    shared = prepare(
        many(a=10, a_b=20, a_c=10), {"train": 0.8, "validation": 0.2}, method="undersample"
    ).balanced_sentence
    assert shared == (
        "Balanced by label: an epoch sees 8 (b) to 16 (a) rows of a label. Labels that "
        "share rows cannot all have one count."
    )
    assert prepare(many(a=40, a_b=10), {"train": 0.8, "validation": 0.2}).balanced_sentence == ""


def test_label_that_is_no_rows_rarest_is_no_class_to_balance(prepare):
    data = prepare(many(a_b=10, a_c=20), {"train": 0.8, "validation": 0.2}, method="undersample")
    assert data.summary.counts["drawn"].tolist() == [16, 8, 8]


def test_balancing_the_pool_keeps_every_label_on_both_sides(prepare):
    data = prepare(
        many(a=40, a_b=10, c=20),
        {"train": 0.8, "validation": 0.2},
        method="undersample",
        scope="all",
    )
    assert list(data.summary.columns) == ["pool before balancing", "seen per epoch", "validation"]
    assert data.summary.natural_C.tolist() == [50, 10, 20]
    assert sum(len(ids) for ids in data.splits.named.values()) == 20  # a and b 10 times, c 10 times
    assert (data.summary.counts["validation"] > 0).all()


def test_limit_samples_by_the_rarest_label(prepare):
    data = prepare(many(a=60, a_b=30, none=10), {"train": 0.5, "validation": 0.5}, limit=20)
    rows = np.concatenate(list(data.splits.named.values()))
    assert np.bincount(data.clean.label_ids_N[rows]).tolist() == [12, 6, 2]


def test_primary_label_is_the_one_named_first(prepare):
    rows = [(f"{order} {n}", order.split()) for order in ("a b", "b a") for n in range(10)] + many(
        none=10
    )
    data = prepare(rows, {"train": 0.8, "validation": 0.2, "primary_label": True})
    first = [rows[row][1][:1] for row in data.splits.validation]
    assert [first.count(label) for label in (["a"], ["b"], [])] == [2, 2, 2]


@pytest.mark.parametrize("kind", [list, reversed])
def test_primary_label_of_copies_does_not_depend_on_the_order_of_the_rows(prepare, kind):
    copies = [(f"text {n}", labels) for n in range(40) for labels in (["a", "b"], ["b", "a"])]
    data = prepare(list(kind(copies)), {"train": 0.8, "validation": 0.2, "primary_label": True})
    kept = {
        copies[:: 1 if kind is list else -1][row][1][0]
        for ids in data.splits.named.values()
        for row in ids
    }
    assert kept == {"a"}


@pytest.mark.parametrize("grouped", [False, True])
def test_rows_without_a_label_that_are_too_few_for_every_side_are_no_class_that_could_be_dropped(
    folder, grouped
):
    rows = [*many(a=20, b=30), ("alone", []), ("beside", [])]
    lines = [
        json.dumps({"text": text, "label": labels, "group": "none" if not labels else text}) + "\n"
        for text, labels in rows
    ]
    Path("rows.jsonl").write_text(
        "".join(lines[: None if grouped else -1])
    )  # two rows of one group, or one row
    data = DataSection(source="rows.jsonl", group_column="group" if grouped else None)
    split = SplitSection(primary_label=True, rare_classes="error")
    found = prepare_data(
        data, split, BalanceSection(), LossSection(), seed=1, cache_dir=folder / "cache"
    )
    assert (found.summary.counts["train"] + found.summary.counts["validation"]).tolist() == [20, 30]
    assert sum(len(ids) for ids in found.splits.named.values()) == len(rows) - (not grouped)


def test_training_rows_without_a_label_of_the_given_rows_are_told(folder):
    for name, rows in {"train": many(a=4, b=4), "test": many(a=2, a_c=2)}.items():
        Path(f"{name}.jsonl").write_text(
            "".join(
                json.dumps({"text": name + text, "label": labels}) + "\n" for text, labels in rows
            )
        )
    data = DataSection(train="train.jsonl", test="test.jsonl")
    with pytest.raises(DataError, match=r"^data.test: holds c, which the training rows lack"):
        prepare_data(
            data, None, BalanceSection(), LossSection(), seed=1, cache_dir=folder / "cache"
        )


@pytest.mark.parametrize("primary_label", [False, True])  # a, named first, stands on both sides
def test_label_of_one_row_trains_or_is_told(prepare, primary_label):
    rows = [*many(a=60, a_b=30), ("both 4", ["a", "c"])]
    with pytest.warns(
        UserWarning,
        match=r"^split: no row of 'c' \(1 row in all\) in validation: such a class is trained, "
        r"but not measured",
    ):
        data = prepare(rows, {"train": 0.5, "validation": 0.5, "primary_label": primary_label})
    assert data.clean.label_matrix_NC[data.splits.train, data.labels.index("c")].sum() == 1
    words = {
        False: (
            r"^label 'c' has 1 row; 2 stratified splits need 2. Merge it by data.label_map, "
            r"list it in data.drop_labels, or set split.rare_classes: keep.$"
        ),
        True: (
            r"^the training rows contain no row of c. Add rows, or list them in "
            r"data.drop_labels.$"
        ),
    }
    with pytest.raises(DataError, match=words[primary_label]):
        prepare(
            rows,
            {
                "train": 0.5,
                "validation": 0.5,
                "primary_label": primary_label,
                "rare_classes": "error",
            },
        )


def test_positive_weights_by_hand():
    counts = np.array([10, 2, 20])
    assert positive_weights(counts, 20, "balanced", ["a", "b", "c"]).tolist() == [
        1,
        9,
        1,
    ]  # 10 against 10, 18 against 2, all
    assert positive_weights(counts, 20, "none", ["a", "b", "c"]).tolist() == [1, 1, 1]
    assert positive_weights(counts, 20, {"b": 3.0}, ["a", "b", "c"]).tolist() == [1, 3, 1]
    with pytest.raises(
        ConfigError, match=r"^loss.class_weights names d; labels in the data: a, b, c.$"
    ):
        positive_weights(counts, 20, {"d": 3.0}, ["a", "b", "c"])
    with pytest.raises(
        ConfigError,
        match=r"^loss.class_weights is 'sqrt'; with multi-label data known: balanced, "
        r"effective_number, none, or "
        r"one weight a label.$",
    ):
        positive_weights(counts, 20, "sqrt", ["a", "b", "c"])


def test_positive_weights_count_the_rows_drawn(prepare):
    data = prepare(
        many(a=40, a_b=10, none=20),
        {"train": 0.8, "validation": 0.2},
        method="undersample",
        weighting="balanced",
    )
    assert data.class_weights_C.tolist() == [
        8 / 8,
        8 / 8,
    ]  # 16 rows drawn, 8 with a and b, 8 with none


@pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv"])
def test_split_export_writes_lists_and_reads_back(prepare, folder, file_format):
    data = prepare(many(a=10, a_b=10, none=10), {"train": 0.8, "validation": 0.2})
    written = dict(
        export_splits(data, DataSection(source="rows.jsonl"), folder / "out", file_format)
    )
    path = folder / "out" / f"train.{file_format}"
    assert written[path] == 24
    if file_format == "csv":
        assert {row.split(",", 2)[2] for row in path.read_text().splitlines()[1:]} == {
            '"[""a""]"',
            '"[""a"", ""b""]"',
            '"[]"',
        }
        return
    rows = read_rows(DataSection(source=str(path)), folder / "cache2")
    counted = [labels_of(rows).count(labels) for labels in (["a"], ["a", "b"], [])]
    assert (rows.multi_label, counted) == (True, [8, 8, 8])
