"""Rows whose label is doubtful: confident learning on out-of-fold probabilities. Legend: N rows, F features, C classes, I candidates."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.data.splitting.sampling import stratified_sample

NUM_FOLDS = 5
MOST_PROBABILITIES = 100_000_000
"""Rows times classes that are judged: each array of them takes 0.8 GB."""
FILTER = "low_self_confidence"
"""As many rows as confident learning counts, those with the least probability of their own label. With 10 % of the labels flipped, the
precision of cleanlab's default and of this, at about equal recall: R8 0.86 and 0.97, TweetEval emotion 0.31 and 0.35 (MiniLM)."""


@dataclass(frozen=True)
class LabelNoise:
    """Candidates, the most doubtful first, by their positions in the rows judged.

    Attributes:
        positions_I: rows whose label is doubtful.
        suggested_ids_I: the class that the other rows speak for.
        given_probabilities_I: out-of-fold probability of the label that the row has.
        suggested_probabilities_I: out-of-fold probability of the class suggested.
        left_out_ids: classes that cannot be judged, having fewer than two independent rows, or all of them in one fold.
        num_judged: rows that were judged.
        macro_f1: of the out-of-fold predictions; the lower, the less the candidates say.
        num_folds: folds of the cross-validation.
    """

    positions_I: Ints
    suggested_ids_I: Ints
    given_probabilities_I: Floats
    suggested_probabilities_I: Floats
    left_out_ids: list[int]
    num_judged: int
    macro_f1: float
    num_folds: int
    is_sample: bool = False
    """Whether rows were left out, so that the probabilities of all classes fit in memory."""

    @property
    def share(self) -> float:
        """Candidates as a share of the rows judged."""
        return len(self.positions_I) / max(1, self.num_judged)


def find_label_noise(
    features_NF: Any, label_ids_N: Ints, units_N: Ints, *, seed: int
) -> LabelNoise | None:
    """Rows that a classifier of all other rows would label otherwise, or None where fewer than two classes can be judged.

    Rows of classes with very few rows are named too often, since the classifier has hardly seen their like.

    Args:
        features_NF: embeddings, or a SciPy sparse matrix of term weights.
        units_N: rows of one unit (a group, near duplicates) are held out together, so that no row vouches for its own copy.
    Source: Northcutt et al. 2021, confident learning, https://arxiv.org/abs/1911.00068; cleanlab's find_label_issues.
    """
    from cleanlab.filter import find_label_issues
    from sklearn.metrics import f1_score

    num_units_C = np.array(
        [
            len(np.unique(units_N[label_ids_N == c]))
            for c in range(int(label_ids_N.max(initial=0)) + 1)
        ]
    )
    judged, is_sample = np.flatnonzero(num_units_C[label_ids_N] >= 2), False
    num_classes = len(np.unique(label_ids_N[judged]))
    most = max(MOST_PROBABILITIES // max(1, num_classes), 2 * num_classes)
    if len(judged) > most:
        kept = stratified_sample(
            label_ids_N[judged], judged.astype(np.uint64), most, seed=seed, least=2
        )
        judged, is_sample = judged[kept], True
    while True:
        class_ids, targets_N = np.unique(label_ids_N[judged], return_inverse=True)
        if len(class_ids) < 2:
            return None
        sides = _folds(
            targets_N, units_N[judged], int(min(NUM_FOLDS, num_units_C[class_ids].max())), seed
        )
        unseen = _unseen_classes(targets_N, sides)
        if not len(unseen):
            break
        judged = judged[
            ~np.isin(targets_N, unseen)
        ]  # a classifier that never saw a class doubts all its rows
    probabilities_NC = _out_of_fold(features_NF[judged], targets_N, sides)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cleanlab warns of every class it finds clean
        found = find_label_issues(
            targets_N,
            probabilities_NC,
            filter_by=FILTER,
            return_indices_ranked_by="self_confidence",
            n_jobs=1,
        )
    predicted_N = probabilities_NC.argmax(axis=1)
    return LabelNoise(
        positions_I=judged[found],
        suggested_ids_I=class_ids[predicted_N[found]],
        given_probabilities_I=probabilities_NC[found, targets_N[found]],
        suggested_probabilities_I=probabilities_NC[found, predicted_N[found]],
        left_out_ids=np.setdiff1d(label_ids_N, class_ids).tolist(),
        num_judged=len(judged),
        macro_f1=float(f1_score(targets_N, predicted_N, average="macro")),
        num_folds=len(sides),
        is_sample=is_sample,
    )


def _folds(targets_N: Ints, units_N: Ints, num_folds: int, seed: int) -> list[tuple[Ints, Ints]]:
    """(the rest, the rows held out) of each fold, units kept whole; folds that hold no row are left out."""
    from sklearn.model_selection import StratifiedGroupKFold

    folds = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # classes with fewer rows than folds are meant to be judged all the same
        return [
            (rest, held_out)
            for rest, held_out in folds.split(np.zeros(len(targets_N)), targets_N, units_N)
            if len(held_out)
        ]


def _unseen_classes(targets_N: Ints, sides: list[tuple[Ints, Ints]]) -> Ints:
    """Classes all of whose rows some fold holds out."""
    return np.unique(
        np.concatenate([np.setdiff1d(targets_N, targets_N[rest]) for rest, _ in sides])
    )


def _out_of_fold(features_NF: Any, targets_N: Ints, sides: list[tuple[Ints, Ints]]) -> Floats:
    """(N, C) probabilities of each row from a logistic regression that never saw its unit."""
    from scipy.sparse import issparse
    from tqdm.auto import tqdm

    probabilities_NC = np.zeros((len(targets_N), int(targets_N.max()) + 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fits that end at max_iter are good enough to judge by
        for rest, held_out in tqdm(
            sides, desc="Judging labels", unit=" folds", delay=2, disable=None, leave=False
        ):
            model = _term_judge() if issparse(features_NF) else _embedding_judge()
            probabilities_NC[held_out] = model.fit(
                features_NF[rest], targets_N[rest]
            ).predict_proba(features_NF[held_out])
    return probabilities_NC


def _embedding_judge() -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        StandardScaler(), LogisticRegression(C=0.01, max_iter=300)
    )  # C 0.1 fits the wrong labels: R8 macro F1 0.75, not 0.85


def _term_judge() -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10, max_iter=300)


def term_weights(texts: list[str]) -> Any:
    """(N, F) sparse TF-IDF weights of words, signs and pairs of them: features where no encoder is at hand."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        token_pattern=r"\w+|[^\w\s]", ngram_range=(1, 2), max_features=20_000, sublinear_tf=True
    ).fit_transform(texts)
