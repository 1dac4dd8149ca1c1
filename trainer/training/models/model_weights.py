"""The weights of the model of a config: checked without loading them, and converted where they are pickled."""

from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.reading.locate import hub_remedy
from trainer.errors import ModelError, first_line
from trainer.files.cache import cache_dir
from trainer.training.models.converted_weights import (
    DOWNLOADED,
    convert_to,
    converted,
    copy_in_cache,
)
from trainer.training.models.model_folder import ADAPTER, MERGE, resolve_name, worded
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

if TYPE_CHECKING:
    from trainer.config.sections.model import ModelSection


def check_weights(model: "ModelSection") -> None:
    """Check the names and heads of the files of the weights, which are not loaded (`--check`); say where a converted copy lies.

    Raises:
        ModelError: no weights that can be loaded, or files that are missing or cut.
    """
    name, where = resolve_name(model.name), f"model.name: '{model.name}'"
    folder = Path(name) if Path(name).is_dir() else None
    names = (
        _weight_names(model, name) if folder is None else [path.name for path in folder.iterdir()]
    )
    if (
        "adapter_config.json" in names
    ):  # transformers would load its base model in place of this one
        raise ModelError(f"{where} {ADAPTER} M{MERGE[1:]}")
    if not model.convert_weights or not needs_conversion(names):
        refuse_other_weights(names, where, model.name, " Or set model.convert_weights: true.")
        if folder:
            with worded(model.name):
                check_whole(folder, where)
        return
    if folder:
        check_pickled(folder, where)
    place = copy_in_cache(folder) if folder else f"{cache_dir()} (equipoise cache --list)"
    print(
        f"model.convert_weights: the pickled weights of '{model.name}' are read from a copy in safetensors, {place}"
    )


def _weight_names(model: "ModelSection", name: str) -> list[str]:
    """Names of the files of a Hub model, as far as they tell its weights; those in the cache where that is enough, or the Hub is out of reach."""
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


def with_safetensors(model: "ModelSection") -> str:
    """Folder or Hub id whose weights can be loaded: the model's own, or with `model.convert_weights` its converted copy.

    Raises:
        ModelError: weights that cannot be converted.
    """
    name = resolve_name(model.name)
    if not model.convert_weights:
        return name
    if Path(name).is_dir():
        return str(converted(model.name, Path(name)))
    if not needs_conversion(_weight_names(model, name)):
        return name
    from huggingface_hub import snapshot_download

    return str(
        converted(
            model.name,
            Path(snapshot_download(name, revision=model.revision, allow_patterns=DOWNLOADED)),
        )
    )


def convert_model(name: str, output: Path | None, *, revision: str | None = None) -> Path:
    """Write a copy of a model with safetensors in place of pickled weights.

    Args:
        output: folder; left out: `<name>-safetensors` in the current one.
    Returns:
        The folder.
    Raises:
        ModelError: no such model, nothing to convert, weights that cannot be converted, or a folder that is there already.
    """
    from huggingface_hub import snapshot_download

    found = resolve_name(name)
    target = output or Path(f"{Path(found).name}-safetensors")
    with worded(name):
        folder = (
            found
            if Path(found).is_dir()
            else snapshot_download(found, revision=revision, allow_patterns=DOWNLOADED)
        )
    convert_to(name, Path(folder), target)
    return target
