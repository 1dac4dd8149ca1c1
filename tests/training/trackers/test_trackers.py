"""What real trackers hold after a run: read back from their files."""

import csv
import json
import os
import shutil
import struct
import subprocess
import sys

import pytest
from small_runs import train

from trainer import load_config
from trainer.comparison.compare import compare
from trainer.errors import Stopped
from trainer.launch import stopping
from trainer.training.run_trainer import RunTrainer

PICTURES = {"class_distribution", "confusion_matrix", "learning_curves", "reliability"}
CLASSES = ("negative", "neutral", "positive")


class TensorBoardLogs:
    """{run: figures}, as names with slashes; the last value of each."""

    def __init__(self, logs):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        self.runs = {}
        for events in sorted((logs / "tensorboard").rglob("events.out.tfevents.*")):
            run = str(events.parent.relative_to(logs / "tensorboard"))
            if run not in self.runs:
                self.runs[run] = EventAccumulator(str(events.parent), {"images": 0}).Reload()

    def figures(self, run):
        events = self.runs[run]
        return {tag: events.Scalars(tag)[-1].value for tag in events.Tags()["scalars"]}

    def steps(self, run, tag):
        return [event.step for event in self.runs[run].Scalars(tag)]

    def pictures(self, run):
        return {tag.removeprefix("pictures/") for tag in self.runs[run].Tags()["images"]}

    def parameters(self, run):
        text = self.runs[run].Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
        return dict(line.strip().split(": ", 1) for line in text.splitlines())


class MLflowLogs:
    def __init__(self, logs):
        from mlflow import MlflowClient

        self.client = MlflowClient((logs / "mlflow").as_uri())
        experiment = self.client.get_experiment_by_name("equipoise").experiment_id
        self.runs = {run.info.run_name: run for run in self.client.search_runs([experiment])}

    def figures(self, run):
        metrics = self.runs[run].data.metrics
        return {
            name.replace("eval_", "eval/", 1).replace("test_", "test/", 1): value
            for name, value in metrics.items()
        }

    def steps(self, run, tag):
        found = self.client.get_metric_history(
            self.runs[run].info.run_id, tag.replace("train/", "").replace("eval/", "eval_")
        )
        return sorted(metric.step for metric in found)

    def pictures(self, run):
        found = self.client.list_artifacts(self.runs[run].info.run_id, "pictures")
        return {file.path.removeprefix("pictures/").removesuffix(".png") for file in found}

    def parameters(self, run):
        return self.runs[run].data.params


class TrackioLogs:
    def __init__(self, logs):
        from trackio.sqlite_storage import SQLiteStorage

        assert [path.name for path in (logs / "trackio").glob("*.db")] == ["equipoise.db"]
        self.storage = SQLiteStorage
        self.runs = SQLiteStorage.get_runs("equipoise")

    def entries(self, run):
        return self.storage.get_logs("equipoise", run)

    def figures(self, run):
        return {
            name: value
            for entry in self.entries(run)
            for name, value in entry.items()
            if isinstance(value, int | float)
        }

    def steps(self, run, tag):
        return [entry["train/global_step"] for entry in self.entries(run) if tag in entry]

    def pictures(self, run):
        return {
            name.removeprefix("pictures/")
            for entry in self.entries(run)
            for name in entry
            if name.startswith("pictures/")
        }

    def parameters(self, run):
        return {
            name: str(value)
            for name, value in self.storage.get_run_config("equipoise", run).items()
        }


class WandbLogs:
    """The files of offline runs, before `wandb sync`."""

    def __init__(self, logs):
        self.runs = {}
        for folder in sorted((logs / "wandb").glob("offline-run-*")):
            name, records = _wandb_records(folder)
            self.runs[name] = [*self.runs.get(name, []), *records]

    def figures(self, run):
        return {
            name: value
            for record in self.runs[run]
            if record.HasField("history")
            for name, value in _items(record.history.item)
            if isinstance(value, int | float)
        }

    def steps(self, run, tag):
        return [
            dict(_items(record.history.item))["train/global_step"]
            for record in self.runs[run]
            if record.HasField("history") and tag in dict(_items(record.history.item))
        ]

    def pictures(self, run):
        return {
            name.split("/")[1]
            for record in self.runs[run]
            if record.HasField("history")
            for name, _ in _items(record.history.item)
            if name.startswith("pictures/")
        }

    def parameters(self, run):
        return {
            name: str(value)
            for record in self.runs[run]
            if record.HasField("config")
            for name, value in _items(record.config.update)
        }


