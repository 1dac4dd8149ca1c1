"""A comparison is shared by any number of processes, and none is lost: kills, stop signals and full
disks end in the table of the comparison left alone.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import forked_runs
import pytest
from conftest import ROOT, leave_free, write_tweets_config

from trainer.cli.training import compare_command
from trainer.comparison.page import compare_page
from trainer.files.locks import locked
from trainer.run_folder import writer
from trainer.training.run_trainer import RunTrainer

pytestmark = pytest.mark.slow

TRAININGS = [("class_weights", "42"), ("class_weights", "43"), ("none", "42"), ("none", "43")]
STEPS = 18
"""Steps of a training, which saves a checkpoint every 6."""


@pytest.fixture(scope="module")
def make_config(narrow_model, tweets):
    """Function (folder, **model) -> YAML of two strategies with two seeds, 18 steps each."""

    def make(folder, **model):
        own = {
            "model": {"name": str(narrow_model), "max_length": 32, **model},
            "training": {
                "num_train_epochs": 3,
                "per_device_train_batch_size": 32,
                "learning_rate": 3e-2,
                "bf16": False,
                "save_total_limit": 2,
            },
            "compare": {"strategies": ["none", "class_weights"], "seeds": 2},
        }
        return write_tweets_config(folder, narrow_model, tweets, **own)

    return make


@pytest.fixture
def begun(make_config, tmp_path):
    """(config, folder of its comparison, log) of a comparison to be."""
    return make_config(tmp_path), tmp_path / "runs/run-compare", tmp_path / "log"


def outcome(folder):
    """comparison.json without what times and paths say; nothing but the comparison lies
    beside it.
    """
    assert {path.name for path in folder.iterdir()} == {
        "trainings",
        "comparison.html",
        "comparison.json",
        "config.yaml",
        "environment.json",
        "winner.yaml",
        ".lock",
    }
    assert [
        path
        for path in folder.rglob("*")
        if path.name in ("checkpoints", "model") or path.suffix == ".partial"
    ] == []
    result = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    return {
        key: value
        for key, value in result.items()
        if key not in ("command", "seconds", "total_seconds", "environment")
    }


@pytest.fixture(scope="module")
def unbroken(make_config, tmp_path_factory):
    """Folder of the comparison that nothing befell."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert forked_runs.compare(make_config(folder), folder / "log") == 0, (
        folder / "log"
    ).read_text()
    result = outcome(folder / "runs/run-compare")
    assert (
        result["validation"]["strategies"].keys()
        == result["overrides"].keys()
        == {"none", "none + thresholds", "class_weights", "class_weights + thresholds"}
    )
    assert (
        len(set(result["validation"]["strategies"]["none"]["figures"]["ece"]["of_seeds"])) == 2
    )  # so that every training counts for the table
    return folder / "runs/run-compare"


def copy_half(unbroken, folder):
    """What lay in a comparison's folder when `none` was trained."""
    shutil.copytree(
        unbroken,
        folder,
        ignore=shutil.ignore_patterns("class_weights", "comparison.*", "winner.yaml"),
    )


def lines_of_trainings(said):
    """(strategy, seed) of the lines that workers print for the trainings they have finished."""
    return [
        found.groups() for found in re.finditer(r"(?:^|\s)\d/4 +(\S+) +(\d+) ", said)
    ]  # two processes may write into one line


def finished(folder):
    return {
        (path.parent.parent.name, path.parent.name.removeprefix("seed-"))
        for path in folder.glob("trainings/*/*/metrics.json")
    }


def until(condition):
    deadline = time.monotonic() + 100
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


@pytest.mark.exhaustive
def test_workers_of_a_launcher_train_each_training_once_and_agree_with_one_process(begun, unbroken):
    config, folder, _ = begun
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
        "--main_process_port",
        "0",
    ]
    launch += [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        str(ROOT / "scripts/compare.py"),
        "--config",
        str(config),
    ]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=200, cwd=ROOT, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(lines_of_trainings(done.stdout)) == TRAININGS, done.stdout
    assert done.stdout.count("Comparison: ") == 2
    assert outcome(folder) == outcome(unbroken)


def test_comparison_killed_in_a_training_resumes_from_its_checkpoint_to_the_same_table(
    begun, unbroken
):
    config, folder, log = begun
    assert (
        forked_runs.compare(config, log, strike=("step", STEPS + 10, [signal.SIGKILL]))
        == -signal.SIGKILL
    )
    assert finished(folder) == {("none", "42")}
    assert [
        path.name for path in folder.glob("trainings/none/seed-43/checkpoints/checkpoint-*")
    ] == ["checkpoint-6"]
    kept = (folder / "trainings/none/seed-42/metrics.json").stat()
    log.unlink()
    assert forked_runs.compare(config, log) == 0, log.read_text()
    assert "4 trainings, 1 of them finished" in log.read_text()
    assert sorted(lines_of_trainings(log.read_text())) == [
        each for each in TRAININGS if each != ("none", "42")
    ]
    assert (folder / "trainings/none/seed-42/metrics.json").stat() == kept
    assert outcome(folder) == outcome(unbroken)


@pytest.mark.exhaustive
def test_training_of_a_worker_that_dies_is_taken_over_by_one_that_waits(begun, unbroken, tmp_path):
    config, folder, log = begun
    holder = forked_runs.start_compare(
        config, tmp_path / "holder", strike=("step", 10, [signal.SIGSTOP])
    )
    waiter = None
    try:
        until((folder / "trainings/none/seed-42/checkpoints/checkpoint-6/model.safetensors").exists)
        waiter = forked_runs.start_compare(config, log)
        until(lambda: len(finished(folder)) == 3)
        assert ("none", "42") not in finished(folder)
        assert not (folder / "comparison.json").exists()
        assert waiter.is_alive()
        holder.kill()
        waiter.join(timeout=100)
    finally:
        for process in filter(None, (holder, waiter)):
            process.kill()
            process.join()
    assert (holder.exitcode, waiter.exitcode) == (-signal.SIGKILL, 0), log.read_text()
    assert sorted(lines_of_trainings(log.read_text())) == TRAININGS
    assert outcome(folder) == outcome(unbroken)


