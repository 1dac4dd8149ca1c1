"""Optional packages: the extra that brings each, and one message if it is missing."""

from importlib.util import find_spec

from trainer.errors import MissingPackageError, listing

EXTRAS = {
    "audit": ("cleanlab", "datasketch"),
    "augment": ("datasketch", "imblearn", "openai"),
    "compare": ("statsmodels",),
    "onnx": ("onnx", "onnxruntime", "onnxscript"),
    "openvino": ("nncf", "onnx", "onnxruntime", "onnxscript", "openvino"),
    "serve": ("fastapi", "prometheus_client", "uvicorn"),
    "tune": ("optuna", "statsmodels"),
    "xlsx": ("openpyxl",),
}
"""Packages of each extra of pyproject.toml, by the names under which they are imported."""


def is_installed(module: str) -> bool:
    """Return whether a package is installed, without importing it.

    A folder of that name, such as ./onnx, looks like a package without a file.
    """
    spec = find_spec(module)
    return spec is not None and spec.origin is not None


def require(extra: str, use: str, *packages: str) -> None:
    """Raise MissingPackageError if packages that a feature needs are not installed.

    Call it before any model or data is loaded. It imports none of the packages.

    Args:
        extra: the extra of `pip install` that brings the packages, a key of EXTRAS.
        use: the command or the setting that needs them.
        packages: default: all packages of the extra.
    """
    missing = [name for name in packages or EXTRAS[extra] if not is_installed(name)]
    if missing:
        raise MissingPackageError(
            f"{use} needs packages that are not installed: {listing(missing)}."
            f" Run: pip install 'equipoise[{extra}]'"
        )
