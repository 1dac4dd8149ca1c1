"""Token ids of texts from those of their words, for tokenizers that never look across a space.

Legend: N texts, W different words, P words of all texts in their places, T tokens of all texts.
"""

from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Ints

MOST_CHARACTERS = 10_000_000
"""Of the words whose tokens are kept for later batches; with their places about 150 MB."""
WORDS_PER_TEXT = 200


class WordTokens:
    """Tokenises each word once, whatever the number of texts that hold it: the same ids as the tokenizer's, several times faster.

    What stands between two spaces counts as a word. Words come back all the time, so of 20,000 texts of 20 words fewer than a
    tenth are new.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.backend = tokenizer.backend_tokenizer
        self.start, self.end = _special_ids(self.backend)
        self._forget()

    def _forget(self) -> None:
        self.places: dict[str, int] = {}
        self.num_characters = 0
        self.ids, self.ends_W1 = np.zeros(0, np.int32), np.zeros(1, np.int64)

    def encode(self, texts: pa.Array, max_length: int) -> tuple[NDArray[np.int32], Ints, Ints]:
        """Token ids of all texts one after the other, each cut at `max_length`; its length (N,), and as it was before (N,)."""
        words = pc.split_pattern(texts, " ")
        words_of_P = words.flatten().dictionary_encode()
        places_W = self._places(words_of_P.dictionary.to_pylist())
        places_P = places_W[words_of_P.indices.to_numpy()]
        sizes_P = np.diff(self.ends_W1)[places_P]
        ends_N1 = np.r_[0, np.cumsum(sizes_P)][words.offsets.to_numpy() - words.offsets[0].as_py()]
        whole_N = np.diff(ends_N1)
        ids_T = self.ids[_ranges(self.ends_W1[places_P], sizes_P)]
        kept_N = np.minimum(whole_N, max_length - len(self.start) - len(self.end))
        kept_T = _ranges(ends_N1[:-1], kept_N)
        lengths_N = kept_N + len(self.start) + len(self.end)
        out, starts_N = np.empty(lengths_N.sum(), np.int32), np.cumsum(lengths_N) - lengths_N
        out[_ranges(starts_N + len(self.start), kept_N)] = ids_T[kept_T]
        for position, token in enumerate(self.start):
            out[starts_N + position] = token
        for position, token in enumerate(self.end):
            out[starts_N + len(self.start) + kept_N + position] = token
        return out, lengths_N, whole_N + len(self.start) + len(self.end)

    def _places(self, words: list[str]) -> Ints:
        """Where each word stands among the known ones; new ones are tokenised."""
        if self.num_characters > MOST_CHARACTERS:
            self._forget()
        new = [word for word in words if word not in self.places]
        if new:
            ids, sizes = self._tokens(new)
            self.ids = np.r_[self.ids, ids]
            self.ends_W1 = np.r_[self.ends_W1, self.ends_W1[-1] + np.cumsum(sizes)]
            self.num_characters += sum(map(len, new))
            self.places.update(
                zip(new, range(len(self.places), len(self.places) + len(new)), strict=True)
            )
        return np.fromiter(map(self.places.__getitem__, words), np.int64, len(words))

    def _tokens(self, words: list[str]) -> tuple[NDArray[np.int32], Ints]:
        """Token ids of all words, and how many each has; many words go as one text, three times as fast as one by one."""
        texts = [
            words[start : start + WORDS_PER_TEXT] for start in range(0, len(words), WORDS_PER_TEXT)
        ]
        encodings = untouched(self.backend).encode_batch(
            [" ".join(text) for text in texts], add_special_tokens=False
        )
        sizes = []
        for text, encoding in zip(texts, encodings, strict=True):
            ends = np.cumsum([len(word) + 1 for word in text])
            starts = np.fromiter((start for start, _ in encoding.offsets), np.int64, len(encoding))
            sizes.append(
                np.bincount(np.searchsorted(ends, starts, side="right"), minlength=len(text))
            )
        return np.fromiter(
            chain.from_iterable(encoding.ids for encoding in encodings), np.int32
        ), np.concatenate(sizes)


def _ranges(starts: Ints, sizes: Ints) -> Ints:
    """start, start + 1, ... of each start, as many as its size, one after the other."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) + np.repeat(starts - (ends - sizes), sizes)


def splits_at_spaces(tokenizer: Any) -> bool:
    """Whether a text's token ids are those of what stands between its spaces: BERT's normalizer, pre-tokenizer and WordPiece.

    They judge each character by itself (accents, by the marks behind it) and no word spans a space. Special tokens must not hold or
    swallow spaces, and stand around the text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return False
    kinds = [
        type(part).__name__ for part in (backend.normalizer, backend.pre_tokenizer, backend.model)
    ]
    if (
        kinds != ["BertNormalizer", "BertPreTokenizer", "WordPiece"]
        or tokenizer.truncation_side != "right"
        or tokenizer.split_special_tokens
    ):
        return False
    if any(
        " " in token.content or token.lstrip or token.rstrip
        for token in backend.get_added_tokens_decoder().values()
    ):
        return False
    start, end = _special_ids(backend)
    probe = backend.encode("a")
    return probe.ids == [
        *start,
        *backend.encode("a", add_special_tokens=False).ids,
        *end,
    ] and not any(probe.type_ids)


def _special_ids(backend: Any) -> tuple[list[int], list[int]]:
    """Special tokens before and behind a text."""
    probe = untouched(backend).encode("a")
    own = [
        position for position, is_special in enumerate(probe.special_tokens_mask) if not is_special
    ]
    return probe.ids[: own[0]], probe.ids[own[-1] + 1 :]


def untouched(backend: Any) -> Any:
    """The backend without the cutting and padding that its file, or the last call of the tokenizer, has left on; each call sets both anew."""
    backend.no_truncation()
    backend.no_padding()
    return backend
