"""Results of frequent and rare classes: head, medium and tail. Legend: N rows, C classes.

The macro F1 of all classes hides whether the rare ones are learnt at all. Classes are grouped by
their real training rows before balancing, so every method has the same groups.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from trainer.arrays import Array, Ints
from trainer.config.sections.run import GroupLimits
from trainer.evaluation.blocks import release, row_slices

if TYPE_CHECKING:
    from trainer.evaluation.multi_label import AnyEvaluation

NAMES = ("head", "medium", "tail")
LEAST_CLASSES = 6
"""With fewer classes, a third is a single class, and its F1 is in the table of classes already."""


@dataclass(frozen=True)
class FrequencyGroup:
    """Classes with similar numbers of training rows.

    Attributes:
        label_ids: the classes, in the order of their ids.
        least_rows, most_rows: training rows of the rarest and of the most frequent of them.
    """

    label_ids: Ints
    least_rows: int
    most_rows: int


def frequency_groups(
    counts_C: Ints, groups: Literal["thirds"] | GroupLimits
) -> dict[str, FrequencyGroup]:
    """Return the groups that have classes, head first; empty if there are fewer than two.

    Args:
        counts_C: training rows of each class before balancing.
        groups: `report.groups`.
    """
    if isinstance(groups, GroupLimits):
        limits: tuple[int, int] | None = (groups.head, groups.medium)
    else:
        limits = _limits_of_thirds(counts_C)
    if limits is None:
        return {}
    head, medium = limits
    group_C = np.where(counts_C >= head, 0, np.where(counts_C >= medium, 1, 2))
    ids = {name: np.flatnonzero(group_C == number) for number, name in enumerate(NAMES)}
    found = {
        name: FrequencyGroup(ids_G, int(counts_C[ids_G].min()), int(counts_C[ids_G].max()))
        for name, ids_G in ids.items()
        if len(ids_G)
    }
    return found if len(found) > 1 else {}


def recorded_rows(
    labels: Sequence[str], counts_C: Ints, groups: Literal["thirds"] | GroupLimits
) -> dict[str, Any]:
    """Return what the config of a saved model says of its training rows (`train_rows`)."""
    return {
        "by_label": dict(zip(labels, counts_C.tolist(), strict=True)),
        "groups": groups if groups == "thirds" else groups.model_dump(),
    }


def recorded_groups(
    values: Mapping[str, Any], labels: Sequence[str]
) -> dict[str, FrequencyGroup] | None:
    """Return the groups of a saved model; None if its config has no training rows of its labels.

    Args:
        values: as `recorded_rows` returns them; empty if there are none.
        labels: the labels of the model, in any order; the groups have their ids in this order.
    """
    if values.get("by_label", {}).keys() != {*labels}:  # not recorded, or labels renamed since
        return None
    counts_C, groups = np.array([values["by_label"][label] for label in labels]), values["groups"]
    return frequency_groups(
        counts_C, "thirds" if groups == "thirds" else GroupLimits.model_validate(groups)
    )


def _limits_of_thirds(counts_C: Ints) -> tuple[int, int] | None:
    """Return the smallest numbers of rows of head and medium; None without such groups.

    A cut between two classes with equal numbers of rows moves to the nearest place where the
    numbers differ; of two equally near places to the one with the smaller head or middle.
    """
    sorted_C = np.sort(counts_C)[::-1]
    places = np.flatnonzero(np.diff(sorted_C)) + 1
    if len(counts_C) < LEAST_CLASSES or not len(places):
        return None
    wanted = (len(counts_C) / 3, 2 * len(counts_C) / 3)
    head, medium = (int(places[np.abs(places - cut).argmin()]) for cut in wanted)
    return int(sorted_C[head - 1]), int(sorted_C[medium - 1])


def group_figures(
    groups: dict[str, FrequencyGroup], evaluation: "AnyEvaluation", predicted_N: Array
) -> dict[str, dict[str, Any]]:
    """Return the results of each group on one split, for metrics.json.

    `macro_f1` is the mean over the classes with rows in the split, and None without such a class.
    For rows with several labels, `micro_f1` is F1 over all pairs of a row and a label of the group.

    Args:
        predicted_N: predicted label ids, or predicted label sets (N, C).
    """
    if not groups:
        return {}
    f1_C, recall_C, support_C = (
        np.array([values[name] for values in evaluation.per_class.values()])
        for name in ("f1", "recall", "support")
    )
    given_C = _given(predicted_N) if predicted_N.ndim == 2 else None
    found = {}
    for name, group in groups.items():
        ids_G = group.label_ids
        measured_G = ids_G[support_C[ids_G] > 0]
        found[name] = {
            "num_classes": len(ids_G),
            "num_measured": len(measured_G),
            "least_train_rows": group.least_rows,
            "most_train_rows": group.most_rows,
            "support": int(support_C[ids_G].sum()),
            "macro_f1": float(f1_C[measured_G].mean()) if len(measured_G) else None,
        }
        if given_C is not None:
            hits = np.rint(recall_C[ids_G] * support_C[ids_G]).sum()
            found[name]["micro_f1"] = _micro_f1(hits, given_C[ids_G], support_C[ids_G])
    return found


def _micro_f1(hits: float, given_G: Ints, support_G: Ints) -> float:
    total = given_G.sum() + support_G.sum()
    return float(2 * hits / total) if total else 0.0


def _given(predicted_NC: Array) -> Ints:
    """Return how many rows get each label."""
    given_C = np.zeros(predicted_NC.shape[1], np.int64)
    for rows in row_slices(predicted_NC.shape):
        given_C += np.asarray(predicted_NC[rows]).sum(axis=0)
        release(predicted_NC)
    return given_C
