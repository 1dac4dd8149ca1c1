"""What is on the disk before a run deletes its checkpoints, and what is completed later.

Failures of pictures and pages never cost the model; the same command or `report` completes them.
"""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import forked_runs
import pytest
from small_runs import train

from trainer import load_config
from trainer.cli.inspecting import report_command
from trainer.cli.training import train_command
from trainer.config.sections.tracker_names import TRACKERS
from trainer.delivery import completion
from trainer.delivery.card import card
from trainer.delivery.report import report_page
from trainer.display import tables
from trainer.errors import RunError
from trainer.files import durable
from trainer.run_folder.writer import RunFolder, is_finished
from trainer.runs.startup import with_hardware_defaults
from trainer.training.run_trainer import RunTrainer

pytestmark = pytest.mark.slow

PICTURES = [
    "class_distribution.png",
    "confusion_matrix.png",
    "learning_curves.png",
    "reliability.png",
]


def out_of_memory(*args, **kwargs):
    raise MemoryError


@pytest.fixture
def calls(monkeypatch):
    """[(call, path)] of what is flushed to the disk, renamed and removed, in order."""
    made, opened, fsync, replace, rmtree, open_ = (
        [],
        {},
        os.fsync,
        os.replace,
        shutil.rmtree,
        os.open,
    )

    def opening(path, *args, **kwargs):
        descriptor = open_(path, *args, **kwargs)
        opened[descriptor] = str(path)
        return descriptor

    def noted(name, call, path_of):
        def noting(*args, **kwargs):
            result = call(*args, **kwargs)
            made.append((name, path_of(*args)))
            return result

        return noting

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(
        os, "fsync", noted("fsync", fsync, lambda descriptor: opened.get(descriptor, ""))
    )
    monkeypatch.setattr(
        os, "replace", noted("rename", replace, lambda source, target: f"{source} {target}")
    )
    monkeypatch.setattr(shutil, "rmtree", noted("remove", rmtree, lambda path, *_: str(path)))
    return made


def last(calls, name, ending, before=None):
    """Number of the last such call, before another one."""
    found = [
        number
        for number, (call, path) in enumerate(calls[:before])
        if call == name and path.endswith(ending)
    ]
    assert found, (name, ending)
    return found[-1]


def assert_published_before_checkpoints_go(calls, run, files):
    """From the end to the beginning: each call's last place before the one that must follow it."""
    removed = last(calls, "remove", f"{run}/checkpoints")
    named = last(calls, "rename", f" {run}/metrics.json", last(calls, "fsync", str(run), removed))
    assert calls[last(calls, "fsync", ".partial", named)][1] == calls[named][1].split()[0]
    model_named = last(
        calls, "rename", f"{run}/model.partial {run}/model", last(calls, "fsync", str(run), named)
    )
    for name in files:
        last(calls, "fsync", f"{run}/model.partial/{name}", model_named)
    last(calls, "fsync", f"{run}/model.partial", model_named)


def test_model_and_figures_are_on_the_disk_before_checkpoints_are_removed(
    small_config, tmp_path, calls
):
    run = train(small_config(tmp_path))
    assert_published_before_checkpoints_go(
        calls, run, [path.name for path in (run / "model").iterdir()]
    )
    drawn = min(
        number
        for number, (call, path) in enumerate(calls)
        if call == "rename" and path.endswith(".png")
    )
    assert last(calls, "rename", f"{run}/metrics.json") < drawn
    assert last(calls, "rename", f"{run}/report.json") < last(
        calls, "rename", f"{run}/metrics.json"
    )


def test_checkpoint_and_its_name_are_on_the_disk_before_the_one_before_it_is_removed(
    small_config, tmp_path, calls
):
    training = {
        "num_train_epochs": 1,
        "max_steps": 3,
        "per_device_train_batch_size": 40,
        "bf16": False,
    }
    once = {
        "save_strategy": "steps",
        "save_steps": 1,
        "save_total_limit": 2,
        "load_best_model_at_end": False,
        "eval_strategy": "no",
    }
    run = train(small_config(tmp_path, training=training | once))
    removed = last(calls, "remove", "checkpoints/checkpoint-1")
    folder = last(calls, "fsync", f"{run}/checkpoints", removed)
    named = last(
        calls, "rename", "checkpoint-3.partial " + str(run / "checkpoints/checkpoint-3"), folder
    )
    for name in ("checkpoint-3.partial", "model.safetensors", "optimizer.pt", "whole.json"):
        assert "checkpoint-3.partial" in calls[last(calls, "fsync", name, named)][1]


