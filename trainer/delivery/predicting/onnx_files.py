"""Recognise a model folder that holds an ONNX graph. Imports no torch."""

import json
from importlib.util import find_spec
from pathlib import Path

from trainer.errors import ExportError

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


def check_packages(*names: str) -> None:
    """Raise ExportError if packages are not installed, with the command that installs them."""
    missing = [name for name in names if find_spec(name) is None]
    if missing:
        raise ExportError(
            f"ONNX needs {', '.join(missing)}, which are not installed here."
            " Install: pip install 'equipoise[onnx]'"
        )
