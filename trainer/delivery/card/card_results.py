"""An Outcome to the results that a model card reports on the Hub: which rows were judged, which metrics, and by what rule."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from huggingface_hub import EvalResult

from trainer.data.prepared_data import PreparedData
from trainer.data.reading.source_tables import SLOTS
from trainer.display.shown_classes import MOST_IN_CARD
from trainer.evaluation.metrics import evaluate_logits
from trainer.evaluation.multi_label import AnyEvaluation, MultiLabelEvaluation
from trainer.evaluation.outcome import Outcome
from trainer.evaluation.scores import Correction, LogProbabilities
from trainer.run_folder.environment import Commits

if TYPE_CHECKING:
    from trainer.config.config import Config
    from trainer.config.sections.data import DataSection

WHOLE_SPLIT = re.compile(r"[\w.-]+")
"""Name of one split; `load_dataset` also takes parts, such as `test[:10%]`, and sums, such as `train+test`."""
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
"""Field of an evaluation -> id, name and arguments of the metric, as https://huggingface.co/metrics and scikit-learn have them."""


@dataclass(frozen=True)
class JudgedRows:
    """Which rows were judged, in the words of a model-index.

    Attributes:
        type: id of the Hub data set whose split they are, else "custom".
        name: the same id; else how the rows came about.
        split: as `load_dataset` names it; of other rows our own name.
        config: of the Hub data set, where it has several.
        revision: commit of the Hub data set.
    """

    type: str
    name: str
    split: str
    config: str | None = None
    revision: str | None = None


def judged_rows(config: "Config", data: PreparedData, split: str, commits: Commits) -> JudgedRows:
    """Return which rows of `split` were judged. A Hub data set is named as theirs only where they are one whole split of it.

    They are where the config key of the split names one Hub data set, every row of it was judged, and no label was
    renamed or left out. Of streamed rows it is not known how many there were, so they never are.
    """
    section = config.data
    locations = locations_of(section, split)
    changed = " with labels renamed or left out" if section.label_map or section.drop_labels else ""
    if not locations:
        words = _listed(locations_of(section, "source", "train"), section, commits)
        column = f" by the column {section.split_column}" if section.split_column else ""
        return JudgedRows("custom", f"own split of {words}{column}{changed}", split)
    num_rows = len(data.splits.named[split])
    num_read = int((data.clean.rows.slots_N == SLOTS.index(split)).sum())
    theirs = str(section.split_names.get(split, split))  # type: ignore[call-overload]
    is_hub = (
        len(locations) == 1 and locations[0] in commits["data"] and WHOLE_SPLIT.fullmatch(theirs)
    )
    if is_hub and num_rows == num_read and not changed and data.clean.streamed is None:
        (name,) = locations
        return JudgedRows(name, name, theirs, section.subset, commits["data"][name])
    partly = (
        "" if num_rows == num_read and data.clean.streamed is None else f"{num_rows:,} rows of "
    )
    part = "" if WHOLE_SPLIT.fullmatch(theirs) else f" ({theirs})"
    return JudgedRows(
        "custom", f"{partly}{_listed(locations, section, commits)}{part}{changed}", split
    )


def locations_of(section: "DataSection", *keys: str) -> list[str]:
    """Return the locations that these keys of `data` name."""
    values = [getattr(section, key) for key in keys]
    return [one for value in values for one in ([value] if isinstance(value, str) else value or [])]


def _listed(locations: list[str], section: "DataSection", commits: Commits) -> str:
    """The locations in words that may leave this machine: of files and folders their names alone."""
    names = []
    for location in locations:
        is_public = location in commits["data"] or location.startswith("package:")
        subset = f" ({section.subset})" if location in commits["data"] and section.subset else ""
        names.append((location if is_public else Path(location).name) + subset)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def plain_pipeline(outcome: Outcome, decided: dict[str, Any] | None) -> AnyEvaluation | None:
    """Return what `transformers.pipeline` does on the rows, where that is not what the decision does; else None.

    It knows no thresholds and no costs, and temperature and prior only where they are folded into the weights.

    Args:
        decided: the decision as metrics.json holds it.
    """
    if not decided or not (
        {"thresholds", "costs"} & decided.keys() or not decided["folded_into_weights"]
    ):
        return None
    if not decided["folded_into_weights"]:
        return outcome.alone
    labels = outcome.alone.labels
    shift_C = np.array([decided["shift"][label] for label in labels])
    log_p_NC = LogProbabilities(
        outcome.alone_log_p_NC.source, (Correction(decided["temperature"], shift_C),)
    )
    return evaluate_logits(log_p_NC, outcome.label_ids_N, labels)


def eval_results(
    rows: JudgedRows, outcome: Outcome, plain: AnyEvaluation | None
) -> list[EvalResult]:
    """Return the results of the model-index: with the decision, and beside them those of the plain pipeline where they differ.

    Args:
        plain: as of `plain_pipeline`.
    """
    judged = (
        {"": outcome.final}
        if plain is None
        else {" (with the decision)": outcome.final, " (plain pipeline)": plain}
    )
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
            metric_args=arguments if arguments is None else arguments | _present(evaluation),
        )
        for rule, evaluation in judged.items()
        for name, (kind, title, arguments) in _metrics(evaluation).items()
    ]


def _metrics(evaluation: AnyEvaluation) -> dict[str, tuple[str, str, dict[str, Any] | None]]:
    return MULTI_LABEL_METRICS if isinstance(evaluation, MultiLabelEvaluation) else METRICS


def _present(evaluation: AnyEvaluation) -> dict[str, list[str] | str]:
    """The argument `labels` of scikit-learn's averages, where a class has no row and is left out of them."""
    present = [label for label, values in evaluation.per_class.items() if values["support"]]
    if len(present) == len(evaluation.per_class):
        return {}
    if len(present) > MOST_IN_CARD:
        return {"labels": f"the {len(present):,} of {len(evaluation.per_class):,} that have rows"}
    return {"labels": present}
