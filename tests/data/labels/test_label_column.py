"""All rows decide the format of a label column: labels, lists, vectors, delimited values."""

import csv
import json
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.sections.data import DataSection
from trainer.data.labels.list_parsing import item_text, parse_list
from trainer.data.reading.sources import check_source, read_rows
from trainer.data.split_files import export_splits
from trainer.errors import DataError

CASES = Path(__file__).parents[4] / "shared" / "cases"
UNNAMED = "ignore:column 'label'. the"


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Function (name, labels, **data section) -> Rows of a file with a text for each label."""
    monkeypatch.chdir(tmp_path)

    def read(name, labels, kind=None, **section):
        write(Path(name), labels, kind)
        return read_rows(DataSection(source=name, **section), tmp_path / "cache")

    return read


def write(path, labels, kind=None):
    texts = [f"text {n}" for n in range(len(labels))]
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *zip(texts, labels, strict=True)])
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts, "label": pa.array(labels, kind)}), path)
    else:
        path.write_text(
            "".join(
                json.dumps({"text": t, "label": label}) + "\n"
                for t, label in zip(texts, labels, strict=True)
            )
        )


def labels_of(rows):
    return [cell and json.loads(cell) for cell in rows.table["label"].to_pylist()]


@pytest.mark.parametrize(
    ("cell", "items"),
    [
        ("['toxic', 'insult']", ["toxic", "insult"]),
        ('["a", "b"]', ["a", "b"]),
        ("[0, 1, 0]", [0, 1, 0]),
        ("[0. 1. 0.]", [0.0, 1.0, 0.0]),
        ("[0 1 0]", [0, 1, 0]),
        ("[True, False]", [True, False]),
        ("[ True False]", [True, False]),
        ("[true, null]", [True, None]),
        ("['a' 'b']", ["a", "b"]),
        ("['a'\n 'b c']", ["a", "b c"]),
        ("[]", []),
        ("['it''s']", None),  # Python would make 'its' of it
        ("['a' 'b', 'c']", None),
        ("[NEG]", None),
        ("[1 to 3]", None),
        ("[nan, 1.0]", None),
        ("[0, 1)", None),
        ("[[1], [2]]", None),
        ("[0 0 ... 1]", None),
        ("[__import__('os')]", None),
        ("a, b", None),
        ("('a', 'b')", None),
    ],
)
def test_lists_written_as_text_are_read_and_nothing_else(cell, items):
    assert parse_list(cell) == items


@given(
    st.lists(
        st.one_of(
            st.text(),
            st.integers(),
            st.booleans(),
            st.none(),
            st.floats(allow_nan=False, allow_infinity=False),
        )
    )
)
def test_lists_are_read_back_from_json_and_python(items):
    assert parse_list(json.dumps(items)) == items
    assert parse_list(json.dumps(items, ensure_ascii=False)) == items
    if all(repr(item).isprintable() for item in items):
        assert parse_list(repr(items)) == items


def test_items_are_spelt_as_readers_spell_labels():
    assert [item_text(item) for item in (1, 1.0, True, 0.5, "1.0", None, float("nan"))] == [
        "1",
        "1",
        "true",
        "0.5",
        "1.0",
        None,
        None,
    ]


@pytest.mark.filterwarnings(UNNAMED)
@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [
        ("a.jsonl", [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0], [0.0, 0.0, 0.0]], None),
        ("a.jsonl", [[0, 1, 0], [1, 0, 1], [0, 0, 0]], None),
        ("a.jsonl", [[False, True, False], [True, False, True], [False, False, False]], None),
        ("a.parquet", [[0, 1, 0], [1, 0, 1], [0, 0, 0]], pa.list_(pa.int8())),
        ("a.parquet", [[0, 1, 0], [1, 0, 1], [0, 0, 0]], pa.list_(pa.float32(), 3)),
        (
            "a.parquet",
            [[False, True, False], [True, False, True], [False, False, False]],
            pa.list_(pa.bool_()),
        ),
        ("a.csv", ["[0, 1, 0]", "[1, 0, 1]", "[0, 0, 0]"], None),
        ("a.csv", ["[0. 1. 0.]", "[1. 0. 1.]", "[0. 0. 0.]"], None),
        ("a.csv", ["[False, True, False]", "[True, False, True]", "[False, False, False]"], None),
    ],
)
def test_multi_hot_vectors_of_every_format_are_the_same_labels(read, name, labels, kind):
    rows = read(name, labels, kind)
    assert labels_of(rows) == [["label_1"], ["label_0", "label_2"], []]
    assert (rows.multi_label, rows.label_order) == (True, ["label_0", "label_1", "label_2"])
    assert rows.remarks[-1] == "Labels: column 'label' holds multi-hot vectors of 3 labels."


def test_multi_hot_labels_have_the_given_names_in_their_order_or_are_warned_of(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = read("a.jsonl", [[0, 1, 0], [1, 0, 0]], label_names=["toxic", "insult", "threat"])
    assert labels_of(rows) == [["insult"], ["toxic"]]
    assert rows.label_order == ["toxic", "insult", "threat"]
    assert (
        rows.remarks[-1]
        == "Labels: column 'label' holds multi-hot vectors of 3 labels; no row has threat."
    )
    words = (
        r"^column 'label': the 3 labels of the multi-hot vectors have no names and are "
        r"called label_0 to label_2. Set data.label_names.$"
    )
    for _ in range(2):  # from the cache too
        with pytest.warns(UserWarning, match=words):
            read("a.jsonl", [[0, 1, 0], [1, 0, 0]])


def test_wrong_number_of_names_and_names_without_vectors_are_refused(read):
    with pytest.raises(
        DataError,
        match=r"^data.label_names has 2 names, but the multi-hot vectors of column 'label' "
        r"have 3 values. Give 3 names.$",
    ):
        read("a.jsonl", [[0, 1, 0], [1, 0, 0]], label_names=["a", "b"])
    with pytest.raises(
        DataError,
        match=r"^data.label_names is set, but the lists of column 'label' are not vectors of 0 "
        r"and 1 of one length",
    ):
        read("a.jsonl", [["x"], ["y"]], label_names=["a", "b"])
    with pytest.raises(
        DataError, match=r"^data.label_names is set, but column 'label' holds no multi-hot vectors"
    ):
        read("a.jsonl", ["x", "y"], label_names=["a", "b"])


@pytest.mark.filterwarnings(UNNAMED)
def test_whole_numbers_that_never_repeat_are_ids_unless_names_are_given(read):
    assert labels_of(read("a.jsonl", [[0, 1], [2, 0]])) == [["0", "1"], ["2", "0"]]
    assert labels_of(read("b.jsonl", [[0, 1], [1, 0]], label_names=["x", "y"])) == [["y"], ["x"]]
    assert labels_of(read("c.jsonl", [[0, 1], [1, 1]])) == [["label_1"], ["label_0", "label_1"]]
    assert labels_of(read("d.jsonl", [[0.0, 1.0], [1.0, 0.0]])) == [["label_1"], ["label_0"]]
    assert labels_of(read("e.jsonl", [[0], [1], [1]])) == [["0"], ["1"], ["1"]]
    assert labels_of(read("f.jsonl", [[0, 1], [1, 0], []])) == [["0", "1"], ["1", "0"], []]
    assert labels_of(read("g.jsonl", [[3, 3], [2, 1]])) == [["3"], ["2", "1"]]


def test_lists_of_class_labels_are_ids_whatever_they_look_like(tmp_path):
    from datasets import ClassLabel, Dataset, Features, List, Value

    features = Features({"text": Value("string"), "label": List(ClassLabel(names=["no", "yes"]))})
    Dataset.from_dict(
        {"text": ["p", "q"], "label": [[0, 1, 0], [1, 1, 1]]}, features=features
    ).save_to_disk(tmp_path / "saved")
    assert labels_of(
        read_rows(DataSection(source=str(tmp_path / "saved")), tmp_path / "cache")
    ) == [["no", "yes"], ["yes"]]


@pytest.mark.filterwarnings(UNNAMED)
def test_what_lists_are_is_decided_by_all_rows_and_not_by_the_first_batch(read, monkeypatch):
    monkeypatch.setattr("trainer.data.reading.formats.json_rows.BATCH_ROWS", 2)
    assert labels_of(read("a.jsonl", [[0, 1], [1, 0], [1, 0], [1, 1]])) == [
        ["label_1"],
        ["label_0"],
        ["label_0"],
        ["label_0", "label_1"],
    ]
    assert labels_of(read("b.jsonl", [[0, 1], [1, 0], [7], [1, 0]])) == [
        ["0", "1"],
        ["1", "0"],
        ["7"],
        ["1", "0"],
    ]
    assert labels_of(read("c.jsonl", [["x", "x"], ["y"], ["x"], ["y"]])) == [
        ["x"],
        ["y"],
        ["x"],
        ["y"],
    ]
    assert labels_of(
        read("d.jsonl", [[True, False], [False, True], [True], [False]], kind=None)
    ) == [["true", "false"], ["false", "true"], ["true"], ["false"]]


def test_vectors_of_several_lengths_and_fractions_are_refused(read):
    words = (
        r"^column 'label' holds vectors of 0 and 1 of several lengths, such as 2 and 3; "
        r"needed: one value for each label. Fix the column.$"
    )
    with pytest.raises(DataError, match=words):
        read("a.jsonl", [[0, 1, 0], [1, 0]])
    with pytest.raises(
        DataError,
        match=r"^column 'label' holds lists with 0.7; needed: label names, whole numbers, or "
        r"vectors of 0 and 1. Set each",
    ):
        read("b.jsonl", [[0.0, 0.7], [1.0, 0.0]])


@pytest.mark.filterwarnings(UNNAMED)
@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [
        ("a.jsonl", [[0, 1], [1, 0], [0, 1]], None),
        ("a.parquet", [[0, 1], [1, 0], [0, 1]], pa.list_(pa.int64())),
        ("a.csv", ["[0, 1]", "[1, 0]", "[0 1]"], None),
        ("a.jsonl", [["0", "1"], ["1", "0"], ["0", "1"]], None),
    ],
)
def test_pairs_of_0_and_1_that_would_give_every_row_both_labels_are_vectors(
    read, name, labels, kind
):
    assert labels_of(read(name, labels, kind)) == [["label_1"], ["label_0"], ["label_1"]]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_probabilities_and_counts_are_refused_with_the_remedy(read, name):
    def written(lists):
        return list(map(str, lists)) if name == "a.csv" else lists

    with pytest.raises(
        DataError,
        match=r"^column 'label' holds lists with 0.7; needed: .* Set each value to 0 or 1, "
        r"such as by a threshold of 0.5.$",
    ):
        read(name, written([[0.0, 0.7, 0.0], [1.0, 0.0, 1.0]]))
    words = (
        r"^column 'label' holds lists of one length with counts, such as \[0, 2, 0\]; "
        r"needed: vectors of 0 and 1, or lists that name"
        r" each label once. Set counts above 1 to 1, or remove the repeated values.$"
    )
    with pytest.raises(DataError, match=words):
        read(name, written([[0, 1, 0], [0, 2, 0], [1, 0, 3]]))
    with pytest.raises(DataError, match="with counts, such as"):
        read(name, written([[0.0, 1.0, 0.0], [0.0, 2.0, 0.0]]))


@pytest.mark.parametrize(
    ("name", "labels", "kind"),
    [
        ("a.jsonl", [["a", None], ["b", ""], [None, None], ["c", " "], None, ["b", "a"]], None),
        (
            "a.parquet",
            [["a", None], ["b", ""], [None, None], ["c", "\u200b"], None, ["b", "a"]],
            pa.list_(pa.string()),
        ),
        (
            "a.csv",
            ["['a', None]", '["b", null]', "[None]", "['c', '']", "", "['b', 'a', None]"],
            None,
        ),
    ],
)
def test_null_and_blank_entries_of_lists_are_left_out_counted_and_told(read, name, labels, kind):
    rows = read(name, labels, kind)
    assert [cell or None for cell in labels_of(rows)[:2]] == [["a"], ["b"]]
    assert labels_of(rows)[2:] == [[], ["c"], None, ["b", "a"]]
    count = 5 if name == "a.csv" else 4
    words = (
        f"Null and blank entries are left out of the lists of column 'label' ({count} rows). "
        "1 of these rows then has no label."
    )
    assert rows.remarks[-1].endswith(words)


@pytest.mark.parametrize(
    "labels", [[[3, None, None], [4, 5, None], [6, 7, 8]], [[1, None], [0, None], [0, 1]]]
)
def test_lists_of_ids_padded_with_null_are_ids(read, labels):
    assert labels_of(read("a.jsonl", labels)) == [
        [str(item) for item in own if item is not None] for own in labels
    ]


@pytest.mark.parametrize(
    "odd",
    ["['a', 'b']", "['a']", "{'a', 'b'}", "('a', 'b')", "('a',)", "[a, b]", "{a,b}", '["a", "b"]'],
)
def test_single_labels_that_look_like_lists_are_warned_of(read, odd):
    with pytest.warns(UserWarning, match=r"^column 'label'") as caught:
        rows = read("a.csv", ["a", "b", odd, "a", odd])
    assert str(caught[0].message) == (
        f"column 'label': 2 of 5 labels look like lists, such as {odd}, but each is read "
        "as one label."
        " If a row may have several labels, write all labels as lists, such as ['a', 'b']."
    )
    assert not rows.multi_label


def test_single_labels_in_brackets_do_not_look_like_lists(read):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for labels in (
            ["[NEG]", "[POS]"],
            ["(0, 1]", "(1, 2]", "[2, 3)"],
            ["(a, b)", "x"],
            ["{x}", "y"],
            ["a, b", "'a', 'b'"],
        ):
            assert read("a.csv", labels).table["label"].to_pylist() == labels


@pytest.mark.filterwarnings(UNNAMED)
def test_missing_vectors_and_values_are_missing_labels(read):
    assert labels_of(read("a.jsonl", [[0, 1, 0], None, [1, None, 0], [1, 1, 0]])) == [
        ["label_1"],
        None,
        None,
        ["label_0", "label_1"],
    ]
    assert labels_of(read("a.csv", ["[0, 1, 0]", "", "[1, None, 0]"])) == [["label_1"], None, None]


def test_wide_vectors_are_read_in_one_step(read):
    wide = [[0] * 2000 for _ in range(1000)]
    for row in range(1000):
        wide[row][row] = wide[row][1999 - row] = 1
    rows = read(
        "a.parquet", wide, pa.list_(pa.int8()), label_names=[f"name {n}" for n in range(2000)]
    )
    assert labels_of(rows)[3] == ["name 3", "name 1996"]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_lists_written_as_text_are_lists_and_are_told(read, name):
    rows = read(name, ["['toxic', 'insult']", '["toxic"]', "[]", "['toxic' 'threat']"])
    assert labels_of(rows) == [["toxic", "insult"], ["toxic"], [], ["toxic", "threat"]]
    assert rows.remarks[-1] == (
        "Labels: column 'label' holds lists written as text, such as ['toxic', "
        "'insult']; they are read as lists of labels."
    )


def test_cell_that_is_no_list_among_lists_is_refused_with_its_row(read, monkeypatch):
    monkeypatch.setattr("trainer.data.reading.formats.json_rows.BATCH_ROWS", 2)
    words = (
        r"^a.jsonl:4: label 'toxic' is not a list, but 3 of 4 labels are lists written as "
        r"text, such as \['toxic'\]. Write it as a list.$"
    )
    with pytest.raises(DataError, match=words):
        read("a.jsonl", ["['toxic']", "['insult']", "[]", "toxic"])


def test_single_labels_are_never_touched(read):
    for labels in (
        ["[NEG]", "[POS]"],
        ["[1]", "b", "c"],
        ["(0, 1]", "(1, 2]"],
        ["a;b", "a"],
        ["0", "1"],
        ["", "x"],
    ):
        rows = read("a.csv", labels)
        assert [label or "" for label in rows.table["label"].to_pylist()] == labels
        assert (rows.multi_label, list(rows.remarks)) == (False, [])


def test_lists_and_lists_written_as_text_go_together(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("train.jsonl"), [["a"], ["a", "b"]])
    write(Path("test.csv"), ['["b"]', "[]"])
    rows = read_rows(DataSection(train="train.jsonl", test="test.csv"), tmp_path / "cache")
    assert labels_of(rows) == [["a"], ["a", "b"], ["b"], []]


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_cells_are_split_at_the_separator_and_an_empty_cell_is_a_row_without_a_label(read, name):
    rows = read(
        name, ["toxic;insult", " toxic ; ;", "", ";", "insult;insult", None], label_separator=";"
    )
    assert labels_of(rows) == [["toxic", "insult"], ["toxic"], [], [], ["insult"], []]
    assert rows.multi_label
    assert rows.remarks == [
        "Labels: the values of column 'label' are split at ';'; an empty value is a row "
        "without a label."
    ]


def test_separator_that_no_cell_holds_is_warned_of_and_lists_with_one_are_refused(read):
    with pytest.warns(
        UserWarning,
        match=r"^data.label_separator is '\|', but no value of column 'label' holds it. Set it "
        r"to the text between",
    ):
        read("a.csv", ["a;b", "a"], label_separator="|")
    with pytest.raises(
        DataError,
        match=r"^column 'label' holds lists written as text, such as \['a', 'b'\], which "
        r"data.label_separator does not allow. Set data.label_sep",
    ):
        read("a.csv", ["['a', 'b']", "['a']"], label_separator=",")
    with pytest.raises(
        DataError,
        match=r"^data.source: column 'label' holds lists, which data.label_separator does not "
        r"allow. Set data.label_separator: null.$",
    ):
        read("a.jsonl", [["a"], ["b"]], label_separator=",")


@pytest.mark.parametrize(
    ("section", "words"),
    [
        (
            {"label_separator": ";", "label_columns": ["a", "b"]},
            "has both label_columns and label_separator, which are two ways to write "
            "several labels",
        ),
        (
            {"label_names": ["a", "b"], "labels_per_row": "long"},
            "has both label_names and labels_per_row: long",
        ),
        ({"label_names": ["a", "a"]}, "label_names holds a name twice"),
        (
            {"label_names": ["a", "b"], "streaming": True},
            "label_names is set with streaming: true, which needs one label a row; "
            "remove label_names",
        ),
        (
            {"label_separator": ";", "streaming": True},
            "label_separator is set with streaming: true, which needs one label a row",
        ),
        (
            {"labels_per_row": "long", "streaming": True},
            "labels_per_row is set with streaming: true, which needs one label a row",
        ),
    ],
)
def test_keys_that_contradict_are_refused(section, words):
    with pytest.raises(ValueError, match=words):
        DataSection(source="rows.csv", **section)


def test_lists_written_as_text_are_refused_with_streaming(tmp_path, monkeypatch):
    from preparing import prepare_data

    from trainer.config.sections.balancing import BalanceSection, LossSection

    monkeypatch.chdir(tmp_path)
    write(Path("a.csv"), ["['a', 'b']", "['a']"] * 20)
    with pytest.raises(
        DataError,
        match=r"^column 'label' holds lists written as text, such as \['a', 'b'\], which "
        r"data.streaming does not allow. Set data.streaming: false.$",
    ):
        prepare_data(
            DataSection(source="a.csv", streaming=True),
            None,
            BalanceSection(),
            LossSection(),
            seed=1,
            cache_dir=tmp_path / "cache",
        )


def test_check_tells_several_labels_from_the_first_rows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(Path("a.csv"), ["['a', 'b']", "['a']"])
    write(Path("b.csv"), ["a;b", "a"])
    assert check_source(DataSection(source="a.csv"))
    assert not check_source(DataSection(source="b.csv"))
    assert check_source(DataSection(source="b.csv", label_separator=";"))
    assert check_source(DataSection(source="b.csv", labels_per_row="long"))


@pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv"])
def test_exported_lists_read_back_as_the_same_lists(tmp_path, monkeypatch, file_format):
    from preparing import prepare_data

    from trainer.config.sections.balancing import BalanceSection, LossSection

    monkeypatch.chdir(tmp_path)
    write(Path("a.jsonl"), [["a"], ["a", 'quoted "b", with comma'], []] * 10)
    section = DataSection(source="a.jsonl")
    data = prepare_data(
        section, None, BalanceSection(), LossSection(), seed=1, cache_dir=tmp_path / "cache"
    )
    dict(export_splits(data, section, tmp_path / "out", file_format))
    back = read_rows(DataSection(source=f"out/train.{file_format}"), tmp_path / "cache2")
    ids = data.splits.train
    assert back.multi_label
    assert (
        back.table["text"].to_pylist()
        == data.clean.rows.table["text"].take(pa.array(ids)).to_pylist()
    )
    assert labels_of(back) == [
        json.loads(cell) for cell in data.clean.rows.table["label"].take(pa.array(ids)).to_pylist()
    ]
