"""Every shipped config trains for two steps, with a tiny model, and local rows for Hub data."""

import json
from pathlib import Path

import pytest
from conftest import ROOT

from trainer import load_config
from trainer.runs import training_run
from trainer.runs.startup import with_hardware_defaults

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
QUICK = ("quickstart", "sentiment_weighted")
"""Configs that `make test` trains; `make test-exhaustive` trains the others."""


def test_there_are_configs():
    assert {"frozen", "quickstart", "sentiment", "sentiment_weighted", "tactics", "topics"} <= {
        path.stem for path in CONFIGS
    }


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=() if path.stem in QUICK else pytest.mark.exhaustive, id=path.stem)
        for path in CONFIGS
    ],
)
def test_shipped_config_trains_for_two_steps(path, tiny_model, tweets, tactics, tmp_path):
    overrides = [
        f"model.name={tiny_model}",
        f"run.output_dir={tmp_path}",
        "training.max_steps=2",
        "training.eval_strategy=epoch",
        "model.max_length=32",
    ]
    overrides += [
        "data.limit=400",
        "training.per_device_train_batch_size=8",
        "balance.neighbours=1",
    ]
    if "tweet_eval" in path.read_text(encoding="utf-8"):
        overrides += [
            f"data.train={tweets}",
            "data.validation=null",
            f"data.test={tweets}",
            "data.label_column=sentiment",
            "data.clean.leakage=false",
        ]
    if path.stem == "tactics":
        (tmp_path / "tactics.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in tactics), encoding="utf-8"
        )
        overrides += [f"data.source={tmp_path}/tactics.jsonl"]
    config = load_config(str(path), overrides)
    folder = training_run.train(config)
    metrics = json.loads((Path(folder) / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["training"]["steps"] == (
        10 if config.model.mode == "head" else 2
    )  # of each of five fits
    assert 0 <= metrics["test"]["macro_f1"] <= 1
    assert load_config(str(folder / "config.yaml")) == with_hardware_defaults(config)
