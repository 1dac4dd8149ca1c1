"""What a path or Hub id given as a model holds, and what to give instead of it if need be."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trainer.data.reading.locate import hub_is_unreachable, hub_remedy, package_path, refuse_url
from trainer.errors import ModelError, did_you_mean, first_line, listing
from trainer.training.models.weight_files import GGUF, QUANTISED, is_lfs_pointer, pickled_weights

CHECKPOINT = re.compile(r"checkpoint-(\d+)")
SENTENCEPIECE = (
    "spm.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "sentencepiece.model",
    "tokenizer.model",
)
TOKENIZER_FILES = {
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    *SENTENCEPIECE,
}
ADAPTER = "holds an adapter (LoRA or the like, adapter_config.json), not a whole model."
MERGE = (
    "merge the adapter into its model first (peft: merge_and_unload, then save_pretrained),"
    " and give that folder."
)
NO_MODEL = "holds no config.json, so it is no Transformers model."
INPUTS = {
    "images": (
        "IMAGE_CLASSIFICATION",
        "ZERO_SHOT_IMAGE_CLASSIFICATION",
        "OBJECT_DETECTION",
        "SEMANTIC_SEGMENTATION",
        "MASK_GENERATION",
    ),
    "audio": (
        "AUDIO_CLASSIFICATION",
        "CTC",
        "SPEECH_SEQ_2_SEQ",
        "TEXT_TO_SPECTROGRAM",
        "TEXT_TO_WAVEFORM",
    ),
    "videos": ("VIDEO_CLASSIFICATION",),
}
"""What models for other tasks read, and the names of Transformers' tables of these models."""


def resolve_name(name: str) -> str:
    """Return the folder of a `package:` path or a local path; return a Hub id unchanged.

    Raises:
        ModelError: the path does not exist, or it holds no pretrained text model.
    """
    if name.startswith("package:"):
        path = package_path(name, ModelError)
    else:
        path = Path(name).expanduser()
        if not path.exists():
            refuse_url(name, "model.name", "model", ModelError)
            if name.startswith((".", "/", "~")) or name.count("/") > 1:
                siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
                raise ModelError(
                    f"model.name: '{name}' does not exist.{did_you_mean(path.name, siblings)}"
                    " Relative paths start at the folder you run in."
                )
            return name
    refuse_other_kinds(path, f"model.name: '{name}'")
    return str(path)


def refuse_other_kinds(path: Path, where: str, otherwise: str = NO_MODEL) -> None:
    """Raise ModelError if a path exists but is no folder of a pretrained text model.

    The message says what the path holds instead (an adapter, a run, checkpoints, GGUF, only a
    tokenizer ...) and what to give.

    Args:
        where: config key and name, for messages.
        otherwise: message for a folder without config.json that is of no known kind.
    """
    if path.is_file():
        words: str | None = _of_file(path)
    elif (path / "config.json").is_file():
        words = _of_config(path)
    else:
        words = _without_config(path) or otherwise
    if words:
        raise ModelError(f"{where} {words}")


