"""Texts that contain special tokens as characters."""

import csv
import json

import pytest
from model_folders import random_model, sentencepiece_model
from transformers import (
    AutoTokenizer,
    BartConfig,
    MBartConfig,
    RobertaTokenizer,
    T5Config,
    XLMRobertaConfig,
    pipeline,
)

from trainer import Classifier, load_config
from trainer.config.sections.model import ModelSection
from trainer.runs.training_run import train
from trainer.training.models.end_token import head_looks_for_end
from trainer.training.models.model import load_pretrained_config, load_tokenizer

pytestmark = pytest.mark.slow

END = "</s>"
WIDE = "\N{FULLWIDTH LESS-THAN SIGN}/s\N{FULLWIDTH GREATER-THAN SIGN}"
LITERAL = ["good </s> day", "</s>", "one</s>two</s>", f"a{WIDE}b", "</s> </s> </s>"]
SMALL = {
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
}


def bart(folder, tweets):
    """BART with the tokenizer of its kind: bytes, whose merges are learned from the tweets."""
    from tokenizers import ByteLevelBPETokenizer

    learned = ByteLevelBPETokenizer()
    with tweets.open(encoding="utf-8", newline="") as rows:
        learned.train_from_iterator(
            [row["text"] for row in csv.DictReader(rows)],
            400,
            special_tokens=["<s>", "<pad>", END, "<unk>", "<mask>"],
        )
    folder.mkdir()
    learned.save_model(str(folder))
    RobertaTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt")).save_pretrained(folder)
    return random_model(
        BartConfig(vocab_size=400, d_model=16, max_position_embeddings=64, **SMALL), folder
    )


def mbart(folder, tweets):
    sentencepiece_model(tweets, folder / "sentencepiece.bpe.model", unk_id=0, bos_id=1, eos_id=2)
    return random_model(
        MBartConfig(vocab_size=400, d_model=16, max_position_embeddings=64, **SMALL), folder
    )


def t5(folder, tweets):
    sentencepiece_model(tweets, folder / "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    return random_model(
        T5Config(
            vocab_size=500,
            d_model=16,
            d_ff=16,
            d_kv=8,
            num_layers=1,
            num_heads=2,
            decoder_start_token_id=0,
        ),
        folder,
    )


