"""Which weights a model has, by the names of its files; what cannot be loaded is refused before anything is."""

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
"""Weights as torch pickles them; adapter_model.bin and training_args.bin are other files."""
UNREAD = ("tf_model.h5", "flax_model.msgpack", "model.ckpt.index", "rust_model.ot")
"""Weights that transformers read before its version 5."""
GGUF = "holds GGUF, whose weights are quantised for generating text. Give the folder or Hub id of the model that it was made from."
PICKLE_START = b"\x80"
LFS_POINTER = b"version https://git-lfs.github.com/spec"


def is_lfs_pointer(path: Path) -> bool:
    """Whether Git stored a pointer here in place of the file."""
    with path.open("rb") as file:
        return file.read(len(LFS_POINTER)) == LFS_POINTER


def pickled_weights(names: Collection[str]) -> list[str]:
    """Return the pickled weights among the names of a model's files, sorted."""
    return sorted(name for name in names if PICKLED.fullmatch(name))


def needs_conversion(names: Collection[str]) -> bool:
    """Whether a model has pickled weights and no others."""
    return WHOLE not in names and INDEX not in names and bool(pickled_weights(names))


def refuse_other_weights(names: Collection[str], where: str, name: str, option: str = "") -> None:
    """Refuse a model without weights that can be loaded.

    Args:
        names: of its files.
        where: config key and name, for messages.
        name: of the model, for the command that converts it.
        option: what does the same, in words; empty where there is none.
    Raises:
        ModelError: pickled weights alone, with the command that converts them; weights of other libraries; no weights.
    """
    if WHOLE in names or INDEX in names:
        return
    if pickled := pickled_weights(names):
        words = f"{where} has pickled weights alone ({listing(pickled, 2)}). Such a file can run code when it is loaded, so it is not."
        raise ModelError(f"{words} Convert it once: equipoise convert {shlex.quote(name)}{option}")
    if unread := [file for file in UNREAD if file in names]:
        raise ModelError(
            f"{where} has weights of another library ({listing(unread)}), which Transformers no longer reads. Choose a model with safetensors."
        )
    if any(file.endswith(".gguf") for file in names):
        raise ModelError(f"{where} {GGUF}")
    if any(file.endswith(".onnx") for file in names):
        raise ModelError(
            f"{where} holds an ONNX graph and no weights that can be trained. Give the folder or Hub id of the model that it was made from."
        )
    others = [file for file in names if file.endswith(".safetensors") and "/" not in file]
    remedy = (
        f"Rename {others[0]} to {WHOLE} if it holds the model"
        if len(others) == 1
        else f"Copy {WHOLE} beside its config.json"
    )
    raise ModelError(f"{where} holds no weights. {remedy}, or choose another model.")


def check_whole(folder: Path, where: str) -> None:
    """Check that the safetensors files of a folder are there and whole, by their heads alone.

    Raises:
        ModelError: a missing file, or a Git LFS pointer.
        SafetensorError: a file that was cut.
    """
    for path in _parts(folder, WHOLE, INDEX, where):
        with safe_open(str(path), framework="numpy"):  # a truncated file is refused here
            pass


def check_pickled(folder: Path, where: str) -> None:
    """Check that the pickled files of a folder are there and look like torch's, without loading them.

    Raises:
        ModelError: a missing file, a Git LFS pointer, or something else.
    """
    for path in _parts(folder, PICKLED_WHOLE, PICKLED_INDEX, where):
        with path.open("rb") as file:
            if file.read(1) != PICKLE_START and not is_zipfile(
                path
            ):  # of torch before 1.6, and since
                raise ModelError(
                    f"{where} cannot be converted: {path.name} is damaged or holds no weights of torch. Download it anew."
                )


def _parts(folder: Path, whole: str, index: str, where: str) -> list[Path]:
    """The files of the weights; transformers, too, takes the whole file where both are there."""
    names = [whole] if (folder / whole).is_file() else shards(folder / index, where)
    for name in names:
        if not (folder / name).is_file():
            raise ModelError(
                f"{where} cannot be loaded: its weights lack {name}. Copy the missing file into {folder}."
            )
        if is_lfs_pointer(folder / name):
            raise ModelError(
                f"{where} cannot be loaded: its {name} is a Git LFS pointer, not the file. Run git lfs pull in its folder."
            )
    return [folder / name for name in names]


def shards(index: Path, where: str) -> list[str]:
    """Names of the files that an index lists, sorted.

    Raises:
        ModelError: a damaged or missing index.
    """
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except FileNotFoundError:
        raise ModelError(
            f"{where} cannot be loaded: its weights lack {index.name}. Copy the missing file into {index.parent}."
        ) from None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        raise ModelError(
            f"{where} cannot be loaded: its {index.name} is damaged. Copy the file anew."
        ) from None
