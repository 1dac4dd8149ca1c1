"""`equipoise folder` prints the folder that a run writes, and loads no torch."""

import subprocess
import sys

import pytest
from conftest import ROOT


def test_folder_is_where_the_run_would_go(config_file, run_cli, tmp_path):
    done = run_cli("folder", "--config", config_file(), "--set", "run.name=mine")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/runs/mine\n")
    assert not (tmp_path / "runs").exists()


def test_folder_of_a_relative_output_dir_stays_relative(config_file, run_cli):
    done = run_cli("folder", "--config", config_file(run={"output_dir": "runs"}))
    assert done.stdout == "runs/run\n"


def test_folder_of_a_bad_config_is_a_worded_error(config_file, run_cli):
    done = run_cli("folder", "--config", config_file(), "--set", "run.nam=x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "run.nam is unknown" in done.stderr


@pytest.mark.parametrize("library", ["torch", "transformers", "datasets"])
def test_folder_does_not_load(library, config_file):
    code = (
        f"import sys\nsys.modules[{library!r}] = None\nfrom trainer.cli import"
        f" app\napp(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "folder", "--config", config_file()],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
