"""When spellings are one label; worked out by hand."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.data.labels.label_normalisation import class_names, in_data, known_as, label_key
from trainer.errors import ConfigError, DataError

CAFE, CAFE_NFD = "caf\u00e9", "cafe\u0301"
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


@pytest.mark.parametrize(
    ("spelling", "key"),
    [
        ("1", "1"),
        ("1.0", "1"),
        ("1.000", "1"),
        ("-3.0", "-3"),
        ("01", "01"),
        ("1.10", "1.10"),
        ("1.5", "1.5"),
        ("1e3", "1e3"),
        ("1e-05", "0.00001"),
        ("-1.5E-07", "-0.00000015"),
        ("1e+16", "10000000000000000"),
        ("1.50e-05", "1.50e-05"),
        ("-0.0", "0"),
        ("-0", "0"),
        ("-00", "-00"),
        ("True", "true"),
        ("FALSE", "false"),
        ("true", "true"),
        ("Truely", "Truely"),
        (" toxic ", "toxic"),
        ("toxic\u200b", "toxic"),
        ("\ufefftoxic", "toxic"),
        ("to\u200dxic", "toxic"),
        (CAFE_NFD, CAFE),
        ("Positive", "Positive"),
        ("\u200b \u2060", ""),
        ("\u0600\u06612", "\u0600\u06612"),
    ],
)
def test_key_of_a_spelling(spelling, key):
    assert label_key(spelling) == key


@given(st.text())
def test_key_of_a_key_is_itself(label):
    assert label_key(label_key(label)) == label_key(label)


def test_flags_that_differ_in_their_tags_are_two_labels():
    england, scotland = (
        "\U0001f3f4" + "".join(chr(0xE0000 + ord(c)) for c in code) + "\U000e007f"
        for code in ("gbeng", "gbsct")
    )
    assert class_names({england: 1, scotland: 2}) == {england: england, scotland: scotland}


def test_booleans_are_not_numbers():
    assert len({label_key(label) for label in ("true", "1", "false", "0")}) == 4


def test_class_has_the_name_of_its_most_frequent_spelling():
    names = class_names({"hate\u200b": 1, "hate": 5, CAFE_NFD: 9, CAFE: 1, FAMILY: 3})
    assert names == {
        "hate\u200b": "hate",
        "hate": "hate",
        CAFE_NFD: CAFE,
        CAFE: CAFE,
        FAMILY: FAMILY,
    }


def test_joiners_within_an_emoji_survive_but_marks_at_the_ends_do_not():
    assert class_names({f"\u200b{FAMILY} ": 3, FAMILY: 2})[FAMILY] == FAMILY


def test_numbers_and_booleans_have_one_name_in_every_format():
    assert class_names({"1.0": 100, "True": 3, "2": 1}) == {"1.0": "1", "True": "true", "2": "2"}


def test_equally_frequent_spellings_are_named_by_the_key_whatever_their_order():
    assert (
        class_names({"a\u200db": 2, "ab": 2})
        == class_names({"ab": 2, "a\u200db": 2})
        == {"a\u200db": "ab", "ab": "ab"}
    )


@given(st.lists(st.text(alphabet="aA1.0 \u200b\u0301e\u00e9", max_size=5), unique=True))
def test_spellings_share_a_name_exactly_where_they_share_a_key(spellings):
    names = class_names(dict.fromkeys(spellings, 1))
    for first in spellings:
        for second in spellings:
            assert (names[first] == names[second]) == (label_key(first) == label_key(second))
        assert label_key(names[first]) == label_key(first)
        assert unicodedata.is_normalized("NFC", names[first])


def test_label_of_a_config_means_the_class_with_its_key():
    assert known_as("1.0", ["0", "1"]) == "1"
    assert known_as(CAFE_NFD, [CAFE]) == CAFE
    assert known_as("positive", ["Positive"]) is None
    assert in_data(["2.0", "1"], ["1", "2"], "data.drop_labels") == ["2", "1"]


def test_labels_that_no_class_has_are_named_together_with_the_nearest_one():
    with pytest.raises(
        DataError,
        match=r"^data.drop_labels names nutral, z; labels in the data: a, neutral. Did you "
        r"mean 'neutral'\?$",
    ):
        in_data(["z", "a", "nutral"], ["neutral", "a"], "data.drop_labels")
    with pytest.raises(ConfigError, match=r"^loss.class_weights names z; labels in the data: a.$"):
        in_data(["z"], ["a"], "loss.class_weights", ConfigError)
