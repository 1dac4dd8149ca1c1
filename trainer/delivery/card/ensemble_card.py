"""The card of an ensemble: how its members decide, and what they do together."""

from typing import Any

from trainer.delivery.card.card import SUMMARY, class_table, markdown_table
from trainer.evaluation.multi_label import AnyEvaluation
from trainer.evaluation.scores import over_classes


def write_ensemble_card(
    name: str, ensemble: dict[str, Any], evaluations: dict[str, AnyEvaluation]
) -> str:
    """Markdown of the page of an ensemble; each member has a card of its own.

    Args:
        ensemble: what metrics.json holds of it.
    """
    size, combine, split = ensemble["size"], ensemble["combine"], ensemble["split"]
    how = {"mean": "mean probability", "majority": "majority vote"}[combine]
    what = {
        "seeds": "seeds on one split",
        "folds": f"of {size} stratified folds; each row of validation is judged by the member that never saw it",
    }
    alone = evaluations[split]
    members = [
        [f"[member-{n}](member-{n}/README.md)", f"{score:.4f}"]
        for n, score in enumerate(ensemble["member_macro_f1"], 1)
    ]
    parts = [
        f"# {name}",
        f"An ensemble of {size} text classifiers ({what[ensemble['kind']]}) that decide by {how} (`ensemble.combine: {combine}`).",
        f"**Macro F1 {alone.macro_f1:.4f}**{over_classes(alone.per_class)} on {alone.num_rows:,} {split} rows; the members by themselves:",
        markdown_table(["member", f"macro F1 on {split}"], members),
    ]
    for title, evaluation in evaluations.items():
        figures = [f"{getattr(evaluation, figure):.4f}" for figure in SUMMARY]
        summary = markdown_table(
            ["", *(figure.replace("_", " ") for figure in SUMMARY)], [["model", *figures]]
        )
        parts += [f"## {title} ({evaluation.num_rows:,} rows)", summary, class_table(evaluation)]
    parts.append(f"![Confusion matrix of the {split} rows](confusion_matrix.png)")
    return "\n\n".join(parts) + "\n"
