"""Several labels of a text that stand in several rows (`data.labels_per_row: long`), or in one cell: joined, or noticed.

Legend: N rows, M rows of interest, T texts.
"""

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Bools, Hashes, Ints
from trainer.data.cleaning.text_hashes import repeated
from trainer.data.reading.sources import Rows
from trainer.data.splitting.times import newest_first
from trainer.errors import listing

LEAST_TEXTS, LEAST_SHARE = 10, 0.05
"""Texts with several labels, or their share of the rows, from which on `labels_per_row: long` is proposed."""
MANY_SHARE = 0.25
"""Share of the rows from which on it is proposed even where most repeated texts have one label."""
SEPARATORS = ";|,"
"""Those that are looked for in labels, the likeliest first."""


def join_rows(rows: Rows, kept_N: Bools) -> tuple[Rows, Bools]:
    """Return the rows with a JSON list of labels each, and which of them went into another row of their text.

    Of the kept rows of one text, within one config key, the newest stays (`split.by_time`), then that with the least label,
    group and domain, whatever the order of the rows, and has the labels of all, sorted. Texts that stand in several groups
    are told.
    """
    table, hashes_N, slots_N = rows.table, rows.text_hashes_N, rows.slots_N
    kept = np.flatnonzero(kept_N)
    labels_N, names = _codes(table["label"])
    groups_N, _ = _codes(table["group"])
    domains_N, _ = _codes(table["domain"])
    ages_M = (
        newest_first(table["time"].filter(pa.array(kept_N)))
        if "time" in table.column_names
        else np.zeros(len(kept), np.int64)
    )
    order = np.lexsort(
        (
            kept,
            domains_N[kept],
            groups_N[kept],
            labels_N[kept],
            ages_M,
            hashes_N[kept],
            slots_N[kept],
        )
    )
    rows_M = kept[order]
    is_first_M = np.r_[True, (np.diff(hashes_N[rows_M]) != 0) | (np.diff(slots_N[rows_M]) != 0)][
        : len(rows_M)
    ]
    lists: list[Any] = [
        None if label < 0 else json.dumps([names[label]], ensure_ascii=False)
        for label in range(-1, len(names))
    ]
    cells = np.array(lists, object)[labels_N + 1]
    starts = np.flatnonzero(is_first_M)
    for start, end in zip(starts.tolist(), np.r_[starts[1:], len(rows_M)].tolist(), strict=True):
        if end > start + 1:
            held = sorted(set(labels_N[rows_M[start:end]].tolist()))
            cells[rows_M[start]] = json.dumps([names[label] for label in held], ensure_ascii=False)
    _warn_of_groups(groups_N[rows_M], np.cumsum(is_first_M) - 1)
    is_joined_N = np.zeros(len(kept_N), bool)
    is_joined_N[rows_M[~is_first_M]] = True
    table = table.set_column(
        table.column_names.index("label"), "label", pa.array(cells.tolist(), pa.string())
    )
    return replace(rows, table=table, multi_label=True), is_joined_N


def _codes(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Place of each row's text among the sorted texts, -1 where it is missing; and these."""
    names = sorted(text for text in pc.unique(column).to_pylist() if text is not None)
    return pc.fill_null(
        pc.index_in(column, value_set=pa.array(names, pa.string())), -1
    ).to_numpy().astype(np.int64), names


def _warn_of_groups(groups_M: Ints, texts_M: Ints) -> None:
    """Warn of texts whose rows stand in several groups."""
    pairs = (
        np.unique(np.c_[texts_M, groups_M], axis=0)[:, 0] if (groups_M >= 0).any() else texts_M[:0]
    )
    several = int((np.bincount(pairs) > 1).sum()) if len(pairs) else 0
    if several:
        warnings.warn(
            f"data.labels_per_row: {several:,} texts have rows of several groups; each is joined to one row, which has one of these"
            " groups. Give the rows of one text one group, or leave out data.group_column.",
            stacklevel=4,
        )


def warn_of_long_rows(
    label_ids_N: Ints, hashes_N: Hashes, slots_N: NDArray[np.int8], kept_N: Bools
) -> None:
    """Propose `labels_per_row: long` where most texts that stand several times carry different labels, or these are many rows."""
    rows_M = repeated(hashes_N)
    rows_M = rows_M[kept_N[rows_M]]
    texts_M = np.unique(
        np.c_[hashes_N[rows_M].view(np.int64), slots_N[rows_M]], axis=0, return_inverse=True
    )[1].ravel()
    if not len(texts_M):
        return
    rows_T = np.bincount(texts_M)
    labels_T = np.bincount(np.unique(np.c_[texts_M, label_ids_N[rows_M]], axis=0)[:, 0])
    repeats, several = int((rows_T > 1).sum()), int((labels_T > 1).sum())
    share = float(rows_T[labels_T > 1].sum() / kept_N.sum())
    is_most = several * 2 >= repeats and (several >= LEAST_TEXTS or share >= LEAST_SHARE)
    if several > 1 and (is_most or share >= MANY_SHARE):
        warnings.warn(
            f"{several:,} of {repeats:,} texts that stand in several rows carry different labels there; such rows count as conflicting."
            " If a text may have several labels, one row for each, set data.labels_per_row: long.",
            stacklevel=3,
        )


def warn_of_separators(labels: list[str]) -> None:
    """Propose `label_separator` where most labels hold one and combine parts of other labels."""
    for separator in SEPARATORS:
        combined = [label for label in labels if separator in label]
        if len(combined) < 2 or len(combined) * 2 < len(labels):
            continue
        parts = [{part.strip() for part in label.split(separator)} - {""} for label in labels]
        seen: dict[str, int] = {}
        for part in (part for own in parts for part in own):
            seen[part] = seen.get(part, 0) + 1
        again = [part for part, count in seen.items() if count > 1]
        if len(again) * 2 > len(seen) > 1:
            warnings.warn(
                f"{len(combined):,} of {len(labels):,} labels combine others by '{separator}', such as {listing(combined, 2)}, and each"
                f" combination is a class of its own. If a row may have several labels, set data.label_separator: '{separator}'.",
                stacklevel=3,
            )
            return
