"""The data that all trainings of a comparison share, prepared once by each worker."""

from dataclasses import dataclass, replace
from typing import Any

from trainer.arrays import Ints
from trainer.comparison.strategies import MULTI_LABEL
from trainer.config.config import Config
from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.data.augmenting.augment import SyntheticRows, write_rows
from trainer.data.cleaning.clean import CleanRows
from trainer.data.prepare import balance_splits, read_splits
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.source_tables import hub_commits
from trainer.data.split_rows import Fold
from trainer.data.splitting.split import Splits
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.errors import ConfigError
from trainer.files.cache import cache_dir
from trainer.run_folder.environment import Commits
from trainer.runs import preparation
from trainer.training.models.model import load_pretrained_config, load_tokenizer, pinned
from trainer.training.models.model_weights import check_weights


@dataclass(frozen=True)
class FoldData:
    """The data that all trainings of a fold share.

    Attributes:
        splits: training and validation rows. Trainings do not get the test rows.
        test_rows: row ids of the test split; may be empty.
        unbalanced: the data without balancing.
        tokens: tokens of all training rows and of the validation rows.
    """

    clean: CleanRows
    splits: Splits
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
    """

    config: Config
    pretrained: Any
    tokenizer: Any
    max_length: int
    folds: dict[int | None, FoldData]
    commits: Commits

    @property
    def first(self) -> FoldData:
        """Return the data of the first fold."""
        return next(iter(self.folds.values()))

    @property
    def has_test(self) -> bool:
        """Return whether there are test rows."""
        return len(self.first.test_rows) > 0

    @property
    def words(self) -> str:
        """Return the numbers of rows, in words."""
        splits, num_test, num_folds = self.first.splits, len(self.first.test_rows), len(self.folds)
        of_folds = f" (first of {num_folds} folds)" if num_folds > 1 else ""
        test = f"{num_test:,} test rows, used once at the end" if num_test else "no test rows"
        return (
            f"{len(splits.train):,} training rows and {len(splits.validation):,} validation rows"
            f"{of_folds}; {test}."
        )


def prepare_shared(config: Config) -> SharedData:
    """Return the rows, read, cleaned, split and tokenised for all trainings.

    Raises:
        TrainerError: the rows or the model cannot be used, or rows have several labels.
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
    data = {
        fold.number if fold else None: _prepare_fold(config, fold, tokenizer, max_length)
        for fold in folds
    }
    pinned_config = config.model_copy(update={"model": model})
    return SharedData(pinned_config, pretrained, tokenizer, max_length, data, commits)


def _prepare_fold(config: Config, fold: Fold | None, tokenizer: Any, max_length: int) -> FoldData:
    seed, cache, by = config.run.seed, cache_dir(), BalanceSection(by=config.balance.by)
    clean, splits = read_splits(
        config.data, config.split, by, seed=seed, cache_dir=cache, fold=fold
    )
    if clean.label_matrix_NC is not None:
        raise ConfigError(MULTI_LABEL)
    synthetic = None
    if config.augment.generator != "none":  # rejects synthetic rows that are like test rows
        synthetic = write_rows(clean, splits, config.augment, seed=seed, cache_dir=cache)
    test_rows, splits = splits.test, replace(splits, test=splits.test[:0])
    unbalanced = balance_splits(
        clean, splits, BalanceSection(), LossSection(), seed=seed, synthetic=synthetic
    )
    tokens = preparation.tokenise_splits(unbalanced, tokenizer, max_length)
    return FoldData(clean, splits, test_rows, synthetic, unbalanced, tokens)
