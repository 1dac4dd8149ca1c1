import time
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from iterstrat.ml_stratifiers import IterativeStratification

from trainer.data.splitting.groups import linked_units
from trainer.data.splitting.iterative import stratify
from trainer.data.splitting.stratified import stratified_split
from trainer.errors import DataError

SETTINGS = settings(deadline=None, max_examples=40, database=None)
SHARES = st.sampled_from([[0.8, 0.2], [0.9, 0.1], [0.7, 0.15, 0.15], [0.34, 0.33, 0.33]])
SEEDS = st.integers(0, 2**32 - 1)


def rows_of(num_rows, shares, seed):
    """Which labels each row has, every label at least six rows, and a text hash for each row."""
    generator = np.random.default_rng(seed)
    matrix = generator.random((num_rows, len(shares))) < np.array(shares)
    for c in range(len(shares)):
        matrix[generator.choice(num_rows, 6, replace=False), c] = True
    return matrix, generator.permutation(num_rows).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)


def split(matrix, hashes, shares, groups=None, seed=0):
    return stratified_split(
        matrix,
        hashes,
        linked_units(hashes, groups),
        shares,
        labels=[f"label{c}" for c in range(matrix.shape[1])],
        seed=seed,
        stage="split",
        held_N=np.zeros(len(hashes), bool),
    )


@SETTINGS
@given(st.integers(40, 200), st.lists(st.floats(0.02, 0.6), min_size=2, max_size=8), SHARES, SEEDS)
def test_splits_partition_the_rows_and_every_label_is_in_each(num_rows, label_shares, shares, seed):
    matrix, hashes = rows_of(num_rows, label_shares, seed)
    splits = split(matrix, hashes, shares, seed=seed)
    assert sorted(np.concatenate(splits).tolist()) == list(range(num_rows))
    assert all(matrix[part].any(axis=0).all() for part in splits)


def test_labels_and_rows_of_real_sentences_keep_their_shares_within_two_rows_and_one_percent(
    tactics,
):
    labels = sorted({label for row in tactics for label in row["labels"]})
    texts = np.unique([row["text"] for row in tactics], return_index=True)[
        1
    ]  # each once, as cleaning leaves them
    matrix = np.array([[label in tactics[row]["labels"] for label in labels] for row in texts])
    shares = [0.7, 0.15, 0.15]
    for part, share in zip(
        split(matrix, np.arange(len(texts), dtype=np.uint64), shares), shares, strict=True
    ):
        assert np.abs(matrix[part].sum(axis=0) - matrix.sum(axis=0) * share).max() <= 2
        assert abs(len(part) / len(texts) - share) <= 0.01


@SETTINGS
@given(st.integers(40, 120), SHARES, SEEDS, SEEDS, st.booleans())
def test_split_is_independent_of_the_order_of_rows(num_rows, shares, seed, shuffle, grouped):
    matrix, hashes = rows_of(num_rows, [0.5, 0.2, 0.1], seed)
    groups = np.arange(num_rows) // 3 if grouped else None
    matrix[:3], matrix[9:12] = (
        np.eye(3, dtype=bool),
        np.eye(3, dtype=bool),
    )  # with at least six rows a label three groups hold each
    order = np.random.default_rng(shuffle).permutation(num_rows)
    splits = split(matrix, hashes, shares, groups, seed=seed)
    shuffled = split(
        matrix[order], hashes[order], shares, groups[order] if grouped else None, seed=seed
    )
    assert [set(hashes[part]) for part in splits] == [set(hashes[order][part]) for part in shuffled]


@settings(deadline=None, max_examples=300, database=None)
@given(
    st.lists(
        st.lists(st.sets(st.integers(0, 3), max_size=3), min_size=1, max_size=4),
        min_size=2,
        max_size=7,
    ),
    st.booleans(),
    st.sampled_from([[0.8, 0.2], [0.7, 0.15, 0.15]]),
    SEEDS,
)
def test_label_sets_are_split_exactly_when_some_way_of_splitting_them_exists(
    groups, grouped, shares, seed
):
    rows = [
        (held, group if grouped else row)
        for group, sets in enumerate(groups)
        for row, held in enumerate(sets, 10 * group)
    ]
    present = sorted(set().union(*(held for held, _ in rows)))
    matrix = np.array([[c in held for c in present] for held, _ in rows], bool).reshape(
        len(rows), len(present)
    )
    units = {
        unit: frozenset().union(*(held for held, of in rows if of == unit)) for _, unit in rows
    }
    if not present or len(units) > 9:
        return
    try:
        splits = split(
            matrix,
            np.arange(len(rows), dtype=np.uint64),
            shares,
            np.array([unit for _, unit in rows]),
            seed=seed,
        )
    except DataError:
        assert not can_be_in_every_split(list(units.values()), len(shares))
        return
    assert sorted(np.concatenate(splits).tolist()) == list(range(len(rows)))
    assert all(matrix[part].any(axis=0).all() for part in splits)