@contextmanager
def loading_from_hub(name: str, revision: str | None, where: str) -> Iterator[None]:
    """Explain what a repository of the Hub holds if it has no config.json.

    Raises:
        ModelError: the repository holds no Transformers model but an adapter, GGUF or other files.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        yield
    except (OSError, ValueError):
        if Path(name).is_dir() or hub_is_unreachable():
            raise
        try:
            names = HfApi().list_repo_files(name, revision=revision)
        except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError):
            names = ["config.json"]  # the error itself says more
        if "config.json" in names:
            raise
        if "adapter_config.json" in names:
            words = f"{ADAPTER} Give its base model, which its card names, or {MERGE}"
        elif any(file.endswith(".gguf") for file in names):
            words = GGUF
        else:
            words = f"{NO_MODEL} It holds {listing(names, 5)}."
        raise ModelError(f"{where} {words}") from None


def refuse_other_types(config: Any, where: str) -> None:
    """Raise ModelError for a model that Transformers cannot use for text classification."""
    # the tables of this module need no torch
    modeling_auto = import_module("transformers.models.auto.modeling_auto")
    remote = getattr(config, "auto_map", None) or {}
    if (
        type(config) in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
        or "AutoModelForSequenceClassification" in remote
    ):
        return
    words = (
        f"{where} is of type {config.model_type},"
        " which Transformers cannot use for text classification"
    )
    if remote:
        raise ModelError(
            f"{words}: its own code (auto_map) has {listing(remote)},"
            " but no AutoModelForSequenceClassification. Choose another model."
        )
    for kind, tasks in INPUTS.items():
        tables = (getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}) for task in tasks)
        if any(config.model_type in table for table in tables):
            words += f": it reads {kind}"
            break
    raise ModelError(
        f"{words}. Give an encoder or a decoder for text, such as BERT, RoBERTa, DeBERTa or Qwen."
    )


@contextmanager
def loading_tokenizer(folder: Path, where: str) -> Iterator[None]:
    """Name a damaged SentencePiece file if a tokenizer cannot be loaded.

    The message of transformers would ask for tiktoken instead.

    Raises:
        ModelError: a SentencePiece file cannot be read, in a folder without tokenizer.json.
    """
    try:
        yield
    except Exception:
        for name in () if (folder / "tokenizer.json").is_file() else SENTENCEPIECE:
            if (folder / name).is_file() and not _is_sentencepiece(folder / name):
                remedy = (
                    "it is a Git LFS pointer. Run git lfs pull"
                    if is_lfs_pointer(folder / name)
                    else "the file is damaged. Download it again"
                )
                raise ModelError(
                    f"{where} cannot be loaded: its {name} is no SentencePiece model: {remedy},"
                    " or put a tokenizer.json beside it."
                ) from None
        raise


def _is_sentencepiece(path: Path) -> bool:
    from sentencepiece import SentencePieceProcessor

    try:
        SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError):
        return False
    return True


def _of_file(path: Path) -> str:
    if path.suffix == ".gguf":
        return f"is a GGUF file, {QUANTISED}"
    if (path.parent / "config.json").is_file():
        return f"is a file. Give its folder: {path.parent}"
    return "is a file. Give the folder of a model, with config.json, weights and tokenizer."


def _of_config(folder: Path) -> str | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        fault = first_line(error)
        return f"cannot be loaded: its config.json is damaged: {fault} Copy the file again."
    if not isinstance(config, dict):
        return "cannot be loaded: its config.json is no JSON object. Copy the file again."
    if (folder / "adapter_config.json").is_file():
        return (
            f"{_of_adapter(folder)} If the weights beside it are those of a whole model,"
            " remove adapter_config.json."
        )
    if not config.get("model_type") and "AutoConfig" not in (config.get("auto_map") or {}):
        names = config.get("architectures")
        kind = f", of architecture {names[0]}" if names else ""
        return (
            f"has a config.json without model_type{kind}, so its kind is not known."
            ' Add the kind to config.json, such as "model_type": "bert".'
        )
    return None


def _without_config(folder: Path) -> str | None:
    names = {path.name for path in folder.iterdir()}
    if "adapter_config.json" in names:
        return _of_adapter(folder)
    if "config.yaml" in names:
        return _of_run(folder)
    if numbers := sorted(int(found[1]) for name in names if (found := CHECKPOINT.fullmatch(name))):
        return _of_checkpoints(folder, numbers)
    if (folder / "refs").is_dir() and (folder / "snapshots").is_dir():
        hub_id = folder.name.removeprefix("models--").replace("--", "/")
        return (
            f"is a folder of the Hub's cache. Give the id, {hub_id},"
            " or one of the folders in snapshots/."
        )
    if any(name.endswith(".gguf") for name in names):
        return GGUF
    is_sentence_model = "modules.json" in names
    if below := sorted(path.name for path in folder.iterdir() if (path / "config.json").is_file()):
        kind = (
            "holds a sentence-transformers model, whose encoder lies in a folder of its own"
            if is_sentence_model
            else "holds no config.json itself"
        )
        return f"{kind}. Give {' or '.join(str(folder / name) for name in below[:3])}"
    if is_sentence_model:
        return (
            "holds a sentence-transformers model without a Transformers encoder,"
            " so it has no config.json and cannot be trained here."
        )
    weights = [name for name in names if name.endswith(".safetensors")] + pickled_weights(names)
    if weights:
        return (
            f"holds weights ({listing(weights, 3)}) and no config.json."
            " Copy the config.json of that model beside them."
        )
    if names & TOKENIZER_FILES:
        return (
            "holds only a tokenizer: no config.json, no weights."
            " Give the folder of the model that it belongs to."
        )
    return None


def _of_adapter(folder: Path) -> str:
    if (folder.parent / "model/config.json").is_file():
        return f"{ADAPTER} Give {folder.parent / 'model'}, into which it is merged."
    try:
        settings = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        base = settings["base_model_name_or_path"]
    except (OSError, ValueError, LookupError, TypeError):
        base = None
    return f"{ADAPTER} " + (f"Give its base model, {base}, or {MERGE}" if base else f"M{MERGE[1:]}")


def _of_run(folder: Path) -> str:
    for model in (folder / "model", folder / "member-1/model"):
        if (model / "config.json").is_file():
            return f"is the folder of a run. Give the model in it: {model}"
    return (
        "is the folder of a run that has no model."
        " Start its training again, which resumes it, then give its folder model/."
    )


def _of_checkpoints(folder: Path, numbers: list[int]) -> str:
    paths = [folder / f"checkpoint-{number}" for number in numbers]
    words = (
        f"holds checkpoints of a training ({listing((path.name for path in paths), 3)})"
        " and no config.json of its own."
    )
    models = [path for path in paths if (path / "config.json").is_file()]
    if models:
        return f"{words} Give one of them, such as {models[-1]}"
    return (
        f"{words} None of them holds a config.json, so none is a model."
        " Give the model that was saved at the end of that training."
    )


@contextmanager
def loading(
    name: str, where: str | None = None, allow: str = "set model.trust_remote_code: true"
) -> Iterator[None]:
    """Turn the errors of libraries that load a model into a ModelError that names the model.

    Args:
        name: folder or Hub id.
        where: start of the message; without it, the config key and the name.
        allow: what to do so that Python code of the model is run.
    """
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    where = where or f"model.name: '{name}'"
    known = (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError)
    try:
        yield
    except (*known, httpx.HTTPError) as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{where} needs Python code that comes with it (auto_map), which runs only if you"
                f" allow it. Read that code; if you trust it, {allow}."
            ) from error
        is_local = name.startswith("package:") or Path(name).expanduser().exists()
        remedy = "" if is_local or not isinstance(error, OSError) else f" {hub_remedy()}"
        raise ModelError(f"{where} cannot be loaded: {first_line(error)}{remedy}") from error
