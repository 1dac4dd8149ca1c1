"""Multi-label decisions against brute force, known posteriors and values worked out by hand."""

import itertools
import json

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import norm
from sklearn.metrics import f1_score, log_loss, recall_score

from trainer.config.sections.balancing import DecisionSection
from trainer.errors import ConfigError, DataError
from trainer.evaluation.decisions.calibration import label_log_odds
from trainer.evaluation.decisions.cross_fitting import NUM_FOLDS, fit_and_cross_fit_labels
from trainer.evaluation.decisions.multi_label_decision import (
    MultiLabelDecision,
    MultiLabelPlan,
    cost_thresholds,
    fit_label_decision,
    plan_label_decision,
)

NAMES = ["a", "b", "c"]
SHARES = np.array([0.5, 0.3, 0.15])


def sample(num_rows, seed, levels=None):
    """Logits and label sets; with `levels`, logits of few distinct values, so that many tie."""
    generator = np.random.default_rng(seed)
    targets = generator.random((num_rows, 3)) < SHARES
    logits = (generator.normal(size=targets.shape) + 1.5 * targets - 1).astype(np.float32)
    return (np.round(logits * levels) / levels if levels else logits), targets


def fit(logits, targets, thresholds=None, **changes):
    plan = MultiLabelPlan(NAMES, np.zeros(3), thresholds=thresholds, **changes)
    return fit_label_decision(logits, targets, plan, np.ones(3, bool))


def given_at_every_cut(logits):
    """{label id: every set of rows that a threshold can give the label}."""
    return [
        [column >= cut for cut in [*np.unique(column), np.inf]] for column in np.transpose(logits)
    ]


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", [0, 1])
def test_thresholds_for_f1_are_the_best_of_all_cuts(seed, levels):
    logits, targets = sample(40, seed, levels)
    given = fit(logits, targets, "f1").apply(logits)[1]
    for c, cuts in enumerate(given_at_every_cut(logits)):
        best = max(f1_score(targets[:, c], cut, zero_division=0) for cut in cuts)
        assert f1_score(targets[:, c], given[:, c]) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "ties"])
@pytest.mark.parametrize("seed", [0, 1])
def test_thresholds_for_micro_f1_are_the_best_of_all_combinations(seed, levels):
    logits, targets = sample(14, seed, levels)
    given = fit(logits, targets, "micro_f1").apply(logits)[1]
    counts = [
        [(int((cut & targets[:, c]).sum()), int(cut.sum())) for cut in cuts]
        for c, cuts in enumerate(given_at_every_cut(logits))
    ]
    best = max(
        2 * sum(hits for hits, _ in chosen) / (sum(n for _, n in chosen) + targets.sum())
        for chosen in itertools.product(*counts)
    )
    assert f1_score(targets, given, average="micro") == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "ties"])
def test_common_threshold_has_the_best_micro_f1_of_all_cuts(levels):
    logits, targets = sample(40, 2, levels)
    decision = fit(logits, targets, "common")
    best = max(
        f1_score(targets, logits >= cut, average="micro", zero_division=0)
        for cut in np.unique(logits)
    )
    assert len(set(decision.thresholds_C)) == 1
    found = f1_score(targets, decision.apply(logits)[1], average="micro")
    assert found == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 3], ids=["distinct", "ties"])
def test_recall_is_the_highest_of_all_cuts_with_the_precision(levels):
    logits, targets = sample(60, 3, levels)
    decision = fit(logits, targets, "recall_at_precision", min_precision=0.7)
    given, short = decision.apply(logits)[1], " ".join(decision.neutral)
    for c, cuts in enumerate(given_at_every_cut(logits)):
        precise = [cut for cut in cuts if cut.any() and targets[cut, c].mean() >= 0.7]
        if not precise:
            assert f"{NAMES[c]} (precision 0.7 is not reached)" in short
            assert decision.thresholds_C[c] == decision.common
            continue
        best = max(recall_score(targets[:, c], cut) for cut in precise)
        assert recall_score(targets[:, c], given[:, c]) == pytest.approx(best, abs=1e-12)
        assert targets[given[:, c], c].mean() >= 0.7 - 1e-12


