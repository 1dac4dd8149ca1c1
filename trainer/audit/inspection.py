"""Inspect cleaned rows: their splits as training would draw them, similar texts, label noise.

Rows are counted and quoted, not changed. Quoted texts are cut at QUOTED_CHARACTERS.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Bools, Ints
from trainer.audit.noise.label_noise import LabelNoise, find_label_noise, term_weights
from trainer.audit.noise.label_set_noise import LabelSetNoise, find_label_set_noise
from trainer.config.config import Config
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.lost_classes import refuse_lost_classes, refuse_unseen_labels
from trainer.data.cleaning.near_duplicates import NearDuplicates, find_near_duplicates
from trainer.data.cleaning.reasons import (
    CONFLICTS,
    DUPLICATE,
    JOINED,
    KEPT,
    UNLABELLED,
    UNWANTED,
)
from trainer.data.labels.multi_label import label_set_ids
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.source_tables import SLOTS
from trainer.data.split_rows import refuse_shared_groups, split_rows
from trainer.data.splitting.groups import group_ids, linked_by_either
from trainer.data.splitting.sampling import stratified_sample
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.errors import DataError
from trainer.files.cache import cache_dir
from trainer.training import memory

if TYPE_CHECKING:
    from trainer.training.frozen.embed import OpenedEncoder

QUOTED_CHARACTERS = 200
MOST_EXAMPLES = 10
MOST_IN_CLUSTER = 5
"""Rows quoted of one cluster."""


@dataclass(frozen=True)
class Inspection:
    """What the findings are made from.

    Attributes:
        splits: {split: row ids}; only 'all' if the splits cannot be drawn.
        obstacles: why training would stop, in words.
        compared_M: row ids of the rows that `near`, `noise` and `tokens` describe, in their order.
        noise: None if fewer than two classes, or no label of several a row, could be checked.
        tokens: None without an encoder.
    """

    config: Config
    clean: CleanRows
    splits: dict[str, Ints]
    obstacles: list[str]
    compared_M: Ints
    near: NearDuplicates
    noise: LabelNoise | LabelSetNoise | None
    tokens: TokenisedRows | None
    encoder: "OpenedEncoder | None"

    @cached_property
    def split_names_N(self) -> NDArray[np.str_]:
        """Name of the split of each row; empty for rows in no split."""
        names_N = np.full(len(self.clean.label_ids_N), "", dtype="<U10")
        for name, ids in self.splits.items():
            names_N[ids] = name
        return names_N

    @cached_property
    def audited(self) -> Ints:
        """Sorted ids of the rows of all splits."""
        return np.flatnonzero(self.split_names_N != "")


def inspect(
    clean: CleanRows,
    config: Config,
    *,
    threshold: float,
    max_rows: int,
    encoder: "OpenedEncoder | None" = None,
) -> Inspection:
    """Compare the texts of the rows, and check their labels.

    Args:
        threshold: Jaccard similarity from which texts are near duplicates.
        max_rows: most rows to compare and check; of more rows, a seeded stratified sample is used.
        encoder: gives the features by which labels are checked; None: TF-IDF weights are used.
    """
    data, seed = config.data, config.run.seed
    splits, obstacles = planned_splits(clean, data, config.split, seed=seed)
    ids_N = np.sort(np.concatenate(list(splits.values())))
    compared_M = ids_N[
        stratified_sample(clean.label_ids_N[ids_N], clean.text_hashes_N[ids_N], max_rows, seed=seed)
    ]
    texts = full_texts(clean, compared_M)
    near = find_near_duplicates(texts, threshold=threshold)
    with memory.naming_lack(config.model.name):
        features_MF, tokens = (
            encoder.embed(clean, compared_M, cache_dir())
            if encoder
            else (term_weights(texts), None)
        )
    units_M = independent_units(near, clean, compared_M, data)
    find: Any = find_label_noise if clean.label_matrix_NC is None else find_label_set_noise
    noise = find(features_MF, clean.targets[compared_M], units_M, seed=seed)
    return Inspection(config, clean, splits, obstacles, compared_M, near, noise, tokens, encoder)


def planned_splits(
    clean: CleanRows, data: DataSection, split: SplitSection | None, *, seed: int
) -> tuple[dict[str, Ints], list[str]]:
    """Return {split: row ids} as training would draw them, and why training would stop.

    If the splits cannot be drawn, they are {'all': row ids}.
    """
    obstacles = _obstacle(refuse_lost_classes, clean.lost)
    if data.pool == "train":
        obstacles += _obstacle(refuse_unseen_labels, clean)
    try:
        splits = split_rows(clean, data, split, BalanceSection(), seed=seed)
    except DataError as error:
        return {"all": np.flatnonzero(clean.reasons_N == KEPT)}, [*obstacles, str(error)]
    if data.group_column:
        obstacles += _obstacle(refuse_shared_groups, clean, splits)
    return splits.named, obstacles


def _obstacle(check: Callable[..., None], *values: Any) -> list[str]:
    """Return the message of a check that fails; nothing if it passes."""
    try:
        check(*values)
    except DataError as error:
        return [str(error)]
    return []


def full_texts(clean: CleanRows, ids_N: Ints) -> list[str]:
    """Return the text of each row together with its pair."""
    table = take_rows(clean.rows.table.select(["text", "text_pair"]), ids_N)
    return ["\n".join(part for part in row.values() if part) for row in table.to_pylist()]


def independent_units(
    near: NearDuplicates, clean: CleanRows, ids_N: Ints, data: DataSection
) -> Ints:
    """Return ids of the sets of rows that must be held out together.

    Near duplicates belong together, and so do the rows of one group if there is a group column.
    """
    if not data.group_column:
        return near.cluster_ids_N
    return linked_by_either(near.cluster_ids_N, group_ids(clean, ids_N))


def quote(clean: CleanRows, row: int) -> str:
    """Return a row's text, with its pair, on one line and cut."""
    record = clean.rows.table.slice(row, 1).to_pylist()[0]
    parts = " | ".join(part for part in (record["text"], record["text_pair"]) if part)
    text = " ".join(parts.split())
    return text if len(text) <= QUOTED_CHARACTERS else f"{text[: QUOTED_CHARACTERS - 1]}…"


