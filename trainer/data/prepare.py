"""The stages of the data in order: read, clean, limit, split, (augment,) balance, weigh."""

from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from trainer.arrays import Floats, Ints
from trainer.config.sections.data import SplitSection
from trainer.data.augmenting.augment import SyntheticRows, add_rows
from trainer.data.balancing.balance import (
    BalancePlan,
    plan_balance,
    plan_pool,
    wanted_rows,
    warn_of_few_rows,
)
from trainer.data.balancing.label_balance import plan_label_balance, plan_label_pool
from trainer.data.balancing.weights import class_weights
from trainer.data.cleaning.class_counts import warn_of_odd_class_counts
from trainer.data.cleaning.clean import (
    CleanRows,
    clean_rows,
    refuse_lost_classes,
    refuse_unseen_labels,
)
from trainer.data.cleaning.odd_rows import warn_of_odd_rows
from trainer.data.labels.multi_label import positive_weights
from trainer.data.reading.sources import read_rows
from trainer.data.splitting.by_time import TimeCutter
from trainer.data.splitting.cutting import Cutter
from trainer.data.splitting.rare_classes import warn_of_unmeasured, without_classes
from trainer.data.splitting.side_sizes import refuse_empty_sides, warn_of_other_shares
from trainer.data.splitting.split import Splits, refuse_small_classes, stratified_sample
from trainer.data.streaming.streamed_rows import stream_splits
from trainer.data.summary import Audit, audit_splits
from trainer.errors import DataError, listing

if TYPE_CHECKING:
    from trainer.config.sections.balancing import BalanceSection, LossSection
    from trainer.config.sections.data import DataSection

NO_DOMAIN = "(none)"


class Fold(NamedTuple):
    """Fold `number`, from 0, of `total` validates."""

    number: int
    total: int


@dataclass(frozen=True)
class PreparedData:
    """Everything that training needs to know about the data.

    Attributes:
        plan: draws positions into `splits.train`.
        class_weights_C: one weight per class, mean 1 over the rows drawn; of multi-label data the positive weight of each label.
        synthetic: rows that a language model wrote, which stand at the end of `clean` and of `splits.train`; None without `augment`.
    """

    clean: CleanRows
    splits: Splits
    plan: BalancePlan
    class_weights_C: Floats
    audit: Audit
    domains: tuple[Ints, list[str]] | None = None
    """Domain id of every row and the names of the domains (`balance.by`)."""
    synthetic: SyntheticRows | None = None

    @property
    def labels(self) -> list[str]:
        """Names of the classes in the order of their ids."""
        return self.clean.labels.names

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have any number of labels."""
        return self.clean.label_matrix_NC is not None

    @property
    def labels_per_row(self) -> str:
        """How many labels the rows of the splits have, in words; empty where each has one."""
        if self.clean.label_matrix_NC is None:
            return ""
        sizes_N = self.clean.label_matrix_NC[np.concatenate(list(self.splits.named.values()))].sum(
            axis=1
        )
        several, none = (sizes_N > 1).mean(), (sizes_N == 0).mean()
        return f"Multi-label: {sizes_N.mean():.2f} labels a row; {several:.1%} of the rows have two or more, {none:.1%} have none."

    @property
    def balanced_sentence(self) -> str:
        """What balancing made of the counts of labels that share rows, in words; empty where each row has one or all are seen once."""
        matrix_NC, drawn_C = self.clean.label_matrix_NC, self.audit.counts["drawn"]
        positions = self.plan.positions()
        if matrix_NC is None or np.array_equal(positions, np.arange(len(self.splits.train))):
            return ""
        least, most = int(drawn_C.argmin()), int(drawn_C.argmax())
        unlabelled = int((matrix_NC[self.splits.train].sum(axis=1) == 0)[positions].sum())
        without = f", and {unlabelled:,} rows without one" if unlabelled else ""
        if drawn_C[least] == drawn_C[most]:
            return (
                f"Balanced by label: an epoch sees {drawn_C[most]:,} rows of every label{without}."
            )
        span = f"{drawn_C[least]:,} ({self.labels[least]}) to {drawn_C[most]:,} ({self.labels[most]}) rows of a label{without}"
        return f"Balanced by label: an epoch sees {span}. Labels that share rows cannot all have one count."

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests of the rows, of who is in which split and of what training draws and weighs: what processes of one run must share."""
        sides = {
            f"the fingerprint of {name} rows": xxhash.xxh3_64(ids_N.tobytes()).hexdigest()
            for name, ids_N in self.splits.named.items()
        }
        return {
            "the fingerprint of the data": self.clean.fingerprint,
            **sides,
            "the fingerprint of the rows and weights of training": self.plan_digest,
        }

    @property
    def streamed_sentence(self) -> str:
        """What `data.streaming` read and chose, in words; empty without it."""
        return (
            self.clean.streamed.sentence(
                {name: len(ids) for name, ids in self.splits.named.items()}
            )
            if self.clean.streamed
            else ""
        )

    @property
    def time_sentence(self) -> str:
        """Which times train, validate and test, in words; empty where rows are not split by time."""
        if not self.splits.time_ranges:
            return ""
        rows = {name: f"{len(ids):,} rows" for name, ids in self.splits.named.items()}
        parts = [
            f"{name} from {first} to {last} ({rows[name]})"
            for name, (first, last) in self.splits.time_ranges.items()
        ]
        return f"Split by time: {'; '.join(parts)}."

    @property
    def unused_rows(self) -> int:
        """Cleaned rows that stand in no split: left out by data.limit, balance.scope all or data.streaming."""
        return (
            self.clean.counts["kept"]
            + self.clean.num_synthetic
            - sum(len(ids) for ids in self.splits.named.values())
        )

    @property
    def plan_digest(self) -> str:
        """XXH3 digest of the rows that the first epoch sees and of the class weights."""
        positions = self.plan.positions()
        digest = xxhash.xxh3_128()
        for numbers in (
            self.plan.row_keys_N[positions],
            self.plan.targets[positions],
            self.class_weights_C,
        ):
            digest.update(numbers.tobytes())
        return digest.hexdigest()

    def with_synthetic(self, drawn_C: Ints, class_weights_C: Floats) -> "PreparedData":
        """The data once rows were synthesised: what training saw of each class, and the weights over it."""
        return replace(
            self,
            class_weights_C=class_weights_C,
            audit=replace(self.audit, counts=self.audit.counts | {"drawn": drawn_C}),
        )


