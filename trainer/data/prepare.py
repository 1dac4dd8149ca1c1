"""The stages of the data in their order. Read this module first.

    read -> clean -> split -> (augment) -> balance -> weigh

1. `read_splits` reads the files (`reading/`), cleans the rows (`cleaning/`, `labels/`) and cuts
   them into train, validation and test (`split_rows.py`, `splitting/`). With `data.streaming`,
   `streaming/` does all of this.
2. `augmenting/` lets a language model write rows of rare classes, if `augment` is set.
3. `balance_splits` plans which training rows an epoch draws (`training_plan.py`, `balancing/`) and
   computes the class weights. `tokens/` then turns texts into token ids.
"""

from pathlib import Path

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.augmenting.augment import SyntheticRows, add_rows
from trainer.data.balancing.balance import wanted_rows, warn_of_few_rows
from trainer.data.balancing.weights import class_weights
from trainer.data.cleaning.clean import CleanRows, Streamed, clean_rows
from trainer.data.cleaning.lost_classes import refuse_lost_classes, refuse_unseen_labels
from trainer.data.cleaning.sanity_checks import warn_of_class_sizes, warn_of_suspicious_rows
from trainer.data.labels.multi_label import positive_weights
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.sources import read_rows
from trainer.data.split_rows import Fold, refuse_shared_groups, split_rows
from trainer.data.splitting.rare_classes import without_classes
from trainer.data.splitting.split import Splits
from trainer.data.streaming.streamed_rows import stream_splits
from trainer.data.summary import summarise_splits
from trainer.data.training_plan import domains_of, plan_training
from trainer.errors import counted
from trainer.progress import stage


def read_splits(
    data: DataSection,
    split: SplitSection | None,
    balance: BalanceSection,
    *,
    seed: int,
    cache_dir: Path,
    fold: Fold | None = None,
) -> tuple[CleanRows, Splits]:
    """Read, clean and split the rows.

    Args:
        fold: the fold that is the validation split, for a member of an ensemble of folds.
    Raises:
        DataError: the rows cannot be used; the text says which and why.
    """
    if data.streaming:
        with stage() as done:
            clean, splits = stream_splits(data, split, balance, seed=seed, cache_dir=cache_dir)
            done(f"Read and split: {splits.words} rows")
    else:
        clean = read_and_clean(data, balance, split, cache_dir)
        with stage() as done:
            splits = split_rows(clean, data, split, balance, seed=seed, fold=fold)
            done(f"Split: {splits.words} rows")
        if split and split.rare_classes == "drop":
            train_C = clean.labels.counts(clean.targets[splits.train])
            clean = without_classes(clean, np.flatnonzero(train_C == 0))
        if data.group_column:
            refuse_shared_groups(clean, splits)
    warn_of_class_sizes(clean, splits.train, data)
    return clean, splits


def read_and_clean(
    data: DataSection, balance: BalanceSection, split: SplitSection | None, cache_dir: Path
) -> CleanRows:
    """Read and clean the rows.

    Raises:
        DataError: the rows cannot be used; the text says which and why.
    """
    with stage() as done:
        rows = read_rows(data, cache_dir, balance.by, split.by_time if split else None)
        files = counted(len(rows.places.files), "file")
        done(f"Read {counted(rows.table.num_rows, 'row')} from {files}")
    with stage() as done:
        clean = clean_rows(rows, data.clean, data.drop_labels, data.label_map, data.labels_per_row)
        done(f"Cleaned: {counted(clean.counts['kept'], 'row')} kept")
    refuse_lost_classes(clean.lost)
    warn_of_suspicious_rows(clean, data)
    if data.pool == "train":
        refuse_unseen_labels(clean)
    return clean


def balance_splits(
    clean: CleanRows,
    splits: Splits,
    balance: BalanceSection,
    loss: LossSection,
    *,
    seed: int,
    synthetic: SyntheticRows | None = None,
) -> PreparedData:
    """Plan the rows of an epoch, and compute class weights from the rows that it draws.

    Args:
        seed: the seed of the rows drawn for training.
        synthetic: rows that a language model wrote; they join the training rows first.
    Raises:
        DataError: a class has no training row.
        ConfigError: the class weights name labels that the rows lack.
    """
    if synthetic is not None:
        clean, splits = add_rows(clean, splits, synthetic)
    domains = domains_of(clean) if balance.by else None
    plan = plan_training(clean, splits.train, domains, balance, seed)
    if clean.streamed:
        _warn_of_streamed_undersampling(clean.streamed, clean.labels.names, balance)
    summary = summarise_splits(clean, splits, plan, is_augmented=synthetic is not None)
    if clean.label_matrix_NC is None:
        weights_C = weights_over(plan.counts_C, loss, clean.labels.names)
    else:
        weights_C = positive_weights(
            summary.counts["drawn"],
            len(plan.positions()),
            loss.weighting,
            clean.labels.names,
            beta=loss.beta,
        )
    return PreparedData(clean, splits, plan, weights_C, summary, domains, synthetic)


def weights_over(counts_C: Ints, loss: LossSection, labels: list[str]) -> Floats:
    """Return the class weights of the loss section over the given number of rows per class."""
    return class_weights(
        counts_C, loss.class_weights, labels, beta=loss.beta or 0.999, mean_over=loss.weights_mean
    )


def _warn_of_streamed_undersampling(
    streamed: Streamed, labels: list[str], balance: BalanceSection
) -> None:
    """Warn if undersampling kept few rows; streaming read all rows but kept only those drawn."""
    if balance.row_method != "undersample" or balance.by or balance.resample_each_epoch:
        return
    natural_C = np.array(streamed.natural["train"], np.int64)
    kept = int(wanted_rows(natural_C, "undersample", balance.parameter).sum())
    warn_of_few_rows(kept, int(natural_C.sum()), "undersample", natural_C, labels)


def rows_of_epoch(counts_C: Ints, balance: BalanceSection) -> int:
    """Return about how many rows an epoch sees, from the training rows of each class."""
    if balance.row_method == "none" or balance.by:
        return int(counts_C.sum())
    return int(wanted_rows(counts_C, balance.method, balance.parameter).sum())
