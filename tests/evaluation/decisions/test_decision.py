"""Decisions against known posteriors, brute force and hand-made figures."""

import itertools
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sklearn.metrics import f1_score, precision_recall_curve

from trainer.config.sections.balancing import DecisionSection
from trainer.data.balancing.balance import METHODS, draw
from trainer.data.balancing.weights import class_weights
from trainer.errors import ConfigError, DataError
from trainer.evaluation import blocks
from trainer.evaluation.decisions import thresholds
from trainer.evaluation.decisions.calibration import (
    fit_temperature,
    natural_weights,
    target_log_prior,
    training_log_prior,
)
from trainer.evaluation.decisions.cross_fitting import cross_fit, fit_and_cross_fit
from trainer.evaluation.decisions.decision import (
    Decision,
    DecisionPlan,
    cost_matrix,
    fit_decision,
    plan_decision,
)
from trainer.evaluation.metrics import evaluate_logits
from trainer.evaluation.scores import log_softmax
from trainer.training.losses.one_label import LOSSES, loss_options

MEANS = np.array([-1.0, 0.4, 1.6])
SHARES = np.array([0.9, 0.08, 0.02])
NAMES = ["a", "b", "c"]


def sample(size, seed):
    """One feature, normal around each class's mean, and the true posterior of each row."""
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, size, p=SHARES)
    x = generator.normal(MEANS[labels], 1.0)
    joint = norm.pdf(x[:, None], MEANS[None, :]) * SHARES
    return x, labels, joint / joint.sum(axis=1, keepdims=True)


def fitted_logits(x, labels, loss, weights, counts, x_new):
    """Logits for new rows of a linear model, trained to the optimum of one of our losses.

    The model can represent the true posterior.
    """
    features = torch.tensor(np.c_[x, np.ones_like(x)], dtype=torch.float64)
    parameters = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS(
        [parameters], max_iter=300, line_search_fn="strong_wolfe", tolerance_grad=1e-9
    )
    tensors = {
        "class_weights_C": torch.tensor(weights, dtype=torch.float32),
        **loss_options(loss, {}, counts),
    }

    def closure():
        optimiser.zero_grad()
        value = LOSSES[loss](features @ parameters, torch.tensor(labels), **tensors) / len(labels)
        value.backward()
        return value

    optimiser.step(closure)
    return np.c_[x_new, np.ones_like(x_new)] @ parameters.detach().numpy()


@pytest.mark.parametrize(
    ("method", "loss", "weighting"),
    [
        ("undersample", "cross_entropy", "none"),
        ("oversample", "cross_entropy", "none"),
        ("power", "cross_entropy", "none"),
        ("none", "cross_entropy", "balanced"),
        ("none", "cross_entropy", "sqrt"),
        ("none", "logit_adjusted", "none"),
        ("undersample", "logit_adjusted", "none"),
        ("power", "logit_adjusted", "balanced"),
    ],
)
def test_prior_correction_gives_back_the_true_posteriors(method, loss, weighting):
    x, labels, _ = sample(60_000, 0)
    x_new, labels_new, posterior = sample(4000, 1)
    natural = np.bincount(labels)
    drawn = draw(
        labels,
        np.arange(len(x), dtype=np.uint64),
        METHODS[method](natural, 0.5 if method == "power" else 1.0),
        np.random.default_rng(0),
    )
    counts = np.bincount(labels[drawn])
    weights = class_weights(counts, weighting, NAMES)
    logits = fitted_logits(x[drawn], labels[drawn], loss, weights, counts, x_new)
    section = DecisionSection(prior="natural")
    tau = 1.0 if loss == "logit_adjusted" else 0.0
    plan = plan_decision(
        section, labels=NAMES, counts_C=counts, class_weights_C=weights, natural_C=natural, tau=tau
    )
    decision = fit_decision(logits, labels_new, plan)
    corrected, before = np.exp(decision.log_probabilities(logits)), np.exp(log_softmax(logits))
    assert np.abs(corrected - posterior).mean() < 0.01
    assert np.abs(before - posterior).mean() > 3 * np.abs(corrected - posterior).mean()
    assert (
        evaluate_logits(np.log(corrected), labels_new, NAMES).ece
        < 0.5 * evaluate_logits(logits, labels_new, NAMES).ece
    )


