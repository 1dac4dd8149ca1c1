"""A model with Python code of its own: run only if the config allows it, and saved with it."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file

from trainer import Classifier, load_config
from trainer.errors import ModelError
from trainer.runs.training_run import check

pytestmark = pytest.mark.slow

CONFIGURATION = """
import os
from pathlib import Path

from transformers import PretrainedConfig

Path(os.environ["RAN"]).touch()


class OwnConfig(PretrainedConfig):
    model_type = "own_bag_of_words"

    def __init__(self, vocab_size=8000, hidden_size=8, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size, self.hidden_size = vocab_size, hidden_size
"""
MODELING = """
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput

from .configuration_own import OwnConfig


class OwnModel(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "own"

    def __init__(self, config):
        super().__init__(config)
        self.words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.post_init()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, attention_mask=None, **kwargs):
        return BaseModelOutput(last_hidden_state=self.words(input_ids))


class OwnForSequenceClassification(PreTrainedModel):
    config_class = OwnConfig
    base_model_prefix = "own"

    def __init__(self, config):
        super().__init__(config)
        self.own = OwnModel(config)
        self.head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    def forward(self, input_ids, attention_mask=None, labels=None, **kwargs):
        states = self.own(input_ids).last_hidden_state * attention_mask[..., None]
        means = states.sum(1) / attention_mask.sum(1, keepdim=True)
        return SequenceClassifierOutput(logits=self.head(means))
"""
PREDICT = """
import json, sys
from transformers import pipeline
from trainer import Classifier
texts = ["a lovely day", "rain again"]
ours = Classifier.load(sys.argv[1], trust_remote_code=True).predict(texts)
pipe = pipeline("text-classification", f"{sys.argv[1]}/model", trust_remote_code=True, top_k=None)
plain = pipe(texts)
print(json.dumps([[one.probabilities, scores] for one, scores in zip(ours, plain, strict=True)]))
"""
OWN = {
    "AutoConfig": "configuration_own.OwnConfig",
    "AutoModel": "modeling_own.OwnModel",
    "AutoModelForSequenceClassification": "modeling_own.OwnForSequenceClassification",
}
WORDS = "needs Python code that comes with it (auto_map), which runs only if you allow it."
REMEDY = "Read that code; if you trust it, set model.trust_remote_code: true."


@pytest.fixture
def folder(tiny_model, tmp_path, monkeypatch):
    """A model folder with its own code, which leaves a file where it was run."""
    monkeypatch.setenv("RAN", str(tmp_path / "ran"))
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "own"
    shutil.copytree(
        tiny_model, folder, ignore=shutil.ignore_patterns("config.json", "*.safetensors")
    )
    config = {
        "model_type": "own_bag_of_words",
        "auto_map": OWN,
        "vocab_size": 8000,
        "hidden_size": 8,
        "pad_token_id": 0,
    }
    for name, text in {
        "config.json": json.dumps(config),
        "configuration_own.py": CONFIGURATION,
        "modeling_own.py": MODELING,
    }.items():
        (folder / name).write_text(text, encoding="utf-8")
    torch.manual_seed(0)
    save_file(
        {"words.weight": torch.randn(8000, 8)},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    return folder


def test_own_code_is_not_run_and_the_message_names_the_key(folder, config_file, tmp_path):
    with pytest.raises(ModelError) as raised:
        check(load_config(config_file(model={"name": str(folder)})))
    assert str(raised.value) == f"model.name: '{folder}' {WORDS} {REMEDY}"
    with pytest.raises(ModelError, match=r"set trust_remote_code \(--trust-remote-code\)"):
        Classifier.load(folder)
    assert not (tmp_path / "ran").exists()


def test_own_code_without_a_classifier_is_told(folder, config_file, run_cli):
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["auto_map"]["AutoModelForSequenceClassification"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    done = run_cli(
        "train",
        "--config",
        config_file(model={"name": str(folder), "trust_remote_code": True}),
        "--check",
    )
    words = (
        "its own code (auto_map) has AutoConfig, AutoModel, but no "
        "AutoModelForSequenceClassification"
    )
    assert (done.returncode, words in done.stderr) == (2, True), done.stderr


@pytest.mark.exhaustive
def test_own_code_that_is_allowed_is_trained_saved_with_the_model_and_loaded(
    folder, config_file, tmp_path, run_cli
):
    config = config_file(
        model={"name": str(folder), "trust_remote_code": True}, training={"max_steps": 3}
    )
    checked = run_cli("train", "--config", config, "--check")
    assert (checked.returncode, checked.stdout.strip().endswith("are in order.")) == (0, True), (
        checked.stderr
    )
    done = run_cli("train", "--config", config)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").exists()
    saved = tmp_path / "runs/run/model"
    assert {"configuration_own.py", "modeling_own.py"} <= {path.name for path in saved.iterdir()}
    shutil.rmtree(folder)  # the saved model stands alone
    loaded = subprocess.run(
        [sys.executable, "-c", PREDICT, str(saved.parent)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    for ours, plain in json.loads(loaded.stdout.splitlines()[-1]):
        assert ours == pytest.approx({score["label"]: score["score"] for score in plain}, abs=1e-5)
