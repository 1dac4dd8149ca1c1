"""Strategies x seeds on the same rows: the metrics are those of metrics.py, the variances those of
crossed random effects, and the recommendation fits the numbers.
"""

import json
import warnings
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import (
    balanced_accuracy_score,
    f1_score,
    matthews_corrcoef,
    recall_score,
    roc_auc_score,
)

from trainer.comparison.statistics import row_influence
from trainer.comparison.statistics.comparison_result import (
    ALL_METRICS,
    AgainstBaseline,
    AgainstBest,
    Comparison,
    Difference,
    Figure,
    Strategy,
)
from trainer.comparison.statistics.differences import SeedPredictions, compare
from trainer.comparison.statistics.recommendation import recommend
from trainer.comparison.statistics.variance_components import (
    Estimate,
    all_pairs_quantile,
    estimate,
    spread,
)
from trainer.evaluation.metrics import evaluate_logits

LABELS = ["earn", "ship", "grain"]


def true_rows(num_rows=300, seed=0):
    return np.random.default_rng(seed).choice(3, num_rows, p=[0.6, 0.3, 0.1])


def predictions(true, *, signal=1.5, seeds=3, seed=0, own=0.5):
    """Predictions of a simulated strategy; `own` is the noise of each seed."""
    rng = np.random.default_rng(seed)
    logits = (
        signal * np.eye(3)[true]
        + rng.standard_normal((len(true), 3))
        + own * rng.standard_normal((seeds, len(true), 3))
    )
    p_SNC = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    return SeedPredictions(p_SNC.argmax(axis=2), p_SNC)


def labels_alone(*predicted):
    """Predictions of which only the label counts."""
    predicted_SN = np.array(predicted)
    return SeedPredictions(predicted_SN, np.eye(3)[predicted_SN])


@pytest.fixture(scope="module")
def rows():
    return true_rows()


@pytest.fixture(scope="module")
def strategies(rows):
    return {
        "none": predictions(rows, seed=1),
        "floor": predictions(rows, seed=2),
        "weights": predictions(rows, signal=2.5, seed=3),
    }


@pytest.fixture(scope="module")
def compared(rows, strategies):
    return compare(rows, strategies, LABELS, minority_label="grain")


@pytest.mark.parametrize(
    "classes", [[0, 1, 2], [0, 2]], ids=["all classes", "a class without rows"]
)
def test_figures_are_those_of_the_evaluation_of_each_seed(rows, strategies, classes):
    kept = np.isin(rows, classes)
    found = compare(
        rows[kept],
        {
            name: SeedPredictions(of.predicted_SN[:, kept], of.p_SNC[:, kept])
            for name, of in strategies.items()
        },
        LABELS,
        minority_label="grain",
    )
    for name, given in strategies.items():
        for seed in range(3):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                expected = evaluate_logits(
                    np.log(given.p_SNC[seed, kept]),
                    rows[kept],
                    LABELS,
                    given.predicted_SN[seed, kept],
                )
            figures = {
                title: figure.of_seeds[seed]
                for title, figure in found.strategies[name].figures.items()
            }
            plain = [title for title in ALL_METRICS if not title.startswith("minority")]
            assert {title: figures[title] for title in plain} == pytest.approx(
                {title: getattr(expected, title) for title in plain}
            )
            assert figures["minority_recall"] == pytest.approx(
                expected.per_class["grain"]["recall"]
            )
            assert figures["minority_f1"] == pytest.approx(expected.per_class["grain"]["f1"])
    assert [
        found.strategies["floor"].per_class["ship"].f1_difference is None,
        found.support["ship"] == 0,
    ] == [1 not in classes] * 2


