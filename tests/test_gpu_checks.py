"""scripts/bench/gpu.py also runs on a CPU, and survives a check that hangs."""

import importlib.util
import json
import subprocess
import sys
import time

import pytest
from conftest import ROOT

SCRIPT = ROOT / "scripts/bench/gpu.py"


@pytest.fixture
def gpu():
    spec = importlib.util.spec_from_file_location("gpu", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def test_time_that_a_check_leaves_goes_to_those_after_it(gpu):
    end = time.monotonic() + 480
    assert gpu.share(list(gpu.CHECKS), end) == pytest.approx(10, abs=1)
    assert gpu.share(["prediction", "speed"], end) == pytest.approx(100, abs=1)
    assert gpu.share(["speed"], end) == pytest.approx(480, abs=1)


def test_a_check_that_hangs_or_ends_its_process_is_a_failure_and_the_rest_goes_on(
    gpu, monkeypatch, tmp_path, capsys
):
    worker = """
import json, os, sys, time
names = sys.argv[sys.argv.index("--only") + 1 : sys.argv.index("--cpu")]
for name in names:
    if name == "gradient": time.sleep(60)
    if name == "run": os._exit(7)
    with open(sys.argv[sys.argv.index("--worker") + 1], "a") as file:
        found = {"check": name, "result": "pass", "found": "all", "seconds": 0.0}
        file.write(json.dumps(found) + "\\n")
"""
    (tmp_path / "worker.py").write_text(worker, encoding="utf-8")
    monkeypatch.setattr(gpu, "__file__", str(tmp_path / "worker.py"))
    monkeypatch.setattr(gpu, "STARTING_SECONDS", 0.0)
    monkeypatch.setattr(gpu, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(gpu, "share", lambda names, end: 1.5 if names[0] == "gradient" else 60.0)
    outcomes = gpu.supervise(
        ["packing", "gradient", "run", "memory"], tmp_path, time.monotonic() + 200, cpu=True
    )
    assert [(outcome["check"], outcome["result"]) for outcome in outcomes] == [
        ("packing", "pass"),
        ("gradient", "FAIL"),
        ("run", "FAIL"),
        ("memory", "pass"),
    ]
    assert "it hangs, or is too slow for --minutes" in outcomes[1]["found"]
    assert "its process ended with code 7" in outcomes[2]["found"]
    assert (
        gpu.supervise(["speed"], tmp_path, time.monotonic(), cpu=True)[0]["found"] == "time was up"
    )


@pytest.mark.exhaustive
@pytest.mark.timeout(1500)
def test_every_check_passes_on_a_cpu_or_says_what_it_needs(gpu, tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, "--cpu", "--out", tmp_path],
        capture_output=True,
        text=True,
        timeout=1400,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {
        check["check"]: check["result"]
        for check in json.loads((tmp_path / "gpu.json").read_text(encoding="utf-8"))["checks"]
    }
    on_gpu = {"flash": "skipped", "waiting": "skipped"}
    assert found == dict.fromkeys(gpu.CHECKS, "pass") | on_gpu
    assert "| distilbert | 33 | 8 | ours |" in (tmp_path / "speed.md").read_text(encoding="utf-8")
