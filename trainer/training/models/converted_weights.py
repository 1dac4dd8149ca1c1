"""Pickled weights to safetensors: a whole copy of the model, in another folder; the model's own folder is not changed.

The pickled files are loaded in a process of their own, by `torch.load(weights_only=True)`, which knows tensors alone. That process is
`python -m trainer.training.models.converted_weights SOURCE TARGET`.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
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

if TYPE_CHECKING:
    from torch import Tensor

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
"""Ends of the names of weights, and of what a trainer left; all else in the folder of a model is copied."""
DOWNLOADED = ["*.json", "*.txt", "*.model", "*.py", "*.jinja", "pytorch_model*.bin"]
"""Files of a Hub model that its copy is made of."""
SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|_KEY", re.IGNORECASE)
"""Names of environment variables that the process which loads the weights does not get."""


def copy_in_cache(folder: Path) -> Path:
    """Return where the copy of a model's folder lies, or will lie, in our cache."""
    files = [(path.name, file_state(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    return (
        cache_dir()
        / f"weights-{hashlib.blake2b(repr(['format 1', files]).encode(), digest_size=16).hexdigest()}"
    )


def converted(name: str, folder: Path) -> Path:
    """Return the folder of a model that has safetensors: its own, or its copy in our cache, made where it is missing.

    Args:
        name: of the model, for messages.
    Raises:
        ModelError: weights that cannot be converted.
    """
    if not needs_conversion([path.name for path in folder.iterdir()]):
        return folder
    target = copy_in_cache(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    made: Path = write_once(
        target,
        lambda: _write(name, folder, target),
        lambda: target if (target / ABOUT).is_file() else None,
    )
    mark_used(made / ABOUT)
    return made


def _write(name: str, folder: Path, target: Path) -> None:
    with _partial(target) as partial:
        convert(name, folder, partial)
        (partial / ABOUT).write_text(f"{name}, pickled weights as safetensors", encoding="utf-8")


def convert_to(name: str, folder: Path, target: Path) -> None:
    """Write the copy to a folder of the user's choice.

    Raises:
        ModelError: a folder that is there already, a model that needs no conversion, or weights that cannot be converted.
    """
    if target.exists():
        raise ModelError(f"--output: {target} exists. Give another folder, or remove it.")
    if not needs_conversion([path.name for path in folder.iterdir()]):
        raise ModelError(
            f"{name}: has no pickled weights ({PICKLED_WHOLE}), or has safetensors already. There is nothing to convert."
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    with _partial(target) as partial:
        convert(name, folder, partial)


@contextmanager
def _partial(target: Path) -> Iterator[Path]:
    """A folder that gets its name when it is whole, and is removed if it does not become so."""
    partial = partial_path(target)
    partial.mkdir()
    try:
        yield partial
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def convert(name: str, folder: Path, target: Path) -> None:
    """Write safetensors, and all that is no weights, of a model's folder into another one.

    Raises:
        ModelError: weights that cannot be converted.
    """
    check_pickled(folder, f"'{name}'")
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith(".") and not path.name.endswith(NOT_COPIED):
            shutil.copyfile(path, target / path.name)
    package = str(Path(__file__).resolve().parents[3])
    environment = {key: value for key, value in os.environ.items() if not SECRET.search(key)}
    environment["PYTHONPATH"] = os.pathsep.join(
        path for path in (package, os.environ.get("PYTHONPATH", "")) if path
    )
    command = [
        sys.executable,
        "-P",
        "-m",
        "trainer.training.models.converted_weights",
        str(folder),
        str(target),
    ]
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        raise ModelError(
            f"'{name}' cannot be converted: the process was killed (signal {-done.returncode}). Is there enough memory for one file?"
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise ModelError(f"'{name}' cannot be converted: {lines[-1]}")


def write_safetensors(folder: Path, target: Path) -> None:
    """Load the pickled weights of a folder file by file, tensors alone, and write each as safetensors.

    Raises:
        ValueError: a file that holds anything else, or no tensor.
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
    """Write one file; gives the bytes of each tensor."""
    import pickle

    import torch
    from safetensors.torch import save_file

    try:
        found = torch.load(pickled, map_location="cpu", weights_only=True, mmap=is_zipfile(pickled))
    except pickle.UnpicklingError:
        raise ValueError(
            f"{pickled.name} holds more than tensors, which could run code, or is damaged. Choose a model with safetensors."
        ) from None
    except (RuntimeError, EOFError, OSError):
        raise ValueError(f"{pickled.name} is damaged. Download it anew.") from None
    tensors = (
        {str(name): tensor for name, tensor in found.items() if torch.is_tensor(tensor)}
        if isinstance(found, dict)
        else {}
    )
    if not tensors:
        raise ValueError(
            f"{pickled.name} holds no weights by name. Choose a model with safetensors."
        )
    save_file(_apart(tensors), target, metadata={"format": "pt"})
    return {name: tensor.numel() * tensor.element_size() for name, tensor in tensors.items()}


def _apart(tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
    """The tensors with memory of their own: safetensors stores none that two names share, such as tied embeddings."""
    seen: set[int] = set()
    apart: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone().contiguous() if place in seen else tensor.contiguous()
        seen.add(place)
    return apart


if __name__ == "__main__":
    try:
        write_safetensors(Path(sys.argv[1]), Path(sys.argv[2]))
    except ValueError as error:
        sys.exit(str(error))
