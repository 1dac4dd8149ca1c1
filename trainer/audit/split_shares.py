"""How evenly the labels are divided among the splits. Legend: C labels, S splits."""

from typing import Any

import numpy as np

from trainer.data.cleaning.clean import CleanRows
from trainer.data.labels.class_order import count_drawn

MOST_LISTED = 10


def describe_splits(clean: CleanRows, splits: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return how far the rows of each label in a split are from its share of all rows.

    Args:
        splits: {split: row ids}.

    Returns:
        {split: `rows`, `share` of all rows, `labels` that it has, labels `without` a row,
        `mean_off` and the labels that are `most_off`, in rows from an even division}.
    """
    names = clean.labels.names
    counts_SC = np.array([count_drawn(clean.targets, ids, len(names)) for ids in splits.values()])
    totals_C = counts_SC.sum(axis=0)
    present_C = totals_C > 0
    num_rows = sum(map(len, splits.values()))
    found = {}
    for (split, ids), counts_C in zip(splits.items(), counts_SC, strict=True):
        even_C = totals_C * (len(ids) / num_rows)
        off_C = np.abs(counts_C - even_C)
        without = np.flatnonzero(present_C & (counts_C == 0))
        order = np.argsort(-off_C, kind="stable")[:MOST_LISTED]
        found[split] = {
            "rows": len(ids),
            "share": len(ids) / num_rows,
            "labels": int((counts_C > 0).sum()),
            "without": [names[c] for c in without],
            "mean_off": round(float(off_C[present_C].mean()), 3),
            "most_off": [
                {"label": names[c], "rows": int(counts_C[c]), "even": round(float(even_C[c]), 2)}
                for c in order
            ],
        }
    return found
