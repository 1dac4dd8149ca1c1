"""Balancing rows with several labels: counts by hand, and in the limit of one label a row."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.balancing.balance import METHODS, plan_balance
from trainer.data.balancing.label_balance import plan_label_balance, plan_label_pool
from trainer.data.balancing.label_rounds import expected_counts, order_in_rounds
from trainer.errors import ConfigError, DataError

SETTINGS = settings(deadline=None, max_examples=40, database=None)
SEEDS = st.integers(0, 2**32 - 1)
pytestmark = pytest.mark.filterwarnings("ignore:balance")


def rows_of(**counts):
    """Label matrix of label sets such as a_b=3 (none=2: no label), and the label names."""
    sets = [
        name.split("_") if name != "none" else []
        for name, count in counts.items()
        for _ in range(count)
    ]
    labels = sorted({label for held in sets for label in held})
    return np.array([[label in held for label in labels] for held in sets], bool), labels


def random_rows(num_rows, label_shares, seed):
    """Label matrix where every label has a row."""
    generator = np.random.default_rng(seed)
    matrix = generator.random((num_rows, len(label_shares))) < np.array(label_shares)
    matrix[generator.permutation(num_rows)[: len(label_shares)], np.arange(len(label_shares))] = (
        True
    )
    return matrix


def plan(matrix, method="undersample", parameter=None, seed=0, keys=None, labels=None, **options):
    labels = labels or [f"label{c}" for c in range(matrix.shape[1])]
    keys = np.arange(len(matrix), dtype=np.uint64) if keys is None else keys
    return plan_label_balance(
        matrix, keys, labels=labels, method=method, parameter=parameter, seed=seed, **options
    )


def times(drawn, matrix):
    return np.bincount(drawn.positions(), minlength=len(matrix))


def test_two_rows_without_a_label_do_not_set_the_target():
    matrix, _ = rows_of(a=200, b=200, none=2)
    drawn = plan(matrix)
    assert drawn.counts_C.tolist() == [200, 200]
    assert len(drawn.positions()) == 402


def test_rows_without_a_label_are_cut_to_the_target():
    matrix, _ = rows_of(a=200, b=100, none=5000)
    assert plan(matrix).counts_C.tolist() == [100, 100]
    assert len(plan(matrix).positions()) == 300
    assert len(plan(matrix, parameter=1.5).positions()) == 150 + 100 + 150


def test_labels_that_share_rows_keep_their_rows():
    matrix, _ = rows_of(a_b=100, a_c=100, a=2)
    drawn = plan(matrix)
    assert drawn.counts_C.tolist() == [
        200,
        100,
        100,
    ]  # target 100; only the two rows of a alone can go
    assert len(drawn.positions()) == 200


@SETTINGS
@given(
    st.integers(10, 150),
    st.lists(st.floats(0, 0.7), min_size=2, max_size=8),
    SEEDS,
    st.floats(1, 3),
)
def test_no_label_falls_below_its_target_and_no_row_more_could_go(num_rows, shares, seed, ratio):
    matrix = random_rows(num_rows, shares, seed)
    drawn = plan(matrix, parameter=ratio, seed=seed)
    target = int(matrix.sum(axis=0).min() * ratio + 1e-9)
    least = np.minimum(matrix.sum(axis=0), target)
    assert (drawn.counts_C >= least).all()
    left = matrix[drawn.positions()]
    labelled = left[left.any(axis=1)]
    assert not ((drawn.counts_C > least) | ~labelled).all(axis=1).any()
    assert len(left) - len(labelled) == min((~matrix.any(axis=1)).sum(), target)


def test_rows_of_the_largest_labels_go_first_so_that_counts_end_equal():
    # a has 500 rows, each with one of v to z, which have 200: drawn evenly, these would leave
    # about 250 rows of a
    matrix, _ = rows_of(
        a_v=100, a_w=100, a_x=100, a_y=100, a_z=100, v=100, w=100, x=100, y=100, z=100, b=100
    )
    assert plan(matrix).counts_C.tolist() == [100] * 7


@pytest.mark.parametrize(
    ("method", "parameter"),
    [("undersample", 1.5), ("oversample", 0.7), ("power", 0.5), ("power", 0.0), ("none", None)],
)
@SETTINGS
@given(counts=st.lists(st.integers(1, 60), min_size=2, max_size=6), seed=SEEDS)
def test_with_one_label_a_row_the_counts_are_those_of_the_method(method, parameter, counts, seed):
    ids = np.repeat(np.arange(len(counts)), counts)
    drawn = plan(np.eye(len(counts), dtype=bool)[ids], method, parameter, seed)
    assert drawn.counts_C.tolist() == METHODS[method](np.array(counts), parameter).tolist()


@SETTINGS
@given(
    st.integers(10, 150),
    st.lists(st.floats(0, 0.7), min_size=2, max_size=8),
    SEEDS,
    st.floats(0.1, 1),
)
def test_oversampling_reaches_every_target_and_repeats_no_row_more_than_its_rarest_label_needs(
    num_rows, shares, seed, ratio
):
    matrix = random_rows(num_rows, shares, seed)
    natural = matrix.sum(axis=0)
    drawn = plan(matrix, "oversample", ratio, seed)
    target = int(np.ceil(natural.max() * ratio - 1e-9))
    assert (drawn.counts_C >= np.maximum(natural, target)).all()
    repeats = times(drawn, matrix)
    assert (repeats >= 1).all()
    most = np.array(
        [max((-(-max(target, n) // n) for n in natural[row]), default=1) for row in matrix]
    )
    assert (repeats <= most).all()


def test_oversampling_leaves_rows_of_plentiful_labels_alone():
    matrix, _ = rows_of(a_b=100, a_c=100, a=2)
    drawn = plan(matrix, "oversample")
    assert drawn.counts_C.tolist() == [406, 202, 202]
    assert times(drawn, matrix)[200:].tolist() == [1, 1]


def test_oversampling_takes_rows_first_whose_other_labels_are_behind_too():
    # b needs 90 more: its own 10 rows come to 6 each (110 / 20 rounded up), the 10 rows that
    # also have a give 40
    matrix, _ = rows_of(a=100, a_b=10, b=10)
    drawn = plan(matrix, "oversample")
    assert times(drawn, matrix)[:100].tolist() == [1] * 100
    assert times(drawn, matrix)[100:110].tolist() == [5] * 10
    assert times(drawn, matrix)[110:].tolist() == [6] * 10
    assert drawn.counts_C.tolist() == [150, 110]


def test_oversampling_of_two_rare_labels_that_share_rows_overshoots_neither():
    matrix, _ = rows_of(a=100, b_c=10, b=10, c=10, none=7)
    drawn = plan(matrix, "oversample")
    assert drawn.counts_C.tolist() == [100, 100, 100]
    assert times(drawn, matrix)[-7:].tolist() == [1] * 7


def test_floor_gives_every_label_its_share_of_all_rows():
    matrix, _ = rows_of(a=800, a_b=20, c=10, none=170)
    drawn = plan(matrix, "floor", 0.1)
    assert (drawn.counts_C >= 0.1 * len(drawn.positions())).all()
    # b and c raised to r in 1000 + (r - 20) + (r - 10) rows: r = 0.1 (970 + 2 r), so 121.25
    assert drawn.counts_C[1:].tolist() == [122, 122]
    assert plan(matrix, "floor", 0.01).positions().tolist() == list(range(1000))


def test_floor_that_repeated_rows_cannot_reach_is_refused():
    matrix, _ = rows_of(a=100, b=10, c=10)
    words = (
        r"^balance.min_share is 0.4 for each of 3 labels, which repeated rows do not reach. "
        r"Set balance.min_share: 0.333 or less, or method: oversample.$"
    )
    with pytest.raises(ConfigError, match=words):
        plan(matrix, "floor", 0.4)
    matrix, _ = rows_of(
        a_b_c=100, a=10
    )  # where labels share rows their shares may add up to more than 1
    assert len(plan(matrix, "floor", 0.4).positions()) == 110


def test_power_cuts_rows_without_a_label_as_a_label_of_their_size_and_never_repeats_them():
    matrix, _ = rows_of(a=900, b=100, none=900)
    # square roots 30 and 10: 750 and 250 of the 1,000 labels, and 30 x 25 without one
    drawn = plan(matrix, "power", 0.5)
    assert drawn.counts_C.tolist() == [750, 250]
    assert len(drawn.positions()) == 750 + 250 + 750
    matrix, _ = rows_of(a=900, b=100, none=2)
    assert times(plan(matrix, "power", 0.0), matrix)[-2:].tolist() == [1, 1]


@pytest.mark.parametrize(
    "method", ["undersample", "oversample", "floor", "power", "class_balanced_batches"]
)
@SETTINGS
@given(num_rows=st.integers(10, 60), seed=SEEDS, shuffle=SEEDS)
def test_draw_depends_on_seed_and_texts_and_not_on_the_order_of_rows(
    method, num_rows, seed, shuffle
):
    matrix = random_rows(num_rows, [0.6, 0.3, 0.1], seed)
    keys = (
        np.random.default_rng(seed).integers(0, num_rows // 2, num_rows).astype(np.uint64)
    )  # some texts several times
    order = np.random.default_rng(shuffle).permutation(num_rows)
    drawn, shuffled = plan(matrix, method, 0.3 if method == "floor" else None, seed, keys), None
    shuffled = plan(matrix[order], method, 0.3 if method == "floor" else None, seed, keys[order])

    def rows(matrix, keys, drawn):
        return sorted((int(keys[p]), matrix[p].tolist()) for p in drawn.positions())

    assert rows(matrix, keys, drawn) == rows(matrix[order], keys[order], shuffled)


def test_seeds_and_epochs_draw_other_rows_with_the_same_counts():
    matrix, _ = rows_of(a=80, a_b=10, b=10, c=15, none=30)
    assert len({tuple(plan(matrix, seed=seed).positions().tolist()) for seed in range(5)}) == 5
    drawn = plan(matrix, resample_each_epoch=True)
    epochs = [drawn.positions(epoch) for epoch in range(60)]
    assert len({tuple(epoch.tolist()) for epoch in epochs}) == 60
    assert drawn.positions(7).tolist() == epochs[7].tolist()
    assert all(matrix[epoch].sum(axis=0).min() == 15 for epoch in epochs)
    assert len(set(np.concatenate(epochs).tolist())) > 140  # in time all of them
    assert drawn.seen.tolist() == list(range(145))


def test_pairs_of_domain_and_label_are_balanced_and_domains_alone_too():
    matrix, _ = rows_of(a=60, a_b=20, b=10, none=10)
    domains = (
        np.array([0] * 70 + [1] * 30),
        ["mail", "web"],
    )  # mail: 60 a, 10 a_b; web: 10 a_b, 10 b, 10 none
    drawn = plan(matrix, domains=domains, by_label=True)
    assert [
        matrix[drawn.positions()][domains[0][drawn.positions()] == d].sum(axis=0).tolist()
        for d in (0, 1)
    ] == [[10, 10], [10, 10]]
    drawn = plan(matrix, domains=domains)
    assert np.bincount(domains[0][drawn.positions()]).tolist() == [30, 30]


def test_label_that_balanced_domains_lose_is_refused():
    matrix, _ = rows_of(a=300, b=1)
    domains = np.array([0] * 2 + [1] * 299), ["mail", "web"]
    with pytest.raises(
        DataError,
        match=(
            r"^balance.by: method undersample draws no row of label1, because it reduces "
            r"domains without looking at labels"
        ),
    ):
        plan(matrix, domains=domains)


def test_pool_is_balanced_by_its_labels():
    matrix, labels = rows_of(a_b=100, a_c=100, a=2)
    kept = plan_label_pool(
        matrix, np.arange(202, dtype=np.uint64), labels=labels, method="undersample", seed=0
    )
    assert matrix[kept].sum(axis=0).tolist() == [200, 100, 100]


@pytest.mark.filterwarnings("default:balance")
def test_few_rows_kept_and_rows_seen_often_are_warned_of_by_label():
    matrix, labels = rows_of(a=1000, b_c=30, c=20)
    with pytest.warns(
        UserWarning,
        match=(
            r"method undersample keeps only 60 of 1,050 training rows an epoch, since 'b' "
            r"has 30 rows\. Set balance\.target"
        ),
    ):
        plan(matrix, labels=labels)
    with pytest.warns(
        UserWarning,
        match=r"some rows are seen often in an epoch: 'b' 33.3 times, 'c' 20.4 times",
    ):
        plan(matrix, "oversample", labels=labels)


def test_label_without_a_training_row_is_named():
    with pytest.raises(
        DataError,
        match=(
            r"^the training rows contain no row of label1. Add rows, or list them in "
            r"data.drop_labels.$"
        ),
    ):
        plan(np.array([[True, False], [True, False]]))


def test_plans_of_one_label_a_row_and_of_one_label_of_several_are_equally_large():
    ids = np.repeat([0, 1, 2], [50, 20, 30])
    keys = np.arange(100, dtype=np.uint64)
    one = plan_balance(ids, keys, labels=["a", "b", "c"], method="undersample", seed=0)
    assert len(one.positions()) == len(plan(np.eye(3, dtype=bool)[ids]).positions()) == 60


@pytest.mark.parametrize("method", list(METHODS))
def test_a_quarter_million_rows_with_a_hundred_labels_are_balanced_in_seconds(method):
    generator = np.random.default_rng(0)
    shares = 1 / np.arange(1, 101)
    rows = np.repeat(np.arange(250_000), generator.integers(0, 3, 250_000))
    matrix = np.zeros((250_000, 100), bool)
    matrix[rows, generator.choice(100, len(rows), p=shares / shares.sum())] = True
    start = time.process_time()
    plan(matrix, method, {"floor": 0.005, "oversample": 0.3}.get(method)).positions()
    assert time.process_time() - start < 10


def test_class_balanced_batches_draw_every_label_equally_often():
    matrix, _ = rows_of(a=60, a_b=10, c=2, none=18)
    drawn = plan(matrix, "class_balanced_batches")
    assert drawn.draws_S.tolist() == [24, 24, 24, 18]  # 90 rows; none without a label is repeated
    times_N = times(drawn, matrix)
    assert times_N[70:72].tolist() == [12, 12]
    assert times_N[72:].tolist() == [1] * 18
    assert drawn.counts_C[1:].tolist() == [24 + times_N[60:70].sum() - 24, 24]
    assert 48 <= drawn.counts_C[0] <= 49  # 24 draws of its own, and all rows drawn for b
    few, _ = rows_of(a=60, b=30, none=900)
    assert plan(few, "class_balanced_batches").draws_S.tolist() == [330, 330, 330]


@SETTINGS
@given(st.integers(20, 90), st.lists(st.floats(0.02, 0.9), min_size=2, max_size=9), SEEDS)
def test_labels_take_turns_and_every_draw_has_its_label(num_rows, shares, seed):
    matrix = random_rows(num_rows, shares, seed)
    drawn = plan(matrix, "class_balanced_batches", seed=seed)
    strata_D = np.repeat(np.arange(len(drawn.draws_S)), drawn.draws_S)
    has_NS = np.c_[matrix, ~matrix.any(axis=1)]
    assert has_NS[drawn.positions(), strata_D].all()
    order_D = order_in_rounds(drawn.draws_S, np.random.default_rng(seed))
    assert np.array_equal(np.sort(order_D), np.arange(len(strata_D)))
    so_far_DS = np.cumsum(np.eye(len(drawn.draws_S), dtype=int)[strata_D[order_D]], axis=0)
    of_labels_DC = so_far_DS[:, : len(shares)]
    assert (of_labels_DC.max(axis=1) - of_labels_DC.min(axis=1) <= 1).all()
    shares_DS = so_far_DS / drawn.draws_S
    assert (np.ptp(shares_DS, axis=1) <= 2 / drawn.draws_S.min() + 1e-9).all()


def test_expected_counts_are_the_mean_of_many_epochs():
    matrix, _ = rows_of(a=60, a_b=10, c=2, b_c=3, none=25)
    drawn = plan(matrix, "class_balanced_batches", resample_each_epoch=True)
    labels = [matrix[drawn.positions(epoch)].sum(axis=0) for epoch in range(200)]
    assert np.mean(labels, axis=0) == pytest.approx(expected_counts(matrix), abs=1)