def test_training_prior_by_hand():
    counts, weights = np.array([60, 30, 10]), np.array([1.0, 2.0, 6.0])
    np.testing.assert_allclose(np.exp(training_log_prior(counts, weights)), [1 / 3] * 3)
    np.testing.assert_allclose(np.exp(training_log_prior(counts, np.ones(3), tau=1.0)), [1 / 3] * 3)
    np.testing.assert_allclose(
        np.exp(training_log_prior(counts, np.ones(3), tau=0.0)), [0.6, 0.3, 0.1]
    )
    np.testing.assert_allclose(
        np.exp(training_log_prior(counts, weights, tau=1.0)), np.array([1, 2, 6]) / 9
    )


def test_target_prior_is_natural_uniform_or_given():
    assert np.exp(
        target_log_prior("natural", np.array([3, 1]), ["x", "y"])
    ).tolist() == pytest.approx([0.75, 0.25])
    assert np.exp(
        target_log_prior("uniform", np.array([3, 1]), ["x", "y"])
    ).tolist() == pytest.approx([0.5, 0.5])
    assert np.exp(
        target_log_prior({"y": 9.0, "x": 1.0}, np.array([3, 1]), ["x", "y"])
    ).tolist() == pytest.approx([0.1, 0.9])
    with pytest.raises(ConfigError, match=r"^decision.prior names z; labels in the data: x, y.$"):
        target_log_prior({"x": 1.0, "z": 1.0}, np.array([3, 1]), ["x", "y"])
    with pytest.raises(ConfigError, match=r"^decision.prior leaves out y\. Give a share"):
        target_log_prior({"x": 1.0}, np.array([3, 1]), ["x", "y"])


def test_temperature_is_found_and_does_not_absorb_the_false_prior():
    x, labels, posterior = sample(20_000, 3)
    log_q = np.log([1 / 3] * 3)
    honest = np.log(posterior) - np.log(
        SHARES
    )  # what a perfect model trained on balanced rows says
    for t in (0.5, 1.0, 2.5):
        assert fit_temperature(honest * t, labels, np.ones(len(x)), log_q) == pytest.approx(
            t, rel=0.05
        )
    plain = fit_temperature(
        honest, labels, np.ones(len(x)), np.log(SHARES)
    )  # as if the prior had been right
    assert abs(plain - 1) > 0.1


def test_importance_weights_bring_a_balanced_validation_back_to_natural_shares():
    labels = np.array([0, 0, 1, 1])
    weights = natural_weights(labels, np.array([90, 10]))
    assert weights.tolist() == pytest.approx([1.8, 1.8, 0.2, 0.2])
    # a perfect model of natural rows, judged on balanced ones: weighted it needs no temperature
    x, y, posterior = sample(40_000, 4)
    balanced = draw(
        y,
        np.arange(len(x), dtype=np.uint64),
        METHODS["undersample"](np.bincount(y), 1.0),
        np.random.default_rng(0),
    )
    found = fit_temperature(
        np.log(posterior[balanced]),
        y[balanced],
        natural_weights(y[balanced], SHARES * 1000),
        np.log(SHARES),
    )
    assert found == pytest.approx(1, abs=0.1)


def binary(seed=0, size=800):
    generator = np.random.default_rng(seed)
    labels = (generator.random(size) < 0.15).astype(int)
    score = generator.normal(labels * 1.5, 1.0)
    p = 1 / (1 + np.exp(-(score - 2.0)))
    return np.log(np.c_[1 - p, p]), labels


def fit(logits, labels, **options):
    num_labels = logits.shape[1]
    plan = DecisionPlan(NAMES[:num_labels], np.zeros(num_labels), **options)
    return fit_decision(logits, labels, plan)


