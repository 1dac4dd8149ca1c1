"""Runs of a real small model on real tweets: the run folder, and the same command again."""

import csv
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from conftest import ROOT

pytestmark = pytest.mark.slow

METRICS = [
    "num_rows",
    "loss",
    "accuracy",
    "macro_f1",
    "weighted_f1",
    "f1_gap",
    "macro_precision",
    "macro_recall",
]
METRICS += [
    "balanced_accuracy",
    "mcc",
    "auroc_macro",
    "ece",
    "brier",
    "labels",
    "confusion_matrix",
    "per_class",
]
FILES = [
    "README.md",
    "class_distribution.png",
    "class_weights.json",
    "config.yaml",
    "confusion_matrix.png",
    "dropped.jsonl",
    "environment.json",
    "epochs.csv",
]
FILES += [
    "learning_curves.png",
    "metrics.json",
    "mistakes.jsonl",
    "model",
    "predictions.parquet",
    "report.html",
    "report.json",
    "splits.json",
]


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def without_timings(metrics):
    return {key: value for key, value in metrics.items() if key != "training"} | {
        "steps": metrics["training"]["steps"]
    }


@pytest.fixture(scope="module")
def make_config(tmp_path_factory, tiny_model, tweets):
    """Function (folder name, **training) -> YAML of a two-epoch run with balanced class weights."""

    def make(name, tmp_path=None, **training):
        folder = tmp_path or tmp_path_factory.mktemp(name)
        folder.mkdir(exist_ok=True)
        values = {
            "run": {"name": "run", "output_dir": str(folder / "runs")},
            "model": {"name": str(tiny_model), "max_length": 64},
            "data": {"source": str(tweets), "label_column": "sentiment"},
            "split": {"train": 0.7, "validation": 0.15, "test": 0.15},
            "balance": {"method": "undersample", "resample_each_epoch": True},
            "loss": {"class_weights": {"positive": 2}},
            "training": {
                "num_train_epochs": 2,
                "per_device_train_batch_size": 16,
                "learning_rate": 1e-4,
                **training,
            },
        }
        path = folder / "config.yaml"
        path.write_text(json.dumps(values), encoding="utf-8")
        return path

    return make


@pytest.fixture(scope="module")
def finished(make_config, run_cli):
    """(config, run folder, process) of a finished run."""
    config = make_config("finished")
    done = run_cli("train", "--config", config)
    assert done.returncode == 0, done.stderr
    return config, config.parent / "runs/run", done


def test_run_folder_holds_every_file_and_no_checkpoint(finished):
    assert sorted(p.name for p in finished[1].iterdir()) == sorted(FILES)


