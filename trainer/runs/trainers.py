"""Of the story: which trainer a config asks for, and with what it is fed."""

from pathlib import Path
from typing import Any

from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.data.balancing.balance import stage_generator
from trainer.data.prepare import weights_over
from trainer.data.prepared_data import PreparedData
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.launch import distributed
from trainer.run_folder import writer
from trainer.training.arguments import early_stopping
from trainer.training.batches.batching import Collator
from trainer.training.frozen.head import HeadTrainer
from trainer.training.frozen.synthesis import synthesise
from trainer.training.losses import loss_options
from trainer.training.memory import tokens_that_fit
from trainer.training.models.model_checks import refuse_unreadable_length
from trainer.training.progress import EpochTable
from trainer.training.sharding import is_sharded
from trainer.training.weighted_trainer import WeightedTrainer, epoch_metrics


def build_trainer(
    config: Config,
    arguments: Any,
    data: PreparedData,
    model: Any,
    tokenizer: Any,
    tokens: dict[str, TokenisedRows],
    folder: writer.RunFolder,
) -> WeightedTrainer:
    """The trainer of whole models and adapters."""
    write_epochs = folder.write_epochs if distributed.is_main() else None
    trainer = WeightedTrainer(
        model=model,
        args=arguments,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        data_collator=Collator(tokenizer, multiple=8 if arguments.bf16 or arguments.fp16 else 1),
        compute_metrics=epoch_metrics(data.labels, data.summary.minority_label),
        positions=data.plan.positions_in_seen,
        class_weights_C=data.class_weights_C,
        loss="binary_cross_entropy" if data.is_multi_label else config.loss.name,
        loss_options=loss_options(
            config.loss.name, config.loss.gamma, config.loss.tau, data.plan.counts_C
        ),
        sampling=config.training_values["train_sampling_strategy"],
        balanced_batches=data.plan.balanced_batches,
        packing=config.speed.packing,
        fast_layers=config.speed.fast_layers,
        tokens_per_pass=distributed.from_main(lambda: tokens_that_fit(folder.checkpoints))
        or config.speed.tokens_per_pass,
        halve_on_out_of_memory=config.speed.halve_on_out_of_memory,
        save_total_limit=config.training_values["save_total_limit"],
        plan_digest=data.plan_digest,
        callbacks=[EpochTable(write_epochs), *early_stopping(config.training_values)],
    )
    trainer.check_optimizer()
    if not is_sharded(arguments):
        refuse_unreadable_length(
            trainer.model, tokenizer, tokenizer.model_max_length, config.model.name
        )
    return trainer


def build_head_trainer(
    config: Config,
    arguments: Any,
    data: PreparedData,
    model: Any,
    tokenizer: Any,
    tokens: dict[str, TokenisedRows],
    folder: writer.RunFolder,
    cache_dir: Path,
) -> HeadTrainer:
    """The trainer of the final layer alone, on a frozen encoder (`model.mode: head`)."""

    def add_synthetic(features_NH: Any, label_ids_N: Any) -> tuple[Any, Any]:
        generator = stage_generator(config.member_seed, "synthesis")
        row_keys_N = data.plan.row_keys_N[data.plan.positions()]
        return synthesise(
            config.balance.method,
            features_NH,
            label_ids_N,
            row_keys_N,
            neighbours=config.balance.neighbours,
            generator=generator,
        )

    refuse_unreadable_length(model, tokenizer, tokenizer.model_max_length, config.model.name)
    return HeadTrainer(
        model=model,
        tokenizer=tokenizer,
        args=arguments,
        train_rows=tokens["train"],
        validation_rows=tokens["validation"],
        labels=data.labels,
        minority_label=data.summary.minority_label,
        positions=data.plan.positions_in_seen(),
        weigh=lambda counts_C: weights_over(counts_C, config.loss, data.labels),
        loss=config.loss.name,
        loss_options=lambda counts_C: loss_options(
            config.loss.name, config.loss.gamma, config.loss.tau, counts_C
        ),
        synthesise=add_synthetic if config.balance.method in SYNTHESIS_METHODS else None,
        l2=config.model.head.l2,
        cache_dir=cache_dir,
        write_epochs=folder.write_epochs,
    )
