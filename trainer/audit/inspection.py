"""What an audit sees in cleaned rows: the splits as training would draw them, repeats with examples, near duplicates across splits, lengths.

Everything here is counted or quoted, nothing changed. Quoted texts are cut at QUOTED_CHARACTERS.
"""

from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Bools, Ints
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.lost_classes import refuse_lost_classes, refuse_unseen_labels
from trainer.data.cleaning.near_duplicates import NearDuplicates
from trainer.data.cleaning.reasons import CONFLICTS, DUPLICATE, KEPT
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.source_tables import SLOTS
from trainer.data.split_rows import refuse_shared_groups, split_rows
from trainer.data.splitting.groups import group_ids, linked_by_either
from trainer.data.splitting.sampling import stratified_sample
from trainer.errors import DataError

if TYPE_CHECKING:
    from trainer.config.sections.balancing import BalanceSection
    from trainer.config.sections.data import DataSection, SplitSection


QUOTED_CHARACTERS = 200
MOST_EXAMPLES = 10
MOST_IN_CLUSTER = 5
"""Rows quoted of one cluster."""


def planned_splits(
    clean: CleanRows,
    data: "DataSection",
    split: "SplitSection | None",
    balance: "BalanceSection",
    *,
    seed: int,
) -> tuple[dict[str, Ints], list[str]]:
    """{split: row ids} as training would draw them, and what would stop it, in words; {'all': ...} where they cannot be drawn."""
    obstacles = []
    try:
        refuse_lost_classes(clean.lost)
    except DataError as error:
        obstacles.append(str(error))
    try:
        if data.pool == "train":
            refuse_unseen_labels(clean)
    except DataError as error:
        obstacles.append(str(error))
    try:
        splits = split_rows(clean, data, split, balance, seed=seed)
    except DataError as error:
        return {"all": np.flatnonzero(clean.reasons_N == KEPT)}, [*obstacles, str(error)]
    try:
        if data.group_column:
            refuse_shared_groups(clean, splits)
    except DataError as error:
        obstacles.append(str(error))
    return splits.named, obstacles


def sample(clean: CleanRows, splits: dict[str, Ints], most: int, *, seed: int) -> Ints:
    """Sorted ids of the rows of all splits; where they are more than `most`, of a stratified sample."""
    ids_N = np.sort(np.concatenate(list(splits.values())))
    return ids_N[
        stratified_sample(clean.label_ids_N[ids_N], clean.text_hashes_N[ids_N], most, seed=seed)
    ]


def quote(clean: CleanRows, row: int) -> str:
    """A row's text, with its pair, on one line and cut."""
    record = clean.rows.table.slice(row, 1).to_pylist()[0]
    text = " ".join(
        " | ".join(part for part in (record["text"], record["text_pair"]) if part).split()
    )
    return text if len(text) <= QUOTED_CHARACTERS else f"{text[: QUOTED_CHARACTERS - 1]}…"


def full_texts(clean: CleanRows, ids_N: Ints) -> list[str]:
    """Text of each row, with its pair."""
    table = take_rows(clean.rows.table.select(["text", "text_pair"]), ids_N)
    return ["\n".join(part for part in row.values() if part) for row in table.to_pylist()]


def conflicting_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Texts that cleaning found under several labels, the most frequent first, at most MOST_EXAMPLES."""
    examples = []
    for rows in _repeats(clean, np.isin(clean.reasons_N, CONFLICTS)):
        labels = Counter(clean.labels.names[i] for i in clean.label_ids_N[rows])
        kept = clean.label_ids_N[rows[~np.isin(clean.reasons_N[rows], CONFLICTS)]]
        examples.append(
            {
                "text": quote(clean, int(rows[0])),
                "labels": dict(labels.most_common()),
                "kept_label": clean.labels.names[kept[0]] if len(kept) else None,
                "rows": rows[:MOST_EXAMPLES].tolist(),
            }
        )
    return examples


def duplicate_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Texts that stand several times under one label, the most frequent first, at most MOST_EXAMPLES."""
    return [
        {
            "text": quote(clean, int(rows[0])),
            "label": clean.labels.names[clean.label_ids_N[rows[0]]],
            "copies": len(rows),
        }
        for rows in _repeats(clean, clean.reasons_N == DUPLICATE)
    ]


def _repeats(clean: CleanRows, marked_N: Bools) -> list[Ints]:
    """Row ids of the most frequent texts that have a marked row, within one config key each."""
    labelled = np.flatnonzero(
        (clean.label_ids_N >= 0) & np.isin(clean.text_hashes_N, clean.text_hashes_N[marked_N])
    )
    order = labelled[
        np.lexsort((labelled, clean.text_hashes_N[labelled], clean.rows.slots_N[labelled]))
    ]
    changes = (np.diff(clean.text_hashes_N[order]) != 0) | (np.diff(clean.rows.slots_N[order]) != 0)
    groups = [rows for rows in np.split(order, np.flatnonzero(changes) + 1) if marked_N[rows].any()]
    return sorted(groups, key=lambda rows: (-len(rows), rows[0]))[:MOST_EXAMPLES]


