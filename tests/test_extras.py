"""Optional packages: a plain training needs none of them, and a missing one is told at once."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT

from trainer.errors import MissingPackageError
from trainer.extras import EXTRAS, require

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
OPTIONAL = sorted({name for names in EXTRAS.values() for name in names})
WITHOUT = f"""
import sys

class Lacking:
    '''A finder of modules that does not find the optional packages.'''

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *arguments):
        if name.partition(".")[0] in {OPTIONAL}:
            return None
        return self.finder.find_spec(name, *arguments)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = map(Lacking, sys.meta_path)
from trainer.cli import app

def run(*arguments):
    try:
        app(arguments, standalone_mode=False)
    except SystemExit as end:
        print("exit", end.code, file=sys.stderr, flush=True)
"""
"""Start of a program in which the optional packages are not installed."""


def names(requirements):
    """Distributions of requirements."""
    return {re.split(r"[<>=!~\[ ]", each)[0].lower() for each in requirements}


def without_extras(code, *arguments):
    return subprocess.run(
        [sys.executable, "-c", WITHOUT + code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_the_code_requires_is_what_the_extra_installs(extra):
    found = packages_distributions()
    required = {distribution for name in EXTRAS[extra] for distribution in found[name]}
    extras = PROJECT["optional-dependencies"]
    brought_along = {"markdown-it-py"}  # rich of the base needs it, too
    assert {name.lower().replace("_", "-") for name in required} == names(
        extras[extra]
    ) - brought_along
    assert not required & names(PROJECT["dependencies"])
    assert f"{extra}," in extras["all"][0].replace("]", ",")


def test_message_names_only_what_is_missing(monkeypatch):
    require("serve", "equipoise serve")
    monkeypatch.setattr("trainer.extras.is_installed", lambda name: name != "uvicorn")
    with pytest.raises(
        MissingPackageError,
        match=r"^equipoise serve needs packages that are not installed: uvicorn\. "
        r"Run: pip install 'equipoise\[serve\]'$",
    ):
        require("serve", "equipoise serve")


def test_folder_named_like_a_package_is_not_one(tmp_path, monkeypatch):
    (tmp_path / "no_such_package").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match="not installed: no_such_package"):
        require("onnx", "equipoise export", "no_such_package")


def test_commands_tell_it_before_they_load_a_model_or_data(config_file, tmp_path):
    """Neither the data nor the model exist, so that an earlier look at them would be the error."""
    nowhere = {"data": {"source": str(tmp_path / "no.csv")}, "model": {"name": str(tmp_path)}}
    smote = nowhere | {"balance": {"method": "smote"}, "model": nowhere["model"] | {"mode": "head"}}
    endpoint = {"generator": "endpoint", "base_url": "http://127.0.0.1:9/v1"}
    endpoint |= {"model": "m", "target_rows": 200}
    plain = config_file(**nowhere)
    commands = {
        "serve": ("serve", tmp_path),
        "audit": ("audit", "--data", "no.csv"),
        "export": ("export", tmp_path),
        "openvino": ("export", tmp_path, "--format", "openvino"),
        "compare": ("compare", "--config", plain),
        "compare check": ("compare", "--config", plain, "--check"),
        "tune": ("tune", "--config", plain),
        "smote": ("train", "--config", config_file("smote.yaml", **smote)),
        "endpoint": (
            *("train", "--check", "--config"),
            config_file("endpoint.yaml", **nowhere, augment=endpoint),
        ),
    }
    calls = "".join(f"\nrun({', '.join(map(repr, map(str, each)))})" for each in commands.values())
    done = without_extras(calls + "\nassert 'datasets' not in sys.modules")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert lines[1::2] == ["exit 2"] * len(commands)
    found = dict(zip(commands, lines[::2], strict=True))
    texts = {
        "serve": ("equipoise serve", "fastapi, prometheus_client, uvicorn", "serve"),
        "audit": ("equipoise audit", "cleanlab, datasketch", "audit"),
        "export": ("equipoise export --format onnx", "onnx, onnxruntime, onnxscript", "onnx"),
        "openvino": (
            "equipoise export --format openvino",
            "nncf, onnx, onnxruntime, onnxscript, openvino",
            "openvino",
        ),
        "compare": ("equipoise compare", "statsmodels", "compare"),
        "compare check": ("equipoise compare", "statsmodels", "compare"),
        "tune": ("equipoise tune", "optuna, statsmodels", "tune"),
        "smote": ("balance.method: smote", "imblearn", "augment"),
        "endpoint": ("augment.generator: endpoint", "openai", "augment"),
    }
    assert found == {
        key: f"{use} needs packages that are not installed: {missing}."
        f" Run: pip install 'equipoise[{extra}]'"
        for key, (use, missing, extra) in texts.items()
    }


@pytest.mark.exhaustive
def test_training_needs_no_optional_package(config_file, tmp_path):
    config = config_file(training={"max_steps": 2})
    code = """
run("train", "--config", sys.argv[1])
assert not {name.partition(".")[0] for name in sys.modules} & {"fastapi", "statsmodels", "openai"}
run("train", "--config", sys.argv[1], "--check")
"""
    done = without_extras(code, config)
    assert done.returncode == 0, done.stderr
    assert "exit" not in done.stderr
    assert "config, all 240 rows and model are in order." in done.stdout
    assert (tmp_path / "runs/run/report.html").is_file()
