"""The folder of an exported model: graph, config with labels and decision, tokenizer, export.json, and a README that shows how to run it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.delivery.predicting.onnx_files import FINDINGS
from trainer.errors import RunError
from trainer.files.locks import only_writer, work_file
from trainer.run_folder.writer import RunFolder, check_writable

if TYPE_CHECKING:
    from trainer.delivery.predicting.saved_model import SavedModel

README = """# {name} as ONNX{kind}

{check}

```python
import json
import numpy as np, onnxruntime
from transformers import AutoTokenizer  # needs no torch

folder = "{folder}"
config, tokenizer = json.load(open(f"{{folder}}/config.json")), AutoTokenizer.from_pretrained(folder)
session = onnxruntime.InferenceSession(f"{{folder}}/model.onnx")
inputs = tokenizer(["a text", "and another"], padding=True, truncation=True, return_tensors="np")
logits = session.run(["logits"], {{each.name: inputs[each.name].astype(np.int64) for each in session.get_inputs()}})[0]
{decision}
```

A text pair is `tokenizer([first], [second], ...)`. `Classifier.load("{folder}")` of equipoise does all of this. Figures: `export.json`.
{note}"""
SOFTMAX = """probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
probabilities /= probabilities.sum(axis=1, keepdims=True)"""
NOTE = """
The weights have 8 bits, and each call scales its activations by its largest ones: probabilities of a text depend a little on the texts beside it.
"""


def check_output(folder: Path) -> None:
    """Raises RunError when the folder cannot be written, or holds what no export wrote; writes nothing."""
    check_writable(folder, "Set --output")
    if folder.exists() and not (folder / FINDINGS).is_file() and any(folder.iterdir()):
        raise RunError(f"{folder}: holds files that are no export. Give another --output.")


@contextmanager
def aside(target: Path) -> Iterator[Path]:
    """An empty folder beside the target, to write in; gone at the end."""
    with only_writer(target):
        work = work_file(target, "partial")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def publish(folder: Path, target: Path) -> None:
    """Give a folder of `aside` its name, in place of an older export."""
    if target.exists():
        os.replace(target, folder.with_name("older"))
    os.replace(folder, target)


def write_companions(model: "SavedModel", folder: Path) -> None:
    """Config and tokenizer, with which and the graph the folder is a model."""
    folder.mkdir()
    model.model.config.save_pretrained(folder)
    model.tokenizer.model_max_length = model.max_length
    model.tokenizer.save_pretrained(folder)


def describe(model: "SavedModel", folder: Path, target: Path, findings: dict[str, Any]) -> None:
    """Write export.json and the README.

    Args:
        target: where the folder will lie.
        findings: see `trainer.runs.onnx_export`.
    """
    RunFolder(folder).write_json(FINDINGS, findings)
    check, kind = findings["check"], "int8" if findings["int8"] else "float32"
    if "not_checked" in check:
        told = f"Not compared with the original: {check['not_checked']}"
    else:
        one = check[kind]
        told = (
            f"Compared with the original on {check['data']}: {one['labels_differ']:,} of {check['rows']:,} labels differ, probabilities by at most "
            f"{one['max_probability_difference']:.2g}; macro F1 {one['macro_f1']:.4f}, original {check['macro_f1']:.4f}."
        )
    text = README.format(
        name=Path(findings["source"]).name,
        kind=" in 8 bits" if findings["int8"] else "",
        check=told,
        folder=target,
        decision=_decision_lines(model),
        note=NOTE if findings["int8"] else "",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _decision_lines(model: "SavedModel") -> str:
    """Python from logits to labels, with what the model's decision has and no more."""
    if model.is_multi_label:
        return """probabilities = 1 / (1 + np.exp(-logits))
labels = [[config["id2label"][str(c)] for c in np.flatnonzero(row >= 0.5)] for row in probabilities]"""
    values = getattr(model.model.config, "decision", None) or {}
    lines = ["scores = logits"]
    if "shift" in values:
        lines = [
            'scores = logits / config["decision"]["temperature"] + np.array(config["decision"]["shift"])'
        ]
    lines.append(SOFTMAX)
    decided = "probabilities.argmax(axis=1)"
    if "costs" in values:
        decided = '(probabilities @ np.array(config["decision"]["costs"])).argmin(axis=1)'
    elif "thresholds" in values:
        lines.append(
            'thresholds = [config["decision"]["thresholds"][config["id2label"][str(c)]] for c in range(logits.shape[1])]'
        )
        decided = "(probabilities / np.array(thresholds)).argmax(axis=1)"
    lines.append(f'labels = [config["id2label"][str(c)] for c in {decided}]')
    return "\n".join(lines)
