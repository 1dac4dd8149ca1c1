import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from preparing import prepare_data

from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.balancing.balance import METHODS, plan_balance, plan_pool
from trainer.errors import ConfigError, DataError

SETTINGS = settings(deadline=None, max_examples=40, database=None)
COUNTS = st.lists(st.integers(1, 30), min_size=2, max_size=6)
SEEDS = st.integers(0, 2**32 - 1)
pytestmark = pytest.mark.filterwarnings(
    "ignore:balance. some rows", "ignore:balance. method .* keeps only"
)
EVERY_METHOD = pytest.mark.parametrize("method", sorted(METHODS))


def rows_of(counts, seed=0):
    generator = np.random.default_rng(seed)
    label_ids = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    return label_ids, generator.permutation(len(label_ids)).astype(np.uint64)


def plan(label_ids, keys, method="undersample", seed=0, resample_each_epoch=False, parameter=None):
    labels = [f"label{c}" for c in range(int(label_ids.max()) + 1)]
    share = (
        {"parameter": min(0.1, 1 / len(labels))}
        if method == "floor" and parameter is None
        else {"parameter": parameter}
    )
    return plan_balance(
        label_ids,
        keys,
        labels=labels,
        method=method,
        seed=seed,
        resample_each_epoch=resample_each_epoch,
        **share,
    )


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
    with pytest.raises(
        DataError, match=r"^the training rows have one class only, 'a'; a classifier needs two.$"
    ):
        plan_balance(
            np.array([0, 0]), np.arange(2, dtype=np.uint64), labels=["a"], method=method, seed=0
        )


@EVERY_METHOD
@pytest.mark.parametrize(("label_ids", "missing"), [([], "a, b, c"), ([1, 1], "a, c")])
def test_class_without_a_row_is_named(method, label_ids, missing):
    keys = np.arange(len(label_ids), dtype=np.uint64)
    with pytest.raises(
        DataError,
        match=rf"^the training rows contain no row of {missing}. Add rows, or list them in "
        "data.drop_labels.$",
    ):
        plan_balance(
            np.array(label_ids, np.int64), keys, labels=["a", "b", "c"], method=method, seed=0
        )


def test_method_none_draws_every_row_once():
    label_ids, keys = rows_of([4, 2])
    assert plan(label_ids, keys, "none").positions().tolist() == [0, 1, 2, 3, 4, 5]


@SETTINGS
@given(COUNTS, SEEDS)
def test_undersample_counts_equal_those_of_imbalanced_learn(counts, seed):
    label_ids, keys = rows_of(counts, seed)
    _, reference = RandomUnderSampler(random_state=0).fit_resample(
        np.arange(len(label_ids))[:, None], label_ids
    )
    drawn = plan(label_ids, keys, "undersample", seed)
    assert drawn.counts_C.tolist() == np.bincount(reference).tolist() == [min(counts)] * len(counts)
    assert len(set(drawn.positions().tolist())) == min(counts) * len(counts)


@SETTINGS
@given(COUNTS, SEEDS, st.floats(1, 4))
def test_undersample_leaves_the_largest_at_most_the_ratio_times_the_smallest(counts, seed, ratio):
    found = plan(*rows_of(counts, seed), "undersample", seed, parameter=ratio).counts_C
    assert found.max() <= ratio * min(counts) + 1e-6
    assert [min(n, int(ratio * min(counts) + 1e-9)) for n in counts] == found.tolist()


@SETTINGS
@given(COUNTS, SEEDS)
def test_oversample_counts_equal_those_of_imbalanced_learn(counts, seed):
    label_ids, keys = rows_of(counts, seed)
    _, reference = RandomOverSampler(random_state=0).fit_resample(
        np.arange(len(label_ids))[:, None], label_ids
    )
    assert (
        plan(label_ids, keys, "oversample", seed).counts_C.tolist()
        == np.bincount(reference).tolist()
    )


def test_oversample_to_half_of_the_largest_repeats_whole_copies_before_single_rows():
    label_ids, keys = rows_of([100, 12, 60])
    drawn = plan(label_ids, keys, "oversample", parameter=0.5)
    assert drawn.counts_C.tolist() == [100, 50, 60]
    times = np.bincount(drawn.positions(), minlength=172)
    assert sorted(times[label_ids == 1]) == [4] * 10 + [5] * 2  # 50 = 4 x 12 + 2
    assert set(times[label_ids != 1]) == {1}


