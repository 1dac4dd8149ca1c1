"""Temperature of calibrated logits, for every loss, weighting and label smoothing of a config."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from trainer.config.config import check_config
from trainer.config.yaml_source import YamlSource
from trainer.data.balancing.weights import WEIGHTINGS, class_weights
from trainer.evaluation.decisions.calibration import training_log_prior
from trainer.evaluation.decisions.decision import fit_decision
from trainer.evaluation.metrics import calibration_bins, evaluate_logits
from trainer.evaluation.scores import LogProbabilities, log_softmax
from trainer.runs.run_decision import decision_plan
from trainer.training.losses.one_label import LOSSES

SHARES = np.array([0.9, 0.08, 0.02])
MEANS = np.array([-1.0, 0.4, 1.6])
NAMES = ["a", "b", "c"]
COUNTS = np.array([9000, 800, 200])
PRIOR_LOSSES = [name for name in LOSSES if name != "focal"]
"""Losses that `decision.prior` can correct; the config refuses focal loss."""
SMOOTHED = [*((name, 0.0) for name in LOSSES), *((name, 0.1) for name in LOSSES if name != "focal")]
"""Losses without and with label smoothing; the config refuses it with focal loss."""


@pytest.fixture(scope="module")
def rows():
    """(log p(c | x), label ids) of 60,000 rows."""
    generator = np.random.default_rng(0)
    label_ids = generator.choice(3, 60_000, p=SHARES)
    x = generator.normal(MEANS[label_ids], 1.0)
    return log_softmax(norm.logpdf(x[:, None], MEANS) + np.log(SHARES)), label_ids


def planned(loss, weighting="none", smoothing=0.0, prior=None, tau=None):
    """What a run with this config asks of its decision, and its class weights."""
    values = {
        "model": {"name": "some/model"},
        "data": {"source": "rows.csv"},
        "loss": {"name": loss, "class_weights": weighting}
        | ({"tau": tau} if tau is not None else {}),
        "decision": {"temperature": True} | ({"prior": prior} if prior else {}),
        "training": {"label_smoothing_factor": smoothing},
    }
    weights = class_weights(COUNTS, weighting, NAMES)
    summary = SimpleNamespace(counts={"drawn": COUNTS}, natural_C=COUNTS)
    data = SimpleNamespace(
        is_multi_label=False, labels=NAMES, summary=summary, class_weights_C=weights
    )
    return decision_plan(check_config(YamlSource("test", values)), data), weights


def ece(log_p, label_ids):
    bins = calibration_bins(LogProbabilities(log_p), label_ids)
    return sum(rows * abs(confidence - accuracy) for confidence, accuracy, rows in bins) / len(
        label_ids
    )


@pytest.mark.parametrize("weighting", [*WEIGHTINGS, {"c": 4.0}], ids=str)
@pytest.mark.parametrize(("loss", "smoothing"), SMOOTHED)
def test_calibrated_logits_have_temperature_1_whatever_the_loss(rows, loss, weighting, smoothing):
    logits, label_ids = rows
    plan, _ = planned(loss, weighting, smoothing)
    decision = fit_decision(logits, label_ids, plan)
    assert decision.temperature == pytest.approx(1, abs=0.02)
    assert decision.shift_C.tolist() == [0, 0, 0]
    assert ece(decision.log_probabilities(logits), label_ids) <= ece(logits, label_ids) + 0.001


@pytest.mark.parametrize("sharpness", [0.4, 2.5])
@pytest.mark.parametrize(("loss", "smoothing"), SMOOTHED)
def test_temperature_gives_calibrated_probabilities_back(rows, loss, smoothing, sharpness):
    logits, label_ids = rows
    plan, _ = planned(loss, smoothing=smoothing)
    decision = fit_decision(sharpness * logits, label_ids, plan)
    assert decision.temperature == pytest.approx(sharpness, rel=0.02)
    after = ece(decision.log_probabilities(sharpness * logits), label_ids)
    assert after < 0.25 * ece(sharpness * logits, label_ids)


def test_temperature_minimises_the_cross_entropy_of_validation_where_the_model_is_not_calibrated():
    generator = np.random.default_rng(1)
    label_ids = generator.choice(3, 2000, p=SHARES)
    logits = 3 * np.eye(3)[label_ids] + generator.normal(0, 3, (2000, 3))
    plan, _ = planned("cross_entropy", "balanced")
    temperatures = np.exp(np.linspace(np.log(0.2), np.log(10), 41))
    found = fit_decision(logits, label_ids, plan).temperature
    losses = [evaluate_logits(logits / t, label_ids, NAMES).loss for t in (found, *temperatures)]
    assert losses[0] <= min(losses[1:])
    assert found != pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("weighting", [*WEIGHTINGS, {"c": 4.0}], ids=str)
@pytest.mark.parametrize(
    ("loss", "tau"), [*((name, None) for name in PRIOR_LOSSES), ("logit_adjusted", 0.5)]
)
def test_likelihood_times_training_prior_has_temperature_1_where_the_prior_is_corrected(
    rows, loss, tau, weighting
):
    log_p, label_ids = rows
    plan, weights = planned(loss, weighting, prior="natural", tau=tau)
    strength = {"cross_entropy": 0.0}.get(loss, 1.0) if tau is None else tau
    log_q = (
        np.log(COUNTS) + np.log(weights) - strength * np.log(SHARES)
    )  # what the loss leaves in the logits
    logits = log_p - np.log(SHARES) + log_q
    assert plan.log_q_C == pytest.approx(training_log_prior(COUNTS, weights, strength))
    decision = fit_decision(logits, label_ids, plan)
    assert decision.temperature == pytest.approx(1, abs=0.02)
    after = ece(decision.log_probabilities(logits), label_ids)
    assert after == pytest.approx(ece(log_p, label_ids), abs=0.003)
    assert after <= ece(logits, label_ids) + 0.001
