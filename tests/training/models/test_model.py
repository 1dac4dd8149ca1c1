import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    DistilBertConfig,
    GPT2Config,
    RobertaConfig,
)

from trainer.config.sections.model import ModelSection
from trainer.training.models import positions
from trainer.training.models.layers import fold_into_head
from trainer.training.models.model import load_model, load_pretrained_config, load_tokenizer
from trainer.training.models.positions import position_limit


def load(folder, labels):
    section = ModelSection(name=str(folder))
    config = load_pretrained_config(section)
    tokenizer, max_length = load_tokenizer(section, config)
    return load_model(section, config, labels, tokenizer, max_length)


def marked(tiny_model, folder, labels):
    """A classifier for some labels whose head is all sevens."""
    model = load(tiny_model, labels)
    torch.nn.init.constant_(model.classifier.weight, 7.0)
    model.save_pretrained(folder)
    load_tokenizer(ModelSection(name=str(tiny_model)), model.config)[0].save_pretrained(folder)
    return folder


def test_head_for_the_same_labels_is_kept(tiny_model, tmp_path):
    model = load(marked(tiny_model, tmp_path, ["a", "b", "c"]), ["a", "b", "c"])
    assert (model.classifier.weight == 7).all()


def test_head_for_other_labels_of_the_same_number_or_another_order_is_drawn_anew(
    tiny_model, tmp_path
):
    folder = marked(tiny_model, tmp_path, ["a", "b", "c"])
    for labels in (["x", "y", "z"], ["c", "b", "a"], ["a", "b"]):
        model = load(folder, labels)
        assert model.classifier.weight.abs().max() < 1
        assert [model.config.id2label[i] for i in range(len(labels))] == labels


def test_weights_are_float32_and_labels_stand_in_the_config(tiny_model, tmp_path):
    load(tiny_model, ["neg", "pos"]).to(torch.bfloat16).save_pretrained(tmp_path)
    load_tokenizer(
        ModelSection(name=str(tiny_model)),
        load_pretrained_config(ModelSection(name=str(tiny_model))),
    )[0].save_pretrained(tmp_path)
    model = load(tmp_path, ["neg", "pos"])
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.config.label2id == {"neg": 0, "pos": 1}


def test_roberta_positions_start_after_the_padding_id():
    from transformers import BertConfig, RobertaConfig

    assert position_limit(RobertaConfig(max_position_embeddings=514, pad_token_id=1)) == 512
    assert position_limit(BertConfig(max_position_embeddings=512)) == 512


def test_decoder_without_padding_token_is_trained_and_saved_with_one(
    tiny_model, config_file, tmp_path, tweets
):
    import json

    from transformers import AutoTokenizer, Qwen2Config, Qwen2Model, pipeline

    from trainer import load_config
    from trainer.runs.training_run import train

    tokenizer = AutoTokenizer.from_pretrained(str(tiny_model))
    tokenizer.eos_token, tokenizer.pad_token = "[SEP]", None
    folder = tmp_path / "decoder"
    size = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    Qwen2Model(Qwen2Config(vocab_size=len(tokenizer), **size)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    run = train(load_config(config_file(model={"name": str(folder)}), ["training.max_steps=3"]))
    assert json.loads((run / "metrics.json").read_text())["test"]["num_rows"] > 0
    assert (
        AutoModelForSequenceClassification.from_pretrained(run / "model").config.pad_token_id
        == tokenizer.sep_token_id
    )
    assert pipeline("text-classification", str(run / "model"))(["one", "two words"])[0][
        "label"
    ] in ("negative", "neutral", "positive")


SMALL = {"vocab_size": 50, "num_labels": 3, "id2label": {0: "a", 1: "b", 2: "c"}}
SHAPES = [
    DistilBertConfig(**SMALL, dim=16, n_heads=2, n_layers=1, hidden_dim=16),
    RobertaConfig(
        **SMALL, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=16
    ),
]


@pytest.mark.parametrize("config", SHAPES, ids=lambda config: config.model_type)
def test_temperature_and_shift_fold_into_the_last_layer(config):
    torch.manual_seed(0)
    model, ids = (
        AutoModelForSequenceClassification.from_config(config).eval(),
        torch.randint(5, 50, (4, 7)),
    )
    before, shift = model(input_ids=ids).logits, np.array([0.3, -1.0, 2.0])
    assert fold_into_head(model, 1.7, shift)
    torch.testing.assert_close(
        model(input_ids=ids).logits, before / 1.7 + torch.tensor(shift, dtype=torch.float32)
    )


def test_a_last_layer_without_bias_is_left_alone():
    model = AutoModelForSequenceClassification.from_config(
        GPT2Config(**SMALL, n_embd=16, n_head=2, n_layer=1, pad_token_id=0)
    ).eval()
    before = model.score.weight.clone()
    assert not fold_into_head(model, 2.0, np.ones(3))
    assert torch.equal(model.score.weight, before)


@pytest.mark.parametrize("name", ["decision", "train_rows"])
def test_what_an_earlier_training_recorded_is_forgotten(tiny_model, tmp_path, name):
    model = load(tiny_model, ["a", "b"])
    setattr(model.config, name, {"thresholds": {"a": 0.1, "b": 0.9}})
    model.save_pretrained(tmp_path)
    load_tokenizer(ModelSection(name=str(tiny_model)), model.config)[0].save_pretrained(tmp_path)
    assert not hasattr(load(tmp_path, ["a", "b"]).config, name)


def test_position_limit_is_measured_once_for_each_architecture_whatever_its_labels(monkeypatch):
    measured = []
    monkeypatch.setattr(positions, "_sizes_by_architecture", {})
    monkeypatch.setattr(
        positions, "_sizes_of_position_tables", lambda *_: measured.append(1) or [9]
    )
    config = RobertaConfig(**SMALL, max_position_embeddings=12)
    assert position_limit(config) == 9
    config.id2label, config.problem_type = {0: "x", 1: "y"}, "single_label_classification"
    assert position_limit(config) == 9
    assert len(measured) == 1
    config.max_position_embeddings = 8
    assert position_limit(config) == 8
    assert len(measured) == 2