def read_splits(
    data: "DataSection",
    split: SplitSection | None,
    balance: "BalanceSection",
    *,
    seed: int,
    cache_dir: Path,
    fold: Fold | None = None,
) -> tuple[CleanRows, Splits]:
    """Rows read, cleaned and split.

    Args:
        fold: which fold validates, in an ensemble of folds.
    Raises:
        DataError: anything wrong with the rows.
    """
    if data.streaming:
        clean, splits = stream_splits(data, split, balance, seed=seed, cache_dir=cache_dir)
        warn_of_odd_class_counts(clean, splits.train, data)
        return clean, splits
    rows = read_rows(data, cache_dir, balance.by, split.by_time if split else None)
    clean = clean_rows(rows, data.clean, data.drop_labels, data.label_map, data.labels_per_row)
    refuse_lost_classes(clean.lost)
    warn_of_odd_rows(clean, data)
    if data.pool == "train":
        refuse_unseen_labels(clean)
    splits = split_rows(clean, data, split, balance, seed=seed, fold=fold)
    if split and split.rare_classes == "drop":
        clean = without_classes(
            clean, np.flatnonzero(clean.labels.counts(clean.targets[splits.train]) == 0)
        )
    if data.group_column:
        refuse_shared_groups(clean, splits)
    warn_of_odd_class_counts(clean, splits.train, data)
    return clean, splits


def balance_splits(
    clean: CleanRows,
    splits: Splits,
    balance: "BalanceSection",
    loss: "LossSection",
    *,
    seed: int,
    synthetic: SyntheticRows | None = None,
) -> PreparedData:
    """The training rows, with the synthetic ones among them, balanced and weighed.

    Args:
        seed: of the rows drawn for training.
    Raises:
        DataError: a class without a training row.
        ConfigError: class weights for labels that the rows lack.
    """
    if synthetic is not None:
        clean, splits = add_rows(clean, splits, synthetic)
    domains = _domain_ids(clean) if balance.by else None
    plan = _plan(clean, splits.train, domains, balance, seed)
    if (
        clean.streamed
        and balance.row_method == "undersample"
        and not balance.by
        and not balance.resample_each_epoch
    ):
        natural_C = np.array(
            clean.streamed.natural["train"], np.int64
        )  # of which streaming kept those that are drawn
        kept = int(wanted_rows(natural_C, "undersample", balance.parameter).sum())
        warn_of_few_rows(kept, int(natural_C.sum()), "undersample", natural_C, clean.labels.names)
    audit = audit_splits(
        clean.labels,
        clean.targets,
        splits,
        plan,
        splits.pool,
        augmented=synthetic is not None,
        streamed=clean.streamed,
    )
    if clean.label_matrix_NC is None:
        weights_C = weights_over(plan.counts_C, loss, clean.labels.names)
    else:
        weights_C = positive_weights(
            audit.counts["drawn"], len(plan.positions()), loss.class_weights, clean.labels.names
        )
    return PreparedData(clean, splits, plan, weights_C, audit, domains, synthetic)