def shared_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Exact leakage between given files: the different texts that stand in both of two config keys."""
    found = []
    for first, second in combinations(("train", "validation", "test"), 2):
        rows = [
            np.flatnonzero((clean.label_ids_N >= 0) & (clean.rows.slots_N == SLOTS.index(name)))
            for name in (first, second)
        ]
        shared = np.intersect1d(clean.text_hashes_N[rows[0]], clean.text_hashes_N[rows[1]])
        if len(shared):
            quoted = rows[0][np.isin(clean.text_hashes_N[rows[0]], shared[:MOST_EXAMPLES])][
                :MOST_EXAMPLES
            ]
            found.append(
                {
                    "splits": [first, second],
                    "texts": len(shared),
                    "examples": [quote(clean, int(row)) for row in quoted],
                }
            )
    return found


def describe_near_duplicates(
    near: NearDuplicates, clean: CleanRows, ids_N: Ints, splits_N: NDArray[np.str_]
) -> dict[str, Any]:
    """Counts and examples of near duplicates.

    Args:
        ids_N: row ids of the texts compared.
        splits_N: the split that each of them stands in.
    Returns:
        `num_clusters`, `num_rows` in them, `num_redundant` (all but one of each), `soft_leakage` ({split: rows that resemble a
        training row, 'of': rows compared}), `num_conflicting` clusters with several labels and their rows, and quoted `examples` of each kind.
    """
    clusters = near.clusters
    labels_N = clean.label_ids_N[ids_N]
    leaks = [c for c in clusters if "train" in splits_N[c] and len(set(splits_N[c])) > 1]
    conflicts = [c for c in clusters if len(set(labels_N[c])) > 1]
    leaked = np.concatenate([np.zeros(0, np.int64), *leaks])
    return {
        "threshold": near.threshold,
        "num_compared": len(ids_N),
        "num_clusters": len(clusters),
        "num_rows": sum(map(len, clusters)),
        "num_redundant": sum(len(c) - 1 for c in clusters),
        "soft_leakage": {
            name: {
                "rows": int((splits_N[leaked] == name).sum()),
                "of": int((splits_N == name).sum()),
            }
            for name in ("validation", "test")
            if (splits_N == name).any()
        },
        "num_conflicting": len(conflicts),
        "num_conflicting_rows": sum(map(len, conflicts)),
        "examples": {
            "largest": [_cluster(c, clean, ids_N, splits_N) for c in clusters[:MOST_EXAMPLES]],
            "across_splits": [_cluster(c, clean, ids_N, splits_N) for c in leaks[:MOST_EXAMPLES]],
            "conflicting_labels": [
                _cluster(c, clean, ids_N, splits_N) for c in conflicts[:MOST_EXAMPLES]
            ],
        },
    }


def _cluster(
    positions: Ints, clean: CleanRows, ids_N: Ints, splits_N: NDArray[np.str_]
) -> dict[str, Any]:
    """Size of a cluster and its first rows, those first whose split or label is new."""
    kinds = [(str(splits_N[p]), clean.labels.names[clean.label_ids_N[ids_N[p]]]) for p in positions]
    firsts = [kinds.index(kind) for kind in dict.fromkeys(kinds)]
    shown = list(dict.fromkeys([*firsts, *range(len(kinds))]))[:MOST_IN_CLUSTER]
    rows = [
        {
            "row": int(ids_N[positions[k]]),
            "split": kinds[k][0],
            "label": kinds[k][1],
            "text": quote(clean, int(ids_N[positions[k]])),
        }
        for k in shown
    ]
    return {"size": len(positions), "rows": rows}


def independent_units(
    near: NearDuplicates, clean: CleanRows, ids_N: Ints, data: "DataSection"
) -> Ints:
    """Id of the set of rows that must be held out together: near duplicates, and rows of one group where a group column is set."""
    if not data.group_column:
        return near.cluster_ids_N
    return linked_by_either(near.cluster_ids_N, group_ids(clean, ids_N))


def characters_of(clean: CleanRows, ids_N: Ints) -> Ints:
    """Characters of each row's text and its pair."""
    first_N, second_N = (
        pc.fill_null(pc.utf8_length(clean.rows.table[name]), 0).to_numpy()
        for name in ("text", "text_pair")
    )
    return (first_N + second_N).astype(np.int64)[ids_N]


def lengths_by_class(
    lengths_N: Ints, label_ids_N: Ints, labels: list[str]
) -> dict[str, dict[str, float]]:
    """{label: rows, p5, median, p95, longest} of the classes that have rows."""
    found = {}
    for label_id in np.unique(label_ids_N):
        own = lengths_N[label_ids_N == label_id]
        low, median, high = np.percentile(own, [5, 50, 95])
        found[labels[label_id]] = {
            "rows": len(own),
            "p5": float(low),
            "median": float(median),
            "p95": float(high),
            "longest": int(own.max()),
        }
    return found