def test_checkpoints_that_a_kill_left_go_when_model_and_figures_are_on_the_disk(copied_run, calls):
    config, run = copied_run
    (run / "checkpoints/checkpoint-4").mkdir(parents=True)
    values = load_config(str(config))
    fingerprint = json.loads((run / "environment.json").read_text(encoding="utf-8"))["data"][
        "fingerprint"
    ]
    assert is_finished(run, with_hardware_defaults(values).to_dict(), fingerprint)
    removed = last(calls, "remove", f"{run}/checkpoints")
    for name in (f"{run}/model/model.safetensors", f"{run}/model", f"{run}/metrics.json", str(run)):
        last(calls, "fsync", name, removed)


def test_ensemble_completes_itself_and_its_members_without_training(
    small_config, tmp_path, calls, capsys, monkeypatch
):
    config = small_config(tmp_path, ensemble={"size": 2}, decision={})
    run = train(config)
    for folder in (run / "member-1", run / "member-2"):
        assert_published_before_checkpoints_go(calls, folder, ["model.safetensors", "config.json"])
    first_drawn = min(
        number
        for number, (call, path) in enumerate(calls)
        if call == "rename" and path.endswith(f"{run}/confusion_matrix.png")
    )
    assert last(calls, "fsync", str(run), first_drawn) > last(
        calls, "rename", f" {run}/metrics.json"
    )
    wanted = {
        name: (run / name).read_bytes()
        for name in (
            "README.md",
            "confusion_matrix.png",
            "member-2/README.md",
            "member-2/learning_curves.png",
        )
    }
    for name in wanted:
        (run / name).unlink()
    capsys.readouterr()
    monkeypatch.setattr(RunTrainer, "training_step", out_of_memory)
    train(config)
    said = capsys.readouterr().out
    assert (
        "Nothing is trained; these missing files were written: README.md, confusion_matrix.png,"
        " member-2/README.md, member-2/learning_curves.png." in said
    )
    assert {name: (run / name).read_bytes() for name in wanted} == wanted
    (run / "metrics.json").unlink()
    shutil.move(run / "member-2/predictions.parquet", tmp_path)
    with pytest.raises(
        RunError,
        match=(
            r"member-2: lacks predictions\.parquet, which the vote needs and only training "
            r"can write\."
        ),
    ):
        train(config)
    shutil.move(tmp_path / "predictions.parquet", run / "member-2")
    (run / "metrics.json").unlink(
        missing_ok=True
    )  # as where the ensemble was stopped after its members
    (run / "member-1/README.md").unlink()
    train(config)
    assert (run / "member-1/README.md").is_file()
    assert (run / "README.md").read_bytes() == wanted["README.md"]


def test_pictures_that_take_too_much_memory_cost_no_run_and_report_makes_them_later(
    small_config, tmp_path, monkeypatch, caplog, capsys
):
    config, run = small_config(tmp_path), tmp_path / "runs/run"
    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "write_figure", out_of_memory)
        patch.setattr(card, "render", out_of_memory)
        train_command(config=str(config), set_=[], resume="auto", check=False)  # exits with no code
    names = {path.name for path in run.iterdir()}
    assert {"model", "metrics.json", "report.json", "predictions.parquet", "report.html"} <= names
    assert not names & {*PICTURES, "README.md", "checkpoints"}
    for name in (*PICTURES, "README.md"):
        told = (
            f"{run / name}: not written: MemoryError. The model and its figures do not need it;"
            f" repeat with: equipoise report {run}"
        )
        assert told in caplog.messages
    capsys.readouterr()
    report_command(runs=[run], output=None, no_texts=False)
    assert {*PICTURES, "README.md"} <= {path.name for path in run.iterdir()}
    assert (
        f"{run}: it lacked, and now has: {', '.join(sorted(['README.md', *PICTURES]))}."
        in capsys.readouterr().out
    )


