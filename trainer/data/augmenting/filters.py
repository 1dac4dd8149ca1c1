"""Filters for what a language model wrote: each completion is kept, or rejected with a reason."""

import re
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from trainer.arrays import Array, Hashes, Ints
from trainer.data.cleaning.missing_values import MISSING_TEXTS
from trainer.data.cleaning.near_duplicates import jaccard, open_index, shingle_hashes, sketches
from trainer.data.cleaning.text_hashes import hash_texts

REASONS = (
    "empty",
    "refusal",
    "too short",
    "too long",
    "repetitive",
    "exact duplicate",
    "near duplicate",
    "no agreement",
)
"""Why a text is rejected, in the order of the filters."""

REFUSALS = (
    r"\bas an? (large )?(ai|language|artificial intelligence)\b",
    r"\bi('m| am) (just |only )?an? (large )?"
    r"(ai|language model|artificial intelligence|virtual assistant)\b",
    r"\bi('m| am) (very |so )?sorry,? but (i|as an?)\b",
    r"\bi (apologi[sz]e|regret),? but\b",
    r"\bi('m| am) (not able|unable) to (help|assist|create|generate|provide|write|fulfil)",
    r"\bi (cannot|can'?t|can not|won't|will not) "
    r"(help (you )?with|assist|create|generate|provide|write|fulfil|comply with)",
    r"\b(here|below) (is|are) (a|an|another|one|your|the|some)\b[^.!?\n]{0,60}"
    r"\b(text|example|sentence|message|category)\b",
    r"\b(the|this) (text|sentence|example) (above|below|is|should|has been)\b",
    r"\b(of|in) the category [\"']",
)
"""Patterns, without regard to case, of a model that speaks about the request.

They match refusals, and announcements of the text in place of the text.
"""
_REFUSAL = re.compile("|".join(REFUSALS), re.IGNORECASE)
_PLAIN_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")

MOST_COMPRESSED = 2.4
"""Texts that zlib shrinks by a larger factor are repetitive.

Source: Radford et al. 2022 (Whisper), https://arxiv.org/abs/2212.04356.
"""
MOST_ROWS_PER_CLASS = 5_000
"""Rows of a class that the classifier of the last filter is fitted on, to limit its time."""


def clean_completion(completion: str, *, one_paragraph: bool) -> str:
    """Return the text in a completion, without reasoning, announcement, list mark and quotes.

    One completion gives one text. Lists of several texts would need fewer prompts, but small
    models lose count and format, and a broken list loses all of its texts.

    Args:
        one_paragraph: keep only the first paragraph, because the rows are single paragraphs.
    """
    # a server that cuts by tokens may send half a character
    whole = completion.encode("utf-8", "replace").decode()
    text = re.sub(r"^.*</think>", "", whole, flags=re.DOTALL).strip()
    announcement = r"^(sure|certainly|of course|okay|here(.s| is| are))\b[^\n]{0,100}:\s*\n+"
    text = re.sub(announcement, "", text, flags=re.IGNORECASE)
    if one_paragraph:
        text = re.split(r"\n\s*\n", text)[0]
    text = re.sub(r"^([-*•]|\d{1,2}[.)])\s+", "", text)
    for opening, closing in ('""', "''", "\u201c\u201d", "``"):
        inner = text[1:-1]
        if len(text) > 1 and text == f"{opening}{inner}{closing}" and opening not in inner:
            text = inner
    return text.strip()


class LengthBounds(NamedTuple):
    """Number of characters of the shortest and of the longest text that is kept."""

    shortest: int
    longest: int


def length_bounds(texts: list[str], shortest: int | None, longest: int | None) -> LengthBounds:
    """Return the bounds given, else bounds from a class's own texts.

    These are half their 5 % quantile, and their 95 % quantile or 200 if that is less. The slack
    is for classes of a few rows, whose quantiles are the lengths of these rows.
    """
    low, high = np.quantile([len(text) for text in texts], [0.05, 0.95])
    return LengthBounds(
        int(low / 2) if shortest is None else shortest,
        max(200, int(np.ceil(high))) if longest is None else longest,
    )


def is_empty(text: str) -> bool:
    """Return whether the text has no letter or digit, or is a word for a missing value."""
    return not any(character.isalnum() for character in text) or text in MISSING_TEXTS


def is_refusal(text: str) -> bool:
    """Return whether the model speaks about the request instead of answering it (REFUSALS)."""
    return _REFUSAL.search(text.translate(_PLAIN_QUOTES)) is not None


