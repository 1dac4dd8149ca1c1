"""Head, medium and tail: which classes belong to them, and their figures."""

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score

from trainer import ConfigError, load_config
from trainer.config.sections.run import GroupLimits
from trainer.evaluation.frequency_groups import (
    frequency_groups,
    group_figures,
    recorded_groups,
    recorded_rows,
)
from trainer.evaluation.multi_label import evaluate
from trainer.evaluation.outcome import outcome_of

NAMES = list("abcdef")


def classes(counts, groups="thirds"):
    found = frequency_groups(np.array(counts), groups)
    return {name: group.label_ids.tolist() for name, group in found.items()}


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ([1, 90, 5, 40, 2, 7], {"head": [1, 3], "medium": [2, 5], "tail": [0, 4]}),
        (range(8, 0, -1), {"head": [0, 1, 2], "medium": [3, 4], "tail": [5, 6, 7]}),
        ([9, 5, 5, 5, 5, 1], {"head": [0], "medium": [1, 2, 3, 4], "tail": [5]}),
        ([9, 5, 1, 1, 1, 1], {"head": [0, 1], "tail": [2, 3, 4, 5]}),
        ([9, 9, 9, 9, 5, 1], {"head": [0, 1, 2, 3], "tail": [4, 5]}),
        ([3, 3, 3, 3, 3, 3], {}),
        ([9, 7, 5, 3, 1], {}),
    ],
    ids=["thirds", "8 classes", "equal middle", "equal tail", "equal head", "all equal", "few"],
)
def test_thirds_of_the_classes_keep_equal_counts_together(counts, expected):
    assert classes(list(counts)) == expected


def test_limits_hold_for_any_number_of_classes_and_are_inclusive():
    limits = GroupLimits(head=35, medium=9)
    expected = {"head": [0, 1], "medium": [2, 3], "tail": [4, 5]}
    assert classes([200, 35, 34, 9, 8, 1], limits) == expected
    assert classes([200, 8], limits) == {"head": [0], "tail": [1]}
    assert classes([200, 35], limits) == {}


def test_a_saved_model_gives_its_groups_in_any_order_of_labels_until_they_are_renamed():
    limits = GroupLimits(head=35, medium=9)
    values = json.loads(json.dumps(recorded_rows(NAMES, np.array([200, 35, 34, 9, 8, 1]), limits)))
    found = recorded_groups(values, NAMES[::-1])
    assert {name: group.label_ids.tolist() for name, group in found.items()} == {
        "head": [4, 5],
        "medium": [2, 3],
        "tail": [0, 1],
    }
    assert recorded_groups(values, [*NAMES[:-1], "other"]) is None
    assert recorded_groups({}, NAMES) is None
    assert recorded_groups(recorded_rows(NAMES, np.full(6, 3), "thirds"), NAMES) == {}


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ({"head": 9, "medium": 35}, "report.groups: head is 9 and medium 35; head must be the"),
        ({"head": 9}, "report.groups.medium is missing"),
        ("halves", "report.groups is 'halves'; known: a section"),
    ],
    ids=["order", "missing", "unknown"],
)
def test_wrong_groups_are_refused_in_words(groups, words):
    with pytest.raises(ConfigError, match=words):
        load_config({"model": {"name": "m"}, "data": {"source": "d"}, "report": {"groups": groups}})


def test_groups_name_their_fewest_and_most_training_rows():
    found = frequency_groups(np.array([1, 90, 5, 40, 2, 7]), "thirds")
    rows = {name: (group.least_rows, group.most_rows) for name, group in found.items()}
    assert rows == {"head": (40, 90), "medium": (5, 7), "tail": (1, 2)}


def test_macro_f1_of_a_group_is_the_mean_of_its_classes_that_have_rows():
    groups = frequency_groups(np.array([60, 50, 40, 30, 20, 10]), "thirds")
    true, predicted = np.array([0, 0, 1, 2, 3, 4]), np.array([0, 1, 1, 3, 3, 0])
    with pytest.warns(UserWarning, match="no row of f"):
        outcome = outcome_of(np.eye(6)[predicted] * 9, true, NAMES, None, None, groups)
    figures = outcome.groups
    f1 = f1_score(true, predicted, labels=range(6), average=None, zero_division=0)
    assert figures["head"] == {
        "num_classes": 2,
        "num_measured": 2,
        "least_train_rows": 50,
        "most_train_rows": 60,
        "support": 3,
        "macro_f1": pytest.approx((f1[0] + f1[1]) / 2),
    }
    assert figures["tail"]["num_measured"] == 1
    assert figures["tail"]["macro_f1"] == f1[4] == 0
    assert outcome.alone_groups == figures


def test_micro_f1_of_a_group_counts_wrong_labels_that_are_never_right():
    groups = frequency_groups(np.array([60, 50, 40, 30, 20, 10]), "thirds")
    random = np.random.default_rng(0)
    true, predicted = random.random((40, 6)) < 0.3, random.random((40, 6)) < 0.3
    predicted[:, 4] &= ~true[:, 4]  # no hit, so precision says nothing about how often it is given
    found = group_figures(groups, evaluate(predicted - 0.5, true, NAMES, predicted), predicted)
    for name, ids in {"head": [0, 1], "medium": [2, 3], "tail": [4, 5]}.items():
        for average in ("micro", "macro"):
            expected = f1_score(true[:, ids], predicted[:, ids], average=average)
            assert found[name][f"{average}_f1"] == pytest.approx(expected), (name, average)


def test_a_group_without_rows_has_no_macro_f1():
    groups = frequency_groups(np.array([60, 50, 40, 30, 20, 10]), "thirds")
    true = predicted = np.array([0, 1, 2, 3])
    with pytest.warns(UserWarning, match="no row"):
        evaluation = evaluate(np.eye(6)[true], true, NAMES, predicted)
    found = group_figures(groups, evaluation, predicted)
    assert found["tail"]["macro_f1"] is None
    assert found["tail"]["support"] == found["tail"]["num_measured"] == 0
