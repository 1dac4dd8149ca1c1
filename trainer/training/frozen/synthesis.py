"""Synthetic embeddings for rare classes, interpolated between those of training rows.

SMOTE and related methods interpolate between vectors, not between token ids, so they need the
embeddings of a frozen encoder.

Legend: N rows, M rows with synthetic ones, H features, C classes.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from trainer.arrays import Floats32, Hashes, Ints
from trainer.errors import DataError, first_line


def smote(neighbours: int, seed: int) -> Any:
    """Return a sampler of points between a row and one of its nearest rows of the same class.

    Source: Chawla et al. 2002, https://arxiv.org/abs/1106.1813.
    """
    from imblearn.over_sampling import SMOTE

    return SMOTE(k_neighbors=neighbours, random_state=seed)


def borderline_smote(neighbours: int, seed: int) -> Any:
    """Return a SMOTE sampler that starts from rows near other classes.

    Most, but not all, of the 10 nearest rows of such a row belong to other classes. A class
    without such rows gets no synthetic rows.

    Source: Han et al. 2005, https://doi.org/10.1007/11538059_91 (borderline-1).
    """
    from imblearn.over_sampling import BorderlineSMOTE

    return BorderlineSMOTE(k_neighbors=neighbours, m_neighbors=10, random_state=seed)


def adasyn(neighbours: int, seed: int) -> Any:
    """Return a SMOTE sampler that makes more points where more neighbours are of other classes.

    The resulting counts are only about equal.

    Source: He et al. 2008, https://doi.org/10.1109/IJCNN.2008.4633969.
    """
    from imblearn.over_sampling import ADASYN

    return ADASYN(n_neighbors=neighbours, random_state=seed)


SYNTHESISERS: dict[str, Callable[[int, int], Any]] = {
    "adasyn": adasyn,
    "borderline_smote": borderline_smote,
    "smote": smote,
}
"""Samplers of imbalanced-learn by `balance.method`: function (neighbours, seed) -> sampler.

Each sampler adds rows to every class until it is as large as the largest one.
"""


def refuse_few_rows(method: str, counts_C: Ints, labels: list[str], neighbours: int) -> None:
    """Raise DataError if a class that needs synthetic rows has too few rows for the neighbours.

    Args:
        method: an entry of SYNTHESISERS.
        counts_C: training rows of each class.
        labels: names of the classes.
        neighbours: nearest rows of the same class that a synthetic row may use.
    """
    rarest = int(counts_C.argmin())
    count = int(counts_C[rarest])
    if count < counts_C.max() and count <= neighbours:
        remedy = (
            f"Set balance.neighbours: {count - 1} or less"
            if count > 1
            else "Add rows, or list it in data.drop_labels"
        )
        raise DataError(
            f"balance.method {method}: label '{labels[rarest]}' has {count} training row(s);"
            f" {neighbours} neighbours need {neighbours + 1}. {remedy}."
        )


def synthesise(
    method: str,
    features_NH: Floats32,
    label_ids_N: Ints,
    row_keys_N: Hashes,
    *,
    neighbours: int,
    generator: np.random.Generator,
) -> tuple[Floats32, Ints]:
    """Return the given rows with synthetic ones appended, and the label ids of all.

    Args:
        method: an entry of SYNTHESISERS.
        features_NH, label_ids_N: the rows.
        row_keys_N: numbers that depend only on the texts; they make the result independent of the
            order of the rows.
        neighbours: nearest rows of the class among which the second row is drawn.
        generator: source of the seed.
    Raises:
        DataError: imbalanced-learn cannot use the rows.
    """
    order_N = np.argsort(row_keys_N, kind="stable")
    sampler = SYNTHESISERS[method](neighbours, int(generator.integers(2**31)))
    try:
        features_MH, label_ids_M = sampler.fit_resample(
            np.ascontiguousarray(features_NH[order_N]), label_ids_N[order_N]
        )
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"balance.method {method}: imbalanced-learn cannot use these rows: {first_line(error)}"
            " Set balance.method: smote or none."
        ) from error
    return features_MH.astype(np.float32, copy=False), label_ids_M
