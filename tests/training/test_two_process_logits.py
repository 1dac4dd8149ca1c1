"""Evaluation in two processes equals that of one process and of the model alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import two_process_logits as worker

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found_by_process(tiny_model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("logits")
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--rdzv_backend",
        "c10d",
        "--rdzv_endpoint",
        "127.0.0.1:0",
    ]
    command += [worker.__file__, str(tiny_model), str(folder)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{process}.pt") for process in range(2)]


def test_both_processes_hold_the_logits_of_every_row_in_the_order_of_the_rows(
    tiny_model, found_by_process
):
    model = worker.tiny_classifier(str(tiny_model)).eval()
    for number in worker.NUM_ROWS:
        rows = worker.rows(number)
        with torch.inference_mode():
            alone = torch.cat(
                [
                    model(input_ids=torch.tensor([rows[i]["input_ids"]])).logits
                    for i in range(number)
                ]
            )
        for found in found_by_process:
            torch.testing.assert_close(found["logits"][number], alone, rtol=1e-5, atol=1e-5)
    assert alone.shape == (1, 3)
    assert (
        found_by_process[0]["logits"][37].std(0).min() > 0.005
    )  # rows differ, so their order shows


def test_batches_that_the_processes_cannot_share_equally_were_met(found_by_process):
    assert [(found["process"], found["processes"]) for found in found_by_process] == [
        (0, 2),
        (1, 2),
    ]
    numbers = set(found_by_process[0]["batches"].values())
    assert 1 in numbers  # fewer than processes
    assert any(number % 2 and number > 1 for number in numbers)
    assert any(number % 2 == 0 for number in numbers)


def test_two_processes_find_the_logits_and_metrics_of_one(tiny_model, tmp_path, found_by_process):
    one = worker.predict(str(tiny_model), str(tmp_path))
    assert one["processes"] == 1
    for found in found_by_process:
        assert found["metrics"] == pytest.approx(one["metrics"], rel=1e-5)
        for number, logits_NC in one["logits"].items():
            torch.testing.assert_close(found["logits"][number], logits_NC, rtol=1e-5, atol=1e-5)
