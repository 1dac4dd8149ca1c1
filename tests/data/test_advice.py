from dataclasses import replace

import pytest

from trainer.data.advice import RULES, Facts, advise

PLAIN = Facts(imbalance_ratio=2.0, minority_label="rare", num_classes=3, smallest_rows=500, mean_rows=800)

REACHED_BY = {
    "label_issues": {"doubtful_ratio": 0.05, "judge_macro_f1": 0.6},
    "soft_leakage": {"soft_leakage_ratio": 0.01},
    "conflicting_labels": {"conflict_ratio": 0.01},
    "truncation": {"truncated_ratio": 0.1},
    "few_rows": {"mean_rows": 63, "imbalance_ratio": 40.0, "smallest_rows": 3},
    "balanced": {"imbalance_ratio": 1.0},
    "mild_and_large": {"imbalance_ratio": 3.0, "smallest_rows": 10_000, "mean_rows": 20_000},
    "mild": {"imbalance_ratio": 3.0},
    "long_tail": {"imbalance_ratio": 10.1, "num_classes": 20, "smallest_rows": 3},
    "tiny_minority": {"imbalance_ratio": 10.1, "smallest_rows": 49},
    "severe": {"imbalance_ratio": 10.1},
    "moderate": {"imbalance_ratio": 10.0},
}


def test_every_rule_is_listed_here():
    assert list(REACHED_BY) == [rule.name for rule in RULES]


@pytest.mark.parametrize("name", REACHED_BY)
def test_rule_is_reached_at_its_threshold_and_names_its_source(name):
    found = {advice.rule: advice for advice in advise(replace(PLAIN, **REACHED_BY[name]))}
    assert name in found
    assert found[name].source
    assert found[name].text.endswith(".")


@pytest.mark.parametrize(
    ("name", "just_below"),
    [
        ("label_issues", {"doubtful_ratio": 0.049, "judge_macro_f1": 0.9}),
        ("label_issues", {"doubtful_ratio": 0.5, "judge_macro_f1": 0.59}),
        ("soft_leakage", {"soft_leakage_ratio": 0.009}),
        ("conflicting_labels", {"conflict_ratio": 0.009}),
        ("truncation", {"truncated_ratio": 0.09}),
        ("few_rows", {"mean_rows": 64}),
        ("balanced", {"imbalance_ratio": 1.01}),
        ("mild_and_large", {"imbalance_ratio": 3.0, "smallest_rows": 9_999}),
        ("mild", {"imbalance_ratio": 3.1}),
        ("tiny_minority", {"imbalance_ratio": 11.0, "smallest_rows": 50}),
        ("long_tail", {"imbalance_ratio": 11.0, "num_classes": 19}),
        ("severe", {"imbalance_ratio": 10.0}),
        ("moderate", {"imbalance_ratio": 3.0}),
    ],
)
def test_rule_is_not_reached_just_below_its_threshold(name, just_below):
    assert name not in [advice.rule for advice in advise(replace(PLAIN, **just_below))]


def test_data_comes_before_method_and_one_method_wins():
    everything = {key: value for values in REACHED_BY.values() for key, value in values.items()}
    kinds = [advice.kind for advice in advise(replace(PLAIN, **everything))]
    assert kinds == ["data"] * 4 + ["method"]


def test_words_hold_the_figures_of_these_data():
    (advice,) = advise(replace(PLAIN, imbalance_ratio=69.3, smallest_rows=41))
    assert "the rarest class, 'rare', has 41 training rows" in advice.text
