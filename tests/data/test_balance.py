from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.under_sampling import RandomUnderSampler
from sklearn.utils.class_weight import compute_class_weight

from trainer.config import BalanceSection, DataSection, SplitSection
from trainer.data.balance import METHODS, WEIGHTINGS, class_weights, plan_balance, plan_pool
from trainer.data.prepare import prepare_data
from trainer.errors import ConfigError, DataError

SETTINGS = settings(deadline=None, max_examples=40, database=None)
COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)
EVERY_METHOD = pytest.mark.parametrize("method", sorted(METHODS))


def rows_of(counts, seed=0):
    generator = np.random.default_rng(seed)
    label_ids = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    return label_ids, generator.permutation(len(label_ids)).astype(np.uint64)


def plan(label_ids, keys, method="undersample", seed=0, resample_each_epoch=False):
    labels = [f"label{c}" for c in range(int(label_ids.max()) + 1)]
    return plan_balance(label_ids, keys, labels=labels, method=method, seed=seed, resample_each_epoch=resample_each_epoch)


@EVERY_METHOD
@SETTINGS
@given(counts=COUNTS, seed=SEEDS)
def test_same_seed_draws_the_same_sorted_rows(method, counts, seed):
    label_ids, keys = rows_of(counts, seed)
    positions = plan(label_ids, keys, method, seed).positions()
    assert positions.tolist() == plan(label_ids, keys, method, seed).positions(5).tolist()
    assert (np.diff(positions) >= 0).all()
    assert set(positions.tolist()) <= set(range(len(label_ids)))


@EVERY_METHOD
@SETTINGS
@given(counts=COUNTS, seed=SEEDS, shuffle=SEEDS)
def test_draw_is_independent_of_the_order_of_rows(method, counts, seed, shuffle):
    label_ids, keys = rows_of(counts, seed)
    order = np.random.default_rng(shuffle).permutation(len(label_ids))
    drawn = keys[plan(label_ids, keys, method, seed).positions()]
    shuffled = keys[order][plan(label_ids[order], keys[order], method, seed).positions()]
    assert sorted(drawn) == sorted(shuffled)


@EVERY_METHOD
def test_classes_of_one_row_are_drawn(method):
    label_ids, keys = rows_of([1, 1, 1])
    assert plan(label_ids, keys, method).counts_C.tolist() == [1, 1, 1]


@EVERY_METHOD
def test_counts_are_those_of_the_positions(method):
    label_ids, keys = rows_of([7, 3, 5])
    drawn = plan(label_ids, keys, method)
    assert drawn.counts_C.tolist() == np.bincount(label_ids[drawn.positions()]).tolist()


@EVERY_METHOD
def test_one_class_is_refused(method):
    with pytest.raises(DataError, match=r"^the training rows hold one class only, 'a'; a classifier needs two.$"):
        plan_balance(np.array([0, 0]), np.arange(2, dtype=np.uint64), labels=["a"], method=method, seed=0)


@EVERY_METHOD
@pytest.mark.parametrize(("label_ids", "missing"), [([], "a, b, c"), ([1, 1], "a, c")])
def test_class_without_a_row_is_named(method, label_ids, missing):
    keys = np.arange(len(label_ids), dtype=np.uint64)
    with pytest.raises(DataError, match=rf"^the training rows hold no row of {missing}. Add rows, or list them in data.drop_labels.$"):
        plan_balance(np.array(label_ids, np.int64), keys, labels=["a", "b", "c"], method=method, seed=0)


def test_method_none_draws_every_row_once():
    label_ids, keys = rows_of([4, 2])
    assert plan(label_ids, keys, "none").positions().tolist() == [0, 1, 2, 3, 4, 5]


@SETTINGS
@given(COUNTS, SEEDS)
def test_undersample_counts_equal_those_of_imbalanced_learn(counts, seed):
    label_ids, keys = rows_of(counts, seed)
    _, reference = RandomUnderSampler(random_state=0).fit_resample(np.arange(len(label_ids))[:, None], label_ids)
    drawn = plan(label_ids, keys, "undersample", seed)
    assert drawn.counts_C.tolist() == np.bincount(reference).tolist() == [min(counts)] * len(counts)
    assert len(set(drawn.positions().tolist())) == min(counts) * len(counts)


def test_other_seeds_draw_other_rows():
    label_ids, keys = rows_of([100, 10])
    drawn = {tuple(plan(label_ids, keys, seed=seed).positions().tolist()) for seed in range(5)}
    assert len(drawn) == 5