def test_nothing_that_is_made_beside_the_model_fails_a_run(
    small_config, tmp_path, monkeypatch, caplog
):
    from trainer.runs import results

    monkeypatch.setattr(results, "report_facts", out_of_memory)
    monkeypatch.setattr(results, "write_mistakes", out_of_memory)
    monkeypatch.setattr(RunFolder, "write_predictions", out_of_memory)
    monkeypatch.setattr(report_page, "render", out_of_memory)
    run = train(small_config(tmp_path))
    failed = [
        Path(message.partition(": not written: MemoryError.")[0]).name
        for message in caplog.messages
        if ": not written: MemoryError." in message
    ]
    assert failed == ["report.json", "predictions.parquet", "mistakes.jsonl"]
    assert any(
        "report.html was not written: MemoryError." in message for message in caplog.messages
    )
    assert (
        f"{run}/predictions.parquet is missing and only training can write it: the page has no"
        " intervals, curves and mistakes." in caplog.messages
    )
    assert {"metrics.json", "model", "confusion_matrix.png", "learning_curves.png"} <= {
        path.name for path in run.iterdir()
    }


def test_run_killed_while_pictures_are_drawn_is_completed_by_the_same_command_without_training(
    small_config, tmp_path, whole_run
):
    config, log, run = small_config(tmp_path), tmp_path / "log", tmp_path / "runs/run"
    assert forked_runs.train(config, log, strike=("picture", 2, [signal.SIGKILL])) == [
        -signal.SIGKILL
    ], log.read_text()
    names = {path.name for path in run.iterdir()}
    assert {"metrics.json", "model", "class_distribution.png", "learning_curves.png"} <= names
    assert not names & {"checkpoints", "confusion_matrix.png", "README.md", "report.html"}
    weights = (run / "model/model.safetensors").stat().st_mtime_ns
    log.unlink()
    assert forked_runs.train(config, log, strike=("step", 1, [signal.SIGKILL])) == [0], (
        log.read_text()
    )
    lacked = "README.md, confusion_matrix.png, reliability.png, report.html"
    assert (
        f"{run}: holds the finished run of this config and data. Nothing is trained; these missing"
        f" files were written: {lacked}." in log.read_text()
    )
    assert (run / "model/model.safetensors").stat().st_mtime_ns == weights
    assert {path.name for path in run.iterdir()} == {path.name for path in whole_run[1].iterdir()}
    for name in PICTURES:
        assert (run / name).read_bytes() == (whole_run[1] / name).read_bytes()
    log.unlink()
    assert forked_runs.train(config, log) == [0]
    assert "nothing to do" in log.read_text()


def test_card_and_pictures_that_are_made_later_are_those_of_the_training(copied_run, whole_run):
    _, run = copied_run
    for name in (*PICTURES, "README.md"):
        (run / name).unlink()
    assert set(completion.complete(run)) == {*PICTURES, "README.md"}
    for name in (*PICTURES, "README.md"):
        assert (run / name).read_bytes() == (whole_run[1] / name).read_bytes()
    assert completion.complete(run) == []


def test_what_only_training_can_write_is_said(copied_run, caplog):
    _, run = copied_run
    for name in ("predictions.parquet", "report.json", "mistakes.jsonl"):
        (run / name).unlink()
    completion.complete(run)
    assert [
        message.partition(" is missing and only training can write it: ")[0]
        for message in caplog.messages
    ] == [str(run / name) for name in ("predictions.parquet", "report.json", "mistakes.jsonl")]


def test_two_that_write_the_same_file_do_not_mix_and_what_dead_ones_left_is_removed(tmp_path):
    target = tmp_path / "report.html"
    with durable.aside(target) as first, durable.aside(target) as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert target.read_text() == "first"  # the outer one ended last
    left = first.with_name(first.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
    alive = first.with_name(first.name.replace(f"-{os.getpid()}-", f"-{os.getppid()}-"))
    for path in (left, alive):
        path.write_text("half")
    (tmp_path / ".notes.partial").write_text("of another")
    RunFolder(tmp_path).write_text("report.html", "third")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [".notes.partial", alive.name, "report.html"]
    )


def test_file_that_is_not_written_to_its_end_leaves_the_one_before(tmp_path):
    folder = RunFolder(tmp_path)
    folder.write_text("a.json", "{}")
    with pytest.raises(TypeError, match="not JSON serializable"):
        folder.write_lines("a.json", [{"row": 1}, {"row": folder}])
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.json", "{}")]


