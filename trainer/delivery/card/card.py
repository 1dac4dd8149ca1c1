"""An Evaluation to the text of the model card, with Hub metadata and model-index."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import ModelCard, ModelCardData

from trainer.data.prepared_data import PreparedData
from trainer.data.summary import Lengths, special_words
from trainer.delivery.card.card_results import (
    eval_results,
    judged_rows,
    locations_of,
    plain_pipeline,
)
from trainer.display.figure_words import TITLES, baseline_words, by_metric, spread_words
from trainer.display.shown_classes import (
    MOST_IN_CARD,
    MOST_IN_SENTENCE,
    Shown,
    in_words,
    largest_and_rarest,
    worst_and_rarest,
)
from trainer.display.tables import class_figure
from trainer.errors import listing
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation
from trainer.evaluation.outcome import Outcome
from trainer.evaluation.scores import over_classes
from trainer.run_folder.environment import Commits
from trainer.run_folder.finished_comparison import Settings
from trainer.training.progress import headings, row_cells

if TYPE_CHECKING:
    from trainer.config.config import Config

LOSS_WORDS = {
    "cross_entropy": "cross-entropy",
    "focal": "focal loss",
    "logit_adjusted": "logit-adjusted cross-entropy",
    "balanced_softmax": "balanced softmax cross-entropy",
}
SUMMARY = (
    "loss",
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "f1_gap",
    "macro_precision",
    "balanced_accuracy",
    "mcc",
    "auroc_macro",
    "ece",
    "brier",
)
MULTI_LABEL_SUMMARY = (
    "loss",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "f1_gap",
    "mean_average_precision",
    "hamming_loss",
)


def card_facts(
    config: "Config",
    data: PreparedData,
    epoch_rows: list[dict[str, float]],
    outcomes: dict[str, Outcome],
    decided: dict[str, Any] | None,
    lengths: dict[str, Lengths],
    max_length: int,
    described: list[str],
    commits: Commits,
    comparison: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """All that the card of a run tells, as plain values for report.json, from which `render` writes it; no training text is quoted.

    Args:
        described: sentences of the trainer about what it did.
        commits: of the base model and of the data.
        comparison: comparison.json of the one that chose the balancing.
    """
    from trainer import __version__

    evaluations = {name: outcome.final for name, outcome in outcomes.items()}
    split = list(evaluations)[-1]
    training, head = config.training_values, config.model.mode == "head"
    plain = {name: plain_pipeline(outcome, decided) for name, outcome in outcomes.items()}
    return dict(
        card_data=_metadata(config, data, split, outcomes[split], plain[split], commits).to_yaml(),
        name=config.run.name,
        version=__version__,
        labels=[_plain(label) for label in data.labels[:MOST_IN_SENTENCE]],
        num_labels=len(data.labels),
        base_model=_at_commit(config.model.name, commits["model"]),
        hub_data=[
            _at_commit(name, commits["data"], config.data.subset) for name in commits["data"]
        ],
        multi_label=data.labels_per_row,
        has_epochs=bool(epoch_rows),
        minority={
            "label": _plain(data.summary.minority_label),
            **evaluations[split].per_class[data.summary.minority_label],
        },
        final=_headline(evaluations[split]),
        over=over_classes(evaluations[split].per_class),
        final_split=split,
        has_test="test" in evaluations,
        evaluations={name: _headline(evaluation) for name, evaluation in evaluations.items()},
        audit={"imbalance_ratio": data.summary.imbalance_ratio, "severity": data.summary.severity},
        cleaning=data.clean.counts,
        unused=data.unused_rows,
        streamed=data.streamed_sentence,
        by_time=data.time_sentence,
        scope_all=config.balance.scope == "all",
        balanced=config.balance.method != "none"
        or config.loss.class_weights != "none"
        or "adjusted" in config.loss.name
        or "softmax" in config.loss.name,
        prior_corrected=config.decision.prior is not None,
        balancing=balancing_words(config, data),
        synthetic=synthetic_words(config, data),
        comparison=comparison_section(comparison, config.to_dict()) if comparison else "",
        training_text=_training(config, described),
        head=head,
        lengths=[f"{name}: {length.sentence(max_length)}." for name, length in lengths.items()],
        special_tokens=_plain(special_words(lengths)),
        example=_example(config.data.text_column),
        is_pair=_example(config.data.text_column) != _example("text"),
        language=config.hub.language
        if isinstance(config.hub.language, str)
        else ", ".join(config.hub.language or ()),
        bf16=bool(training.get("bf16")) and not head,
        max_length=max_length,
        decision=decision_words(decided, _plain) if decided else None,
        **_tables(data, epoch_rows, outcomes, plain, head=head),
    )


def render(facts: dict[str, Any]) -> str:
    """Markdown of the card that these facts tell, which `card_facts` gave."""
    from jinja2 import Template

    template = Template(Path(__file__).with_name("card_template.md").read_text(encoding="utf-8"))
    return str(ModelCard(template.render(**facts)))


def _headline(evaluation: AnyEvaluation) -> dict[str, float]:
    """The figures that the card's sentences name."""
    return {
        name: getattr(evaluation, name)
        for name in ("num_rows", "macro_f1", "accuracy", "micro_f1", "mean_average_precision")
        if hasattr(evaluation, name)
    }


