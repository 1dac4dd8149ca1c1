"""Cut the cleaned rows into train, validation and test, as the config asks."""

from collections.abc import Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from trainer.arrays import Ints
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.balancing.balance import plan_pool
from trainer.data.balancing.label_balance import plan_label_pool
from trainer.data.cleaning.clean import CleanRows
from trainer.data.splitting.by_time import TimeSplitter
from trainer.data.splitting.rare_classes import warn_of_missing_classes
from trainer.data.splitting.sampling import stratified_sample
from trainer.data.splitting.split import Splits
from trainer.data.splitting.split_sizes import refuse_empty_splits, warn_of_other_shares
from trainer.data.splitting.splitter import Splitter
from trainer.data.splitting.stratified import refuse_small_classes
from trainer.errors import DataError, listing


class Fold(NamedTuple):
    """Fold `number`, counted from 0, of `total` folds; it validates, and the others train."""

    number: int
    total: int


def split_rows(
    clean: CleanRows,
    data: DataSection,
    split: SplitSection | None,
    balance: BalanceSection,
    *,
    seed: int,
    fold: Fold | None = None,
) -> Splits:
    """Return the row ids of each split: the splits that the data give, the others cut by `split`.

    The pool of rows is limited, then test is cut, then the rest is balanced (`balance.scope: all`),
    then validation is cut. Test is cut before anything that depends on balancing or folds, so that
    one seed and one share always give the same test rows.

    Raises:
        DataError: a split has no row, or a class is too rare to be in every split
            (`split.rare_classes: error`).
    """
    pool, validation, test = (clean.kept(key) for key in (data.pool, "validation", "test"))
    *shares, test_share = (split or SplitSection()).shares
    cut = {"test": test_share} if test_share else {}
    if data.validation is None and not len(validation):
        cut = {"validation": shares[1]} | cut
    elif fold:
        key = data.split_column or "validation"
        raise DataError(
            f"data.{key} holds validation rows, but folds cut validation themselves. Remove these "
            "rows, or do not use folds."
        )
    if split and split.by_time:
        cutter: Splitter = TimeSplitter(clean, pool, data, split, seed)
    else:
        cutter = Splitter(clean, pool, data, split, seed)
    if data.limit:
        pool = _limited(cutter, pool, data.limit, least=1 + len(cut))
    whole_pool = pool
    if "test" in cut:
        pool, test = _cut_test(cutter, pool, test_share)
    elif "validation" in cut and cutter.policy == "drop" and (fold or balance.scope == "all"):
        # Find the classes to drop, so that they are the same as without folds or a balanced pool.
        cutter.cut(pool, shares, "split")
    only_train, natural = pool[:0], None
    if balance.scope == "all":
        pool, only_train, natural = _balanced_pool(cutter, pool, balance, fold)
    if fold:
        pool, validation = _cut_fold(cutter, pool, fold)
    elif "validation" in cut:
        whole = sum(shares)
        pool, validation = cutter.cut(pool, [share / whole for share in shares], "split")
    splits = Splits(np.sort(np.concatenate([pool, only_train])), validation, test, natural)
    splits = _without_dropped(cutter, splits)
    refuse_empty_splits(splits, list(cut), cutter, whole_pool, data.group_column)
    _warn_of_uneven_splits(cutter, splits, {} if fold or balance.scope == "all" else cut)
    if isinstance(cutter, TimeSplitter):
        return replace(splits, time_ranges=cutter.ranges(splits))
    return splits


def _limited(cutter: Splitter, pool: Ints, limit: int, *, least: int) -> Ints:
    """Return the rows that `data.limit` leaves, with `least` independent rows of each class."""
    clean = cutter.clean
    positions = stratified_sample(
        clean.label_ids_N[pool],
        clean.text_hashes_N[pool],
        limit,
        seed=cutter.seed,
        least=least,
        units_N=cutter.units(pool),
        label_matrix_NC=None if clean.label_matrix_NC is None else clean.label_matrix_NC[pool],
    )
    return pool[positions]


def _cut_test(cutter: Splitter, pool: Ints, share: float) -> tuple[Ints, Ints]:
    """Return the rest of the pool, and the test rows.

    The rest is cut in two halves and joined again, which makes sure that it can still be cut.
    """
    half = (1 - share) / 2
    first, second, test = cutter.cut(pool, [half, half, share], "test split")
    return np.sort(np.concatenate([first, second])), test


def _cut_fold(cutter: Splitter, pool: Ints, fold: Fold) -> tuple[Ints, Ints]:
    """Return the rows that train and the rows that validate in a fold."""
    folds, in_all = cutter.folds(pool, fold.total)
    validation = folds.pop(fold.number)
    return np.concatenate([in_all, *folds]), validation


def _balanced_pool(
    cutter: Splitter, pool: Ints, balance: BalanceSection, fold: Fold | None
) -> tuple[Ints, Ints, Ints]:
    """Return the balanced pool, the rows that can only train, and the pool before balancing."""
    clean, labels = cutter.clean, cutter.clean.labels.names
    num_splits = fold.total if fold else 2
    if cutter.policy == "error":
        counts_C = np.bincount(clean.label_ids_N[pool], minlength=len(labels))
        refuse_small_classes(counts_C, labels, num_splits)
    natural, only_train_N = cutter.usable(pool, num_splits, first_trains=fold is None)
    pool = natural[~only_train_N]
    if len(pool):
        balanced: Any = plan_pool if clean.label_matrix_NC is None else plan_label_pool
        positions = balanced(
            clean.targets[pool],
            clean.text_hashes_N[pool],
            labels=labels,
            method=balance.method,
            parameter=balance.parameter,
            seed=cutter.seed,
        )
        pool = pool[positions]
    return pool, natural[only_train_N], natural


def _without_dropped(cutter: Splitter, splits: Splits) -> Splits:
    """Return the splits without the classes that `split.rare_classes: drop` leaves out."""
    if isinstance(cutter, TimeSplitter):
        cutter.settle_classes(splits)
    train, validation, test = (
        cutter.without_dropped(ids) for ids in (splits.train, splits.validation, splits.test)
    )
    return replace(splits, train=train, validation=validation, test=test)


def _warn_of_uneven_splits(cutter: Splitter, splits: Splits, cut: Mapping[str, float]) -> None:
    """Warn of classes that a split lacks, of sizes far from their share, and of divided times."""
    warn_of_missing_classes(cutter.clean, splits)
    warn_of_other_shares(splits, cut, cutter)
    if isinstance(cutter, TimeSplitter):
        cutter.warn_of_ties(splits)


def refuse_shared_groups(clean: CleanRows, splits: Splits) -> None:
    """Raise DataError if a group is in two splits that the data give.

    Splits that are cut here keep groups together.
    """
    groups = clean.rows.table["group"]
    found = {
        name: set(groups.take(pa.array(ids)).unique().to_pylist()) - {None}
        for name, ids in splits.named.items()
    }
    for first, second in combinations(found, 2):
        if shared := found[first] & found[second]:
            raise DataError(
                f"data.group_column: group {listing(shared, 5)} is in {first} and in {second}; a "
                "group must be in one split only. Remove its rows from one of the files, or leave "
                "out data.group_column."
            )
