"""Find rows whose label may be wrong: confident learning on out-of-fold probabilities.

Legend: N rows, F features, C classes, I candidates.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.data.splitting.sampling import stratified_sample
from trainer.progress import progress_bar

NUM_FOLDS = 5
MOST_PROBABILITIES = 100_000_000
"""Most rows times classes that are checked; an array of that size takes 0.8 GB."""
FILTER = "low_self_confidence"
"""Confident learning counts the candidates; these are the rows least confident of their own label.

With 10 % of the labels flipped, the precision of cleanlab's default and of this filter, at about
equal recall: R8 0.86 and 0.97, TweetEval emotion 0.31 and 0.35 (MiniLM).
"""

Folds = list[tuple[Ints, Ints]]
"""The rows to fit on and the rows held out, for each fold."""


@dataclass(frozen=True)
class Candidates:
    """Rows with doubtful labels by their positions in the rows given, most doubtful first.

    Attributes:
        positions_I: rows with a doubtful label.
        left_out_ids: labels that cannot be checked.
        num_checked: rows whose labels were checked.
        macro_f1: macro F1 of the out-of-fold predictions; if it is low, candidates mean little.
        num_folds: folds of the cross-validation.
        is_sample: whether only a sample was checked, to keep the probabilities in memory.
    """

    positions_I: Ints
    left_out_ids: list[int]
    num_checked: int
    macro_f1: float
    num_folds: int
    is_sample: bool

    @property
    def share(self) -> float:
        """Candidates as a share of the rows checked."""
        return len(self.positions_I) / max(1, self.num_checked)


@dataclass(frozen=True)
class LabelNoise(Candidates):
    """Candidates for a wrong label, of rows with one label each.

    Classes are left out that have fewer than two independent rows, or all of them in one fold.

    Attributes:
        suggested_ids_I: the class that the other rows suggest.
        given_probabilities_I: out-of-fold probability of the label that the row has.
        suggested_probabilities_I: out-of-fold probability of the suggested class.
    """

    suggested_ids_I: Ints
    given_probabilities_I: Floats
    suggested_probabilities_I: Floats


def find_label_noise(
    features_NF: Any, label_ids_N: Ints, units_N: Ints, *, seed: int
) -> LabelNoise | None:
    """Return the rows that a classifier fitted on all other rows would label otherwise.

    Rows of classes with very few rows are named too often, because the classifier has hardly seen
    similar rows. The result is None if fewer than two classes can be checked.

    Args:
        features_NF: embeddings, or a SciPy sparse matrix of term weights.
        units_N: rows of one unit (a group, near duplicates) are held out together, so that no row
            confirms the label of its own copy.

    Source: Northcutt et al. 2021, confident learning, https://arxiv.org/abs/1911.00068; cleanlab's
    find_label_issues.
    """
    from cleanlab.filter import find_label_issues
    from sklearn.metrics import f1_score

    num_units_C = np.bincount(np.unique(np.c_[label_ids_N, units_N], axis=0)[:, 0])
    rows = np.flatnonzero(num_units_C[label_ids_N] >= 2)
    num_classes = len(np.unique(label_ids_N[rows]))
    most = max(MOST_PROBABILITIES // max(1, num_classes), 2 * num_classes)
    is_sample = len(rows) > most
    if is_sample:
        keys_N = rows.astype(np.uint64)
        rows = rows[stratified_sample(label_ids_N[rows], keys_N, most, seed=seed, least=2)]
    rows, folds = _folds(rows, label_ids_N, units_N, num_units_C, seed)
    if not folds:
        return None
    class_ids, targets_N = np.unique(label_ids_N[rows], return_inverse=True)
    features_NF = features_NF[rows]
    model = _classifier(features_NF)
    probabilities_NC = out_of_fold(features_NF, targets_N, folds, len(class_ids), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cleanlab warns about every class without a candidate
        found = find_label_issues(
            targets_N,
            probabilities_NC,
            filter_by=FILTER,
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    predicted_N = probabilities_NC.argmax(axis=1)
    return LabelNoise(
        positions_I=rows[found],
        suggested_ids_I=class_ids[predicted_N[found]],
        given_probabilities_I=probabilities_NC[found, targets_N[found]],
        suggested_probabilities_I=probabilities_NC[found, predicted_N[found]],
        left_out_ids=np.setdiff1d(label_ids_N, class_ids).tolist(),
        num_checked=len(rows),
        macro_f1=float(f1_score(targets_N, predicted_N, average="macro")),
        num_folds=len(folds),
        is_sample=is_sample,
    )


def _folds(
    rows: Ints, label_ids_N: Ints, units_N: Ints, num_units_C: Ints, seed: int
) -> tuple[Ints, Folds]:
    """Return the rows that can be checked, and their folds; no folds if they have one class.

    Units stay whole. Classes that a fold holds out completely are left out, because a classifier
    that never saw a class doubts all of its rows.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    while len(class_ids := np.unique(label_ids_N[rows])) >= 2:
        targets_N = label_ids_N[rows]
        num_folds = int(min(NUM_FOLDS, num_units_C[class_ids].max()))
        splitter = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # classes with fewer rows than folds are expected
            sides = list(splitter.split(np.zeros(len(rows)), targets_N, units_N[rows]))
        folds = [(rest, held_out) for rest, held_out in sides if len(held_out)]
        unseen = [np.setdiff1d(class_ids, targets_N[rest]) for rest, _ in folds]
        is_unseen_N = np.isin(targets_N, np.concatenate(unseen))
        if not is_unseen_N.any():
            return rows, folds
        rows = rows[~is_unseen_N]
    return rows, []


def out_of_fold(
    features_NF: Any, targets: Any, folds: Folds, size: int, new_model: Callable[[], Any]
) -> Floats:
    """Return (N, size) probabilities of each row by a model that never saw its unit.

    Args:
        targets: class ids (N,), or whether each row has each label (N, C).
        new_model: returns a classifier of scikit-learn.
    """
    probabilities = np.zeros((len(targets), size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fit that ends at max_iter is good enough here
        for rest, held_out in progress_bar(folds, desc="Checking labels", unit=" folds", delay=2):
            model = new_model().fit(features_NF[rest], targets[rest])
            probabilities[held_out] = model.predict_proba(features_NF[held_out])
    return probabilities


def _classifier(features_NF: Any) -> Callable[[], Any]:
    """Return the kind of logistic regression that suits term weights or embeddings."""
    from scipy.sparse import issparse
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if issparse(features_NF):
        return lambda: LogisticRegression(C=10, max_iter=300)
    # with C 0.1 it fits the wrong labels: R8 macro F1 0.75 instead of 0.85
    return lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))


def term_weights(texts: list[str]) -> Any:
    """Return sparse TF-IDF weights (N, F) of words, signs and pairs of them.

    They are the features if there is no encoder.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), max_features=20_000, sublinear_tf=True
    ).fit_transform(texts)
