"""The results of a model card on the Hub (model-index): which rows, metrics and rules."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import EvalResult

from trainer.data.prepared_data import PreparedData
from trainer.data.reading.source_tables import SLOTS
from trainer.delivery.card.card_words import chooses
from trainer.display.shown_classes import MOST_IN_SENTENCE
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation, evaluate
from trainer.evaluation.outcome import Outcome
from trainer.evaluation.scores import CorrectedScores, Correction, LogProbabilities
from trainer.run_folder.environment import Commits

if TYPE_CHECKING:
    from trainer.config.config import Config
    from trainer.config.sections.data import DataSection

WHOLE_SPLIT = re.compile(r"[\w.-]+")
"""Name of a whole split; `load_dataset` also takes `test[:10%]` and `train+test`."""
MACRO, MICRO = {"average": "macro"}, {"average": "micro"}
METRICS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "macro_f1": ("f1", "Macro F1", MACRO),
    "accuracy": ("accuracy", "Accuracy", None),
    "balanced_accuracy": ("recall", "Balanced accuracy (macro recall)", MACRO),
    "mcc": ("matthews_correlation", "MCC", None),
}
MULTI_LABEL_METRICS: dict[str, tuple[str, str, dict[str, Any] | None]] = {
    "macro_f1": ("f1", "Macro F1", MACRO),
    "micro_f1": ("f1", "Micro F1", MICRO),
    "accuracy": ("accuracy", "Subset accuracy", None),
    "mean_average_precision": ("average_precision", "Mean average precision", MACRO),
}
"""{field of an evaluation: (id, name, arguments) of the metric on the Hub and in scikit-learn}."""


@dataclass(frozen=True)
class EvaluatedRows:
    """The rows of a result, in the terms of a model-index.

    Attributes:
        type: id of the Hub data set if the rows are one of its splits, else "custom".
        name: the same id, or a description of the rows.
        split: name of the split for `load_dataset`, or our own name.
        config: configuration of the Hub data set, if it has several.
        revision: commit of the Hub data set.
    """

    type: str
    name: str
    split: str
    config: str | None = None
    revision: str | None = None


def evaluated_rows(
    config: "Config", data: PreparedData, split: str, commits: Commits
) -> EvaluatedRows:
    """Return which rows of `split` were evaluated.

    The result carries the id of a Hub data set only if the rows are one whole split of it: the
    config names one data set for this split, every row was evaluated, and no label was renamed or
    left out. The number of streamed rows is unknown, so they never count as a whole split.
    """
    section = config.data
    locations = locations_of(section, split)
    changed = " with labels renamed or left out" if section.label_map or section.drop_labels else ""
    if not locations:
        words = _listed(locations_of(section, "source", "train"), section, commits)
        column = f" by the column {section.split_column}" if section.split_column else ""
        return EvaluatedRows("custom", f"own split of {words}{column}{changed}", split)
    num_rows = len(data.splits.named[split])
    num_read = int((data.clean.rows.slots_N == SLOTS.index(split)).sum())
    is_all = num_rows == num_read and data.clean.streamed is None
    theirs = str(section.split_names.get(split, split))  # type: ignore[call-overload]
    is_split = WHOLE_SPLIT.fullmatch(theirs)
    name = locations[0]
    is_hub = len(locations) == 1 and name in commits["data"]
    if is_hub and is_split and is_all and not changed:
        return EvaluatedRows(name, name, theirs, section.subset, commits["data"][name])
    partly = "" if is_all else f"{num_rows:,} rows of "
    part = "" if is_split else f" ({theirs})"
    words = f"{partly}{_listed(locations, section, commits)}{part}{changed}"
    return EvaluatedRows("custom", words, split)


def locations_of(section: "DataSection", *keys: str) -> list[str]:
    """Return the locations that these keys of `data` name."""
    values = [getattr(section, key) for key in keys]
    return [one for value in values for one in ([value] if isinstance(value, str) else value or [])]


def _listed(locations: list[str], section: "DataSection", commits: Commits) -> str:
    """Return the locations in words that may be published: files and folders without their path."""
    names = []
    for location in locations:
        is_public = location in commits["data"] or location.startswith("package:")
        subset = f" ({section.subset})" if location in commits["data"] and section.subset else ""
        names.append((location if is_public else Path(location).name) + subset)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def plain_pipeline(outcome: Outcome, decided: dict[str, Any] | None) -> AnyEvaluation | None:
    """Return the results of `transformers.pipeline`, or None if they are those of the decision.

    The pipeline does not know how the decision chooses labels. It applies temperature and prior
    only if they are folded into the weights.

    Args:
        decided: the decision in metrics.json.
    """
    if not decided or not (chooses(decided) or not decided["folded_into_weights"]):
        return None
    if not decided["folded_into_weights"]:
        return outcome.alone
    labels = outcome.alone.labels
    shift_C = np.array([decided["shift"][label] for label in labels])
    log_p_NC = LogProbabilities(
        outcome.alone_log_p_NC.source,
        (Correction(decided["temperature"], shift_C),),
        multi_label=outcome.alone_log_p_NC.multi_label,
    )
    scores_NC = CorrectedScores(log_p_NC) if log_p_NC.multi_label else log_p_NC
    return evaluate(scores_NC, outcome.label_ids_N, labels)


def eval_results(
    rows: EvaluatedRows, outcome: Outcome, plain: AnyEvaluation | None
) -> list[EvalResult]:
    """Return the results of the model-index, with the decision and of the plain pipeline.

    Args:
        plain: as `plain_pipeline` returns it; None if there is one set of results.
    """
    evaluations = {"": outcome.final}
    if plain is not None:
        evaluations = {" (with the decision)": outcome.final, " (plain pipeline)": plain}
    return [
        EvalResult(
            task_type="text-classification",
            task_name="Text Classification",
            dataset_type=rows.type,
            dataset_name=rows.name,
            dataset_config=rows.config,
            dataset_split=rows.split,
            dataset_revision=rows.revision,
            metric_type=kind,
            metric_name=title + rule,
            metric_value=round(float(getattr(evaluation, name)), 6),
            metric_args=arguments | _present(evaluation) if arguments == MACRO else arguments,
        )
        for rule, evaluation in evaluations.items()
        for name, (kind, title, arguments) in (
            MULTI_LABEL_METRICS if isinstance(evaluation, MultiLabelEvaluation) else METRICS
        ).items()
    ]


def _present(evaluation: AnyEvaluation) -> dict[str, list[str] | str]:
    """Return the argument `labels` of scikit-learn's macro averages if classes have no rows."""
    present = [label for label, values in evaluation.per_class.items() if values["support"]]
    if len(present) == len(evaluation.per_class):
        return {}
    if len(present) > MOST_IN_SENTENCE:
        return {"labels": f"the {len(present):,} of {len(evaluation.per_class):,} that have rows"}
    return {"labels": present}