def _plan(
    clean: CleanRows,
    train: Ints,
    domains: tuple[Ints, list[str]] | None,
    balance: "BalanceSection",
    seed: int,
) -> BalancePlan:
    """Which of the training rows are drawn; classes are balanced, of rows with several labels the labels."""
    common: dict[str, Any] = {
        "labels": clean.labels.names,
        "method": "none" if balance.scope == "all" else balance.row_method,
        "parameter": balance.parameter,
        "seed": seed,
        "resample_each_epoch": balance.resample_each_epoch,
    }
    keys_N = clean.text_hashes_N[train]
    if clean.label_matrix_NC is not None:
        present = _present(domains[0][train], domains[1]) if domains else None
        return plan_label_balance(
            clean.label_matrix_NC[train],
            keys_N,
            domains=present,
            by_label=balance.by_label,
            **common,
        )
    label_ids_N = clean.label_ids_N[train]
    strata = (
        _strata(domains, train, label_ids_N, clean.labels.names, balance.by_label)
        if domains
        else None
    )
    return plan_balance(label_ids_N, keys_N, domains=strata, **common)


def weights_over(counts_C: Ints, loss: "LossSection", labels: list[str]) -> Floats:
    """The loss section's class weights over so many rows of each class."""
    return class_weights(
        counts_C, loss.class_weights, labels, beta=loss.beta or 0.999, mean_over=loss.weights_mean
    )


def split_rows(
    clean: CleanRows,
    data: "DataSection",
    split: SplitSection | None,
    balance: "BalanceSection",
    *,
    seed: int,
    fold: Fold | None = None,
) -> Splits:
    """Row ids of each split: as given, else by shares of `source` or `train`, by time, or one fold
    as validation.

    Test is cut first, from the same pool whatever the other splits are, so that one seed and share
    always give the same test rows.

    Raises:
        DataError: a split without a row; classes that cannot stand on every side
            (`split.rare_classes: error`).
    """
    pool, validation, test = clean.kept(data.pool), clean.kept("validation"), clean.kept("test")
    train_share, validation_share, test_share = (split or SplitSection()).shares
    is_cut = data.validation is None and not len(validation)
    if fold and not is_cut:
        raise DataError(
            f"folds cut validation themselves, but data.{data.split_column or 'validation'} holds validation rows. Remove them, or the folds."
        )
    cutter = (
        TimeCutter(clean, pool, data, split, seed)
        if split and split.by_time
        else Cutter(clean, pool, data, split, seed)
    )
    if data.limit:
        pool = pool[
            _limited(clean, pool, cutter, data.limit, seed, least=1 + is_cut + (test_share > 0))
        ]
    whole_pool = pool
    if test_share:
        half = (1 - test_share) / 2  # a third side makes sure that what is left can be cut again
        first, second, test = cutter.cut(pool, [half, half, test_share], "test split")
        pool = np.sort(np.concatenate([first, second]))
    elif is_cut and cutter.policy == "drop" and (fold or balance.scope == "all"):
        cutter.cut(
            pool, [train_share, validation_share], "split"
        )  # the same classes are dropped as without folds or a balanced pool
    only_train, natural = pool[:0], None
    if balance.scope == "all":
        pool, only_train, natural = _balanced_pool(clean, pool, cutter, balance, seed, fold)
    if fold:
        folds, in_all = cutter.folds(pool, fold.total)
        validation = folds[fold.number]
        pool = np.concatenate([in_all, *folds[: fold.number], *folds[fold.number + 1 :]])
    elif is_cut:
        whole = train_share + validation_share
        pool, validation = cutter.cut(
            pool, [train_share / whole, validation_share / whole], "split"
        )
    train = np.sort(np.concatenate([pool, only_train]))
    if isinstance(cutter, TimeCutter):
        cutter.settle_classes(Splits(train, validation, test))
    train, validation, test = (cutter.without_dropped(ids) for ids in (train, validation, test))
    splits = Splits(train, validation, test, natural)
    cut = {
        name: share
        for name, share, asked in (
            ("validation", validation_share, is_cut),
            ("test", test_share, test_share > 0),
        )
        if asked
    }
    refuse_empty_sides(splits, list(cut), cutter, whole_pool, data.group_column)
    warn_of_unmeasured(clean, splits)
    if not fold and balance.scope != "all":
        warn_of_other_shares(splits, cut, cutter)
    if isinstance(cutter, TimeCutter):
        cutter.warn_of_ties(splits)
        return replace(splits, time_ranges=cutter.ranges(splits))
    return splits


