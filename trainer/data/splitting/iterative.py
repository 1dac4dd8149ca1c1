"""Iterative stratification of rows with several labels. Legend: N rows, C labels, S splits."""

from collections.abc import Iterable

import numpy as np

from trainer.arrays import Bools, Floats, Ints


def stratify(label_matrix_NC: Bools, shares_S: Floats, generator: np.random.Generator) -> Ints:
    """Return the split of each row by iterative stratification.

    The label with the fewest rows left comes first. Each of its rows goes to the split that lacks
    most rows of the label, then most rows; ties are drawn. Rows without a label come last.

    Source: Sechidis et al. 2011, https://doi.org/10.1007/978-3-642-23808-6_10. The result is the
    same as that of the package iterative-stratification 0.1.9 with the same generator.
    """
    num_rows, num_labels = label_matrix_NC.shape
    labels_of, rows_of = _members(label_matrix_NC), _members(label_matrix_NC.T)
    rows_left_C = label_matrix_NC.sum(axis=0)
    lacking_S: list[float] = (shares_S * num_rows).tolist()
    lacking_CS: list[list[float]] = np.outer(rows_left_C, shares_S).tolist()
    splits = [-1] * num_rows
    # Counts are updated by each row; counting again for each label would take minutes.
    for _ in range(num_labels):
        least = rows_left_C[rows_left_C > 0].min(initial=num_rows + 1)
        tied_C = np.flatnonzero(rows_left_C == least)
        if not len(tied_C):
            break
        label = int(tied_C[generator.choice(len(tied_C))] if len(tied_C) > 1 else tied_C[0])
        for row in rows_of[label]:
            if splits[row] >= 0:
                continue
            tied = _largest(lacking_CS[label], range(len(lacking_S)))
            split = _drawn(tied if len(tied) == 1 else _largest(lacking_S, tied), generator)
            splits[row] = split
            lacking_S[split] -= 1
            for other in labels_of[row]:
                lacking_CS[other][split] -= 1
            rows_left_C[labels_of[row]] -= 1
    for row in range(num_rows):
        if splits[row] < 0:
            splits[row] = _drawn(_largest(lacking_S, range(len(lacking_S))), generator)
            lacking_S[splits[row]] -= 1
    return np.array(splits, np.int64)


def _members(matrix_NC: Bools) -> list[list[int]]:
    """Return the columns that are true in each row."""
    rows, columns = np.nonzero(matrix_NC)
    ends = np.cumsum(np.bincount(rows, minlength=len(matrix_NC)))
    return [part.tolist() for part in np.split(columns, ends[:-1])]


def _largest(values: list[float], places: Iterable[int]) -> list[int]:
    """Return the places of the largest value."""
    places = list(places)
    most = max(values[place] for place in places)
    return [place for place in places if values[place] == most]


def _drawn(splits: list[int], generator: np.random.Generator) -> int:
    return splits[generator.choice(len(splits))] if len(splits) > 1 else splits[0]
