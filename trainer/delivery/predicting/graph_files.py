"""Recognise a model folder that holds an exported graph. Imports no torch."""

import json
from pathlib import Path

FINDINGS = "export.json"
GRAPHS = {"onnx": "model.onnx", "openvino": "openvino_model.xml"}
"""File of the graph in each format; Optimum uses the same names."""
READERS = {"onnx": "ONNX Runtime", "openvino": "OpenVINO"}
"""Name of the software that runs a format."""


def graph_format(source: str) -> str | None:
    """Return the format of a folder of `equipoise export`; None for other folders."""
    folder = Path(source)
    if (folder / "model.safetensors").is_file():
        return None
    return next((name for name, file in GRAPHS.items() if (folder / file).is_file()), None)


def is_in_8_bits(source: str) -> bool:
    """Return whether a folder holds an exported graph with weights of 8 bits."""
    path = Path(source) / FINDINGS
    if not (graph_format(source) and path.is_file()):
        return False
    return bool(json.loads(path.read_text(encoding="utf-8")).get("int8"))
