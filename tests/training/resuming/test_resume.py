"""A resumed run equals an uninterrupted one bit for bit: weights, table and metrics."""

import gc
import hashlib
import json
import os
import re
import shutil
import signal
import weakref
from importlib import import_module
from pathlib import Path

import pytest

from trainer.cli.training import train_command
from trainer.launch import stopping
from trainer.run_folder.writer import RunFolder
from trainer.training.run_trainer import RunTrainer

pytestmark = pytest.mark.slow

STEPS, STEPS_PER_EPOCH = 10, 5
SAVE_EVERY = {
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_strategy": "epoch",
    "logging_strategy": "epoch",
}
EVERY_TWO = {"eval_strategy": "steps", "eval_steps": 2}
AFTER_EPOCHS: dict[str, object] = {}
INTERVALS = {
    "epochs": AFTER_EPOCHS,
    "save every 2 steps, evaluate each epoch": SAVE_EVERY,
    "evaluate every 2 steps": EVERY_TWO,
}


@pytest.fixture
def config(config_file, tmp_path):
    """Function (folder, **training) -> YAML of 10 steps in 2 epochs with early stopping."""

    def make(folder, loss=None, model=None, **training):
        path = config_file(
            loss=loss or {},
            model=model or {},
            data={"limit": 235},
            balance={"method": "none"},
            run={"output_dir": str(tmp_path / folder)},
            training={
                "num_train_epochs": 2,
                "gradient_accumulation_steps": 2,
                "dataloader_drop_last": True,
                "early_stopping_patience": 5,
                "bf16": False,
            }
            | training,
        )
        return Path(path).rename(tmp_path / f"{folder}.yaml")

    return make


