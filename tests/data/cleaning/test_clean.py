from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from preparing import prepare_data

from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.config.sections.data import DataSection
from trainer.data.cleaning.clean import clean_rows
from trainer.data.cleaning.lost_classes import refuse_lost_classes
from trainer.data.cleaning.reasons import REASONS
from trainer.data.labels.class_order import encode, order_labels
from trainer.data.reading.sources import read_rows
from trainer.errors import DataError


@pytest.fixture
def clean(tmp_path, monkeypatch):
    """Function (rows of "text,label" lines, or {slot: such lines}, **rules) -> CleanRows.

    Other keys go to the data section.
    """
    monkeypatch.chdir(tmp_path)

    def clean(
        lines,
        header="text,label",
        drop_labels=(),
        label_map=None,
        weight_column=None,
        text_column="text",
        **rules,
    ):
        given = lines if isinstance(lines, dict) else {"source": lines}
        for slot, content in given.items():
            Path(f"{slot}.csv").write_text("\n".join([header, *content]) + "\n", encoding="utf-8")
        data = DataSection(
            **{slot: f"{slot}.csv" for slot in given},
            clean=rules,
            drop_labels=list(drop_labels),
            weight_column=weight_column,
            text_column=text_column,
        )
        return clean_rows(
            read_rows(data, tmp_path / "cache"), data.clean, data.drop_labels, label_map
        )

    return clean


def reasons(clean):
    return [REASONS[code] for code in clean.reasons_N]


KEPT, EMPTY, UNLABELLED, UNWANTED, DUPLICATE, OUTVOTED, TIE, LEAKED, JOINED, RARE = REASONS
TWO = ["p,x", "q,y"]  # two classes, so that the rest may go


@pytest.mark.parametrize("text", ["", '""', "  ", "nan", "NaN", "None", "null", "NULL", '" NaN "'])
def test_empty_and_spelt_out_missing_texts_are_dropped(clean, text):
    assert reasons(clean([*TWO, f"{text},x"])) == [KEPT, KEPT, EMPTY]


@pytest.mark.parametrize("text", ["0", "none of it", "NULL and void", "Nan", "."])
def test_texts_that_say_something_are_kept(clean, text):
    assert reasons(clean([*TWO, f"{text},x"])) == [KEPT, KEPT, KEPT]


def test_spelt_out_missing_and_empty_texts_are_kept_where_the_rule_is_off(clean):
    assert reasons(clean([*TWO, "NaN,x", '"",x', ",x"], empty=False)) == [
        KEPT,
        KEPT,
        KEPT,
        KEPT,
        DUPLICATE,
    ]


def test_pair_is_empty_where_both_texts_are(clean):
    rows = clean(
        ["a,b,x", "c,d,y", ",b,x", "a,,x", ",,x", "NaN,e,y"],
        header="p,q,label",
        text_column=["p", "q"],
    )
    assert reasons(rows) == [KEPT, KEPT, KEPT, KEPT, EMPTY, KEPT]


def test_white_space_around_makes_no_difference_unless_strip_is_off(clean):
    lines = [*TWO, "p ,x", "r, y"]
    stripped, raw = clean(lines), clean(lines, strip=False)
    assert (reasons(stripped), stripped.labels.names) == ([KEPT, KEPT, DUPLICATE, KEPT], ["x", "y"])
    assert (reasons(raw), raw.labels.names) == ([KEPT] * 4, ["x", "y"])


@pytest.mark.parametrize("label", ["", '""', '" "'])
def test_rows_without_a_label_are_dropped(clean, label):
    assert reasons(clean([*TWO, f"r,{label}"])) == [KEPT, KEPT, UNLABELLED]


def test_label_spelt_none_is_a_label(clean):
    assert clean([*TWO, "r,None"]).labels.names == ["None", "x", "y"]


def test_unwanted_labels_are_dropped_and_gone_from_the_names(clean):
    rows = clean([*TWO, "r,z", "s,z"], drop_labels=["z"])
    assert reasons(rows) == [KEPT, KEPT, UNWANTED, UNWANTED]
    assert rows.labels.names == ["x", "y"]
    assert rows.label_ids_N.tolist() == [0, 1, -1, -1]


def test_unwanted_label_that_no_row_has_is_refused_with_the_nearest_name(clean):
    with pytest.raises(
        DataError,
        match=(
            r"^data.drop_labels names neutrla; labels in the data: neutral, x, y. Did you "
            r"mean 'neutral'\?$"
        ),
    ):
        clean([*TWO, "r,neutral"], drop_labels=["neutrla"])