def _limited(
    clean: CleanRows, pool: Ints, cutter: Cutter, limit: int, seed: int, least: int
) -> Ints:
    """Positions of the rows that `data.limit` leaves of the pool, with so many independent rows of
    each class at least.
    """
    matrix_NC = None if clean.label_matrix_NC is None else clean.label_matrix_NC[pool]
    ids_N, hashes_N = clean.label_ids_N[pool], clean.text_hashes_N[pool]
    return stratified_sample(
        ids_N,
        hashes_N,
        limit,
        seed=seed,
        least=least,
        units_N=cutter.units(pool),
        label_matrix_NC=matrix_NC,
    )


def _balanced_pool(
    clean: CleanRows,
    pool: Ints,
    cutter: Cutter,
    balance: "BalanceSection",
    seed: int,
    fold: Fold | None,
) -> tuple[Ints, Ints, Ints]:
    """The balanced pool (`balance.scope: all`), the rows beside it that can only train, and the
    pool as it was.
    """
    num_sides = fold.total if fold else 2
    if cutter.policy == "error":
        refuse_small_classes(
            np.bincount(clean.label_ids_N[pool], minlength=len(clean.labels)),
            clean.labels.names,
            num_sides,
        )
    natural, only_train_N = cutter.usable(pool, num_sides, first_trains=fold is None)
    pool = natural[~only_train_N]
    if len(pool):
        balance_pool = plan_pool if clean.label_matrix_NC is None else plan_label_pool
        options: dict[str, Any] = {
            "labels": clean.labels.names,
            "method": balance.method,
            "parameter": balance.parameter,
            "seed": seed,
        }
        pool = pool[balance_pool(clean.targets[pool], clean.text_hashes_N[pool], **options)]
    return pool, natural[only_train_N], natural


def refuse_shared_groups(clean: CleanRows, splits: Splits) -> None:
    """Raises DataError when a group of given files stands in two splits; by shares the split itself keeps groups together."""
    groups = clean.rows.table["group"]
    found = {
        name: set(groups.take(pa.array(ids)).unique().to_pylist()) - {None}
        for name, ids in splits.named.items()
    }
    for first, second in combinations(found, 2):
        shared = found[first] & found[second]
        if shared:
            words = f"group {listing(shared, 5)} stands in {first} and in {second}; a group must not stand in two splits"
            raise DataError(
                f"data.group_column: {words}. Remove its rows from one of the files, or leave out data.group_column."
            )


def _domain_ids(clean: CleanRows) -> tuple[Ints, list[str]]:
    """Domain id of every row and the names in order; rows without a domain form one of their own."""
    column = pc.fill_null(clean.rows.table["domain"], NO_DOMAIN)
    names = sorted(pc.unique(column).to_pylist())
    return pc.index_in(column, value_set=pa.array(names)).to_numpy().astype(np.int64), names


def _strata(
    domains: tuple[Ints, list[str]],
    train: Ints,
    label_ids_N: Ints,
    labels: list[str],
    by_label: bool,
) -> tuple[Ints, list[str]]:
    """Stratum id of each training row and the names of the strata that have rows: domains, or pairs of domain and label."""
    ids_N, names = domains[0][train], domains[1]
    if by_label:
        ids_N, names = (
            ids_N * len(labels) + label_ids_N,
            [f"{domain} / {label}" for domain in names for label in labels],
        )
    return _present(ids_N, names)


def _present(ids_N: Ints, names: list[str]) -> tuple[Ints, list[str]]:
    """The same ids counted over the names that have rows, and these names."""
    present, ids_N = np.unique(ids_N, return_inverse=True)
    return ids_N.astype(np.int64), [names[s] for s in present]
