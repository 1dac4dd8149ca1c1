"""Find labels that may be wrong or missing in rows with several labels.

Legend: N rows, F features, C labels, K labels that are checked, I candidates.
"""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.arrays import Bools, Floats, Ints
from trainer.audit.noise.label_noise import FILTER, NUM_FOLDS, Candidates, Folds, out_of_fold

LEAST_UNITS = 10
"""Independent rows that a label needs: fewer do not teach a classifier what it means."""
MOST_LABELS = 500
"""Labels that are checked, the most frequent ones, so that a check takes minutes."""
MOST_PROBABILITIES = 10_000_000
"""Most rows times labels that are checked."""
NUM_FEATURES = 256
"""Dimensions to which term weights are reduced, as in latent semantic analysis."""


@dataclass(frozen=True)
class LabelSetNoise(Candidates):
    """Rows with a label that may be wrong, or without one that may be missing.

    Labels are left out that have too few independent rows, or are beyond the most frequent ones.

    Attributes:
        label_ids_K: the labels that were checked.
        given_IK: whether the row has the label.
        doubtful_IK: whether this is in doubt.
        probabilities_IK: out-of-fold probability that the row has the label.
    """

    label_ids_K: Ints
    given_IK: Bools
    doubtful_IK: Bools
    probabilities_IK: Floats


def find_label_set_noise(
    features_NF: Any, label_matrix_NC: Bools, units_N: Ints, *, seed: int
) -> LabelSetNoise | None:
    """Return the rows for which classifiers of the other rows doubt a label; None if none can be.

    Args:
        features_NF: embeddings, or a SciPy sparse matrix of term weights.
        units_N: rows of one unit (a group, near duplicates) are held out together.

    Source: Thyagarajan et al. 2022, https://arxiv.org/abs/2211.13895; cleanlab's
    multilabel_classification.
    """
    from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
    from sklearn.metrics import f1_score

    generator = np.random.default_rng(seed)
    fold_of_unit = generator.permutation(int(units_N.max(initial=0)) + 1) % NUM_FOLDS
    folds_N = fold_of_unit[units_N]
    label_ids_K = _checkable(label_matrix_NC, units_N, folds_N)
    if not len(label_ids_K):
        return None
    rows = np.arange(len(units_N))
    most = max(1, MOST_PROBABILITIES // len(label_ids_K))
    if is_sample := len(rows) > most:
        rows = np.sort(generator.choice(rows, most, replace=False))
    given_NK = label_matrix_NC[rows][:, label_ids_K]
    folds = [
        (np.flatnonzero(folds_N[rows] != fold), np.flatnonzero(folds_N[rows] == fold))
        for fold in np.unique(folds_N[rows])
    ]
    probabilities_NK = _out_of_fold(_dense(features_NF, seed)[rows], given_NK, folds)
    labels = [np.flatnonzero(given_K).tolist() for given_K in given_NK]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cleanlab warns about every label without a candidate
        doubtful_NK = find_multilabel_issues_per_class(
            labels, probabilities_NK, filter_by=FILTER, n_jobs=1
        )
    found = np.flatnonzero(doubtful_NK.any(axis=1))
    confidences_NK = np.where(given_NK, probabilities_NK, 1 - probabilities_NK)
    found = found[np.argsort(confidences_NK[found].min(axis=1), kind="stable")]
    present_C = np.flatnonzero(label_matrix_NC.any(axis=0))
    return LabelSetNoise(
        positions_I=rows[found],
        label_ids_K=label_ids_K,
        given_IK=given_NK[found],
        doubtful_IK=doubtful_NK[found],
        probabilities_IK=probabilities_NK[found],
        left_out_ids=np.setdiff1d(present_C, label_ids_K).tolist(),
        num_checked=len(rows),
        macro_f1=float(f1_score(given_NK, probabilities_NK > 0.5, average="macro")),
        num_folds=len(folds),
        is_sample=is_sample,
    )


def _checkable(label_matrix_NC: Bools, units_N: Ints, folds_N: Ints) -> Ints:
    """Return the labels that every training part of the folds has, and lacks, often enough."""
    rows_M, ids_M = np.nonzero(label_matrix_NC)
    num_units, num_labels = int(units_N.max(initial=0)) + 1, label_matrix_NC.shape[1]
    pairs = np.unique(ids_M * num_units + units_N[rows_M])
    units_C = np.bincount(pairs // num_units, minlength=num_labels)
    rows_C = np.bincount(ids_M, minlength=num_labels)
    sizes_F = np.bincount(folds_N, minlength=NUM_FOLDS)
    in_fold_CF = np.bincount(
        ids_M * NUM_FOLDS + folds_N[rows_M], minlength=num_labels * NUM_FOLDS
    ).reshape(num_labels, NUM_FOLDS)
    outside_CF = rows_C[:, None] - in_fold_CF
    lacking_CF = (len(folds_N) - sizes_F) - outside_CF
    is_fit_C = (
        (units_C >= LEAST_UNITS) & (outside_CF > 0).all(axis=1) & (lacking_CF > 0).all(axis=1)
    )
    found = np.flatnonzero(is_fit_C)
    return np.sort(found[np.argsort(-rows_C[found], kind="stable")][:MOST_LABELS])


def _dense(features_NF: Any, seed: int) -> Floats:
    """Return standardised embeddings, or term weights in few dimensions of equal scale."""
    from scipy.sparse import issparse
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import StandardScaler

    if issparse(features_NF):
        size = min(NUM_FEATURES, min(features_NF.shape) - 1)
        features_NF = TruncatedSVD(size, random_state=seed).fit_transform(features_NF)
    dense_NF: Floats = StandardScaler().fit_transform(features_NF)
    return dense_NF


def _out_of_fold(features_NF: Floats, given_NK: Bools, folds: Folds) -> Floats:
    """Return (N, K) probabilities by a logistic regression for each label, all fitted at once.

    A network without hidden layers is that: a linear layer, a sigmoid for each label and an L2
    penalty.
    """
    from sklearn.neural_network import MLPClassifier

    is_single = given_NK.shape[1] == 1  # scikit-learn then gives both classes
    return out_of_fold(
        features_NF,
        given_NK[:, 0] if is_single else given_NK,
        folds,
        2 if is_single else given_NK.shape[1],
        lambda: MLPClassifier((), solver="lbfgs", alpha=100, max_iter=100),
    )[:, 1 if is_single else 0 :]