def test_equal_text_with_one_label_is_kept_once_the_first_time(clean):
    assert reasons(clean([*TWO, "p,x", "p,x"])) == [KEPT, KEPT, DUPLICATE, DUPLICATE]
    assert reasons(clean([*TWO, "p,x", "p,x"], duplicates=False)) == [KEPT] * 4


def test_conflict_is_settled_by_majority(clean):
    lines = [*TWO, "r,x", "r,y", "r,y"]
    assert reasons(clean(lines)) == [KEPT, KEPT, OUTVOTED, KEPT, DUPLICATE]
    assert reasons(clean(lines, duplicates=False)) == [KEPT, KEPT, OUTVOTED, KEPT, KEPT]


def test_conflict_that_is_not_settled_keeps_one_row_a_label(clean):
    lines = [*TWO, "r,x", "r,y", "r,y"]
    assert reasons(clean(lines, conflicts=False)) == [KEPT, KEPT, KEPT, KEPT, DUPLICATE]
    assert reasons(clean(lines, conflicts=False, duplicates=False)) == [KEPT] * 5


def test_tie_without_weights_drops_all(clean):
    assert reasons(clean([*TWO, "r,x", "r,y"])) == [KEPT, KEPT, TIE, TIE]
    assert reasons(clean([*TWO, "r,x", "r,y", "r,z", "s,z"])) == [KEPT, KEPT, TIE, TIE, TIE, KEPT]


def test_tie_between_the_two_largest_drops_the_third_too(clean):
    assert reasons(clean([*TWO, "r,x", "r,x", "r,y", "r,y", "r,z", "s,z"])) == [
        KEPT,
        KEPT,
        TIE,
        TIE,
        TIE,
        TIE,
        TIE,
        KEPT,
    ]


def test_weight_decides_a_tie_but_not_a_majority(clean):
    lines = ["p,x,1", "q,y,1", "r,x,0.4", "r,y,0.9", "s,x,0.1", "s,x,0.1", "s,y,0.9"]
    rows = clean(lines, header="text,label,sure", weight_column="sure")
    assert reasons(rows) == [KEPT, KEPT, OUTVOTED, KEPT, KEPT, DUPLICATE, OUTVOTED]


def test_equal_weights_leave_the_tie_and_a_missing_weight_counts_zero(clean):
    rows = clean(
        ["p,x,1", "q,y,1", "r,x,0.5", "r,y,0.5", "s,x,", "s,y,0.1"],
        header="text,label,sure",
        weight_column="sure",
    )
    assert reasons(rows) == [KEPT, KEPT, TIE, TIE, OUTVOTED, KEPT]


def test_pairs_are_equal_where_both_texts_are(clean):
    rows = clean(
        ["a,b,x", "c,d,y", "a,b,x", "a,d,x", "ab,,x", ",ab,x"],
        header="p,q,label",
        text_column=["p", "q"],
    )
    assert reasons(rows) == [KEPT, KEPT, DUPLICATE, KEPT, KEPT, KEPT]


GIVEN = {
    "train": [*TWO, "r,x", "s,y"],
    "validation": ["r,x", "u,y", "v,x"],
    "test": ["s,y", "v,x", "w,y", "z,x"],
}


def test_texts_of_test_leave_validation_and_train_and_those_of_validation_leave_train(clean):
    assert reasons(clean(GIVEN)) == [
        KEPT,
        KEPT,
        LEAKED,
        LEAKED,
        KEPT,
        KEPT,
        LEAKED,
        KEPT,
        KEPT,
        KEPT,
        KEPT,
    ]
    assert reasons(clean(GIVEN, leakage=False)) == [KEPT] * 11


def test_row_leaks_whatever_its_label(clean):
    given = {"train": [*TWO, "r,x"], "test": ["r,y", "s,x"]}
    assert reasons(clean(given)) == [KEPT, KEPT, LEAKED, KEPT, KEPT]


def test_duplicates_and_conflicts_are_judged_within_one_file_role(clean):
    given = {"train": [*TWO, "r,x"], "validation": ["r,y", "u,x"]}
    assert reasons(clean(given, leakage=False)) == [KEPT] * 5


def test_kept_gives_the_row_ids_of_each_role(clean):
    rows = clean(GIVEN)
    assert {
        slot: rows.kept(slot).tolist() for slot in ("source", "train", "validation", "test")
    } == {
        "source": [],
        "train": [0, 1],
        "validation": [4, 5],
        "test": [7, 8, 9, 10],
    }


