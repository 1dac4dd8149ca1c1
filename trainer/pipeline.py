"""THE STORY: one function that calls the stages in order; the only holder of the whole Config."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.config import BalanceSection, Config
from trainer.data.augment import records, write_rows
from trainer.data.clean import clean_rows
from trainer.data.generators import check_generator
from trainer.data.prepare import Fold, PreparedData, balance_splits, read_splits, weights_over
from trainer.data.sources import check_source, read_rows
from trainer.data.tokenise import TokenisedRows, tokenise
from trainer.delivery import hub, report
from trainer.errors import DataError
from trainer.training import distributed
from trainer.training.synthesis import SYNTHESISERS, refuse_few_rows, synthesise

if TYPE_CHECKING:
    from trainer.data.audit import Lengths
    from trainer.evaluation.decision import Decision
    from trainer.evaluation.outcome import Outcome
    from trainer.training.head import HeadTrainer
    from trainer.training.weighted_trainer import WeightedTrainer


def check(config: Config) -> None:
    """Config, first rows of the data, and the model's availability; writes nothing.

    Raises:
        TrainerError: whatever is wrong.
    """
    report.check_writable(run_path(config))
    config.check_problem_type(multi_label=check_source(config.data, config.balance.by))
    hub.check_login(config.hub)
    from trainer.training.model import check_weights, load_pretrained_config, load_tokenizer

    load_tokenizer(config.model, load_pretrained_config(config.model))
    check_weights(config.model)
    check_generator(config.augment)
    from trainer.training.arguments import build_arguments

    build_arguments(config.training_values, checkpoints=run_path(config) / "checkpoints", seed=config.run.seed)


def train(config: Config, *, resume: str = "auto") -> Path:
    """Train, evaluate and write the run folder; every process of a launch calls it.

    Args:
        resume: 'auto' continues an unfinished run of the same config and data, 'never' discards it.
    Returns:
        The run folder.
    Raises:
        TrainerError: bad config, data, model or folder; a loss that is not a number.
    """
    report.check_writable(run_path(config))
    if config.model.mode == "head":
        distributed.refuse_several_processes("model.mode head")
    distributed.start_processes(config.run.num_processes, config.run.num_threads)
    distributed.from_main(lambda: hub.check_login(config.hub))
    config = with_hardware_defaults(config)

    from transformers import set_seed

    from trainer.data.audit import audit_lengths
    from trainer.delivery import tables
    from trainer.training.arguments import build_arguments, quiet_libraries
    from trainer.training.batching import refuse_small_steps
    from trainer.training.checkpoints import saving
    from trainer.training.model import check_weights, load_model, load_pretrained_config, load_tokenizer

    quiet_libraries()
    folder = report.RunFolder(run_path(config))
    arguments = build_arguments(config.training_values, checkpoints=folder.checkpoints, seed=config.member_seed)
    data = prepare(config)
    if data.plan.balanced_batches:
        refuse_small_steps(len(data.labels), arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps, distributed.world_size())
    decision_plan = _plan_decision(config, data)
    pretrained = load_pretrained_config(config.model)
    tokenizer, max_length = load_tokenizer(config.model, pretrained)
    distributed.from_main(lambda: check_weights(config.model))
    tokens = tokenise_splits(data, tokenizer, max_length)
    checkpoint = distributed.from_main(
        lambda: report.plan_run(folder.path, config.to_dict(), data.clean.fingerprint, overwrite=config.run.overwrite, resume=resume)
    )
    lengths = {name: audit_lengths(rows) for name, rows in tokens.items()}
    if distributed.is_main():
        tables.print_audit(data, lengths, max_length)
    set_seed(config.member_seed)
    model = load_model(config.model, pretrained, data.labels, tokenizer, max_length, multi_label=data.is_multi_label)
    build = _build_head_trainer if config.model.mode == "head" else _build_trainer
    trainer: Any = build(config, arguments, data, model, tokenizer, tokens, folder)
    if distributed.is_main():
        print(f"model.mode {config.model.mode}: {trainer.num_trained:,} of {trainer.num_parameters:,} parameters are trained.")
        _open_run(folder, config, data, checkpoint)
    distributed.wait_for_everyone()
    clock = trainer.run(checkpoint)
    data = _settle(folder, config, data, trainer)
    decision_plan = _plan_decision(config, data)
    outcomes, decision = _evaluate_splits(trainer, data, tokens, decision_plan, config.run.seed)
    decided = _apply_decision(config, data, trainer.model, decision, decision_plan) if decision and decision_plan else None
    with saving(folder.model, folder.checkpoints):
        trainer.save_model(str(folder.path / "model.partial"))
    if distributed.is_main():
        _write_results(folder, config, data, trainer, outcomes, decided, clock, lengths, max_length)
    distributed.wait_for_everyone()
    return folder.path


def audit(config: Config, *, with_encoder: bool, folder: Path, threshold: float, max_rows: int) -> Path:
    """Path of the page that tells what the rows are like and what to try first; no training. Writes audit.json and audit.html.

    Args:
        with_encoder: the config's model judges labels and counts tokens; else TF-IDF judges them.
        folder: where the page goes; an older audit there is replaced. Never the run folder, which a run must find empty.
        threshold: Jaccard similarity from which texts are near duplicates.
        max_rows: rows compared and judged; of larger data a seeded, stratified sample.
    Raises:
        TrainerError: bad data or model, or a folder with files of others.
    """
    from trainer.data import inspection
    from trainer.data.near_duplicates import find_near_duplicates
    from trainer.delivery import audit_findings, audit_page, audit_tables
    from trainer.evaluation.label_noise import find_label_noise, term_weights
    from trainer.training.arguments import quiet_libraries
    from trainer.training.embeddings import open_encoder

    quiet_libraries()
    seed = config.run.seed
    audit_page.check_output(folder)
    if check_source(config.data):
        raise DataError("the audit reads one label a row, but the data are multi-label. Train with --set training.max_steps=1 to see their counts.")
    distributed.start_processes(1, config.run.num_threads)
    embed = open_encoder(config.model) if with_encoder else None
    clean = clean_rows(read_rows(config.data, cache_dir()), config.data.clean, config.data.drop_labels)
    splits, obstacles = inspection.planned_splits(clean, config.data, config.split, BalanceSection(), seed=seed)
    compared_N = inspection.sample(clean, splits, max_rows, seed=seed)
    texts_N = inspection.full_texts(clean, compared_N)
    near = find_near_duplicates(texts_N, threshold=threshold)
    features_NF, tokens = embed(clean, compared_N, cache_dir()) if embed else (term_weights(texts_N), None)
    units_N = inspection.independent_units(near, clean, compared_N, config.data)
    noise = find_label_noise(features_NF, clean.label_ids_N[compared_N], units_N, seed=seed)
    name = config.model.name if with_encoder else None
    findings = audit_findings.collect(config.data, clean, splits, obstacles, compared_N, near, noise, tokens, model_name=name, seed=seed)
    audit_tables.print_findings(findings)
    page = audit_page.write(folder, findings)
    print(f"Audit: {page}  (figures: {folder / 'audit.json'})")
    return page


def run_path(config: Config) -> Path:
    """The run folder; of a member of an ensemble the folder within."""
    path = Path(config.run.output_dir).expanduser() / config.run.name
    return path / f"member-{config.ensemble.member}" if config.ensemble.member else path


def member_of(config: Config, number: int) -> Config:
    """The config of one member of an ensemble, counted from 1."""
    values = config.to_dict()
    return Config.model_validate(values | {"ensemble": values["ensemble"] | {"member": number}})


def cache_dir() -> Path:
    """Folder of the memory-mapped rows and tokens, beside the caches of `datasets` (moved by HF_HOME)."""
    from huggingface_hub.constants import HF_HOME

    return Path(HF_HOME) / "equipoise"


def with_hardware_defaults(config: Config) -> Config:
    """The config with `training.bf16` set where it was left out, so that config.yaml trains again to the same numbers."""
    training = config.training_values
    if "bf16" in training or training.get("fp16"):
        return config
    return config.with_training(bf16=distributed.gains_from_bf16())


def prepare(config: Config) -> PreparedData:
    """The data wing: rows read, cleaned, split, augmented, balanced, weighed; once per machine, then from its cache.

    Synthetic rows are written by the main process and sent to all, since machines that each asked a model would get different rows.
    """
    seed, ensemble = config.run.seed, config.ensemble
    fold = Fold(ensemble.member - 1, ensemble.size) if ensemble.kind == "folds" and ensemble.member else None
    with distributed.main_first():
        clean, splits = read_splits(config.data, config.split, config.balance, seed=seed, cache_dir=cache_dir(), fold=fold)
    config.check_problem_type(multi_label=clean.label_matrix_NC is not None)
    synthetic = None
    if config.augment.generator != "none":
        synthetic = distributed.from_main(lambda: write_rows(clean, splits, config.augment, seed=seed, cache_dir=cache_dir()))
    data = balance_splits(clean, splits, config.balance, config.loss, seed=config.member_seed, synthetic=synthetic)
    if config.balance.method in SYNTHESISERS:
        refuse_few_rows(config.balance.method, data.plan.counts_C, data.labels, config.balance.neighbours)
    return data


def tokenise_splits(data: PreparedData, tokenizer: Any, max_length: int) -> dict[str, TokenisedRows]:
    """Token ids of each split; of train only the rows that will be seen."""
    rows = data.splits.named | {"train": data.splits.train[data.plan.seen]}
    with distributed.main_first():
        return {
            name: tokenise(
                data.clean.rows.table,
                ids,
                data.clean.targets[ids],
                tokenizer,
                max_length=max_length,
                fingerprint=data.clean.text_fingerprint,
                cache_dir=cache_dir(),
            )
            for name, ids in rows.items()
        }


def _build_trainer(
    config: Config, arguments: Any, data: PreparedData, model: Any, tokenizer: Any, tokens: dict[str, TokenisedRows], folder: report.RunFolder
) -> "WeightedTrainer":
    from transformers import DataCollatorWithPadding

    from trainer.training.arguments import early_stopping
    from trainer.training.losses import loss_options
    from trainer.training.progress import EpochTable
    from trainer.training.weighted_trainer import WeightedTrainer, epoch_metrics, sorted_by_length

    write_epochs = folder.write_epochs if distributed.is_main() else None
    trainer = WeightedTrainer(
        model=model,
        args=arguments,
        train_dataset=tokens["train"],
        eval_dataset=sorted_by_length(tokens["validation"]),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer, pad_to_multiple_of=8 if arguments.bf16 or arguments.fp16 else None),
        compute_metrics=epoch_metrics(data.labels, data.audit.minority_label),
        positions=data.plan.positions_in_seen,
        class_weights_C=data.class_weights_C,
        loss="binary_cross_entropy" if data.is_multi_label else config.loss.name,
        loss_options=loss_options(config.loss.name, config.loss.gamma, config.loss.tau, data.plan.counts_C),
        sampling=config.training_values["train_sampling_strategy"],
        balanced_batches=data.plan.balanced_batches,
        callbacks=[EpochTable(write_epochs), *early_stopping(config.training_values)],
    )
    trainer.check_optimizer()
    return trainer


def _build_head_trainer(
    config: Config, arguments: Any, data: PreparedData, model: Any, tokenizer: Any, tokens: dict[str, TokenisedRows], folder: report.RunFolder
) -> "HeadTrainer":
    from trainer.data.balance import stage_generator
    from trainer.training.head import HeadTrainer
    from trainer.training.losses import loss_options

    def add_synthetic(features_NH: Any, label_ids_N: Any) -> tuple[Any, Any]:
        generator = stage_generator(config.member_seed, "synthesis")
        row_keys_N = data.plan.row_keys_N[data.plan.positions()]
        return synthesise(config.balance.method, features_NH, label_ids_N, row_keys_N, neighbours=config.balance.neighbours, generator=generator)

    return HeadTrainer(
        model=model,
        tokenizer=tokenizer,
        args=arguments,
        train_rows=tokens["train"],
        validation_rows=tokens["validation"],
        labels=data.labels,
        minority_label=data.audit.minority_label,
        positions=data.plan.positions_in_seen(),
        weigh=lambda counts_C: weights_over(counts_C, config.loss, data.labels),
        loss=config.loss.name,
        loss_options=lambda counts_C: loss_options(config.loss.name, config.loss.gamma, config.loss.tau, counts_C),
        synthesise=add_synthetic if config.balance.method in SYNTHESISERS else None,
        l2=config.model.head.l2,
        cache_dir=cache_dir(),
        write_epochs=folder.write_epochs,
    )


def _plan_decision(config: Config, data: PreparedData) -> dict[str, Any] | None:
    """What `fit_decision` needs beside the scores; labels that the data lack are refused here, before any model is loaded."""
    from trainer.evaluation.decision import plan_decision

    loss = config.loss
    tau: float | None = {"logit_adjusted": 1.0 if loss.tau is None else loss.tau, "balanced_softmax": 1.0}.get(loss.name, 0.0)
    if (loss.name == "focal" and loss.gamma != 0) or config.training_values.get("label_smoothing_factor"):
        tau = None
    return plan_decision(
        config.decision,
        labels=data.labels,
        counts_C=data.audit.counts["drawn"],
        class_weights_C=data.class_weights_C,
        natural_C=data.audit.natural_C,
        tau=tau,
    )


def _evaluate_splits(
    trainer: "WeightedTrainer | HeadTrainer", data: PreparedData, tokens: dict[str, TokenisedRows], plan: dict[str, Any] | None, seed: int
) -> "tuple[dict[str, Outcome], Decision | None]":
    """Results on validation and test in float32, as `pipeline()` computes; test is touched here alone.

    The decision is fitted on validation; its figures there come from decisions fitted without the rows they judge.
    """
    from trainer.evaluation.decision import cross_fit, fit_decision, natural_weights
    from trainer.evaluation.outcome import decided_by, outcome_of

    decision: Decision | None = None
    outcomes: dict[str, Outcome] = {}
    for name in ("validation", "test"):
        if name not in tokens:
            continue
        logits_NC, label_ids_N, decided = trainer.predict_logits(tokens[name]), tokens[name].label_ids_N, None
        if plan and name == "validation":
            weights_N = np.ones(len(label_ids_N)) if data.splits.pool is None else natural_weights(label_ids_N, data.audit.natural_C)

            def fit(rows: Any, logits_NC: Any = logits_NC, label_ids_N: Any = label_ids_N, weights_N: Any = weights_N) -> "Decision":
                return fit_decision(logits_NC[rows], label_ids_N[rows], weights_N=weights_N[rows], **plan)

            decision = fit(np.arange(len(label_ids_N)))
            decided = cross_fit(logits_NC, label_ids_N, fit, seed=seed)
        elif decision:
            decided = decided_by(decision, logits_NC)
        domains = (data.domains[0][data.splits.named[name]], data.domains[1]) if data.domains else None
        outcomes[name] = outcome_of(logits_NC, label_ids_N, data.labels, decided, domains)
    return outcomes, decision


def _apply_decision(config: Config, data: PreparedData, model: Any, decision: "Decision", plan: dict[str, Any]) -> dict[str, Any]:
    """Put the decision into the model and its config; what metrics.json tells of it."""
    from trainer.training.model import fold_into_head

    is_folded = fold_into_head(model, decision.temperature, decision.shift_C)
    model.config.decision = decision.to_config(data.labels, is_folded=is_folded)
    priors = {
        "training_prior": dict(zip(data.labels, np.exp(plan["log_q_C"]).tolist(), strict=True)),
        "target_prior": dict(zip(data.labels, np.exp(plan["log_target_C"]).tolist(), strict=True)),
        "prior_is_approximate": config.balance.by is not None or config.balance.method in SYNTHESISERS or len(data.splits.synthetic) > 0,
    }
    return decision.figures(data.labels) | (priors if config.decision.prior is not None else {}) | {"folded_into_weights": is_folded}


def _open_run(folder: report.RunFolder, config: Config, data: PreparedData, checkpoint: str | None) -> None:
    """The run folder as training finds it: of the run that is resumed, or new."""
    if checkpoint:
        print(f"Resuming from {checkpoint}")
    else:
        report.start_run(folder.path, config.to_dict())
    _write_audit(folder, data)


def _settle(folder: report.RunFolder, config: Config, data: PreparedData, trainer: Any) -> PreparedData:
    """What a mode leaves behind: adapters merged into an ordinary model; synthetic embeddings counted, in the run folder too."""
    if config.model.mode == "lora":
        trainer.merge_adapter(folder.path / "adapter.partial")
    if config.balance.method in SYNTHESISERS:
        data = data.with_synthetic(trainer.counts_C, trainer.class_weights_C)
        _write_audit(folder, data)
    return data


def _write_audit(folder: report.RunFolder, data: PreparedData) -> None:
    """What is known before training."""
    from trainer.delivery import plots
    from trainer.delivery.environment import describe_environment

    environment = describe_environment(data.clean.fingerprint, data.clean.counts, distributed.world_size())
    folder.write_json("environment.json", environment)
    folder.write_splits(data.splits.named | ({"train": data.splits.real_train, "synthetic": data.splits.synthetic} if data.synthetic else {}))
    if data.synthetic:
        folder.write_lines("synthetic.jsonl", records(data.synthetic, data.splits, data.labels))
    folder.write_lines("dropped.jsonl", data.clean.dropped())
    folder.write_json("class_weights.json", dict(zip(data.labels, data.class_weights_C.tolist(), strict=True)))
    folder.write_figure("class_distribution.png", plots.class_distribution(data.audit))


def _write_results(
    folder: report.RunFolder,
    config: Config,
    data: PreparedData,
    trainer: "WeightedTrainer | HeadTrainer",
    outcomes: "dict[str, Outcome]",
    decided: dict[str, Any] | None,
    clock: Any,
    lengths: "dict[str, Lengths]",
    max_length: int,
) -> None:
    """What training gave: pictures, predictions, model, card; metrics.json last."""
    from trainer.delivery import card, plots, tables

    rows = trainer.epoch_rows()
    headline = list(outcomes)[-1]
    final = outcomes[headline].final
    folder.write_epochs(rows)
    if rows:
        folder.write_figure("learning_curves.png", plots.learning_curves(rows, trainer.best_step))
    folder.write_figure(*plots.results(final, headline))
    if decided:
        folder.write_figure("reliability.png", plots.reliability(outcomes[headline], headline))
    folder.write_predictions({name: (data.splits.named[name], outcome) for name, outcome in outcomes.items()}, data.labels)
    folder.publish_model()
    metrics: dict[str, Any] = {}
    for name, outcome in outcomes.items():
        metrics[name] = outcome.alone.to_dict()
        if outcome.domains:
            metrics[name]["per_domain"] = {domain: evaluation.to_dict() for domain, evaluation in outcome.domains.items()}
    if decided:
        metrics["decision"] = decided | {name: outcome.final.to_dict() for name, outcome in outcomes.items()}
    metrics |= {"minority_label": data.audit.minority_label, "training": clock}
    if data.synthetic:
        metrics["augment"] = data.synthetic.outcomes
    folder.write_text("README.md", card.write_card(config, data, rows, outcomes, decided, lengths, max_length, trainer.describe()))
    folder.finish(metrics)
    tables.print_results(outcomes, folder.path)
    if config.hub.push:
        hub.push(folder.path, config.hub)