def test_influence_is_what_a_figure_loses_without_a_row_when_its_class_keeps_its_weight(
    rows, strategies
):
    predicted = strategies["none"].predicted_SN[0]
    found = row_influence.of_labels(rows, predicted, 3)
    figures = {
        "accuracy": lambda w: np.average(rows == predicted, weights=w),
        "macro_f1": lambda w: f1_score(rows, predicted, average="macro", sample_weight=w),
        "weighted_f1": lambda w: f1_score(rows, predicted, average="weighted", sample_weight=w),
        "balanced_accuracy": lambda w: balanced_accuracy_score(rows, predicted, sample_weight=w),
        "mcc": lambda w: matthews_corrcoef(rows, predicted, sample_weight=w),
        "f1 of grain": lambda w: f1_score(rows, predicted, average=None, sample_weight=w)[2],
        "recall of ship": lambda w: recall_score(rows, predicted, average=None, sample_weight=w)[1],
    }
    columns = [
        row_influence.SUMMARIES.index(title)
        if title in row_influence.SUMMARIES
        else {"f1 of grain": 7, "recall of ship": 9}[title]
        for title in figures
    ]
    for row in (0, 5, int(np.argmax(rows == 2)), int(np.argmax((rows == 1) & (predicted != 1)))):
        peers = (rows == rows[row]).sum()
        weights = np.where(rows == rows[row], peers / (peers - 1), 1.0)
        weights[row] = 0
        expected = [
            (figure(np.ones(len(rows))) - figure(weights)) * (peers - 1) / peers
            for figure in figures.values()
        ]
        assert [found.by_row(np.array([f]))[row] for f in columns] == pytest.approx(
            expected, abs=1e-12
        )


def test_group_of_all_classes_has_the_interval_of_macro_f1_and_others_the_mean_difference():
    rng = np.random.default_rng(0)
    true, labels = np.repeat(np.arange(4), 12), list("abcd")
    runs = {
        name: np.where(rng.random((3, 48)) < right, true, rng.integers(0, 4, (3, 48)))
        for name, right in {"none": 0.4, "weights": 0.8}.items()
    }
    found = compare(
        true,
        {name: SeedPredictions(ids_SN, np.eye(4)[ids_SN]) for name, ids_SN in runs.items()},
        labels,
        minority_label="d",
        groups={"all": labels, "tail": ["c", "d"]},
    )
    weights = found.strategies["weights"]
    same = asdict(weights.per_group["all"].difference)
    assert same == pytest.approx(asdict(weights.differences["macro_f1"]))
    of_classes = [weights.per_class[label].f1_difference.difference for label in "cd"]
    assert weights.per_group["tail"].difference.difference == pytest.approx(np.mean(of_classes))
    assert found.strategies["none"].per_group["tail"].difference is None
    assert found.to_dict()["groups"]["tail"] == ["c", "d"]


def test_groups_of_unknown_labels_are_refused():
    seeds = SeedPredictions(np.zeros((1, 2), int), np.zeros((1, 2, 2)))
    with pytest.raises(ValueError, match="groups: 'tail' holds c; known: a, b"):
        compare(
            np.array([0, 1]),
            {"none": seeds},
            list("ab"),
            minority_label="b",
            groups={"tail": ["c"]},
        )


@pytest.mark.parametrize("title", ["auroc_macro", "ece", "macro_f1", "mcc"])
def test_variance_by_rows_is_that_of_a_bootstrap_of_the_rows(rows, strategies, title):
    """Rows drawn one by one within each class, jointly for both seeds; probabilities far too sure,
    since about 0 the calibration error is no sum.
    """
    p_SNC = strategies["none"].p_SNC[:2] ** 5
    p_SNC /= p_SNC.sum(axis=2, keepdims=True)
    _, spread_KSN = row_influence.sample(rows, [(p_SNC.argmax(axis=2), p_SNC)], 3).figure(title, 2)
    found = np.square(spread_KSN[0].mean(axis=0)).sum()
    rng, by_class = np.random.default_rng(0), [np.flatnonzero(rows == c) for c in range(3)]
    drawn = []
    for _ in range(200):
        chosen = np.concatenate([rng.choice(of, len(of)) for of in by_class])
        again = row_influence.sample(
            rows[chosen], [(p_SNC[:, chosen].argmax(axis=2), p_SNC[:, chosen])], 3
        ).figure(title, 2)[0]
        drawn.append(again.mean())
    assert np.sqrt(found) == pytest.approx(np.std(drawn), rel=0.15)


