"""The kind of a model's weights, known from the names and heads of its files."""

import json
import re
import shlex
from collections.abc import Collection
from pathlib import Path
from zipfile import is_zipfile

from safetensors import safe_open

from trainer.errors import ModelError, listing

WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED_WHOLE, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
PICKLED = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
"""Weights that torch pickled; adapter_model.bin and training_args.bin hold something else."""
UNREAD = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index", "rust_model.ot")
"""Weights that transformers read before its version 5."""
QUANTISED = (
    "whose weights are quantised for generating text."
    " Give the folder or Hub id of the model that it was made from."
)
GGUF = f"holds GGUF, {QUANTISED}"
PICKLE_START = b"\x80"
LFS_POINTER = b"version https://git-lfs.github.com/spec"


def is_lfs_pointer(path: Path) -> bool:
    """Return whether the file is a pointer that Git LFS stored in its place."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def pickled_weights(names: Collection[str]) -> list[str]:
    """Return the pickled weights among the names of a model's files, sorted."""
    return sorted(name for name in names if PICKLED.fullmatch(name))


def needs_conversion(names: Collection[str]) -> bool:
    """Return whether a model has pickled weights and no others."""
    return WHOLE not in names and INDEX not in names and bool(pickled_weights(names))


def refuse_other_weights(names: Collection[str], where: str, name: str, option: str = "") -> None:
    """Raise ModelError if a model has no weights that can be loaded.

    The message names what it has instead, and for pickled weights the command that converts them.

    Args:
        names: names of the model's files.
        where: config key and name, for messages.
        name: name of the model, for the command.
        option: sentence about a setting that does the same as the command; may be empty.
    """
    if WHOLE in names or INDEX in names:
        return
    if pickled := pickled_weights(names):
        raise ModelError(
            f"{where} has only pickled weights ({listing(pickled, 2)}). Such a file can run code"
            " when it is loaded, so it is not loaded."
            f" Convert it once: equipoise convert {shlex.quote(name)}{option}"
        )
    if unread := [file for file in UNREAD if file in names]:
        raise ModelError(
            f"{where} has weights of another library ({listing(unread)}),"
            " which Transformers no longer reads. Choose a model with safetensors."
        )
    if any(file.endswith(".gguf") for file in names):
        raise ModelError(f"{where} {GGUF}")
    if any(file.endswith(".onnx") or file == "openvino_model.xml" for file in names):
        raise ModelError(
            f"{where} holds an exported graph and no weights that can be trained."
            " Give the folder or Hub id of the model that it was made from."
        )
    others = [file for file in names if file.endswith(".safetensors") and "/" not in file]
    remedy = (
        f"Rename {others[0]} to {WHOLE} if it holds the model"
        if len(others) == 1
        else f"Copy {WHOLE} beside its config.json"
    )
    raise ModelError(f"{where} holds no weights. {remedy}, or choose another model.")


def check_whole(folder: Path, where: str) -> None:
    """Check that the safetensors files of a folder are there and whole, by reading their heads.

    Raises:
        ModelError: a file is missing or is a Git LFS pointer.
        SafetensorError: a file is truncated.
    """
    for path in _parts(folder, WHOLE, INDEX, where):
        with safe_open(str(path), framework="numpy"):
            pass


def check_pickled(folder: Path, where: str) -> None:
    """Check that the pickled files of a folder look like torch's, without loading them.

    Raises:
        ModelError: a file is missing, is a Git LFS pointer, or is of another kind.
    """
    for path in _parts(folder, PICKLED_WHOLE, PICKLED_INDEX, where):
        with path.open("rb") as file:
            # torch wrote plain pickles before version 1.6, and zip files since
            if file.read(1) != PICKLE_START and not is_zipfile(path):
                raise ModelError(
                    f"{where} cannot be converted: {path.name} is damaged"
                    " or holds no weights of torch. Download it again."
                )


def _parts(folder: Path, whole: str, index: str, where: str) -> list[Path]:
    """Return the files of the weights; like transformers, prefer the whole file to its parts."""
    names = [whole] if (folder / whole).is_file() else shards(folder / index, where)
    for name in names:
        if not (folder / name).is_file():
            raise _missing(folder / name, where)
        if is_lfs_pointer(folder / name):
            raise ModelError(
                f"{where} cannot be loaded: its {name} is a Git LFS pointer, not the file."
                " Run git lfs pull in its folder."
            )
    return [folder / name for name in names]


def shards(index: Path, where: str) -> list[str]:
    """Return the names of the files that an index lists, sorted.

    Raises:
        ModelError: the index is damaged or missing.
    """
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except FileNotFoundError:
        raise _missing(index, where) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ModelError(
            f"{where} cannot be loaded: its {index.name} is damaged. Copy the file again."
        ) from None


def _missing(path: Path, where: str) -> ModelError:
    return ModelError(
        f"{where} cannot be loaded: its weights lack {path.name}."
        f" Copy the missing file into {path.parent}."
    )
