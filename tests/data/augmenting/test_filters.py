import csv
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest

from trainer.data.augmenting import filters
from trainer.data.augmenting.filters import (
    REASONS,
    ClassProbability,
    Filters,
    KnownTexts,
    LengthBounds,
    clean_completion,
    is_empty,
    is_refusal,
    is_repetitive,
    length_bounds,
    rows_to_fit_on,
)
from trainer.data.cleaning.near_duplicates import shingle_hashes
from trainer.data.cleaning.text_hashes import hash_texts

NO_HASHES = np.zeros(0, np.uint64)


@pytest.fixture(scope="module")
def tweet_texts(tweets):
    with tweets.open(encoding="utf-8", newline="") as file:
        return [(row["text"].strip(), row["sentiment"]) for row in csv.DictReader(file)]


@pytest.mark.parametrize(
    "text",
    [
        "As an AI language model, I do not have opinions.",
        "As a large language model I have no view on cars",
        "I'm sorry, but I cannot write that.",
        "I\u2019m sorry but I can\u2019t assist with this request",
        "I apologize, but this is not something I do.",
        "I am unable to provide such a text.",
        "I cannot create texts of hate.",
        "I'm just an AI and do not drive.",
        "Here is another text in the same style",
        "This text has been edited for clarity.",
        "A text of the category \u201cpositive\u201d about cars",
    ],
)
def test_talk_about_the_request_is_a_refusal(text):
    assert is_refusal(text)


@pytest.mark.parametrize(
    "text",
    [
        "AI will drive us all home one day",
        "I can't help but smile when I see one",
        "Sorry, I missed the launch of the car",
        "i am sorry for the taxi drivers",
        "here is my car",
        "u s grain carloadings fell in the week, the association said",
    ],
)
def test_ordinary_text_is_no_refusal(text):
    assert not is_refusal(text)


def test_no_real_tweet_is_taken_for_a_refusal_repetitive_or_empty(tweet_texts):
    assert [
        text for text, _ in tweet_texts if is_refusal(text) or is_repetitive(text) or is_empty(text)
    ] == []


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("  plain words \n", "plain words"),
        ('"Quoted words."', "Quoted words."),
        ("\u201cCurly quotes\u201d", "Curly quotes"),
        ('"one" and "two"', '"one" and "two"'),
        ("- list item", "list item"),
        ("1. numbered", "numbered"),
        ("3D printing is here", "3D printing is here"),
        ("Sure, here is one:\n\nThe text itself", "The text itself"),
        ("Here's a text of that category:\nThe text itself", "The text itself"),
        ("<think>\nwhat do they want?\n</think>\n\nThe text itself", "The text itself"),
        ("half a smile \ud83d", "half a smile ?"),
        ("First paragraph\n \nNote: second paragraph", "First paragraph"),
        ("", ""),
    ],
)
def test_completion_is_stripped_to_its_text(completion, text):
    assert clean_completion(completion, one_paragraph=True) == text


def test_paragraphs_are_kept_where_the_class_has_them():
    assert clean_completion("one\n\ntwo", one_paragraph=False) == "one\n\ntwo"


@pytest.mark.parametrize(
    ("text", "empty"),
    [
        ("", True),
        ("?! \U0001f600", True),
        ("None", True),
        ("nan", True),
        ("ok", False),
        ("\u8eca", False),
    ],
)
def test_text_without_letter_or_digit_is_empty(text, empty):
    assert is_empty(text) is empty


def test_length_bounds_are_quantiles_of_the_class_unless_given():
    texts = ["x" * length for length in range(1, 1002, 10)]  # 1, 11, ... 1001: quantiles 51 and 951
    assert length_bounds(texts, None, None) == LengthBounds(25, 951)
    assert length_bounds(texts, 5, 7) == LengthBounds(5, 7)
    assert length_bounds(["x" * 30], None, None) == LengthBounds(15, 200)


def test_repeating_text_is_found():
    assert is_repetitive("@Samsung " * 20)
    assert not is_repetitive("The best place to drink on Earth! #SportsBunflat")


def test_near_duplicate_is_decided_by_the_exact_jaccard_index():
    known = KnownTexts(0.5, NO_HASHES)
    known.add(["abcdefgh"])  # 4 shingles
    assert known.contains_similar("ABCDEFG")  # 3 of 4 shared
    assert not known.contains_similar("abcdefxyz")  # 2 of 7 shared
    assert not KnownTexts(1.0, NO_HASHES).contains_similar("abcdefgh")