def _tables(
    data: PreparedData,
    epoch_rows: list[dict[str, float]],
    outcomes: dict[str, Outcome],
    plain: dict[str, AnyEvaluation | None],
    *,
    head: bool,
) -> dict[str, Any]:
    """The card's tables, by the names that its template gives them."""
    return {
        "counts_table": _counts_table(data),
        "epochs_table": markdown_table(
            [*headings(head=head)], [row_cells(row) for row in epoch_rows]
        ),
        "summary_tables": {
            split: _summary_table(outcome, plain[split]) for split, outcome in outcomes.items()
        },
        "domain_tables": {
            split: _domain_table(outcome.domains)
            for split, outcome in outcomes.items()
            if outcome.domains
        },
        "class_tables": {split: class_table(outcome.final) for split, outcome in outcomes.items()},
    }


def _metadata(
    config: "Config",
    data: PreparedData,
    split: str,
    outcome: Outcome,
    plain: AnyEvaluation | None,
    commits: Commits,
) -> ModelCardData:
    learnt_from = [
        name
        for name in commits["data"]
        if name in locations_of(config.data, "source", "train", "validation")
    ]
    return ModelCardData(
        language=config.hub.language,
        license=config.hub.license,
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=[
            "text-classification",
            *(["multi-label-classification"] if data.is_multi_label else []),
            "imbalanced-classification",
            "equipoise",
        ],
        base_model=config.model.name if config.model.name in commits["model"] else None,
        datasets=learnt_from or None,
        metrics=["f1", "accuracy"],
        model_name=config.run.name,
        eval_results=eval_results(judged_rows(config, data, split, commits), outcome, plain),
    )


def balancing_words(config: "Config", data: PreparedData, *, list_weights: bool = True) -> str:
    """Which rows are seen, and how the loss weighs them."""
    seen, natural = data.summary.totals["seen per epoch"], len(data.splits.train)
    if config.balance.method == "none":
        rows = "Every training row is seen once an epoch (`balance.method: none`)."
    elif config.balance.row_method == "none":
        rows = f"`balance.method: {config.balance.method}` with {config.balance.neighbours} neighbours: {seen - natural:,} synthetic embeddings"
        rows += f" stand beside those of the {natural:,} training rows; validation and test keep their natural distribution."
    elif config.balance.scope == "all":
        rows = f"The pool was cut to its smallest class before the split (`balance.method: {config.balance.method}`, `balance.scope: all`)."
    else:
        rows = f"`balance.method: {config.balance.method}`: {seen:,} of {natural:,} training rows are seen in an epoch"
        rows += ", drawn anew every epoch" if config.balance.resample_each_epoch else ""
        rows += "; validation and test keep their natural distribution."
    if config.balance.by and config.balance.row_method != "none":
        rows += f" What is balanced are the values of the column `{config.balance.by}`" + (
            " paired with the labels." if config.balance.by_label else "."
        )
    weighting, loss = (
        config.loss.class_weights,
        "binary cross-entropy" if data.is_multi_label else LOSS_WORDS[config.loss.name],
    )
    if weighting == "none":
        return f"{rows} The loss is unweighted {loss}."
    weights = {
        _plain(label): f"{weight:.4g}"
        for label, weight in zip(data.labels, data.class_weights_C, strict=True)
    }
    pairs = f": {in_words(weights, 'class_weights.json')}" if list_weights else ""
    name = weighting if isinstance(weighting, str) else "given per label"
    if data.is_multi_label:
        return f"{rows} The loss is {loss} with positive weights ({name}; a label's rows against the rows without it){pairs}."
    over = "the rows drawn" if config.loss.weights_mean == "rows" else "the classes"
    return f"{rows} The loss is {loss} with class weights ({name}; mean 1 over {over}){pairs}."


