"""Interrupted runs, damaged checkpoints and full disks: nothing that was saved is lost."""

import csv
import hashlib
import json
import resource
import shutil
import signal
from contextlib import contextmanager

import forked_runs
import pytest
from conftest import leave_free, write_tweets_config
from matplotlib import pyplot as plt

from trainer import load_config
from trainer.cli.training import train_command
from trainer.run_folder.writer import RunFolder
from trainer.runs import training_run
from trainer.training.run_trainer import RunTrainer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def make_config(narrow_model, tweets):
    """Function (folder, **training) -> YAML of 3 epochs of 6 steps that saves every 4 steps."""

    def make(folder, num_processes=1, **training):
        own = {
            "num_train_epochs": 3,
            "per_device_train_batch_size": 32 // num_processes,
            "learning_rate": 1e-3,
            "bf16": False,
        }
        own |= {
            "save_strategy": "steps",
            "save_steps": 4,
            "save_total_limit": 5,
            "logging_steps": 3,
        }
        own |= {"metric_for_best_model": "loss", "early_stopping_patience": 2}
        return write_tweets_config(folder, narrow_model, tweets, training=own | training)

    return make


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Pictures take longer than these trainings."""
    monkeypatch.setattr(RunFolder, "write_figure", lambda folder, name, figure: plt.close(figure))


def train(config):
    return training_run.train(load_config(str(config)))


def outcome(run):
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    weights = hashlib.sha256((run / "model/model.safetensors").read_bytes()).hexdigest()
    return (
        weights,
        (run / "epochs.csv").read_text(),
        metrics | {"training": metrics["training"]["steps"]},
    )


def message_of(config, capsys):
    """What a start that must fail with exit code 2 says on standard error."""
    with pytest.raises(SystemExit) as stopped:
        train_command(config=str(config), set_=[], resume="auto", check=False)
    said = capsys.readouterr().err
    assert stopped.value.code == 2, said
    assert "Traceback" not in said
    return said


@contextmanager
def interrupted_at(step, action):
    """Call `action` in the training step of that number, counted from the process's start."""
    forward, seen = RunTrainer.training_step, 0

    def counted(*args, **kwargs):
        nonlocal seen
        seen += 1
        if seen == step:
            action()
        return forward(*args, **kwargs)

    RunTrainer.training_step = counted
    try:
        yield
    finally:
        RunTrainer.training_step = forward


def cut_off():
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def unbroken(make_config, tmp_path_factory):
    """Outcome of the run that nothing befell, in one process."""
    found = outcome(train(make_config(tmp_path_factory.mktemp("unbroken"))))
    losses = [float(row["validation_loss"]) for row in csv.DictReader(found[1].splitlines())]
    assert losses == sorted(losses, reverse=True)
    assert (
        len(set(losses)) == 3
    )  # so that the best model is the last, and every step counts for its bits
    return found


@pytest.fixture(scope="module")
def half_way(make_config, tmp_path_factory):
    """Config and run folder of a run that ended in step 10, 2 steps after its last checkpoint."""
    folder = tmp_path_factory.mktemp("half_way")
    with interrupted_at(10, cut_off), pytest.raises(KeyboardInterrupt):
        train(make_config(folder))
    assert {"checkpoint-4", "checkpoint-8"} <= {
        path.name for path in (folder / "runs/run/checkpoints").iterdir()
    }
    return folder


@pytest.fixture
def halved(half_way, make_config, tmp_path):
    """Function () -> (config, run folder) of a fresh copy of the run that ended half-way."""
    made = 0

    def copy():
        nonlocal made
        made += 1
        folder = tmp_path / str(made)
        config = make_config(folder)
        shutil.copytree(half_way / "runs", folder / "runs")
        return config, folder / "runs/run"

    return copy


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "cut to half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "emptied": lambda path: path.write_bytes(b""),
    "deleted": lambda path: path.unlink(),
    "one bit flipped": flip_a_bit,
}