MIXED = [*TWO, ",x", "r,", "s,z", "p,x", "t,x", "t,y", "t,y", "u,x", "u,y", "ragged"]


def test_counts_add_up_to_all_rows(clean, tmp_path):
    path = tmp_path / "mixed.csv"
    path.write_text("\n".join(["text,label", *MIXED, ""]), encoding="utf-8")
    data = DataSection(source=str(path), on_bad_rows="skip", drop_labels=["z"])
    rows = clean_rows(read_rows(data, tmp_path / "cache"), data.clean, data.drop_labels)
    counts = rows.counts
    assert counts == {
        KEPT: 3,
        EMPTY: 1,
        UNLABELLED: 1,
        UNWANTED: 1,
        DUPLICATE: 2,
        OUTVOTED: 1,
        TIE: 2,
        LEAKED: 0,
        JOINED: 0,
        RARE: 0,
        "unreadable": 1,
        "stripped of white space first, kept or not": 0,
    }
    assert sum(counts.values()) == len(MIXED)
    dropped = list(rows.dropped())
    assert Counter(record["reason"] for record in dropped[:-1]) == Counter(
        {DUPLICATE: 2, TIE: 2, EMPTY: 1, UNLABELLED: 1, UNWANTED: 1, OUTVOTED: 1}
    )
    assert dropped[0] == {
        "row": 2,
        "from": "source",
        "file": str(path),
        "line": 4,
        "reason": EMPTY,
        "label": "x",
    }
    assert dropped[2] == {
        "row": 4,
        "from": "source",
        "file": str(path),
        "line": 6,
        "reason": UNWANTED,
        "text": "s",
        "label": "z",
    }
    assert dropped[-1] == {
        "row": None,
        "file": str(path),
        "line": 13,
        "reason": "1 cells, expected 2",
        "content": "ragged",
    }


def test_file_of_which_nothing_is_left_is_refused_with_the_reasons(clean):
    with pytest.raises(
        DataError,
        match=(
            r"^data.source: no row is left of 3 after cleaning: 2 empty text; 1 missing "
            r"label. Check data.text_column, "
        ),
    ):
        clean([",x", "NaN,y", "a,"])


def test_given_file_of_which_nothing_is_left_is_refused(clean):
    with pytest.raises(
        DataError,
        match=(
            r"^data.validation: no row is left of 1 after cleaning: 1 text also in "
            r"validation or test. Check "
        ),
    ):
        clean({"train": TWO, "validation": ["r,x"], "test": ["r,x", "s,y"]})


def test_one_class_is_refused(clean):
    with pytest.raises(
        DataError,
        match=(
            r"^the rows hold one class only, 'x'; a classifier needs two. Check "
            r"data.label_column, data.label_map and data.drop_labels.$"
        ),
    ):
        clean(["a,x", "b,x"])


def test_one_class_after_cleaning_is_refused(clean):
    words = (
        r"\(rows that cleaning dropped: 1 missing label, 1 duplicate text, 1 conflicting "
        r"labels, outvoted\)"
    )
    with pytest.raises(
        DataError,
        match=(
            rf"^the rows hold one class only, 'x'; a classifier needs two {words}. Check "
            rf"data.label_column, data.label_map"
        ),
    ):
        clean(["a,x", "b,x", "a,y", "a,x", "c,"])


def test_no_label_name_at_all_is_refused():
    with pytest.raises(DataError, match=r"^the rows hold no class; a classifier needs two."):
        order_labels(set(), None)


def test_class_that_loses_its_last_row_is_gone_from_the_names(clean):
    rows = clean([*TWO, "r,a", "r,x"])
    assert rows.labels.names == ["x", "y"]
    assert rows.label_ids_N.tolist() == [0, 1, -1, 0]


@pytest.mark.parametrize("slot", ["validation", "test"])
def test_label_that_training_lacks_is_refused(tmp_path, clean, slot):
    clean({"train": TWO, slot: ["r,x", "s,new", "t,newer"]})  # cleaning itself has no objection
    data = DataSection(train="train.csv", **{slot: f"{slot}.csv"})
    with pytest.raises(
        DataError,
        match=(
            rf"^data.{slot}: holds new, newer, which the training rows lack; labels of "
            rf"train: x, y. Add rows"
        ),
    ):
        prepare_data(
            data, None, BalanceSection(), LossSection(), seed=1, cache_dir=tmp_path / "cache"
        )