def test_file_system_without_fsync_is_written_to_all_the_same(tmp_path, monkeypatch):
    def refuse(number):
        def fsync(descriptor):
            raise OSError(number, os.strerror(number))

        return fsync

    monkeypatch.setattr(os, "fsync", refuse(22))
    RunFolder(tmp_path).write_text("a.json", "{}")
    monkeypatch.setattr(os, "fsync", refuse(5))
    with pytest.raises(OSError, match="Input/output error"):
        RunFolder(tmp_path).write_text("b.json", "{}")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_tracker_that_fails_costs_no_run_and_ends_when_the_run_is_saved(
    small_config, tmp_path, monkeypatch, caplog
):
    from transformers import TrainerCallback
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    found = {}

    class FailingCallback(TrainerCallback):
        def on_log(self, args, state, control, **kwargs):
            raise ConnectionError("no answer")

        def on_train_end(self, args, state, control, **kwargs):
            found.update({path.name: path for path in Path(args.output_dir).parent.iterdir()})
            raise ConnectionError("no room")

    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "dvclive", FailingCallback)
    monkeypatch.setitem(TRACKERS, "dvclive", ("json", "dvclive"))
    training = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 40,
        "bf16": False,
        "report_to": "dvclive",
        "logging_steps": 1,
    }
    train(small_config(tmp_path, training=training))
    assert {"metrics.json", "model", "README.md"} <= found.keys()
    ends = "Training continues; the tracker may lack values or files."
    assert [message for message in caplog.messages if "failed (" in message] == [
        f"Tracker dvclive failed (on_log): no answer. {ends}",
        f"Tracker dvclive failed (results): no answer. {ends}",
        f"Tracker dvclive failed (on_train_end): no room. {ends}",
    ]
    facts = json.loads((tmp_path / "runs/run/report.json").read_text(encoding="utf-8"))
    line = re.compile(r"tracker dvclive: [2-9] failures; it may lack values or files")
    assert len(list(filter(line.fullmatch, facts["training"]))) == 1


def test_run_with_overwrite_is_completed_if_its_pictures_are_missing_and_else_trains_again(
    small_config, tmp_path
):
    config = small_config(
        tmp_path,
        run={
            "name": "run",
            "output_dir": str(tmp_path / "runs"),
            "num_threads": 1,
            "overwrite": True,
        },
    )
    log, run = tmp_path / "log", tmp_path / "runs/run"
    assert forked_runs.train(config, log, strike=("picture", 2, [signal.SIGKILL])) == [
        -signal.SIGKILL
    ], log.read_text()
    log.unlink()
    assert forked_runs.train(config, log, strike=("step", 1, [signal.SIGKILL])) == [0], (
        log.read_text()
    )
    assert "Nothing is trained; these missing files were written: " in log.read_text()
    assert (run / "report.html").is_file()
    log.unlink()
    assert forked_runs.train(config, log, strike=("step", 1, [signal.SIGKILL])) == [
        -signal.SIGKILL
    ], log.read_text()


def test_tables_that_cannot_be_printed_cost_no_predictions(
    small_config, tmp_path, monkeypatch, caplog
):
    monkeypatch.setattr(tables, "print_results", out_of_memory)
    run = train(small_config(tmp_path))
    assert "tables of the results: not written: " in caplog.text
    assert (run / "predictions.parquet").is_file()
    assert (run / "report.html").is_file()


def test_what_dead_processes_left_in_a_finished_run_is_removed(copied_run):
    config, run = copied_run
    staged = run / "upload.partial/4"
    staged.mkdir(parents=True)
    (staged / "model.safetensors").write_bytes(b"x")
    with durable.aside(run / "predictions.parquet") as partial:
        shutil.copy(
            run / "metrics.json",
            partial.with_name(partial.name.replace(f"-{os.getpid()}-", f"-{2**22 + 1}-")),
        )
        shutil.copy(run / "predictions.parquet", partial)
    (run / "model.partial").mkdir()
    train(config)
    assert [path.name for path in run.iterdir() if "partial" in path.name] == []


def test_names_of_the_folders_of_a_run_are_on_the_disk(small_config, tmp_path, calls):
    run = train(small_config(tmp_path))
    assert {str(run.parent), str(run.parent.parent)} <= {
        path for call, path in calls if call == "fsync"
    }


def test_members_and_ensemble_have_their_predictions_when_they_are_finished(
    small_config, tmp_path, monkeypatch
):
    finish, found = RunFolder.finish, []

    def watched(self, metrics):
        found.append((self.path.name, (self.path / "predictions.parquet").is_file()))
        finish(self, metrics)

    monkeypatch.setattr(RunFolder, "finish", watched)
    train(small_config(tmp_path, ensemble={"size": 2}))
    assert found == [("member-1", True), ("member-2", True), ("run", True)]
