import os
import subprocess
import sys

from conftest import ROOT


def test_inputs_that_once_gave_wrong_results_are_read_right():
    command = [sys.executable, str(ROOT / "scripts/odd_inputs.py")]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "0 wrong"), (
        done.stdout + done.stderr
    )
