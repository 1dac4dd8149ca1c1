"""The rules for split, length, balancing and training, by values worked out by hand."""

import pytest

from trainer.audit.facts import Facts
from trainer.starting.settings import (
    balancing,
    length_in_tokens,
    split_shares,
    training,
)

PLAIN = {"balance": {"method": "none"}, "loss": {"class_weights": "none"}}


@pytest.mark.parametrize(
    ("smallest", "shares"),
    [
        (2000, (0.9, 0.05)),
        (600, (0.9, 0.05)),
        (599, (0.8, 0.1)),
        (200, (0.7, 0.15)),
        (50, (0.6, 0.2)),
    ],
)
def test_splits_leave_thirty_rows_of_the_rarest_class_where_they_can(smallest, shares):
    found = split_shares(smallest, "a", 9000, has_test=False).values
    assert (found["train"], found["validation"]) == shares
    assert found["test"] == found["validation"]
    assert "rare_classes" not in found


def test_class_that_is_too_rare_for_all_splits_is_said():
    found = split_shares(2, "odd", 900, has_test=False)
    assert found.values["rare_classes"] == "keep"
    assert "'odd', has 2 rows: too few for all splits" in found.reasons["rare_classes"]
    assert split_shares(2, "odd", 900, has_test=True).values == {"train": 0.8, "validation": 0.2}


@pytest.mark.parametrize(
    ("needed", "limit", "length"), [(58, 512, 64), (64, 512, 64), (3, 512, 16), (700, 512, 512)]
)
def test_length_covers_99_percent_of_the_texts_or_says_that_it_cannot(needed, limit, length):
    found = length_in_tokens(needed, limit, 0.02, is_estimate=False)
    assert found.values == {"max_length": length}
    is_cut = "2 % of the texts are longer and are cut" in found.reasons["max_length"]
    assert is_cut == (needed > limit)


@pytest.mark.parametrize(
    ("rows", "classes", "width", "expected"),
    [
        (10_600, 151, 384, (10, 1e-4, 32)),  # 332 steps an epoch, 3,020 wanted
        (10_600, 151, 768, (10, 5e-5, 32)),
        (3_000, 4, 384, (6, 1e-4, 32)),  # 94 an epoch, 500 wanted
        (100_000, 3, 1024, (3, 2e-5, 32)),
        (200, 2, 768, (20, 5e-5, 16)),
    ],
)
def test_length_of_training_suits_rows_and_classes_and_the_rate_the_model(
    rows, classes, width, expected
):
    found = training(rows, classes, width).values
    keys = ("num_train_epochs", "learning_rate", "per_device_train_batch_size")
    assert tuple(found[key] for key in keys) == expected


@pytest.mark.parametrize(
    ("ratio", "smallest", "classes", "expected"),
    [
        (1.0, 500, 3, PLAIN),
        (5.0, 500, 3, PLAIN | {"decision": {"thresholds": "f1"}}),
        (5.0, 20, 3, PLAIN | {"loss": {"class_weights": "balanced"}}),
        (50.0, 20, 40, PLAIN | {"loss": {"class_weights": "sqrt"}}),
    ],
)
def test_balancing_is_that_of_the_audit(ratio, smallest, classes, expected):
    facts = Facts(ratio, "a", classes, smallest)
    found = balancing(facts)
    assert {name: section.values for name, section in found.items()} == expected
    reasons = [reason for section in found.values() for reason in section.reasons.values()]
    assert len(reasons) == 1
    assert "rule of the audit: " in reasons[0]


@pytest.mark.parametrize(
    ("ratio", "labels", "share", "expected"),
    [
        (2.0, 3, 0.3, {"class_weights": "none"}),
        (2.0, 3, 0.01, {"name": "asymmetric"}),
        (50.0, 3, 0.3, {"name": "asymmetric"}),
        (50.0, 20, 0.01, {"name": "distribution_balanced"}),
    ],
)
def test_balancing_of_several_labels_is_that_of_the_audit(ratio, labels, share, expected):
    facts = Facts(ratio, "a", labels, 10, smallest_share=share, is_multi_label=True)
    found = balancing(facts)
    assert found["loss"].values == expected
    reasons = str([section.reasons for section in found.values()])
    assert reasons.count("rule of the audit: several labels a row") == 1
    assert ("decision" in found) == (expected.get("name") == "asymmetric")