def test_stopped_comparison_says_so_and_goes_on_to_the_same_table(begun, unbroken):
    config, folder, log = begun
    copy_half(unbroken, folder)
    assert (
        forked_runs.compare(config, log, strike=("step", 10, [signal.SIGTERM, signal.SIGTERM]))
        == 75
    ), log.read_text()
    assert json.loads((folder / "stopped.json").read_text(encoding="utf-8")) == {
        "reason": "stopped by SIGTERM after step 10",
        "step": 10,
    }
    assert (folder / "trainings/class_weights/seed-42/checkpoints/checkpoint-10").is_dir()
    assert (
        "stopped by SIGTERM after step 10. Run the same command again to resume." in log.read_text()
    )
    assert forked_runs.compare(config, log) == 0, log.read_text()
    assert lines_of_trainings(log.read_text()) == TRAININGS[:2]
    assert outcome(folder) == outcome(unbroken)


def test_comparison_of_heads_stops_after_the_training_in_which_the_signal_came(
    make_config, tmp_path
):
    config = make_config(tmp_path, mode="head")
    assert (
        forked_runs.compare(config, tmp_path / "log", strike=("head", 2, [signal.SIGTERM])) == 75
    ), (tmp_path / "log").read_text()
    folder = tmp_path / "runs/run-compare"
    assert finished(folder) == {("none", "42"), ("none", "43")}
    assert (
        json.loads((folder / "stopped.json").read_text(encoding="utf-8"))["reason"]
        == "stopped by SIGTERM between two trainings"
    )


def compare_here(config, *, resume="auto"):
    compare_command(config=str(config), set_=[], resume=resume, check=False)


def message_of(config, capsys, **options):
    """What a comparison that must fail with exit code 2 says on standard error."""
    with pytest.raises(SystemExit) as stopped:
        compare_here(config, **options)
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    assert "Traceback" not in said
    return said


@contextmanager
def fill_at(owner, name, times, disk, num_bytes):
    """Within, the disk is full but for so many bytes from the given call of a function on."""
    action, seen = getattr(owner, name), 0

    def counted(*args, **kwargs):
        nonlocal seen
        seen += 1
        if seen == times:
            leave_free(disk, num_bytes)
        return action(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, counted)
        yield


def test_full_disk_costs_no_finished_training_and_no_strategy(
    make_config, small_disk, unbroken, capsys
):
    config, folder = make_config(small_disk / "work"), small_disk / "work/runs/run-compare"
    copy_half(unbroken, folder)
    with fill_at(RunTrainer, "training_step", STEPS + 4, small_disk, 1_000_000):
        said = message_of(config, capsys)
    assert re.search(
        r"seed-43/\S+: could not be saved .* Free space; no checkpoint was saved before", said
    )
    assert finished(folder) == {*TRAININGS[2:], ("class_weights", "42")}
    assert list(folder.glob("trainings/*/failed.json")) == []
    (small_disk / "ballast").unlink()
    with fill_at(compare_page, "write", 1, small_disk, 0):
        compare_here(config)
    assert finished(folder) == set(TRAININGS)
    assert (folder / "comparison.json").exists()
    assert not (folder / "comparison.html").exists()
    capsys.readouterr()
    (small_disk / "ballast").unlink()
    compare_here(config)
    assert lines_of_trainings(capsys.readouterr().out) == []
    assert (folder / "comparison.html").exists()
    assert outcome(folder) == outcome(unbroken)


@pytest.fixture
def copied(unbroken, make_config, tmp_path):
    """(config, folder) of a copy of the comparison that nothing befell."""
    shutil.copytree(unbroken, tmp_path / "runs/run-compare")
    return make_config(tmp_path), tmp_path / "runs/run-compare"


def test_test_rows_are_predicted_by_a_model_trained_again_where_it_is_gone(
    copied, unbroken, capsys
):
    config, folder = copied
    (folder / "comparison.json").unlink()
    (folder / "trainings/none/seed-43/test.parquet").unlink()
    compare_here(config)
    assert "4 trainings, 4 of them finished" in capsys.readouterr().out
    assert outcome(folder) == outcome(unbroken)


def test_files_that_a_kill_left_half_written_are_no_strangers(copied, tmp_path, capsys):
    config, folder = copied
    (folder / ".comparison.html.partial").touch()
    compare_here(config)
    assert (
        "holds the finished comparison of this config and data: nothing to do"
        in capsys.readouterr().out
    )
    (folder / "notes.txt").touch()
    assert (
        "holds files but no comparison. Set run.name or run.output_dir to another folder."
        in message_of(config, capsys)
    )


def test_nothing_is_discarded_while_others_train(copied, monkeypatch, capsys):
    config, folder = copied
    with locked(folder / "trainings/none/seed-42" / writer.LOCK, "held"):
        said = message_of(config, capsys, resume="never")
    assert f"none/seed-42: is being trained by pid {os.getpid()} on " in said
    assert "Stop it before you discard the comparison." in said
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "compare --resume never runs in one process, but 2 were launched." in message_of(
        config, capsys, resume="never"
    )
    assert (folder / "comparison.json").exists()
    assert finished(folder) == set(TRAININGS)