def test_a_text_is_a_near_duplicate_of_itself_in_other_case_and_punctuation():
    known = KnownTexts(0.9, NO_HASHES)
    known.add(["Well, what a lovely morning!"])
    assert known.contains_similar("well what a LOVELY morning...")


def test_near_duplicates_of_real_tweets_are_those_of_a_full_comparison(tweet_texts):
    texts = [text for text, _ in tweet_texts]
    known = KnownTexts(0.6, NO_HASHES)
    known.add(texts[:120])
    bags = [set(shingle_hashes(text).tolist()) for text in texts[:120]]
    changed = (
        [text[:-6] for text in texts[:60]]
        + [f"{a[:50]} {b[:50]}" for a, b in pairwise(texts[:30])]
        + texts[120:]
    )
    for text in changed:
        own = set(shingle_hashes(text).tolist())
        assert known.contains_similar(text) == any(
            len(own & bag) >= 0.6 * len(own | bag) for bag in bags
        )


def test_exact_duplicate_is_found_among_dropped_rows_and_own_texts():
    hashes = hash_texts(
        pa.table(
            {"text": ["dropped row", "other"], "text_pair": pa.array([None, None], pa.string())}
        )
    )
    known = KnownTexts(1.0, hashes)
    assert known.contains("dropped row")
    assert not known.contains("new")
    known.add(["new"])
    assert known.contains("new")


@pytest.fixture(scope="module")
def agreement(tweet_texts):
    labels = np.array(
        [["negative", "neutral", "positive"].index(label) for _, label in tweet_texts]
    )
    return ClassProbability([text for text, _ in tweet_texts], labels)


def test_classifier_of_the_real_rows_recognises_them(agreement, tweet_texts):
    positives = [agreement.of(text, [2]) for text, label in tweet_texts if label == "positive"]
    assert all(first for _, first in positives)
    chance, first = agreement.of(
        next(text for text, label in tweet_texts if label == "positive"), [0]
    )
    assert not first
    assert chance < 0.5


def test_classifier_agrees_with_the_pipeline_built_by_hand(agreement, tweet_texts):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
    )
    features = vectorizer.fit_transform([text for text, _ in tweet_texts])
    model = LogisticRegression(class_weight="balanced", max_iter=1000).fit(
        features, [label for _, label in tweet_texts]
    )
    expected = model.predict_proba(vectorizer.transform(["I love the new cars"]))[0]
    assert [
        agreement.of("I love the new cars", [label_id])[0] for label_id in range(3)
    ] == pytest.approx(expected)


def test_each_filter_rejects_with_its_reason_in_order(agreement, tweet_texts):
    positive = next(
        text for text, label in tweet_texts if label == "positive" and 60 < len(text) < 120
    )
    negative = next(
        text for text, label in tweet_texts if label == "negative" and 60 < len(text) < 120
    )
    known = KnownTexts(0.6, NO_HASHES)
    known.add([positive])
    every = Filters(known, agreement, None)
    bounds = LengthBounds(10, 140)
    texts = [
        "",
        "As an AI, I pass",
        "short",
        "long " * 40,
        "@Samsung " * 15,
        positive,
        positive + "!!",
        negative,
    ]
    assert [every.check(text, [2], bounds)[0] for text in texts] == list(REASONS)
    assert every.check(negative, [0], bounds)[0] is None
    assert (
        every.check(negative, [0], bounds)[0] == "exact duplicate"
    )  # what was accepted is known from then on


def test_least_probability_replaces_first_choice_and_no_classifier_accepts(agreement):
    bounds = LengthBounds(1, 200)
    chance, _ = agreement.of("driverless cars", [2])
    for least, reason in ((chance - 0.01, None), (chance + 0.01, "no agreement")):
        assert Filters(KnownTexts(1.0, NO_HASHES), agreement, least).check(
            "driverless cars", [2], bounds
        ) == (reason, chance)
    assert Filters(KnownTexts(1.0, NO_HASHES), None, 0).check("driverless cars", [2], bounds) == (
        None,
        None,
    )


def test_classifier_learns_from_a_bounded_number_of_rows_of_each_class(monkeypatch):
    monkeypatch.setattr(filters, "MOST_ROWS_PER_CLASS", 2)
    labels, keys = np.array([0, 0, 0, 1]), np.array([5, 3, 4, 9], np.uint64)
    assert rows_to_fit_on(labels, keys).tolist() == [1, 2, 3]
