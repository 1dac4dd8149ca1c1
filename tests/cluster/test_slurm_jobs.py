"""The batch scripts as shipped, on a real Slurm of two nodes.

Only ACCELERATE_USE_CPU and options of Slurm itself are set.
"""

import csv
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
from cluster import slurm
from conftest import ROOT

from trainer import load_config

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.timeout(600),
    pytest.mark.skipif(bool(slurm.missing()), reason=f"no Slurm here: {slurm.missing()}"),
]
OPTIONS = ("--cpus-per-task=1",)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """Folder that all nodes see: config, runs and the jobs' output."""
    return tmp_path_factory.mktemp("shared")


@pytest.fixture(scope="module")
def config(shared, tiny_model, tweets):
    """Forty short epochs of a model of a million weights, without dropout.

    The random numbers of dropout would differ from process to process.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    model, dropout = (
        shared / "model",
        {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
    )
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}
    torch.manual_seed(0)
    AutoModel.from_config(
        AutoConfig.from_pretrained(tiny_model, **sizes, **dropout)
    ).save_pretrained(model)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(model)
    training = {
        "num_train_epochs": 40,
        "per_device_train_batch_size": 16,
        "learning_rate": 1e-3,
        "bf16": False,
        "early_stopping_patience": None,
    }
    values = {
        "run": {"output_dir": str(shared / "runs"), "num_threads": 1},
        "model": {"name": str(model), "max_length": 32},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "split": {"train": 0.7, "validation": 0.3},
        "balance": {"method": "undersample"},
        "training": training,
    }
    (shared / "tweets.yaml").write_text(json.dumps(values))
    return shared / "tweets.yaml"


@pytest.fixture(scope="module")
def submit(cluster, shared):
    """Function (script, *arguments, options) -> job id."""

    def run(script, *arguments, options=()):
        paths = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        }
        options = (*OPTIONS, f"--output={shared}/%j.out", *options)
        return cluster.submit(
            *options,
            f"scripts/cluster/{script}",
            *arguments,
            cwd=ROOT,
            ACCELERATE_USE_CPU="true",
            **paths,
        )

    return run


@pytest.fixture(scope="module")
def jobs(submit, config):
    """{what: job id}, all queued at once. The partition of the unbroken run is never preempted."""
    two = ("--nodes=2",)
    return {
        "broken": submit("train.sbatch", config, "--set", "run.name=broken", options=two),
        "unbroken": submit(
            "train.sbatch", config, "--set", "run.name=unbroken", options=(*two, "--partition=high")
        ),
        "single": submit(
            "train.sbatch",
            config,
            "--set",
            "run.name=single",
            "--set",
            "training.per_device_train_batch_size=32",
        ),
        "failing": submit(
            "train.sbatch", config, "--set", "run.name=failing", "--set", f"run.output_dir={config}"
        ),
        "misspelt": submit("train.sbatch", config, "--set", "data.labels=x"),
    }


@pytest.fixture(scope="module")
def broken(cluster, jobs, shared):
    """The job of a run that is preempted after an epoch and out of time after another."""
    run = shared / "runs/broken"
    _until(lambda: len(_epochs(run)) >= 1)
    cluster.submit("--partition=high", "--nodes=2", "--gpus-per-node=1", "--wrap=true", cwd=shared)
    _until(lambda: cluster.job(jobs["broken"]).get("Restarts") == "1")
    before = len(_epochs(run))
    _until(
        lambda: cluster.job(jobs["broken"])["JobState"] == "RUNNING" and len(_epochs(run)) > before
    )
    cluster.ask(
        "scancel", "--signal=USR1", "--batch", jobs["broken"]
    )  # as Slurm does before the time limit
    _until(lambda: cluster.job(jobs["broken"]).get("Restarts") == "2")
    return cluster.wait_for_state(jobs["broken"], "COMPLETED", "FAILED")


def _until(condition, seconds=240):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)


def _epochs(run):
    try:
        with (run / "epochs.csv").open() as file:
            return list(csv.DictReader(file))
    except OSError:
        return []


def _weights(run):
    return hashlib.sha256((run / "model/model.safetensors").read_bytes()).hexdigest()


def _metrics(run):
    metrics = json.loads((run / "metrics.json").read_text())
    return {split: numbers for split, numbers in metrics.items() if split != "training"} | {
        "steps": metrics["training"]["steps"]
    }


def test_preempted_and_out_of_time_equals_unbroken_bit_for_bit(broken, cluster, jobs, shared):
    unbroken = cluster.wait_for_state(jobs["unbroken"], "COMPLETED", "FAILED")
    said = (shared / f"{jobs['broken']}.out").read_text()
    assert (broken["JobState"], broken["Restarts"], unbroken["JobState"], unbroken["Restarts"]) == (
        "COMPLETED",
        "2",
        "COMPLETED",
        "0",
    ), said
    assert said.count("train.sbatch: stopped before the end; queued again") == 2
    assert said.count("Resuming from") == 2
    assert _weights(shared / "runs/broken") == _weights(shared / "runs/unbroken")
    assert _epochs(shared / "runs/broken") == _epochs(shared / "runs/unbroken")
    assert _metrics(shared / "runs/broken") == _metrics(shared / "runs/unbroken")


def test_two_nodes_agree_with_one_process(cluster, jobs, shared):
    from safetensors.numpy import load_file

    assert (
        cluster.wait_for_state(jobs["unbroken"], "COMPLETED", "FAILED")["JobState"] == "COMPLETED"
    )
    assert cluster.wait_for_state(jobs["single"], "COMPLETED", "FAILED")["JobState"] == "COMPLETED"
    two, one = shared / "runs/unbroken", shared / "runs/single"
    assert json.loads((two / "environment.json").read_text())["hardware"]["processes"] == 2
    assert load_config(str(two / "config.yaml")).run.num_processes == 2
    weights, expected = (
        load_file(two / "model/model.safetensors"),
        load_file(one / "model/model.safetensors"),
    )
    assert weights.keys() == expected.keys()
    for name in weights:
        assert weights[name] == pytest.approx(expected[name], abs=1e-4), name
    for row, expected_row in zip(_epochs(two), _epochs(one), strict=True):
        assert [float(value) for value in row.values()] == pytest.approx(
            [float(value) for value in expected_row.values()], abs=1e-3
        )


def test_failed_job_is_not_queued_again(cluster, jobs, shared):
    job = cluster.wait_for_state(jobs["failing"], "COMPLETED", "FAILED")
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "1:0", "0")
    assert (
        "tweets.yaml/failing: cannot be written (Not a directory"
        in (shared / f"{jobs['failing']}.out").read_text()
    )


def test_bad_config_fails_before_nodes_are_used(cluster, jobs, shared):
    job = cluster.wait_for_state(jobs["misspelt"], "COMPLETED", "FAILED")
    said = (shared / f"{jobs['misspelt']}.out").read_text()
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "2:0", "0")
    assert "data.labels is unknown" in said
    assert "srun" not in said


@pytest.fixture(scope="module")
def compared(cluster, submit, config, shared):
    """The jobs of a comparison by an array of two tasks, each on a node of its own.

    The task on node2 is preempted while it trains.
    """
    trainings = shared / "runs/compared-compare/trainings"
    values = json.loads(config.read_text())
    values["training"]["num_train_epochs"] = 20
    values |= {
        "run": values["run"] | {"name": "compared"},
        "balance": {},
        "compare": {"strategies": ["none", "undersample"], "seeds": 2},
    }
    (shared / "compared.yaml").write_text(json.dumps(values))
    array = submit(
        "compare.sbatch",
        shared / "compared.yaml",
        options=("--array=0-1%2", "--exclusive", f"--output={shared}/compared-%a.out"),
    )
    _until(lambda: sum(len(_epochs(of)) >= 1 for of in trainings.glob("*/seed-*")) >= 2)
    cluster.submit("--partition=high", "--nodelist=node2", "--exclusive", "--wrap=true", cwd=shared)
    return [cluster.wait_for_state(f"{array}_{task}", "COMPLETED", "FAILED") for task in (0, 1)]


def _lines_of_trainings(said):
    """(strategy, seed) of the lines that a worker prints for the trainings it has finished."""
    return [tuple(found) for found in re.findall(r"^ *\d/4 +(\S+) +(\d+) ", said, re.MULTILINE)]


def test_tasks_of_an_array_share_the_trainings_of_a_comparison_and_the_preempted_one_comes_back(
    compared, shared
):
    said = [(shared / f"compared-{task}.out").read_text() for task in (0, 1)]
    assert [job["JobState"] for job in compared] == ["COMPLETED"] * 2, said
    assert sorted(job["Restarts"] for job in compared) == ["0", "1"], said
    preempted = [job["Restarts"] for job in compared].index("1")
    assert [
        text.count("compare.sbatch: stopped before the end; queued again") for text in said
    ] == [int(task == preempted) for task in (0, 1)]
    assert sorted(_lines_of_trainings("\n".join(said))) == [
        ("none", "42"),
        ("none", "43"),
        ("undersample", "42"),
        ("undersample", "43"),
    ], said
    assert _lines_of_trainings(said[1 - preempted])
    folder = shared / "runs/compared-compare"
    assert not (folder / "stopped.json").exists()
    result = json.loads((folder / "comparison.json").read_text())
    assert (result["seeds"], list(result["validation"]["strategies"]), result["failed"]) == (
        [42, 43],
        ["none", "none + thresholds", "undersample", "undersample + thresholds"],
        {},
    )


def test_task_that_starts_after_the_end_says_so_and_ends_well(compared, cluster, submit, shared):
    before = (shared / "runs/compared-compare/comparison.json").stat()
    job = cluster.wait_for_state(
        submit("compare.sbatch", shared / "compared.yaml", options=("--array=7",)),
        "COMPLETED",
        "FAILED",
    )
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "0")
    assert (
        "holds the finished comparison of this config and data: nothing to do"
        in (shared / f"{job['JobId']}.out").read_text()
    )
    assert (shared / "runs/compared-compare/comparison.json").stat() == before


WRONG = {
    "no config": (
        (),
        "submit from the folder that holds scripts/compare.py: sbatch --array=0-3"
        " scripts/cluster/compare.sbatch CONFIG",
    ),
    "--resume": (
        ("x.yaml", "--resume", "never"),
        "compare.sbatch: --resume is not allowed. To train again, remove the folder of the"
        " comparison.",
    ),
    "unknown key": (("configs/compare.yaml", "--set", "compare.seed=1"), "compare.seed is unknown"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_array_task_that_cannot_work_is_not_queued_again(cluster, submit, shared, wrong):
    arguments, words = WRONG[wrong]
    job = cluster.wait_for_state(
        submit("compare.sbatch", *arguments, options=("--array=0",)), "COMPLETED", "FAILED"
    )
    assert (job["JobState"], job["ExitCode"], job["Restarts"]) == ("FAILED", "2:0", "0")
    assert words in (shared / f"{job['JobId']}.out").read_text()
