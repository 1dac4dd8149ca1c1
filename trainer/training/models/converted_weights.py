"""A copy of a model with safetensors in place of pickled weights; the model itself is not changed.

The pickled files are loaded by `torch.load(weights_only=True)`, which accepts only tensors, in a
process of its own: `python -m trainer.training.models.converted_weights SOURCE TARGET`.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from trainer.errors import ModelError
from trainer.files.cache import ABOUT, cache_dir
from trainer.files.content import file_state
from trainer.files.locks import mark_used, partial_path, write_once
from trainer.training.models.weight_files import (
    INDEX,
    PICKLED_INDEX,
    PICKLED_WHOLE,
    WHOLE,
    check_pickled,
    needs_conversion,
    shards,
)

NOT_COPIED = (
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".msgpack",
    ".ot",
    ".onnx",
    ".gguf",
    ".index.json",
)
"""Suffixes of weights and of files that a trainer left; all other files are copied."""
DOWNLOADED = ["*.json", "*.txt", "*.model", "*.py", "*.jinja", "pytorch_model*.bin"]
"""Files of a Hub model from which its copy is made."""
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|_KEY", re.IGNORECASE)
"""Names of environment variables that are hidden from the process which loads the weights."""


def copy_in_cache(folder: Path) -> Path:
    """Return the path of the copy of a model's folder in the cache, whether or not it exists."""
    files = [(path.name, file_state(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    digest = hashlib.blake2b(repr(["format 1", files]).encode(), digest_size=16).hexdigest()
    return cache_dir() / f"weights-{digest}"


def converted(name: str, folder: Path) -> Path:
    """Return a model's folder if it has safetensors, else its copy in the cache, made if missing.

    Args:
        name: name of the model, for messages.
    Raises:
        ModelError: the weights cannot be converted.
    """
    if not needs_conversion([path.name for path in folder.iterdir()]):
        return folder
    target = copy_in_cache(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    made: Path = write_once(
        target,
        lambda: _convert(name, folder, target, f"{name}, pickled weights as safetensors"),
        lambda: target if (target / ABOUT).is_file() else None,
    )
    mark_used(made / ABOUT)
    return made


def convert_to(name: str, folder: Path, target: Path) -> None:
    """Write the copy to a folder of the user's choice.

    Raises:
        ModelError: the folder exists, or the model has no weights that can be converted.
    """
    if target.exists():
        raise ModelError(f"--output: {target} exists. Give another folder, or remove it.")
    if not needs_conversion([path.name for path in folder.iterdir()]):
        raise ModelError(
            f"{name}: has no pickled weights ({PICKLED_WHOLE}), or has safetensors already."
            " There is nothing to convert."
        )
    _convert(name, folder, target)


def _convert(name: str, folder: Path, target: Path, about: str = "") -> None:
    """Write a copy of a model's folder with its weights as safetensors.

    The copy appears whole or not at all.

    Args:
        about: description of the copy for the command `cache`.
    Raises:
        ModelError: the weights cannot be converted.
    """
    check_pickled(folder, f"'{name}'")
    partial = partial_path(target)
    partial.mkdir(parents=True)
    try:
        for path in sorted(folder.iterdir()):
            is_hidden = path.name.startswith(".")
            if path.is_file() and not is_hidden and not path.name.endswith(NOT_COPIED):
                shutil.copyfile(path, partial / path.name)
        _convert_in_child(name, folder, partial)
        if about:
            (partial / ABOUT).write_text(about, encoding="utf-8")
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _convert_in_child(name: str, folder: Path, target: Path) -> None:
    """Call `write_safetensors` in a process that has no secrets in its environment."""
    package = str(Path(__file__).resolve().parents[3])
    environment = {key: value for key, value in os.environ.items() if not SECRET.search(key)}
    paths = (package, os.environ.get("PYTHONPATH", ""))
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    module = "trainer.training.models.converted_weights"
    done = subprocess.run(
        [sys.executable, "-P", "-m", module, str(folder), str(target)],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise ModelError(
            f"'{name}' cannot be converted: the process was killed (signal {-done.returncode})."
            " Is there enough memory for one file?"
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"'{name}' cannot be converted: {lines[-1]}")


def write_safetensors(folder: Path, target: Path) -> None:
    """Load the pickled weights of a folder file by file, and write each file as safetensors.

    Raises:
        ValueError: a file holds no tensors, or anything else beside them.
    """
    if (folder / PICKLED_WHOLE).is_file():
        _write_file(folder / PICKLED_WHOLE, target / WHOLE)
        return
    places: dict[str, str] = {}
    num_bytes = 0
    for name in shards(folder / PICKLED_INDEX, str(folder)):
        new_name = name.replace("pytorch_model", "model").replace(".bin", ".safetensors")
        sizes = _write_file(folder / name, target / new_name)
        places |= dict.fromkeys(sizes, new_name)
        num_bytes += sum(sizes.values())
    index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(places.items()))}
    (target / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _write_file(pickled: Path, target: Path) -> dict[str, int]:
    """Write one file, and return the bytes of each tensor."""
    import pickle

    import torch
    from safetensors.torch import save_file

    try:
        found = torch.load(pickled, map_location="cpu", weights_only=True, mmap=is_zipfile(pickled))
    except pickle.UnpicklingError:
        raise ValueError(
            f"{pickled.name} holds more than tensors, which could run code, or is damaged."
            " Choose a model with safetensors."
        ) from None
    except (RuntimeError, EOFError, OSError):
        raise ValueError(f"{pickled.name} is damaged. Download it again.") from None
    named = found if isinstance(found, dict) else {}
    tensors = {str(name): tensor for name, tensor in named.items() if torch.is_tensor(tensor)}
    if not tensors:
        raise ValueError(
            f"{pickled.name} holds no weights by name. Choose a model with safetensors."
        )
    save_file(_unshared(tensors), target, metadata={"format": "pt"})
    return {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}


def _unshared(tensors: dict[str, Any]) -> dict[str, Any]:
    """Return the tensors, each in memory of its own, as safetensors requires.

    In a model file, tied embeddings share their memory.
    """
    seen: set[int] = set()
    unshared = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        unshared[name] = tensor.clone().contiguous() if place in seen else tensor.contiguous()
        seen.add(place)
    return unshared


if __name__ == "__main__":
    try:
        write_safetensors(Path(sys.argv[1]), Path(sys.argv[2]))
    except ValueError as error:
        sys.exit(str(error))