def test_auroc_varies_by_rows_as_delong_says():
    """Two classes: variance of the placements of either over its rows; DeLong et al. 1988, equation
    5.
    """
    rng = np.random.default_rng(0)
    true, score = np.repeat([0, 1], [40, 25]), np.r_[rng.random(40), rng.random(25) + 0.3]
    p_NC = np.column_stack([1 - score, score])
    value, by_row = row_influence.of_auroc(true, p_NC)
    wins = (score[40:, None] > score[:40]).astype(float)
    assert value == pytest.approx(roc_auc_score(true, score))
    delong = wins.mean(axis=0).var(ddof=1) / 40 + wins.mean(axis=1).var(ddof=1) / 25
    assert np.square(spread(by_row, np.array([0, 40]))).sum() == pytest.approx(delong)


def test_auroc_of_a_single_row_is_no_surer_than_a_coin():
    """The row of class 1 above three of four others: AUROC 3/4 of either class, 1/4 from a coin's;
    the others about their mean.
    """
    score = np.array([0.1, 0.2, 0.3, 0.9, 0.5])
    value, by_row = row_influence.of_auroc(
        np.array([0, 0, 0, 0, 1]), np.column_stack([1 - score, score])
    )
    assert [value, *by_row] == pytest.approx([3 / 4, *[1 / 16] * 3, -3 / 16, 1 / 4])


def test_variances_are_those_of_a_two_way_analysis_of_variance():
    """Seeds x rows, one observation each: var(mean) = (MS_seed + MS_row - MS_both) / (S N), and of
    the parts (Searle et al. 1992, ch. 4).
    """
    rng = np.random.default_rng(0)
    seeds, num_rows = 4, 60
    table = (
        rng.standard_normal((seeds, 1))
        + rng.standard_normal(num_rows)
        + 0.5 * rng.standard_normal((seeds, num_rows))
    )
    grand, by_seed, by_row = table.mean(), table.mean(axis=1), table.mean(axis=0)
    ms_seed = num_rows * np.square(by_seed - grand).sum() / (seeds - 1)
    ms_row = seeds * np.square(by_row - grand).sum() / (num_rows - 1)
    ms_both = (
        np.square(table - by_seed[:, None] - by_row + grand).sum() / (seeds - 1) / (num_rows - 1)
    )
    found = estimate(by_seed, spread(table / num_rows, np.array([0])), np.array([0]))
    assert found.deviation**2 == pytest.approx((ms_seed + ms_row - ms_both) / seeds / num_rows)
    assert found.row_variance == pytest.approx((ms_row - ms_both) / seeds / num_rows)
    freedom = (ms_seed + ms_row - ms_both) ** 2 / (
        ms_seed**2 / (seeds - 1) + (ms_row - ms_both) ** 2 / (num_rows - 1)
    )
    assert found.degrees_of_freedom == pytest.approx(freedom)


def test_two_seeds_on_four_rows_by_hand():
    """Accuracy 1/2 and 1 against 0: mean 3/4, seeds' variance 1/8 / 2 = 1/16; rows' 1/12 / 4 =
    1/48, all of it what seeds and rows do together.
    """
    true = np.zeros(4, int)
    given = {"none": labels_alone([1] * 4, [1] * 4), "weights": labels_alone([0, 0, 1, 1], [0] * 4)}
    found = (
        compare(true, given, LABELS, minority_label="grain", metric="accuracy")
        .strategies["weights"]
        .against_baseline
    )
    assert [
        found.difference,
        found.seed_variance,
        found.row_variance,
        found.degrees_of_freedom,
    ] == pytest.approx([3 / 4, 1 / 16, 0, 1])
    assert [found.low, found.high, found.p] == pytest.approx(
        [-1, 1, 1 - 2 * np.arctan(3) / np.pi]
    )  # Cauchy; cut to what accuracy can differ by


