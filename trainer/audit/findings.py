"""The findings of an audit: the content of audit.json, from which page and tables are made."""

import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from trainer import __version__
from trainer.arrays import Ints
from trainer.audit.advice import Advice, Facts, advise
from trainer.audit.inspection import (
    Inspection,
    conflicting_texts,
    describe_near_duplicates,
    duplicate_texts,
    quote,
    shared_texts,
)
from trainer.data.balancing.balance import wanted_rows
from trainer.data.cleaning.near_duplicates import MOST_CHARACTERS
from trainer.data.cleaning.reasons import CONFLICTS
from trainer.data.cleaning.sanity_checks import class_size_problems
from trainer.data.cleaning.text_artifacts import find_text_artifacts
from trainer.data.reading.source_tables import SLOTS
from trainer.data.summary import DataSummary
from trainer.data.tokens.special_tokens import special_sentence
from trainer.errors import listing
from trainer.training.length import PlannedLength

FORMAT = "equipoise audit 1"
"""Marks audit.json as ours; the number changes if the meaning of a name changes."""
MOST_CANDIDATES = 1000
"""Label noise candidates that are listed, the most doubtful first; all are counted."""


@dataclass(frozen=True)
class Findings:
    """All findings, under the names of audit.json.

    Attributes:
        source: the config's keys that say which rows were read, and the seed.
        rows: how many rows were read, kept, audited and compared.
        label_noise: None if no labels could be checked.
        obstacles: why training would stop.
        notes: how the findings were made, and what was left out.
        measure: the command that compares methods on these rows.
    """

    format: str
    version: str
    source: dict[str, Any]
    rows: dict[str, int]
    classes: dict[str, Any]
    cleaning: dict[str, Any]
    odd_characters: dict[str, dict[str, Any]]
    near_duplicates: dict[str, Any]
    label_noise: dict[str, Any] | None
    lengths: dict[str, Any]
    obstacles: list[str]
    notes: list[str]
    advice: list[Advice]
    measure: str


def collect(inspection: Inspection, compare: str) -> Findings:
    """Return the findings of an inspection.

    Args:
        compare: the command `compare` for these rows.
    """
    data, clean = inspection.config.data, inspection.clean
    distribution = _distribution(inspection)
    odd_found = find_text_artifacts(clean, inspection.audited)
    near_found = describe_near_duplicates(inspection)
    advice = advise(_facts(inspection, distribution, near_found, odd_found))
    keys = (*SLOTS, "text_column", "label_column", "group_column")
    return Findings(
        format=FORMAT,
        version=__version__,
        source={key: getattr(data, key) for key in keys if getattr(data, key)}
        | {"seed": inspection.config.run.seed},
        rows={
            "read": len(clean.reasons_N),
            "kept": clean.counts["kept"],
            "audited": len(inspection.audited),
            "compared": len(inspection.compared_M),
        },
        classes=_classes(inspection, distribution),
        cleaning={
            "counts": clean.counts,
            "remarks": clean.sentences,
            "conflicts": conflicting_texts(clean),
            "duplicates": duplicate_texts(clean),
            "shared_texts": shared_texts(clean),
        },
        odd_characters=odd_found,
        near_duplicates=near_found,
        label_noise=_label_noise(inspection),
        lengths={
            "characters": _character_lengths(inspection),
            "tokens": _token_lengths(inspection),
        },
        obstacles=inspection.obstacles,
        notes=_notes(inspection, distribution),
        advice=advice,
        measure=_measure(compare, inspection, advice[-1]),
    )


def _measure(compare: str, inspection: Inspection, method: Advice) -> str:
    """Return the command that compares the methods that the advice speaks of."""
    config = inspection.config
    plain = " --set decision.thresholds=null" if config.decision.thresholds else ""
    return f"{compare}{plain} --set {shlex.quote(f'compare.strategies={method.compared}')}"


def _distribution(inspection: Inspection) -> DataSummary:
    """Return the class distribution of the first split, over the classes that it has."""
    labels, (base, ids) = inspection.clean.labels, next(iter(inspection.splits.items()))
    counts_C = labels.counts(inspection.clean.label_ids_N[ids])
    present = np.flatnonzero(counts_C)
    names = [labels.names[c] for c in present]
    return DataSummary(names, {base: counts_C[present]}, counts_C[present])


