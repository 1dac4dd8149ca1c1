"""Every config of configs/accelerate trains in as many processes as it says, on CPUs over gloo.

test_slurm_jobs.py tests multi_node.yaml.
"""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from transformers import AutoModel

from trainer.delivery.predicting.predict import Classifier
from trainer.errors import ConfigError
from trainer.training.sharding import fit_to_sharding

pytestmark = pytest.mark.slow

CONFIGS = sorted((ROOT / "configs/accelerate").glob("*.yaml"))
ACCELERATE = Path(sys.executable).with_name("accelerate")


def _launch(config, *arguments, script="scripts/train.py", options=()):
    command = [ACCELERATE, "launch", "--config_file", config, *options, script, *arguments]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def _without_dropout(tiny_model, folder):
    for file in tiny_model.iterdir():
        (folder / file.name).symlink_to(file)
    (folder / "config.json").unlink()
    dropout = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(
        json.dumps(json.loads((tiny_model / "config.json").read_text()) | dropout)
    )


def test_there_are_the_configs_of_the_readme():
    assert [path.stem for path in CONFIGS] == [
        "cpu",
        "fsdp2",
        "multi_gpu",
        "multi_node",
        "single_gpu",
    ]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_head_comment_gives_the_command_and_what_to_edit(path):
    head = path.read_text(encoding="utf-8").partition("\ncompute_environment")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert f"accelerate launch --config_file configs/accelerate/{path.name}" in head
    assert "Edit:" in head


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_accelerate_knows_every_key(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    known = {
        "fsdp_" + name
        for name in (
            "version",
            "auto_wrap_policy",
            "reshard_after_forward",
            "state_dict_type",
            "cpu_ram_efficient_loading",
        )
    }
    assert set(config.fsdp_config) <= known | {
        "fsdp_offload_params"
    }  # accelerate itself takes any key there
    assert config.num_processes >= 1


@pytest.mark.parametrize("name", ["cpu", pytest.param("single_gpu", marks=pytest.mark.exhaustive)])
def test_config_of_one_process_trains(name, config_file, tmp_path):
    done = _launch(
        ROOT / f"configs/accelerate/{name}.yaml",
        "--config",
        config_file(),
        "--set",
        "run.num_processes=1",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "runs/run/model/model.safetensors").is_file()


@pytest.mark.exhaustive
def test_two_processes_train_the_same_model_sharded_and_whole(config_file, tiny_model, tmp_path):
    from safetensors.numpy import load_file

    model = tmp_path / "model"
    model.mkdir()
    _without_dropout(tiny_model, model)
    config = config_file(
        model={"name": str(model)}, training={"num_train_epochs": 2, "learning_rate": 1e-4}
    )
    for name, script in (
        ("fsdp2", "tests/cluster/sharded_on_cpu.py"),
        ("multi_gpu", "scripts/train.py"),
    ):
        done = _launch(
            ROOT / f"configs/accelerate/{name}.yaml",
            "--config",
            config,
            "--set",
            f"run.name={name}",
            "--set",
            "run.num_processes=2",
            script=script,
        )
        assert done.returncode == 0, done.stderr[-3000:]
    sharded, whole = (
        load_file(tmp_path / f"runs/{name}/model/model.safetensors")
        for name in ("fsdp2", "multi_gpu")
    )
    assert sharded.keys() == whole.keys()
    assert max(abs(sharded[name] - whole[name]).max() for name in whole) < 1e-4


@pytest.mark.exhaustive
@pytest.mark.parametrize("mode", ["full", "lora"])
def test_a_sharded_run_in_bfloat16_with_a_decision_is_judged_as_its_saved_model_judges(
    mode, config_file, tweets, tmp_path
):
    decided = {
        "decision": {"temperature": True, "thresholds": "f1", "prior": "natural"},
        "model": {"mode": mode},
    }
    config = config_file(**decided, training={"bf16": True, "max_steps": 3, "learning_rate": 1e-3})
    fsdp2 = ROOT / "configs/accelerate/fsdp2.yaml"
    done = _launch(
        fsdp2,
        "--config",
        config,
        "--set",
        "run.num_processes=2",
        script="tests/cluster/sharded_on_cpu.py",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    run = tmp_path / "runs/run"
    assert json.loads((run / "metrics.json").read_text(encoding="utf-8"))["decision"][
        "folded_into_weights"
    ]
    table = pq.read_table(run / "predictions.parquet").to_pylist()
    rows = [row for row in table if row["split"] == "test"]
    texts = list(csv.DictReader(tweets.read_text(encoding="utf-8").splitlines()))
    classifier = Classifier.load(run)
    found = classifier.probabilities([texts[row["row"]]["text"] for row in rows])
    told = [[row[f"probability_{label}"] for label in classifier.labels] for row in rows]
    assert (
        np.abs(np.array(found) - np.array(told)).max() < 1e-5
    )  # in bfloat16 they would differ by 1e-3


def _plugin(state_dict_type):
    from accelerate import FullyShardedDataParallelPlugin

    return FullyShardedDataParallelPlugin(fsdp_version=2, state_dict_type=state_dict_type)


def test_shards_that_would_leave_no_model_are_refused(tiny_model):
    with pytest.raises(
        ConfigError,
        match=(
            r"FSDP's state_dict_type is SHARDED_STATE_DICT; allowed: FULL_STATE_DICT.* Set "
            r"fsdp_state_dict_type"
        ),
    ):
        fit_to_sharding(AutoModel.from_pretrained(tiny_model), _plugin("SHARDED_STATE_DICT"))


def test_embeddings_are_not_sharded_twice(tiny_model):
    model = AutoModel.from_pretrained(tiny_model)
    assert set(model._no_split_modules) == {"BertEmbeddings", "BertLayer"}
    fit_to_sharding(model, _plugin("FULL_STATE_DICT"))
    assert model._no_split_modules == ["BertLayer"]
