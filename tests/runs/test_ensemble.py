"""Ensembles of a small real model: members, votes, and what starting again does."""

import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from trainer import Classifier
from trainer.run_folder.writer import remove_members

pytestmark = pytest.mark.slow


def predictions(folder, split):
    table = pq.read_table(folder / "predictions.parquet")
    return {row["row"]: row for row in table.to_pylist() if row["split"] == split}


@pytest.fixture(scope="module")
def folds(tmp_path_factory, tiny_model, tweets, run_cli):
    """(config, run folder, its metrics) of two folds that decide by mean probability."""
    folder = tmp_path_factory.mktemp("folds")
    values = {
        "run": {"name": "both", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 64},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "balance": {"method": "undersample"},
        "ensemble": {"size": 2, "kind": "folds"},
        "training": {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 16,
            "learning_rate": 3e-4,
            "bf16": False,
        },
    }
    config = folder / "config.yaml"
    config.write_text(json.dumps(values), encoding="utf-8")
    done = run_cli("train", "--config", config)
    assert done.returncode == 0, done.stderr
    return (
        config,
        folder / "both",
        json.loads((folder / "both/metrics.json").read_text(encoding="utf-8")),
    )


def test_each_row_outside_test_validates_once_and_is_judged_by_the_member_that_never_saw_it(folds):
    _, folder, metrics = folds
    members = [predictions(folder / f"member-{number}", "validation") for number in (1, 2)]
    together = predictions(folder, "validation")
    assert not members[0].keys() & members[1].keys()
    assert together.keys() == members[0].keys() | members[1].keys()
    assert metrics["validation"]["num_rows"] == len(together)
    for row, record in together.items():
        own = members[0].get(row) or members[1][row]
        assert record["predicted"] == own["predicted"]
    counts = [sorted(m["label"] for m in member.values()).count("positive") for member in members]
    assert abs(counts[0] - counts[1]) <= 1


def test_test_rows_are_the_same_for_all_and_decided_by_the_mean_probability(folds):
    _, folder, metrics = folds
    first, second, together = (
        predictions(path, "test") for path in (folder / "member-1", folder / "member-2", folder)
    )
    assert first.keys() == second.keys() == together.keys()
    right = 0
    for row, record in together.items():
        mean = {
            k: (first[row][k] + second[row][k]) / 2 for k in record if k.startswith("probability_")
        }
        assert record["predicted"] == max(mean, key=mean.get).removeprefix("probability_")
        np.testing.assert_allclose([record[k] for k in mean], list(mean.values()), atol=1e-6)
        right += record["predicted"] == record["label"]
    assert metrics["test"]["accuracy"] == pytest.approx(right / len(together))
    assert len(metrics["ensemble"]["member_macro_f1"]) == 2
    assert "An ensemble of 2 text classifiers" in (folder / "README.md").read_text(encoding="utf-8")


def test_the_ensemble_predicts_as_it_decided(folds, tweets):
    _, folder, _ = folds
    with tweets.open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    together = predictions(folder, "test")
    classifier = Classifier.load(folder)
    assert (len(classifier.models), classifier.vote) == (2, "mean")
    for record, found in zip(
        together.values(), classifier.predict([texts[row] for row in together]), strict=True
    ):
        assert found.label == record["predicted"]
        assert found.probabilities == pytest.approx(
            {label: record[f"probability_{label}"] for label in classifier.labels}, abs=1e-5
        )


@pytest.mark.exhaustive
def test_starting_again_keeps_finished_members_and_trains_the_missing_one(folds, run_cli, tmp_path):
    config, folder, metrics = folds
    again = run_cli("train", "--config", config)
    assert again.returncode == 0
    assert "holds the finished run of this config and data: nothing to do" in again.stdout
    copy = tmp_path / "both"
    shutil.copytree(folder, copy)
    (copy / "metrics.json").unlink()
    shutil.rmtree(copy / "member-2")
    kept = (copy / "member-1/metrics.json").stat().st_mtime_ns
    resumed = run_cli("train", "--config", config, "--set", f"run.output_dir={tmp_path}")
    assert resumed.returncode == 0, resumed.stderr
    assert "Member 1 of 2" not in resumed.stdout
    assert "Member 2 of 2" in resumed.stdout
    assert (copy / "member-1/metrics.json").stat().st_mtime_ns == kept
    found = json.loads((copy / "metrics.json").read_text(encoding="utf-8"))
    assert found["test"] == metrics["test"]  # bit-identical members give the same votes
    assert (
        f"model: {copy / 'member-1/model'} to {copy / 'member-2/model'})" in resumed.stdout
    )  # an ensemble has no model of its own


@pytest.mark.exhaustive
def test_other_rows_are_told_and_what_cannot_be_trained_replaces_nothing(folds, run_cli, tmp_path):
    config, folder, _ = folds
    copy = tmp_path / "both"
    shutil.copytree(folder, copy)
    here = ["--config", config, "--set", f"run.output_dir={tmp_path}"]
    refused = run_cli(
        "train", *here, "--set", "run.overwrite=true", "--set", "decision.prior={nobody: 1.0}"
    )
    assert refused.returncode == 2
    assert "decision.prior names nobody" in refused.stderr
    assert sorted(path.name for path in copy.iterdir()) == sorted(
        path.name for path in folder.iterdir()
    )
    environment = (copy / "environment.json").read_text(encoding="utf-8")
    fingerprint = json.loads(environment)["data"]["fingerprint"]
    assert (
        fingerprint
        == json.loads((copy / "member-2/environment.json").read_text(encoding="utf-8"))["data"][
            "fingerprint"
        ]
    )
    (copy / "environment.json").write_text(
        environment.replace(fingerprint, "0" * 32), encoding="utf-8"
    )
    again = run_cli("train", *here)
    assert again.returncode == 2
    assert "holds a finished run, and it differs: the rows of the data differ" in again.stderr


def test_members_that_a_smaller_ensemble_lacks_are_removed_and_nothing_else(tmp_path):
    for name in ("member-1", "member-2", "member-10", "member-x", "notes"):
        (tmp_path / name).mkdir()
    remove_members(tmp_path, above=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["member-1", "member-x", "notes"]


@pytest.mark.exhaustive
def test_members_of_one_split_draw_other_training_rows_and_share_all_others(
    tmp_path, config_file, run_cli
):
    for number, name in enumerate(("first", "second"), 1):
        config = config_file(ensemble={"size": 2, "member": number})
        done = run_cli("split", "--config", config, "--output", tmp_path / name)
        assert done.returncode == 0, done.stderr
    for split in ("train", "validation", "test"):
        assert (tmp_path / f"first/{split}.jsonl").read_text() == (
            tmp_path / f"second/{split}.jsonl"
        ).read_text()
    assert (tmp_path / "first/train_balanced.jsonl").read_text() != (
        tmp_path / "second/train_balanced.jsonl"
    ).read_text()
