"""Spellings, data.label_map and data.drop_labels become classes."""

import warnings

import pytest
from ruamel.yaml import YAML

from trainer.data.labels.label_mapping import name_labels
from trainer.data.labels.label_normalisation import label_key
from trainer.errors import DataError


def test_map_renames_merges_and_drops():
    found = name_labels(
        {"hatespeech": 4, "hate": 2, "3": 7, "spam": 1},
        {"hatespeech": "hate", "3": "positive", "spam": None},
        [],
    )
    assert found.names == {"hatespeech": "hate", "hate": "hate", "3": "positive", "spam": None}
    assert found.classes == ["hate", "positive"]
    assert found.sentences() == [
        "Labels 'hate' (2 rows), 'hatespeech' (4 rows) are one class, 'hate'.",
        "Label '3' (7 rows) is named 'positive'.",
        "Labels removed by data.label_map: 'spam' (1 row).",
    ]


def test_labels_that_the_map_removes_are_told_with_their_rows():
    found = name_labels({"c": 20, "c\u200b": 10, "b": 3, "a": 5}, {"c": None, "b": None}, [])
    assert found.sentences() == ["Labels removed by data.label_map: 'b' (3 rows), 'c' (30 rows)."]


def test_sources_and_targets_of_the_map_are_compared_by_key():
    found = name_labels({"3.0": 4, "3": 1, "ok\u200b": 2}, {"3": "ok"}, [])
    assert found.names == {"3.0": "ok", "3": "ok", "ok\u200b": "ok"}


def test_map_is_applied_to_all_labels_at_once():
    assert name_labels({"a": 1, "b": 1}, {"a": "b", "b": "a"}, []).names == {"a": "b", "b": "a"}


def test_labels_to_drop_are_those_after_the_map():
    found = name_labels({"a": 1, "b": 1, "c": 1}, {"a": "other", "b": "other"}, ["other"])
    assert found.names == {"a": None, "b": None, "c": "c"}
    assert found.dropped == {"a", "b"}


def test_source_that_no_row_has_is_refused_with_the_nearest_name():
    with pytest.raises(
        DataError,
        match=r"^data.label_map names hatespech; labels in the data: hatespeech, ok. Did you "
        r"mean 'hatespeech'\?$",
    ):
        name_labels({"hatespeech": 4, "ok": 2}, {"hatespech": "hate"}, [])


def test_one_label_cannot_get_two_names():
    with pytest.raises(
        DataError, match=r"^data.label_map maps '3' to 'a' and to 'b'. Remove one of the two.$"
    ):
        name_labels({"3": 4, "ok": 2}, {"3": "a", "3.0": "b"}, [])


def test_labels_that_differ_in_capitals_alone_stay_apart_with_a_warning_that_names_them():
    with pytest.warns(
        UserWarning,
        match=r"'Positive' \(3 rows\), 'positive' \(9 rows\). To merge them set "
        r"data.label_map: {\"Positive\": \"positive\"}.",
    ):
        found = name_labels({"positive": 9, "Positive": 3, "negative": 1}, {}, [])
    assert found.classes == ["Positive", "negative", "positive"]


def test_spellings_that_look_alike_are_told_apart_by_escapes():
    found = name_labels({"caf\u00e9": 3, "cafe\u0301": 2, "ok\u200b": 1, "ok": 1}, {}, [])
    assert found.sentences() == [
        "Labels 'cafe\\u0301' (2 rows), 'caf\u00e9' (3 rows) are one class, 'caf\u00e9'.",
        "Labels 'ok' (1 rows), 'ok\\u200b' (1 rows) are one class, 'ok'.",
    ]


@pytest.mark.parametrize(
    "settled",
    [
        {"label_map": {"Positive": "positive"}, "drop_labels": []},
        {"label_map": {}, "drop_labels": ["Positive"]},
    ],
)
def test_no_warning_of_capitals_once_they_are_settled(settled):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        name_labels({"positive": 9, "Positive": 3}, **settled)


def test_many_merges_are_told_in_a_bounded_number_of_sentences():
    found = name_labels(
        {f"l{number}{end}": 1 for number in range(50) for end in ("", "\u200b")}, {}, []
    )
    assert len(found.sentences()) == 11
    assert found.sentences()[-1] == "And 40 more classes of several labels or with a new name."
    assert name_labels({"a": 3, "b": 2}, {}, []).sentences() == []


@pytest.mark.parametrize(
    "names",
    [
        ("hate speech", "hate  speech"),
        ("hate speech", "hate\u00a0speech"),
        ("ok", "\uff4f\uff4b"),
        ("\u2764", "\u2764\ufe0f"),
        ("a", "A", "\u24d0"),
        ("a b", "a\x00b"),
    ],
)
def test_names_that_look_alike_are_warned_of_with_a_map_that_merges_all_of_them(names):
    with pytest.warns(UserWarning, match="are classes of their own") as caught:
        name_labels({name: 9 - place for place, name in enumerate(names)}, {}, [])
    (warning,) = [str(warning.message) for warning in caught]
    given = YAML(typ="safe").load("{" + warning.split("data.label_map: {")[1].removesuffix("."))
    assert name_labels(
        {name: 9 - place for place, name in enumerate(names)}, given, []
    ).classes == [names[0]]


def test_names_that_look_like_missing_values_are_warned_of():
    with pytest.warns(
        UserWarning,
        match=r"'NaN' \(3 rows\), 'nan' \(2 rows\).* set data.label_map: {\"NaN\": null, "
        r"\"nan\": null}.$",
    ):
        name_labels({"nan": 2, "NaN": 3, "none": 1, "a": 2}, {}, [])


def test_many_groups_of_alike_names_are_a_few_warnings():
    with pytest.warns(UserWarning, match="are classes of their own") as caught:
        name_labels({f"{start}{number}": 1 for number in range(50) for start in "aA"}, {}, [])
    assert len(caught) == 5
    assert "(and 45 more such groups)" in str(caught[-1].message)


def test_work_grows_with_the_number_of_labels_and_not_with_its_square():
    def calls():
        known = label_key.cache_info()
        return known.hits + known.misses

    before = calls()
    found = name_labels(
        {f"label {number}": 1 for number in range(3_000)},
        {"label 5": "five", "label 6": "five"},
        ["label 7"],
    )
    assert len(found.classes) == 2_998
    assert found.order([f"label {number}" for number in range(4_000)])[-1] == "label 2999"
    assert calls() - before < 20 * 3_000
