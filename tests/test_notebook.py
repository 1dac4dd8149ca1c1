"""The notebook of the documentation runs in a real kernel, and what it shows is readable."""

import ast
import json
from pathlib import Path

import pytest

import trainer

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOK = Path(__file__).parents[1] / "docs/notebooks/imbalanced_text.ipynb"
AGAIN = """
import asyncio, signal, torch, trainer

def state():
    signals = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    return signals, torch.get_num_threads()

before = state()
config = {config!r}
first = trainer.train(config)
second = trainer.train(config, ["run.name=workers", "training.dataloader_num_workers=1"])
third = await asyncio.to_thread(trainer.train, config, ["run.name=thread"])
assert state() == before
assert len(third.classifier.predict(["a", "b"])) == 2
"""


def run(notebook, folder):
    """Execute a notebook in a folder; return the outputs of its code cells."""
    nbclient.NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def printed(outputs):
    """Return what a cell printed to stdout."""
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def test_stored_notebook_is_valid_and_holds_no_outputs():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_stored_notebook_uses_names_that_are_public():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    names = {
        node.attr
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") == "trainer"
    }
    assert names
    assert names <= set(trainer.__all__)


@pytest.mark.exhaustive
@pytest.mark.timeout(900)
def test_notebook_runs_and_shows_tables(tmp_path):
    cells = run(nbformat.read(NOTEBOOK, as_version=4), str(tmp_path))
    everything = [output for outputs in cells for output in outputs]
    assert "\\u001b" not in json.dumps(everything), "colour codes in an output"
    expected = ("IProgress", "Loading weights", "Writing model shards", "pin_memory")
    errors = [o.text for o in everything if o.get("name") == "stderr" and o.text.strip()]
    assert not [text for text in errors if not any(words in text for words in expected)]
    gradient, training, result = cells[4], cells[5], cells[8]
    assert "The gradient does not depend on how a step is cut" in printed(gradient)
    table = next(o.data["text/html"] for o in training if "text/html" in o.get("data", {}))
    assert "Macro F1" in table
    assert printed(cells[7]).count("Training Loss") == 1
    (shown,) = result
    assert shown.data["text/html"].count("<table") == 2
    assert (tmp_path / "runs/notebook/report.html").is_file()


@pytest.mark.exhaustive
def test_training_again_and_in_a_thread_beside_a_running_loop(narrow_model, tweets, tmp_path):
    config = {
        "model": {"name": str(narrow_model), "max_length": 16},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "training": {"max_steps": 2, "per_device_train_batch_size": 8},
        "run": {"name": "run"},
    }
    code = nbformat.v4.new_code_cell(AGAIN.replace("{config!r}", repr(config)))
    (outputs,) = run(nbformat.v4.new_notebook(cells=[code]), str(tmp_path))
    assert printed(outputs).count("Training Loss") == 3
    assert (tmp_path / "runs/thread/metrics.json").is_file()
