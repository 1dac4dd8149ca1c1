"""The findings of an audit: the content of audit.json, from which page and tables are made."""

import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from trainer import __version__
from trainer.arrays import Array, Ints
from trainer.audit.advice import advise
from trainer.audit.facts import Advice, Facts
from trainer.audit.inspection import (
    Inspection,
    conflicting_texts,
    describe_near_duplicates,
    duplicate_texts,
    shared_texts,
)
from trainer.audit.label_sets import describe_label_sets
from trainer.audit.noise.noise_findings import describe_noise, noise_notes
from trainer.audit.split_shares import describe_splits
from trainer.data.cleaning.near_duplicates import MOST_CHARACTERS
from trainer.data.cleaning.reasons import CONFLICTS
from trainer.data.cleaning.sanity_checks import class_size_problems
from trainer.data.cleaning.text_artifacts import find_text_artifacts
from trainer.data.labels.class_order import count_drawn, rows_of_labels
from trainer.data.prepare import rows_of_epoch
from trainer.data.reading.source_tables import SLOTS
from trainer.data.summary import DataSummary
from trainer.data.tokens.special_tokens import special_sentence
from trainer.errors import listing
from trainer.training.length import PlannedLength

FORMAT = "equipoise audit 1"
"""Marks audit.json as ours; the number changes if the meaning of a name changes."""


@dataclass(frozen=True)
class Findings:
    """All findings, under the names of audit.json.

    Attributes:
        source: the config's keys that say which rows were read, and the seed.
        rows: how many rows were read, kept, audited and compared.
        label_sets: labels per row, and labels that occur together; None with one label a row.
        splits: how evenly the labels are divided.
        label_noise: None if no labels could be checked.
        obstacles: why training would stop.
        notes: how the findings were made, and what was left out.
        next_commands: measure which method helps on these rows.
    """

    format: str
    version: str
    source: dict[str, Any]
    rows: dict[str, int]
    classes: dict[str, Any]
    label_sets: dict[str, Any] | None
    splits: dict[str, dict[str, Any]]
    cleaning: dict[str, Any]
    odd_characters: dict[str, dict[str, Any]]
    near_duplicates: dict[str, Any]
    label_noise: dict[str, Any] | None
    lengths: dict[str, Any]
    obstacles: list[str]
    notes: list[str]
    advice: list[Advice]
    next_commands: list[str]


def collect(inspection: Inspection, compare: str) -> Findings:
    """Return the findings of an inspection.

    Args:
        compare: the command `compare` for these rows.
    """
    data, clean = inspection.config.data, inspection.clean
    distribution = _distribution(inspection)
    odd_found = find_text_artifacts(clean, inspection.audited)
    near_found = describe_near_duplicates(inspection)
    label_sets = None
    if clean.label_matrix_NC is not None:
        base = next(iter(inspection.splits.values()))
        label_sets = describe_label_sets(clean.label_matrix_NC[base], clean.labels.names)
    advice = advise(_facts(inspection, distribution, near_found, odd_found))
    keys = (*SLOTS, "text_column", "label_column", "label_columns", "group_column")
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
        label_sets=label_sets,
        splits=describe_splits(clean, inspection.splits),
        cleaning={
            "counts": clean.counts,
            "remarks": clean.sentences,
            "conflicts": conflicting_texts(clean),
            "duplicates": duplicate_texts(clean),
            "shared_texts": shared_texts(clean),
        },
        odd_characters=odd_found,
        near_duplicates=near_found,
        label_noise=describe_noise(inspection),
        lengths={
            "characters": _character_lengths(inspection),
            "tokens": _token_lengths(inspection),
        },
        obstacles=inspection.obstacles,
        notes=_notes(inspection, distribution, label_sets),
        advice=advice,
        next_commands=_next_commands(compare, inspection, advice[-1]),
    )


def _next_commands(compare: str, inspection: Inspection, method: Advice) -> list[str]:
    """Return the command that measures the methods that the advice speaks of."""
    plain = " --set decision.thresholds=null" if inspection.config.decision.thresholds else ""
    strategies = shlex.quote(f"compare.strategies={method.compared}")
    return [f"{compare}{plain} --set {strategies}"]


