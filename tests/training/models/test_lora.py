"""Low-rank adapters: what is trained, resuming, and the ordinary model they become."""

import csv
import hashlib
import json

import pyarrow.parquet as pq
import pytest
import torch
from encoders import ENCODERS
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from trainer import load_config
from trainer.config.sections.model import LoraSection, ModelSection
from trainer.errors import ModelError
from trainer.runs import training_run as story
from trainer.training.models.model import load_model, load_pretrained_config, load_tokenizer
from trainer.training.run_trainer import RunTrainer

pytestmark = pytest.mark.slow

LORA = {"r": 4, "alpha": 8.0}


@pytest.fixture
def lora_config(config_file):
    """Function (*overrides, **sections) -> Config of a two-epoch LoRA run."""

    def make(*overrides, name="config.yaml", **sections):
        training = {"num_train_epochs": 2, "learning_rate": 1e-3}
        return load_config(
            config_file(
                name,
                model={"mode": "lora", "lora": LORA} | sections.pop("model", {}),
                training=training,
                **sections,
            ),
            overrides,
        )

    return make


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_merged_model_is_an_ordinary_one_with_the_reported_figures(
    lora_config, tweets, tiny_model, capsys
):
    run = story.train(lora_config("loss.class_weights=balanced", "training.bf16=true"))
    table = pq.read_table(run / "predictions.parquet").to_pandas()
    with tweets.open(encoding="utf-8", newline="") as file:
        texts = [row["text"].strip() for row in csv.DictReader(file)]
    found = pipeline("text-classification", str(run / "model"), top_k=None)(
        [texts[row] for row in table["row"]], truncation=True
    )
    for label in ("negative", "neutral", "positive"):
        assert [{f["label"]: f["score"] for f in row}[label] for row in found] == pytest.approx(
            table[f"probability_{label}"].tolist(), abs=1e-4
        )
    test = table[table["split"] == "test"]
    assert json.loads((run / "metrics.json").read_text())["test"]["accuracy"] == pytest.approx(
        (test["predicted"] == test["label"]).mean()
    )
    assert not [
        name
        for name in AutoModelForSequenceClassification.from_pretrained(run / "model").state_dict()
        if "lora" in name
    ]
    assert sorted(path.name for path in (run / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]

    base = AutoModelForSequenceClassification.from_pretrained(str(tiny_model), num_labels=3)
    adapted = PeftModel.from_pretrained(base, run / "adapter").eval()
    inputs = AutoTokenizer.from_pretrained(run / "model")(
        texts[:4], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        merged = AutoModelForSequenceClassification.from_pretrained(run / "model")(**inputs).logits
        assert torch.allclose(adapted(**inputs).logits, merged, atol=1e-5)
    # 2 layers x (query, key, value, output: 4 x 4 x (384 + 384); two of 384 and 1536:
    # 2 x 4 x (384 + 1536)), the pooler's adapter, 3 x 385 of the head
    assert "model.mode lora: 59,523 of " in capsys.readouterr().out
    card = (run / "README.md").read_text(encoding="utf-8")
    assert (
        "lora (r 4, alpha 8, dropout 0.05) on every linear layer of the encoder; merged "
        "into the model"
    ) in card
    assert "trained parameters: 59,523 of" in card


def test_run_stopped_after_an_epoch_resumes_to_the_weights_and_table_of_the_unbroken_run(
    lora_config, tmp_path, monkeypatch, capsys
):
    unbroken = story.train(lora_config(f"run.output_dir={tmp_path}/a"))
    save = RunTrainer._save_checkpoint

    def save_and_stop(self, *arguments):
        save(self, *arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(RunTrainer, "_save_checkpoint", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        story.train(lora_config(f"run.output_dir={tmp_path}/b"))
    monkeypatch.undo()
    resumed = story.train(lora_config(f"run.output_dir={tmp_path}/b"))
    assert "Resuming from" in capsys.readouterr().out
    assert (resumed / "epochs.csv").read_text() == (unbroken / "epochs.csv").read_text()
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert digest(resumed / name) == digest(unbroken / name)


@pytest.mark.parametrize("kind", ENCODERS)
def test_adapters_sit_in_the_encoder_and_what_is_new_is_trained_in_full(kind, encoders):
    section = ModelSection(name=encoders(kind), mode="lora")
    config = load_pretrained_config(section)
    tokenizer, max_length = load_tokenizer(section, config)
    model = load_model(section, config, ["a", "b", "c"], tokenizer, max_length)
    plain = load_model(
        ModelSection(name=encoders(kind)), config, ["a", "b", "c"], tokenizer, max_length
    )
    new = {
        "bert_without_pooler": {"bert.pooler.dense", "classifier"},
        "distilbert": {"pre_classifier", "classifier"},
    }
    new |= {
        "roberta": {"classifier.dense", "classifier.out_proj"},
        "modernbert": {"head.dense", "head.norm", "classifier"},
    }
    new |= {"bert": {"classifier"}, "gpt2": {"score"}, "llama": {"score"}}
    in_full = {n for n, p in model.named_parameters() if p.requires_grad and "lora_" not in n}
    wanted = {n for n, _ in plain.named_parameters() if n.rpartition(".")[0] in new[kind]}
    assert {
        n.removeprefix("base_model.model.").replace("modules_to_save.default.", "") for n in in_full
    } == wanted
    adapted = [n for n, p in model.named_parameters() if "lora_A" in n]
    assert adapted
    assert not [n for n in adapted if any(f".{part}." in n for part in new[kind])]
    with torch.no_grad():  # a new adapter changes nothing
        inputs = {"input_ids": torch.tensor([[5, 6, 7, 8]])}
        before = model.eval()(**inputs).logits
        assert torch.allclose(model.merge_and_unload()(**inputs).logits, before, atol=1e-6)


def test_named_layers_alone_are_adapted_and_unknown_ones_are_told(tiny_model):
    def load(names):
        section = ModelSection(
            name=str(tiny_model), mode="lora", lora=LoraSection(target_modules=names)
        )
        config = load_pretrained_config(section)
        tokenizer, max_length = load_tokenizer(section, config)
        return load_model(section, config, ["a", "b"], tokenizer, max_length)

    adapted = {
        name.split(".lora_A")[0].rpartition(".")[2]
        for name, _ in load(["query", "value"]).named_parameters()
        if "lora_A" in name
    }
    assert adapted == {"query", "value"}
    with pytest.raises(
        ModelError,
        match=(
            r"q_proj is no linear layer of the encoder that LoRA can adapt here; known: dense, "
            r"key, query, value"
        ),
    ):
        load(["query", "q_proj"])