def test_two_class_f1_threshold_is_the_best_point_of_the_precision_recall_curve():
    logits, labels = binary()
    precision, recall, _ = precision_recall_curve(labels, np.exp(logits[:, 1]))
    best = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-12))
    decision = fit(logits, labels, thresholds="f1", minority=1)
    assert f1_score(labels, decision.decide(logits)) == pytest.approx(best)
    assert decision.thresholds_C.sum() == pytest.approx(1)
    assert f1_score(labels, logits.argmax(axis=1)) < best - 0.05
    at_half = np.exp(logits[:, 1]) >= decision.thresholds_C[1]
    assert (
        decision.decide(logits).tolist() == at_half.astype(int).tolist()
    )  # p / t against (1 - p) / (1 - t)


def test_two_class_threshold_gives_the_most_recall_at_a_precision():
    logits, labels = binary(1)
    precision, recall, _ = precision_recall_curve(labels, np.exp(logits[:, 1]))
    decision = fit(logits, labels, thresholds="recall_at_precision", min_precision=0.6, minority=1)
    predicted = decision.decide(logits)
    hits = ((predicted == 1) & (labels == 1)).sum()
    assert hits / predicted.sum() >= 0.6
    assert hits / labels.sum() == pytest.approx(recall[precision >= 0.6].max())


def three_classes(seed=0, size=600):
    generator = np.random.default_rng(seed)
    labels = generator.choice(3, size, p=[0.7, 0.2, 0.1])
    return log_softmax(
        np.eye(3)[labels] * 1.5 + generator.normal(0, 1.2, (size, 3)) + np.array([1.5, 0, -0.5])
    ), labels


def test_macro_f1_never_falls_and_comes_near_the_best_of_a_grid():
    logits, labels = three_classes()
    found = f1_score(labels, fit(logits, labels, thresholds="f1").decide(logits), average="macro")
    grid = np.exp(np.linspace(-3, 3, 41))
    best = max(
        f1_score(labels, (logits - np.log([1, s, t])).argmax(axis=1), average="macro")
        for s, t in itertools.product(grid, grid)
    )
    assert found > f1_score(labels, logits.argmax(axis=1), average="macro") + 0.05
    assert found > best - 0.01


def test_class_with_fewer_than_twenty_rows_keeps_the_neutral_threshold_and_is_named():
    logits, labels = three_classes(size=150)
    kept = np.r_[np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:7]]
    decision = fit(logits[kept], labels[kept], thresholds="f1")
    assert decision.neutral == ("c (7 validation rows, 20 needed)",)
    logits, labels = binary(size=60)
    decision = fit(logits, labels, thresholds="f1", minority=1)
    assert decision.thresholds_C.tolist() == [0.5, 0.5]
    assert decision.neutral[0].startswith("b (")


def test_precision_out_of_reach_is_said_and_leaves_the_threshold_neutral():
    generator = np.random.default_rng(0)
    logits, labels = log_softmax(generator.normal(size=(200, 2))), generator.integers(0, 2, 200)
    labels[logits[:, 1].argmax()] = 0
    decision = fit(logits, labels, thresholds="recall_at_precision", min_precision=1.0, minority=1)
    assert decision.neutral == ("b (precision 1 is not reached)",)
    assert decision.thresholds_C.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("seed", range(8))
def test_each_of_several_classes_reaches_the_precision_or_is_named_as_neutral(seed):
    logits, labels = three_classes(seed)
    least = 0.75
    decision = fit(logits, labels, thresholds="recall_at_precision", min_precision=least)
    predicted = decision.decide(logits)
    named = {entry.split(" ")[0] for entry in decision.neutral}
    for c in range(3):
        precision = (labels[predicted == c] == c).mean() if (predicted == c).any() else 0.0
        assert precision >= least or NAMES[c] in named
    assert len(named) < 3
    eager = fit(logits, labels, thresholds="recall_at_precision", min_precision=0.3).decide(logits)
    assert (
        f1_score(labels, eager, average="macro") > 0.3
    )  # an easy precision leaves room for recall of all


