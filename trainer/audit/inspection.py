"""Inspect cleaned rows: their splits as training would draw them, similar texts, label noise."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Ints
from trainer.audit.label_noise import LabelNoise, find_label_noise, term_weights
from trainer.config.config import Config
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.cleaning.clean import CleanRows
from trainer.data.cleaning.lost_classes import refuse_lost_classes, refuse_unseen_labels
from trainer.data.cleaning.near_duplicates import NearDuplicates, find_near_duplicates
from trainer.data.cleaning.reasons import KEPT
from trainer.data.reading.row_access import take_rows
from trainer.data.split_rows import refuse_shared_groups, split_rows
from trainer.data.splitting.groups import group_ids, linked_by_either
from trainer.data.splitting.sampling import stratified_sample
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.errors import DataError
from trainer.files.cache import cache_dir
from trainer.training import memory

if TYPE_CHECKING:
    from trainer.training.frozen.embed import OpenedEncoder


@dataclass(frozen=True)
class Inspection:
    """What the findings are made from.

    Attributes:
        splits: {split: row ids}; only 'all' if the splits cannot be drawn.
        obstacles: why training would stop, in words.
        compared_M: row ids of the rows that `near`, `noise` and `tokens` describe, in their order.
        noise: None if fewer than two classes could be checked.
        tokens: None without an encoder.
    """

    config: Config
    clean: CleanRows
    splits: dict[str, Ints]
    obstacles: list[str]
    compared_M: Ints
    near: NearDuplicates
    noise: LabelNoise | None
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
    labels_N, hashes_N = clean.label_ids_N[ids_N], clean.text_hashes_N[ids_N]
    compared_M = ids_N[stratified_sample(labels_N, hashes_N, max_rows, seed=seed)]
    texts = full_texts(clean, compared_M)
    near = find_near_duplicates(texts, threshold=threshold)
    with memory.naming_lack(config.model.name):
        features_MF, tokens = (
            encoder.embed(clean, compared_M, cache_dir())
            if encoder
            else (term_weights(texts), None)
        )
    units_M = independent_units(near, clean, compared_M, data)
    noise = find_label_noise(features_MF, clean.label_ids_N[compared_M], units_M, seed=seed)
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
