"""Memory and seconds of one training: nothing of what ran before it, and nothing left out."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import ROOT

from trainer.training import peak_memory, progress
from trainer.training.peak_memory import PeakMemory
from trainer.training.progress import StepClock

MIB = 2**20
CPU = torch.device("cpu")
on_linux = pytest.mark.skipif(
    not peak_memory._reset_process(), reason="this system cannot reset the peak of a process"
)


def hold(mebibytes):
    """Hold so much memory for a moment."""
    np.ones(mebibytes * MIB, np.uint8).sum()


@on_linux
def test_peak_is_that_of_this_measurement_and_not_of_the_process():
    """In a process of its own: other tests' threads may give memory back in the middle of it."""
    code = """
import numpy, torch
from trainer.training.peak_memory import PeakMemory

MIB = 2**20
numpy.ones(400 * MIB, numpy.uint8).sum()
peak = PeakMemory(torch.device("cpu"))
print(peak.of, peak.num_bytes // MIB)
numpy.ones(150 * MIB, numpy.uint8).sum()
print(peak.num_bytes // MIB)
print(PeakMemory(torch.device("cpu")).num_bytes // MIB)
"""
    run = subprocess.run(
        [sys.executable, "-c", code], check=True, cwd=ROOT, capture_output=True, text=True
    )
    of, *mebibytes = run.stdout.split()
    before, peak, again = map(int, mebibytes)
    assert of == "process"
    assert before + 140 < peak < before + 200
    assert abs(again - before) < 50


@pytest.mark.exhaustive
@on_linux
def test_training_after_a_large_one_does_not_get_its_peak(config_file):
    """In a process of its own: what other tests left in memory would count."""
    path = config_file(model={"mode": "head"})
    code = (
        "import numpy, sys; numpy.ones(2500 << 20, numpy.uint8).sum(); from trainer import "
        "load_config; from trainer.runs.training_run import train; "
        "train(load_config(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", code, path], check=True, cwd=ROOT, capture_output=True)
    output_dir = json.loads(Path(path).read_text(encoding="utf-8"))["run"]["output_dir"]
    training = json.loads((Path(output_dir) / "run/metrics.json").read_text(encoding="utf-8"))[
        "training"
    ]
    assert training["peak_memory_of"] == "process"
    assert 50 * MIB < training["peak_memory_bytes"] < 2500 * MIB


def test_where_the_peak_cannot_start_anew_it_is_said_to_be_of_the_process(monkeypatch, tmp_path):
    monkeypatch.setattr(peak_memory, "CLEAR", tmp_path / "no/clear_refs")
    hold(300)
    figures = PeakMemory(CPU).figures()
    assert figures["peak_memory_of"] == "process since its start"
    unit = 1 if sys.platform == "darwin" else 1024
    assert figures["peak_memory_bytes"] == resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    stuck = tmp_path / "status"  # of a system that takes the request and does nothing
    stuck.write_text("VmHWM:\t 900000 kB\nVmRSS:\t 200000 kB\n", encoding="ascii")
    monkeypatch.setattr(peak_memory, "CLEAR", tmp_path / "clear_refs")
    monkeypatch.setattr(peak_memory, "STATUS", stuck)
    assert PeakMemory(CPU).of == "process since its start"


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="no accelerator")
def test_peak_of_an_accelerator_is_that_of_this_measurement():
    device = torch.accelerator.current_accelerator()
    torch.ones(400 * MIB, dtype=torch.uint8, device=device)
    peak = PeakMemory(device)
    torch.ones(100 * MIB, dtype=torch.uint8, device=device)
    assert peak.figures()["peak_memory_of"] == "accelerator"
    assert 100 * MIB <= peak.num_bytes < 200 * MIB


def test_clock_waits_for_an_accelerator_before_it_stops_and_not_after_every_step(monkeypatch):
    """The accelerator finishes what was queued when it is waited for: one second for each step."""
    device, now, queued = torch.device("cuda"), [0.0], [0.0]

    def finish(_):
        now[0], queued[0] = now[0] + queued[0], 0.0

    monkeypatch.setattr(torch.accelerator, "synchronize", finish)
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    clock, args, waits = StepClock(), SimpleNamespace(device=device), []
    clock.on_train_begin(args, None, None)
    for step in range(1, 7):
        queued[0] += 1.0
        flags = {
            "should_log": step == 3,
            "should_evaluate": step == 3,
            "should_save": False,
            "should_training_stop": False,
        }
        clock.on_step_end(args, None, SimpleNamespace(**flags))
        waits.append(queued[0] == 0)
        if step == 3:
            finish(None)
            now[0] += 100.0  # of evaluation
            clock.on_evaluate(args, None, None)
    clock.on_epoch_end(args, None, None)
    assert waits == [False, False, True, False, False, False]
    assert (clock.seconds, clock.steps) == (6.0, 6)
