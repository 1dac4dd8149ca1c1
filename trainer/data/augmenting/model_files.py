"""Find the language model that writes rows, and identify its weights."""

from functools import cache
from pathlib import Path

from trainer.config.sections.augment import AugmentSection
from trainer.data.reading.locate import package_path, refuse_url
from trainer.errors import ModelError, did_you_mean, listing
from trainer.files.content import content_digest

NOT_READ = (
    ".gguf",
    ".bin",
    ".pt",
    ".pth",
    ".h5",
    ".msgpack",
    ".onnx",
    ".md",
    ".png",
    ".jpg",
    ".gitattributes",
    ".log",
    ".lock",
)
"""Endings of files that are not loaded: weights in other formats, texts and pictures."""


def locate_model(name: str) -> tuple[str, str | None]:
    """Return a folder or Hub id, and the name of the GGUF file; None for safetensors.

    Raises:
        ModelError: the path does not exist, or it has several GGUF files or no known weights.
    """
    if name.startswith("package:"):
        path = package_path(name, ModelError)
    else:
        path = Path(name).expanduser()
    if path.is_file():
        with path.open("rb") as file:
            if file.read(4) != b"GGUF":
                raise ModelError(
                    f"augment.model: '{name}' is not a GGUF file."
                    " Give a model folder, a GGUF file or a Hub id."
                )
        return str(path.parent), path.name
    if path.is_dir():
        return str(path), _gguf_file(name, path)
    refuse_url(name, "augment.model", "model", ModelError)
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith(".gguf"):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise ModelError(
            f"augment.model: '{name}' does not exist.{did_you_mean(path.name, siblings)}"
            " Relative paths start at the current folder."
        )
    return name, None


def _gguf_file(name: str, folder: Path) -> str | None:
    """Return the name of the only GGUF file; None if the folder has safetensors weights."""
    if (folder / "config.json").is_file() and list(folder.glob("*.safetensors")):
        return None
    packed = sorted(path.name for path in folder.glob("*.gguf"))
    if not packed:
        raise ModelError(
            f"augment.model: '{name}' contains neither config.json with safetensors weights"
            " nor a GGUF file. Pickled weights are not loaded."
        )
    if len(packed) > 1:
        raise ModelError(
            f"augment.model: '{name}' contains {len(packed)} GGUF files: {listing(packed)}."
            f" Name one of them: {name.rstrip('/')}/{packed[0]}"
        )
    return packed[0]


def model_identity(augment: AugmentSection) -> str:
    """Return what the completions depend on besides the prompts.

    For a local model it is the content of its files, for a Hub model its commit. For a server it
    is the address and the model's name, because no server tells its weights.
    """
    if augment.generator == "endpoint":
        return f"{augment.base_url} {augment.model}"
    name, gguf_file = locate_model(augment.model or "")
    if not Path(name).is_dir():
        return f"{name} {hub_commit(name, augment.revision)}"
    return " ".join(
        f"{path.name}:{content_digest(path.resolve())}"
        for path in sorted(Path(name).iterdir())
        if path.is_file() and (path.name == gguf_file or path.suffix.lower() not in NOT_READ)
    )


@cache
def hub_commit(name: str, revision: str | None) -> str | None:
    """Return the commit of a Hub model; ask once, so that key and loaded weights agree.

    If the Hub cannot be reached, it is the commit in the local Hub cache, or None if the model is
    not there either.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    try:
        return str(HfApi().model_info(name, revision=revision, timeout=10).sha)
    except (httpx.HTTPError, ValueError, OSError):
        found = try_to_load_from_cache(name, "config.json", revision=revision)
        # found: .../snapshots/<commit>/config.json
        return Path(found).parent.name if isinstance(found, str) else None
