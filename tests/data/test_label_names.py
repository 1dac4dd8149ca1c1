"""Spellings, data.label_map and data.drop_labels become classes."""

import warnings

import pytest

from trainer.data.label_names import name_labels
from trainer.errors import DataError


def test_map_renames_merges_and_drops():
    found = name_labels({"hatespeech": 4, "hate": 2, "3": 7, "spam": 1}, {"hatespeech": "hate", "3": "positive", "spam": None}, [])
    assert found.names == {"hatespeech": "hate", "hate": "hate", "3": "positive", "spam": None}
    assert found.classes == ["hate", "positive"]
    assert found.sentences() == [
        "Label 'hate' is 'hate' (2 rows), 'hatespeech' (4 rows).",
        "Label 'positive' is '3' (7 rows).",
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
    with pytest.raises(DataError, match=r"^data.label_map names hatespech; labels in the data: hatespeech, ok. Did you mean 'hatespeech'\?$"):
        name_labels({"hatespeech": 4, "ok": 2}, {"hatespech": "hate"}, [])


def test_one_label_cannot_get_two_names():
    with pytest.raises(DataError, match=r"^data.label_map maps '3' to 'a' and to 'b'. Remove one of the two.$"):
        name_labels({"3": 4, "ok": 2}, {"3": "a", "3.0": "b"}, [])


def test_labels_that_differ_in_capitals_alone_stay_apart_with_a_warning_that_names_them():
    with pytest.warns(UserWarning, match=r"'Positive' \(3 rows\), 'positive' \(9 rows\). To merge them set data.label_map: {Positive: positive}."):
        found = name_labels({"positive": 9, "Positive": 3, "negative": 1}, {}, [])
    assert found.classes == ["Positive", "negative", "positive"]


@pytest.mark.parametrize("settled", [{"label_map": {"Positive": "positive"}, "drop_labels": []}, {"label_map": {}, "drop_labels": ["Positive"]}])
def test_no_warning_of_capitals_once_they_are_settled(settled):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        name_labels({"positive": 9, "Positive": 3}, **settled)


def test_many_merges_are_told_in_a_bounded_number_of_sentences():
    found = name_labels({f"l{number}{end}": 1 for number in range(50) for end in ("", "\u200b")}, {}, [])
    assert len(found.sentences()) == 11
    assert found.sentences()[-1] == "And 40 more labels that have several spellings or a new name."
    assert name_labels({"a": 3, "b": 2}, {}, []).sentences() == []