def test_false_alarms_are_rare_where_rows_alone_would_raise_many():
    """Two equal strategies, 3 seeds, their noise above that of 50 rows."""
    rng, starts = np.random.default_rng(0), np.array([0])
    alarms, by_rows = 0, 0
    for _ in range(400):
        table = (
            0.3 * rng.standard_normal((3, 1))
            + rng.standard_normal(50)
            + 0.5 * rng.standard_normal((3, 50))
        )
        found = estimate(table.mean(axis=1), spread(table / 50, starts), starts)
        alarms += found.p < 0.05
        by_rows += abs(found.value) > 1.96 * np.sqrt(table.mean(axis=0).var(ddof=1) / 50)
    assert alarms <= 0.075 * 400 < 0.1 * 400 < by_rows


def test_holm_multiplies_the_smallest_p_by_the_number_of_strategies_and_never_falls(rows):
    given = {"none": predictions(rows, seed=1)} | {
        f"s{k}": predictions(rows, signal=1.5 + 0.15 * k, seed=k + 10) for k in range(4)
    }
    found = compare(rows, given, LABELS, minority_label="grain").strategies
    against = sorted((found[f"s{k}"].against_baseline for k in range(4)), key=lambda of: of.p)
    expected = np.maximum.accumulate(
        [min(1, of.p * (4 - place)) for place, of in enumerate(against)]
    )
    assert [of.p_holm for of in against] == pytest.approx(expected)
    assert [of.is_reliable for of in against] == [p < 0.05 for p in expected]
    assert found["none"].against_baseline is None


def test_strategies_left_out_because_of_these_rows_count_for_the_adjustment(rows):
    given = {"none": predictions(rows, seed=1), "s": predictions(rows, signal=1.8, seed=10)}
    alone, among_five = (
        compare(rows, given, LABELS, minority_label="grain", num_left_out=left_out)
        for left_out in (0, 4)
    )
    assert (alone.num_tests, among_five.num_tests) == (1, 5)
    p, adjusted = (of.strategies["s"].against_baseline.p_holm for of in (alone, among_five))
    assert adjusted == pytest.approx(min(1, 5 * p))


def test_intervals_of_all_pairs_are_as_wide_as_tukeys_where_strategies_vary_alike():
    rng = np.random.default_rng(0)
    influence_KSN = rng.standard_normal((4, 1, 5000)) / 5000
    found = all_pairs_quantile(
        np.zeros((4, 1)), spread(influence_KSN, np.array([0])), np.array([0])
    )
    assert found == pytest.approx(stats.studentized_range.ppf(0.95, 4, 4999) / np.sqrt(2), rel=0.02)


def test_intervals_of_all_pairs_are_as_wide_as_tukeys_of_three_seeds():
    """Seeds alone: every strategy is better with one seed of its own, so that all pairs vary alike,
    with 2 degrees of freedom.
    """
    found = all_pairs_quantile(np.eye(3), np.zeros((3, 3, 10)), np.array([0]))
    assert found == pytest.approx(stats.studentized_range.ppf(0.95, 3, 2) / np.sqrt(2), rel=0.03)


def test_the_pair_with_the_fewest_degrees_of_freedom_sets_the_width_of_all():
    """The first two differ by rows alone, 4999 degrees; either differs from the third by
    seeds, 2.
    """
    spread_KSN = np.zeros((3, 3, 5000))
    spread_KSN[1] = spread(np.random.default_rng(0).standard_normal(5000) / 5000, np.array([0]))
    values_KS = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, -1.0]])
    assert (
        all_pairs_quantile(values_KS, spread_KSN, np.array([0]))
        >= stats.t.ppf(0.975, 2)
        > 4
        > stats.t.ppf(0.975, 4999)
    )


