"""The config decides precision and compilation, not `accelerate config` or `accelerate launch`."""

import os
import subprocess
import sys

import pytest
from accelerate import Accelerator
from conftest import ROOT

from trainer.launch.launch_settings import follow_config
from trainer.training.arguments import build_arguments

STORED = """
compute_environment: LOCAL_MACHINE
distributed_type: 'NO'
use_cpu: true
num_processes: 1
num_machines: 1
mixed_precision: bf16
dynamo_config: {dynamo_backend: EAGER}
"""
ASKED = (
    "accelerate asks for mixed precision bf16, but training.bf16 and training.fp16"
    " decide: this run trains with float32.\n"
)
COMPILED = "accelerate asks for torch.compile (eager), but training.torch_compile decides: False.\n"


def trained(config, name, *launcher, **environment):
    """Standard output of a run that a launcher starts."""
    command = [
        sys.executable,
        *launcher,
        str(ROOT / "scripts/train.py"),
        "--config",
        config,
        "--set",
        f"run.name={name}",
    ]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=200,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.exhaustive
def test_precision_and_compilation_stored_by_accelerate_config_do_not_override_the_yaml(
    config_file, tmp_path
):
    stored = tmp_path / "home/accelerate/default_config.yaml"
    stored.parent.mkdir(parents=True)
    stored.write_text(STORED, encoding="utf-8")
    config = config_file(training={"bf16": False, "num_train_epochs": 1})
    told = trained(
        config, "launched", "-m", "accelerate.commands.launch", HF_HOME=str(tmp_path / "home")
    )
    assert ASKED in told
    assert COMPILED in told
    assert "accelerate asks" not in trained(config, "plain")
    weights = [
        (tmp_path / f"runs/{name}/model/model.safetensors").read_bytes()
        for name in ("launched", "plain")
    ]
    assert weights[0] == weights[1]
    assert "bf16: false" in (tmp_path / "runs/launched/config.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("training", "precision"),
    [
        ({}, "no"),
        ({"bf16": False}, "no"),
        ({"bf16": True}, "bf16"),
        ({"bf16": False, "fp16": False}, "no"),
        ({"fp16": True}, "fp16"),
    ],
)
@pytest.mark.parametrize("asked", ["no", "bf16", "fp16", "fp8", None])
def test_accelerate_is_given_the_precision_of_the_config(
    training, precision, asked, monkeypatch, tmp_path
):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    if asked:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    arguments = build_arguments(training, checkpoints=tmp_path, seed=0)
    assert arguments.mixed_precision == precision
    if precision != "fp16":  # which accelerate refuses on CPUs
        assert (
            Accelerator(mixed_precision=arguments.mixed_precision, cpu=True).mixed_precision
            == precision
        )
    if asked:
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", asked)
    assert len(follow_config(training)) == (asked not in ("no", precision, None))


def test_compilation_that_the_launcher_asks_for_is_left_out(monkeypatch):
    for name, value in (("BACKEND", "INDUCTOR"), ("MODE", "max-autotune")):
        monkeypatch.setenv(f"ACCELERATE_DYNAMO_{name}", value)
    told = follow_config({"torch_compile_mode": "default"})
    assert told == [
        "accelerate asks for torch.compile (inductor), but training.torch_compile decides: True."
    ]
    assert not [name for name in os.environ if name.startswith("ACCELERATE_DYNAMO_")]