def _items(items):
    return [("/".join(item.nested_key) or item.key, json.loads(item.value_json)) for item in items]


def _wandb_records(folder):
    """Name of the run and records of its file, which has the log format of LevelDB."""
    from wandb.proto import wandb_internal_pb2

    content = next(folder.glob("*.wandb")).read_bytes()
    place, record, records = 7, b"", []  # after the header of the file
    while place + 7 <= len(content):
        left = 32768 - place % 32768
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        if left < 7 or kind == 0:
            place += left
            continue
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the end of one
            records.append(wandb_internal_pb2.Record.FromString(record))
            record = b""
    name = next(each.run.display_name for each in records if each.HasField("run"))
    return name, records


READERS = {
    "mlflow": MLflowLogs,
    "tensorboard": TensorBoardLogs,
    "trackio": TrackioLogs,
    "wandb": WandbLogs,
}


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in list(os.environ):
        if name.startswith(("MLFLOW_", "WANDB_", "TRACKIO_", "TENSORBOARD_")):
            monkeypatch.delenv(name)
    yield
    for name in ("MLFLOW_ALLOW_FILE_STORE", "WANDB_CONSOLE", "WANDB_DISABLE_GIT"):
        os.environ.pop(name, None)


def settings(tracker, **training):
    return {
        "num_train_epochs": 2,
        "per_device_train_batch_size": 40,
        "learning_rate": 1e-3,
        "bf16": False,
        "report_to": tracker,
    } | training


def run_name(tracker, name):
    """The single run of a folder is nameless in TensorBoard: its name is the folder's."""
    return "." if tracker == "tensorboard" else name


def assert_no_texts(logs, tweets):
    with tweets.open(encoding="utf-8", newline="") as file:
        texts = [row["text"].encode() for row in csv.DictReader(file) if len(row["text"]) > 25]
    for path in filter(lambda path: path.is_file(), logs.rglob("*")):
        content = path.read_bytes()
        assert not [text for text in texts if text in content], path


def check_run(tracker, small_config, tmp_path, tweets):
    pytest.importorskip(tracker)
    folder = train(small_config(tmp_path, training=settings([tracker])))
    logs, name = READERS[tracker](folder / "logs"), run_name(tracker, "run")
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    figures, test = logs.figures(name), metrics["decision"]["test"]
    assert figures["test/macro_f1"] == pytest.approx(test["macro_f1"], rel=1e-6)
    for label in CLASSES:
        assert figures[f"test/f1/{label}"] == pytest.approx(test["per_class"][label]["f1"])
    assert len(logs.steps(name, "eval/macro_f1")) == 2
    assert logs.pictures(name) == PICTURES
    parameters = logs.parameters(name)
    assert (parameters["run.name"], parameters["split.train"]) == ("run", "0.6")
    assert_no_texts(folder / "logs", tweets)


def test_tensorboard_holds_curve_results_config_and_pictures_but_no_texts(
    small_config, tmp_path, tweets
):
    check_run("tensorboard", small_config, tmp_path, tweets)


@pytest.mark.exhaustive
@pytest.mark.parametrize("tracker", ["mlflow", "trackio", "wandb"])
def test_tracker_holds_curve_results_config_and_pictures_but_no_texts(
    tracker, small_config, tmp_path, tweets
):
    check_run(tracker, small_config, tmp_path, tweets)


@pytest.mark.exhaustive
@pytest.mark.parametrize("tracker", sorted(READERS))
def test_resumed_run_continues_the_run_of_the_tracker(tracker, small_config, tmp_path, monkeypatch):
    pytest.importorskip(tracker)
    config = small_config(
        tmp_path, training=settings(tracker, logging_strategy="steps", logging_steps=1)
    )
    plain, seen = RunTrainer.training_step, []

    def stop_at_fifth_step(self, *args, **kwargs):
        seen.append(None)
        if len(seen) == 5:
            raise Stopped("stopped by the test", 4)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(RunTrainer, "training_step", stop_at_fifth_step)
    with stopping.listening(), pytest.raises(Stopped):
        train(config)
    folder = train(config)
    logs = READERS[tracker](folder / "logs")
    assert len(logs.runs) == 1
    steps = logs.steps(run_name(tracker, "run"), "train/loss")
    assert sorted(set(steps)) == list(range(1, max(steps) + 1))