def test_intervals_against_the_best_are_wider_than_one_alone_unless_two_are_compared(
    rows, strategies, compared
):
    found, three = compared.strategies, compared.strategies["none"].against_best
    assert compared.best == "weights"
    assert found["weights"].against_best is None
    alone = found["weights"].against_baseline
    assert three.high - three.low > alone.high - alone.low
    two = (
        compare(
            rows,
            {name: strategies[name] for name in ("none", "weights")},
            LABELS,
            minority_label="grain",
        )
        .strategies["none"]
        .against_best
    )
    assert [two.low, two.high] == pytest.approx([-alone.high, -alone.low], abs=2e-3)
    assert two.is_distinguishable


def test_the_order_of_the_rows_does_not_matter(rows, strategies, compared):
    order = np.random.default_rng(0).permutation(len(rows))
    shuffled = {
        name: SeedPredictions(of.predicted_SN[:, order], of.p_SNC[:, order])
        for name, of in strategies.items()
    }
    found = compare(rows[order], shuffled, LABELS, minority_label="grain")
    for name, strategy in compared.strategies.items():
        assert flat(found.strategies[name]) == pytest.approx(flat(strategy), nan_ok=True, abs=1e-6)


def flat(strategy):
    """Its figures, differences and intervals in a row."""
    parts = [
        *strategy.figures.values(),
        *strategy.differences.values(),
        *filter(None, [strategy.against_best, strategy.against_baseline]),
    ]
    return [
        float(value)
        for part in parts
        for value in vars(part).values()
        if isinstance(value, int | float)
    ]


def test_strategies_that_do_not_vary_by_seed_have_the_interval_of_their_rows(rows):
    once = {
        "none": predictions(rows, seeds=1, seed=1),
        "head": predictions(rows, signal=2.5, seeds=1, seed=2),
    }
    thrice = {
        name: SeedPredictions(np.repeat(of.predicted_SN, 3, axis=0), np.repeat(of.p_SNC, 3, axis=0))
        for name, of in once.items()
    }
    one, three = (
        compare(rows, given, LABELS, minority_label="grain").strategies["head"]
        for given in (once, thrice)
    )
    assert three.against_baseline.seed_variance == 0
    assert vars(three.against_baseline) == pytest.approx(vars(one.against_baseline))
    assert (one.figures["macro_f1"].seed_deviation, three.figures["macro_f1"].seed_deviation) == (
        None,
        pytest.approx(0, abs=1e-12),
    )


@pytest.mark.parametrize("num_rows", [7, 100])
def test_where_nothing_varies_nothing_is_told(num_rows):
    """All rows of a class right on one side and wrong on the other, and equal predictions: no
    interval, whatever rounding leaves.
    """
    true = np.repeat([0, 2], [50, num_rows])
    given = {
        "none": labels_alone(np.zeros_like(true)),
        "same": labels_alone(np.zeros_like(true)),
        "weights": labels_alone(true),
    }
    found = compare(true, given, LABELS, minority_label="grain", metric="minority_recall")
    assert found.strategies["weights"].against_baseline == AgainstBaseline(
        1.0, None, None, 1.0, 1.0, None, 0.0, 0.0, False
    )
    assert found.strategies["same"].differences["macro_f1"] == Difference(0.0, None, None)
    assert found.strategies["none"].against_best == AgainstBest(-1.0, None, None, False)
    assert (
        ": weights is the highest with +1.00 over none (Holm-adjusted p 1.000); none is the "
        "simplest choice." in recommend(found, {})
    )


def test_the_row_of_a_class_of_one_is_no_surer_than_a_coin():
    """F1 of none: 1, 1, 1, or 0 for the last were its row wrong; of floor: 40/41, 1, 0, or 1, 1, 1
    were it right. Half of each change is its influence.
    """
    true = np.array([0] * 20 + [1] * 10 + [2])
    given = {"none": labels_alone(true), "floor": labels_alone(np.array([0] * 20 + [1] * 10 + [0]))}
    found = compare(true, given, LABELS, minority_label="grain").strategies["floor"]
    against, deviation = found.against_baseline, (1 + 42 / 41) / 6
    assert [against.difference, against.row_variance, against.degrees_of_freedom] == pytest.approx(
        [-42 / 41 / 3, deviation**2, 1]
    )
    assert against.p == pytest.approx(1 - 2 / np.pi * np.arctan(42 / 41 / 3 / deviation))  # Cauchy
    assert found.figures["minority_recall"] == Figure(0.0, None, [0.0], 0.0, 1.0)


