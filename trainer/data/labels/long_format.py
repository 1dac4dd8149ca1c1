"""Rows in long format, one for each label of a text (`data.labels_per_row: long`): join them.

Warnings propose the setting that rows or labels seem to need. Legend: N rows, M kept rows, T texts.
"""

import json
import warnings
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Bools, Hashes, Ints
from trainer.data.cleaning.text_hashes import repeated, run_starts
from trainer.data.reading.sources import Rows
from trainer.data.splitting.times import newest_first
from trainer.errors import listing

LEAST_TEXTS, LEAST_SHARE = 10, 0.05
"""Texts with several labels, or their share of the rows, that make a warning propose `long`."""
MANY_SHARE = 0.25
"""Share of the rows that does so even if most repeated texts have one label."""
SEPARATORS = ";|,"
"""Separators that are searched in labels, the likeliest first."""


def join_rows(rows: Rows, kept_N: Bools) -> tuple[Rows, Bools]:
    """Return the rows with a JSON list of labels each, and which rows are joined to another.

    Of the kept rows of one text, within one config key, one row stays and gets the sorted labels of
    all. It is the newest (`split.by_time`), then the one with the least label, group and domain, so
    that the order of the rows does not matter. A warning tells of texts in several groups.
    """
    table = rows.table
    kept = np.flatnonzero(kept_N)
    labels_N, names = _codes(table["label"])
    groups_N, _ = _codes(table["group"])
    domains_N, _ = _codes(table["domain"])
    ages_M = np.zeros(len(kept), np.int64)
    if "time" in table.column_names:
        ages_M = newest_first(table["time"].filter(pa.array(kept_N)))
    columns = (domains_N, groups_N, labels_N)
    texts = (rows.text_hashes_N, rows.slots_N)
    order = np.lexsort((kept, *(c[kept] for c in columns), ages_M, *(c[kept] for c in texts)))
    rows_M = kept[order]
    is_first_M = run_starts(*(column[rows_M] for column in texts))
    lists: list[Any] = [None, *(json.dumps([name], ensure_ascii=False) for name in names)]
    lists_N = np.array(lists, object)[labels_N + 1]
    bounds = [*np.flatnonzero(is_first_M).tolist(), len(rows_M)]
    for start, end in pairwise(bounds):
        if end > start + 1:
            joined = [names[label] for label in np.unique(labels_N[rows_M[start:end]])]
            lists_N[rows_M[start]] = json.dumps(joined, ensure_ascii=False)
    _warn_of_groups(groups_N[rows_M], np.cumsum(is_first_M) - 1)
    is_joined_N = np.zeros(len(kept_N), bool)
    is_joined_N[rows_M[~is_first_M]] = True
    labels = pa.array(lists_N.tolist(), pa.string())
    table = table.set_column(table.column_names.index("label"), "label", labels)
    return replace(rows, table=table, multi_label=True), is_joined_N


def _codes(column: pa.ChunkedArray) -> tuple[Ints, list[str]]:
    """Return the place of each row's text among the sorted texts, -1 if missing; and the texts."""
    names = sorted(text for text in pc.unique(column).to_pylist() if text is not None)
    places = pc.index_in(column, value_set=pa.array(names, pa.string()))
    return pc.fill_null(places, -1).to_numpy().astype(np.int64), names


def _warn_of_groups(groups_M: Ints, texts_M: Ints) -> None:
    """Warn of texts whose rows are in several groups."""
    if (groups_M < 0).all():
        return
    groups_of_T = np.bincount(np.unique(np.c_[texts_M, groups_M], axis=0)[:, 0])
    if several := int((groups_of_T > 1).sum()):
        warnings.warn(
            f"data.labels_per_row: {several:,} texts have rows of several groups; each is joined to"
            " one row, which has one of these groups. Give the rows of one text one group, or leave"
            " out data.group_column.",
            stacklevel=4,
        )


def warn_of_long_rows(
    label_ids_N: Ints, hashes_N: Hashes, slots_N: NDArray[np.int8], kept_N: Bools
) -> None:
    """Propose `labels_per_row: long` if many texts are repeated with different labels."""
    rows_M = repeated(hashes_N)
    rows_M = rows_M[kept_N[rows_M]]
    if not len(rows_M):
        return
    keys = np.c_[hashes_N[rows_M].view(np.int64), slots_N[rows_M]]
    texts_M = np.unique(keys, axis=0, return_inverse=True)[1].ravel()
    rows_T = np.bincount(texts_M)
    labels_T = np.bincount(np.unique(np.c_[texts_M, label_ids_N[rows_M]], axis=0)[:, 0])
    repeats, several = int((rows_T > 1).sum()), int((labels_T > 1).sum())
    share = float(rows_T[labels_T > 1].sum() / kept_N.sum())
    is_most = several * 2 >= repeats and (several >= LEAST_TEXTS or share >= LEAST_SHARE)
    if several > 1 and (is_most or share >= MANY_SHARE):
        warnings.warn(
            f"{several:,} of {repeats:,} repeated texts have different labels in their rows;"
            " such rows count as conflicting. If a text may have several labels, one row for each,"
            " set data.labels_per_row: long.",
            stacklevel=3,
        )


def warn_of_separators(labels: list[str]) -> None:
    """Propose `label_separator` if most labels hold one and combine parts of other labels."""
    for separator in SEPARATORS:
        combined = [label for label in labels if separator in label]
        if len(combined) < 2 or len(combined) * 2 < len(labels):
            continue
        parts = [{part.strip() for part in label.split(separator)} - {""} for label in labels]
        counts = Counter(part for own in parts for part in own)
        again = [part for part, count in counts.items() if count > 1]
        if len(again) * 2 > len(counts) > 1:
            warnings.warn(
                f"{len(combined):,} of {len(labels):,} labels combine others by '{separator}', such"
                f" as {listing(combined, 2)}, and each combination is a class of its own. If a row"
                f" may have several labels, set data.label_separator: '{separator}'.",
                stacklevel=3,
            )
            return