def test_cross_fitting_fits_the_thresholds_that_the_whole_validation_fits():
    logits, labels = three_classes(size=800)
    kept = np.r_[
        np.flatnonzero(labels != 2), np.flatnonzero(labels == 2)[:22]
    ]  # 22 rows in all, 17 or 18 in a fold's fit
    logits, labels = (
        logits[kept] - np.array([0, 0, 6.0]),
        labels[kept],
    )  # never predicted by a neutral rule
    plan = DecisionPlan(NAMES, np.zeros(3), thresholds="f1")
    decision, (_, predicted) = fit_and_cross_fit(logits, labels, np.ones(len(labels)), plan, seed=0)
    assert decision.neutral == ()
    assert (logits.argmax(axis=1) != 2).all()
    assert ((predicted == 2) & (labels == 2)).sum() >= 5


def test_thresholds_serve_rows_with_the_prior_asked_for_and_not_validations_own():
    _, labels, posterior = sample(4000, 5)
    logits, shares = np.log(posterior), np.bincount(labels)
    plan = plan_decision(
        DecisionSection(prior="uniform", thresholds="f1"),
        labels=NAMES,
        counts_C=shares,
        class_weights_C=np.ones(3),
        natural_C=shares,
        tau=0.0,
    )
    _, new_labels, new_posterior = sample(60_000, 6)
    even = draw(
        new_labels,
        np.arange(60_000, dtype=np.uint64),
        METHODS["undersample"](np.bincount(new_labels), 1.0),
        np.random.default_rng(0),
    )

    def macro_f1(**changes):
        decision = fit_decision(logits, labels, replace(plan, **changes))
        predicted = decision.decide(decision.log_probabilities(np.log(new_posterior[even])))
        return f1_score(new_labels[even], predicted, average="macro")

    best = f1_score(
        new_labels[even], (new_posterior[even] / SHARES).argmax(axis=1), average="macro"
    )  # Bayes for equal shares
    assert macro_f1() > best - 0.02
    assert macro_f1(log_target_C=None) < best - 0.05


def test_costs_choose_the_least_expected_cost():
    costs = cost_matrix({"b": {"a": 10.0}}, ["a", "b"])
    assert costs.tolist() == [[0, 1], [10, 0]]
    decision = fit(
        np.log([[0.95, 0.05], [0.85, 0.15]]), np.array([0, 1]), thresholds="cost", costs_CC=costs
    )
    # choosing a costs 10 p_b, choosing b costs p_a: 0.5 < 0.95 and 1.5 > 0.85
    assert decision.decide(np.log([[0.95, 0.05], [0.85, 0.15]])).tolist() == [0, 1]
    with pytest.raises(ConfigError, match=r"^decision.costs names z; labels in the data: a, b.$"):
        cost_matrix({"a": {"z": 1.0}}, ["a", "b"])


