"""The wheel works outside the repository, with the commands that the Dockerfile names."""

import json
import os
import re
import shlex
import subprocess
from urllib.request import Request, urlopen

import pytest
import wheel
from conftest import ROOT

CONTAINER = re.compile(r"^docker run .*? equipoise (\S.*)$", re.MULTILINE)
FILES = (
    "trainer/py.typed",
    "trainer/config/sections/training_arguments.json",
    "trainer/delivery/report/report_template.html",
    "trainer/delivery/card/card_template.md",
)


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    return wheel.install(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="module")
def started(programs, tmp_path_factory):
    """Function (words, folder) -> running command of the wheel's environment in a folder."""
    home = tmp_path_factory.mktemp("home")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PATH": f"{programs}:/usr/bin:/bin", "HF_HOME": str(home), "TOKEN": "x" * 32}
    environment |= {"ACCELERATE_USE_CPU": "true"}

    def start(words, folder):
        return subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            executable=programs / words[0],
        )

    return start


def container_commands():
    """The commands of the Dockerfile's first lines: train, its launch, serve."""
    text = (ROOT / "scripts/cluster/Dockerfile").read_text(encoding="utf-8")
    commands = re.sub(r"^#   ", "", text, flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s+", "", commands)
    return [shlex.split(each) for each in CONTAINER.findall(lines)]


def finished(process):
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return output


def test_dockerfile_and_job_start_the_same_programs():
    train, launch, serve = container_commands()
    assert train == ["equipoise", "train", "--config", "config.yaml"]
    assert launch[:2] == ["accelerate", "launch"]
    assert launch[-5:] == ["--module", "trainer", *train[1:]]
    assert serve[:3] == ["equipoise", "serve", "runs/run"]
    job = (ROOT / "scripts/cluster/job.yaml").read_text(encoding="utf-8")
    assert "command: [equipoise, train]" in job
    assert "--module, trainer, train]" in job


@pytest.mark.exhaustive
def test_wheel_holds_what_the_code_reads(started, tmp_path):
    code = (
        "from importlib.metadata import files, version; import trainer, equipoise; from pathlib"
        " import Path; print(Path(trainer.__file__).parent.parent, version('equipoise') =="
        " trainer.__version__ == equipoise.__version__); print(*files('equipoise'))"
    )
    home, *names = finished(started(["python", "-c", code], tmp_path)).splitlines()
    assert home.endswith("site-packages True")
    assert {*FILES, "equipoise.py"} <= {*names[-1].split()}
    templates = {
        str(path.relative_to(ROOT))
        for end in ("html", "json", "md")
        for path in (ROOT / "trainer").rglob(f"*.{end}")
    }
    assert templates <= {*names[-1].split()}


@pytest.mark.exhaustive
def test_wheel_trains_launches_and_serves_outside_the_repository(started, config_file, tmp_path):
    train, launch, serve = container_commands()
    folder = tmp_path / "outside"
    folder.mkdir()
    for command in (train, launch):
        name = "run" if command is train else "launched"
        config_file(run={"name": name, "output_dir": "runs"}, training={"max_steps": 2})
        (tmp_path / "config.yaml").replace(folder / "config.yaml")
        output = finished(started(command, folder))
        assert (folder / "runs" / name / "metrics.json").is_file(), output
    first, second = (
        json.loads((folder / "runs" / name / "metrics.json").read_text(encoding="utf-8"))["test"]
        for name in ("run", "launched")
    )
    assert first["macro_f1"] == second["macro_f1"]
    local = ["--host", "127.0.0.1", "--port", "0"]
    server = started([*serve[:3], *serve[-2:], *local], folder)
    try:
        lines = iter(server.stdout.readline, "")
        address = next(found[0] for each in lines if (found := re.search(r"http://[\d.:]+", each)))
        headers = {"Authorization": f"Bearer {'x' * 32}", "Content-Type": "application/json"}
        request = Request(address, b'{"inputs": "a fine day"}', headers)
        with urlopen(request, timeout=60) as answer:
            (scores,) = json.load(answer)
        assert sum(each["score"] for each in scores) == pytest.approx(1, abs=1e-4)
    finally:
        server.terminate()
        server.communicate()
