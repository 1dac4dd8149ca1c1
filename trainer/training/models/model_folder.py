"""What a path given as a model holds. What is no pretrained text model is refused, with what to give instead, before anything is loaded."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from trainer.data.reading.locate import hub_remedy, package_path, refuse_url
from trainer.errors import ModelError, did_you_mean, first_line, listing
from trainer.training.models.weight_files import GGUF, is_lfs_pointer, pickled_weights

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
MERGE = "merge the adapter into its model first (peft: merge_and_unload, then save_pretrained), and give that folder."
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
"""What models of Transformers' other tasks read, by the names of its tables."""


def resolve_name(name: str) -> str:
    """Folder of a `package:` path or of a local path, else the Hub id as it is.

    Raises:
        ModelError: a path that does not exist, or that holds no pretrained text model.
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
                    f"model.name: '{name}' does not exist.{did_you_mean(path.name, siblings)} Relative paths start at the folder you run in."
                )
            return name
    refuse_other_kinds(path, f"model.name: '{name}'")
    return str(path)


def refuse_other_kinds(
    path: Path,
    where: str,
    otherwise: str = "holds no config.json, so it is no Transformers model folder.",
) -> None:
    """Refuse what exists but is no folder of a pretrained text model.

    Args:
        where: config key and name, for messages.
        otherwise: what is said of a folder without config.json that is of no known kind.
    Raises:
        ModelError: an adapter, a run, checkpoints, GGUF, a tokenizer alone ...; with what to give instead.
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
def telling_repository(name: str, revision: str | None, where: str) -> Iterator[None]:
    """Tell what a repository of the Hub holds whose config cannot be had, where that is known by its files.

    Raises:
        ModelError: a repository without config.json: an adapter, GGUF ...
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        yield
    except (OSError, ValueError):
        if Path(name).is_dir():
            raise
        try:
            names = HfApi().list_repo_files(name, revision=revision)
        except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError):
            names = ["config.json"]  # the error itself says more
        if "config.json" in names:
            raise
        if "adapter_config.json" in names:
            words = (
                f"{ADAPTER} Give its base model, which its card names, to train anew; or {MERGE}"
            )
        elif any(file.endswith(".gguf") for file in names):
            words = GGUF
        else:
            words = f"holds no config.json, so it is no Transformers model; it holds {listing(names, 5)}."
        raise ModelError(f"{where} {words}") from None


def refuse_other_types(config: Any, where: str) -> None:
    """Raises ModelError for a model that Transformers cannot use for text classification; says what it reads."""
    modeling_auto = import_module(
        "transformers.models.auto.modeling_auto"
    )  # whose tables need no torch
    remote = getattr(config, "auto_map", None) or {}
    if (
        type(config) in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
        or "AutoModelForSequenceClassification" in remote
    ):
        return
    words = f"{where} is of type {config.model_type}, which Transformers cannot use for text classification"
    if remote:
        raise ModelError(
            f"{words}: its own code (auto_map) has {listing(remote)}, but no AutoModelForSequenceClassification."
        )
    tables = {
        kind: [getattr(modeling_auto, f"MODEL_FOR_{task}_MAPPING_NAMES", {}) for task in tasks]
        for kind, tasks in INPUTS.items()
    }
    reads = [
        kind for kind, names in tables.items() if any(config.model_type in table for table in names)
    ]
    raise ModelError(
        f"{words}{f': it reads {reads[0]}' if reads else ''}. Give an encoder or a decoder for text, such as BERT, RoBERTa, DeBERTa or Qwen."
    )


@contextmanager
def telling_damage(path: Path, where: str) -> Iterator[None]:
    """Tell a SentencePiece model that cannot be read when a tokenizer cannot be loaded; transformers would ask for tiktoken.

    Raises:
        ModelError: a file that is no SentencePiece model, in a folder without tokenizer.json.
    """
    try:
        yield
    except Exception:
        for name in () if (path / "tokenizer.json").is_file() else SENTENCEPIECE:
            if (path / name).is_file() and not _is_sentencepiece(path / name):
                remedy = (
                    "it is a Git LFS pointer. Run git lfs pull"
                    if is_lfs_pointer(path / name)
                    else "the file is damaged. Download it anew"
                )
                raise ModelError(
                    f"{where} cannot be loaded: its {name} is no SentencePiece model: {remedy}, or put a tokenizer.json beside it."
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
        return "is a GGUF file, whose weights are quantised for generating text. Give the folder or Hub id of the model that it was made from."
    if (path.parent / "config.json").is_file():
        return f"is a file. Give its folder: {path.parent}"
    return "is a file; needed: the folder of a model, with config.json, weights and tokenizer."


def _of_config(folder: Path) -> str | None:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return (
            f"cannot be loaded: its config.json is damaged: {first_line(error)} Copy the file anew."
        )
    if not isinstance(config, dict):
        return "cannot be loaded: its config.json is no JSON object. Copy the file anew."
    if (folder / "adapter_config.json").is_file():
        return f"{_of_adapter(folder)} If the weights beside it are those of a whole model, remove adapter_config.json."
    if not config.get("model_type") and "AutoConfig" not in (config.get("auto_map") or {}):
        kind = (
            f", of architecture {config['architectures'][0]}" if config.get("architectures") else ""
        )
        return f'has a config.json without model_type{kind}, so its kind is not known. Add the kind to config.json, such as "model_type": "bert".'
    return None


def _without_config(folder: Path) -> str | None:
    names = {path.name for path in folder.iterdir()}
    of_weights = [name for name in names if name.endswith(".safetensors")] + pickled_weights(names)
    if "adapter_config.json" in names:
        return _of_adapter(folder)
    if "config.yaml" in names:
        return _of_run(folder)
    if numbers := sorted(int(found[1]) for name in names if (found := CHECKPOINT.fullmatch(name))):
        return _of_checkpoints(folder, numbers)
    if (folder / "refs").is_dir() and (folder / "snapshots").is_dir():
        return f"is a folder of the Hub's cache. Give the id, {folder.name.removeprefix('models--').replace('--', '/')}, or one of the folders in snapshots/."
    if any(name.endswith(".gguf") for name in names):
        return GGUF
    if below := sorted(path.name for path in folder.iterdir() if (path / "config.json").is_file()):
        kind = (
            "holds a sentence-transformers model, whose encoder lies in a folder of its own"
            if "modules.json" in names
            else "holds no config.json itself"
        )
        return f"{kind}. Give {' or '.join(str(folder / name) for name in below[:3])}"
    if "modules.json" in names:
        return "holds a sentence-transformers model without a Transformers encoder, so it has no config.json and cannot be trained here."
    if of_weights:
        return f"holds weights ({listing(of_weights, 3)}) and no config.json. Copy the config.json of that model beside them."
    if names & TOKENIZER_FILES:
        return "holds a tokenizer alone: no config.json, no weights. Give the folder of the model that it belongs to."
    return None


def _of_adapter(folder: Path) -> str:
    if (folder.parent / "model/config.json").is_file():
        return f"{ADAPTER} Give {folder.parent / 'model'}, into which it is merged."
    try:
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))[
            "base_model_name_or_path"
        ]
    except (OSError, ValueError, LookupError, TypeError):
        base = None
    return (
        f"{ADAPTER} Give its base model, {base}, to train anew; or {MERGE}"
        if base
        else f"{ADAPTER} M{MERGE[1:]}"
    )


def _of_run(folder: Path) -> str:
    models = [
        folder / name
        for name in ("model", "member-1/model")
        if (folder / name / "config.json").is_file()
    ]
    if models:
        return f"is the folder of a run. Give the model in it: {models[0]}"
    return "is the folder of a run that has no model. Start its training again, which resumes it, then give its folder model/."


def _of_checkpoints(folder: Path, numbers: list[int]) -> str:
    whole = [
        number for number in numbers if (folder / f"checkpoint-{number}/config.json").is_file()
    ]
    words = f"holds checkpoints of a training ({listing((f'checkpoint-{number}' for number in numbers), 3)}) and no config.json of its own."
    if not whole:
        return f"{words} None of them holds a config.json, so none is a model. Give the model that was saved at the end of that training."
    return f"{words} Give one of them, such as {folder / f'checkpoint-{whole[-1]}'}"


@contextmanager
def worded(name: str) -> Iterator[None]:
    """Turns what transformers raises while loading into a ModelError that names the model."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        if "trust_remote_code" in str(error):
            words = "needs Python code that comes with it (auto_map), which is not run unless you allow it"
            raise ModelError(
                f"model.name: '{name}' {words}. Read that code; if you trust it, set model.trust_remote_code: true."
            ) from error
        remedy = (
            f" {hub_remedy()}"
            if isinstance(error, OSError)
            and not (name.startswith("package:") or Path(name).expanduser().exists())
            else ""
        )
        raise ModelError(
            f"model.name: '{name}' cannot be loaded: {first_line(error)}{remedy}"
        ) from error