def test_fingerprint_changes_with_a_text_a_label_and_a_rule(clean):
    base = clean([*TWO, "p,x"]).fingerprint
    assert clean([*TWO, "p,x"]).fingerprint == base
    assert clean([*TWO]).fingerprint == base  # the same rows are kept
    assert clean([*TWO, "p,x"], duplicates=False).fingerprint != base
    assert clean(["p,x", "r,y"]).fingerprint != base
    assert clean(["p,y", "q,x"]).fingerprint != base


@pytest.mark.parametrize(
    ("found", "order", "names"),
    [
        ({"b", "a", "C"}, None, ["C", "a", "b"]),
        ({"10", "9", "-1"}, None, ["-1", "9", "10"]),
        ({"10", "9", "x"}, None, ["10", "9", "x"]),
        ({"1", "01", "2"}, None, ["01", "1", "2"]),
        ({"10", "9.5", "-2.5", "1.10"}, None, ["-2.5", "1.10", "9.5", "10"]),
        ({"9" * 5000, "8" * 5000}, None, ["8" * 5000, "9" * 5000]),
        ({"--1", "2"}, None, ["--1", "2"]),
        ({"neg", "pos"}, ["pos", "neutral", "neg"], ["pos", "neg"]),
        ({"neg", "pos", "b", "a"}, ["pos", "neg"], ["pos", "neg", "a", "b"]),
    ],
)
def test_labels_stand_in_the_order_of_the_class_label_else_by_value_or_name(found, order, names):
    assert order_labels(found, order).names == names


def test_label_ids_are_positions_in_the_names():
    import pyarrow as pa

    labels = order_labels({"b", "a"}, None)
    ids = encode(pa.chunked_array([["b", None, "a"], ["c"]]), labels)
    assert ids.tolist() == [1, -1, 0, -1]
    assert labels.counts(np.array([1, 1, 0])).tolist() == [1, 2]


def settled_one_by_one(lines, *, duplicates, conflicts):
    """The rules of duplicates and conflicts spelt out, text by text: what each row comes to."""
    found = [KEPT] * len(lines)
    for text in {line[0] for line in lines}:
        members = [i for i, line in enumerate(lines) if line[0] == text]
        votes = Counter(lines[i][1] for i in members)
        totals = {
            label: sum(lines[i][2] or 0 for i in members if lines[i][1] == label) for label in votes
        }
        if conflicts and len(votes) > 1:
            first, second = sorted(
                votes, key=lambda label: (votes[label], totals[label]), reverse=True
            )[:2]
            tied = (votes[first], totals[first]) == (votes[second], totals[second])
            for i in members:
                if tied or lines[i][1] != first:
                    found[i] = TIE if tied else OUTVOTED
        if duplicates:
            seen = set()
            for i in members:
                if found[i] == KEPT and lines[i][1] in seen:
                    found[i] = DUPLICATE
                seen.add(lines[i][1])
    return found


@settings(
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcd"), st.sampled_from("xyz"), st.sampled_from([None, 0.5, 1, 2])
        ),
        max_size=20,
    ),
    st.booleans(),
    st.booleans(),
)
def test_repeats_are_settled_as_text_by_text(clean, lines, duplicates, conflicts):
    lines = [("p", "x", 1), ("q", "y", 1), *lines]
    rows = clean(
        [f"{text},{label},{'' if sure is None else sure}" for text, label, sure in lines],
        header="text,label,sure",
        weight_column="sure",
        duplicates=duplicates,
        conflicts=conflicts,
    )
    assert reasons(rows) == settled_one_by_one(lines, duplicates=duplicates, conflicts=conflicts)


@pytest.mark.parametrize(
    "text",
    [
        "\u200b",
        "\u200b\u200b\ufeff\u2060\u200d",
        "\u200e \u00ad",
        "\x07\x00",
        "\u00a0\u3000",
        "\u200b" * 40,
    ],
)
@pytest.mark.parametrize("strip", [True, False])
def test_texts_that_show_nothing_are_empty(clean, text, strip):
    assert reasons(clean([*TWO, f"{text},x", f"{text}.,x"], strip=strip)) == [
        KEPT,
        KEPT,
        EMPTY,
        KEPT,
    ]


@pytest.mark.parametrize("label", ["\u200b", "\ufeff \u2060"])
def test_label_that_shows_nothing_is_missing(clean, label):
    assert reasons(clean([*TWO, f"r,{label}"])) == [KEPT, KEPT, UNLABELLED]


