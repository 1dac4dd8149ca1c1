"""Scores read in blocks, from memory or from a file, give the same metrics as whole arrays."""

import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    f1_score,
    hamming_loss,
    matthews_corrcoef,
    roc_auc_score,
)

from trainer.errors import RunError
from trainer.evaluation import blocks
from trainer.evaluation.confusion import Confusion
from trainer.evaluation.decisions.cross_fitting import cross_fit
from trainer.evaluation.decisions.decision import Decision, DecisionPlan, fit_decision
from trainer.evaluation.metrics import evaluate_logits
from trainer.evaluation.multi_label import _average_precisions, evaluate_multi_label
from trainer.evaluation.ranking import auroc, average_precision
from trainer.evaluation.scores import Correction, LogProbabilities, log_softmax

LABELS = [f"class {c}" for c in range(7)]


@pytest.fixture(params=["in memory", "in a file"])
def small_blocks(request, monkeypatch):
    """Blocks of a few rows and columns, and arrays in memory or in a file."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 8 * 7 * 11)
    monkeypatch.setattr(blocks, "COLUMN_BYTES", 8 * 500 * 2)
    if request.param == "in a file":
        monkeypatch.setattr(blocks, "MOST_IN_MEMORY", 0)


def scores(tmp_path, num_rows=500, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    true_N = rng.integers(0, num_classes, num_rows)
    logits_NC = blocks.room((num_rows, num_classes), np.float32, tmp_path)
    logits_NC[:] = (
        rng.normal(size=(num_rows, num_classes)).round(1) + 1.5 * np.eye(num_classes)[true_N]
    )  # rounded: ties
    return logits_NC, true_N


def test_evaluation_is_that_of_scikit_learn_on_whole_arrays(small_blocks, tmp_path):
    logits_NC, true_N = scores(tmp_path)
    whole = np.array(logits_NC)
    found, predicted_N, p_NC = (
        evaluate_logits(logits_NC, true_N, LABELS),
        whole.argmax(axis=1),
        np.exp(log_softmax(whole)),
    )
    aurocs = [roc_auc_score(true_N == c, p_NC[:, c]) for c in range(7)]
    assert found.auroc_macro == pytest.approx(np.mean(aurocs), abs=1e-12)
    assert found.mcc == pytest.approx(matthews_corrcoef(true_N, predicted_N), abs=1e-12)
    assert found.loss == pytest.approx(-np.log(p_NC[np.arange(500), true_N]).mean(), abs=1e-12)
    assert found.brier == pytest.approx(
        ((p_NC - np.eye(7)[true_N]) ** 2).sum(axis=1).mean(), abs=1e-12
    )
    assert found.confusion_matrix == confusion_matrix(true_N, predicted_N).tolist()


def test_probabilities_of_folds_are_the_same_by_rows_by_columns_and_whole(small_blocks, tmp_path):
    logits_NC, _ = scores(tmp_path)
    corrections = (Correction(0.7, np.linspace(-1, 1, 7)), Correction(2.0, np.linspace(1, 0, 7)))
    fold_N = np.arange(500) % 2
    found = LogProbabilities(logits_NC, corrections, fold_N)
    whole = np.array(logits_NC).astype(np.float64)
    expected = np.where(
        fold_N[:, None] == 0,
        log_softmax(whole / 0.7 + corrections[0].shift_C),
        log_softmax(whole / 2.0 + corrections[1].shift_C),
    )
    np.testing.assert_array_equal(np.asarray(found), expected)
    np.testing.assert_allclose(
        np.column_stack([column_N for _, column_N in found.columns()]), expected, rtol=0, atol=1e-14
    )
    np.testing.assert_array_equal(
        np.asarray(found.take(np.array([400, 3, 3]))), expected[[400, 3, 3]]
    )


def test_decision_of_blocks_is_that_of_the_whole(small_blocks, tmp_path, monkeypatch):
    logits_NC, true_N = scores(tmp_path, seed=3)
    uniform = np.log(np.full(7, 1 / 7))
    plan = DecisionPlan(LABELS, uniform, temperature=True, thresholds="f1")
    in_blocks = fit_decision(logits_NC, true_N, plan)
    _, predicted_N = cross_fit(logits_NC, true_N, lambda rows: in_blocks, seed=0)
    monkeypatch.undo()
    whole = fit_decision(np.array(logits_NC), true_N, plan)
    assert in_blocks.temperature == whole.temperature
    np.testing.assert_array_equal(in_blocks.thresholds_C, whole.thresholds_C)
    assert (
        predicted_N.tolist() == whole.decide(whole.log_probabilities(np.array(logits_NC))).tolist()
    )


def test_thresholds_are_those_of_a_search_that_holds_all_quotients():
    """The search as it was: argmax over the whole matrix, class by class."""
    from trainer.evaluation.decisions import thresholds

    rng = np.random.default_rng(5)
    for seed in range(5):
        true_N = rng.integers(0, 5, 300)
        log_p = LogProbabilities(
            rng.normal(size=(300, 5)).round(1) + np.eye(5)[true_N] * (1 + seed / 4)
        )
        leaders = thresholds.Leaders(log_p)
        p_NC = np.exp(np.asarray(log_p))
        for _ in range(40):
            c, t = int(rng.integers(5)), float(rng.choice([0.1, 0.2, 0.25, 0.4]))
            leaders.move(c, t, p_NC[:, c])
            quotients = p_NC / leaders.thresholds_C
            np.testing.assert_array_equal(leaders.class_ids_2N[0], quotients.argmax(axis=1))
            for other in range(5):
                masked = quotients.copy()
                masked[:, other] = -1
                rival_N, best_N = leaders.rivals(other)
                np.testing.assert_array_equal(rival_N, masked.argmax(axis=1))
                np.testing.assert_array_equal(best_N, masked.max(axis=1))


def test_ranking_figures_are_those_of_scikit_learn_with_ties():
    rng = np.random.default_rng(1)
    for num_own in (1, 3, 200):
        own_N = np.arange(400) < num_own
        score_N = rng.normal(size=400).round(1) + own_N
        assert auroc(own_N, score_N) == pytest.approx(roc_auc_score(own_N, score_N), abs=1e-12)
        assert average_precision(own_N, score_N) == pytest.approx(
            average_precision_score(own_N, score_N), abs=1e-12
        )


def test_figures_of_several_labels_are_those_of_scikit_learn(small_blocks, tmp_path):
    logits_NC, _ = scores(tmp_path)
    rng = np.random.default_rng(2)
    true_NC = rng.random((500, 7)) < [0.5, 0.3, 0.1, 0.1, 0.05, 0.02, 0.0]
    found, given_NC, z_NC = (
        evaluate_multi_label(logits_NC, true_NC, LABELS),
        np.array(logits_NC) >= 0,
        np.array(logits_NC).astype(float),
    )
    for average in ("micro", "weighted"):
        assert getattr(found, f"{average}_f1") == pytest.approx(
            f1_score(true_NC, given_NC, average=average, zero_division=0), abs=1e-12
        )
    assert found.macro_f1 == pytest.approx(
        f1_score(true_NC, given_NC, average=None, zero_division=0)[:6].mean(), abs=1e-12
    )
    assert found.samples_f1 == pytest.approx(
        f1_score(true_NC, given_NC, average="samples", zero_division=1), abs=1e-12
    )
    assert found.hamming_loss == pytest.approx(hamming_loss(true_NC, given_NC), abs=1e-12)
    assert found.accuracy == (true_NC == given_NC).all(axis=1).mean()
    assert found.loss == pytest.approx((np.logaddexp(0, z_NC) - z_NC * true_NC).mean(), abs=1e-12)
    assert found.mean_average_precision == pytest.approx(
        np.mean([average_precision_score(true_NC[:, c], z_NC[:, c]) for c in range(6)]), abs=1e-12
    )


@pytest.mark.parametrize("num_classes", [1000, 1001])
def test_confusion_matrix_is_the_same_in_both_forms(num_classes):
    rng = np.random.default_rng(0)
    true_N, predicted_N = rng.integers(0, num_classes, (2, 3000))
    found = Confusion.count(true_N, predicted_N, num_classes)
    assert isinstance(found.plain(), list if num_classes == 1000 else dict)
    again = Confusion.read(found.plain(), num_classes)
    for name in ("true_L", "predicted_L", "counts_L"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
    expected = confusion_matrix(true_N, predicted_N, labels=np.arange(num_classes))
    np.testing.assert_array_equal(again.within(np.arange(num_classes)), expected)
    np.testing.assert_array_equal(again.within(np.array([5, 2])), expected[np.ix_([5, 2], [5, 2])])
    assert found.mcc == pytest.approx(matthews_corrcoef(true_N, predicted_N), abs=1e-12)


def test_damaged_sparse_matrix_is_refused():
    with pytest.raises(ValueError, match="no sparse matrix"):
        Confusion.read({"format": "sparse", "rows": [1], "columns": [], "counts": [2]}, 1001)


def test_array_in_a_file_leaves_no_file_behind(monkeypatch, tmp_path):
    monkeypatch.setattr(blocks, "MOST_IN_MEMORY", 0)
    held = blocks.room((10, 3), np.float32, tmp_path / "not there yet")
    held[4] = 2
    blocks.release(held)
    assert held.sum() == 6
    assert not list(tmp_path.iterdir())


def test_full_disk_is_told_in_words(monkeypatch, small_disk):
    monkeypatch.setattr(blocks, "MOST_IN_MEMORY", 0)
    with pytest.raises(
        RunError,
        match=r"no space for 0\.4 GB of scores \(No space left on device\)\. Free some space",
    ):
        blocks.room((100_000, 1000), np.float32, small_disk)


def test_decision_of_rows_is_that_of_their_log_probabilities():
    logits = np.random.default_rng(0).normal(size=(50, 3))
    decision = Decision(1.5, np.array([0.1, 0.0, -0.2]), thresholds_C=np.array([0.2, 0.3, 0.5]))
    log_p, predicted = decision.apply(logits)
    np.testing.assert_array_equal(np.asarray(log_p), decision.log_probabilities(logits))
    assert predicted.tolist() == decision.decide(decision.log_probabilities(logits)).tolist()


def test_average_precision_reads_targets_in_blocks_of_rows(small_blocks, tmp_path):
    logits_NC, true_N = scores(tmp_path)
    most = []

    class Targets:
        shape = logits_NC.shape

        def __getitem__(self, key):
            found = np.eye(7, dtype=bool)[true_N][key]
            most.append(len(found))
            return found

    found_C = _average_precisions(logits_NC, Targets())
    assert max(most) <= 11
    p_NC = 1 / (1 + np.exp(-np.array(logits_NC, np.float64)))
    assert found_C == pytest.approx(
        [average_precision_score(true_N == c, p_NC[:, c]) for c in range(7)], abs=1e-12
    )
