"""The folder of an exported model: graph, config, tokenizer, export.json and a README."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.delivery.predicting.graph_files import FINDINGS, READERS
from trainer.errors import RunError
from trainer.files.locks import only_writer, work_file
from trainer.run_folder.writer import RunFolder, check_writable

if TYPE_CHECKING:
    from trainer.delivery.predicting.saved_model import SavedModel

README = """# {name} for {reader}{kind}

{check}

```python
import json
import numpy as np, {package}
from transformers import AutoTokenizer  # needs no torch

folder = "{folder}"
config = json.load(open(f"{{folder}}/config.json"))
tokenizer = AutoTokenizer.from_pretrained(folder)
{loading}
inputs = tokenizer(["a text", "and another"], padding=True, truncation=True, return_tensors="np")
{running}
{decision}
```

For text pairs call `tokenizer([first], [second], ...)`. `Classifier.load("{folder}")` of equipoise
does all of this. The comparison with the original is in `export.json`.
{note}"""
NAMES = 'names = [config["id2label"][str(c)] for c in range(logits.shape[1])]'
SOFTMAX = """probabilities = np.exp(scores - scores.max(axis=1, keepdims=True))
probabilities /= probabilities.sum(axis=1, keepdims=True)"""
NOTES = {
    "onnx": """
The weights have 8 bits, and each call scales its activations by its largest ones. So the
probabilities of a text depend a little on the other texts of the call.
""",
    "openvino": """
Weights and activations have 8 bits (nncf, static quantisation). The scales of the activations were
measured on rows of the comparison.
""",
}
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino"}
LOADING = {
    "onnx": 'session = onnxruntime.InferenceSession(f"{folder}/model.onnx")',
    "openvino": """# to send no usage statistics: pip uninstall openvino-telemetry
precise = {"INFERENCE_PRECISION_HINT": "f32"}  # no bfloat16
path = f"{folder}/openvino_model.xml"
graph = openvino.Core().compile_model(path, "CPU", precise)""",
}
RUNNING = {
    "onnx": """names = [each.name for each in session.get_inputs()]
feed = {name: inputs[name].astype(np.int64) for name in names}
logits = session.run(["logits"], feed)[0]""",
    "openvino": """names = [each.get_any_name() for each in graph.inputs]
logits = graph({name: inputs[name].astype(np.int64) for name in names})["logits"]""",
}


def check_output(folder: Path) -> None:
    """Raise RunError if the folder cannot be written, or holds other files than an export."""
    check_writable(folder, "Set --output")
    if folder.exists() and not (folder / FINDINGS).is_file() and any(folder.iterdir()):
        raise RunError(f"{folder}: holds files that are not an export. Give another --output.")


@contextmanager
def aside(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside the target, and remove it at the end."""
    with only_writer(target):
        work = work_file(target, "partial")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)


def publish(folder: Path, target: Path) -> None:
    """Move a folder from `aside` to the target, and replace an older export."""
    if target.exists():
        os.replace(target, folder.with_name("older"))
    os.replace(folder, target)


def write_companions(model: "SavedModel", folder: Path) -> None:
    """Create the folder, and write config and tokenizer beside which the graph will be."""
    folder.mkdir()
    model.model.config.save_pretrained(folder)
    model.tokenizer.model_max_length = model.max_length
    model.tokenizer.save_pretrained(folder)


def describe(model: "SavedModel", folder: Path, target: Path, findings: dict[str, Any]) -> None:
    """Write export.json and the README.

    Args:
        target: the final place of the folder.
        findings: the values of export.json, from `trainer.runs.model_export`.
    """
    from trainer.delivery.export.export_check import comparison_words

    RunFolder(folder).write_json(FINDINGS, findings)
    check, kind = findings["check"], "int8" if findings["int8"] else "float32"
    file_format = findings["format"]
    if "not_checked" in check:
        words = f"Not compared with the original: {check['not_checked']}"
    else:
        words = f"Compared with the original: {comparison_words(check, kind)}."
    text = README.format(
        name=Path(findings["source"]).name,
        reader=READERS[file_format],
        package=PACKAGES[file_format],
        loading=LOADING[file_format],
        running=RUNNING[file_format],
        kind=" in 8 bits" if findings["int8"] else "",
        check=words,
        folder=target,
        decision=_decision_lines(model),
        note=NOTES[file_format] if findings["int8"] else "",
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _decision_lines(model: "SavedModel") -> str:
    """Return Python code from logits to labels, with the parts of the model's decision."""
    values = getattr(model.model.config, "decision", None) or {}
    lines = [NAMES, "scores = logits"]
    if "shift" in values:
        lines = [
            NAMES,
            'decision = config["decision"]',
            'scores = logits / decision["temperature"] + np.array(decision["shift"])',
        ]
    if model.is_multi_label:
        return "\n".join([*lines, *_label_lines(values)])
    lines.append(SOFTMAX)
    decided = "probabilities.argmax(axis=1)"
    if "costs" in values:
        decided = '(probabilities @ np.array(config["decision"]["costs"])).argmin(axis=1)'
    elif "thresholds" in values:
        lines.append('thresholds = [config["decision"]["thresholds"][name] for name in names]')
        decided = "(probabilities / np.array(thresholds)).argmax(axis=1)"
    lines.append(f"labels = [names[c] for c in {decided}]")
    return "\n".join(lines)


def _label_lines(values: dict[str, Any]) -> list[str]:
    """Return Python code from the scores of a multi-label model to label sets."""
    lines = ["probabilities = 1 / (1 + np.exp(-scores))", "thresholds = np.full(len(names), 0.5)"]
    if "thresholds" in values:
        lines[1] = (
            'thresholds = np.array([config["decision"]["thresholds"][name] for name in names])'
        )
    lines.append("given = probabilities >= thresholds")
    if values.get("at_least_one") or values.get("at_most"):
        lines.append("margins = scores - np.log(thresholds / (1 - thresholds))")
    if values.get("at_least_one"):
        lines.append(
            "given |= ~given.any(axis=1, keepdims=True) &"
            " (np.arange(len(names)) == margins.argmax(axis=1)[:, None])"
        )
    if most := values.get("at_most"):
        lines += [
            "ranks = np.where(given, -margins, np.inf).argsort(axis=1).argsort(axis=1)",
            f"given &= ranks < {most}",
        ]
    return [*lines, "labels = [[names[c] for c in np.flatnonzero(row)] for row in given]"]