def is_repetitive(text: str) -> bool:
    """Return whether zlib shrinks the text by a factor of more than MOST_COMPRESSED."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw)) > MOST_COMPRESSED


class KnownTexts:
    """An index of texts that grows; similarity is that of `cleaning/near_duplicates.py`.

    MinHash finds candidates. Their similarity is then computed exactly, so no text is rejected by
    chance.

    Args:
        similarity: Jaccard index from which two texts are similar; 1 finds exact copies only.
        hashes_N: hashes of further texts, of which only exact copies are found.
    """

    def __init__(self, similarity: float, hashes_N: Hashes) -> None:
        self.similarity = similarity
        self.hashes_N = np.sort(hashes_N)
        self.own_hashes: set[int] = set()
        self.lsh = open_index(similarity) if similarity < 1 else None
        self.texts: list[str] = []

    def add(self, texts: Iterable[str]) -> None:
        """Add texts to the index."""
        for text in texts:
            self.own_hashes.add(_hash(text))
            if self.lsh is not None:
                self.lsh.insert(len(self.texts), next(sketches([text])), check_duplication=False)
            self.texts.append(text)

    def contains(self, text: str) -> bool:
        """Return whether exactly this text is known."""
        key = _hash(text)
        place = int(np.searchsorted(self.hashes_N, np.uint64(key)))
        return key in self.own_hashes or bool((self.hashes_N[place : place + 1] == key).any())

    def contains_similar(self, text: str) -> bool:
        """Return whether a known text has a Jaccard index of at least `similarity` with this."""
        if self.lsh is None:
            return False
        own = shingle_hashes(text)
        return any(
            jaccard(own, shingle_hashes(self.texts[index])) >= self.similarity - 1e-9
            for index in self.lsh.query(next(sketches([text])))
        )


def _hash(text: str) -> int:
    row = pa.table({"text": [text], "text_pair": pa.array([None], pa.string())})
    return int(hash_texts(row)[0])


class ClassProbability:
    """A classifier fitted on real training rows, which checks the class of synthetic texts.

    It is a class-weighted logistic regression on TF-IDF weights of words and word pairs; with
    several labels a row, one for each label.

    Args:
        targets: label ids (N,), or which labels each row has (N, C).
    """

    def __init__(self, texts: list[str], targets: Array) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.multiclass import OneVsRestClassifier
        from sklearn.pipeline import make_pipeline

        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
        )
        classifier: Any = LogisticRegression(class_weight="balanced", max_iter=1000)
        self.is_multi_label = targets.ndim > 1
        if self.is_multi_label:
            classifier = OneVsRestClassifier(classifier)
        self.model: Any = make_pipeline(vectorizer, classifier)
        self.model.fit(texts, targets.astype(np.int64))

    def of(self, text: str, label_ids: Sequence[int]) -> tuple[float, bool]:
        """Return the least probability of the labels, and whether they are the most probable ones.

        Several labels a row are so from 0.5 each; one label if no other is more probable.
        """
        probabilities_C = self.model.predict_proba([text])[0]
        places = np.searchsorted(self.model.classes_, label_ids)
        least = float(probabilities_C[places].min())
        most = 0.5 if self.is_multi_label else probabilities_C.max()
        return least, bool(least >= most)


def rows_to_fit_on(label_ids_N: Ints, keys_N: Hashes) -> Ints:
    """Return sorted positions of at most MOST_ROWS_PER_CLASS rows of each class.

    The choice depends on the keys, not on the order of the rows.
    """
    picked = []
    for label_id in np.unique(label_ids_N):
        members = np.flatnonzero(label_ids_N == label_id)
        picked.append(members[np.argsort(keys_N[members], kind="stable")][:MOST_ROWS_PER_CLASS])
    return np.sort(np.concatenate(picked))


@dataclass(frozen=True)
class Filters:
    """All filters in their order.

    Attributes:
        classifier: None if that filter is off.
        min_agreement: least probability of the class, or None: it must be the most probable class;
            with several labels a row, each must have a probability of 0.5.
    """

    known: KnownTexts
    classifier: ClassProbability | None
    min_agreement: float | None

    def check(
        self, text: str, label_ids: Sequence[int], bounds: LengthBounds
    ) -> tuple[str | None, float | None]:
        """Return why a text is rejected (one of REASONS), and the probability of its labels.

        The reason is None for a text that is kept; it then counts as known. The probability is
        None if the classifier did not see the text.
        """
        faults: tuple[tuple[str, Callable[[], bool]], ...] = (
            ("empty", lambda: is_empty(text)),
            ("refusal", lambda: is_refusal(text)),
            ("too short", lambda: len(text) < bounds.shortest),
            ("too long", lambda: len(text) > bounds.longest),
            ("repetitive", lambda: is_repetitive(text)),
            ("exact duplicate", lambda: self.known.contains(text)),
            ("near duplicate", lambda: self.known.contains_similar(text)),
        )
        reason = next((name for name, applies in faults if applies()), None)
        probability = None
        if reason is None and self.classifier is not None:
            probability, is_first = self.classifier.of(text, label_ids)
            if not (is_first if self.min_agreement is None else probability >= self.min_agreement):
                reason = "no agreement"
        if reason is None:
            self.known.add([text])
        return reason, probability
