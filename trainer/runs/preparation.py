"""From the config to a run that is ready for its training: rows, token ids, arguments."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.data.augmenting.augment import write_rows
from trainer.data.cleaning.clean import CleanRows
from trainer.data.prepare import balance_splits, read_splits
from trainer.data.prepared_data import PreparedData
from trainer.data.reading.source_tables import hub_commits
from trainer.data.split_rows import Fold
from trainer.data.splitting.split import Splits
from trainer.data.tokens.tokenise import TokenisedRows, tokenise
from trainer.files.cache import cache_dir
from trainer.launch import distributed
from trainer.progress import stage
from trainer.run_folder.writer import RunFolder
from trainer.training.frozen.synthesis import refuse_few_rows

if TYPE_CHECKING:
    from trainer.config.sections.model import ModelSection
    from trainer.data.summary import Lengths
    from trainer.run_folder.environment import Commits


@dataclass(frozen=True)
class PreparedRun:
    """A run before its training.

    Attributes:
        arguments: transformers' TrainingArguments.
        model: the section, with the Hub commit that is used.
        pretrained: the config of the pretrained model.
        tokens: {split: token ids}.
    """

    config: Config
    folder: RunFolder
    arguments: Any
    data: PreparedData
    model: "ModelSection"
    pretrained: Any
    tokenizer: Any
    max_length: int
    tokens: dict[str, TokenisedRows]

    @cached_property
    def lengths(self) -> "dict[str, Lengths]":
        """{split: lengths in tokens}."""
        from trainer.data.summary import summarise_lengths

        return {name: summarise_lengths(rows) for name, rows in self.tokens.items()}

    @property
    def commits(self) -> "Commits":
        """The Hub commits of the base model and of the data."""
        name = self.config.model.name
        of_model = {} if self.model is self.config.model else {name: self.model.revision}
        return {"model": of_model, "data": hub_commits(self.config.data)}


def read_and_split(config: Config) -> tuple[CleanRows, Splits]:
    """Return the cleaned rows and the splits, which are the same for every run of this config."""
    ensemble = config.ensemble
    is_fold = ensemble.kind == "folds"
    return read_splits(
        config.data,
        config.split,
        config.balance,
        seed=config.run.seed,
        cache_dir=cache_dir(),
        fold=Fold(ensemble.member - 1, ensemble.size) if is_fold and ensemble.member else None,
    )


def prepare(config: Config) -> PreparedData:
    """Return the rows: read, cleaned, split, augmented, balanced and weighted.

    The first process of each machine does the work; the others read its cache. The main process
    writes synthetic rows and sends them to all, since each call of a generator gives other rows.
    """
    seed = config.run.seed
    clean, splits = distributed.main_first(lambda: read_and_split(config))
    config.check_problem_type(multi_label=clean.label_matrix_NC is not None)
    synthetic = None
    if config.augment.generator != "none":
        synthetic = distributed.from_main(
            lambda: write_rows(clean, splits, config.augment, seed=seed, cache_dir=cache_dir())
        )
    with stage() as done:
        data = balance_splits(
            clean, splits, config.balance, config.loss, seed=config.member_seed, synthetic=synthetic
        )
        drawn, train = len(data.plan.positions()), len(data.splits.train)
        method = config.balance.method
        done(f"Balanced ({method}): an epoch draws {drawn:,} of {train:,} training rows")
    if config.balance.method in SYNTHESIS_METHODS:
        refuse_few_rows(
            config.balance.method, data.plan.counts_C, data.labels, config.balance.neighbours
        )
    distributed.refuse_differences(lambda: data.fingerprints)
    return data


def tokenise_splits(
    data: PreparedData, tokenizer: Any, max_length: int
) -> dict[str, TokenisedRows]:
    """Return the token ids of each split; for train only those of rows that training will see."""
    rows = data.splits.named | {"train": data.splits.train[data.plan.seen]}
    return distributed.main_first(
        lambda: {
            name: tokenise(
                data.clean.rows.table,
                ids,
                data.clean.targets[ids],
                tokenizer,
                max_length=max_length,
                fingerprint=data.clean.text_fingerprint,
                cache_dir=cache_dir(),
                release=data.clean.rows.release,
            )
            for name, ids in rows.items()
        }
    )


def prepare_run(
    config: Config, folder: RunFolder, arguments: Any, data: PreparedData
) -> PreparedRun:
    """Return the run with tokenizer and token ids; check the weights of the model.

    Raises:
        TrainerError: batches that are too small, or a model that cannot be trained.
    """
    from trainer.training.batches.batching import refuse_small_steps
    from trainer.training.models.model import load_pretrained_config, load_tokenizer, pinned
    from trainer.training.models.model_weights import check_weights

    if data.plan.balanced_batches:
        refuse_small_steps(
            len(data.labels),
            arguments.per_device_train_batch_size,
            arguments.gradient_accumulation_steps,
            distributed.world_size(),
        )
    pretrained = load_pretrained_config(config.model)
    model = pinned(config.model)
    tokenizer, max_length = load_tokenizer(model, pretrained)
    distributed.from_main(lambda: check_weights(model))
    with stage() as done:
        tokens = tokenise_splits(data, tokenizer, max_length)
        texts = sum(map(len, tokens.values()))
        done(f"Tokenised {texts:,} texts to at most {max_length} tokens each")
    return PreparedRun(
        config, folder, arguments, data, model, pretrained, tokenizer, max_length, tokens
    )