def test_a_precision_that_nothing_reaches_leaves_a_half():
    logits, targets = np.zeros((40, 3)), np.tile([True, False, False], (40, 1))
    targets[:20] = False
    decision = fit(logits, targets, "recall_at_precision", min_precision=0.9)
    assert decision.thresholds_C.tolist() == [0.5, 0.5, 0.5]
    assert len(decision.neutral) == 3


def test_thresholds_lie_in_the_middle_between_rows_in_log_odds():
    logits = np.array([[3.0], [1.0], [-2.0], [-4.0]])
    targets = np.array([[1], [1], [0], [0]]) > 0
    for thresholds in ("f1", "micro_f1", "common"):
        plan = MultiLabelPlan(["a"], np.zeros(1), thresholds=thresholds)
        found = fit_label_decision(logits, targets, plan, np.ones(1, bool))
        assert logit(found.thresholds_C) == pytest.approx([-0.5])


def test_labels_of_few_rows_keep_the_common_threshold_and_are_named():
    logits, targets = sample(300, 4)
    targets[np.flatnonzero(targets[:, 2])[19:], 2] = False
    for thresholds in ("f1", "micro_f1"):
        plan = MultiLabelPlan(NAMES, np.zeros(3), thresholds=thresholds)
        decision = fit_label_decision(logits, targets, plan)
        assert decision.thresholds_C[2] == decision.common
        assert len(set(decision.thresholds_C)) == 3
        assert decision.neutral == ("c (19 validation rows, 20 needed)",)


def test_label_without_rows_and_extreme_logits_give_finite_thresholds():
    logits = np.array([[900.0, -900.0, 40.0], [-900.0, 900.0, 39.0]] * 2, np.float32)
    targets = np.array([[1, 0, 0], [0, 1, 0]] * 2) > 0
    for thresholds in ("f1", "micro_f1", "common", "recall_at_precision"):
        decision = fit(logits, targets, thresholds, at_least_one=True, at_most=1)
        assert ((decision.thresholds_C > 0) & (decision.thresholds_C < 1)).all()
        assert (decision.apply(logits)[1].sum(axis=1) == 1).all()


def test_number_of_labels_is_decided_by_the_margin_in_log_odds():
    decision = MultiLabelDecision(
        1.0, np.zeros(3), np.array([0.5, 0.1, 0.9]), at_least_one=True, at_most=2
    )
    p = np.array(
        [
            [0.4, 0.05, 0.1],  # margins -0.41, -0.75, -4.39: the first
            [0.3, 0.09, 0.1],  # -0.85, -0.12, -4.39: the second, which has the smallest p
            [0.6, 0.5, 0.95],  # 0.41, 2.20, 0.75: the second and the third
            [0.5, 0.05, 0.1],  # p equals its threshold
        ]
    )
    assert decision.decide(np.log(p)).tolist() == [
        [True, False, False],
        [False, True, False],
        [False, True, True],
        [True, False, False],
    ]


def test_costs_give_the_labels_of_least_expected_cost():
    thresholds = cost_thresholds({"a": {"missed": 9}, "b": {"missed": 2, "wrong": 6}}, NAMES)
    assert thresholds == pytest.approx([0.1, 0.75, 0.5])
    with pytest.raises(ConfigError, match=r"decision\.costs names"):
        cost_thresholds({"x": {"missed": 9}}, NAMES)


def test_temperature_undoes_a_factor_and_has_the_least_log_loss():
    generator = np.random.default_rng(5)
    logits = generator.normal(size=(20_000, 3)) * 2
    targets = generator.random(logits.shape) < expit(logits)
    plain = fit(logits, targets, temperature=True).temperature
    sharp = fit(3 * logits, targets, temperature=True)
    assert plain == pytest.approx(1, abs=0.05)
    assert sharp.temperature == pytest.approx(3 * plain, rel=1e-3)
    for other in (0.97, 1.03):
        assert log_loss(
            targets.ravel(), np.exp(sharp.log_probabilities(3 * logits)).ravel()
        ) < log_loss(targets.ravel(), expit(3 * logits / sharp.temperature * other).ravel())


