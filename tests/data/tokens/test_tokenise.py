import numpy as np
import pyarrow as pa
import pytest

from trainer.data.summary import summarise_lengths
from trainer.data.tokens.tokenise import IGNORED, PADDING, takes_pairs, tokenise
from trainer.data.tokens.tokenizer_digest import tokenizer_digest

TEXTS = ["good film", "a much longer text that will not fit into so few tokens", "", "ok"]
LABEL_IDS = np.array([1, 0, 1, 0])


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def tokens(tmp_path, tokenizer):
    """Function (texts, pairs) -> TokenisedRows, cut at 8 tokens unless told."""

    def make(
        texts=TEXTS, pairs=None, rows=None, max_length=8, fingerprint="f", tokenizer=tokenizer
    ):
        table = pa.table(
            {
                "text": pa.array(texts, pa.string()),
                "text_pair": pa.array(pairs or [None] * len(texts), pa.string()),
            }
        )
        ids = np.arange(len(texts)) if rows is None else np.array(rows)
        return tokenise(
            table,
            ids,
            LABEL_IDS[ids % 4],
            tokenizer,
            max_length=max_length,
            fingerprint=fingerprint,
            cache_dir=tmp_path / "cache",
        )

    return make


def test_ids_equal_those_of_the_tokenizer(tokens, tokenizer):
    rows = tokens()
    assert [rows[i]["input_ids"] for i in range(4)] == [
        tokenizer(text, truncation=True, max_length=8)["input_ids"] for text in TEXTS
    ]
    assert [rows[i]["labels"] for i in range(4)] == [1, 0, 1, 0]
    assert len(rows) == 4


def test_rows_come_in_the_order_asked_for(tokens, tokenizer):
    rows = tokens(rows=[3, 0])
    assert [rows[i]["input_ids"] for i in range(2)] == [
        tokenizer(TEXTS[i])["input_ids"] for i in (3, 0)
    ]
    assert [rows[i]["labels"] for i in range(2)] == [0, 1]


def test_rows_beyond_one_batch_are_tokenised(tokens, tokenizer):
    rows = tokens(rows=[0] * 2000 + [1, 3])
    assert len(rows) == 2002
    assert rows[2001]["input_ids"] == tokenizer("ok")["input_ids"]


def test_truncation_is_counted(tokens):
    rows = tokens()
    assert rows.truncated_N.tolist() == [False, True, False, False]
    assert rows.lengths_N.tolist() == [4, 8, 2, 3]  # with [CLS] and [SEP]
    assert tokens(max_length=64).truncated_N.tolist() == [False] * 4
    lengths = summarise_lengths(rows)
    whole = tokens(max_length=64).lengths_N
    assert (lengths.median, lengths.longest, lengths.truncated_ratio) == (
        3.5,
        whole.max(),
        0.25,
    )  # as they were before cutting


def test_text_that_just_fits_is_not_truncated(tokens):
    assert tokens(["good film"], max_length=4).truncated_N.tolist() == [False]
    assert tokens(["good film"], max_length=3).truncated_N.tolist() == [True]


def test_pairs_get_token_type_ids(tokens, tokenizer):
    rows = tokens(["good film"], ["very bad"])
    expected = tokenizer("good film", "very bad")
    assert rows[0]["input_ids"] == expected["input_ids"]
    assert rows[0]["token_type_ids"] == expected["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    assert "attention_mask" not in rows[0]


def test_pair_that_is_cut_counts_as_truncated(tokens):
    rows = tokens(["good film", "good"], ["very long and very bad and more", "bad"])
    assert rows.truncated_N.tolist() == [True, False]
    assert rows.lengths_N.tolist() == [8, 5]


def test_missing_half_of_a_pair_is_an_empty_text(tokens, tokenizer):
    rows = tokens([None, "good"], ["bad", ""])
    assert [rows[i]["input_ids"] for i in range(2)] == tokenizer(["", "good"], ["bad", ""])[
        "input_ids"
    ]


def test_text_without_a_second_one_among_pairs_is_a_pair_in_every_batch(tokens, tokenizer):
    rows = tokens(["good"] * 2001, [None] * 2000 + ["bad"], rows=[0] * 2000 + [2000])
    assert [rows[i]["input_ids"] for i in (0, 2000)] == tokenizer(["good", "good"], ["", "bad"])[
        "input_ids"
    ]


def test_tokenizer_without_a_mark_between_pairs_gets_them_as_two_lines(tokens):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.WordLevel({"?": 0, "good": 1, "bad": 2, "\n": 3}, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("\n", "isolated")
    plain = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="?", model_input_names=["input_ids", "attention_mask"]
    )
    assert not takes_pairs(plain)
    rows = tokens(["good"], ["bad"], tokenizer=plain)
    assert rows[0] == {"input_ids": [1, 3, 2], "labels": 1}


def test_bert_takes_pairs(tokenizer):
    assert takes_pairs(tokenizer)


def test_padding_index_gives_a_row_that_counts_nothing(tokens):
    rows = tokens()
    assert (PADDING, IGNORED) == (-1, -100)  # -100 is what torch's cross_entropy leaves out
    assert rows[PADDING]["labels"] == IGNORED
    assert rows[PADDING]["input_ids"] == rows[0]["input_ids"]


def files(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_second_time_comes_from_the_cache(tokens, tmp_path, tokenizer):
    first = tokens()
    written = files(tmp_path / "cache")
    tokenizer(
        "something else", truncation=True, max_length=3, padding="max_length"
    )  # leaves its mark on the tokenizer, none on its work
    second = tokens()
    assert files(tmp_path / "cache") == written
    assert [first[i] for i in range(4)] == [second[i] for i in range(4)]
    assert second.truncated_N.tolist() == first.truncated_N.tolist()
    assert not [name for name in written if "partial" in name]


@pytest.mark.parametrize(
    "change", [{"max_length": 5}, {"rows": [1, 0]}, {"fingerprint": "g"}], ids=str
)
def test_cache_is_not_used_where_the_outcome_may_differ(tokens, tmp_path, change):
    tokens(rows=[0, 1])
    written = files(tmp_path / "cache")
    tokens(**{"rows": [0, 1]} | change)
    assert len(files(tmp_path / "cache")) == 2 * len(written)


def test_digest_changes_with_the_vocabulary_and_not_with_the_folder(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path / "copy")
    copy = AutoTokenizer.from_pretrained(tmp_path / "copy")
    assert tokenizer_digest(copy) == tokenizer_digest(tokenizer)
    copy.add_tokens(["neverseen"])
    assert tokenizer_digest(copy) != tokenizer_digest(tokenizer)
