"""What is installed: the module `equipoise`, one version, and what other systems lack."""

import ast
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import ROOT

import equipoise
import trainer
from trainer.training import peak_memory
from trainer.training.peak_memory import PeakMemory


def python(code, folder, *path):
    """Finished fresh interpreter in a folder; `path` is searched for modules first."""
    lines = f"import sys\nsys.path[:0] = {[str(each) for each in path]}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", lines], cwd=folder, capture_output=True, text=True, check=False
    )


def test_public_api_has_the_name_of_the_distribution_too():
    from equipoise import WeightedTrainer

    assert WeightedTrainer is trainer.WeightedTrainer
    assert {*trainer.__all__, "main"} == {*dir(equipoise)}
    assert equipoise.__version__ == trainer.__version__
    with pytest.raises(AttributeError, match="no attribute 'WeightedTrainr'"):
        equipoise.WeightedTrainr  # noqa: B018


@pytest.mark.parametrize("with_init", [True, False])
def test_another_package_called_trainer_is_told(tmp_path, with_init):
    """It is not imported. A folder without __init__.py is found only if ours is not there."""
    other = tmp_path / "site/trainer"
    other.mkdir(parents=True)
    if with_init:
        (other / "__init__.py").write_text("raise RuntimeError('imported')", encoding="utf-8")
    (tmp_path / "equipoise.py").write_text(
        (ROOT / "equipoise.py").read_text(encoding="utf-8"), encoding="utf-8"
    )
    without_ours = (
        "sys.meta_path[:] = [f for f in sys.meta_path if 'editable' not in repr(f)]\n"
        f"sys.path[:] = [p for p in sys.path if p != {str(ROOT)!r}]\n"
    )
    places = (tmp_path / "site", tmp_path)
    found = other / "__init__.py" if with_init else "no file __init__.py"
    words = f"equipoise needs its own package 'trainer'; found: {found}. Leave the folder"
    done = python(without_ours + "from equipoise import main; main()", tmp_path, *places)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(words)
    assert "or install equipoise again in an environment" in done.stderr
    done = python(without_ours + "from equipoise import WeightedTrainer", tmp_path, *places)
    assert f"ImportError: {words}" in done.stderr


def test_version_has_one_home_that_setuptools_can_read():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert settings["project"]["dynamic"] == ["version"]
    assert settings["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "trainer.__version__"}
    (value,) = (
        node.value
        for node in ast.parse((ROOT / "trainer/__init__.py").read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__version__"
    )
    assert ast.literal_eval(value) == trainer.__version__
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert "version" not in citation
    assert citation["title"].lower() == settings["project"]["name"]


def test_memory_is_measured_without_resource(monkeypatch):
    """Windows has no `resource`, and nowhere to reset the peak."""
    monkeypatch.setattr(peak_memory, "resource", None)
    monkeypatch.setattr(peak_memory, "_reset_process", lambda: False)
    peak = PeakMemory(peak_memory.torch.device("cpu"))
    assert peak.of == "process since its start"
    assert peak.num_bytes > 2**24


def test_modules_that_windows_lacks_are_not_needed(tmp_path):
    """The libraries are loaded before, because they have code of their own for Windows."""
    code = """
import os, warnings
from importlib import reload
from pathlib import Path
import filelock, psutil, torch, uvicorn
import trainer
for name in ("fcntl", "resource", "termios"):
    sys.modules[name] = None
for name in ("pwrite", "sched_getaffinity"):
    delattr(os, name)
sys.platform = "win32"
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter("always")
    reload(trainer)
print(*(each.message for each in found))
from trainer.delivery.serving import connections
from trainer.files.durable import sync_tree
from trainer.files.locks import holder, locked
from trainer.launch import distributed, stopping
from trainer.training import peak_memory
assert peak_memory.resource is None
with locked(Path("lock"), "busy"):
    print(holder(Path("lock")))
sync_tree(Path())
"""
    done = python(code, tmp_path, ROOT)
    assert done.returncode == 0, done.stderr
    assert "equipoise is tested on Linux and not on Windows" in done.stdout
    assert "pid" in done.stdout
