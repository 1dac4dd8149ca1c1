import json

import numpy as np
import pytest
from sklearn import metrics as sk

from trainer.evaluation.multi_label import MultiLabelEvaluation, evaluate, evaluate_multi_label
from trainer.evaluation.outcome import outcome_of
from trainer.evaluation.scores import assigned, log_sigmoid

LABELS = ["a", "b", "c"]
TRUE = np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0], [0, 1, 1]], bool)
PREDICTED = np.array([[1, 0, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]], bool)


def test_values_worked_out_by_hand():
    found = evaluate_multi_label(np.where(PREDICTED, 2.0, -2.0), TRUE, LABELS)
    # a: 2 right, 1 too many; b: 1 right, 1 missed; c: 1 right, 1 missed
    assert found.per_class["a"] == pytest.approx(
        {"precision": 2 / 3, "recall": 1, "f1": 4 / 5, "average_precision": 2 / 3, "support": 2}
    )
    assert found.per_class["b"] == pytest.approx(
        {
            "precision": 1,
            "recall": 1 / 2,
            "f1": 2 / 3,
            "average_precision": 1 / 2 + 1 / 2 * 2 / 4,
            "support": 2,
        }
    )
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3 + 2 / 3) / 3)
    assert found.micro_f1 == pytest.approx(2 * 4 / (2 * 4 + 1 + 2))
    assert found.weighted_f1 == pytest.approx(found.macro_f1)  # every label has two rows
    assert found.samples_f1 == pytest.approx(
        (1 + 2 / 3 + 1 + 1 / 2) / 4
    )  # the row without labels is given none
    assert found.accuracy == pytest.approx(2 / 4)
    assert found.hamming_loss == pytest.approx(3 / 12)
    right, wrong = np.log1p(np.exp(-2)), np.log1p(np.exp(2))
    assert found.loss == pytest.approx((9 * right + 3 * wrong) / 12)


def test_values_equal_scikit_learn_on_random_predictions():
    generator = np.random.default_rng(0)
    logits, true = generator.normal(size=(300, 3)), generator.random((300, 3)) < [0.5, 0.2, 0.05]
    found, predicted, chances = (
        evaluate_multi_label(logits, true, LABELS),
        logits >= 0,
        1 / (1 + np.exp(-logits)),
    )
    for average in ("macro", "micro", "weighted"):
        assert getattr(found, f"{average}_f1") == pytest.approx(
            sk.f1_score(true, predicted, average=average)
        )
    assert found.samples_f1 == pytest.approx(
        sk.f1_score(true, predicted, average="samples", zero_division=1)
    )
    assert found.macro_precision == pytest.approx(
        sk.precision_score(true, predicted, average="macro")
    )
    assert found.macro_recall == pytest.approx(sk.recall_score(true, predicted, average="macro"))
    assert found.mean_average_precision == pytest.approx(
        sk.average_precision_score(true, chances, average="macro")
    )
    assert found.accuracy == pytest.approx(sk.accuracy_score(true, predicted))
    assert found.hamming_loss == pytest.approx(sk.hamming_loss(true, predicted))
    assert found.loss == pytest.approx(
        np.mean([sk.log_loss(true[:, c], chances[:, c]) for c in range(3)])
    )
    assert found.f1_gap == pytest.approx(found.weighted_f1 - found.macro_f1)


def test_absent_label_is_left_out_of_macro_averages_with_a_warning():
    true = TRUE.copy()
    true[:, 2] = False
    with pytest.warns(UserWarning, match="This split has no row of c; macro averages leave"):
        found = evaluate_multi_label(np.where(PREDICTED, 2.0, -2.0), true, LABELS)
    assert found.per_class["c"] == {
        "precision": 0,
        "recall": 0,
        "f1": 0,
        "average_precision": 0,
        "support": 0,
    }
    assert found.macro_f1 == pytest.approx((4 / 5 + 2 / 3) / 2)
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_rows_without_any_label_still_give_numbers():
    with pytest.warns(UserWarning, match="no row of a, b;"):
        found = evaluate_multi_label(np.full((3, 2), -5.0), np.zeros((3, 2), bool), ["a", "b"])
    assert (found.macro_f1, found.mean_average_precision, found.samples_f1, found.accuracy) == (
        0,
        0,
        1,
        1,
    )
    assert json.dumps(found.to_dict(), allow_nan=False)


def test_loss_is_finite_at_extreme_logits():
    assert evaluate_multi_label(
        np.array([[1e4, -1e4], [-1e4, 1e4]]), np.array([[True, True], [True, True]]), ["a", "b"]
    ).loss == pytest.approx(5e3)


def test_shape_of_the_targets_decides_which_evaluation_it_is():
    logits = np.where(PREDICTED, 2.0, -2.0)
    assert isinstance(evaluate(logits, TRUE.astype(np.float32), LABELS), MultiLabelEvaluation)
    assert evaluate(logits, np.array([0, 0, 1, 2]), LABELS).confusion_matrix


def test_label_is_given_from_a_probability_of_one_half_on():
    logits = np.array([[0.0, np.log(3), -1e-3]])
    assert np.exp(log_sigmoid(logits))[0].tolist() == pytest.approx([0.5, 0.75, 0.49975])
    assert assigned(logits).tolist() == [[True, True, False]]
    assert np.isfinite(log_sigmoid(np.array([[-1e4, 1e4]], np.float32))).all()


def test_outcome_by_domain_holds_the_evaluation_of_its_rows():
    logits = np.where(PREDICTED, 2.0, -2.0)
    found = outcome_of(logits, TRUE, LABELS, None, (np.array([0, 0, 1, 1]), ["x", "y"]))
    assert found.final == evaluate_multi_label(logits, TRUE, LABELS)
    assert found.predicted_N.tolist() == PREDICTED.tolist()
    assert [found.domains[name].accuracy for name in ("x", "y")] == [0.5, 0.5]


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"logits of shape \(2, 3\) for targets of shape \(4, 3\) and 3 labels"
    ):
        evaluate_multi_label(np.zeros((2, 3)), TRUE, LABELS)
