from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.data.splitting.groups import linked_units
from trainer.data.splitting.sampling import stratified_sample
from trainer.data.splitting.split import Splits, row_keys
from trainer.data.splitting.stratified import quotas, stratified_split
from trainer.errors import DataError

SETTINGS = settings(max_examples=60, database=None)
SHARES = st.sampled_from(
    [[0.8, 0.2], [0.9, 0.1], [0.7, 0.15, 0.15], [0.6, 0.2, 0.2], [0.34, 0.33, 0.33]]
)
COUNTS = st.lists(st.integers(3, 40), min_size=2, max_size=8)
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(counts, seed):
    """Label ids in mixed order, and a different text hash for each row."""
    generator = np.random.default_rng(seed)
    label_ids = generator.permutation(np.repeat(np.arange(len(counts)), counts))
    hashes = generator.permutation(len(label_ids)).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    return label_ids, hashes


def split(label_ids, hashes, shares, groups=None, seed=0, stage="split"):
    names = [f"label{c}" for c in range(int(label_ids.max()) + 1)]
    return stratified_split(
        label_ids,
        hashes,
        linked_units(hashes, groups),
        shares,
        labels=names,
        seed=seed,
        stage=stage,
        held_N=np.zeros(len(hashes), bool),
    )


@SETTINGS
@given(COUNTS, SHARES, SEEDS)
def test_splits_partition_the_rows(counts, shares, seed):
    label_ids, hashes = rows_of(counts, seed)
    splits = split(label_ids, hashes, shares, seed=seed)
    assert sorted(np.concatenate(splits).tolist()) == list(range(sum(counts)))
    assert all((np.diff(part) > 0).all() for part in splits)


@SETTINGS
@given(COUNTS, SHARES, SEEDS)
def test_each_class_keeps_its_share_within_one_row_and_is_in_every_split(counts, shares, seed):
    label_ids, hashes = rows_of(counts, seed)
    for part, share in zip(split(label_ids, hashes, shares, seed=seed), shares, strict=True):
        drawn = np.bincount(label_ids[part], minlength=len(counts))
        assert (drawn >= 1).all()
        lent = (
            np.array(counts) * min(shares) < 1
        )  # a class too small for its share of a part lends it a row all the same
        assert (np.abs(drawn - np.array(counts) * share) <= 1.0 + lent + 1e-9).all()


@SETTINGS
@given(COUNTS, SHARES, SEEDS, SEEDS)
def test_split_is_independent_of_the_order_of_rows(counts, shares, seed, shuffle):
    label_ids, hashes = rows_of(counts, seed)
    order = np.random.default_rng(shuffle).permutation(len(label_ids))
    splits = split(label_ids, hashes, shares, seed=seed)
    shuffled = split(label_ids[order], hashes[order], shares, seed=seed)
    assert [set(hashes[part]) for part in splits] == [set(hashes[order][part]) for part in shuffled]


