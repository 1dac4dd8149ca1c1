"""Recognise a model folder that holds an ONNX graph. Imports no torch."""

import json
from pathlib import Path

GRAPH, FINDINGS = "model.onnx", "export.json"


def is_graph(source: str) -> bool:
    """Return whether a folder holds an ONNX model (`equipoise export`)."""
    return (Path(source) / GRAPH).is_file() and not (Path(source) / "model.safetensors").is_file()


def is_in_8_bits(source: str) -> bool:
    """Return whether a folder holds an ONNX model with weights of 8 bits."""
    path = Path(source) / FINDINGS
    if not (is_graph(source) and path.is_file()):
        return False
    return bool(json.loads(path.read_text(encoding="utf-8")).get("int8"))