def _classes(inspection: Inspection, distribution: DataSummary) -> dict[str, Any]:
    clean, splits = inspection.clean, inspection.splits
    all_splits = {"all": np.concatenate(list(splits.values()))} | splits
    counts = {name: clean.labels.counts(clean.label_ids_N[ids]) for name, ids in all_splits.items()}
    return {
        "counts": {
            name: dict(zip(clean.labels.names, counts_C.tolist(), strict=True))
            for name, counts_C in counts.items()
        },
        "measured_on": next(iter(splits)),
        "imbalance_ratio": distribution.imbalance_ratio,
        "severity": distribution.severity,
        "minority_label": distribution.rarest_label,
    }


def _character_lengths(inspection: Inspection) -> dict[str, dict[str, float]]:
    clean, ids = inspection.clean, inspection.audited
    first_N, second_N = (
        pc.fill_null(pc.utf8_length(clean.rows.table[name]), 0).to_numpy()
        for name in ("text", "text_pair")
    )
    lengths_N = (first_N + second_N).astype(np.int64)[ids]
    return _lengths_by_class(lengths_N, clean.label_ids_N[ids], clean.labels.names)


def _token_lengths(inspection: Inspection) -> dict[str, Any] | None:
    """Return the tokens of the texts by class, before truncation; None without a model."""
    tokens, labels = inspection.tokens, inspection.clean.labels.names
    if tokens is None:
        return None
    lengths_N = tokens.lengths_N if tokens.full_lengths_N is None else tokens.full_lengths_N
    by_class = _lengths_by_class(lengths_N, tokens.label_ids_N, labels)
    for label, values in by_class.items():
        is_own_N = tokens.label_ids_N == labels.index(label)
        values["truncated_ratio"] = float(tokens.truncated_N[is_own_N].mean())
    return {"by_class": by_class, "truncated_ratio": float(tokens.truncated_N.mean())}


def _lengths_by_class(
    lengths_N: Ints, label_ids_N: Ints, labels: list[str]
) -> dict[str, dict[str, float]]:
    """Return {label: rows, p5, median, p95, longest} for the classes that have rows."""
    found = {}
    for label_id in np.unique(label_ids_N):
        own = lengths_N[label_ids_N == label_id]
        p5, median, p95 = np.percentile(own, [5, 50, 95]).tolist()
        quantiles = {"p5": p5, "median": median, "p95": p95}
        found[labels[label_id]] = {"rows": len(own), **quantiles, "longest": int(own.max())}
    return found


def _label_noise(inspection: Inspection) -> dict[str, Any] | None:
    """Return counts and rows of doubtful labels; None if no labels could be checked."""
    noise, clean, ids_M = inspection.noise, inspection.clean, inspection.compared_M
    if noise is None:
        return None
    labels, names = clean.labels, clean.labels.names
    rows_I = ids_M[noise.positions_I]
    rows_C = labels.counts(clean.label_ids_N[ids_M])
    doubtful_C = labels.counts(clean.label_ids_N[rows_I])
    candidates = [
        {
            "row": int(row),
            "split": str(inspection.split_names_N[row]),
            "label": names[clean.label_ids_N[row]],
            "suggested_label": names[noise.suggested_ids_I[i]],
            "probability": round(float(noise.given_probabilities_I[i]), 4),
            "suggested_probability": round(float(noise.suggested_probabilities_I[i]), 4),
            "text": quote(clean, int(row)),
        }
        for i, row in enumerate(rows_I[:MOST_CANDIDATES])
    ]
    return {
        "num_judged": noise.num_checked,
        "num_candidates": len(rows_I),
        "share": noise.share,
        "judge_macro_f1": noise.macro_f1,
        "num_folds": noise.num_folds,
        "left_out_labels": [names[c] for c in noise.left_out_ids],
        "by_label": {
            names[c]: {"rows": int(rows_C[c]), "candidates": int(doubtful_C[c])}
            for c in np.flatnonzero(rows_C)
        },
        "candidates": candidates,
    }


