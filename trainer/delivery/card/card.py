"""The model card of a run: its facts for report.json, and README.md rendered from them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import ModelCard, ModelCardData

from trainer.data.prepared_data import PreparedData
from trainer.data.summary import Lengths, special_words
from trainer.delivery.card.card_comparison import comparison_section
from trainer.delivery.card.card_results import (
    eval_results,
    evaluated_rows,
    locations_of,
    plain_pipeline,
)
from trainer.delivery.card.card_tables import (
    as_text,
    class_table,
    counts_table,
    domain_table,
    group_table,
    markdown_table,
    summary_table,
)
from trainer.delivery.card.card_words import (
    balancing_words,
    decision_words,
    synthetic_words,
    training_words,
)
from trainer.display.shown_classes import MOST_IN_SENTENCE
from trainer.evaluation.multi_label import AnyEvaluation
from trainer.evaluation.outcome import Outcome
from trainer.evaluation.scores import over_classes
from trainer.run_folder.environment import Commits
from trainer.training.progress import headings, row_cells

if TYPE_CHECKING:
    from trainer.config.config import Config


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
    """Return the values of the card's template, for report.json. No training text is quoted.

    Args:
        described: sentences of the trainer about itself.
        commits: commits of the base model and of the data.
        comparison: comparison.json of the comparison that chose the balancing.
    """
    from trainer import __version__

    split = list(outcomes)[-1]
    plain = {name: plain_pipeline(outcome, decided) for name, outcome in outcomes.items()}
    metadata = _metadata(config, data, split, outcomes[split], plain[split], commits)
    return {
        "card_data": metadata.to_yaml(),
        "version": __version__,
        **_model_facts(config, commits, max_length, has_epochs=bool(epoch_rows)),
        **_data_facts(config, data, commits),
        "lengths": [f"{name}: {length.sentence(max_length)}." for name, length in lengths.items()],
        "special_tokens": as_text(special_words(lengths)),
        **_result_facts(outcomes, data.summary.minority_label, split),
        "balancing": balancing_words(config, data),
        "synthetic": synthetic_words(config, data),
        "comparison": comparison_section(comparison, config.to_dict()) if comparison else "",
        "training_text": training_words(config, described),
        "decision": decision_words(decided, as_text) if decided else None,
        "decision_fitted": config.decision.is_fitted,
        "counts_table": counts_table(data),
        "epochs_table": markdown_table(
            [*headings(head=config.model.mode == "head")], [row_cells(row) for row in epoch_rows]
        ),
        "summary_tables": {
            name: summary_table(outcome, plain[name]) for name, outcome in outcomes.items()
        },
    }


def _model_facts(
    config: "Config", commits: Commits, max_length: int, *, has_epochs: bool
) -> dict[str, Any]:
    language, columns = config.hub.language, config.data.text_column
    is_pair = not isinstance(columns, str) and len(columns) > 1
    pair = '{"text": "first text", "text_pair": "second text"}'
    head = config.model.mode == "head"
    return {
        "name": config.run.name,
        "base_model": _at_commit(config.model.name, commits["model"]),
        "head": head,
        "max_length": max_length,
        "has_epochs": has_epochs,
        "bf16": bool(config.training_values.get("bf16")) and not head,
        "language": language if isinstance(language, str) else ", ".join(language or ()),
        "is_pair": is_pair,
        "example": pair if is_pair else '"some text"',
        "scope_all": config.balance.scope == "all",
        "balanced": config.balance.method != "none"
        or config.loss.class_weights != "none"
        or config.loss.name not in ("cross_entropy", "focal"),
        "prior_corrected": config.decision.prior is not None,
    }


def _data_facts(config: "Config", data: PreparedData, commits: Commits) -> dict[str, Any]:
    return {
        "labels": [as_text(label) for label in data.labels[:MOST_IN_SENTENCE]],
        "num_labels": len(data.labels),
        "hub_data": [
            _at_commit(name, commits["data"], config.data.subset) for name in commits["data"]
        ],
        "multi_label": data.labels_per_row,
        "audit": {
            "imbalance_ratio": data.summary.imbalance_ratio,
            "severity": data.summary.severity,
        },
        "cleaning": data.clean.counts,
        "unused": data.unused_rows,
        "streamed": data.streamed_sentence,
        "by_time": data.time_sentence,
    }


def _result_facts(outcomes: dict[str, Outcome], minority: str, split: str) -> dict[str, Any]:
    final = outcomes[split].final
    return {
        "minority": {"label": as_text(minority), **final.per_class[minority]},
        "final": _headline(final),
        "final_split": split,
        "over": over_classes(final.per_class),
        "has_test": "test" in outcomes,
        "evaluations": {name: _headline(outcome.final) for name, outcome in outcomes.items()},
        "class_tables": {name: class_table(outcome.final) for name, outcome in outcomes.items()},
        "group_tables": {
            name: group_table(outcome.groups)
            for name, outcome in outcomes.items()
            if outcome.groups
        },
        "domain_tables": {
            name: domain_table(outcome.domains)
            for name, outcome in outcomes.items()
            if outcome.domains
        },
    }


def render(facts: dict[str, Any]) -> str:
    """Return the Markdown of the card with these facts, which `card_facts` returned."""
    from jinja2 import Template

    template = Template(Path(__file__).with_name("card_template.md").read_text(encoding="utf-8"))
    return str(ModelCard(template.render(**facts)))


def _headline(evaluation: AnyEvaluation) -> dict[str, float]:
    """Return the figures that sentences of the card name."""
    return {
        name: getattr(evaluation, name)
        for name in ("num_rows", "macro_f1", "accuracy", "micro_f1", "mean_average_precision")
        if hasattr(evaluation, name)
    }


def _metadata(
    config: "Config",
    data: PreparedData,
    split: str,
    outcome: Outcome,
    plain: AnyEvaluation | None,
    commits: Commits,
) -> ModelCardData:
    """Return the metadata that the Hub reads, with the results of one split."""
    trained_on = [
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
        datasets=trained_on or None,
        metrics=["f1", "accuracy"],
        model_name=config.run.name,
        eval_results=eval_results(evaluated_rows(config, data, split, commits), outcome, plain),
    )


def _at_commit(name: str, commits: dict[str, str | None], subset: str | None = None) -> str:
    """Return a model or data set with configuration and commit; of a folder only its name.

    The path of a folder is left out, since the card may be published.
    """
    commit = commits.get(name)
    facts = [f"configuration `{subset}`"] if subset else []
    facts += [f"commit `{commit[:12]}`"] if commit else []
    is_public = name in commits or name.startswith("package:")
    shown = name if is_public else Path(name).expanduser().resolve().name
    return f"`{shown}` ({', '.join(facts)})" if facts else f"`{shown}`"
