"""The model card of an ensemble: how its members vote, and the results."""

from typing import Any

from trainer.delivery.card.card_tables import (
    class_table,
    group_table,
    markdown_table,
    summary_figures,
)
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation
from trainer.evaluation.scores import over_classes


def write_ensemble_card(
    name: str,
    ensemble: dict[str, Any],
    evaluations: dict[str, AnyEvaluation],
    groups: dict[str, dict[str, dict[str, Any]]],
) -> str:
    """Return the Markdown of the card of an ensemble; each member has a card of its own.

    Args:
        ensemble: its part of metrics.json.
        groups: {split: `per_group` of metrics.json}.
    """
    size, combine, split = ensemble["size"], ensemble["combine"], ensemble["split"]
    final = evaluations[split]
    is_multi_label = isinstance(final, MultiLabelEvaluation)
    how = {
        "mean": "mean probability" + ", against the mean threshold" * is_multi_label,
        "majority": "majority vote" + " on each label" * is_multi_label,
    }[combine]
    kinds = {
        "seeds": "seeds on one split",
        "folds": f"of {size} stratified folds; each validation row is predicted by the member that"
        " was not trained on it",
    }
    members = [
        [f"[member-{n}](member-{n}/README.md)", f"{score:.4f}"]
        for n, score in enumerate(ensemble["member_macro_f1"], 1)
    ]
    parts = [
        f"# {name}",
        f"An ensemble of {size} text classifiers ({kinds[ensemble['kind']]}) that decide by {how}"
        f" (`ensemble.combine: {combine}`).",
        f"**Macro F1 {final.macro_f1:.4f}**{over_classes(final.per_class)} on"
        f" {final.num_rows:,} {split} rows; the members by themselves:",
        markdown_table(["member", f"macro F1 on {split}"], members),
    ]
    summary_names = summary_figures(final)
    headings = ["", *(figure.replace("_", " ") for figure in summary_names)]
    for title, evaluation in evaluations.items():
        figures = [f"{getattr(evaluation, figure):.4f}" for figure in summary_names]
        summary = markdown_table(headings, [["model", *figures]])
        parts += [f"## {title} ({evaluation.num_rows:,} rows)", summary]
        parts += [group_table(groups[title])] if groups[title] else []
        parts.append(class_table(evaluation))
    parts.append(
        f"![F1 and average precision of each label on the {split} rows](label_scores.png)"
        if is_multi_label
        else f"![Confusion matrix of the {split} rows](confusion_matrix.png)"
    )
    return "\n\n".join(parts) + "\n"
