"""The trainer that a config asks for, and its inputs."""

from pathlib import Path
from typing import Any

from trainer.arrays import Floats, Ints
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
from trainer.training.batches.widths import refuse_unreadable_length
from trainer.training.frozen.head import HeadFit, HeadRows, HeadTrainer
from trainer.training.frozen.synthesis import synthesise
from trainer.training.losses.step_loss import LOSS_FAMILIES
from trainer.training.memory import tokens_that_fit
from trainer.training.progress import EpochTable, epoch_metrics
from trainer.training.run_trainer import RunTrainer
from trainer.training.sharding import is_sharded
from trainer.training.trackers.trackers import Trackers


def build_trainer(
    config: Config,
    arguments: Any,
    data: PreparedData,
    model: Any,
    tokenizer: Any,
    tokens: dict[str, TokenisedRows],
    folder: writer.RunFolder,
    trackers: Trackers,
) -> RunTrainer:
    """Return the trainer of a whole model or an adapter."""
    loss, speed, training = config.loss, config.speed, config.training_values
    write_epochs = folder.write_epochs if distributed.is_main() else None
    reduced = distributed.from_main(lambda: tokens_that_fit(folder.checkpoints))
    trainer: RunTrainer = RunTrainer(
        model=model,
        args=arguments,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        data_collator=Collator(tokenizer, multiple=8 if arguments.bf16 or arguments.fp16 else 1),
        compute_metrics=epoch_metrics(data.labels, data.summary.minority_label),
        positions=data.plan.positions_in_seen,
        loss=loss.name,
        loss_settings=loss.settings,
        class_weights=data.loss_weights(loss.weighting),
        defer_weights=loss.defer_weights,
        class_counts=data.plan.counts_C,
        num_rows=len(data.plan.positions()),
        sampling=training["train_sampling_strategy"],
        balanced_batches=data.plan.balanced_batches,
        draws_S=data.plan.draws_S,
        packing=speed.packing,
        fast_layers=speed.fast_layers,
        tokens_per_pass=reduced or speed.tokens_per_pass,
        halve_on_out_of_memory=speed.halve_on_out_of_memory,
        refit=(kind, _head_rows(data, tokens)) if (kind := training.get("refit_head")) else None,
        layer_decay=training.get("layerwise_learning_rate_decay"),
        save_total_limit=training["save_total_limit"],
        plan_digest=data.plan_digest,
        trackers=trackers,
        callbacks=[EpochTable(write_epochs, lambda: trainer.figures()), *early_stopping(training)],
    )
    trainer.check_optimizer()
    if not is_sharded(arguments):
        max_length = tokenizer.model_max_length
        refuse_unreadable_length(trainer.model, tokenizer, max_length, config.model.name)
    return trainer


def build_head_trainer(
    config: Config,
    arguments: Any,
    data: PreparedData,
    model: Any,
    tokenizer: Any,
    tokens: dict[str, TokenisedRows],
    folder: writer.RunFolder,
    trackers: Trackers,
    cache_dir: Path,
) -> HeadTrainer:
    """Return the trainer of the final layer on a frozen encoder (`model.mode: head`)."""
    balance, loss, family = config.balance, config.loss, LOSS_FAMILIES[data.is_multi_label]

    def weigh(counts_C: Ints) -> Floats:
        if data.is_multi_label:  # no rows are added
            return data.loss_weights(loss.weighting)
        return weights_over(counts_C, loss, data.labels)

    def add_synthetic(features_NH: Any, label_ids_N: Any) -> tuple[Any, Any]:
        return synthesise(
            balance.method,
            features_NH,
            label_ids_N,
            data.plan.row_keys_N[data.plan.positions()],
            neighbours=balance.neighbours,
            generator=stage_generator(config.member_seed, "synthesis"),
        )

    refuse_unreadable_length(model, tokenizer, tokenizer.model_max_length, config.model.name)
    return HeadTrainer(
        model=model,
        tokenizer=tokenizer,
        args=arguments,
        rows=_head_rows(data, tokens),
        fit=HeadFit(
            loss=family.losses[loss.name],
            loss_options=lambda counts_C: family.options(
                loss.name, loss.settings, counts_C, len(data.plan.positions())
            ),
            weigh=weigh,
            l2=config.model.head.l2,
            synthesise=add_synthetic if balance.method in SYNTHESIS_METHODS else None,
        ),
        cache_dir=cache_dir,
        write_epochs=folder.write_epochs,
        trackers=trackers,
    )


def _head_rows(data: PreparedData, tokens: dict[str, TokenisedRows]) -> HeadRows:
    return HeadRows(
        train=tokens["train"],
        positions=data.plan.positions_in_seen(),
        validation=tokens["validation"],
        labels=data.labels,
        minority_label=data.summary.minority_label,
    )