@SETTINGS
@given(COUNTS, st.floats(0, 1))
def test_floor_is_the_least_raise_that_gives_every_class_its_share(counts, part):
    counts, share = np.array(counts), part / len(counts)
    wanted = METHODS["floor"](counts, share)
    assert (wanted >= counts).all()
    assert (wanted >= share * wanted.sum() - 1e-6).all()
    raised = wanted > counts
    assert len(set(wanted[raised])) <= 2  # one size, give or take the row that whole numbers lack
    for c in np.flatnonzero(
        raised
    ):  # one row less of a raised class would be too few, but for the rounding of the others
        assert wanted[c] - 1 - (raised.sum() + 1) < share * (wanted.sum() - 1)


def test_floor_by_hand():
    # two raised to r with r = 0.1 (1000 + 2 r): r = 125
    assert METHODS["floor"](np.array([1000, 50, 10]), 0.1).tolist() == [1000, 125, 125]
    assert METHODS["floor"](np.array([600, 300, 100]), 0.1).tolist() == [600, 300, 100]
    # raising the rarest alone pushes the next one below its share, so both are raised:
    # r = 0.2 (1000 + 2 r)
    assert METHODS["floor"](np.array([1000, 260, 1]), 0.2).tolist() == [1000, 334, 334]
    assert METHODS["floor"](np.array([7, 5]), 0.5).tolist() == [7, 7]


def test_floor_above_one_in_all_is_refused():
    with pytest.raises(
        ConfigError,
        match=r"^balance.min_share is 0.4 for each of 3, together above 1. "
        r"Set balance.min_share: 0.333 or less, or method: oversample.$",
    ):
        plan(*rows_of([5, 4, 3]), "floor", parameter=0.4)


def test_floor_of_shares_that_just_fill_the_whole_ends_and_of_more_is_refused():
    for size in (10, 49, 103):
        assert METHODS["floor"](np.full(size, 20_000_000), 1 / size).tolist() == [20_000_000] * size
    with pytest.raises(
        ConfigError, match=r"^balance.min_share is 0.333333 for each of 3, together above 1"
    ):
        plan(*rows_of([1000, 1000, 1000]), "floor", parameter=0.3333333334)


def test_power_by_hand():
    counts = np.array([900, 90, 10])
    assert METHODS["power"](counts, 1.0).tolist() == [900, 90, 10]
    assert METHODS["power"](counts, 0.0).tolist() == [334, 333, 333]
    # square roots 30, 9.487, 3.162 of 42.649; x 1000: 703.41, 222.44, 74.15; the largest
    # remainder gets the row that is left
    assert METHODS["power"](counts, 0.5).tolist() == [703, 223, 74]


def test_class_balanced_batches_see_as_many_of_each_class():
    assert METHODS["class_balanced_batches"](np.array([90, 9, 2]), 0).tolist() == [34, 34, 34]


def test_rows_seen_more_than_five_times_are_warned_about_by_class():
    with pytest.warns(
        UserWarning,
        match=r"some rows are seen often in an epoch: 'label1' 10.0 times\. "
        "The model may memorise them",
    ):
        plan(*rows_of([100, 10, 20]), "oversample")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plan(*rows_of([50, 10]), "oversample")


@EVERY_METHOD
def test_seen_rows_are_those_of_the_positions_once_each(method):
    drawn = plan(*rows_of([30, 4, 9]), method)
    assert drawn.seen.tolist() == sorted(set(drawn.positions().tolist()))
    assert drawn.seen[drawn.positions_in_seen()].tolist() == drawn.positions().tolist()


SITES = (("web", "good", 60), ("web", "bad", 20), ("mail", "good", 10), ("mail", "bad", 5))
DOMAINS = "text,label,site\n" + "".join(
    f"{site} {label} {i},{label},{site}\n" for site, label, n in SITES for i in range(n)
)


@pytest.fixture
def sites(tmp_path):
    path = tmp_path / "sites.csv"
    path.write_text(DOMAINS, encoding="utf-8")
    return path


def drawn_strata(data):
    rows = data.splits.train[data.plan.positions()]
    table = data.clean.rows.table.take(rows)
    return Counter(zip(table["domain"].to_pylist(), table["label"].to_pylist(), strict=True))


def test_floor_by_domain_raises_the_rare_domain_and_keeps_its_labels(sites):
    data = prepared(sites, {"method": "floor", "min_share": 0.4, "by": "site"})
    by_site = Counter()
    for (site, _), count in drawn_strata(data).items():
        by_site[site] += count
    assert by_site["web"] == 64  # 0.8 of 80: none is lost
    assert by_site["mail"] == 43  # r = 0.4 (64 + r)
    assert data.plan.counts_C.sum() == 107
    assert data.domains[1] == ["mail", "web"]


