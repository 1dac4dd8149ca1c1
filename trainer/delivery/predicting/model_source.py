"""Find a saved model: in a run folder, in a model folder or on the Hub."""

import hashlib
import json
from pathlib import Path

from trainer.data.reading.locate import hub_is_unreachable, package_path, refuse_url
from trainer.errors import ModelError, RunError, did_you_mean, first_line
from trainer.files.content import file_state
from trainer.training.models.model_folder import refuse_other_kinds

NOWHERE = (
    "is no folder here and no model on the Hub. Check the name; set HF_TOKEN for a private one."
)


def find_models(source: str | Path) -> tuple[list[str], str | None]:
    """Return the model folders or the Hub id of a source, and how an ensemble combines its models.

    Returns:
        One folder or Hub id and None, or the folders of an ensemble and "majority" or "mean".
    Raises:
        ModelError: the source does not exist, or is no model.
        RunError: the run is not finished, or its model is missing.
    """
    name = str(source)
    path = (
        package_path(name, ModelError) if name.startswith("package:") else Path(name).expanduser()
    )
    if not path.exists():
        refuse_url(name, "model", "model", ModelError)
        if name.startswith((".", "/", "~")) or name.count("/") > 1:
            siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
            raise ModelError(
                f"{name}: does not exist.{did_you_mean(path.name, siblings)}"
                " Give a run folder, a model folder or a Hub id."
            )
        return [name], None
    if (path / "config.json").is_file() or not (path / "config.yaml").is_file():
        refuse_other_kinds(
            path,
            f"{name}:",
            "is neither a run folder (no config.yaml) nor a model folder (no config.json).",
        )
        return [str(path)], None
    if not (path / "metrics.json").is_file():
        raise RunError(
            f"{name}: is a run that is not finished. Run its training command again, which"
            " resumes it."
        )
    ensemble = json.loads((path / "metrics.json").read_text(encoding="utf-8")).get("ensemble")
    runs = (
        [path / f"member-{number}" for number in range(1, ensemble["size"] + 1)]
        if ensemble
        else [path]
    )
    for run in runs:
        if not (run / "model/config.json").is_file():
            raise RunError(
                f"{run / 'model'}: holds no config.json, so the run has lost its model."
                " Copy the folder again, or train with run.overwrite: true."
            )
    return [str(run / "model") for run in runs], ensemble["combine"] if ensemble else None


def hub_commit(repo_id: str, revision: str | None) -> str:
    """Return the commit of a Hub model; from the cache if there is no network.

    Raises:
        ModelError: the model is unknown or gated, has no config, or the Hub cannot be reached.
    """
    from huggingface_hub import errors, hf_hub_download
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    is_offline = hub_is_unreachable()  # the client would repeat its request for 23 s
    try:
        return Path(
            hf_hub_download(repo_id, "config.json", revision=revision, local_files_only=is_offline)
        ).parent.name
    except (httpx.HTTPError, OSError, errors.EntryNotFoundError, errors.HFValidationError) as error:
        reasons = {
            errors.GatedRepoError: "is gated. Accept its terms on the Hub, and set HF_TOKEN or run"
            " hf auth login.",
            errors.RepositoryNotFoundError: NOWHERE,
            errors.HFValidationError: NOWHERE,
            errors.RevisionNotFoundError: f"has no revision '{revision}'. Give a branch, tag or"
            " commit of it.",
            errors.LocalEntryNotFoundError: "is not a folder here and not in the cache, and the Hub"
            " cannot be reached. Check the name and the network.",
            errors.EntryNotFoundError: "holds no config.json, so it is no Transformers model.",
        }
        words = next((words for kind, words in reasons.items() if isinstance(error, kind)), None)
        words = words or f"cannot be downloaded from the Hub: {first_line(error)}"
        raise ModelError(f"{repo_id}: {words}") from error


def folder_identity(folder: Path) -> str:
    """Return a digest of the names and states of a model folder's files."""
    files = [(path.name, file_state(path)) for path in sorted(folder.iterdir()) if path.is_file()]
    return hashlib.blake2b(repr(files).encode(), digest_size=16).hexdigest()
