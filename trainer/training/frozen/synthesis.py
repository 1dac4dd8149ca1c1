"""New embeddings for rare classes, between those of drawn training rows; table SYNTHESISERS. Legend: N rows, H features, C classes.

SMOTE and its kin interpolate between vectors. Between token ids there is nothing, so they need the embeddings of a frozen encoder.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from trainer.arrays import Floats32, Hashes, Ints
from trainer.errors import DataError, first_line


def smote(neighbours: int, seed: int) -> Any:
    """Points between a row and one of its nearest rows of its class. Source: Chawla et al. 2002, https://arxiv.org/abs/1106.1813."""
    from imblearn.over_sampling import SMOTE

    return SMOTE(k_neighbors=neighbours, random_state=seed)


def borderline_smote(neighbours: int, seed: int) -> Any:
    """SMOTE from the rows that have most, but not all, of their 10 nearest rows in other classes; a class without such rows gets none.

    Source: Han et al. 2005, https://doi.org/10.1007/11538059_91 (borderline-1).
    """
    from imblearn.over_sampling import BorderlineSMOTE

    return BorderlineSMOTE(k_neighbors=neighbours, m_neighbors=10, random_state=seed)


def adasyn(neighbours: int, seed: int) -> Any:
    """SMOTE with more points the more of a row's nearest rows are of other classes; counts come out about, not exactly, equal.

    Source: He et al. 2008, https://doi.org/10.1109/IJCNN.2008.4633969.
    """
    from imblearn.over_sampling import ADASYN

    return ADASYN(n_neighbors=neighbours, random_state=seed)


SYNTHESISERS: dict[str, Callable[[int, int], Any]] = {
    "adasyn": adasyn,
    "borderline_smote": borderline_smote,
    "smote": smote,
}
"""Samplers of imbalanced-learn by `balance.method`: (neighbours, seed) -> sampler that fills every class up to the largest."""


def refuse_few_rows(method: str, counts_C: Ints, labels: list[str], neighbours: int) -> None:
    """Raises DataError when a class that would be filled up has too few rows to have so many neighbours.

    Args:
        counts_C: training rows of each class.
    """
    for label, count in sorted(
        zip(labels, counts_C.tolist(), strict=True), key=lambda pair: pair[1]
    ):
        if count < counts_C.max() and count < neighbours + 1:
            remedy = (
                f"Set balance.neighbours: {count - 1} or less"
                if count > 1
                else "Add rows, or list it in data.drop_labels"
            )
            raise DataError(
                f"balance.method {method}: label '{label}' has {count} training row(s); {neighbours} neighbours need {neighbours + 1}. {remedy}."
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
    """The rows given, and behind them synthetic ones with their label ids.

    Args:
        method: an entry of SYNTHESISERS.
        row_keys_N: a number that depends on the row's text alone; makes the draw independent of the order of rows.
        neighbours: nearest rows of the class among which the other end is drawn.
    Raises:
        DataError: imbalanced-learn finds the rows unfit.
    """
    order_N = np.argsort(row_keys_N, kind="stable")
    sampler = SYNTHESISERS[method](neighbours, int(generator.integers(2**31)))
    try:
        features_MH, label_ids_M = sampler.fit_resample(
            np.ascontiguousarray(features_NH[order_N]), label_ids_N[order_N]
        )
    except (ValueError, RuntimeError) as error:
        raise DataError(
            f"balance.method {method}: imbalanced-learn cannot use these rows: {first_line(error)} Set balance.method: smote or none."
        ) from error
    return features_MH.astype(np.float32, copy=False), label_ids_M
