"""Rows of one text and label, joined or noticed, and labels that combine others in one cell."""

import json
import warnings

import numpy as np
import pytest
from preparing import prepare_data

from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.cleaning import clean as cleaning
from trainer.data.cleaning.clean import clean_rows
from trainer.data.cleaning.reasons import REASONS
from trainer.data.reading.sources import read_rows

JOINED = REASONS[cleaning.JOINED]


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Function ((text, label, group) rows, **data section) -> CleanRows.

    `files` names the rows of each key if there are several files.
    """
    monkeypatch.chdir(tmp_path)

    def clean(rows=None, files=None, **section):
        given = files or {"source": rows}
        for key, found in given.items():
            lines = [
                json.dumps({"text": text, "label": label, "group": group[0] if group else None})
                + "\n"
                for text, label, *group in found
            ]
            (tmp_path / f"{key}.jsonl").write_text("".join(lines), encoding="utf-8")
        data = DataSection(**{key: f"{key}.jsonl" for key in given}, **section)
        return clean_rows(
            read_rows(data, tmp_path / "cache"),
            data.clean,
            data.drop_labels,
            data.label_map,
            data.labels_per_row,
        )

    return clean


def found(clean):
    """{text: its labels} of the kept rows."""
    kept = clean.rows.table.filter(np.array(clean.reasons_N == 0))
    return {
        text: json.loads(cell)
        for text, cell in zip(kept["text"].to_pylist(), kept["label"].to_pylist(), strict=True)
    }


def test_rows_of_one_text_become_one_row_with_all_labels_and_are_counted(clean):
    rows = [
        ("p", "y"),
        ("q", "x"),
        ("p", "x"),
        ("p", "y"),
        ("r", None),
        ("r", "z"),
        ("s", None),
        ("q", "x"),
    ]
    joined = clean(rows, labels_per_row="long")
    assert found(joined) == {"p": ["x", "y"], "q": ["x"], "r": ["z"]}
    assert joined.label_matrix_NC[joined.reasons_N == 0].sum() == 4
    assert (joined.counts["kept"], joined.counts[JOINED], joined.counts["missing label"]) == (
        3,
        3,
        2,
    )


def test_joined_rows_do_not_depend_on_the_order_of_the_file(clean):
    rows = [(f"text {n % 7}", "abc"[n % 3], f"group {n % 7 + 10 * (n % 2)}") for n in range(40)]
    with pytest.warns(UserWarning, match="7 texts have rows of several groups"):
        first = clean(rows, labels_per_row="long", group_column="group")
    with pytest.warns(UserWarning, match="7 texts have rows of several groups"):
        other = clean(rows[::-1], labels_per_row="long", group_column="group")

    def rows_of(clean):
        return sorted(map(str, clean.rows.table.filter(np.array(clean.reasons_N == 0)).to_pylist()))

    assert rows_of(first) == rows_of(other)


def test_texts_of_one_group_are_not_warned_of(clean):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean(
            [("p", "x", "g"), ("p", "y", "g"), ("q", "y", "h"), ("r", "x")],
            labels_per_row="long",
            group_column="group",
        )


def test_given_files_are_joined_each_by_itself(clean):
    joined = clean(
        files={
            "train": [("p", "x"), ("p", "y"), ("q", "x"), ("q", "y")],
            "test": [("t", "x"), ("t", "y"), ("u", "x")],
        },
        labels_per_row="long",
    )
    assert found(joined) == {"p": ["x", "y"], "q": ["x", "y"], "t": ["x", "y"], "u": ["x"]}


def test_dropped_labels_take_the_whole_text_and_mapped_ones_their_new_name(clean):
    rows = [("p", "x"), ("p", "y"), ("q", "y"), ("q", "z"), ("r", "z"), ("s", "X ")]
    assert found(
        clean(rows, labels_per_row="long", drop_labels=["x"], label_map={"X": "v"})
    ).keys() == {"q", "r", "s"}
    assert clean(rows, labels_per_row="long", label_map={"X": "x"}).labels.names == ["x", "y", "z"]


def test_splits_hold_each_joined_text_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"text": f"t{n}", "label": label} for n in range(60) for label in "abc"[n % 3 :]]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    section = DataSection(source="a.jsonl", labels_per_row="long")
    data = prepare_data(
        section,
        SplitSection(),
        BalanceSection(),
        LossSection(),
        seed=1,
        cache_dir=tmp_path / "cache",
    )
    assert data.is_multi_label
    assert data.summary.counts["train"].tolist() == [16, 32, 48]
    assert sum(len(ids) for ids in data.splits.named.values()) == 60


def long_form(num_texts, labels="xyz"):
    return [
        (f"text {n}", label) for n in range(num_texts) for label in labels[: 1 + n % len(labels)]
    ]


def test_one_row_for_each_text_and_label_is_noticed(clean):
    rows = [
        *long_form(60),
        *((f"single {n}", "xyz"[n % 3]) for n in range(30)),
    ]  # 40 texts have two or three labels
    words = (
        r"^40 of 40 repeated texts have different labels in their rows; such rows count "
        r"as conflicting\. "
        r"If a text may have several labels, one row for each, set data\.labels_per_row: long\.$"
    )
    with pytest.warns(UserWarning, match=words):
        clean(rows)
    with pytest.warns(UserWarning, match="3 of 3 repeated texts"):  # 6 of 20 rows
        clean(
            [(f"t{n}", "xy"[n % 2]) for n in range(14)]
            + [(f"twice {n}", label) for n in range(3) for label in "xy"]
        )
    doubled = [(f"t{n // 2}", "xy"[n // 2 % 2]) for n in range(52)]
    with pytest.warns(UserWarning, match="14 of 40 repeated texts"):  # 28 of 80 rows
        clean(doubled + [(f"u{n}", label) for n in range(14) for label in "xy"])


@pytest.mark.parametrize(
    "rows",
    [
        [(f"t{n // 2}", "xy"[n // 2 % 2]) for n in range(60)],  # duplicates
        [(f"t{n}", "xy"[n % 2]) for n in range(600)]
        + [(f"u{n}", label) for n in range(9) for label in "xy"],  # 9 texts, 3 % of the rows
        [(f"t{n // 2}", "xy"[n // 2 % 2]) for n in range(122)]
        + [(f"u{n}", label) for n in range(20) for label in "xy"],  # 20 of 81 texts
        [(f"t{n}", "xy"[n % 2]) for n in range(10)],
    ],
)
def test_duplicates_and_some_noise_are_not_taken_for_several_labels(clean, rows):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean(rows)


@pytest.mark.parametrize("separator", [";", "|", ",", "; "])
def test_labels_that_combine_others_are_noticed_and_the_separator_is_proposed(clean, separator):
    labels = [
        "toxic",
        "insult",
        f"toxic{separator}insult",
        f"insult{separator}threat",
        f"toxic{separator}threat",
    ]
    words = (
        rf"^3 of 5 labels combine others by '\{separator[0]}', such as .* set "
        rf"data\.label_separator: '\{separator[0]}'\.$"
    )
    with pytest.warns(UserWarning, match=words):
        clean([(f"t{n}", labels[n % 5]) for n in range(20)])


@pytest.mark.parametrize(
    "labels",
    [
        ["Paris, France", "Lyon, France", "Berlin, Germany", "Rome, Italy"],
        ["sports|football", "sports|tennis", "politics|home", "politics|abroad"],
        ["a", "b", "c", "a;b"],
        ["x", "y"],
        ["on;off", "x"],
    ],
)
def test_labels_that_only_hold_a_separator_are_left_alone(clean, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clean([(f"t{n}", labels[n % len(labels)]) for n in range(20)])