def synthetic_words(config: "Config", data: PreparedData) -> str:
    """Who wrote how many rows of which class; empty without `augment`."""
    if data.synthetic is None:
        return ""
    augment, counts = config.augment, data.synthetic.outcomes
    where = (
        "through an OpenAI-compatible server"
        if augment.generator == "endpoint"
        else "on the training machine"
    )
    words = f"{len(data.synthetic.rows):,} training rows are synthetic, written by `{augment.model}` {where} from few-shot prompts of training rows of their class"
    words += ", filtered for refusals, lengths, repetition, exact and near duplicates of any row, and agreement of a classifier of the real training rows."
    words += " None is in validation or test; imbalance ratio and rarest class are those of the real rows."
    shown = largest_and_rarest(
        sorted(counts, key=lambda label: -counts[label]["wanted"]), MOST_IN_CARD
    )
    rows = [
        [_plain(label), *(f"{counts[label][name]:,}" for name in ("wanted", "prompts", "accepted"))]
        for label in shown.labels
    ]
    return words + (
        "\n\n"
        + markdown_table(["label", "rows it lacked", "prompts", "accepted"], rows)
        + note(shown, "metrics.json")
        if rows
        else ""
    )


def comparison_section(result: dict[str, Any], config: dict[str, Any]) -> str:
    """Which strategies were compared before this run, how sure the choice is, and whether the run follows it.

    Args:
        result: comparison.json, as of `finished_comparison.read_comparison`.
        config: the run's own, resolved.
    """
    compared, winner = result["validation"], result["winner"]
    metric, baseline = TITLES[compared["metric"]], _plain(compared["baseline"])
    advised = Settings.model_validate(result["overrides"].get(winner, {})).flat() | {
        "model.name": result["model"],
        "model.mode": result["mode"],
    }
    ours = Settings.model_validate(config).flat() | {
        f"model.{key}": value for key, value in config["model"].items()
    }
    unlike = [key for key, value in advised.items() if ours.get(key) != value]
    seeds = f"seed{'s' if len(result['seeds']) > 1 else ''} {', '.join(map(str, result['seeds']))}"
    words = f"Every strategy was trained with {seeds} and the same budget ({_plain(result['budget']['words'])}), and judged on the same"
    words += f" {compared['num_rows']:,} validation rows. The choice used validation rows only; "
    judged = " and ".join(dict.fromkeys((winner, compared["baseline"])))
    words += (
        f"the test rows were then judged once, by {_plain(judged)}."
        if result["test"]
        else "no test rows were judged."
    )
    if earlier := [name for name in result["tested"] if name not in (winner, compared["baseline"])]:
        words += f" An earlier conclusion had {_plain(listing(earlier))} judge them too."
    if result["quick"]:
        words += " Which strategies were compared was decided by heads on the frozen encoder."
    if result["failed"]:
        words += f" Failed: {_plain(listing(result['failed']))}."
    rows = []
    for name in by_metric(compared):
        figures, against = (
            compared["strategies"][name]["figures"],
            compared["strategies"][name]["against_baseline"],
        )
        is_reliable = "" if against is None else "yes" if against["is_reliable"] else "no"
        rows.append(
            [
                _plain(name),
                spread_words(figures[compared["metric"]]),
                baseline_words(against),
                is_reliable,
            ]
        )
    table = markdown_table(
        ["strategy", metric, f"less {baseline} [95 % interval]", "reliable"], rows
    )
    follows = f"This model follows the strategy {_plain(winner)}."
    if unlike:
        follows = f"This model does not follow the strategy {_plain(winner)}: {_plain(listing(unlike))} differ."
    reliable = "Reliable: p below 0.05, adjusted for the number of strategies (Holm)" + (
        ", for these trainings alone" if compared["num_seeds"] == 1 else ""
    )
    return "\n\n".join([_plain(result["recommendation"]), words, table, f"{reliable}. {follows}"])


