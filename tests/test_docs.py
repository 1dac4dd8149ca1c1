"""README.md and docs/: links, commands, configs and figures in them agree with the code."""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import typer
from conftest import ROOT
from ruamel.yaml import YAML

import trainer
from trainer.cli.typer_app import app
from trainer.config.config import Config
from trainer.delivery.serving.app import PROBLEMS
from trainer.evaluation.decisions.multi_label_decision import MultiLabelDecision
from trainer.evaluation.multi_label import evaluate
from trainer.run_folder.writer import FILES

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (ROOT / "README.md", *PAGES)
}
EQUIPOISE = typer.main.get_command(app)
COMMANDS = EQUIPOISE.commands
README = TEXTS["README.md"]


def blocks(kind):
    """(page, block) of every code block of a language."""
    return [
        (page, block)
        for page, text in TEXTS.items()
        for block in re.findall(rf"^ *```{kind}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    ]


def test_readme_is_short():
    assert len(README.splitlines()) <= 220
    assert len(README.split()) <= 1500


def test_files_that_readme_links_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    links += re.findall(r'(?:src|srcset)="([^"]+)"', README)
    assert len(links) > 10
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_llms_txt_links_every_page():
    text = (DOCS / "llms.txt").read_text(encoding="utf-8")
    assert text.startswith("# equipoise\n\n> ")
    links = set(re.findall(r"\]\(_sources/([^)]+)\)", text))
    assert links == {str(path.relative_to(DOCS)) for path in PAGES if path.name != "index.md"}


def command_lines():
    """(page, words) of every `equipoise` command in a shell block."""
    for page, block in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            for part in line.split(" | "):
                words = shlex.split(part, comments=True)
                while words and "=" in words[0]:
                    words.pop(0)
                if words and words[0] == "equipoise":
                    yield page, words[1:]


def test_commands_and_options_in_the_docs_exist():
    found = list(command_lines())
    assert len(found) > 30
    for page, words in found:
        name = next((word for word in words if not word.startswith("--")), "")
        assert name in {*COMMANDS, ""}, f"{page}: equipoise {name}"
        options = {
            option
            for parameter in COMMANDS.get(name, EQUIPOISE).params
            for option in (*parameter.opts, *parameter.secondary_opts)
        }
        given = {word for word in words if word.startswith("--")}
        assert given <= options | {"--help"}, f"{page}: equipoise {name}"


def test_scripts_and_options_in_the_benchmarks_exist():
    text = (ROOT / "scripts/bench/README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    found = re.findall(r"python (scripts/bench/\w+\.py)([^`\n]*)", text)
    assert {script for script, _ in found} == {
        str(path.relative_to(ROOT)) for path in (ROOT / "scripts/bench").glob("*.py")
    }
    for script, words in found:
        source = (ROOT / script).read_text(encoding="utf-8")
        options = re.findall(r"--[a-z-]+", words)
        assert [option for option in options if f'"{option}"' not in source] == [], script


@pytest.mark.parametrize(("page", "block"), blocks("yaml"))
def test_configs_in_the_docs_are_accepted(page, block):
    values = YAML(typ="safe").load(block)
    values.setdefault("model", {}).setdefault("name", "some/model")
    data = values.setdefault("data", {})
    if "train" not in data:
        data.setdefault("source", "rows.csv")
    Config.model_validate(values)


def rows_of(page):
    """The code words in the first column of the page's tables."""
    cells = re.findall(r"^\| (`.*?) \|", TEXTS[page], re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`([^`]+)`", cell)}


def test_every_figure_of_metrics_json_is_explained():
    single = evaluate(np.eye(2), np.array([0, 1]), ["a", "b"]).to_dict()
    several = evaluate(np.eye(2), np.eye(2, dtype=int), ["a", "b"]).to_dict()
    clock = {"seconds", "rows_per_second", "peak_memory_bytes", "peak_memory_of", "steps", "length"}
    top = {"validation", "test", "decision", "minority_label", "training", "special_tokens"}
    top |= {"augment", "ensemble", "intervals", "evaluated"}
    top |= {"num_classes", "num_measured", "least_train_rows", "most_train_rows", "support"}
    decision = MultiLabelDecision(1.0, np.zeros(2), np.full(2, 0.5), 0.5).figures(["a", "b"])
    priors = {"training_prior", "target_prior", "prior_is_approximate", "folded_into_weights"}
    documented = rows_of("docs/reference/metrics.md")
    assert {*single, *several, *decision, *priors, *clock, *top} == documented


def test_every_file_of_a_run_folder_is_explained():
    text = TEXTS["docs/reference/run_folder.md"]
    pictures = {name for name in FILES if name.endswith(".png")}
    assert [name for name in FILES if name not in text and name not in pictures] == []


def test_python_reference_has_every_public_name():
    text = TEXTS["docs/reference/python.md"]
    assert [name for name in trainer.__all__ if f"trainer.{name}\n" not in text] == ["__version__"]


def test_errors_of_the_server_are_explained():
    codes = re.findall(r"^\| (\d+) \|", TEXTS["docs/reference/http_api.md"], re.MULTILINE)
    assert [int(code) for code in codes] == sorted(PROBLEMS)


@pytest.mark.exhaustive
@pytest.mark.parametrize("page", ["docs/tutorials/python.md", "docs/tutorials/several_labels.md"])
def test_python_of_a_tutorial_runs(page, tmp_path):
    text = "\n".join(block for name, block in blocks("python") if name == page)
    assert text
    done = subprocess.run(
        [sys.executable, "-c", text], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
