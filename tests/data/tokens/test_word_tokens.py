import csv
from itertools import chain

import numpy as np
import pyarrow as pa
import pytest
from conftest import TWEETS
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from trainer.data.reading.locate import package_path
from trainer.data.tokens import word_tokens
from trainer.data.tokens.word_tokens import WordTokens, splits_at_spaces

AWKWARD = [
    "",
    " ",
    "a",
    "good",
    "GOOD,",
    "é",
    "e\u0301",
    "\u0301",
    "ß",
    "Σ",
    "İ",
    "中文",
    "😀",
    "\t",
    "\n",
    "\x1c",
    "\u2028",
    "\u00a0",
    "\x00",
]
AWKWARD += [
    "\u200d",
    "\ufffd",
    "[SEP]",
    "[CLS]x",
    "[sep]",
    "x[MASK]y",
    "##ing",
    "don't",
    "a" * 101,
    "https://a.b/c?d=e",
    "...",
    "\u0645\u064e",
]
AWKWARD += ["\uac00", "\u1100\u1161"]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def both(tokenizer, texts, max_length=12):
    """(ids, lengths, uncut lengths) by words and by the tokenizer itself."""
    ids, lengths, full = WordTokens(tokenizer).encode(pa.array(texts, pa.string()), max_length)
    expected = [
        tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts
    ]
    uncut = [len(tokenizer(text, truncation=False)["input_ids"]) for text in texts]
    return (ids.tolist(), lengths.tolist(), full.tolist()), (
        list(chain.from_iterable(expected)),
        [len(row) for row in expected],
        uncut,
    )


@pytest.mark.filterwarnings("ignore:Token indices")
@settings(deadline=None, max_examples=300, database=None)
@given(
    st.lists(
        st.lists(st.one_of(st.sampled_from(AWKWARD), st.text(max_size=6)), max_size=8).map(
            " ".join
        ),
        min_size=1,
        max_size=5,
    ),
    st.integers(2, 14),
)
def test_ids_by_words_are_those_of_the_tokenizer(tokenizer, texts, max_length):
    by_words, by_text = both(
        tokenizer, [text.encode("utf-8", "ignore").decode() for text in texts], max_length
    )
    assert by_words == by_text


def test_ids_of_real_tweets_are_those_of_the_tokenizer(tokenizer):
    with package_path(TWEETS).open(encoding="latin-1", newline="") as file:
        texts = [row["text"] for _, row in zip(range(2000), csv.DictReader(file), strict=False)]
    by_words, by_text = both(tokenizer, texts, 32)
    assert by_words == by_text


def test_no_text_at_all_gives_nothing(tokenizer):
    ids, lengths, full = WordTokens(tokenizer).encode(pa.array([], pa.string()), 8)
    assert (len(ids), len(lengths), len(full)) == (0, 0, 0)


def test_words_are_remembered_and_forgotten_beyond_the_bound(tokenizer, monkeypatch):
    monkeypatch.setattr(word_tokens, "MOST_CHARACTERS", 9)
    by_words = WordTokens(tokenizer)
    for texts, known in ([["good film"], 2], [["good day"], 3], [["bad film ok"], 3]):
        ids, _, _ = by_words.encode(pa.array(texts), 8)
        assert ids.tolist() == tokenizer(texts[0])["input_ids"]
        assert len(by_words.places) == known


def bert(normalizer=None, pre_tokenizer=None, template="[CLS] $A [SEP]", added=(), **options):
    backend = Tokenizer(
        models.WordPiece({"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, "a": 3, "b": 4}, unk_token="[UNK]")
    )
    backend.normalizer = normalizer or normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizer or pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.TemplateProcessing(
        single=template, pair=None, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    backend.add_special_tokens(["[CLS]", "[SEP]", *added])
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", **options)


@pytest.mark.parametrize(
    ("tokenizer", "splits"),
    [
        (bert(), True),
        (bert(template="$A"), True),
        (bert(template="[CLS] [CLS] $A [SEP]"), True),
        (bert(template="[CLS]:1 $A:0 [SEP]:0"), False),
        (bert(template="[CLS] $A [SEP] $A"), False),
        (bert(normalizer=normalizers.NFC()), False),
        (bert(pre_tokenizer=pre_tokenizers.Metaspace()), False),
        (bert(added=[AddedToken("a b")]), False),
        (bert(added=[AddedToken("<x>", lstrip=True)]), False),
        (bert(added=[AddedToken("<x>")]), True),
        (bert(truncation_side="left"), False),
        (bert(split_special_tokens=True), False),
        (object(), False),
    ],
)
def test_only_tokenizers_that_never_look_across_a_space_are_taken_apart(tokenizer, splits):
    assert splits_at_spaces(tokenizer) == splits
    if splits:
        by_words, by_text = both(tokenizer, ["a b  c", "", "ab <x> a [SEP]"], 4)
        assert by_words == by_text


def test_padding_and_truncation_of_the_saved_tokenizer_have_no_say(tokenizer):
    tokenizer.backend_tokenizer.enable_padding(length=16)
    tokenizer.backend_tokenizer.enable_truncation(3)
    assert splits_at_spaces(tokenizer)
    by_words, by_text = both(tokenizer, ["good film and more"], 64)
    assert by_words == by_text


def test_uncut_lengths_count_what_truncation_took(tokenizer):
    _, lengths, full = WordTokens(tokenizer).encode(pa.array(["good film", "a b c d e f g h"]), 6)
    assert np.array_equal(lengths, [4, 6])
    assert np.array_equal(full, [4, 10])