def result(run):
    """What must be equal: digest of the weights, table, metrics without timings."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics["training"] = metrics["training"]["steps"], metrics["training"]["length"]
    return (
        hashlib.sha256((run / "model/model.safetensors").read_bytes()).hexdigest(),
        (run / "epochs.csv").read_text(encoding="utf-8"),
        metrics,
    )


def train(config, code=0):
    if code == 0:
        train_command(config=str(config), set_=[], resume="auto", check=False)
        return
    with pytest.raises(SystemExit) as stop:
        train_command(config=str(config), set_=[], resume="auto", check=False)
    assert stop.value.code == code


@pytest.fixture
def signal_at(monkeypatch):
    """Function (method, n, signal) that sends the signal before the n-th call of a method."""

    def arrange(method, number, sent=signal.SIGTERM):
        original, calls = getattr(RunTrainer, method), []

        def counted(self, *args, **kwargs):
            calls.append(None)
            if len(calls) == number:
                os.kill(os.getpid(), sent)
            return original(self, *args, **kwargs)

        monkeypatch.setattr(RunTrainer, method, counted)

    return arrange


@pytest.mark.parametrize(
    ("interval", "steps"),
    [
        pytest.param("evaluate every 2 steps", (4, 5), id="in an epoch and at its end"),
        *(
            pytest.param(name, (1, 4, 5, 10), id=name, marks=pytest.mark.exhaustive)
            for name in INTERVALS
        ),
    ],
)
def test_stopped_after_any_step_a_run_ends_as_the_unbroken_one(
    interval, steps, config, signal_at, monkeypatch, tmp_path, capsys
):
    name = "run"
    train(config("unbroken", **INTERVALS[interval]))
    unbroken = result(tmp_path / "unbroken" / name)
    for step in steps:
        stopped = config(f"stopped-{step}", **INTERVALS[interval])
        signal_at("training_step", 2 * step)  # two micro-batches a step
        train(stopped, code=75)
        monkeypatch.undo()
        run = tmp_path / f"stopped-{step}" / name
        assert json.loads((run / "stopped.json").read_text(encoding="utf-8"))["step"] == step
        assert (
            f"stopped by SIGTERM after step {step}. Run the same command again to resume."
            in capsys.readouterr().err
        )
        train(stopped)
        assert f"checkpoint-{step}" in capsys.readouterr().out
        assert result(run) == unbroken, step
        assert not (run / "stopped.json").exists()


@pytest.fixture
def resumes_exactly(config, signal_at, monkeypatch, tmp_path):
    """Function (micro_batches, **config) that stops a run before each of them; returns its card.

    The run then has to end as an uninterrupted one.
    """

    def check(micro_batches, **own):
        train(config("unbroken", **own))
        stopped = config("stopped", **own)
        for micro_batch in micro_batches:
            signal_at("training_step", micro_batch)
            train(stopped, code=75)
            monkeypatch.undo()
        train(stopped)
        assert result(tmp_path / "stopped/run") == result(tmp_path / "unbroken/run")
        return (tmp_path / "stopped/run/README.md").read_text(encoding="utf-8")

    return check


def test_layers_and_stages_of_a_training_resume_exactly(resumes_exactly, narrow_model):
    """Stopped before the weights apply (after step 6 of 10), and again after."""
    own = {
        "loss": {"class_weights": "balanced", "defer_weights": 0.6},
        "model": {"name": str(narrow_model), "reinitialise_layers": 1},
        "layerwise_learning_rate_decay": 0.7,
        "refit_head": "balanced",
    }
    card = resumes_exactly((8, 8), **own)  # after step 4, then after step 8
    assert "- `model.reinitialise_layers`: 1, drawn again before training" in card
    assert "- `layerwise_learning_rate_decay`: 0.7" in card
    assert ", after 60% of the training." in card
    assert "- final layer fitted again on class-balanced rows" in card


@pytest.mark.exhaustive
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_run_with_compiled_layers_is_not_padded_and_resumes_exactly(
    resumes_exactly, narrow_model, backend
):
    if backend == "inductor" and not shutil.which("g++"):
        pytest.skip("needs a C++ compiler")
    own = {"model": {"name": str(narrow_model)}, "torch_compile_backend": backend}
    card = resumes_exactly((8,), **own, torch_compile=True)
    assert "- batches: without padding" in card


def test_second_signal_and_sigusr1_stop_it_once(config, signal_at, monkeypatch, tmp_path, capsys):
    train(config("unbroken"))
    stopped = config("stopped")
    signal_at("training_step", 4, signal.SIGUSR1)
    signal_at("_save_checkpoint", 1, signal.SIGTERM)
    train(stopped, code=75)
    monkeypatch.undo()
    assert "stopped by SIGUSR1 after step 2." in capsys.readouterr().err
    train(stopped)
    assert result(tmp_path / "stopped/run") == result(tmp_path / "unbroken/run")


def test_signal_of_one_training_does_not_stop_the_next_of_the_same_process():
    with stopping.listening(), stopping.at_agreed_steps():
        signal.raise_signal(signal.SIGTERM)
        assert stopping.agreed() == "SIGTERM"
    assert stopping.agreed() is None


def test_signal_while_results_are_written_comes_too_late(config, monkeypatch, tmp_path):
    finish = RunFolder.finish

    def signalled(self, metrics):
        finish(self, metrics)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(RunFolder, "finish", signalled)
    path = config("late")
    train(path)
    monkeypatch.undo()
    assert (tmp_path / "late/run/metrics.json").exists()
    assert not (tmp_path / "late/run/stopped.json").exists()


@pytest.mark.parametrize(
    ("module", "function", "words"),
    [
        ("vector_cache", "token_batches", "before the first step"),
        ("head", "fit_linear", "while the final layer was fitted"),
    ],
)
def test_signal_stops_a_run_that_embeds_its_rows_or_fits_its_head(
    module, function, words, config, monkeypatch, tmp_path
):
    path = config("head")
    called = import_module(f"trainer.training.frozen.{module}")
    original = getattr(called, function)

    def signalled(*args, **options):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(*args, **options)

    monkeypatch.setattr(called, function, signalled)
    with pytest.raises(SystemExit) as stop:
        train_command(
            config=str(path),
            set_=["model.mode=head", "model.max_length=11"],
            resume="auto",
            check=False,
        )
    assert stop.value.code == 75
    stopped = json.loads((tmp_path / "head/run/stopped.json").read_text(encoding="utf-8"))
    assert stopped == {"reason": f"stopped by SIGTERM {words}", "step": None}


def test_signal_while_data_is_prepared_leaves_the_marker(config, monkeypatch, tmp_path, capsys):
    from trainer.runs import training_run

    prepare = training_run.prepare

    def interrupted(config):
        os.kill(os.getpid(), signal.SIGTERM)
        return prepare(config)

    monkeypatch.setattr(training_run, "prepare", interrupted)
    path = config("early")
    train(path, code=75)
    monkeypatch.undo()
    assert "stopped by SIGTERM while no step was being trained." in capsys.readouterr().err
    assert (
        json.loads((tmp_path / "early/run/stopped.json").read_text(encoding="utf-8"))["step"]
        is None
    )
    train(path)


class TestOutOfMemory:
    """A pass of more than some tokens raises what CUDA raises; all else is real."""

    @pytest.fixture
    def small_memory(self, monkeypatch):
        """Function (tokens): passes of more of them do not fit."""
        import torch

        def limit(tokens):
            compute_loss = RunTrainer.compute_loss

            def checked(self, model, inputs, *arguments, **values):
                if self.state.global_step > 2 and inputs["attention_mask"].sum() > tokens:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return compute_loss(self, model, inputs, *arguments, **values)

            monkeypatch.setattr(RunTrainer, "compute_loss", checked)

        return limit

    @pytest.fixture
    def living(self, monkeypatch):
        """How many models of earlier trainers lived when each trainer was built."""
        models, counts, build = [], [], RunTrainer.__init__

        def counted(self, **values):
            counts.append(sum(model() is not None for model in models))
            models.append(weakref.ref(values["model"]))
            build(self, **values)

        monkeypatch.setattr(RunTrainer, "__init__", counted)
        return counts

    def test_training_goes_on_from_the_last_checkpoint_with_smaller_passes_and_the_same_rows(
        self, config, small_memory, living, tmp_path, capsys
    ):
        every = {"save_strategy": "steps", "save_steps": 2}
        train(config("whole", **every))
        gc.collect()  # of the run before
        small_memory(150)
        train(config("halved", **every))
        said = re.findall(
            (
                r"memory ran out at step 4 with passes of ([\d,]+) tokens; from the last "
                r"checkpoint on they hold ([\d,]+), and a step holds the same rows"
            ),
            capsys.readouterr().out,
        )
        sizes = [
            (int(before.replace(",", "")), int(after.replace(",", ""))) for before, after in said
        ]
        assert (
            sizes[0][0] < 2048
        )  # the largest pass held less than was allowed, so fewer tries are needed
        assert all(after == before // 2 for before, after in sizes)
        assert sizes[-1][1] <= 150
        assert set(living) == {0}  # no earlier model lives when the next one is built
        whole, halved = (
            json.loads((tmp_path / name / "run/metrics.json").read_text(encoding="utf-8"))
            for name in ("whole", "halved")
        )
        assert halved["training"]["steps"] == whole["training"]["steps"] == STEPS
        assert halved["validation"]["loss"] == pytest.approx(
            whole["validation"]["loss"], abs=0.05
        )  # other dropout

    @pytest.mark.exhaustive
    def test_steps_of_a_budget_in_seconds_are_timed_with_smaller_passes_and_one_model_at_a_time(
        self, config, living, monkeypatch, tmp_path
    ):
        import torch

        from trainer import load_config
        from trainer.comparison.budget import steps_in
        from trainer.comparison.grid import TrainingGrid
        from trainer.comparison.shared_data import prepare_shared
        from trainer.runs import startup

        compute_loss = RunTrainer.compute_loss

        def checked(self, model, inputs, *arguments, **values):
            if inputs["attention_mask"].sum() > 150:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return compute_loss(self, model, inputs, *arguments, **values)

        monkeypatch.setattr(RunTrainer, "compute_loss", checked)
        started = startup.start(
            load_config(str(config("timed")), ["compare.budget=seconds", "compare.amount=1"])
        )
        shared = prepare_shared(started)
        grid = TrainingGrid(shared, tmp_path / "trainings", ("none",), "full", False, "")
        assert steps_in(1.0, grid.trainings["none"][0], shared) >= 1
        assert len(living) >= 3
        assert set(living) == {0}

    def test_a_row_that_does_not_fit_or_no_wish_to_halve_ends_the_run_in_words(
        self, config, small_memory, tmp_path, capsys
    ):
        path = config("off")
        small_memory(1)
        with pytest.raises(SystemExit) as stop:
            train_command(
                config=str(path),
                set_=["speed.halve_on_out_of_memory=false"],
                resume="auto",
                check=False,
            )
        assert stop.value.code == 2
        assert (
            "tokens. Lower speed.tokens_per_pass, or set speed.halve_on_out_of_memory: true."
            in capsys.readouterr().err
        )
        train(path, code=2)
        assert "tokens, which hold one row. Lower model.max_length" in capsys.readouterr().err


def test_another_number_of_processes_shares_the_same_steps_or_is_refused(
    config, signal_at, monkeypatch, tmp_path, capsys
):
    path = config("shared")
    signal_at("training_step", 4)
    train(path, code=75)
    monkeypatch.undo()
    progress = tmp_path / "shared/run/checkpoints/checkpoint-2/progress.json"
    values = json.loads(progress.read_text(encoding="utf-8"))
    assert (values["num_processes"], values["rows_per_process"]) == (1, 32)
    from types import SimpleNamespace

    from trainer.errors import RunError
    from trainer.training.resuming.resumable_trainer import keep_rows_per_step

    def shared_by(processes):
        arguments = SimpleNamespace(
            world_size=processes, per_device_train_batch_size=16, gradient_accumulation_steps=2
        )
        note = keep_rows_per_step(arguments, str(progress.parent))
        return note, arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps

    assert shared_by(1) == (None, 32)
    assert shared_by(4) == (
        "The checkpoint was saved by 1 process(es), now there are 4. A step holds the same"
        " rows, so results are equal up to rounding and dropout.",
        8,
    )
    with pytest.raises(
        RunError,
        match=(
            r"1 process\(es\) that trained 32 rows per step, which 3 cannot share equally\. "
            r"Launch 1"
        ),
    ):
        shared_by(3)