def test_resampling_draws_other_rows_each_epoch_and_in_time_all_of_them():
    label_ids, keys = rows_of([40, 10, 20])
    drawn = plan(label_ids, keys, resample_each_epoch=True)
    epochs = [drawn.positions(epoch) for epoch in range(40)]
    assert all(np.bincount(label_ids[positions]).tolist() == [10, 10, 10] for positions in epochs)
    assert len({tuple(positions.tolist()) for positions in epochs}) == 40
    # a row of the largest class stays unseen with probability 0.75 ** 40, 1e-5
    assert set(np.concatenate(epochs).tolist()) == set(range(70))
    assert drawn.positions(3).tolist() == epochs[3].tolist()


def test_pool_is_drawn_with_equal_counts_and_another_generator_than_training():
    label_ids, keys = rows_of([30, 10])
    kept = plan_pool(label_ids, keys, method="undersample", seed=0)
    assert np.bincount(label_ids[kept]).tolist() == [10, 10]
    assert kept.tolist() == plan_pool(label_ids, keys, method="undersample", seed=0).tolist()
    assert kept.tolist() != plan(label_ids, keys).positions().tolist()


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """8,001 rows: 2,674 bad, 2,727 good, 2,600 mixed."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    rows = [f"{label} {i},{label}" for label, count in (("bad", 2674), ("good", 2727), ("mixed", 2600)) for i in range(count)]
    path.write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    return path


def prepared(path, balance, split=None, **data):
    section = DataSection(source=str(path), **data)
    return prepare_data(section, SplitSection(**split) if split else None, BalanceSection(**balance), "none", seed=42, cache_dir=Path(path).parent / "cache")


ALL = {"method": "undersample", "scope": "all"}


def counts(data):
    return {name: c.tolist() for name, c in data.audit.counts.items()}


def test_pool_of_8001_rows_becomes_exactly_7800_of_which_a_fifth_validates(reviews):
    data = prepared(reviews, ALL)
    assert counts(data) == {"train": [2080] * 3, "validation": [520] * 3, "drawn": [2080] * 3}
    assert len(data.splits.train) + len(data.splits.validation) == 7800
    assert len(data.splits.validation) == 1560
    assert data.unused_rows == 201
    assert data.audit.imbalance_ratio == 2727 / 2600
    assert (data.audit.severity, data.audit.minority_label) == ("mild", "mixed")


def test_pool_balanced_after_the_test_split_leaves_test_its_natural_distribution(reviews):
    data = prepared(reviews, ALL, {"train": 0.7, "validation": 0.15, "test": 0.15})
    # 15 % of 2,674, 2,727 and 2,600 are 401.1, 409.05 and 390; 2,273, 2,318 and 2,210 are left, so 2,210 of each,
    # of which 0.15 / 0.85 = 390 validate
    assert counts(data) == {"train": [1820] * 3, "validation": [390] * 3, "test": [401, 409, 390], "drawn": [1820] * 3}
    assert data.unused_rows == 8001 - 3 * 2210 - 1200


def test_balancing_the_training_split_leaves_validation_its_natural_distribution(reviews):
    data = prepared(reviews, {"method": "undersample"})
    # 80 % are 2,139.2, 2,181.6 and 2,080
    assert counts(data) == {"train": [2139, 2182, 2080], "validation": [535, 545, 520], "drawn": [2080] * 3}
    assert data.unused_rows == 0


def test_splits_of_a_run_never_share_a_row(reviews):
    for balance in (ALL, {"method": "undersample"}):
        data = prepared(reviews, balance, {"train": 0.7, "validation": 0.15, "test": 0.15})
        ids = np.concatenate(list(data.splits.named.values()))
        assert len(np.unique(ids)) == len(ids)


def test_same_seed_splits_a_file_in_another_order_alike(reviews, tmp_path):
    header, *rows = reviews.read_text(encoding="utf-8").splitlines()
    turned = tmp_path / "turned.csv"
    turned.write_text("\n".join([header, *rows[::-1], ""]), encoding="utf-8")

    def texts(path):
        data = prepared(path, {"method": "undersample"})
        table = data.clean.rows.table["text"].to_numpy()
        return {name: set(table[ids]) for name, ids in data.splits.named.items()} | {"drawn": set(table[data.splits.train[data.plan.positions()]])}

    assert texts(reviews) == texts(turned)


def test_limit_leaves_a_stratified_sample(reviews):
    data = prepared(reviews, {}, limit=801)
    # 801 of 8,001 rows: 267.7, 273.0 and 260.3
    total = data.audit.counts["train"] + data.audit.counts["validation"]
    assert total.sum() == 801
    assert (np.abs(total - np.array([267.7, 273.0, 260.3])) < 1).all()
    assert data.unused_rows == 7200


def test_given_validation_is_not_cut_and_given_test_is_not_touched(tmp_path):
    def write(name, num_rows):
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(["text,label", *(f"{name} {i},{'xxy'[i % 3]}" for i in range(num_rows)), ""]), encoding="utf-8")
        return str(path)

    section = DataSection(train=write("train", 30), validation=write("validation", 9), test=write("test", 6))
    data = prepare_data(section, None, BalanceSection(method="undersample"), "none", seed=1, cache_dir=tmp_path / "cache")
    assert counts(data) == {"train": [20, 10], "validation": [6, 3], "test": [4, 2], "drawn": [10, 10]}
    section = DataSection(train=section.train, test=section.test)
    data = prepare_data(section, None, BalanceSection(), "none", seed=1, cache_dir=tmp_path / "cache")
    assert counts(data) == {"train": [16, 8], "validation": [4, 2], "test": [4, 2], "drawn": [16, 8]}


def test_rows_of_a_group_stay_together_and_rows_without_one_stand_alone(tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"t{i},{'xy'[i % 2]},{f'g{i // 6}' if i < 60 else ''}" for i in range(100)]
    path.write_text("\n".join(["text,label,author", *rows, ""]), encoding="utf-8")
    data = prepared(path, {}, group_column="author")
    groups = np.array([row.split(",")[2] for row in rows])
    train, validation = (set(groups[ids]) - {""} for ids in (data.splits.train, data.splits.validation))
    assert len(train) + len(validation) == 10
    assert not train & validation
    assert (groups[data.splits.validation] == "").any()
    assert (groups[data.splits.train] == "").any()


@pytest.mark.parametrize(
    ("natural", "ratio", "severity", "minority"),
    [([5, 5], 1.0, "balanced", "label0"), ([9, 3], 3.0, "mild", "label1"), ([30, 3], 10.0, "moderate", "label1"), ([31, 3], 31 / 3, "severe", "label1")],
)
def test_imbalance_by_hand(natural, ratio, severity, minority):
    from trainer.data.audit import audit_splits
    from trainer.data.labels import Labels
    from trainer.data.split import Splits

    label_ids, keys = rows_of(natural)
    nothing = np.array([], np.int64)
    splits = Splits(np.arange(len(label_ids)), nothing, nothing)
    audit = audit_splits(Labels(["label0", "label1"]), label_ids, splits, plan(label_ids, keys))
    assert (audit.imbalance_ratio, audit.severity, audit.minority_label) == (ratio, severity, minority)
    assert {name: c.tolist() for name, c in audit.counts.items()} == {"train": natural, "drawn": [min(natural)] * 2}


@SETTINGS
@given(COUNTS)
def test_balanced_weights_equal_those_of_scikit_learn(counts):
    label_ids, _ = rows_of(counts)
    names = [str(c) for c in range(len(counts))]
    expected = compute_class_weight("balanced", classes=np.arange(len(counts)), y=label_ids)
    np.testing.assert_allclose(class_weights(np.array(counts), "balanced", names), expected)


@pytest.mark.parametrize("weighting", [*sorted(WEIGHTINGS), {"a": 5.0}, {"a": 2.0, "b": 1e-3, "c": 7.0}, {}], ids=str)
@pytest.mark.parametrize("counts", [[100, 10, 1], [3, 3, 3]])
def test_weights_average_to_one_over_the_rows_drawn(weighting, counts):
    weights = class_weights(np.array(counts), weighting, ["a", "b", "c"])
    assert (weights * counts).sum() / sum(counts) == pytest.approx(1)


def test_weights_by_hand():
    # rows 6 and 2: balanced 8 / (2 * 6) and 8 / (2 * 2)
    assert class_weights(np.array([6, 2]), "balanced", ["a", "b"]).tolist() == pytest.approx([2 / 3, 2])
    # weight 3 for b, 1 for a: mean (6 * 1 + 2 * 3) / 8 = 1.5, so 1 / 1.5 and 3 / 1.5
    assert class_weights(np.array([6, 2]), {"b": 3.0}, ["a", "b"]).tolist() == pytest.approx([2 / 3, 2])
    assert class_weights(np.array([6, 2]), "none", ["a", "b"]).tolist() == [1, 1]


def test_weight_for_an_unknown_label_is_refused():
    with pytest.raises(ConfigError, match=r"^loss.class_weights names c, d; labels in the data: a, b.$"):
        class_weights(np.array([1, 1]), {"a": 1.0, "d": 2.0, "c": 2.0}, ["a", "b"])
