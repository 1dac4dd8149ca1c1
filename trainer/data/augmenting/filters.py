"""What a language model wrote, judged: is it a text of the class that no row holds already? Each rejection has a reason."""

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.arrays import Hashes, Ints
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
"""Why a text is rejected, in the order in which it is judged."""

REFUSALS = (
    r"\bas an? (large )?(ai|language|artificial intelligence)\b",
    r"\bi('m| am) (just |only )?an? (large )?(ai|language model|artificial intelligence|virtual assistant)\b",
    r"\bi('m| am) (very |so )?sorry,? but (i|as an?)\b",
    r"\bi (apologi[sz]e|regret),? but\b",
    r"\bi('m| am) (not able|unable) to (help|assist|create|generate|provide|write|fulfil)",
    r"\bi (cannot|can'?t|can not|won't|will not) (help (you )?with|assist|create|generate|provide|write|fulfil|comply with)",
    r"\b(here|below) (is|are) (a|an|another|one|your|the|some)\b[^.!?\n]{0,60}\b(text|example|sentence|message|category)\b",
    r"\b(the|this) (text|sentence|example) (above|below|is|should|has been)\b",
    r"\b(of|in) the category [\"']",
)
"""Patterns (case-blind) of a model that speaks about the request: refusals, and announcements of the text in place of the text."""
_REFUSAL = re.compile("|".join(REFUSALS), re.IGNORECASE)
_PLAIN_QUOTES = str.maketrans("\u2018\u2019\u201c\u201d", "''\"\"")

MOST_COMPRESSED = 2.4
"""Texts that zlib shortens more than this repeat themselves. Source: Radford et al. 2022 (Whisper), https://arxiv.org/abs/2212.04356."""
MOST_ROWS_PER_CLASS = 5_000
"""Rows of a class that the filter's classifier learns from, to bound its time."""


def clean_completion(completion: str, *, one_paragraph: bool) -> str:
    """The text in a completion: without reasoning, announcement, list mark, quotes and, where rows are single paragraphs, what follows the first.

    One completion gives one text. Lists of several would save prompts, but small models lose count and format, and a broken list loses all of them.
    """
    whole = completion.encode(
        "utf-8", "replace"
    ).decode()  # half a character, as a server that cuts by tokens may send
    text = re.sub(r"^.*</think>", "", whole, flags=re.DOTALL).strip()
    text = re.sub(
        r"^(sure|certainly|of course|okay|here(.s| is| are))\b[^\n]{0,100}:\s*\n+",
        "",
        text,
        flags=re.IGNORECASE,
    )
    if one_paragraph:
        text = re.split(r"\n\s*\n", text)[0]
    text = re.sub(r"^([-*•]|\d{1,2}[.)])\s+", "", text)
    for opening, closing in ('""', "''", "\u201c\u201d", "``"):
        if (
            len(text) > 1
            and text[0] == opening
            and text[-1] == closing
            and opening not in text[1:-1]
        ):
            text = text[1:-1]
    return text.strip()


@dataclass(frozen=True)
class LengthBounds:
    """Shortest and longest text kept, in characters."""

    shortest: int
    longest: int


def length_bounds(texts: list[str], shortest: int | None, longest: int | None) -> LengthBounds:
    """Bounds as given, else half the 5 % quantile of a class's own texts and their 95 % quantile, or 200 where that is less.

    The slack is for classes of a few rows, whose quantiles are the lengths of those rows.
    """
    low, high = np.quantile([len(text) for text in texts], [0.05, 0.95])
    return LengthBounds(
        int(low / 2) if shortest is None else shortest,
        max(200, int(np.ceil(high))) if longest is None else longest,
    )


def is_empty(text: str) -> bool:
    """Whether the text holds no letter or digit, or is a spelt-out missing value."""
    return not any(character.isalnum() for character in text) or text in MISSING_TEXTS


def is_refusal(text: str) -> bool:
    """Whether the model speaks about the request in place of answering it (REFUSALS)."""
    return _REFUSAL.search(text.translate(_PLAIN_QUOTES)) is not None


def is_repetitive(text: str) -> bool:
    """Whether zlib shortens the text more than MOST_COMPRESSED times."""
    raw = text.encode("utf-8", "surrogatepass")
    return len(raw) / len(zlib.compress(raw)) > MOST_COMPRESSED