def _distribution(inspection: Inspection) -> DataSummary:
    """Return the class distribution of the first split, over the classes that it has."""
    labels, (base, ids) = inspection.clean.labels, next(iter(inspection.splits.items()))
    counts_C = count_drawn(inspection.clean.targets, ids, len(labels))
    present = np.flatnonzero(counts_C)
    names = [labels.names[c] for c in present]
    return DataSummary(names, {base: counts_C[present]}, counts_C[present])


def _classes(inspection: Inspection, distribution: DataSummary) -> dict[str, Any]:
    clean, splits = inspection.clean, inspection.splits
    all_splits = {"all": np.concatenate(list(splits.values()))} | splits
    counts = {
        name: count_drawn(clean.targets, ids, len(clean.labels)) for name, ids in all_splits.items()
    }
    return {
        "rows": {name: len(ids) for name, ids in all_splits.items()},
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
    return _lengths_by_class(lengths_N, clean.targets[ids], clean.labels.names)


def _token_lengths(inspection: Inspection) -> dict[str, Any] | None:
    """Return the tokens of the texts by class, before truncation; None without a model."""
    tokens, labels = inspection.tokens, inspection.clean.labels.names
    if tokens is None:
        return None
    lengths_N = tokens.lengths_N if tokens.full_lengths_N is None else tokens.full_lengths_N
    by_class = _lengths_by_class(lengths_N, tokens.label_ids_N, labels)
    for label, rows in zip(labels, rows_of_labels(tokens.label_ids_N, len(labels)), strict=True):
        if len(rows):
            by_class[label]["truncated_ratio"] = float(tokens.truncated_N[rows].mean())
    return {"by_class": by_class, "truncated_ratio": float(tokens.truncated_N.mean())}


def _lengths_by_class(
    lengths_N: Ints, targets: Array, labels: list[str]
) -> dict[str, dict[str, float]]:
    """Return {label: rows, p5, median, p95, longest} for the classes that have rows."""
    found = {}
    for label, rows in zip(labels, rows_of_labels(targets, len(labels)), strict=True):
        own = lengths_N[rows]
        if not len(own):
            continue
        p5, median, p95 = np.percentile(own, [5, 50, 95]).tolist()
        quantiles = {"p5": p5, "median": median, "p95": p95}
        found[label] = {"rows": len(own), **quantiles, "longest": int(own.max())}
    return found


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
        smallest_share=float(
            distribution.natural_C.min() / len(next(iter(inspection.splits.values())))
        ),
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
        is_multi_label=inspection.clean.label_matrix_NC is not None,
    )


def _planned_length(inspection: Inspection, distribution: DataSummary) -> PlannedLength | None:
    """Return the steps of the training of these rows; None if only a head is fitted."""
    config, counts_C = inspection.config, distribution.natural_C
    if config.model.mode == "head":
        return None
    if inspection.clean.label_matrix_NC is not None:
        num_rows = len(next(iter(inspection.splits.values())))
    else:
        num_rows = rows_of_epoch(counts_C, config.balance)
    return PlannedLength.of(config.training_values, num_rows, len(counts_C))


def _notes(
    inspection: Inspection, distribution: DataSummary, label_sets: dict[str, Any] | None
) -> list[str]:
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
    notes += noise_notes(inspection)
    notes += _label_set_notes(label_sets) if label_sets else []
    if odd := class_size_problems(distribution.natural_C, distribution.labels):
        data = inspection.config.data
        notes.append(f"{'data.label_columns' if data.label_columns else data.label_column}: {odd}")
    if inspection.tokens:
        notes.append(special_sentence({"the compared rows": inspection.tokens.special}))
    return [note for note in notes if note]


def _label_set_notes(label_sets: dict[str, Any]) -> list[str]:
    """Return which labels no model can learn or tell apart, in sentences."""
    notes = []
    if label_sets["always"]:
        notes.append(
            f"Every row has the label {listing(label_sets['always'])}, so nothing can be learnt"
            " about it. Leave it out by data.label_map."
        )
    if label_sets["identical"]:
        same = listing((" and ".join(map(repr, pair)) for pair in label_sets["identical"]), 5)
        notes.append(
            f"These labels have the same rows, so no model can tell them apart: {same}. Merge them"
            " by data.label_map."
        )
    return notes