def _training(config: "Config", described: list[str]) -> str:
    training, seed = config.training_values, f"`seed`: {config.run.seed}"
    if config.model.mode == "head":
        return "\n".join(f"- {line}" for line in [*described, seed])
    shown: tuple[str, ...] = (
        "learning_rate",
        "num_train_epochs",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "weight_decay",
        "lr_scheduler_type",
        "bf16",
    )
    known = {
        "lr_scheduler_type": "linear",
        "weight_decay": 0.0,
        "gradient_accumulation_steps": 1,
    } | training
    if training.get("max_steps", -1) > 0:  # which decides then, whatever num_train_epochs says
        shown = tuple("max_steps" if name == "num_train_epochs" else name for name in shown)
    lines = [f"- `{name}`: {known[name]}" for name in shown if name in known]
    best = (
        [f"- best model by `{training['metric_for_best_model']}` on validation"]
        if training["load_best_model_at_end"]
        else ["- the model of the last step"]
    )
    if config.model.mode == "lora":
        lora = config.model.lora
        adapted = (
            "every linear layer of the encoder"
            if lora.target_modules is None
            else ", ".join(lora.target_modules)
        )
        lines = [
            f"- `model.mode`: lora (r {lora.r}, alpha {lora.alpha:g}, dropout {lora.dropout:g}) on {adapted}; merged into the model",
            *lines,
        ]
    return "\n".join([*lines, f"- {seed}", *best, *(f"- {line}" for line in described)])


def _example(text_column: str | list[str]) -> str:
    """What the pipeline is called with."""
    return (
        '"some text"'
        if isinstance(text_column, str) or len(text_column) == 1
        else '{"text": "first text", "text_pair": "second text"}'
    )


def _at_commit(name: str, commits: dict[str, str | None], subset: str | None = None) -> str:
    """A model or data set with its configuration and commit; of a folder its own name, since the card may leave this machine."""
    facts = [f"configuration `{subset}`"] if subset else []
    facts += [f"commit `{commit[:12]}`"] if (commit := commits.get(name)) else []
    shown = (
        name
        if name in commits or name.startswith("package:")
        else Path(name).expanduser().resolve().name
    )
    return f"`{shown}`" + (f" ({', '.join(facts)})" if facts else "")


def _plain(text: str) -> str:
    """One line of Markdown that shows the text as it is: labels may hold anything."""
    return re.sub(r"([\\`*_\[\]<>!|#$~])", r"\\\1", " ".join(text.split()))


def _counts_table(data: PreparedData) -> str:
    if len(data.labels) <= MOST_IN_CARD:
        shown = Shown(data.labels)
    else:
        shown = largest_and_rarest(
            [data.labels[c] for c in np.argsort(-data.summary.natural_C, kind="stable")],
            MOST_IN_CARD,
        )
    ids = {label: c for c, label in enumerate(data.labels)}
    rows = [
        [
            _plain(label),
            *(f"{counts_C[ids[label]]:,}" for counts_C in data.summary.columns.values()),
        ]
        for label in shown.labels
    ]
    return markdown_table(["label", *data.summary.columns], rows) + note(shown, "report.json")