def test_model_folder_holds_safetensors_and_nothing_pickled(finished):
    names = {p.name for p in (finished[1] / "model").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= names
    assert not [name for name in names if name.endswith((".bin", ".pt", ".pkl"))]


def test_metrics_hold_the_documented_names(finished):
    metrics = read_json(finished[1] / "metrics.json")
    assert sorted(metrics) == ["minority_label", "test", "training", "validation"]
    assert list(metrics["test"]) == METRICS
    assert list(metrics["validation"]) == METRICS
    assert sorted(metrics["training"]) == [
        "length",
        "peak_memory_bytes",
        "peak_memory_of",
        "rows_per_second",
        "seconds",
        "steps",
    ]
    assert metrics["minority_label"] == "positive"


def test_predictions_give_the_metrics_again(finished):
    table = pq.read_table(finished[1] / "predictions.parquet").to_pandas()
    metrics, splits = (
        read_json(finished[1] / "metrics.json"),
        read_json(finished[1] / "splits.json"),
    )
    for split in ("validation", "test"):
        part = table[table["split"] == split]
        assert sorted(part["row"]) == splits[split]
        assert (part["label"] == part["predicted"]).mean() == pytest.approx(
            metrics[split]["accuracy"]
        )
        chances = part[
            ["probability_negative", "probability_neutral", "probability_positive"]
        ].to_numpy()
        assert chances.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_plain_pipeline_gives_the_labels_of_the_predictions_file(finished, tweets):
    from transformers import pipeline

    table = pq.read_table(finished[1] / "predictions.parquet").to_pandas()
    with tweets.open(encoding="utf-8", newline="") as file:
        texts = [row["text"].strip() for row in csv.DictReader(file)]
    classify = pipeline("text-classification", str(finished[1] / "model"))
    found = classify([texts[row] for row in table["row"]], truncation=True)
    assert [f["label"] for f in found] == table["predicted"].tolist()
    best = table[["probability_negative", "probability_neutral", "probability_positive"]].max(
        axis=1
    )
    assert [f["score"] for f in found] == pytest.approx(best.tolist(), abs=1e-4)


def test_epoch_table_has_the_documented_columns_in_terminal_and_file(finished):
    lines = (finished[1] / "epochs.csv").read_text().splitlines()
    assert lines[0].startswith("training_loss,epoch,step,validation_loss,accuracy,macro_f1")
    assert len(lines) == 3
    assert "Training Loss  Epoch  Step  Validation Loss  Accuracy  Macro F1" in finished[2].stdout


def test_best_epoch_is_the_model_that_is_kept(finished):
    with (finished[1] / "epochs.csv").open() as file:
        best = max(float(row["macro_f1"]) for row in csv.DictReader(file))
    assert read_json(finished[1] / "metrics.json")["validation"]["macro_f1"] == pytest.approx(
        best, abs=0.03
    )  # epochs may be measured in bfloat16


def test_class_weights_are_saved_with_mean_one_over_the_rows_drawn(finished):
    weights = read_json(
        finished[1] / "class_weights.json"
    )  # undersampled: as many rows of each class
    assert weights == pytest.approx({"negative": 0.75, "neutral": 0.75, "positive": 1.5})


def test_card_parses_with_hub_metadata_and_the_results(finished):
    from huggingface_hub import ModelCard

    card = ModelCard.load(finished[1] / "README.md")
    metrics = read_json(finished[1] / "metrics.json")
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values["Macro F1"] == pytest.approx(metrics["test"]["macro_f1"], abs=1e-6)
    assert card.data.pipeline_tag == "text-classification"
    assert "undersample" in card.text
    assert "resampled every epoch" in card.text


def test_config_yaml_of_the_run_trains_again_to_identical_weights_and_metrics(
    finished, run_cli, tmp_path
):
    done = run_cli(
        "train", "--config", finished[1] / "config.yaml", "--set", f"run.output_dir={tmp_path}"
    )
    assert done.returncode == 0, done.stderr
    again = tmp_path / "run"
    assert digest(again / "model/model.safetensors") == digest(
        finished[1] / "model/model.safetensors"
    )
    assert (again / "epochs.csv").read_text() == (finished[1] / "epochs.csv").read_text()
    assert without_timings(read_json(again / "metrics.json")) == without_timings(
        read_json(finished[1] / "metrics.json")
    )


def test_finished_run_is_not_started_again_without_overwrite(finished, run_cli):
    before = digest(finished[1] / "metrics.json")
    done = run_cli("train", "--config", finished[0])
    assert done.returncode == 0
    assert (
        "holds the finished run of this config and data: nothing to do. Set run.overwrite: true"
        in done.stdout
    )
    changed = run_cli(
        "train",
        "--config",
        finished[0],
        "--set",
        "training.learning_rate=3e-5",
        "--set",
        "run.seed=1",
    )
    assert changed.returncode == 2
    assert (
        "run.seed is 42 there, 1 here; training.learning_rate is 0.0001 there, 3e-05 here"
        in changed.stderr
    )
    assert digest(finished[1] / "metrics.json") == before


def start_and_kill_after_first_epoch(config, *arguments):
    """Start a run, SIGKILL it once its first checkpoint is whole; gives the run folder."""
    folder = config.parent / "runs/run"
    command = [sys.executable, "-m", "trainer", "train", "--config", str(config), *arguments]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=ROOT, env=os.environ
    )
    for _ in range(2400):
        if list(folder.glob("checkpoints/checkpoint-*[0-9]/whole.json")):
            break
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "metrics.json").exists()
    return folder


@pytest.fixture
def killed(make_config, tmp_path):
    config = make_config("killed", tmp_path)
    return config, start_and_kill_after_first_epoch(config)


def test_killed_run_resumes_to_the_weights_and_table_of_the_unbroken_run(killed, finished, run_cli):
    config, folder = killed
    other = run_cli("train", "--config", config, "--set", "training.learning_rate=3e-5")
    assert other.returncode == 2
    assert (
        "holds an unfinished run that differs: training.learning_rate is 0.0001 there, 3e-05 here"
        in other.stderr
    )
    done = run_cli("train", "--config", config, "--set", "run.overwrite=true")
    assert done.returncode == 0, done.stderr
    assert "Resuming" in done.stdout
    assert digest(folder / "model/model.safetensors") == digest(
        finished[1] / "model/model.safetensors"
    )
    assert (folder / "epochs.csv").read_text() == (finished[1] / "epochs.csv").read_text()
    assert without_timings(read_json(folder / "metrics.json")) == without_timings(
        read_json(finished[1] / "metrics.json")
    )