def test_a_class_of_one_row_raises_no_false_alarms():
    """Equal strategies that are each right on the one row, with all seeds, in half of the cases: a
    quarter of macro F1, far above what 475 others vary by.
    """
    rng, true, alarms = np.random.default_rng(0), np.repeat(np.arange(4), [275, 135, 65, 1]), 0
    starts = np.unique(true, return_index=True)[1]
    for _ in range(100):
        right_KSN = np.concatenate(
            [rng.random((2, 3, 475)) < 0.8, np.repeat(rng.random((2, 1, 1)) < 0.5, 3, axis=1)],
            axis=2,
        )
        predicted_KSN = np.where(right_KSN, true, rng.integers(3, size=right_KSN.shape))
        both = [
            [row_influence.of_labels(true, predicted_N, 4) for predicted_N in predicted_SN]
            for predicted_SN in predicted_KSN
        ]
        values_KS, spread_KSN = row_influence.Sample(starts, both, {}).figure("macro_f1", 3)
        alarms += (
            estimate(values_KS[1] - values_KS[0], spread_KSN[1] - spread_KSN[0], starts).p < 0.05
        )
    assert alarms <= 8


def test_only_one_class_has_no_auroc_to_tell():
    true = np.zeros(5, int)
    figure = (
        compare(true, {"none": labels_alone(true)}, LABELS, minority_label="grain")
        .strategies["none"]
        .figures["auroc_macro"]
    )
    assert figure == Figure(0.5, None, [0.5], None, None)


def test_a_comparison_is_plain_values_that_json_holds(compared):
    found = json.loads(json.dumps(compared.to_dict(), allow_nan=False))
    assert (
        found["best"],
        found["num_rows"],
        found["num_seeds"],
        sum(found["support"].values()),
    ) == ("weights", 300, 3, 300)
    assert list(found["strategies"]) == ["none", "floor", "weights"]
    weights = found["strategies"]["weights"]
    assert set(weights["figures"]) == set(weights["differences"]) == {*ALL_METRICS}
    assert weights["against_baseline"]["difference"] == pytest.approx(
        weights["figures"]["macro_f1"]["mean"]
        - found["strategies"]["none"]["figures"]["macro_f1"]["mean"]
    )
    assert set(weights["per_class"]) == set(LABELS)
    assert found["strategies"]["none"]["differences"] == {}


GAIN = Difference(0.11, 0.08, 0.14)
NO_COST = Difference(0.0, -0.01, 0.01)


def told(
    *,
    none=0.60,
    seeds=5,
    accuracy=NO_COST,
    recall=NO_COST,
    metric="macro_f1",
    support=None,
    **others,
):
    """A comparison of given differences from none: {strategy: (difference, p after Holm, whether it
    is distinguishable from the best)}.
    """
    level = {"none": none} | {
        name: none + difference.difference for name, (difference, *_) in others.items()
    }
    best = max(level, key=level.get)
    strategies = {}
    for name, mean in level.items():
        difference, p, apart = others.get(name, (NO_COST, 1.0, True))
        against = AgainstBaseline(
            **vars(difference),
            p=p,
            p_holm=p,
            degrees_of_freedom=9.0,
            seed_variance=0.0,
            row_variance=1.0,
            is_reliable=p < 0.05,
        )
        strategies[name] = Strategy(
            {metric: Figure(mean, 0.01, [mean], mean - 0.05, mean + 0.05)},
            {"accuracy": accuracy, "minority_recall": recall},
            None if name == "none" else against,
            None
            if name == best
            else AgainstBest(mean - level[best], None, None, is_distinguishable=apart),
            {},
        )
    return Comparison(
        metric,
        "none",
        best,
        0.95,
        400,
        len(strategies) - 1,
        seeds,
        LABELS,
        support or {},
        "grain",
        strategies,
    )


