"""The data that all trainings of a comparison share, prepared once by each worker."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainer.arrays import Ints
from trainer.comparison.selection import DividedRows, UsedSelection, divide
from trainer.config.config import Config
from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.data.augmenting.augment import SyntheticRows, write_rows
from trainer.data.cleaning.clean import CleanRows
from trainer.data.prepare import balance_splits, read_splits
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.source_tables import hub_commits
from trainer.data.split_rows import Fold
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.files.cache import cache_dir
from trainer.run_folder.environment import Commits
from trainer.runs import preparation
from trainer.training.models.model import load_pretrained_config, load_tokenizer, pinned
from trainer.training.models.model_weights import check_weights


@dataclass(frozen=True)
class FoldData:
    """The data that all trainings of a fold share.

    Attributes:
        rows: training rows, rows to choose on, and compared rows. Trainings do not get the test
            rows.
        test_rows: row ids of the test split; may be empty.
        unbalanced: the data without balancing.
        tokens: tokens of all training rows (`train`), of the rows to choose on (`validation`), and
            of the compared rows (`compared`).
    """

    clean: CleanRows
    rows: DividedRows
    test_rows: Ints
    synthetic: SyntheticRows | None
    unbalanced: PreparedData
    tokens: dict[str, TokenisedRows]


@dataclass(frozen=True)
class SharedData:
    """The data, tokenizer and model config that all trainings of a comparison share.

    Attributes:
        config: the given config, completed for this hardware; its model is pinned to a commit.
        folds: {index of the fold: its data}; without folds, the only key is None.
        selection: how trainings choose their epochs.
    """

    config: Config
    pretrained: Any
    tokenizer: Any
    max_length: int
    folds: dict[int | None, FoldData]
    commits: Commits
    selection: UsedSelection

    @property
    def first(self) -> FoldData:
        """Return the data of the first fold."""
        return next(iter(self.folds.values()))

    @property
    def is_multi_label(self) -> bool:
        """Return whether a row may have any number of labels."""
        return self.first.unbalanced.is_multi_label

    @property
    def has_test(self) -> bool:
        """Return whether there are test rows."""
        return len(self.first.test_rows) > 0

    @property
    def words(self) -> str:
        """Return the numbers of rows, in words."""
        num_test, num_folds = len(self.first.test_rows), len(self.folds)
        of_folds = f" (first of {num_folds} folds)" if num_folds > 1 else ""
        test = f"{num_test:,} test rows, used once at the end" if num_test else "no test rows"
        num_train = len(self.first.rows.splits.train)
        return f"{num_train:,} training rows{of_folds}; {test}. Selection: {self.selection.words}."


def prepare_shared(config: Config) -> SharedData:
    """Return the rows, read, cleaned, split and tokenised for all trainings.

    Raises:
        TrainerError: the rows or the model cannot be used.
    """
    pretrained = load_pretrained_config(config.model)
    model = pinned(config.model)
    commits: Commits = {
        "model": {} if model is config.model else {config.model.name: model.revision},
        "data": hub_commits(config.data),
    }
    tokenizer, max_length = load_tokenizer(model, pretrained)
    check_weights(model)
    num_folds = config.compare.folds
    folds = [None] if num_folds is None else [Fold(fold, num_folds) for fold in range(num_folds)]
    by = BalanceSection(by=config.balance.by)
    read = [
        read_splits(
            config.data, config.split, by, seed=config.run.seed, cache_dir=cache_dir(), fold=fold
        )
        for fold in folds
    ]
    selection, divided = divide(config, read[0][0], [splits for _, splits in read])
    data = {
        fold.number if fold else None: _prepare_fold(
            config, clean, rows, splits.test, tokenizer, max_length
        )
        for fold, (clean, splits), rows in zip(folds, read, divided, strict=True)
    }
    pinned_config = config.model_copy(update={"model": model})
    return SharedData(pinned_config, pretrained, tokenizer, max_length, data, commits, selection)


def _prepare_fold(
    config: Config,
    clean: CleanRows,
    rows: DividedRows,
    test_rows: Ints,
    tokenizer: Any,
    max_length: int,
) -> FoldData:
    seed, synthetic = config.run.seed, None
    if config.augment.generator != "none":  # rejects synthetic rows that are like test rows
        splits = replace(rows.splits, validation=_union(rows))
        synthetic = write_rows(clean, splits, config.augment, seed=seed, cache_dir=cache_dir())
    rows = replace(rows, splits=replace(rows.splits, test=test_rows[:0]))
    unbalanced = balance_splits(
        clean, rows.splits, BalanceSection(), LossSection(), seed=seed, synthetic=synthetic
    )
    if rows.compared is rows.splits.validation:  # nothing is chosen on them
        tokens = preparation.tokenise_splits(unbalanced, tokenizer, max_length)
        tokens["compared"] = tokens["validation"]
    else:
        shown = replace(unbalanced, splits=replace(unbalanced.splits, test=rows.compared))
        tokens = preparation.tokenise_splits(shown, tokenizer, max_length)
        tokens["compared"] = tokens.pop("test")
    return FoldData(clean, rows, test_rows, synthetic, unbalanced, tokens)


def _union(rows: DividedRows) -> Ints:
    """Return all rows that no training may learn from, test rows aside."""
    return np.union1d(rows.splits.validation, rows.compared)