def test_domains_crossed_with_labels_are_balanced_pair_by_pair(sites):
    data = prepared(sites, {"method": "undersample", "by": "site", "by_label": True})
    assert set(drawn_strata(data).values()) == {4}  # 0.8 of the 5 of (mail, bad)
    assert len(drawn_strata(data)) == 4


def test_label_of_which_balanced_domains_draw_no_row_is_refused():
    label_ids = np.r_[np.zeros(200, int), np.ones(2, int), np.zeros(3, int)]
    domains = (
        np.r_[np.zeros(202, int), np.ones(3, int)],
        ["web", "mail"],
    )  # 3 of the 202 rows of web are drawn
    keys = np.arange(205, dtype=np.uint64)
    words = (
        r"^balance.by: method undersample draws no row of bad, because it reduces domains without "
        r"looking at labels. Set balance.by_label: true, or method: floor"
    )
    with pytest.raises(DataError, match=words):
        plan_balance(
            label_ids, keys, labels=["good", "bad"], method="undersample", seed=0, domains=domains
        )
    assert (
        plan_balance(
            label_ids, keys, labels=["good", "bad"], method="floor", seed=0, domains=domains
        ).counts_C.min()
        == 2
    )


def test_rows_without_a_domain_form_one_of_their_own(tmp_path):
    path = tmp_path / "some.csv"
    path.write_text(DOMAINS.replace(",mail", ","), encoding="utf-8")
    assert prepared(path, {"method": "floor", "by": "site"}).domains[1] == ["(none)", "web"]