@pytest.mark.exhaustive
@pytest.mark.parametrize("tracker", sorted(READERS))
def test_head_is_tracked_fit_by_fit(tracker, small_config, narrow_model, tmp_path, tweets):
    pytest.importorskip(tracker)
    model = {"name": str(narrow_model), "max_length": 16, "mode": "head"}
    folder = train(small_config(tmp_path, model=model, training=settings(tracker)))
    logs, name = READERS[tracker](folder / "logs"), run_name(tracker, "run")
    assert len(logs.steps(name, "eval/macro_f1")) == 5  # one for each strength of L2_GRID
    assert {"test/macro_f1", *(f"test/recall/{label}" for label in CLASSES)} <= logs.figures(
        name
    ).keys()
    assert logs.pictures(name) == PICTURES
    assert_no_texts(folder / "logs", tweets)


@pytest.mark.exhaustive
@pytest.mark.parametrize("tracker", sorted(READERS))
def test_members_and_vote_of_an_ensemble_share_the_logs(tracker, small_config, tmp_path):
    pytest.importorskip(tracker)
    sections = {"training": settings(tracker, num_train_epochs=1), "decision": {}}
    folder = train(small_config(tmp_path, ensemble={"size": 2}, **sections))
    logs = READERS[tracker](folder / "logs")
    names = ["member-1", "member-2", "vote"]
    if tracker != "tensorboard":
        names = [f"run {name}" for name in names]
    assert sorted(logs.runs) == names
    assert all("test/macro_f1" in logs.figures(name) for name in names)
    assert "confusion_matrix" in logs.pictures(names[-1])
    again = train(small_config(tmp_path, ensemble={"size": 2}, **sections))
    assert sorted(READERS[tracker](again / "logs").runs) == names


@pytest.mark.exhaustive
@pytest.mark.parametrize("tracker", sorted(READERS))
@pytest.mark.parametrize("mode", ["full", "head"])
def test_trainings_of_a_comparison_share_the_logs(
    tracker, mode, small_config, narrow_model, tmp_path
):
    pytest.importorskip(tracker)
    config = small_config(
        tmp_path,
        model={"name": str(narrow_model), "max_length": 16, "mode": mode},
        training=settings(tracker, num_train_epochs=1),
        compare={"strategies": ["none", "class_weights"], "seeds": 1},
    )
    folder = compare(load_config(str(config)))
    logs = READERS[tracker](folder / "logs")
    names = ["class_weights/seed-42", "none/seed-42"]
    if tracker != "tensorboard":
        names = [f"run-compare {name.replace('/', ' ')}" for name in names]
    assert sorted(logs.runs) == names
    for name in names:
        assert {f"eval/final/f1/{label}" for label in CLASSES} <= logs.figures(name).keys()


def test_run_without_trackers_has_no_logs_and_removes_those_of_an_earlier_run(whole_run, tmp_path):
    config, folder = whole_run
    assert not (folder / "logs").exists()
    shutil.copytree(folder, tmp_path / "runs/run")
    (tmp_path / "runs/run/logs/tensorboard").mkdir(parents=True)
    train(
        config,
        **{"run.output_dir": tmp_path / "runs", "run.overwrite": "true", "run.seed": 7},
    )
    assert not (tmp_path / "runs/run/logs").exists()


FAILING = """
import sys
from pathlib import Path
from types import SimpleNamespace

from transformers import TrainerControl, TrainerState, TrainingArguments
from trainer.training.trackers.tracked_run import TrackedRun
from trainer.training.trackers.trackers import Trackers

arguments = TrainingArguments("out", report_to="none")
arguments.project = "equipoise"
model = SimpleNamespace(config=SimpleNamespace(to_dict=dict))
trackers = Trackers("mlflow", TrackedRun("first", Path(sys.argv[1]), {}))
trackers.on_train_begin(
    arguments, TrainerState(is_world_process_zero=True), TrainerControl(), model=model
)
assert not trackers.failures
sys.exit(2)
"""


def test_run_that_fails_is_not_finished_for_its_tracker(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    command = [sys.executable, "-c", FAILING, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert MLflowLogs(tmp_path).runs["first"].info.status == "FAILED"
