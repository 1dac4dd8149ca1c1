"""The end of a run: evaluate the trained model, decide, write the results, deliver them."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xxhash

from trainer.arrays import Array
from trainer.config.config import Config
from trainer.data.augmenting.augment import records
from trainer.data.prepared_data import PreparedData
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.delivery import completion
from trainer.evaluation.decisions.decision import DecisionPlan
from trainer.evaluation.decisions.multi_label_decision import AnyDecision, MultiLabelPlan
from trainer.evaluation.frequency_groups import frequency_groups, recorded_rows
from trainer.evaluation.multi_label import AnyEvaluation
from trainer.evaluation.outcome import Outcome, outcome_of
from trainer.evaluation.scores import LogProbabilities
from trainer.launch import distributed, watch
from trainer.progress import stage
from trainer.run_folder import finished_comparison
from trainer.run_folder.writer import RunFolder
from trainer.runs.preparation import PreparedRun
from trainer.runs.run_decision import apply_decision, decision_plan, fit_on_validation

if TYPE_CHECKING:
    from trainer.training.frozen.head import HeadTrainer
    from trainer.training.run_trainer import RunTrainer


def conclude(run: PreparedRun, trainer: "RunTrainer | HeadTrainer", clock: dict[str, Any]) -> None:
    """Evaluate the trained model, decide, save it and write the results; every process calls it.

    Args:
        clock: the times that training took, and whether it ended too early.
    """
    from trainer.display import tables
    from trainer.training.resuming.checkpoints import saving

    folder, config, data = run.folder, run.config, run.data
    plan = decision_plan(config, data)
    with stage() as done:
        outcomes, decision = evaluate_splits(trainer, config, data, run.tokens, plan)
        words = (f"{outcome.alone.num_rows:,} {name}" for name, outcome in outcomes.items())
        done(f"Evaluated {' and '.join(words)} rows")
    watch.progress(None)
    decided = (
        apply_decision(config, data, trainer.model, decision, plan) if decision and plan else None
    )
    trainer.model.config.train_rows = recorded_rows(
        data.labels, data.summary.natural_C, config.report.groups
    )
    with saving(folder.model, folder.checkpoints):
        trainer.save_model(str(folder.path / "model.partial"))
    if distributed.is_main():
        write_results(run, trainer, outcomes, decided, clock)
        with completion.warning_of("tables of the results", completion.command_of(folder.path)):
            tables.print_results(outcomes, folder.path, str(folder.model))
            tables.print_training_length(clock.get("length"))
        deliver(folder)
        trainer.trackers.finish(folder.path)


def evaluate_splits(
    trainer: "RunTrainer | HeadTrainer",
    config: Config,
    data: PreparedData,
    tokens: dict[str, TokenisedRows],
    plan: DecisionPlan | MultiLabelPlan | None,
) -> tuple[dict[str, Outcome], AnyDecision | None]:
    """Return the results on validation and test, and the decision fitted on validation.

    Scores are in float32, as `transformers.pipeline()` computes them. Only this function reads the
    test split. On validation, each row is evaluated with a decision fitted without this row.
    """
    decision: AnyDecision | None = None
    outcomes: dict[str, Outcome] = {}
    groups = frequency_groups(data.summary.natural_C, config.report.groups)
    for name in ("validation", "test"):
        if name not in tokens:
            continue
        logits_NC, label_ids_N = trainer.predict_logits(tokens[name]), tokens[name].label_ids_N
        decided: tuple[LogProbabilities, Array] | None = None
        if plan and name == "validation":
            folder = Path(str(trainer.args.output_dir)).parent
            decision, decided = fit_on_validation(
                logits_NC, label_ids_N, plan, data, config.run.seed, folder
            )
        elif decision:
            decided = decision.apply(logits_NC)
        domains = (
            (data.domains[0][data.splits.named[name]], data.domains[1]) if data.domains else None
        )
        outcomes[name] = outcome_of(logits_NC, label_ids_N, data.labels, decided, domains, groups)
    return outcomes, decision


def write_audit(run: PreparedRun) -> None:
    """Write the files that are known before training.

    The picture follows after training, so that no drawing library is loaded before.
    """
    from trainer.run_folder.environment import describe_environment

    folder, data = run.folder, run.data
    environment = describe_environment(
        data.clean.fingerprint, data.clean.counts, distributed.world_size(), run.commits
    )
    if data.clean.streamed:
        environment["data"]["read_by_class"] = {
            name: dict(zip(data.labels, counts, strict=True))
            for name, counts in data.clean.streamed.natural.items()
        }
    folder.write_json("environment.json", environment)
    splits = data.splits.named
    if data.synthetic:
        splits = splits | {"train": data.splits.real_train, "synthetic": data.splits.synthetic}
        folder.write_lines(
            "synthetic.jsonl",
            records(data.synthetic, data.splits, data.labels, is_multi_label=data.is_multi_label),
        )
    folder.write_splits(splits)
    folder.write_lines("dropped.jsonl", data.clean.dropped())
    folder.write_json(
        "class_weights.json", dict(zip(data.labels, data.class_weights_C.tolist(), strict=True))
    )


def write_results(
    run: PreparedRun,
    trainer: "RunTrainer | HeadTrainer",
    outcomes: dict[str, Outcome],
    decided: dict[str, Any] | None,
    clock: dict[str, Any],
) -> None:
    """Write epochs, facts, model, predictions and metrics.json, in this order.

    metrics.json finishes the run, and the checkpoints are deleted after it. A run that is killed
    before evaluates its last checkpoint again.
    """
    folder, data = run.folder, run.data
    folder.write_epochs(trainer.epoch_rows())
    with completion.warning_of(
        folder.path / "report.json",
        "a missing card and parts of the page cannot be made without it.",
    ):
        folder.write_json("report.json", report_facts(run, trainer, outcomes, decided))
    folder.publish_model()
    metrics: dict[str, Any] = {
        name: figures(outcome.alone, outcome.alone_domains, outcome.alone_groups)
        for name, outcome in outcomes.items()
    }
    if decided:
        metrics["decision"] = decided | {
            name: figures(outcome.final, outcome.domains, outcome.groups)
            for name, outcome in outcomes.items()
        }
    metrics |= {"minority_label": data.summary.minority_label, "training": clock}
    special = {name: each.special.rows for name, each in run.lengths.items() if each.special.rows}
    if special:
        metrics["special_tokens"] = special
    if data.synthetic:
        metrics["augment"] = data.synthetic.outcomes
    parts = {name: (data.splits.named[name], outcome) for name, outcome in outcomes.items()}
    write_rows(folder, run.config, data, parts, data.labels)
    folder.finish(metrics)


def write_rows(
    folder: RunFolder,
    config: Config,
    data: PreparedData,
    parts: dict[str, tuple[Any, Outcome]],
    labels: list[str],
) -> None:
    """Write predictions and mistakes; a failure is a warning, except for a member of an ensemble.

    Args:
        parts: {split: (row ids, results on them)}.
    Raises:
        OSError: a member has no predictions, so it could not vote.
    """
    predictions, mistakes = folder.path / "predictions.parquet", folder.path / "mistakes.jsonl"
    remedy = "only training again (run.overwrite: true) can write it."
    if config.ensemble.member is not None:
        folder.write_predictions(parts, labels, keep_all=True)
    else:
        with completion.warning_of(predictions, remedy):
            folder.write_predictions(parts, labels)
    with completion.warning_of(mistakes, remedy):
        write_mistakes(folder, config, data, *parts[list(parts)[-1]])


def write_mistakes(
    folder: RunFolder, config: Config, data: PreparedData, rows_N: Any, outcome: Outcome
) -> None:
    """Write the hardest mistakes with their texts, if `report.show_texts` allows it."""
    from trainer.audit.inspection import full_texts
    from trainer.delivery.report.mistakes import mistakes_to_quote

    if config.report.show_texts:
        folder.write_lines(
            "mistakes.jsonl",
            mistakes_to_quote(
                rows_N, outcome, data.labels, lambda ids_N: full_texts(data.clean, ids_N)
            ),
        )


def figures(
    evaluation: AnyEvaluation,
    domains: dict[str, AnyEvaluation],
    groups: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """Return the values of one split for metrics.json."""
    values = evaluation.to_dict()
    if groups:
        values["per_group"] = groups
    if domains:
        values["per_domain"] = {domain: part.to_dict() for domain, part in domains.items()}
    return values


def report_facts(
    run: PreparedRun,
    trainer: "RunTrainer | HeadTrainer",
    outcomes: dict[str, Outcome],
    decided: dict[str, Any] | None,
) -> dict[str, Any]:
    """Return the values of report.json, which pages and pictures need beside the other files."""
    from trainer.data.summary import special_words
    from trainer.delivery.card import card, card_words
    from trainer.display.reliability_plot import calibration

    config, data, audit, described = run.config, run.data, run.data.summary, trainer.describe()
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
        "lengths": {name: asdict(length) for name, length in run.lengths.items()},
        "special_tokens": special_words(run.lengths),
        "max_length": run.max_length,
        "row_digests": {
            name: xxhash.xxh3_128(data.clean.text_hashes_N[ids_N].tobytes()).hexdigest()
            for name, ids_N in data.splits.named.items()
        },
        "balancing": card_words.balancing_words(config, data, list_weights=False),
        "synthetic": card_words.synthetic_words(config, data).split("\n\n")[0],
        "decision": card_words.decision_words(decided) if decided else "",
        "training": [*described, *trainer.trackers.sentences()],
        "saved_step": trainer.best_step,
        "epochs": trainer.epoch_rows(),
        "audit": audit.to_facts(),
        "calibration": calibration(outcomes[list(outcomes)[-1]])
        if decided and not data.is_multi_label
        else None,
        "card": card.card_facts(
            config,
            data,
            trainer.epoch_rows(),
            outcomes,
            decided,
            run.lengths,
            run.max_length,
            described,
            run.commits,
            finished_comparison.read_if_set(config.report.comparison),
        ),
    }


def deliver(folder: RunFolder) -> None:
    """Write pictures, card and page from the files of a finished run; a failure is a warning."""
    from trainer.delivery.report import report_page

    what = f"{folder.path}, pictures and card"
    with stage() as done, completion.warning_of(what, completion.command_of(folder.path)):
        completion.complete(folder.path, overwrite=True)
        done("Wrote pictures and model card")
    report_page.write_or_warn(folder.path)
