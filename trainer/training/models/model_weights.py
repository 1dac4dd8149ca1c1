"""The weights of a configured model: checked without loading them, and converted if pickled."""

from pathlib import Path

from trainer.config.sections.model import ModelSection
from trainer.data.reading.locate import hub_remedy
from trainer.errors import ModelError, first_line
from trainer.files.cache import cache_dir
from trainer.training.models.converted_weights import (
    DOWNLOADED,
    convert_to,
    converted,
    copy_in_cache,
)
from trainer.training.models.model_folder import ADAPTER, MERGE, loading, resolve_name
from trainer.training.models.weight_files import (
    INDEX,
    PICKLED_INDEX,
    PICKLED_WHOLE,
    WHOLE,
    check_pickled,
    check_whole,
    needs_conversion,
    refuse_other_weights,
)


def check_weights(model: ModelSection) -> None:
    """Check the names and heads of the weight files without loading them (`--check`).

    For pickled weights, print the location of the converted copy.

    Raises:
        ModelError: there are no weights that can be loaded, or files are missing or truncated.
    """
    name, where = resolve_name(model.name), f"model.name: '{model.name}'"
    folder = Path(name) if Path(name).is_dir() else None
    names = [path.name for path in folder.iterdir()] if folder else _weight_names(model, name)
    if "adapter_config.json" in names:  # transformers would load its base model instead
        raise ModelError(f"{where} {ADAPTER} M{MERGE[1:]}")
    if not model.convert_weights or not needs_conversion(names):
        refuse_other_weights(names, where, model.name, " Or set model.convert_weights: true.")
        if folder:
            with loading(model.name):
                check_whole(folder, where)
        return
    if folder:
        check_pickled(folder, where)
    place = copy_in_cache(folder) if folder else f"{cache_dir()} (equipoise cache --list)"
    print(
        f"model.convert_weights: the pickled weights of '{model.name}' are read from a copy"
        f" in safetensors, {place}"
    )


def _weight_names(model: ModelSection, name: str) -> list[str]:
    """Return the names of a Hub model's files, or only its weights if the cache has them.

    Without a network, the names in the cache are returned.
    """
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    cached = [
        file
        for file in ("adapter_config.json", WHOLE, INDEX, PICKLED_WHOLE, PICKLED_INDEX)
        if isinstance(try_to_load_from_cache(name, file, revision=model.revision), str)
    ]
    if WHOLE in cached or INDEX in cached:
        return cached
    try:
        return HfApi().list_repo_files(name, revision=model.revision)
    except (httpx.HTTPError, OSError) as error:
        if cached:
            return cached
        raise ModelError(
            f"model.name: '{model.name}' cannot be reached: {first_line(error)} {hub_remedy()}"
        ) from error


def with_safetensors(model: ModelSection) -> str:
    """Return the folder or Hub id whose weights can be loaded.

    That is the model itself or, with `model.convert_weights`, its converted copy.

    Raises:
        ModelError: the weights cannot be converted.
    """
    name = resolve_name(model.name)
    is_local = Path(name).is_dir()
    if not model.convert_weights or not (is_local or needs_conversion(_weight_names(model, name))):
        return name
    folder = Path(name) if is_local else _download(name, model.revision)
    return str(converted(model.name, folder))


def convert_model(name: str, output: Path | None, *, revision: str | None = None) -> Path:
    """Write a copy of a model with safetensors in place of pickled weights, and return its folder.

    Args:
        output: folder of the copy; None for `<name>-safetensors` in the current folder.
    Raises:
        ModelError: the model does not exist, has no pickled weights or weights that cannot be
            converted, or the folder of the copy exists already.
    """
    found = resolve_name(name)
    target = output or Path(f"{Path(found).name}-safetensors")
    with loading(name):
        folder = Path(found) if Path(found).is_dir() else _download(found, revision)
    convert_to(name, folder, target)
    return target


def _download(hub_id: str, revision: str | None) -> Path:
    """Download the files from which a copy of a Hub model is made; return their folder."""
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(hub_id, revision=revision, allow_patterns=DOWNLOADED))
