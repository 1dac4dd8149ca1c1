"""What an audit found, as plain values under documented names: the content of audit.json, from which page and tables are made."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Ints
from trainer.audit import inspection
from trainer.audit.advice import Facts, advise
from trainer.audit.label_noise import LabelNoise
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.near_duplicates import MOST_CHARACTERS, NearDuplicates
from trainer.data.cleaning.reasons import CONFLICTS
from trainer.data.cleaning.sanity_checks import class_size_problems
from trainer.data.cleaning.text_artifacts import find_text_artifacts
from trainer.data.reading.source_tables import SLOTS
from trainer.data.summary import DataSummary
from trainer.data.tokens.special_tokens import special_sentence
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.errors import listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection


FORMAT = "equipoise audit 1"
"""Marks audit.json as ours; the number changes with the meaning of a name."""


class Reach(NamedTuple):
    """How much a model reads.

    Attributes:
        max_length: tokens at which texts are cut.
        position_limit: the most tokens that it can read; None where it has no limit.
    """

    max_length: int
    position_limit: int | None


MOST_CANDIDATES = 1000
"""Label noise candidates listed, the most doubtful first; all are counted."""


def collect(
    data: "DataSection",
    clean: CleanRows,
    splits: dict[str, Ints],
    obstacles: list[str],
    compared_N: Ints,
    near: NearDuplicates,
    noise: LabelNoise | None,
    tokens: TokenisedRows | None,
    *,
    model_name: str | None,
    seed: int,
    reach: Reach | None = None,
) -> dict[str, Any]:
    """The findings.

    Args:
        splits: {name: row ids}, 'all' alone where they cannot be drawn.
        obstacles: what would stop training, in words.
        compared_N: row ids that near, noise and tokens speak of, in their order.
        noise: None where fewer than two classes could be judged.
        reach: how much the model reads; None where there is no model.
    Returns:
        `format`, `version`, `source`, `rows`, `classes`, `cleaning`, `odd_characters`, `near_duplicates`, `label_noise`, `lengths`, `obstacles`, `notes`
        (what was not looked at, and how the rest was), `advice`.
    """
    from trainer import __version__

    base, names = next(iter(splits)), clean.labels.names
    split_N = np.full(len(clean.label_ids_N), "", dtype="<U10")
    for name, ids in splits.items():
        split_N[ids] = name
    audited_N = np.flatnonzero(split_N != "")
    near_found = inspection.describe_near_duplicates(near, clean, compared_N, split_N[compared_N])
    distribution, audit = _classes(clean, splits, base)
    token_lengths = None if tokens is None else _token_lengths(tokens, names)
    special = (
        [sentence]
        if tokens and (sentence := special_sentence({"the judged rows": tokens.special}))
        else []
    )
    noise_found = (
        None if noise is None else _label_noise(noise, clean, compared_N, split_N[compared_N])
    )
    odd_found = find_text_artifacts(clean, audited_N)
    facts = _facts(audit, clean, len(compared_N), near_found, noise, tokens, reach, odd_found)
    kept = clean.counts["kept"]
    odd_counts = [
        f"{data.label_column}: {words}"
        for words in [class_size_problems(audit.natural_C, audit.labels)]
        if words
    ]
    return {
        "format": FORMAT,
        "version": __version__,
        "source": {
            key: getattr(data, key)
            for key in (*SLOTS, "text_column", "label_column", "group_column")
            if getattr(data, key)
        }
        | {"seed": seed},
        "rows": {
            "read": len(clean.reasons_N),
            "kept": kept,
            "audited": len(audited_N),
            "compared": len(compared_N),
        },
        "classes": distribution,
        "cleaning": {
            "counts": clean.counts,
            "remarks": clean.sentences,
            "conflicts": inspection.conflicting_texts(clean),
            "duplicates": inspection.duplicate_texts(clean),
            "shared_texts": inspection.shared_texts(clean),
        },
        "odd_characters": odd_found,
        "near_duplicates": near_found,
        "label_noise": noise_found,
        "lengths": {
            "characters": inspection.lengths_by_class(
                inspection.characters_of(clean, audited_N), clean.label_ids_N[audited_N], names
            ),
            "tokens": token_lengths,
        },
        "obstacles": obstacles,
        "notes": [
            *_notes(kept, len(audited_N), len(compared_N), noise, names, model_name),
            *odd_counts,
            *special,
        ],
        "advice": [asdict(advice) for advice in advise(facts)],
    }


def _facts(
    audit: DataSummary,
    clean: CleanRows,
    num_compared: int,
    near_found: dict[str, Any],
    noise: LabelNoise | None,
    tokens: TokenisedRows | None,
    reach: Reach | None,
    odd_found: dict[str, Any],
) -> Facts:
    """What the rules of the advice look at."""
    odd_kind = max(odd_found, key=lambda kind: odd_found[kind]["rows"])
    needed = (
        None
        if tokens is None or tokens.full_lengths_N is None
        else int(np.percentile(tokens.full_lengths_N, 99))
    )
    return Facts(
        imbalance_ratio=audit.imbalance_ratio,
        minority_label=audit.rarest_label,
        num_classes=len(audit.labels),
        smallest_rows=int(audit.natural_C.min()),
        mean_rows=float(audit.natural_C.mean()),
        doubtful_ratio=noise.share if noise else 0.0,
        judge_macro_f1=noise.macro_f1 if noise else 0.0,
        soft_leakage_ratio=max(
            (found["rows"] / found["of"] for found in near_found["soft_leakage"].values()),
            default=0.0,
        ),
        conflict_ratio=float(np.isin(clean.reasons_N, CONFLICTS).mean())
        + near_found["num_conflicting_rows"] / num_compared,
        truncated_ratio=float(tokens.truncated_N.mean()) if tokens else 0.0,
        max_length=reach.max_length if reach else Facts.max_length,
        position_limit=reach.position_limit if reach else Facts.position_limit,
        needed_tokens=needed,
        odd_ratio=odd_found[odd_kind]["share"],
        odd_kind=odd_kind,
    )


def _classes(
    clean: CleanRows, splits: dict[str, Ints], base: str
) -> tuple[dict[str, Any], DataSummary]:
    """Counts by split, and the imbalance of the split trained on, over the classes that it has."""
    counts = {name: clean.labels.counts(clean.label_ids_N[ids]) for name, ids in splits.items()}
    present = np.flatnonzero(counts[base])
    audit = DataSummary(
        [clean.labels.names[c] for c in present],
        {base: counts[base][present]},
        counts[base][present],
    )
    columns = (
        counts if len(counts) == 1 else {"all": np.sum(list(counts.values()), axis=0), **counts}
    )
    found = {
        "counts": {
            name: dict(zip(clean.labels.names, counts_C.tolist(), strict=True))
            for name, counts_C in columns.items()
        },
        "measured_on": base,
        "imbalance_ratio": audit.imbalance_ratio,
        "severity": audit.severity,
        "minority_label": audit.rarest_label,
    }
    return found, audit


def _token_lengths(tokens: TokenisedRows, labels: list[str]) -> dict[str, Any]:
    lengths_N = tokens.lengths_N if tokens.full_lengths_N is None else tokens.full_lengths_N
    by_class = inspection.lengths_by_class(lengths_N, tokens.label_ids_N, labels)
    for label, values in by_class.items():
        values["truncated_ratio"] = float(
            tokens.truncated_N[tokens.label_ids_N == labels.index(label)].mean()
        )
    return {"by_class": by_class, "truncated_ratio": float(tokens.truncated_N.mean())}


def _label_noise(
    noise: LabelNoise, clean: CleanRows, ids_N: Ints, splits_N: NDArray[np.str_]
) -> dict[str, Any]:
    names = clean.labels.names
    given_I = clean.label_ids_N[ids_N[noise.positions_I]]
    candidates = [
        {
            "row": int(ids_N[position]),
            "split": str(splits_N[position]),
            "label": names[given_I[i]],
            "suggested_label": names[noise.suggested_ids_I[i]],
            "probability": round(float(noise.given_probabilities_I[i]), 4),
            "suggested_probability": round(float(noise.suggested_probabilities_I[i]), 4),
            "text": inspection.quote(clean, int(ids_N[position])),
        }
        for i, position in enumerate(noise.positions_I[:MOST_CANDIDATES])
    ]
    rows_C, doubtful_C = clean.labels.counts(clean.label_ids_N[ids_N]), clean.labels.counts(given_I)
    return {
        "num_judged": noise.num_judged,
        "num_candidates": len(noise.positions_I),
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


def _notes(
    kept: int,
    audited: int,
    compared: int,
    noise: LabelNoise | None,
    labels: list[str],
    model_name: str | None,
) -> list[str]:
    notes = []
    if audited < kept:
        notes.append(
            f"data.limit leaves {kept - audited:,} of {kept:,} cleaned rows out of everything but the cleaning figures."
        )
    if compared < audited:
        notes.append(
            f"Near duplicates, label noise and tokens come from a seeded, stratified sample of {compared:,} of {audited:,} rows"
            " (--max-rows); a copy whose original was not drawn is not found."
        )
    notes.append(
        f"Near duplicates are judged by the first {MOST_CHARACTERS:,} characters of each text, in lower case and without punctuation."
    )
    if noise is None:
        notes.append("Labels were not judged: fewer than two classes have enough independent rows.")
    else:
        features = (
            f"mean-pooled embeddings of {model_name}, not trained"
            if model_name
            else "TF-IDF term weights, since no model is named (--model)"
        )
        notes.append(
            f"Labels were judged by logistic regression on {features}, in {noise.num_folds} folds; near duplicates and groups share a fold."
        )
        if noise.is_sample:
            notes.append(
                f"Labels were judged in a seeded, stratified sample of {noise.num_judged:,} rows: of so many classes more do not fit in memory."
            )
        if noise.left_out_ids:
            left = listing(labels[c] for c in noise.left_out_ids)
            notes.append(f"Not judged, having too few independent rows: {left}.")
    return notes