@pytest.mark.parametrize("temperature", [False, True])
@pytest.mark.parametrize("weight", [1.0, 4.0])
def test_prior_correction_gives_back_the_true_posteriors(weight, temperature):
    """A label with 1 of 10 rows is drawn as 3 of 10, with a positive weight."""
    generator = np.random.default_rng(6)
    targets = generator.random((20_000, 1)) < 0.1
    x = generator.normal(1.5 * targets)
    likelihood = norm.logpdf(x, 1.5) - norm.logpdf(x, 0)
    taught = likelihood + logit(0.3) + np.log(weight)  # what binary cross-entropy learns
    plan = plan_label_decision(
        DecisionSection(prior="natural", temperature=temperature),
        labels=["a"],
        drawn=(np.array([300]), 1000),
        natural=(np.array([100]), 1000),
        weights_2C=np.array([[1.0], [weight]]),
    )
    assert plan.target_prior_C == pytest.approx([0.1])
    assert plan.training_prior_C == pytest.approx([expit(logit(0.3) + np.log(weight))])
    found = np.exp(fit_label_decision(taught, targets, plan).log_probabilities(taught))
    assert found == pytest.approx(expit(likelihood + logit(0.1)), abs=0.03 if temperature else 1e-9)


def test_equal_weights_of_both_answers_do_not_shift_the_prior():
    counts = np.array([30, 0, 100]), 100
    plan = plan_label_decision(
        DecisionSection(prior="natural"),
        labels=NAMES,
        drawn=counts,
        natural=counts,
        weights_2C=np.full((2, 3), 5.0),
    )
    decision = fit_label_decision(*sample(50, 0), plan)
    assert decision.shift_C.tolist() == [0, 0, 0]
    assert np.isfinite(label_log_odds(*counts)).all()


def test_every_row_is_judged_by_a_decision_fitted_without_it():
    logits, targets = sample(400, 7)
    plan = MultiLabelPlan(NAMES, np.zeros(3), thresholds="f1", temperature=True)
    decision, (log_p, given) = fit_and_cross_fit_labels(logits, targets, plan, seed=0)
    whole_p, whole = decision.apply(logits)
    assert len(log_p.corrections) == NUM_FOLDS
    assert (whole != given).any()
    assert (np.asarray(log_p) != np.asarray(whole_p)).any()
    fold = int(log_p.fold_N[0])
    others = log_p.fold_N != fold
    alone = fit_label_decision(logits[others], targets[others], plan)
    assert alone.apply(logits[~others])[1].tolist() == given[~others].tolist()
    again = fit_and_cross_fit_labels(logits, targets, plan, seed=0)[1][1]
    assert again.tolist() == given.tolist()


@pytest.mark.parametrize("is_folded", [True, False])
def test_config_of_the_model_gives_the_decision_again(is_folded):
    decision = MultiLabelDecision(
        2.0, np.array([0.5, 0.0, 1.0]), np.array([0.2, 0.5, 0.8]), 0.4, ("a (few)",), True, 2
    )
    stored = json.loads(json.dumps(decision.to_config(NAMES, is_folded=is_folded)))
    read = MultiLabelDecision.from_config(stored, NAMES)
    logits = sample(50, 8)[0]
    scores = decision.correct(logits) if is_folded else logits
    assert (read.apply(scores)[1] == decision.apply(logits)[1]).all()
    assert ("temperature" in stored) is not is_folded
    assert decision.figures(NAMES)["neutral"] == ["a (few)"]


def test_model_without_a_decision_gives_labels_from_a_half():
    decision = MultiLabelDecision.from_config({}, NAMES)
    logits = np.array([[0.0, -0.001, 0.001]], np.float32)
    assert decision.apply(logits)[1].tolist() == [[True, False, True]]


def test_no_section_gives_no_plan_and_no_rows_are_an_error():
    values = {
        "labels": NAMES,
        "drawn": (np.ones(3, int), 3),
        "natural": (np.ones(3, int), 3),
        "weights_2C": np.ones((2, 3)),
    }
    assert plan_label_decision(DecisionSection(), **values) is None
    plan = plan_label_decision(DecisionSection(at_least_one=True), **values)
    with pytest.raises(DataError, match="decision needs validation rows"):
        fit_label_decision(np.zeros((0, 3)), np.zeros((0, 3), bool), plan)
