"""Several labels a row: influences as of leaving a row out, variances as of a bootstrap."""

import numpy as np
import pytest

from trainer.comparison.statistics import label_set_influence
from trainer.comparison.statistics.comparison_result import LABEL_SET_METRICS
from trainer.comparison.statistics.differences import SeedPredictions, compare
from trainer.comparison.statistics.variance_components import spread
from trainer.evaluation.multi_label import evaluate_multi_label

LABELS = ["common", "usual", "rare", "absent"]
SHARES = [0.6, 0.3, 0.1, 0.0]


def rows_of(num_rows, seed=0):
    """True label sets, given label sets and probabilities of a simulated model."""
    rng = np.random.default_rng(seed)
    true_NC = rng.random((num_rows, len(LABELS))) < SHARES
    logits_NC = 3 * true_NC - 1.5 + 1.2 * rng.standard_normal(true_NC.shape)
    return true_NC, logits_NC > 0, 1 / (1 + np.exp(-logits_NC))


def evaluated(true_NC, given_NC, p_NC):
    with np.errstate(divide="ignore"):
        logits_NC = np.log(p_NC) - np.log1p(-p_NC)
    return evaluate_multi_label(logits_NC, true_NC, LABELS, given_NC)


NAMES = (*label_set_influence.SUMMARIES, "mean_average_precision")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore")
def test_influence_is_what_a_metric_loses_without_the_row(name):
    true_NC, given_NC, p_NC = rows_of(60)
    found = label_set_influence.sample(true_NC, [(given_NC[None], [p_NC])])
    values_KS, _ = found.figure(name, 2)
    whole = getattr(evaluated(true_NC, given_NC, p_NC), name)
    assert values_KS.item() == pytest.approx(whole)
    without = [
        getattr(evaluated(*(np.delete(of, row, axis=0) for of in (true_NC, given_NC, p_NC))), name)
        for row in range(60)
    ]
    if name == "mean_average_precision":
        influence_N = found.of_probabilities[name][0][0][1]
    else:
        place = np.array([label_set_influence.SUMMARIES.index(name)])
        influence_N = found.of_labels[0][0].by_row(place)
    assert influence_N == pytest.approx((whole - np.array(without)) * 59 / 60, abs=1e-12)


@pytest.mark.parametrize("name", ["macro_f1", "micro_f1", "mean_average_precision", "f1", "recall"])
@pytest.mark.filterwarnings("ignore")
def test_variance_of_a_difference_is_that_of_a_bootstrap_of_the_rows(name):
    (true_NC, *ours), (_, *theirs) = rows_of(400), rows_of(400, seed=1)
    rng = np.random.default_rng(7)
    theirs[1] = 1 / (1 + np.exp(-(3 * true_NC - 1 + 1.5 * rng.standard_normal(true_NC.shape))))
    theirs[0] = theirs[1] > 0.5
    found = label_set_influence.sample(true_NC, [(of[0][None], [of[1]]) for of in (ours, theirs)])
    get = found.of_classes if name in ("f1", "recall") else found.figure
    _, spread_KSN = get(name, np.array([1]) if name in ("f1", "recall") else 1)
    variance = np.square(spread_KSN[0, 0] - spread_KSN[1, 0]).sum()

    def value(of, rows):
        result = evaluated(true_NC[rows], of[0][rows], of[1][rows])
        if name in ("f1", "recall"):
            return result.per_class["usual"][name]
        return getattr(result, name)

    drawn = [rng.integers(400, size=400) for _ in range(400)]
    of_bootstrap = np.var([value(ours, rows) - value(theirs, rows) for rows in drawn])
    assert variance == pytest.approx(of_bootstrap, rel=0.2)


def test_the_row_of_a_label_of_one_row_is_no_surer_than_a_coin():
    true_NC = np.array([[1, 0]] * 9 + [[0, 1]], bool)
    right, wrong = true_NC.copy(), true_NC.copy()
    wrong[9, 1] = False
    found = [label_set_influence.of_label_sets(true_NC, of) for of in (right, wrong)]
    recall = np.array([len(label_set_influence.SUMMARIES) + 3])
    assert [of.by_row(recall)[9] for of in found] == [0.5, -0.5]
    variance = np.square(spread(found[0].by_row(recall), np.zeros(1, int))).sum()
    assert variance > 0.2


@pytest.mark.parametrize("metric", LABEL_SET_METRICS)
def test_strategies_for_several_labels_a_row_are_compared_by_each_metric(metric):
    true_NC, given_NC, p_NC = rows_of(300)
    rng = np.random.default_rng(3)
    worse = [rng.random(p_NC.shape) for _ in range(2)]
    given = {
        "none": SeedPredictions(np.stack([of > 0.5 for of in worse]), worse),
        "good": SeedPredictions(np.stack([given_NC] * 2), [p_NC] * 2),
    }
    found = compare(true_NC, given, LABELS, minority_label="rare", metric=metric)
    assert found.best == found.recommended == "good"
    assert found.support["absent"] == 0
    assert found.strategies["good"].per_class["absent"].f1_difference is None
    assert set(found.strategies["good"].figures) == {*LABEL_SET_METRICS}


@pytest.mark.parametrize("metric", ["mcc", "balanced_accuracy"])
def test_a_metric_of_one_label_a_row_is_refused_for_label_sets(metric):
    true_NC, given_NC, p_NC = rows_of(30)
    given = {"none": SeedPredictions(given_NC[None], [p_NC])}
    with pytest.raises(ValueError, match=f"metric is '{metric}'; known: .*mean_average_precision"):
        compare(true_NC, given, LABELS, minority_label="rare", metric=metric)
