"""Quote rows that an audit found: repeated texts, texts in two splits, similar texts.

Quoted texts are cut at QUOTED_CHARACTERS.
"""

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np

from trainer.arrays import Bools, Ints
from trainer.audit.inspection import Inspection
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.reasons import CONFLICTS, DUPLICATE
from trainer.data.reading.source_tables import SLOTS

QUOTED_CHARACTERS = 200
MOST_EXAMPLES = 10
MOST_IN_CLUSTER = 5
"""Rows quoted of one cluster."""


def quote(clean: CleanRows, row: int) -> str:
    """Return a row's text, with its pair, on one line and cut."""
    record = clean.rows.table.slice(row, 1).to_pylist()[0]
    parts = " | ".join(part for part in (record["text"], record["text_pair"]) if part)
    text = " ".join(parts.split())
    return text if len(text) <= QUOTED_CHARACTERS else f"{text[: QUOTED_CHARACTERS - 1]}…"


def conflicting_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Return the most frequent texts that have several labels, at most MOST_EXAMPLES."""
    names, examples = clean.labels.names, []
    for rows in _repeats(clean, np.isin(clean.reasons_N, CONFLICTS)):
        labels = Counter(names[i] for i in clean.label_ids_N[rows])
        kept = clean.label_ids_N[rows[~np.isin(clean.reasons_N[rows], CONFLICTS)]]
        examples.append(
            {
                "text": quote(clean, int(rows[0])),
                "labels": dict(labels.most_common()),
                "kept_label": names[kept[0]] if len(kept) else None,
                "rows": rows[:MOST_EXAMPLES].tolist(),
            }
        )
    return examples


def duplicate_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Return the most frequent texts that are repeated under one label, at most MOST_EXAMPLES."""
    return [
        {
            "text": quote(clean, int(rows[0])),
            "label": clean.labels.names[clean.label_ids_N[rows[0]]],
            "copies": len(rows),
        }
        for rows in _repeats(clean, clean.reasons_N == DUPLICATE)
    ]


def _repeats(clean: CleanRows, marked_N: Bools) -> list[Ints]:
    """Return row ids of the most frequent texts that have a marked row.

    Texts are compared within each of the config's keys `source`, `train`, `validation`, `test`.
    """
    hashes_N, slots_N = clean.text_hashes_N, clean.rows.slots_N
    rows = np.flatnonzero((clean.label_ids_N >= 0) & np.isin(hashes_N, hashes_N[marked_N]))
    order = rows[np.lexsort((rows, hashes_N[rows], slots_N[rows]))]
    changes = (np.diff(hashes_N[order]) != 0) | (np.diff(slots_N[order]) != 0)
    groups = [rows for rows in np.split(order, np.flatnonzero(changes) + 1) if marked_N[rows].any()]
    return sorted(groups, key=lambda rows: (-len(rows), rows[0]))[:MOST_EXAMPLES]


def shared_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Return the texts that two of the config's files have in common: exact leakage."""
    hashes_N, found = clean.text_hashes_N, []
    for names in combinations(("train", "validation", "test"), 2):
        first, second = (
            np.flatnonzero((clean.label_ids_N >= 0) & (clean.rows.slots_N == SLOTS.index(name)))
            for name in names
        )
        shared = np.intersect1d(hashes_N[first], hashes_N[second])
        if len(shared):
            quoted = first[np.isin(hashes_N[first], shared[:MOST_EXAMPLES])][:MOST_EXAMPLES]
            examples = [quote(clean, int(row)) for row in quoted]
            found.append({"splits": list(names), "texts": len(shared), "examples": examples})
    return found


def describe_near_duplicates(inspection: Inspection) -> dict[str, Any]:
    """Return counts and examples of near duplicates.

    Returns:
        `num_clusters`; `num_rows` in them; `num_redundant`, all but one of each cluster;
        `soft_leakage`, {split: rows that resemble a training row, 'of': rows compared};
        `num_conflicting` clusters with several labels, and their rows; quoted `examples`.
    """
    near, clusters = inspection.near, inspection.near.clusters
    splits_M = inspection.split_names_N[inspection.compared_M]
    labels_M = inspection.clean.label_ids_N[inspection.compared_M]
    leaks = [c for c in clusters if "train" in splits_M[c] and len(set(splits_M[c])) > 1]
    conflicts = [c for c in clusters if len(set(labels_M[c])) > 1]
    leaked = splits_M[np.concatenate([np.zeros(0, np.int64), *leaks])]
    kinds = {"largest": clusters, "across_splits": leaks, "conflicting_labels": conflicts}
    return {
        "threshold": near.threshold,
        "num_compared": len(splits_M),
        "num_clusters": len(clusters),
        "num_rows": sum(map(len, clusters)),
        "num_redundant": sum(len(c) - 1 for c in clusters),
        "soft_leakage": {
            name: {"rows": int((leaked == name).sum()), "of": int((splits_M == name).sum())}
            for name in ("validation", "test")
            if name in splits_M
        },
        "num_conflicting": len(conflicts),
        "num_conflicting_rows": sum(map(len, conflicts)),
        "examples": {
            kind: [_cluster(c, inspection) for c in found[:MOST_EXAMPLES]]
            for kind, found in kinds.items()
        },
    }


def _cluster(positions: Ints, inspection: Inspection) -> dict[str, Any]:
    """Return the size of a cluster and some rows; rows with a new split or label come first."""
    ids, clean = inspection.compared_M[positions], inspection.clean
    splits = inspection.split_names_N[ids].tolist()
    labels = [clean.labels.names[label_id] for label_id in clean.label_ids_N[ids]]
    kinds = list(zip(splits, labels, strict=True))
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    shown = list(dict.fromkeys([*firsts, *range(len(kinds))]))[:MOST_IN_CLUSTER]
    rows = [
        {
            "row": int(ids[k]),
            "split": splits[k],
            "label": labels[k],
            "text": quote(clean, int(ids[k])),
        }
        for k in shown
    ]
    return {"size": len(positions), "rows": rows}
