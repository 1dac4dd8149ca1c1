"""Labels that occur together: labels per row, pairs, and what balancing one label does to others.

Legend: N rows, C labels, P pairs of labels that occur together.
"""

from typing import Any

import numpy as np

from trainer.arrays import Bools, Floats, Ints

MOST_PAIRS = 100
"""Pairs of a list in audit.json; all are counted."""
TIMES = 3
"""How much more often the rarer label of a pair is drawn in the examples."""
LEAST_SHARE = 0.1
"""A pair is listed as tied if the rarer label is in so many rows of the other one."""
LEAST_ROWS = 2
"""One common row says nothing about two labels."""
MOST_IN_MATRIX = 20


def describe_label_sets(label_matrix_NC: Bools, names: list[str]) -> dict[str, Any]:
    """Return how many labels the rows have, and which labels occur together.

    Returns:
        `mean` labels of a row, shares of rows with `several` and `none`, `sizes` {labels: rows};
        `num_pairs` that occur, the most frequent `pairs`; `tied`, the pairs where balancing one
        label moves the other; `identical` pairs, which have the same rows; labels that `always`
        occur; `matrix`, the share of a label's rows that have another one.
    """
    sizes_N = label_matrix_NC.sum(axis=1)
    counts_C = label_matrix_NC.sum(axis=0)
    pairs_P2, rows_P = _pairs(label_matrix_NC)
    rarer_P = np.where(
        counts_C[pairs_P2[:, 0]] <= counts_C[pairs_P2[:, 1]], pairs_P2[:, 0], pairs_P2[:, 1]
    )
    other_P = pairs_P2.sum(axis=1) - rarer_P
    of_rarer_P, of_other_P = rows_P / counts_C[rarer_P], rows_P / counts_C[other_P]

    def listed(order: Ints) -> list[dict[str, Any]]:
        return [
            {
                "rarer": names[rarer_P[p]],
                "other": names[other_P[p]],
                "rows": int(rows_P[p]),
                "share_of_rarer": round(float(of_rarer_P[p]), 4),
                "share_of_other": round(float(of_other_P[p]), 4),
                "other_times": round(1 + (TIMES - 1) * float(of_other_P[p]), 3),
            }
            for p in order[:MOST_PAIRS]
        ]

    is_tied_P = (of_other_P >= LEAST_SHARE) & (rows_P >= LEAST_ROWS)
    tied = np.flatnonzero(is_tied_P)
    same = np.flatnonzero((of_rarer_P == 1) & (of_other_P == 1))
    sizes, num_sizes = np.unique(sizes_N, return_counts=True)
    return {
        "mean": float(sizes_N.mean()),
        "several": float((sizes_N > 1).mean()),
        "none": float((sizes_N == 0).mean()),
        "sizes": dict(zip(map(str, sizes.tolist()), num_sizes.tolist(), strict=True)),
        "num_pairs": len(rows_P),
        "pairs": listed(np.argsort(-rows_P, kind="stable")),
        "times": TIMES,
        "num_tied": len(tied),
        "tied": listed(tied[np.lexsort((-rows_P[tied], -of_other_P[tied]))]),
        "num_identical": len(same),
        "identical": [[names[rarer_P[p]], names[other_P[p]]] for p in same[:MOST_PAIRS]],
        "always": [names[c] for c in np.flatnonzero(counts_C == len(sizes_N))],
        "matrix": _matrix(pairs_P2, rows_P, counts_C, names),
    }


def _pairs(label_matrix_NC: Bools) -> tuple[Ints, Ints]:
    """Return the pairs of labels that occur together (P, 2), and the rows of each (P,)."""
    from scipy.sparse import csr_array, triu

    rows_M, ids_M = np.nonzero(label_matrix_NC)
    entries = (np.ones(len(rows_M), np.int64), (rows_M, ids_M))
    sparse = csr_array(entries, shape=label_matrix_NC.shape)
    common = triu(sparse.T @ sparse, k=1).tocoo()
    pairs_P2 = np.stack([common.row, common.col], axis=1).astype(np.int64).reshape(-1, 2)
    return pairs_P2, common.data.astype(np.int64)


def _matrix(pairs_P2: Ints, rows_P: Ints, counts_C: Ints, names: list[str]) -> dict[str, Any]:
    """Return the labels with the most common rows, and the share of each one's rows with others."""
    together_C = np.zeros(len(counts_C), np.int64)
    for side in pairs_P2.T:
        np.add.at(together_C, side, rows_P)
    order_C = np.argsort(-together_C, kind="stable")[:MOST_IN_MATRIX]
    chosen = order_C[together_C[order_C] > 0]
    chosen = chosen[np.argsort(-counts_C[chosen], kind="stable")]
    place_C = np.full(len(counts_C), -1)
    place_C[chosen] = np.arange(len(chosen))
    shares: Floats = np.eye(len(chosen))
    for (first, second), rows in zip(place_C[pairs_P2], rows_P, strict=True):
        if first >= 0 and second >= 0:
            shares[first, second] = rows / counts_C[chosen[first]]
            shares[second, first] = rows / counts_C[chosen[second]]
    return {"labels": [names[c] for c in chosen], "shares": np.round(shares, 3).tolist()}