@pytest.mark.exhaustive
def test_truncated_checkpoint_is_not_resumed_and_resume_never_starts_anew(killed, run_cli):
    from trainer.training.resuming.checkpoints import newest_whole

    config, folder = killed
    whole = newest_whole(folder / "checkpoints")
    weights = whole / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert newest_whole(folder / "checkpoints") is None
    done = run_cli(
        "train", "--config", config, "--resume", "never", "--set", "training.num_train_epochs=1"
    )
    assert done.returncode == 0, done.stderr
    assert "Resuming" not in done.stdout
    assert (folder / "metrics.json").exists()


@pytest.mark.exhaustive
def test_overwrite_replaces_an_unfinished_run_of_another_config(killed, run_cli):
    config, folder = killed
    done = run_cli(
        "train",
        "--config",
        config,
        "--set",
        "run.overwrite=true",
        "--set",
        "training.num_train_epochs=1",
    )
    assert done.returncode == 0, done.stderr
    assert "Resuming" not in done.stdout
    assert len((folder / "epochs.csv").read_text().splitlines()) == 2


def launch(config, *arguments, num_processes=2, script="scripts/train.py", **environment):
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        str(num_processes),
        "--num_machines",
        "1",
    ]
    command += [
        "--main_process_port",
        "0",
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        str(ROOT / script),
        "--config",
        str(config),
        *arguments,
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ROOT,
        env={**os.environ, **environment},
        check=False,
    )


def test_two_processes_finish_one_run_and_a_wrong_number_is_refused(make_config, tmp_path):
    config = make_config("two", tmp_path, bf16=False)
    wrong = launch(config, "--set", "run.num_processes=3", ACCELERATE_USE_CPU="true")
    assert wrong.returncode != 0
    ours = "run.num_processes is 3, but 2 process(es) were launched."
    assert (
        0 <= wrong.stderr.index(ours) < wrong.stderr.index("Traceback")
    )  # the launcher's own traceback comes after
    assert not (tmp_path / "runs").exists()
    done = launch(config, "--set", "run.num_processes=2", ACCELERATE_USE_CPU="true")
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = read_json(tmp_path / "runs/run/metrics.json")
    table = pq.read_table(tmp_path / "runs/run/predictions.parquet").to_pandas()
    assert len(table) == metrics["validation"]["num_rows"] + metrics["test"]["num_rows"]
    assert done.stdout.count("Macro F1  Minority Recall") == 1


def test_run_that_stopped_early_and_was_killed_resumes_without_another_step(
    make_config, tmp_path, monkeypatch
):
    from trainer import load_config
    from trainer.runs import results, training_run

    still = {
        "learning_rate": 0.0,
        "num_train_epochs": 5,
        "early_stopping_patience": 1,
    }  # macro F1 never rises: stops after two epochs
    unbroken = training_run.train(
        load_config(str(make_config("unbroken", tmp_path / "a", **still)))
    )
    config = load_config(str(make_config("stopped", tmp_path / "b", **still)))
    monkeypatch.setattr(
        results, "evaluate_splits", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        training_run.train(config)
    monkeypatch.undo()
    resumed = training_run.train(config)
    assert len((resumed / "epochs.csv").read_text().splitlines()) == 3
    assert (resumed / "epochs.csv").read_text() == (unbroken / "epochs.csv").read_text()
    assert digest(resumed / "model/model.safetensors") == digest(
        unbroken / "model/model.safetensors"
    )
    assert without_timings(read_json(resumed / "metrics.json")) == without_timings(
        read_json(unbroken / "metrics.json")
    )


def test_loss_as_the_metric_keeps_the_epoch_of_the_lowest_loss(make_config, tmp_path):
    from trainer import load_config
    from trainer.runs import training_run

    config = make_config(
        "loss", tmp_path, metric_for_best_model="loss", learning_rate=5e-4, bf16=False
    )
    with (training_run.train(load_config(str(config))) / "epochs.csv").open() as file:
        losses = [float(row["validation_loss"]) for row in csv.DictReader(file)]
    assert losses[1] != losses[0]
    assert read_json(tmp_path / "runs/run/metrics.json")["validation"]["loss"] == pytest.approx(
        min(losses), abs=1e-4
    )
