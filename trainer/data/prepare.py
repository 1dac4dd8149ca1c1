"""The stages of the data wing in order: read, clean, limit, split, (augment,) balance, weigh."""

from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from trainer.data.audit import Audit, audit_splits
from trainer.data.augment import SyntheticRows, add_rows
from trainer.data.balance import BalancePlan, plan_balance, plan_pool
from trainer.data.class_counts import warn_of_odd_class_counts
from trainer.data.clean import CleanRows, clean_rows, refuse_lost_classes, refuse_unseen_labels
from trainer.data.iterative import iterative_split
from trainer.data.multi_label import first_label_ids, positive_weights
from trainer.data.sources import read_rows
from trainer.data.split import Splits, refuse_small_classes, stratified_sample, stratified_split
from trainer.data.streaming import stream_splits
from trainer.data.weights import class_weights
from trainer.errors import DataError, listing

if TYPE_CHECKING:
    from trainer.sections.balancing import BalanceSection, LossSection
    from trainer.sections.data import DataSection, SplitSection

Ints = NDArray[np.int64]
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
    class_weights_C: NDArray[np.float64]
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
        sizes_N = self.clean.label_matrix_NC[np.concatenate(list(self.splits.named.values()))].sum(axis=1)
        several, none = (sizes_N > 1).mean(), (sizes_N == 0).mean()
        return f"Multi-label: {sizes_N.mean():.2f} labels a row; {several:.1%} of the rows have two or more, {none:.1%} have none."

    @property
    def fingerprints(self) -> dict[str, str]:
        """Digests of the rows, of who is in which split and of what training draws and weighs: what processes of one run must share."""
        sides = {f"the fingerprint of {name} rows": xxhash.xxh3_64(ids_N.tobytes()).hexdigest() for name, ids_N in self.splits.named.items()}
        return {"the fingerprint of the data": self.clean.fingerprint, **sides, "the fingerprint of the rows and weights of training": self.plan_digest}

    @property
    def streamed_sentence(self) -> str:
        """What `data.streaming` read and chose, in words; empty without it."""
        return self.clean.streamed.sentence({name: len(ids) for name, ids in self.splits.named.items()}) if self.clean.streamed else ""

    @property
    def unused_rows(self) -> int:
        """Cleaned rows that stand in no split: left out by data.limit, balance.scope all or data.streaming."""
        return self.clean.counts["kept"] + self.clean.num_synthetic - sum(len(ids) for ids in self.splits.named.values())

    @property
    def plan_digest(self) -> str:
        """XXH3 digest of the rows that the first epoch sees and of the class weights."""
        positions = self.plan.positions()
        digest = xxhash.xxh3_128()
        for numbers in (self.plan.row_keys_N[positions], self.plan.label_ids_N[positions], self.class_weights_C):
            digest.update(numbers.tobytes())
        return digest.hexdigest()

    def with_synthetic(self, drawn_C: Ints, class_weights_C: NDArray[np.float64]) -> "PreparedData":
        """The data once rows were synthesised: what training saw of each class, and the weights over it."""
        return replace(self, class_weights_C=class_weights_C, audit=replace(self.audit, counts=self.audit.counts | {"drawn": drawn_C}))