def files_of(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_to_any_file_of_a_checkpoint_leaves_the_one_before_as_the_newest_whole(
    half_way, tmp_path, damage
):
    from trainer.training.resuming.checkpoints import newest_whole

    folder = tmp_path / "checkpoints"
    shutil.copytree(half_way / "runs/run/checkpoints", folder)
    before = max(
        (
            int(path.name.removeprefix("checkpoint-"))
            for path in folder.iterdir()
            if path.name != "checkpoint-8"
        ),
        default=0,
    )
    assert newest_whole(folder).name == "checkpoint-8"
    for name in files_of(folder / "checkpoint-8"):
        path = folder / "checkpoint-8" / name
        content = path.read_bytes()
        DAMAGES[damage](path)
        assert newest_whole(folder).name == f"checkpoint-{before}", name
        path.write_bytes(content)
        assert newest_whole(folder).name == "checkpoint-8", name


@pytest.mark.exhaustive
def test_run_with_a_damaged_checkpoint_ends_as_the_unbroken_one_whichever_file_it_is(
    halved, half_way, unbroken, capsys
):
    damages = list(DAMAGES.values())
    for number, name in enumerate(files_of(half_way / "runs/run/checkpoints/checkpoint-8")):
        config, run = halved()
        damages[number % len(damages)](run / "checkpoints/checkpoint-8" / name)
        kept = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(RunFolder, "finish", _remembering(RunFolder.finish, kept))
            with pytest.warns(
                UserWarning,
                match="checkpoint-8 cannot be resumed: .* It is renamed to corrupt-checkpoint-8",
            ):
                train(config)
        assert outcome(run) == unbroken, name
        assert "corrupt-checkpoint-8" in kept, name
        assert "Resuming from" in capsys.readouterr().out


def _remembering(finish, kept):
    def remember(self, metrics):
        kept.extend(path.name for path in self.checkpoints.iterdir())
        finish(self, metrics)

    return remember


def test_run_whose_checkpoints_are_all_damaged_starts_anew(halved, unbroken, capsys):
    config, run = halved()
    for checkpoint in run.glob("checkpoints/checkpoint-*"):
        flip_a_bit(checkpoint / "model.safetensors")
    with pytest.warns(
        UserWarning,
        match=(
            r"model.safetensors was changed after it was saved. It is renamed to "
            r"corrupt-checkpoint-\d"
        ),
    ):
        train(config)
    assert outcome(run) == unbroken
    assert "Resuming from" not in capsys.readouterr().out


def test_full_disk_ends_in_one_message_and_the_last_checkpoint_is_gone_on_from_when_there_is_room(
    small_disk, make_config, unbroken, capsys
):
    config, run = make_config(small_disk / "work", save_total_limit=2), small_disk / "work/runs/run"
    with interrupted_at(
        6, lambda: leave_free(small_disk, 3_000_000)
    ):  # less than half a checkpoint
        said = message_of(config, capsys)
    assert "could not be saved" in said
    assert "MiB are free there. Free space; the last good checkpoint is" in said
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["checkpoint-4"]
    (small_disk / "ballast").unlink()
    assert "Resuming from" in _said_by(config, capsys)
    assert outcome(run) == unbroken


def _said_by(config, capsys):
    train(config)
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("stage", "room_bytes"),
    [("evaluate_splits", 1_000_000), ("write_results", 0)],
    ids=["the model", "the tables"],
)
def test_disk_that_is_full_when_results_are_written_costs_no_step(
    small_disk, make_config, unbroken, capsys, stage, room_bytes
):
    from trainer.runs import results

    config, run = make_config(small_disk / "work", save_total_limit=2), small_disk / "work/runs/run"
    finish = getattr(results, stage)

    def fill_up(*args):
        leave_free(small_disk, room_bytes)
        return finish(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, stage, fill_up)
        said = message_of(config, capsys)
    assert "No space left on device" in said or "could not be saved" in said
    assert "Free space" in said
    assert not (run / "metrics.json").exists()
    (small_disk / "ballast").unlink()
    with interrupted_at(1, cut_off):
        train(config)
    assert outcome(run) == unbroken


