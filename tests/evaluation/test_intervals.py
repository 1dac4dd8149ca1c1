"""Bootstrap intervals: rows are drawn correctly, and metrics equal scikit-learn's."""

import tracemalloc

import numpy as np
import pytest
from scipy.stats import binom
from sklearn.metrics import f1_score, recall_score

from trainer.evaluation import blocks, intervals
from trainer.evaluation.intervals import interval, resample


def three_classes(num_rows=300, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.choice(3, num_rows, p=[0.6, 0.3, 0.1])
    return true, np.where(rng.random(num_rows) < 0.7, true, rng.choice(3, num_rows))


def test_resampled_f1_and_recall_are_those_of_rows_drawn_one_by_one():
    """Mean and deviation equal those of a plain bootstrap that draws rows within each class."""
    true, predicted = three_classes()
    found = resample(true, [predicted], 3, num_resamples=4000)
    rng = np.random.default_rng(1)
    by_class = [np.flatnonzero(true == c) for c in range(3)]
    drawn = [np.concatenate([rng.choice(rows, len(rows)) for rows in by_class]) for _ in range(500)]
    f1 = np.array([f1_score(true[rows], predicted[rows], average=None) for rows in drawn])
    recall = np.array(
        [recall_score(true[rows], predicted[rows], average="macro") for rows in drawn]
    )
    np.testing.assert_allclose(found.f1_BRC[:, 0].mean(axis=0), f1.mean(axis=0), atol=0.01)
    np.testing.assert_allclose(found.f1_BRC[:, 0].std(axis=0), f1.std(axis=0), rtol=0.15)
    np.testing.assert_allclose(
        interval(found.macro_f1_BR[:, 0]), np.quantile(f1.mean(axis=1), [0.025, 0.975]), atol=0.02
    )
    np.testing.assert_allclose(
        interval(found.macro_recall_BR[:, 0]), np.quantile(recall, [0.025, 0.975]), atol=0.02
    )


def test_recall_of_a_class_varies_as_a_binomial_count_of_its_rows():
    true, predicted = (
        np.repeat([0, 1], [40, 1000]),
        np.r_[np.repeat([0, 1], [10, 30]), np.ones(1000, int)],
    )
    low, high = interval(resample(true, [predicted], 2, num_resamples=5000).recall_BRC[:, 0, 0])
    assert [low * 40, high * 40] == pytest.approx(
        binom(40, 0.25).ppf([0.025, 0.975]).tolist(), abs=1.01
    )


def test_a_model_without_mistakes_has_no_interval():
    true = np.array([0, 0, 1, 2, 2])
    found = resample(true, [true], 3)
    assert (found.macro_f1_BR == 1).all()
    assert (found.accuracy_BR == 1).all()
    assert interval(found.macro_f1_BR[:, 0]) is None


def test_every_class_keeps_its_rows_so_that_one_of_a_single_row_never_vanishes():
    true, predicted = np.array([0] * 50 + [1]), np.array([0] * 50 + [1])
    assert not np.isnan(resample(true, [predicted], 2).f1_BRC).any()


def test_a_class_without_rows_is_left_out_and_has_no_interval():
    found = resample(np.array([0, 0, 1]), [np.array([0, 1, 2])], 3)
    assert interval(found.f1_BRC[:, 0, 2]) is None
    assert not np.isnan(found.macro_f1_BR).any()


def test_two_equal_models_never_differ_and_a_better_one_is_told_apart():
    true, predicted = three_classes()
    better = np.where(np.arange(len(true)) % 2, true, predicted)
    found = resample(true, [predicted, predicted.copy(), better], 3)
    assert (found.macro_f1_BR[:, 0] == found.macro_f1_BR[:, 1]).all()
    assert interval(found.macro_f1_BR[:, 2] - found.macro_f1_BR[:, 0])[0] > 0


def test_multi_label_figures_are_those_of_whole_rows_drawn_anew():
    rng = np.random.default_rng(3)
    true = rng.random((200, 3)) < [0.5, 0.3, 0.2]
    predicted = np.where(rng.random((200, 3)) < 0.8, true, ~true)
    found = resample(true, [predicted], 3, num_resamples=4000)
    drawn = rng.integers(0, 200, (500, 200))
    f1 = np.array([f1_score(true[rows], predicted[rows], average="macro") for rows in drawn])
    micro = np.array([f1_score(true[rows], predicted[rows], average="micro") for rows in drawn])
    subset = np.array([(true[rows] == predicted[rows]).all(axis=1).mean() for rows in drawn])
    np.testing.assert_allclose(
        interval(found.macro_f1_BR[:, 0]), np.quantile(f1, [0.025, 0.975]), atol=0.02
    )
    np.testing.assert_allclose(
        interval(found.accuracy_BR[:, 0]), np.quantile(subset, [0.025, 0.975]), atol=0.02
    )
    np.testing.assert_allclose(
        interval(found.micro_f1_BR[:, 0]), np.quantile(micro, [0.025, 0.975]), atol=0.02
    )


def test_draws_made_in_parts_are_those_made_at_once(monkeypatch):
    true, predicted = three_classes()
    whole = resample(true, [predicted], 3, num_resamples=100)
    monkeypatch.setattr(intervals, "MOST_COUNTS", 50)
    parts = resample(true, [predicted], 3, num_resamples=100)
    assert parts.f1_BRC.shape == whole.f1_BRC.shape
    np.testing.assert_allclose(parts.f1_BRC.mean(axis=0), whole.f1_BRC.mean(axis=0), atol=0.03)


def test_no_rows_are_refused():
    with pytest.raises(ValueError, match="no row to draw from"):
        resample(np.zeros(0, np.int64), [np.zeros(0, np.int64)], 2)


def test_kinds_of_rows_of_many_labels_are_counted_by_their_digests():
    rng = np.random.default_rng(0)
    kinds = rng.random((5, 1001)) < 0.01
    chosen = np.array([0, 1, 1, 2, 4, 4, 4, 3])
    targets, predicted = kinds[chosen], kinds[chosen[::-1]]
    found = resample(targets, [predicted], 1001, num_resamples=50)
    assert found.f1_BRC.shape == (50, 1, 1001)
    first_K, counts_K = intervals._kinds(targets, [predicted])
    pairs = {tuple(pair) for pair in np.c_[chosen, chosen[::-1]].tolist()}
    assert len(first_K) == len(pairs)
    assert counts_K.sum() == 8


def test_resampled_rows_of_many_labels_take_four_bytes_a_label(monkeypatch):
    monkeypatch.setattr(intervals, "MOST_COUNTS", 4000)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 20)
    predicted = np.random.default_rng(0).random((4000, 1001)) < 0.2  # 801,000 labels
    targets = np.roll(predicted, 1, axis=1)
    tracemalloc.start()
    found = resample(targets, [predicted], 1001, num_resamples=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 4 * predicted.sum() + 6_000_000
    assert found.accuracy_BR.max() == 0