def conflicting_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Return the most frequent texts that have several labels, at most MOST_EXAMPLES.

    The labels of a multi-label row count as one.
    """
    examples = []
    for rows in _repeats(clean, np.isin(clean.reasons_N, CONFLICTS)):
        labels = Counter(clean.label_words(row) for row in rows.tolist())
        kept = rows[~np.isin(clean.reasons_N[rows], CONFLICTS)].tolist()
        examples.append(
            {
                "text": quote(clean, int(rows[0])),
                "labels": dict(labels.most_common()),
                "kept_label": clean.label_words(kept[0]) if kept else None,
                "rows": rows[:MOST_EXAMPLES].tolist(),
            }
        )
    return examples


def duplicate_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Return the most frequent texts that are repeated under one label, at most MOST_EXAMPLES."""
    return [
        {
            "text": quote(clean, int(rows[0])),
            "label": clean.label_words(int(rows[0])),
            "copies": len(rows),
        }
        for rows in _repeats(clean, clean.reasons_N == DUPLICATE)
    ]


def _is_labelled(clean: CleanRows) -> Bools:
    """Return which rows have a known class, or known labels, also if they are not kept."""
    if clean.label_matrix_NC is None:
        return clean.label_ids_N >= 0
    return ~np.isin(clean.reasons_N, (UNLABELLED, UNWANTED, JOINED))


def _repeats(clean: CleanRows, marked_N: Bools) -> list[Ints]:
    """Return row ids of the most frequent texts that have a marked row.

    Texts are compared within each of the config's keys `source`, `train`, `validation`, `test`.
    """
    hashes_N, slots_N = clean.text_hashes_N, clean.rows.slots_N
    rows = np.flatnonzero(_is_labelled(clean) & np.isin(hashes_N, hashes_N[marked_N]))
    order = rows[np.lexsort((rows, hashes_N[rows], slots_N[rows]))]
    changes = (np.diff(hashes_N[order]) != 0) | (np.diff(slots_N[order]) != 0)
    groups = [rows for rows in np.split(order, np.flatnonzero(changes) + 1) if marked_N[rows].any()]
    return sorted(groups, key=lambda rows: (-len(rows), rows[0]))[:MOST_EXAMPLES]


def shared_texts(clean: CleanRows) -> list[dict[str, Any]]:
    """Return the texts that two of the config's files have in common: exact leakage."""
    hashes_N, found = clean.text_hashes_N, []
    for names in combinations(("train", "validation", "test"), 2):
        first, second = (
            np.flatnonzero(_is_labelled(clean) & (clean.rows.slots_N == SLOTS.index(name)))
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
        `num_conflicting` clusters whose rows have different labels, and their rows; quoted
        `examples`.
    """
    near, clusters = inspection.near, inspection.near.clusters
    splits_M = inspection.split_names_N[inspection.compared_M]
    labels_M = inspection.clean.targets[inspection.compared_M]
    labels_M = labels_M if labels_M.ndim == 1 else label_set_ids(labels_M)
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
    labels = [clean.label_words(row) for row in ids.tolist()]
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