def test_each_row_is_judged_by_a_decision_fitted_without_it():
    logits, labels = three_classes(size=203)
    seen = []

    def fit_and_note(rows):
        seen.append(set(rows.tolist()))
        return fit(logits[rows], labels[rows], thresholds="f1", temperature=True)

    log_p, predicted = cross_fit(logits, labels, fit_and_note, seed=0)
    left_out = [set(range(203)) - rows for rows in seen]
    assert sorted(row for rows in left_out for row in rows) == list(range(203))
    assert len(left_out) == 5
    for rows in left_out:
        assert (np.bincount(labels[sorted(rows)], minlength=3) >= np.bincount(labels) // 5).all()
    held = sorted(left_out[0])
    decision = fit_and_note(np.array(sorted(seen[0])))
    assert (
        predicted[held].tolist()
        == decision.decide(decision.log_probabilities(logits[held])).tolist()
    )
    assert np.isfinite(log_p).all()


def test_a_decision_without_validation_rows_is_refused():
    with pytest.raises(
        DataError,
        match=r"^decision needs validation rows, and there are none. Give split.validation or ",
    ):
        fit(np.empty((0, 2)), np.empty(0, np.int64), temperature=True)


def test_a_decision_reads_back_from_the_config_of_a_saved_model():
    logits, labels = three_classes()
    decision = fit(logits, labels, thresholds="f1", temperature=True)
    values = decision.to_config(NAMES, is_folded=False)
    again = Decision.from_config(values, NAMES)
    log_p = decision.log_probabilities(logits)
    np.testing.assert_allclose(again.log_probabilities(logits), log_p)
    assert again.decide(log_p).tolist() == decision.decide(log_p).tolist()
    folded = Decision.from_config(decision.to_config(NAMES, is_folded=True), NAMES)
    assert folded.decide(log_p).tolist() == decision.decide(log_p).tolist()
    np.testing.assert_allclose(folded.log_probabilities(log_p), log_p)
    assert Decision.from_config({}, NAMES).decide(log_p).tolist() == log_p.argmax(axis=1).tolist()


@pytest.mark.parametrize("kind", ["f1", "recall_at_precision"])
def test_rivals_of_a_class_are_judged_together_and_as_one_after_the_other(kind):
    rng = np.random.default_rng(1)
    rivals, labels, weights = (
        rng.integers(0, 40, 600),
        rng.integers(0, 40, 600),
        rng.random(600) + 0.1,
    )
    calls, support = [], np.bincount(labels, weights=weights, minlength=40)

    def curve(*args, **options):
        calls.append(args)
        return thresholds.THRESHOLDS[kind](*args, **options)

    counted, curve = np.arange(40) != 7, partial(curve, min_precision=0.5)
    objective = thresholds._Objective(labels, weights, support, counted, curve)
    change = thresholds._rivals_change(rivals, labels, weights, objective)
    assert len(calls) == 2  # however many rivals there are
    for rival in range(40):
        rows = np.flatnonzero(rivals == rival)
        hit = weights[rows] * (labels[rows] == rival)
        hits = np.array([hit[k:].sum() for k in range(len(rows) + 1)])
        left = np.array([weights[rows[k:]].sum() for k in range(len(rows) + 1)])
        expected = np.diff(thresholds.THRESHOLDS[kind](hits, left, support[rival], 0.5)) * (
            rival != 7
        )
        np.testing.assert_allclose(change[rows], expected, rtol=1e-12, atol=1e-12)


def test_equal_quotients_are_taken_in_their_order():
    for num_values in (1, 5, 1000):
        values = np.random.default_rng(num_values).integers(0, num_values, 700) / 7
        np.testing.assert_array_equal(
            thresholds._descending(values), np.argsort(-values, kind="stable")
        )


def test_decision_of_logits_in_a_file_is_that_of_logits_in_memory(tmp_path, monkeypatch):
    logits, labels = three_classes(size=400)
    plan = DecisionPlan(
        NAMES, np.zeros(3), np.log([0.2, 0.3, 0.5]), temperature=True, thresholds="f1"
    )
    decision, (log_p, predicted) = fit_and_cross_fit(
        logits, labels, np.ones(len(labels)), plan, seed=0
    )
    monkeypatch.setattr(blocks, "MOST_IN_MEMORY", 0)
    monkeypatch.setattr("trainer.evaluation.decisions.cross_fitting.MOST_IN_MEMORY", 0)
    of_file, (log_p_of_file, predicted_of_file) = fit_and_cross_fit(
        logits, labels, np.ones(len(labels)), plan, seed=0, folder=tmp_path
    )
    np.testing.assert_array_equal(decision.thresholds_C, of_file.thresholds_C)
    np.testing.assert_array_equal(np.asarray(log_p), np.asarray(log_p_of_file))
    np.testing.assert_array_equal(predicted, predicted_of_file)