def can_be_in_every_split(labels_of_units, num_splits):
    """Whether some way of giving every unit a part puts every label on every part; tries all of
    them."""
    everything = frozenset().union(*labels_of_units)
    return any(
        all(
            frozenset().union(
                *(held for held, part in zip(labels_of_units, splits, strict=True) if part == s)
            )
            == everything
            for s in range(num_splits)
        )
        for splits in product(range(num_splits), repeat=len(labels_of_units))
    )


def test_groups_and_equal_texts_are_never_in_two_splits_and_keep_the_shares():
    matrix, hashes = rows_of(600, [0.5, 0.2, 0.1, 0.05], 5)
    hashes[1::60] = hashes[::60]  # pairs of equal texts, some across groups
    groups = np.random.default_rng(1).integers(0, 120, 600)
    splits = split(matrix, hashes, [0.7, 0.15, 0.15], groups)
    for units in (hashes, groups):
        seen = [set(units[part].tolist()) for part in splits]
        assert sum(len(s) for s in seen) == len(set.union(*seen))
    for part, share in zip(splits, [0.7, 0.15, 0.15], strict=True):
        assert np.abs(matrix[part].sum(axis=0) - matrix.sum(axis=0) * share).max() <= 5
        assert abs(len(part) - 600 * share) <= 15  # the labels come first


def test_label_as_small_as_the_number_of_splits_lends_each_a_row():
    matrix = np.zeros((103, 3), bool)
    matrix[:100, 0] = True
    matrix[50:100, 1] = True
    matrix[[0, 1, 102], 2] = True
    for seed in range(10):
        splits = split(matrix, np.arange(103, dtype=np.uint64), [0.8, 0.1, 0.1], seed=seed)
        assert [matrix[part, 2].sum() for part in splits] == [1, 1, 1]


def test_same_seed_gives_the_same_split_and_another_seed_another():
    matrix, hashes = rows_of(100, [0.5, 0.3], 3)
    first, again, other = (
        split(matrix, hashes, [0.8, 0.2], seed=seed)[1].tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_label_with_fewer_rows_than_splits_is_named():
    matrix, hashes = rows_of(40, [0.5, 0.3], 0)
    matrix[:, 1] = np.arange(40) < 2
    with pytest.raises(
        DataError,
        match=r"^label 'label1' has 2 rows; 3 stratified splits need 3. Merge it by data.label_map",
    ):
        split(matrix, hashes, [0.8, 0.1, 0.1])


def test_label_that_is_in_one_group_is_named():
    matrix = np.zeros((40, 2), bool)
    matrix[:, 0] = True
    matrix[:8, 1] = True
    groups = np.maximum(np.arange(40), 7)  # the first eight rows are one group
    words = (
        "the rows of label1 are tied to other labels or groups and cannot be in each of 2 "
        "splits. Merge it by data.label_map"
    )
    with pytest.raises(DataError) as raised:
        split(matrix, np.arange(40, dtype=np.uint64), [0.5, 0.5], groups)
    assert str(raised.value).startswith(words)


def test_rows_without_a_label_are_shared_out_too():
    matrix, hashes = rows_of(100, [0.2, 0.1], 0)
    matrix[60:] = False
    splits = split(matrix, hashes, [0.8, 0.2])
    assert [int((~matrix[part].any(axis=1)).sum()) for part in splits][1] == pytest.approx(
        (~matrix.any(axis=1)).sum() * 0.2, abs=3
    )


@SETTINGS
@given(st.integers(6, 120), st.lists(st.floats(0, 0.6), min_size=1, max_size=12), SHARES, SEEDS)
def test_rows_are_stratified_as_the_package_does_with_the_same_generator(
    num_rows, label_shares, shares, seed
):
    matrix, _ = rows_of(num_rows, label_shares, seed)
    reference = IterativeStratification(
        labels=matrix, r=np.array(shares), random_state=np.random.default_rng(seed)
    )
    assert (
        stratify(matrix, np.array(shares), np.random.default_rng(seed)).tolist()
        == reference.tolist()
    )


def test_thousands_of_labels_are_split_in_seconds():
    generator = np.random.default_rng(0)
    matrix = np.zeros((20_000, 2_000), bool)
    matrix[
        np.repeat(np.arange(20_000), 5), (2_000 * generator.random(100_000) ** 2).astype(int)
    ] = True
    for c in range(2_000):
        matrix[generator.choice(20_000, 3, replace=False), c] = True
    start = time.process_time()
    splits = split(matrix, generator.permutation(20_000).astype(np.uint64), [0.8, 0.1, 0.1])
    assert (
        time.process_time() - start < 30
    )  # counted anew for every label and part it takes many minutes
    assert all(matrix[part].any(axis=0).all() for part in splits)