@SETTINGS
@given(
    st.lists(st.integers(20, 60), min_size=2, max_size=4),
    SHARES,
    SEEDS,
    st.integers(8, 40),
    st.booleans(),
)
def test_rows_of_one_text_or_one_group_are_never_in_two_splits(
    counts, shares, seed, num_groups, grouped
):
    label_ids, hashes = rows_of(counts, seed)
    generator = np.random.default_rng(seed)
    hashes = generator.choice(
        hashes[: len(hashes) // 2], len(hashes)
    )  # texts that occur several times
    groups = (
        generator.integers(0, len(hashes), len(hashes)) // max(1, len(hashes) // num_groups)
        if grouped
        else None
    )
    if grouped:  # three rows of each class have own groups, so that each class fits every split
        for c in range(len(counts)):
            extra = np.flatnonzero(label_ids == c)[:3]
            groups[extra], hashes[extra] = len(hashes) + extra, 10**6 + extra.astype(np.uint64)
    splits = split(label_ids, hashes, shares, groups, seed=seed)
    assert sorted(np.concatenate(splits).tolist()) == list(range(sum(counts)))
    for units in [hashes] + ([groups] if grouped else []):
        seen = [set(units[part].tolist()) for part in splits]
        assert sum(len(s) for s in seen) == len(set.union(*seen))


def can_be_in_every_split(classes_of_units, num_splits):
    """Whether some way of giving every unit a part puts every class on every part; tries all of
    them."""
    everything = frozenset().union(*classes_of_units)
    return any(
        all(
            frozenset().union(
                *(held for held, part in zip(classes_of_units, splits, strict=True) if part == s)
            )
            == everything
            for s in range(num_splits)
        )
        for splits in product(range(num_splits), repeat=len(classes_of_units))
    )


@settings(max_examples=300, database=None)
@given(
    st.lists(st.sets(st.integers(0, 4), min_size=1, max_size=3), min_size=2, max_size=7),
    st.lists(st.integers(1, 9), min_size=7, max_size=7),
    st.sampled_from([[0.8, 0.2], [0.7, 0.15, 0.15]]),
    SEEDS,
)
def test_groups_are_split_exactly_when_some_way_of_splitting_them_exists(
    classes_of_groups, sizes, shares, seed
):
    rows = [
        (c, group)
        for group, held in enumerate(classes_of_groups)
        for c in sorted(held)
        for _ in range(sizes[group])
    ]
    present = sorted({c for c, _ in rows})
    label_ids = np.array([present.index(c) for c, _ in rows])
    groups, hashes = np.array([group for _, group in rows]), np.arange(len(rows), dtype=np.uint64)
    try:
        splits = split(label_ids, hashes, shares, groups, seed=seed)
    except DataError:
        assert not can_be_in_every_split(
            [frozenset(held) for held in classes_of_groups], len(shares)
        )
        return
    assert sorted(np.concatenate(splits).tolist()) == list(range(len(rows)))
    assert all(len(set(label_ids[part])) == len(present) for part in splits)
    assert sum(len(set(groups[part])) for part in splits) == len(set(groups))


@pytest.mark.parametrize("num_authors", [7, 50])
def test_a_rare_class_of_three_authors_is_in_three_splits_with_every_seed(num_authors):
    for seed in range(60):
        generator = np.random.default_rng(seed)
        authors = np.repeat(np.arange(num_authors), generator.integers(1, 30, num_authors))
        label_ids = np.where(
            authors < 3,
            generator.integers(0, 2, len(authors)) * 2,
            generator.integers(0, 2, len(authors)),
        )
        for author in range(num_authors):
            label_ids[np.flatnonzero(authors == author)[0]] = 2 if author < 3 else author % 2
        hashes = generator.permutation(len(authors)).astype(np.uint64)
        splits = split(label_ids, hashes, [0.7, 0.15, 0.15], authors, seed=seed)
        assert all(len(set(label_ids[part])) == 3 for part in splits)


def test_repair_leaves_the_shares_of_other_groups_alone():
    authors = np.repeat(np.arange(50), 10)
    label_ids = np.where(authors < 3, 1, 0)
    for seed in range(20):
        splits = split(
            label_ids, np.arange(500, dtype=np.uint64), [0.8, 0.1, 0.1], authors, seed=seed
        )
        assert [int((label_ids[part] == 1).sum()) for part in splits] == [10, 10, 10]
        assert all(
            abs(len(part) - 500 * share) <= 20
            for part, share in zip(splits, [0.8, 0.1, 0.1], strict=True)
        )


def test_grouped_split_is_made_and_independent_of_the_order_of_rows():
    label_ids, hashes = rows_of([90, 60], 1)
    groups = np.arange(150) % 30  # 30 groups of 5 rows
    splits = split(label_ids, hashes, [0.8, 0.2], groups)
    order = np.random.default_rng(2).permutation(150)
    shuffled = split(label_ids[order], hashes[order], [0.8, 0.2], groups[order])
    assert [set(groups[part]) for part in splits] == [set(groups[order][part]) for part in shuffled]
    assert [len(part) for part in splits] == [120, 30]  # whole groups of 5 fit both shares


def test_rows_linked_by_text_and_group_in_a_chain_stay_together():
    label_ids = np.array([0, 0, 0, 1, 1, 1, 0, 1])
    hashes = np.array([1, 1, 2, 3, 4, 5, 6, 7], np.uint64)
    groups = np.array(
        [10, 11, 11, 11, 12, 13, 14, 15]
    )  # row 0 - text - row 1 - group - rows 2 and 3
    for seed in range(5):
        splits = split(label_ids, hashes, [0.5, 0.5], groups, seed=seed)
        assert [len({0, 1, 2, 3} & set(part.tolist())) for part in splits] in ([4, 0], [0, 4])


def test_same_seed_gives_the_same_split_and_another_seed_or_stage_another():
    label_ids, hashes = rows_of([50, 50], 3)
    first, again, other, stage = (
        split(label_ids, hashes, [0.8, 0.2], seed=s, stage=t)[1]
        for s, t in [(1, "split"), (1, "split"), (2, "split"), (1, "test")]
    )
    assert first.tolist() == again.tolist()
    assert first.tolist() != other.tolist()
    assert first.tolist() != stage.tolist()


@pytest.mark.parametrize(
    ("counts", "shares", "message"),
    [
        (
            [9, 1],
            [0.8, 0.2],
            "label 'label1' has 1 row; 2 stratified splits need 2.",
        ),
        (
            [2, 9, 1],
            [0.8, 0.1, 0.1],
            "label 'label0' has 2 rows, 'label2' has 1 row; 3 stratified splits need 3.",
        ),
    ],
)
def test_class_too_small_to_split_is_named(counts, shares, message):
    with pytest.raises(DataError) as raised:
        split(*rows_of(counts, 0), shares)
    remedy = (
        "Merge it by data.label_map, list it in data.drop_labels, or set split.rare_classes: keep."
    )
    assert str(raised.value) == f"{message} {remedy}"


def test_class_that_is_in_one_group_is_named():
    label_ids = np.array([0] * 8 + [1] * 8)
    groups = np.array([*range(8), *([9] * 8)])
    with pytest.raises(
        DataError,
        match=(
            r"^the groups of label1 are too few or too large to be in each of 2 splits. "
            r"Merge it by data.label_map"
        ),
    ):
        split(label_ids, np.arange(16, dtype=np.uint64), [0.5, 0.5], groups)


@pytest.mark.parametrize(
    ("counts", "shares", "rows"),
    [
        ([10, 20], [0.8, 0.2], [[8, 2], [16, 4]]),
        ([120, 80, 40], [0.7, 0.15, 0.15], [[84, 18, 18], [56, 12, 12], [28, 6, 6]]),
        ([3, 100], [0.9, 0.05, 0.05], [[1, 1, 1], [90, 5, 5]]),
        ([2, 4], [0.9, 0.1], [[1, 1], [3, 1]]),
    ],
)
def test_quotas_by_hand(counts, shares, rows):
    assert quotas(np.array(counts), shares).tolist() == rows


def test_many_equal_small_classes_keep_the_share_of_all_rows():
    # 10 classes of 14: a share of 0.1 is 1.4 rows each, 14 in all
    assert quotas(np.array([14] * 10), [0.9, 0.1]).sum(axis=0).tolist() == [126, 14]


@SETTINGS
@given(COUNTS, SEEDS, st.data())
def test_sample_has_the_size_asked_for_every_class_and_its_share(counts, seed, data):
    size = data.draw(st.integers(len(counts), sum(counts)))
    label_ids, hashes = rows_of(counts, seed)
    sample = stratified_sample(label_ids, hashes, size, seed=seed)
    drawn = np.bincount(label_ids[sample], minlength=len(counts))
    assert (len(sample), len(set(sample.tolist()))) == (size, size)
    assert (drawn >= 1).all()
    if size * min(counts) >= sum(counts):  # every class is owed a row, none is lent one
        assert (np.abs(drawn - np.array(counts) * size / sum(counts)) <= 2).all()


def test_sample_keeps_a_class_of_one_row():
    label_ids, hashes = rows_of([999, 1], 0)
    assert np.bincount(label_ids[stratified_sample(label_ids, hashes, 10, seed=0)]).tolist() == [
        9,
        1,
    ]


def test_sample_by_hand_and_independent_of_order():
    label_ids, hashes = rows_of([60, 30, 10], 4)
    sample = stratified_sample(label_ids, hashes, 10, seed=5)
    assert np.bincount(label_ids[sample]).tolist() == [6, 3, 1]
    order = np.random.default_rng(0).permutation(100)
    assert set(
        hashes[order][stratified_sample(label_ids[order], hashes[order], 10, seed=5)]
    ) == set(hashes[sample])


def test_sample_of_as_many_rows_as_there_are_is_all_of_them():
    label_ids, hashes = rows_of([3, 4], 0)
    assert stratified_sample(label_ids, hashes, 7, seed=0).tolist() == list(range(7))


def test_row_keys_depend_on_text_seed_and_stage_alone_and_never_collide():
    hashes = np.arange(10_000, dtype=np.uint64)
    keys = row_keys(hashes, 1, "a")
    assert len(np.unique(keys)) == 10_000
    assert (row_keys(hashes[::-1], 1, "a") == keys[::-1]).all()
    assert (row_keys(hashes, 2, "a") != keys).all()
    assert (row_keys(hashes, 1, "b") != keys).all()


def test_named_leaves_out_an_empty_split():
    splits = Splits(np.array([0, 1]), np.array([2]), np.array([], np.int64))
    assert {name: ids.tolist() for name, ids in splits.named.items()} == {
        "train": [0, 1],
        "validation": [2],
    }