def test_spellings_with_one_key_are_one_class_so_their_rows_are_duplicates_and_not_conflicts(clean):
    rows = clean(
        [
            "p,toxic",
            "p,toxic\u200b",
            "q,caf\u00e9",
            "r,cafe\u0301",
            "s,1.0",
            "t,1",
            "u,True",
            "v,true",
        ]
    )
    assert rows.labels.names == ["1", "caf\u00e9", "toxic", "true"]
    assert reasons(rows) == [KEPT, DUPLICATE, *[KEPT] * 6]
    assert rows.label_ids_N.tolist() == [2, 2, 1, 1, 0, 0, 3, 3]


def test_map_merges_before_votes_are_counted_and_null_drops_rows(clean):
    lines = [*TWO, "r,hate", "r,hatespeech", "r,y", "s,spam"]
    rows = clean(lines, label_map={"hatespeech": "hate", "spam": None})
    assert rows.labels.names == ["hate", "x", "y"]
    assert reasons(rows) == [KEPT, KEPT, KEPT, DUPLICATE, OUTVOTED, UNWANTED]


def test_source_of_the_map_may_be_a_label_that_cleaning_takes_away(clean):
    assert clean([*TWO, ",gone"], label_map={"gone": "x"}).labels.names == ["x", "y"]


@pytest.mark.parametrize(
    ("lines", "lost"),
    [
        (["r,x", "r,z"], {"z": {TIE: 1}}),
        (["r,x", "r,x", "r,z", ",z"], {"z": {EMPTY: 1, OUTVOTED: 1}}),
        ([",z", "NaN,z"], {"z": {EMPTY: 2}}),
    ],
)
def test_class_of_which_cleaning_leaves_no_row_is_named_with_the_reasons(clean, lines, lost):
    rows = clean([*TWO, *lines])
    assert rows.lost == lost
    assert rows.labels.names == ["x", "y"]
    with pytest.raises(
        DataError,
        match=r"^cleaning leaves no row of 'z' \(.+\)\. Fix these rows, .+ data\.drop_labels\.$",
    ):
        refuse_lost_classes(rows.lost)


def test_classes_that_keep_a_row_or_are_dropped_on_purpose_are_not_lost(clean):
    assert clean([*TWO, "r,z", "r,z"]).lost == {}
    assert clean([*TWO, "r,z", "p,z"], drop_labels=["z"]).lost == {}


def test_given_test_file_stays_whole_and_its_texts_leave_validation_and_training(clean):
    given = {
        "train": ["p,x", "q,y", "r,x", "r,x", "v,x", "t,y"],
        "validation": ["v,x", "v,x", "w,y", "w,x", "t,y"],
        "test": ["t,x", "t,y", "t,x", "u,y", ",x", "z,"],
    }
    assert reasons(clean(given)) == [
        *[KEPT, KEPT, KEPT, DUPLICATE, LEAKED, LEAKED],
        *[KEPT, KEPT, KEPT, KEPT, LEAKED],
        *[KEPT, KEPT, KEPT, KEPT, EMPTY, UNLABELLED],
    ]


def test_given_evaluation_files_are_deduplicated_and_voted_on_where_that_is_asked_for(clean):
    given = {
        "train": TWO,
        "validation": ["v,x", "v,x", "w,y"],
        "test": ["t,x", "t,y", "t,x", "u,y"],
    }
    assert reasons(clean(given, evaluation=True)) == [
        KEPT,
        KEPT,
        KEPT,
        DUPLICATE,
        KEPT,
        KEPT,
        OUTVOTED,
        DUPLICATE,
        KEPT,
    ]


def test_equal_sums_of_weights_tie_whatever_the_last_bit_says(clean):
    assert 0.1 + 0.2 != 0.15 + 0.15
    lines = ["p,x,1", "q,y,1", "r,x,0.1", "r,x,0.2", "r,y,0.15", "r,y,0.15"]
    assert reasons(clean(lines, header="text,label,sure", weight_column="sure")) == [
        KEPT,
        KEPT,
        TIE,
        TIE,
        TIE,
        TIE,
    ]


def test_weights_that_are_empty_cells_count_nothing(clean):
    lines = ["p,x,1", "q,y,1", 'r,x,""', "r,y,0.5", "s,x,", "s,y, "]
    assert reasons(clean(lines, header="text,label,sure", weight_column="sure")) == [
        KEPT,
        KEPT,
        OUTVOTED,
        KEPT,
        TIE,
        TIE,
    ]