def xlm_roberta(folder, tweets):
    sentencepiece_model(tweets, folder / "sentencepiece.bpe.model", unk_id=0, bos_id=1, eos_id=2)
    size = {
        "vocab_size": 400,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    return random_model(XLMRobertaConfig(**size, max_position_embeddings=66), folder)


def loaded(folder):
    section = ModelSection(name=str(folder))
    config = load_pretrained_config(section)
    return load_tokenizer(section, config)[0], config


def test_heads_that_look_for_the_end_token_are_told_by_their_code():
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    looking = {
        kind
        for kind in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
        if head_looks_for_end(AutoConfig.for_model(kind), "")
    }
    assert {"bart", "mbart", "t5", "mt5", "umt5", "mvp", "plbart", "bigbird_pegasus"} <= looking
    assert (
        not {"bert", "roberta", "distilbert", "gpt2", "llama", "qwen2", "deberta-v2", "xlnet"}
        & looking
    )


@pytest.mark.parametrize("make", [bart, mbart, t5])
def test_an_end_token_in_a_text_is_read_as_characters_here_and_after_saving(make, tmp_path, tweets):
    folder = make(tmp_path / "model", tweets)
    plain = AutoTokenizer.from_pretrained(folder)
    tokenizer, config = loaded(folder)
    assert any(
        plain(text)["input_ids"].count(config.eos_token_id)
        != plain("a")["input_ids"].count(config.eos_token_id)
        for text in LITERAL
    )
    tokenizer.save_pretrained(tmp_path / "saved")
    config.save_pretrained(tmp_path / "saved")
    for reader in (
        tokenizer,
        AutoTokenizer.from_pretrained(tmp_path / "saved"),
        loaded(tmp_path / "saved")[0],
    ):
        assert {reader(text)["input_ids"].count(config.eos_token_id) for text in LITERAL} == {
            plain("a")["input_ids"].count(config.eos_token_id)
        }
        assert reader("good day, all")["input_ids"] == plain("good day, all")["input_ids"]
        assert reader("one", "two")["input_ids"] == plain("one", "two")["input_ids"]
        assert reader(LITERAL)["input_ids"] == tokenizer(LITERAL)["input_ids"]


def test_a_tokenizer_whose_head_does_not_look_for_it_is_left_alone(tmp_path, tweets):
    folder = xlm_roberta(tmp_path / "model", tweets)
    tokenizer, plain = loaded(folder)[0], AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is type(plain)
    assert not tokenizer.split_special_tokens
    assert tokenizer(LITERAL)["input_ids"] == plain(LITERAL)["input_ids"]


@pytest.fixture
def with_literals(tweets, tmp_path):
    """The tweets, a quarter of them with an end token in their text, some with two."""
    path = tmp_path / "literal.csv"
    with (
        tweets.open(encoding="utf-8", newline="") as source,
        path.open("w", encoding="utf-8", newline="") as target,
    ):
        rows = csv.writer(target)
        rows.writerow(["text", "sentiment"])
        for number, row in enumerate(csv.DictReader(source)):
            ending = {0: " </s>", 4: " </s> [SEP] </s>"}.get(number % 8, "")
            rows.writerow([row["text"] + ending, row["sentiment"]])
    return path


@pytest.mark.parametrize("make", [bart, t5])
def test_training_and_pipeline_agree_on_texts_that_hold_the_end_token(
    make, config_file, with_literals, tmp_path, tweets, capsys
):
    folder = make(tmp_path / "model", tweets)
    sections = {
        "model": {"name": str(folder), "max_length": 48},
        "data": {"source": str(with_literals)},
        "training": {"max_steps": 2},
    }
    run = train(load_config(config_file(**sections)))
    counted = json.loads((run / "metrics.json").read_text())["special_tokens"]
    assert set(counted) == {"train", "validation", "test"}
    words = (
        "Rows whose text contains special tokens of the model (</s>), which are read as "
        "ordinary text:"
    )
    assert f"{words} {counted['train']:,} of train" in capsys.readouterr().out
    ours, plain = (
        Classifier.load(run),
        pipeline("text-classification", str(run / "model"), top_k=None),
    )
    for text, found in zip(LITERAL, ours.predict(LITERAL), strict=True):
        scores = {score["label"]: score["score"] for score in plain([text])[0]}
        assert found.probabilities == pytest.approx(scores, abs=1e-5)
    assert ours.probabilities(LITERAL)[1] == pytest.approx(ours.probabilities(LITERAL[1]), abs=1e-5)


def test_elsewhere_rows_that_hold_special_tokens_are_counted_and_told(
    config_file, with_literals, capsys
):
    run = train(
        load_config(config_file(data={"source": str(with_literals)}, training={"max_steps": 1}))
    )
    counted = json.loads((run / "metrics.json").read_text())["special_tokens"]
    told = (
        f"Rows whose text contains special tokens of the model ([SEP]), which are read as "
        f"those tokens: {counted['train']:,} of train"
    )
    assert told in capsys.readouterr().out
    assert told in (run / "report.html").read_text(encoding="utf-8")
    assert told.replace("[SEP]", r"\[SEP\]") in (run / "README.md").read_text(encoding="utf-8")
    with with_literals.open(encoding="utf-8") as rows:
        assert 0 < sum(counted.values()) <= sum("[SEP]" in row for row in rows)


@pytest.mark.parametrize("make", [bart, t5])
def test_texts_and_pairs_in_one_request_do_not_fail_together(make, tmp_path, tweets):
    from transformers import AutoModelForSequenceClassification

    folder = make(tmp_path / "model", tweets)
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3).save_pretrained(folder)
    classifier = Classifier.load(folder)
    texts = ["one", {"text": "one", "text_pair": "two"}, "three"]
    together = classifier.probabilities(texts)
    for text, p_C in zip(texts, together, strict=True):
        assert classifier.probabilities(text) == pytest.approx(p_C, abs=1e-5)