@pytest.mark.parametrize(
    ("comparison", "seconds", "words"),
    [
        (told(weights=(GAIN, 0.001, True)), {}, "weights: +0.11 macro F1 [0.08, 0.14] over none."),
        (
            told(
                weights=(GAIN, 0.001, True),
                undersample=(Difference(0.1, 0.05, 0.15), 0.01, False),
                accuracy=Difference(-0.009, -0.014, -0.004),
            ),
            {"none": 10.0, "weights": 11.9},
            "weights: +0.11 macro F1 [0.08, 0.14] over none; undersample is not distinguishable "
            "from it; costs 0.9 points of accuracy.",
        ),
        (
            told(
                weights=(GAIN, 0.001, True),
                a=(Difference(0.1, 0.05, 0.15), 0.01, False),
                b=(Difference(0.09, 0.0, 0.2), 0.06, False),
                recall=Difference(0.3, 0.2, 0.4),
                seeds=1,
            ),
            {"none": 10.0, "weights": 15.0},
            "weights: +0.11 macro F1 [0.08, 0.14] over none (with one seed: for these trainings "
            "alone, others may differ); "
            "a and b are not distinguishable from it; recall of grain +0.30 [0.20, 0.40]; trains "
            "1.5 times as long as none.",
        ),
        (
            told(
                noisy=(Difference(0.2, -0.1, 0.5), 0.2, True),
                weights=(GAIN, 0.001, False),
                twin=(GAIN, 0.001, False),
                c=(NO_COST, 1.0, False),
            ),
            {},
            "weights: +0.11 macro F1 [0.08, 0.14] over none; noisy is higher (+0.20 [-0.10, "
            "0.50]), but not reliably better than none; "
            "twin is reliably better than none too (+0.11 [0.08, 0.14]).",
        ),
        (
            told(
                weights=(GAIN, 0.001, True),
                undersample=(Difference(-0.1, -0.15, -0.05), 0.01, False),
                accuracy=Difference(-0.0004, -0.0006, -0.0002),
            ),
            {},
            "weights: +0.11 macro F1 [0.08, 0.14] over none; undersample is reliably worse (-0.10 "
            "[-0.15, -0.05]).",
        ),
        (
            told(
                oversample=(Difference(0.01, -0.02, 0.04), 0.52, False),
                undersample=(Difference(-0.1, -0.15, -0.05), 0.01, True),
            ),
            {},
            "No strategy is reliably better in macro F1: oversample is the highest with +0.01 "
            "[-0.02, 0.04] over none (Holm-adjusted p 0.520); "
            "undersample is reliably worse (-0.10 [-0.15, -0.05]); none is the simplest choice.",
        ),
        (
            told(
                undersample=(Difference(-0.1, -0.15, -0.05), 0.01, True),
                floor=(Difference(-0.01, -0.04, 0.02), 0.5, False),
            ),
            {},
            "No strategy is reliably better in macro F1: none is the highest itself, and the "
            "simplest choice; "
            "undersample is reliably worse (-0.10 [-0.15, -0.05]).",
        ),
        (
            told(
                floor=(Difference(-0.01, -0.04, 0.02), 0.5, False),
                seeds=1,
                support={"earn": 9, "z": 1},
            ),
            {},
            "No reliable difference in macro F1 (with one seed: for these trainings alone, others "
            "may differ): "
            "none is the highest itself, and the simplest choice; 'z' has 1 row: its F1 says "
            "little.",
        ),
        (
            told(
                floor=(Difference(0.00002, -0.02, 0.00004), 0.5, False),
                support={"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 2},
            ),
            {},
            "No reliable difference in macro F1: floor is the highest with +0.0000 [-0.0200, "
            "0.0000] over none (Holm-adjusted p 0.500); "
            "none is the simplest choice; 'a', 'b', 'c' and 2 more have 1 row each: their F1 says "
            "little.",
        ),
        (told(), {}, "none alone was compared: nothing to choose from."),
        (
            told(
                weights=(Difference(0.004, 0.002, 0.006), 0.01, True),
                metric="accuracy",
                accuracy=Difference(-0.1, -0.2, -0.05),
            ),
            {},
            "weights: +0.004 accuracy [0.002, 0.006] over none, a small gain.",
        ),
        (
            told(weights=(Difference(0.0003, 0.0001, 0.0005), 0.01, True)),
            {},
            "weights: +0.0003 macro F1 [0.0001, 0.0005] over none, a small gain.",
        ),
        (
            told(weights=(Difference(0.3, -0.002, 0.6), 0.0004, True)),
            {},
            "weights: +0.300 macro F1 [-0.002, 0.600] over none.",
        ),
    ],
    ids=[
        "gain",
        "cost",
        "one seed",
        "noisy best",
        "worse",
        "no difference",
        "none is best",
        "none is highest",
        "tiny",
        "alone",
        "small",
        "smaller",
        "near 0",
    ],
)
def test_the_last_line_says_what_to_use_and_how_sure_that_is(comparison, seconds, words):
    assert recommend(comparison, seconds) == words


def test_a_tie_goes_to_the_baseline(rows, strategies):
    found = compare(
        rows,
        {"copy": strategies["none"], "none": strategies["none"]},
        LABELS,
        minority_label="grain",
    )
    assert (found.best, found.recommended) == ("none", "none")


def test_seeds_that_happen_to_agree_are_not_believed_where_rows_say_otherwise():
    """Two seeds of equal means whose rows say the opposite: variance 1/3 for each seed, 0 for their
    mean, so all 1/3 is shared; three quarters count.
    """
    found = estimate(
        np.array([0.5, 0.5]),
        spread(np.array([[1.0, -1, 1, -1], [-1, 1, -1, 1]]) / 4, np.array([0])),
        np.array([0]),
    )
    assert found == Estimate(0.5, pytest.approx(3 / 4 / 3), 0.0, 1.0)


@pytest.mark.parametrize(
    ("change", "options", "words"),
    [
        (
            {},
            {"metric": "macro_f2"},
            r"metric is 'macro_f2'; known: accuracy, .* Did you mean 'macro_f1'\?",
        ),
        ({}, {"baseline": "plain"}, "baseline is 'plain'; known: floor, none, weights"),
        ({}, {"minority_label": "wheat"}, "minority_label is 'wheat'; known: earn, grain, ship"),
        (
            {"floor": lambda of: replace(of, predicted_SN=of.predicted_SN[:2])},
            {},
            "floor has 2 seeds and none 3; seeds are paired, so leave out",
        ),
        (
            {"floor": lambda of: replace(of, p_SNC=of.p_SNC[:, :5])},
            {},
            r"floor: predictions of shapes \(3, 300\) and \(3, 5, 3\) for 300 rows and 3 labels",
        ),
        (
            {"floor": lambda of: replace(of, predicted_SN=of.predicted_SN + 1)},
            {},
            "floor: label ids 1 to 3 for 3 labels",
        ),
        (
            {"none": lambda of: SeedPredictions(of.predicted_SN[:0], of.p_SNC[:0])},
            {},
            "300 rows and 0 seeds: nothing to compare",
        ),
    ],
)
def test_what_cannot_be_compared_is_refused_in_words(rows, strategies, change, options, words):
    given = {name: change.get(name, lambda of: of)(found) for name, found in strategies.items()}
    with pytest.raises(ValueError, match=words):
        compare(rows, given, LABELS, **{"minority_label": "grain", **options})


def test_a_minority_without_rows_cannot_be_compared_on(rows, strategies):
    with pytest.raises(
        ValueError,
        match=(
            "no row of 'grain' to compare minority_f1 on; choose another metric, such as macro_f1"
        ),
    ):
        compare(
            np.zeros_like(rows), strategies, LABELS, minority_label="grain", metric="minority_f1"
        )