def read_splits(
    data: "DataSection", split: "SplitSection | None", balance: "BalanceSection", *, seed: int, cache_dir: Path, fold: Fold | None = None
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
    clean = clean_rows(read_rows(data, cache_dir, balance.by), data.clean, data.drop_labels, data.label_map)
    refuse_lost_classes(clean.lost)
    if data.source is None:
        refuse_unseen_labels(clean)
    splits = split_rows(clean, data, split, balance, seed=seed, fold=fold)
    if data.group_column:
        refuse_shared_groups(clean, splits)
    warn_of_odd_class_counts(clean, splits.train, data)
    return clean, splits


def balance_splits(
    clean: CleanRows, splits: Splits, balance: "BalanceSection", loss: "LossSection", *, seed: int, synthetic: SyntheticRows | None = None
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
    train_label_ids, labels = _classes_to_balance(clean, splits.train)
    domains = _domain_ids(clean) if balance.by else None
    plan = plan_balance(
        train_label_ids,
        clean.text_hashes_N[splits.train],
        labels=labels,
        method="none" if balance.scope == "all" else balance.row_method,
        parameter=balance.parameter,
        seed=seed,
        resample_each_epoch=balance.resample_each_epoch,
        domains=_strata(domains, splits.train, train_label_ids, labels, balance.by_label) if domains else None,
    )
    audit = audit_splits(clean.labels, clean.targets, splits, plan, splits.pool, augmented=synthetic is not None, streamed=clean.streamed)
    if clean.label_matrix_NC is None:
        weights_C = weights_over(plan.counts_C, loss, labels)
    else:
        weights_C = positive_weights(audit.counts["drawn"], len(plan.positions()), loss.class_weights, clean.labels.names)
    return PreparedData(clean, splits, plan, weights_C, audit, domains, synthetic)


def _classes_to_balance(clean: CleanRows, train: Ints) -> tuple[Ints, list[str]]:
    """One class id for each training row, and the names of these classes: of multi-label rows those of their rarest labels.

    Raises:
        DataError: a label that no training row has.
    """
    if clean.label_matrix_NC is None:
        return clean.label_ids_N[train], clean.labels.names
    missing = [clean.labels.names[c] for c in np.flatnonzero(~clean.label_matrix_NC[train].any(axis=0))]
    if missing:
        raise DataError(f"the training rows hold no row of {listing(missing)}. Add rows, or list them in data.drop_labels.")
    names = [*clean.labels.names, "(no label)"]
    found, class_ids_N = np.unique(clean.label_ids_N[train], return_inverse=True)  # a label may be no row's rarest
    return class_ids_N, [names[c] for c in found]


def weights_over(counts_C: Ints, loss: "LossSection", labels: list[str]) -> NDArray[np.float64]:
    """The loss section's class weights over so many rows of each class."""
    return class_weights(counts_C, loss.class_weights, labels, beta=loss.beta or 0.999, mean_over=loss.weights_mean)


def split_rows(
    clean: CleanRows, data: "DataSection", split: "SplitSection | None", balance: "BalanceSection", *, seed: int, fold: Fold | None = None
) -> Splits:
    """Row ids of each split: as given by files, else by shares of `source` or `train`, or one fold as validation."""
    pool = clean.kept("source" if data.source is not None else "train")
    if data.limit:
        pool = pool[stratified_sample(clean.label_ids_N[pool], clean.text_hashes_N[pool], data.limit, seed=seed)]
    train_share, validation_share, test_share = (split.train, split.validation, split.test or 0.0) if split else (0.8, 0.2, 0.0)
    validation, test = clean.kept("validation"), clean.kept("test")
    cut = partial(_cut, clean, data=data, primary_label=bool(split and split.primary_label), seed=seed)
    if test_share and balance.scope == "train" and fold is None:
        train, validation, test = cut(pool, [train_share, validation_share, test_share], "split")
        return Splits(train, validation, test)
    if test_share:
        pool, test = cut(pool, [1 - test_share, test_share], "test split")
    if fold:
        folds = cut(pool, [1 / fold.total] * fold.total, "folds")
        return Splits(np.sort(np.concatenate([*folds[: fold.number], *folds[fold.number + 1 :]])), folds[fold.number], test)
    natural = pool if balance.scope == "all" else None
    if balance.scope == "all":
        refuse_small_classes(np.bincount(clean.label_ids_N[pool], minlength=len(clean.labels)), clean.labels.names, 2)
        class_ids_N = np.unique(clean.label_ids_N[pool], return_inverse=True)[1]  # a label may be no row's rarest
        pool = pool[plan_pool(class_ids_N, clean.text_hashes_N[pool], method=balance.method, parameter=balance.parameter, seed=seed)]
    if data.validation is None:
        whole = train_share + validation_share
        pool, validation = cut(pool, [train_share / whole, validation_share / whole], "split")
    return Splits(pool, validation, test, natural)


def _cut(clean: CleanRows, pool: Ints, shares: list[float], stage: str, *, data: "DataSection", primary_label: bool, seed: int) -> list[Ints]:
    groups, hashes, names = group_ids(clean, pool) if data.group_column else None, clean.text_hashes_N[pool], clean.labels.names
    if clean.label_matrix_NC is None:
        sides = stratified_split(clean.label_ids_N[pool], hashes, groups, shares, labels=names, seed=seed, stage=stage)
    elif primary_label:
        first_ids = first_label_ids(clean.rows.table["label"].take(pa.array(pool)), clean.labels, clean.naming.names)
        sides = stratified_split(first_ids, hashes, groups, shares, labels=[*names, "(no label)"], seed=seed, stage=stage)
    else:
        sides = iterative_split(clean.label_matrix_NC[pool], hashes, groups, shares, labels=names, seed=seed, stage=stage)
    return [pool[side] for side in sides]


def refuse_shared_groups(clean: CleanRows, splits: Splits) -> None:
    """Raises DataError when a group of given files stands in two splits; by shares the split itself keeps groups together."""
    groups = clean.rows.table["group"]
    found = {name: set(groups.take(pa.array(ids)).unique().to_pylist()) - {None} for name, ids in splits.named.items()}
    for first, second in combinations(found, 2):
        shared = found[first] & found[second]
        if shared:
            words = f"group {listing(shared, 5)} stands in {first} and in {second}; a group must not stand in two splits"
            raise DataError(f"data.group_column: {words}. Remove its rows from one of the files, or leave out data.group_column.")


def group_ids(clean: CleanRows, pool: Ints) -> Ints:
    """Id of each row's group; a row without a group is a group of its own."""
    column = clean.rows.table["group"].take(pa.array(pool)).combine_chunks()
    ids = pc.fill_null(pc.dictionary_encode(column).indices.cast(pa.int64()), -1).to_numpy(zero_copy_only=False).copy()
    lonely = ids < 0
    ids[lonely] = ids.max(initial=0) + 1 + np.arange(int(lonely.sum()))
    return ids


def _domain_ids(clean: CleanRows) -> tuple[Ints, list[str]]:
    """Domain id of every row and the names in order; rows without a domain form one of their own."""
    column = pc.fill_null(clean.rows.table["domain"], NO_DOMAIN)
    names = sorted(pc.unique(column).to_pylist())
    return pc.index_in(column, value_set=pa.array(names)).to_numpy().astype(np.int64), names


def _strata(domains: tuple[Ints, list[str]], train: Ints, label_ids_N: Ints, labels: list[str], by_label: bool) -> tuple[Ints, list[str]]:
    """Stratum id of each training row and the names of the strata that have rows: domains, or pairs of domain and label."""
    ids_N, names = domains[0][train], domains[1]
    if by_label:
        ids_N, names = ids_N * len(labels) + label_ids_N, [f"{domain} / {label}" for domain in names for label in labels]
    present, ids_N = np.unique(ids_N, return_inverse=True)
    return ids_N.astype(np.int64), [names[s] for s in present]