def test_file_that_may_grow_no_further_ends_in_one_message(make_config, tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        said = message_of(make_config(tmp_path), capsys)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "could not be saved" in said
    assert "no checkpoint was saved before" in said


def test_run_folder_that_vanishes_ends_in_one_message(make_config, tmp_path, capsys):
    config, run = make_config(tmp_path), tmp_path / "runs/run"
    with interrupted_at(6, lambda: shutil.rmtree(tmp_path / "runs")):
        said = message_of(config, capsys)
    assert str(run) in said
    assert not run.exists()


def test_other_rows_in_the_data_file_are_not_trained_on_from_the_old_checkpoint(
    halved, tweets, tmp_path, capsys
):
    config, _ = halved()
    changed = tmp_path / "tweets.csv"
    changed.write_text(
        tweets.read_text(encoding="utf-8") + "one more tweet,neutral\n", encoding="utf-8"
    )
    values = json.loads(config.read_text(encoding="utf-8"))
    values["data"]["source"] = str(changed)
    config.write_text(json.dumps(values), encoding="utf-8")
    said = message_of(config, capsys)
    assert "holds an unfinished run that differs: data.source is" in said
    assert "the rows of the data differ" in said


@pytest.fixture(scope="module")
def two_unbroken(make_config, tmp_path_factory):
    """Outcome of the run in two processes that nothing befell."""
    folder = tmp_path_factory.mktemp("two_unbroken")
    assert forked_runs.train(make_config(folder, 2), folder / "log", num_processes=2) == [0, 0], (
        folder / "log"
    ).read_text()
    return outcome(folder / "runs/run")


STRIKES = {
    "SIGKILL in a step": ("step", 6, [signal.SIGKILL]),
    "SIGKILL while it saves": ("save", 6, [signal.SIGKILL]),
    "SIGTERM in a step": ("step", 6, [signal.SIGTERM]),
    "SIGTERM twice while it saves": ("save", 6, [signal.SIGTERM, signal.SIGTERM]),
}


@pytest.mark.exhaustive
@pytest.mark.parametrize("strike", STRIKES)
def test_struck_process_leaves_what_resumes_to_the_bits_of_the_unbroken_run(
    make_config, tmp_path, unbroken, strike
):
    config, log, run = make_config(tmp_path), tmp_path / "log", tmp_path / "runs/run"
    asked = STRIKES[strike][2][0] == signal.SIGTERM
    assert forked_runs.train(config, log, strike=STRIKES[strike]) == [
        75 if asked else -signal.SIGKILL
    ], log.read_text()
    if asked:
        stopped = json.loads((run / "stopped.json").read_text(encoding="utf-8"))
        assert stopped["reason"] == f"stopped by SIGTERM after step {stopped['step']}"
        assert (run / f"checkpoints/checkpoint-{stopped['step']}").is_dir()
    assert forked_runs.train(config, log) == [0], log.read_text()
    assert "Resuming from" in log.read_text()
    assert not (run / "stopped.json").exists()
    assert outcome(run) == unbroken


@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("strike", "rank", "exit_codes"),
    [("SIGKILL in a step", None, [-9, -9]), ("SIGTERM in a step", 1, [75, 75])],
)
def test_struck_pair_resumes_to_the_bits_of_the_unbroken_pair(
    make_config, tmp_path, two_unbroken, strike, rank, exit_codes
):
    config, log = make_config(tmp_path, 2), tmp_path / "log"
    assert (
        forked_runs.train(config, log, num_processes=2, strike=STRIKES[strike], rank=rank)
        == exit_codes
    ), log.read_text()
    assert forked_runs.train(config, log, num_processes=2) == [0, 0], log.read_text()
    assert "Resuming from" in log.read_text()
    assert outcome(tmp_path / "runs/run") == two_unbroken