def _summary_table(outcome: Outcome, plain: AnyEvaluation | None = None) -> str:
    summary = MULTI_LABEL_SUMMARY if isinstance(outcome.final, MultiLabelEvaluation) else SUMMARY
    sides: list[tuple[str, AnyEvaluation]] = [
        ("model alone" if outcome.decided else "model", outcome.alone)
    ]
    sides += [("with the decision", outcome.decided)] if outcome.decided else []
    sides += [("plain `pipeline()`", plain)] if plain else []
    return markdown_table(
        ["", *(name.replace("_", " ") for name in summary)],
        [[side, *(f"{getattr(e, name):.4f}" for name in summary)] for side, e in sides],
    )


def _domain_table(domains: dict[str, AnyEvaluation]) -> str:
    names = (
        "macro_f1",
        "accuracy",
        "micro_f1"
        if isinstance(next(iter(domains.values())), MultiLabelEvaluation)
        else "balanced_accuracy",
    )
    rows = [
        [_plain(domain), f"{e.num_rows:,}", *(f"{getattr(e, n):.4f}" for n in names)]
        for domain, e in domains.items()
    ]
    return markdown_table(["domain", "rows", *(n.replace("_", " ") for n in names)], rows)


def decision_words(decided: dict[str, Any], shown: Callable[[str], str] = str) -> str:
    """What was done after training, in sentences.

    Args:
        shown: how a label is written; in Markdown escaped.
    """
    parts = []
    if "target_prior" in decided:
        shares = in_words(
            {shown(label): f"{share:.3g}" for label, share in decided["target_prior"].items()},
            "metrics.json",
        )
        approximate = (
            "; approximate here, since balancing or synthetic rows also changed what the rows of a class look like"
            if decided["prior_is_approximate"]
            else ""
        )
        parts.append(
            f"Probabilities are corrected to these shares of the classes: {shares}{approximate}."
        )
    if decided["temperature"] != 1:
        parts.append(f"Scores are divided by a temperature of {decided['temperature']:.3g}.")
    changes_scores = "target_prior" in decided or decided["temperature"] != 1
    if changes_scores and not decided["folded_into_weights"]:
        parts.append(
            "This stands in `config.json` under `decision`, since the last layer has no bias to hold it: the plain `pipeline()` does not apply it."
        )
    elif changes_scores:
        parts.append("This stands in the weights, so `pipeline()` gives corrected probabilities.")
    if "thresholds" in decided:
        pairs = in_words(
            {shown(label): f"{t:.3g}" for label, t in decided["thresholds"].items()}, "metrics.json"
        )
        parts.append(f"The label is the largest of probability / threshold ({pairs}).")
        if decided["neutral"]:
            parts.append(
                f"Neutral thresholds were kept for {shown(_first('; ', decided['neutral']))}."
            )
    if "costs" in decided:
        parts.append(
            "The label is the one of least expected cost (`decision.costs` in `config.json`)."
        )
    if "thresholds" in decided or "costs" in decided:
        parts.append(
            "The plain `pipeline()` returns the largest probability instead, so its labels can differ."
        )
    return " ".join(parts)


def class_table(evaluation: AnyEvaluation) -> str:
    """Results of each class as a Markdown table."""
    names = list(next(iter(evaluation.per_class.values())))
    shown = worst_and_rarest(list(evaluation.per_class), evaluation.per_class, MOST_IN_CARD)
    per_class = [(label, evaluation.per_class[label]) for label in shown.labels]
    rows = [
        [_plain(label), *(class_figure(n, v[n], v["support"]) for n in names)]
        for label, v in per_class
    ]
    return markdown_table(
        ["label", *(name.replace("_", " ").replace("f1", "F1") for name in names)], rows
    ) + note(shown, "metrics.json")


def note(shown: Shown, where: str) -> str:
    """Which classes a table shows and where all are, in a paragraph of its own; empty where it shows all."""
    return f"\n\n{shown.sentence(f'`{where}`')}" if shown.words else ""


def _first(between: str, parts: list[str]) -> str:
    """The first of some parts, and how many are left out."""
    left = len(parts) - MOST_IN_SENTENCE
    return between.join(
        [*parts[:MOST_IN_SENTENCE], *([f"{left:,} more, all in metrics.json"] if left > 0 else [])]
    )


def markdown_table(headings: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, numbers to the right."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