def _facts(
    inspection: Inspection,
    distribution: DataSummary,
    near_found: dict[str, Any],
    odd_found: dict[str, dict[str, Any]],
) -> Facts:
    noise, tokens, encoder = inspection.noise, inspection.tokens, inspection.encoder
    odd_kind = max(odd_found, key=lambda kind: odd_found[kind]["rows"])
    leakage = [found["rows"] / found["of"] for found in near_found["soft_leakage"].values()]
    dropped_ratio = float(np.isin(inspection.clean.reasons_N, CONFLICTS).mean())
    near_ratio = near_found["num_conflicting_rows"] / near_found["num_compared"]
    needed = None
    if tokens and tokens.full_lengths_N is not None:
        needed = int(np.percentile(tokens.full_lengths_N, 99))
    return Facts(
        imbalance_ratio=distribution.imbalance_ratio,
        minority_label=distribution.rarest_label,
        num_classes=len(distribution.labels),
        smallest_rows=int(distribution.natural_C.min()),
        mean_rows=float(distribution.natural_C.mean()),
        doubtful_ratio=noise.share if noise else 0.0,
        classifier_macro_f1=noise.macro_f1 if noise else 0.0,
        soft_leakage_ratio=max(leakage, default=0.0),
        conflict_ratio=dropped_ratio + near_ratio,
        truncated_ratio=float(tokens.truncated_N.mean()) if tokens else 0.0,
        max_length=encoder.max_length if encoder else Facts.max_length,
        position_limit=encoder.position_limit if encoder else Facts.position_limit,
        needed_tokens=needed,
        odd_ratio=odd_found[odd_kind]["share"],
        odd_kind=odd_kind,
        planned=_planned_length(inspection, distribution),
    )


def _planned_length(inspection: Inspection, distribution: DataSummary) -> PlannedLength | None:
    """Return the steps of the training of these rows; None if only a head is fitted."""
    config, counts_C = inspection.config, distribution.natural_C
    balance = config.balance
    if config.model.mode == "head":
        return None
    if balance.row_method != "none" and not balance.by:
        counts_C = wanted_rows(counts_C, balance.method, balance.parameter)
    return PlannedLength.of(config.training_values, int(counts_C.sum()), len(counts_C))


def _notes(inspection: Inspection, distribution: DataSummary) -> list[str]:
    """Return how the findings were made, and what was left out, in sentences."""
    notes, kept = [], inspection.clean.counts["kept"]
    audited, compared = len(inspection.audited), len(inspection.compared_M)
    if audited < kept:
        notes.append(
            f"data.limit leaves out {kept - audited:,} of {kept:,} cleaned rows. Only the figures"
            " about cleaning include them."
        )
    if compared < audited:
        notes.append(
            "Near duplicates, label noise and tokens come from a seeded, stratified sample of"
            f" {compared:,} of {audited:,} rows (--max-rows). A copy is not found if its original"
            " is not in the sample."
        )
    notes.append(
        f"Near duplicates are found by the first {MOST_CHARACTERS:,} characters of each text, in"
        " lower case and without punctuation."
    )
    notes += _noise_notes(inspection)
    if odd := class_size_problems(distribution.natural_C, distribution.labels):
        notes.append(f"{inspection.config.data.label_column}: {odd}")
    if inspection.tokens:
        notes.append(special_sentence({"the compared rows": inspection.tokens.special}))
    return [note for note in notes if note]


def _noise_notes(inspection: Inspection) -> list[str]:
    noise = inspection.noise
    if noise is None:
        return ["Labels were not checked: fewer than two classes have enough independent rows."]
    features = "TF-IDF term weights, since no model is named (--model)"
    if inspection.encoder:
        name = inspection.config.model.name
        features = f"mean-pooled embeddings of {name}, not trained"
    notes = [
        f"Labels were checked by logistic regression on {features}, in {noise.num_folds} folds."
        " Near duplicates and groups stay in one fold."
    ]
    if noise.is_sample:
        notes.append(
            f"Labels were checked in a seeded, stratified sample of {noise.num_checked:,} rows,"
            " because with so many classes more rows do not fit in memory."
        )
    if noise.left_out_ids:
        names = inspection.clean.labels.names
        left = listing(names[c] for c in noise.left_out_ids)
        notes.append(f"Labels that were not checked, with too few independent rows: {left}.")
    return notes
