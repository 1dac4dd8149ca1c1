import json

import numpy as np
import pytest
from sklearn import metrics as sk

from trainer.evaluation.metrics import ImbalancedClassification, calibration_bins, evaluate_logits
from trainer.evaluation.scores import LogProbabilities, log_softmax

LABELS = ["a", "b", "c"]


def logits_for(predicted, size=3):
    return np.eye(size)[predicted] * 2.0


def test_values_worked_out_by_hand():
    # a: 2 of 3 found, b: 1 of 2 found, c: 1 of 1 found; predictions a a b | b a | c
    found = evaluate_logits(logits_for([0, 0, 1, 1, 0, 2]), np.array([0, 0, 0, 1, 1, 2]), LABELS)
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.per_class["a"] == pytest.approx(
        {"precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    )
    assert found.per_class["b"] == pytest.approx(
        {"precision": 1 / 2, "recall": 1 / 2, "f1": 1 / 2, "support": 2}
    )
    assert found.per_class["c"] == pytest.approx(
        {"precision": 1, "recall": 1, "f1": 1, "support": 1}
    )
    assert found.macro_f1 == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert found.weighted_f1 == pytest.approx((3 * 2 / 3 + 2 * 1 / 2 + 1) / 6)
    assert found.f1_gap == pytest.approx(found.weighted_f1 - found.macro_f1)
    assert found.confusion_matrix == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    right, wrong = -np.log(np.exp(2) / (np.exp(2) + 2)), -np.log(1 / (np.exp(2) + 2))
    assert found.loss == pytest.approx((4 * right + 2 * wrong) / 6)


def test_values_equal_scikit_learn_on_random_predictions():
    generator = np.random.default_rng(0)
    logits, true = generator.normal(size=(300, 3)), generator.choice(3, 300, p=[0.8, 0.15, 0.05])
    found, predicted = evaluate_logits(logits, true, LABELS), logits.argmax(axis=1)
    assert found.macro_f1 == pytest.approx(sk.f1_score(true, predicted, average="macro"))
    assert found.weighted_f1 == pytest.approx(sk.f1_score(true, predicted, average="weighted"))
    assert found.macro_precision == pytest.approx(
        sk.precision_score(true, predicted, average="macro")
    )
    assert found.balanced_accuracy == pytest.approx(sk.balanced_accuracy_score(true, predicted))
    assert found.mcc == pytest.approx(sk.matthews_corrcoef(true, predicted))
    chances = np.exp(log_softmax(logits))
    assert found.auroc_macro == pytest.approx(
        sk.roc_auc_score(true, chances, multi_class="ovr", average="macro")
    )
    assert found.loss == pytest.approx(sk.log_loss(true, chances))


def test_absent_class_is_left_out_of_macro_averages_with_a_warning():
    with pytest.warns(UserWarning, match="This split has no row of c; macro averages leave"):
        found = evaluate_logits(logits_for([0, 1, 1, 2]), np.array([0, 1, 1, 0]), LABELS)
    assert found.per_class["c"] == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert found.macro_f1 == pytest.approx((2 / 3 + 1) / 2)
    assert found.macro_recall == pytest.approx((1 / 2 + 1) / 2)
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_one_class_alone_gives_defined_values():
    with pytest.warns(UserWarning, match="no row of b, c;"):
        found = evaluate_logits(logits_for([0, 0]), np.array([0, 0]), LABELS)
    assert (found.auroc_macro, found.mcc, found.macro_f1, found.accuracy) == (0.5, 0.0, 1.0, 1.0)


def test_loss_is_finite_at_extreme_logits():
    assert evaluate_logits(
        np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([0, 0]), ["a", "b"]
    ).loss == pytest.approx(1e4)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"logits of shape \(2, 3\) for 3 rows and 3 labels"):
        evaluate_logits(np.zeros((2, 3)), np.zeros(3, int), LABELS)


def test_metric_is_an_evaluate_metric_that_needs_no_network():
    import evaluate

    metric = ImbalancedClassification(keep_in_memory=True)
    assert isinstance(metric, evaluate.Metric)
    logits = logits_for([0, 1, 2])
    values = metric.compute(
        predictions=[0, 1, 2],
        references=[0, 1, 2],
        log_probabilities=log_softmax(logits),
        labels=LABELS,
    )
    assert values["macro_f1"] == 1.0


def test_calibration_error_and_brier_score_by_hand():
    # confidences 0.9 (right), 0.9 (wrong), 0.6 (right): bins (0.9, 1/2, 2 rows) and (0.6, 1, 1 row)
    log_p = np.log([[0.9, 0.05, 0.05], [0.9, 0.05, 0.05], [0.2, 0.6, 0.2]])
    found = evaluate_logits(log_p, np.array([0, 1, 1]), LABELS)
    assert found.ece == pytest.approx((2 * 0.4 + 1 * 0.4) / 3)
    assert found.brier == pytest.approx(
        (0.1**2 + 2 * 0.05**2 + 0.9**2 + 0.95**2 + 0.05**2 + 2 * 0.2**2 + 0.4**2) / 3
    )
    bins = calibration_bins(LogProbabilities(log_p), np.array([0, 1, 1]))
    assert [rows for *_, rows in bins] == [1, 2]


def test_labels_of_a_decision_count_in_place_of_the_largest_class():
    log_p = np.log([[0.6, 0.4], [0.6, 0.4]])
    found = evaluate_logits(log_p, np.array([0, 1]), ["a", "b"], np.array([0, 1]))
    assert (found.accuracy, found.macro_f1) == (1, 1)
    assert found.ece == pytest.approx(0.1)  # of the probabilities, whatever was decided
