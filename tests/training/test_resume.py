"""Stopped anywhere and started again, a run ends as if it had never stopped: weights, table and metrics, bit for bit."""

import hashlib
import json
import os
import signal
from pathlib import Path

import pytest

from trainer.cli import train_command
from trainer.training.weighted_trainer import WeightedTrainer

STEPS, STEPS_PER_EPOCH = 10, 5
SAVE_EVERY = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "epoch", "logging_strategy": "epoch"}
EVERY_TWO = {"eval_strategy": "steps", "eval_steps": 2}
AFTER_EPOCHS: dict[str, object] = {}
INTERVALS = {"epochs": AFTER_EPOCHS, "save every 2 steps, evaluate each epoch": SAVE_EVERY, "evaluate every 2 steps": EVERY_TWO}


@pytest.fixture
def config(config_file, tmp_path):
    """Function (folder, **training) -> YAML of a run of 10 steps in 2 epochs, with dropout and early stopping."""

    def make(folder, **training):
        path = config_file(
            data={"limit": 235},
            balance={"method": "none"},
            run={"output_dir": str(tmp_path / folder)},
            training={"num_train_epochs": 2, "gradient_accumulation_steps": 2, "dataloader_drop_last": True, "bf16": False} | training,
        )
        return Path(path).rename(tmp_path / f"{folder}.yaml")

    return make


def result(run):
    """What must be equal: digest of the weights, table, metrics without timings."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics["training"] = metrics["training"]["steps"]
    return hashlib.sha256((run / "model/model.safetensors").read_bytes()).hexdigest(), (run / "epochs.csv").read_text(encoding="utf-8"), metrics


def train(config, code=0):
    if code == 0:
        train_command(config=str(config), set_=[], resume="auto", check=False)
        return
    with pytest.raises(SystemExit) as stop:
        train_command(config=str(config), set_=[], resume="auto", check=False)
    assert stop.value.code == code


@pytest.fixture
def signal_at(monkeypatch):
    """Function (method, n-th call, signal): the process gets it before that call of a WeightedTrainer's method."""

    def arrange(method, number, sent=signal.SIGTERM):
        original, calls = getattr(WeightedTrainer, method), []

        def counted(self, *args, **kwargs):
            calls.append(None)
            if len(calls) == number:
                os.kill(os.getpid(), sent)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(WeightedTrainer, method, counted)

    return arrange


@pytest.mark.parametrize("interval", INTERVALS)
def test_stopped_after_any_step_a_run_ends_as_the_unbroken_one(interval, config, signal_at, monkeypatch, tmp_path, capsys):
    name = "run"
    train(config("unbroken", **INTERVALS[interval]))
    unbroken = result(tmp_path / "unbroken" / name)
    for step in range(1, STEPS + 1):
        stopped = config(f"stopped-{step}", **INTERVALS[interval])
        signal_at("training_step", 2 * step)  # two micro-batches a step
        train(stopped, code=75)
        monkeypatch.undo()
        run = tmp_path / f"stopped-{step}" / name
        assert json.loads((run / "stopped.json").read_text(encoding="utf-8"))["step"] == step
        assert f"stopped by SIGTERM after step {step}. Run the same command again to go on." in capsys.readouterr().err
        train(stopped)
        assert f"checkpoint-{step}" in capsys.readouterr().out
        assert result(run) == unbroken, step
        assert not (run / "stopped.json").exists()