def test_missing_domain_column_is_named(sites):
    with pytest.raises(
        DataError,
        match=r"sites.csv: no column 'sight'; found: label, site, text. Did you mean 'site'\?",
    ):
        prepared(sites, {"method": "floor", "by": "sight"})


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
    kept = plan_pool(label_ids, keys, labels=["a", "b"], method="undersample", seed=0)
    assert np.bincount(label_ids[kept]).tolist() == [10, 10]
    assert (
        kept.tolist()
        == plan_pool(label_ids, keys, labels=["a", "b"], method="undersample", seed=0).tolist()
    )
    assert kept.tolist() != plan(label_ids, keys).positions().tolist()


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """8,001 rows: 2,674 bad, 2,727 good, 2,600 mixed."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    rows = [
        f"{label} {i},{label}"
        for label, count in (("bad", 2674), ("good", 2727), ("mixed", 2600))
        for i in range(count)
    ]
    path.write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    return path


def prepared(path, balance, split=None, **data):
    section = DataSection(source=str(path), **data)
    return prepare_data(
        section,
        SplitSection(**split) if split else None,
        BalanceSection(**balance),
        LossSection(),
        seed=42,
        cache_dir=Path(path).parent / "cache",
    )


ALL = {"method": "undersample", "scope": "all"}


def counts(data):
    return {name: c.tolist() for name, c in data.summary.counts.items()}


def test_pool_of_8001_rows_becomes_exactly_7800_of_which_a_fifth_validates(reviews):
    data = prepared(reviews, ALL)
    assert counts(data) == {"train": [2080] * 3, "validation": [520] * 3, "drawn": [2080] * 3}
    assert len(data.splits.train) + len(data.splits.validation) == 7800
    assert len(data.splits.validation) == 1560
    assert data.unused_rows == 201
    assert data.summary.imbalance_ratio == 2727 / 2600
    assert (data.summary.severity, data.summary.minority_label) == ("mild", "mixed")


def test_pool_balanced_after_the_test_split_leaves_test_its_natural_distribution(reviews):
    data = prepared(reviews, ALL, {"train": 0.7, "validation": 0.15, "test": 0.15})
    # 15 % of 2,674, 2,727 and 2,600 are 401.1, 409.05 and 390; 2,273, 2,318 and 2,210 are left,
    # so 2,210 of each, of which 0.15 / 0.85 = 390 validate
    assert counts(data) == {
        "train": [1820] * 3,
        "validation": [390] * 3,
        "test": [401, 409, 390],
        "drawn": [1820] * 3,
    }
    assert data.unused_rows == 8001 - 3 * 2210 - 1200


def test_balancing_the_training_split_leaves_validation_its_natural_distribution(reviews):
    data = prepared(reviews, {"method": "undersample"})
    # 80 % are 2,139.2, 2,181.6 and 2,080
    assert counts(data) == {
        "train": [2139, 2182, 2080],
        "validation": [535, 545, 520],
        "drawn": [2080] * 3,
    }
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
        return {name: set(table[ids]) for name, ids in data.splits.named.items()} | {
            "drawn": set(table[data.splits.train[data.plan.positions()]])
        }

    assert texts(reviews) == texts(turned)


def test_limit_leaves_a_stratified_sample(reviews):
    data = prepared(reviews, {}, limit=801)
    # 801 of 8,001 rows: 267.7, 273.0 and 260.3
    total = data.summary.counts["train"] + data.summary.counts["validation"]
    assert total.sum() == 801
    assert (np.abs(total - np.array([267.7, 273.0, 260.3])) < 1).all()
    assert data.unused_rows == 7200


def test_given_validation_is_not_cut_and_given_test_is_not_touched(tmp_path):
    def write(name, num_rows):
        path = tmp_path / f"{name}.csv"
        path.write_text(
            "\n".join(["text,label", *(f"{name} {i},{'xxy'[i % 3]}" for i in range(num_rows)), ""]),
            encoding="utf-8",
        )
        return str(path)

    section = DataSection(
        train=write("train", 30), validation=write("validation", 9), test=write("test", 6)
    )
    data = prepare_data(
        section,
        None,
        BalanceSection(method="undersample"),
        LossSection(),
        seed=1,
        cache_dir=tmp_path / "cache",
    )
    assert counts(data) == {
        "train": [20, 10],
        "validation": [6, 3],
        "test": [4, 2],
        "drawn": [10, 10],
    }
    section = DataSection(train=section.train, test=section.test)
    data = prepare_data(
        section, None, BalanceSection(), LossSection(), seed=1, cache_dir=tmp_path / "cache"
    )
    assert counts(data) == {
        "train": [16, 8],
        "validation": [4, 2],
        "test": [4, 2],
        "drawn": [16, 8],
    }


def test_rows_of_a_group_stay_together_and_rows_without_one_stand_alone(tmp_path):
    path = tmp_path / "a.csv"
    rows = [f"t{i},{'xy'[i % 2]},{f'g{i // 6}' if i < 60 else ''}" for i in range(100)]
    path.write_text("\n".join(["text,label,author", *rows, ""]), encoding="utf-8")
    data = prepared(path, {}, group_column="author")
    groups = np.array([row.split(",")[2] for row in rows])
    train, validation = (
        set(groups[ids]) - {""} for ids in (data.splits.train, data.splits.validation)
    )
    assert len(train) + len(validation) == 10
    assert not train & validation
    assert (groups[data.splits.validation] == "").any()
    assert (groups[data.splits.train] == "").any()


@pytest.mark.parametrize(
    ("natural", "ratio", "severity", "minority"),
    [
        ([5, 5], 1.0, "balanced", "label0"),
        ([9, 3], 3.0, "mild", "label1"),
        ([30, 3], 10.0, "moderate", "label1"),
        ([31, 3], 31 / 3, "severe", "label1"),
    ],
)
def test_imbalance_by_hand(natural, ratio, severity, minority):
    from trainer.data.labels.class_order import Labels
    from trainer.data.splitting.split import Splits
    from trainer.data.summary import summarise_splits

    label_ids, keys = rows_of(natural)
    nothing = np.array([], np.int64)
    splits = Splits(np.arange(len(label_ids)), nothing, nothing)
    labels = Labels(["label0", "label1"])
    clean = SimpleNamespace(labels=labels, targets=label_ids, streamed=None)
    summary = summarise_splits(clean, splits, plan(label_ids, keys))
    assert (summary.imbalance_ratio, summary.severity, summary.minority_label) == (
        ratio,
        severity,
        minority,
    )
    assert {name: c.tolist() for name, c in summary.counts.items()} == {
        "train": natural,
        "drawn": [min(natural)] * 2,
    }


def test_method_that_keeps_few_rows_is_warned_of_with_the_smallest_class_and_the_remedy():
    words = (
        r"balance: method undersample keeps only 5 of 2,005 training rows an epoch, "
        r"since 'label2' has 1 row\. Set balance\.target_ratio above 1, "
        r"balance\.method: oversample, or method: none with loss\.class_weights: balanced, "
        r"or list 'label2' in data\.drop_labels\."
    )
    with pytest.warns(UserWarning, match=words):
        plan(*rows_of([1000, 1000, 1, 2, 2]))
    with pytest.warns(
        UserWarning,
        match=r"keeps only 98 of 1,049 training rows an epoch, since 'label1' has 49 rows",
    ):  # 9.3 %
        plan(*rows_of([1000, 49]))
    with pytest.warns(UserWarning, match="keeps only 48 of 74 training rows"):  # fewer than 50
        plan(*rows_of([50, 24]))
    for counts, method in (
        ([400, 60], "undersample"),
        ([5, 4], "none"),
        ([400, 4], "oversample"),
        ([4, 4], "undersample"),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", message="balance: some rows")
            plan(*rows_of(counts), method)
