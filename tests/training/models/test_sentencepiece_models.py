"""Models with a SentencePiece tokenizer and no tokenizer.json: DeBERTa-v3, XLM-R, T5."""

import csv
import json

import pytest
import sentencepiece
from model_folders import random_model, sentencepiece_model
from transformers import DebertaV2Config, T5Config, XLMRobertaConfig, pipeline

from trainer import load_config
from trainer.config.sections.model import ModelSection
from trainer.errors import ModelError
from trainer.runs.training_run import check, train
from trainer.training.models.model import load_pretrained_config, load_tokenizer

SIZE = {
    "vocab_size": 400,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
DEBERTA_PIECES = {
    "pad_id": 0,
    "bos_id": 1,
    "eos_id": 2,
    "unk_id": 3,
    "bos_piece": "[CLS]",
    "eos_piece": "[SEP]",
    "unk_piece": "[UNK]",
}
DEBERTA = (DebertaV2Config(**SIZE), "spm.model", DEBERTA_PIECES, lambda ids: [1, *ids, 2])
XLM_R = (
    XLMRobertaConfig(**SIZE, max_position_embeddings=66),
    "sentencepiece.bpe.model",
    {"unk_id": 0, "bos_id": 1, "eos_id": 2},
    lambda ids: [
        0,
        *(3 if number == 0 else number + 1 for number in ids),
        2,
    ],  # <s> <pad> </s> <unk> stand first
)
T5 = (
    T5Config(vocab_size=500, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2),
    "spiece.model",
    {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    lambda ids: [*ids, 1],
)


def folder_of(kind, folder, tweets):
    config, name, pieces, _ = kind
    sentencepiece_model(tweets, folder / name, **pieces)
    return random_model(config, folder)


@pytest.mark.parametrize("kind", [DEBERTA, XLM_R, T5], ids=["deberta", "xlm_roberta", "t5"])
def test_token_ids_are_those_of_sentencepiece(kind, tmp_path, tweets):
    section = ModelSection(name=str(folder_of(kind, tmp_path, tweets)))
    tokenizer, _ = load_tokenizer(section, load_pretrained_config(section))
    reference, as_model = (
        sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / kind[1])),
        kind[3],
    )
    with tweets.open(encoding="utf-8", newline="") as rows:
        texts = [row["text"].strip() for row in csv.DictReader(rows)]
    assert [tokenizer(text)["input_ids"] for text in texts] == [
        as_model(reference.encode(text)) for text in texts
    ]


def test_a_model_with_spm_model_alone_is_checked_trained_and_saved(config_file, tmp_path, tweets):
    folder = folder_of(DEBERTA, tmp_path / "deberta", tweets)
    config = load_config(config_file(model={"name": str(folder)}), ["training.max_steps=2"])
    check(config)
    run = train(config)
    assert json.loads((run / "metrics.json").read_text())["test"]["num_rows"] > 0
    assert pipeline("text-classification", str(run / "model"))("one")[0]["label"] in (
        "negative",
        "neutral",
        "positive",
    )


def test_a_damaged_spm_model_is_told(tmp_path, tweets):
    folder = folder_of(DEBERTA, tmp_path, tweets)
    (folder / "spm.model").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    section = ModelSection(name=str(folder))
    with pytest.raises(
        ModelError,
        match=r"spm\.model is no SentencePiece model: it is a Git LFS pointer\. Run git lfs pull",
    ):
        load_tokenizer(section, load_pretrained_config(section))
