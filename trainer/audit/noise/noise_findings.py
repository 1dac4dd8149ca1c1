"""The doubtful labels of an audit, as they stand in audit.json, and how they were found."""

from functools import partial
from typing import Any

import numpy as np

from trainer.audit.inspection import Inspection, quote
from trainer.audit.noise.label_noise import LabelNoise
from trainer.audit.noise.label_set_noise import LEAST_UNITS, MOST_LABELS, LabelSetNoise
from trainer.data.labels.class_order import count_drawn
from trainer.errors import listing

MOST_CANDIDATES = 1000
"""Rows with a doubtful label that are listed, the most doubtful first; all are counted."""


def describe_noise(inspection: Inspection) -> dict[str, Any] | None:
    """Return counts and rows of doubtful labels; None if no labels could be checked."""
    noise, names = inspection.noise, inspection.clean.labels.names
    if noise is None:
        return None
    by_label, details = (
        (_of_classes(noise, inspection), partial(_suggestion, noise))
        if isinstance(noise, LabelNoise)
        else (_of_labels(noise, inspection), partial(_doubts, noise))
    )
    return {
        "num_judged": noise.num_checked,
        "num_candidates": len(noise.positions_I),
        "share": noise.share,
        "judge_macro_f1": noise.macro_f1,
        "num_folds": noise.num_folds,
        "left_out_labels": [names[c] for c in noise.left_out_ids],
        "by_label": by_label,
        "candidates": [
            {
                "row": int(row),
                "split": str(inspection.split_names_N[row]),
                "label": inspection.clean.label_words(int(row)),
                **details(i, names),
                "text": quote(inspection.clean, int(row)),
            }
            for i, row in enumerate(inspection.compared_M[noise.positions_I[:MOST_CANDIDATES]])
        ],
    }


def _suggestion(noise: LabelNoise, i: int, names: list[str]) -> dict[str, Any]:
    """Return the class that a candidate may have instead of its own."""
    return {
        "suggested_label": names[noise.suggested_ids_I[i]],
        "probability": round(float(noise.given_probabilities_I[i]), 4),
        "suggested_probability": round(float(noise.suggested_probabilities_I[i]), 4),
    }


def _doubts(noise: LabelSetNoise, i: int, names: list[str]) -> dict[str, Any]:
    """Return the labels that a candidate may have wrongly, and those that it may lack."""
    given_K, doubtful_K = noise.given_IK[i], noise.doubtful_IK[i]

    def listed(is_listed_K: Any) -> list[dict[str, Any]]:
        return [
            {
                "label": names[noise.label_ids_K[k]],
                "probability": round(float(noise.probabilities_IK[i, k]), 4),
            }
            for k in np.flatnonzero(is_listed_K)
        ]

    return {"wrong": listed(doubtful_K & given_K), "missing": listed(doubtful_K & ~given_K)}


def _of_classes(noise: LabelNoise, inspection: Inspection) -> dict[str, dict[str, int]]:
    """Return {class: its rows, and those of them that are candidates}."""
    clean, ids_M = inspection.clean, inspection.compared_M
    rows_C = clean.labels.counts(clean.label_ids_N[ids_M])
    doubtful_C = clean.labels.counts(clean.label_ids_N[ids_M[noise.positions_I]])
    return {
        clean.labels.names[c]: {"rows": int(rows_C[c]), "candidates": int(doubtful_C[c])}
        for c in np.flatnonzero(rows_C)
    }


def _of_labels(noise: LabelSetNoise, inspection: Inspection) -> dict[str, dict[str, int]]:
    """Return {checked label: its rows, those where it may be wrong, rows where it may be missing}.

    Rows that were compared count, also if only some of them were checked.
    """
    clean, names = inspection.clean, inspection.clean.labels.names
    rows_C = count_drawn(clean.targets, inspection.compared_M, len(names))
    wrong_K = (noise.doubtful_IK & noise.given_IK).sum(axis=0)
    missing_K = (noise.doubtful_IK & ~noise.given_IK).sum(axis=0)
    return {
        names[c]: {
            "rows": int(rows_C[c]),
            "candidates": int(wrong_K[k]),
            "missing": int(missing_K[k]),
        }
        for k, c in enumerate(noise.label_ids_K)
    }


def noise_notes(inspection: Inspection) -> list[str]:
    """Return how labels were checked, and which were not, in sentences."""
    noise, names = inspection.noise, inspection.clean.labels.names
    if noise is None:
        return ["Labels were not checked: fewer than two classes have enough independent rows."]
    features = "TF-IDF term weights, since no model is named (--model)"
    if inspection.encoder:
        name = inspection.config.model.name
        features = f"mean-pooled embeddings of {name}, not trained"
    each = "" if isinstance(noise, LabelNoise) else " for each label"
    notes = [
        f"Labels were checked by logistic regression{each} on {features}, in {noise.num_folds}"
        " folds. Near duplicates and groups stay in one fold."
    ]
    if noise.is_sample:
        notes.append(
            f"Labels were checked in a seeded sample of {noise.num_checked:,} rows, because with"
            " so many classes more rows do not fit in memory."
        )
    if noise.left_out_ids:
        left = listing(names[c] for c in noise.left_out_ids)
        few = "with too few independent rows"
        if not isinstance(noise, LabelNoise):
            few = f"with fewer than {LEAST_UNITS} independent rows"
            if len(noise.label_ids_K) == MOST_LABELS:
                few += f" or beyond the {MOST_LABELS} most frequent"
        notes.append(f"Labels that were not checked, {few}: {left}.")
    return notes