class KnownTexts:
    """Index of texts, grown one by one, by exact hash and by similarity, which is what trainer/data/cleaning/near_duplicates.py calls it.

    MinHash finds the candidates, whose similarity is then computed exactly, so nothing is rejected by chance.
    """

    def __init__(self, similarity: float, hashes_N: Hashes) -> None:
        self.similarity = similarity
        self.hashes_N = np.sort(hashes_N)
        self.own_hashes: set[int] = set()
        self.lsh = open_index(similarity) if similarity < 1 else None
        self.texts: list[str] = []

    def add(self, texts: Iterable[str]) -> None:
        """Take texts into the index."""
        for text in texts:
            self.own_hashes.add(_hash(text))
            if self.lsh is not None:
                self.lsh.insert(len(self.texts), next(sketches([text])), check_duplication=False)
            self.texts.append(text)

    def holds(self, text: str) -> bool:
        """Whether the very same text is known."""
        key = _hash(text)
        place = int(np.searchsorted(self.hashes_N, np.uint64(key)))
        return key in self.own_hashes or (
            place < len(self.hashes_N) and int(self.hashes_N[place]) == key
        )

    def holds_similar(self, text: str) -> bool:
        """Whether a known text has a Jaccard index of `similarity` or more with this one."""
        if self.lsh is None:
            return False
        own = shingle_hashes(text)
        found = self.lsh.query(next(sketches([text])))
        return any(
            jaccard(own, shingle_hashes(self.texts[index])) >= self.similarity - 1e-9
            for index in found
        )


def _hash(text: str) -> int:
    return int(
        hash_texts(pa.table({"text": [text], "text_pair": pa.array([None], pa.string())}))[0]
    )


class Agreement:
    """A second opinion: TF-IDF of words and word pairs with class-weighted logistic regression, fitted on real training rows alone."""

    def __init__(self, texts: list[str], label_ids_N: Ints) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        vectorizer = TfidfVectorizer(
            ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b"
        )
        self.model: Any = make_pipeline(
            vectorizer, LogisticRegression(class_weight="balanced", max_iter=1000)
        )
        self.model.fit(texts, label_ids_N)

    def of(self, text: str, label_id: int) -> tuple[float, bool]:
        """(probability of the class, whether it is the first choice)."""
        probabilities_C = self.model.predict_proba([text])[0]
        place = int(np.searchsorted(self.model.classes_, label_id))
        return float(probabilities_C[place]), bool(probabilities_C.argmax() == place)


def rows_to_learn_from(label_ids_N: Ints, keys_N: Hashes) -> Ints:
    """Sorted positions of at most MOST_ROWS_PER_CLASS rows of each class, whatever the order of the rows."""
    picked = []
    for label_id in np.unique(label_ids_N):
        members = np.flatnonzero(label_ids_N == label_id)
        picked.append(members[np.argsort(keys_N[members], kind="stable")][:MOST_ROWS_PER_CLASS])
    return np.sort(np.concatenate(picked))


@dataclass(frozen=True)
class Judge:
    """All filters in their order.

    Attributes:
        agreement: None where that filter is off.
        min_agreement: least probability, or None for 'must be the first choice'.
    """

    known: KnownTexts
    agreement: Agreement | None
    min_agreement: float | None

    def verdict(
        self, text: str, label_id: int, bounds: LengthBounds
    ) -> tuple[str | None, float | None]:
        """(reason of REASONS, or None where the text is kept; the classifier's probability of the class); a text kept becomes known."""
        reason = self._fault(text, bounds)
        chance = None
        if reason is None and self.agreement is not None:
            chance, first = self.agreement.of(text, label_id)
            if not (first if self.min_agreement is None else chance >= self.min_agreement):
                reason = "no agreement"
        if reason is None:
            self.known.add([text])
        return reason, chance

    def _fault(self, text: str, bounds: LengthBounds) -> str | None:
        if is_empty(text):
            return "empty"
        if is_refusal(text):
            return "refusal"
        if len(text) < bounds.shortest:
            return "too short"
        if len(text) > bounds.longest:
            return "too long"
        if is_repetitive(text):
            return "repetitive"
        if self.known.holds(text):
            return "exact duplicate"
        return "near duplicate" if self.known.holds_similar(text) else None
