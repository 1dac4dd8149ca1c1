import csv
import time

import numpy as np
import pytest

from trainer.data.cleaning.near_duplicates import find_near_duplicates, shingle_hashes


@pytest.fixture(scope="module")
def texts(tweets):
    with tweets.open(encoding="utf-8", newline="") as file:
        return [row["text"] for row in csv.DictReader(file)]


def jaccard(first, second):
    """Reference on the shingles themselves."""
    a, b = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (first, second))
    return len(a & b) / len(a | b)


def test_similarity_is_the_jaccard_index_of_five_character_shingles():
    first, second = (
        "the quick brown fox jumps over the lazy dog",
        "the quick brown fox jumped over the lazy dog",
    )
    near = find_near_duplicates([first, "something else altogether", second], threshold=0.6)
    assert near.pairs_P2.tolist() == [[0, 2]]
    assert near.similarities_P == pytest.approx([jaccard(first, second)])
    assert (
        find_near_duplicates([first, second], threshold=jaccard(first, second) + 0.01).clusters
        == []
    )


def test_case_punctuation_and_white_space_make_no_difference():
    assert np.array_equal(
        shingle_hashes("Hello,  World! again"), shingle_hashes("hello world AGAIN")
    )


def test_texts_without_words_are_compared_as_they_are():
    near = find_near_duplicates(["😀😀", "😀😀", "!!!", "a", ""], threshold=0.8)
    assert [c.tolist() for c in near.clusters] == [[0, 1]]


def test_planted_copies_with_one_word_changed_are_found(texts):
    longest = sorted(texts, key=len)[-100:]
    changed = [f"{text} indeed" for text in longest]
    near = find_near_duplicates([*texts, *changed], threshold=0.8)
    found = {tuple(pair) for pair in near.pairs_P2.tolist()}
    planted = {(texts.index(text), len(texts) + i) for i, text in enumerate(longest)}
    assert len(planted & found) >= 98


def test_every_pair_that_all_pairs_comparison_finds_is_linked(texts):
    pool = [*texts[:100], *(f"rt {text}" for text in texts[:100])]
    hashes = [set(shingle_hashes(text).tolist()) for text in pool]
    near = find_near_duplicates(pool, threshold=0.8)
    wanted = [
        (i, j)
        for i in range(200)
        for j in range(i + 1, 200)
        if len(hashes[i] & hashes[j]) / len(hashes[i] | hashes[j]) >= 0.8
    ]
    linked = sum(near.cluster_ids_N[i] == near.cluster_ids_N[j] for i, j in wanted)
    assert len(wanted) > 30
    assert linked >= 0.98 * len(wanted)


def test_order_of_texts_does_not_change_the_clusters(texts):
    pool = [*texts[:60], *(f"{text} ok" for text in texts[:60])]
    turned = find_near_duplicates(pool[::-1], threshold=0.8)
    there = {
        frozenset(pool[i] for i in c) for c in find_near_duplicates(pool, threshold=0.8).clusters
    }
    assert there == {frozenset(pool[::-1][i] for i in c) for c in turned.clusters}


def test_a_template_sent_thousands_of_times_is_one_cluster_in_linear_time():
    pool = [
        (
            f"dear customer your order number {i} has been shipped from our warehouse and "
            f"will arrive soon"
        )
        for i in range(5000)
    ]
    started = time.perf_counter()
    near = find_near_duplicates(pool, threshold=0.7)
    assert len(near.clusters[0]) == 5000
    assert len(near.pairs_P2) < 40 * 5000
    assert time.perf_counter() - started < 30


def test_no_text_gives_no_cluster():
    assert find_near_duplicates([], threshold=0.8).clusters == []
