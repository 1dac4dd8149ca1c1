"""The end of the story: what a trained model did, what is decided by its scores, and what the run folder tells of it."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xxhash

from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.data.augmenting.augment import records
from trainer.data.prepared_data import PreparedData
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.delivery import completion
from trainer.evaluation.calibration import natural_weights
from trainer.evaluation.decision import Decision, DecisionPlan, fit_and_cross_fit, plan_decision
from trainer.evaluation.multi_label import AnyEvaluation
from trainer.evaluation.outcome import Outcome, outcome_of
from trainer.launch import distributed, watch
from trainer.run_folder import finished_comparison, writer
from trainer.run_folder.environment import Commits

if TYPE_CHECKING:
    from trainer.data.summary import Lengths
    from trainer.training.frozen.head import HeadTrainer
    from trainer.training.weighted_trainer import WeightedTrainer


def decision_plan(config: Config, data: PreparedData) -> DecisionPlan | None:
    """What `fit_decision` needs beside the scores; labels that the data lack are refused here, before any model is loaded."""
    loss = config.loss
    tau = {"logit_adjusted": 1.0 if loss.tau is None else loss.tau, "balanced_softmax": 1.0}.get(
        loss.name, 0.0
    )
    return plan_decision(
        config.decision,
        labels=data.labels,
        counts_C=data.summary.counts["drawn"],
        class_weights_C=data.class_weights_C,
        natural_C=data.summary.natural_C,
        tau=tau,
    )


def evaluate_splits(
    trainer: "WeightedTrainer | HeadTrainer",
    data: PreparedData,
    tokens: dict[str, TokenisedRows],
    plan: DecisionPlan | None,
    seed: int,
) -> tuple[dict[str, Outcome], Decision | None]:
    """Results on validation and test in float32, as `pipeline()` computes; test is touched here alone.

    The decision is fitted on validation; its figures there come from decisions fitted without the rows they judge.
    """
    decision: Decision | None = None
    outcomes: dict[str, Outcome] = {}
    for name in ("validation", "test"):
        if name not in tokens:
            continue
        logits_NC, label_ids_N, decided = (
            trainer.predict_logits(tokens[name]),
            tokens[name].label_ids_N,
            None,
        )
        if plan and name == "validation":
            weights_N = (
                np.ones(len(label_ids_N))
                if data.splits.pool is None
                else natural_weights(label_ids_N, data.summary.natural_C)
            )
            decision, decided = fit_and_cross_fit(
                logits_NC,
                label_ids_N,
                weights_N,
                plan,
                seed=seed,
                folder=Path(str(trainer.args.output_dir)).parent,
            )
        elif decision:
            decided = decision.apply(logits_NC)
        domains = (
            (data.domains[0][data.splits.named[name]], data.domains[1]) if data.domains else None
        )
        outcomes[name] = outcome_of(logits_NC, label_ids_N, data.labels, decided, domains)
    return outcomes, decision


def apply_decision(
    config: Config, data: PreparedData, model: Any, decision: Decision, plan: DecisionPlan
) -> dict[str, Any]:
    """Put the decision into the model and its config; what metrics.json tells of it."""
    from trainer.training.models.layers import fold_into_head

    is_folded = fold_into_head(model, decision.temperature, decision.shift_C)
    model.config.decision = decision.to_config(data.labels, is_folded=is_folded)
    figures = decision.figures(data.labels) | {"folded_into_weights": is_folded}
    if plan.log_target_C is None:
        return figures
    return figures | {
        "training_prior": dict(zip(data.labels, np.exp(plan.log_q_C).tolist(), strict=True)),
        "target_prior": dict(zip(data.labels, np.exp(plan.log_target_C).tolist(), strict=True)),
        "prior_is_approximate": is_prior_approximate(config, data),
    }


def is_prior_approximate(config: Config, data: PreparedData) -> bool:
    """Whether balancing changed what the rows of a class look like, and not only how many there are."""
    by_domain = config.balance.by is not None and config.balance.method != "none"
    return by_domain or config.balance.method in SYNTHESIS_METHODS or len(data.splits.synthetic) > 0


def write_audit(folder: writer.RunFolder, data: PreparedData, commits: Commits) -> None:
    """What is known before training, but for the picture: drawing libraries are loaded when training is over."""
    from trainer.run_folder.environment import describe_environment

    environment = describe_environment(
        data.clean.fingerprint, data.clean.counts, distributed.world_size(), commits
    )
    if data.clean.streamed:
        environment["data"]["read_by_class"] = {
            name: dict(zip(data.labels, counts, strict=True))
            for name, counts in data.clean.streamed.natural.items()
        }
    folder.write_json("environment.json", environment)
    folder.write_splits(
        data.splits.named
        | (
            {"train": data.splits.real_train, "synthetic": data.splits.synthetic}
            if data.synthetic
            else {}
        )
    )
    if data.synthetic:
        folder.write_lines("synthetic.jsonl", records(data.synthetic, data.splits, data.labels))
    folder.write_lines("dropped.jsonl", data.clean.dropped())
    folder.write_json(
        "class_weights.json", dict(zip(data.labels, data.class_weights_C.tolist(), strict=True))
    )


def conclude(
    folder: writer.RunFolder,
    config: Config,
    data: PreparedData,
    tokens: dict[str, TokenisedRows],
    trainer: "WeightedTrainer | HeadTrainer",
    clock: dict[str, float],
    lengths: "dict[str, Lengths]",
    max_length: int,
    commits: Commits,
) -> None:
    """Judge a trained model, fit its decision, save it and write all that the run gave; every process calls it."""
    from trainer.training.resuming.checkpoints import saving

    plan = decision_plan(config, data)
    outcomes, decision = evaluate_splits(trainer, data, tokens, plan, config.run.seed)
    watch.rest()
    decided = (
        apply_decision(config, data, trainer.model, decision, plan) if decision and plan else None
    )
    with saving(folder.model, folder.checkpoints):
        trainer.save_model(str(folder.path / "model.partial"))
    if distributed.is_main():
        write_results(
            folder, config, data, trainer, outcomes, decided, clock, lengths, max_length, commits
        )
    trainer.finish_trackers()


def write_results(
    folder: writer.RunFolder,
    config: Config,
    data: PreparedData,
    trainer: "WeightedTrainer | HeadTrainer",
    outcomes: dict[str, Outcome],
    decided: dict[str, Any] | None,
    clock: Any,
    lengths: "dict[str, Lengths]",
    max_length: int,
    commits: Commits,
) -> None:
    """What training gave. All that only training knows is on the disk before metrics.json, which finishes the run, and before the
    checkpoints go: a run that is killed until then evaluates its last checkpoint again. Pictures, card and page follow.
    """
    from trainer.display import tables

    rows = trainer.epoch_rows()
    folder.write_epochs(rows)
    with completion.warning_of(
        folder.path / "report.json",
        "a missing card and parts of the page cannot be made without it.",
    ):
        folder.write_json(
            "report.json",
            _facts(config, data, trainer, outcomes, decided, lengths, max_length, commits),
        )
    folder.publish_model()
    metrics: dict[str, Any] = {
        name: _figures(outcome.alone, outcome.alone_domains) for name, outcome in outcomes.items()
    }
    if decided:
        metrics["decision"] = decided | {
            name: _figures(outcome.final, outcome.domains) for name, outcome in outcomes.items()
        }
    metrics |= {"minority_label": data.summary.minority_label, "training": clock}
    if held := {
        name: length.special.rows for name, length in lengths.items() if length.special.rows
    }:
        metrics["special_tokens"] = held
    if data.synthetic:
        metrics["augment"] = data.synthetic.outcomes
    parts = {name: (data.splits.named[name], outcome) for name, outcome in outcomes.items()}
    write_rows(folder, config, data, parts, data.labels)
    folder.finish(metrics)
    with completion.warning_of("tables of the results", completion.command_of(folder.path)):
        tables.print_results(outcomes, folder.path, str(folder.model))
    deliver(folder)


def write_rows(
    folder: writer.RunFolder,
    config: Config,
    data: PreparedData,
    parts: dict[str, tuple[Any, Outcome]],
    labels: list[str],
) -> None:
    """Write predictions and mistakes, while their scores are there; a fault is a warning, but for a member of an ensemble.

    Args:
        parts: {split: (row ids, what the model did on them)}.
    Raises:
        OSError: a member has no predictions, so it could not vote.
    """
    predictions, mistakes = folder.path / "predictions.parquet", folder.path / "mistakes.jsonl"
    remedy = "only training anew (run.overwrite: true) can write it."
    if config.ensemble.member is not None:
        folder.write_predictions(parts, labels, keep_all=True)
    else:
        with completion.warning_of(predictions, remedy):
            folder.write_predictions(parts, labels)
    with completion.warning_of(mistakes, remedy):
        write_mistakes(folder, config, data, *parts[list(parts)[-1]])


def deliver(folder: writer.RunFolder) -> None:
    """Write pictures, card and page, which are made of the files of a finished run; a fault is a warning."""
    from trainer.delivery.report import report_page

    with completion.warning_of(
        f"{folder.path}, pictures and card", completion.command_of(folder.path)
    ):
        completion.complete(folder.path, overwrite=True)
    report_page.write_or_warn(folder.path)


def _figures(evaluation: AnyEvaluation, domains: dict[str, AnyEvaluation]) -> dict[str, Any]:
    """What metrics.json holds of one split."""
    per_domain = (
        {"per_domain": {domain: part.to_dict() for domain, part in domains.items()}}
        if domains
        else {}
    )
    return evaluation.to_dict() | per_domain


def write_mistakes(
    folder: writer.RunFolder, config: Config, data: PreparedData, rows_N: Any, outcome: Outcome
) -> None:
    """The hardest mistakes with their texts, where texts may be shown."""
    from trainer.audit.inspection import full_texts
    from trainer.delivery.report.mistakes import mistakes_to_quote

    if config.report.show_texts:
        folder.write_lines(
            "mistakes.jsonl",
            mistakes_to_quote(
                rows_N, outcome, data.labels, lambda ids_N: full_texts(data.clean, ids_N)
            ),
        )


def _facts(
    config: Config,
    data: PreparedData,
    trainer: "WeightedTrainer | HeadTrainer",
    outcomes: dict[str, Outcome],
    decided: dict[str, Any] | None,
    lengths: "dict[str, Lengths]",
    max_length: int,
    commits: Commits,
) -> dict[str, Any]:
    """What report.html, README.md and the pictures tell and no other file of the run folder holds as values."""
    from trainer.data.summary import special_words
    from trainer.delivery.card import card, card_words
    from trainer.display.reliability_plot import calibration

    audit, headline, described = data.summary, list(outcomes)[-1], trainer.describe()
    comparison = finished_comparison.read_if_set(config.report.comparison)
    return {
        "labels": audit.labels,
        "columns": {heading: counts_C.tolist() for heading, counts_C in audit.columns.items()},
        "totals": audit.totals,
        "imbalance_ratio": audit.imbalance_ratio,
        "severity": audit.severity,
        "minority_label": audit.rarest_label,
        "labels_per_row": data.labels_per_row,
        "streamed": data.streamed_sentence,
        "by_time": data.time_sentence,
        "unused_rows": data.unused_rows,
        "lengths": {name: asdict(length) for name, length in lengths.items()},
        "special_tokens": special_words(lengths),
        "max_length": max_length,
        "row_digests": {
            name: xxhash.xxh3_128(data.clean.text_hashes_N[ids_N].tobytes()).hexdigest()
            for name, ids_N in data.splits.named.items()
        },
        "balancing": card_words.balancing_words(config, data, list_weights=False),
        "synthetic": card_words.synthetic_words(config, data).split("\n\n")[0],
        "decision": card_words.decision_words(decided) if decided else "",
        "training": described,
        "saved_step": trainer.best_step,
        "epochs": trainer.epoch_rows(),
        "audit": audit.to_facts(),
        "calibration": calibration(outcomes[headline]) if decided else None,
        "card": card.card_facts(
            config,
            data,
            trainer.epoch_rows(),
            outcomes,
            decided,
            lengths,
            max_length,
            described,
            commits,
            comparison,
        ),
    }
