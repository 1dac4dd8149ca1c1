"""The only module that writes to the network: pushes a finished run to the Hugging Face Hub."""

import logging
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import RunError, first_line

if TYPE_CHECKING:
    from trainer.config import HubSection

logger = logging.getLogger(__name__)
PICTURES = ("class_distribution.png", "learning_curves.png", "confusion_matrix.png", "label_scores.png", "reliability.png")
SHARED = ("README.md", "metrics.json", "epochs.csv", "class_weights.json", *PICTURES)
"""What goes up beside the model, where the run has it: all that the card shows, and no row of the data."""


def check_login(hub: "HubSection") -> None:
    """Raises RunError when a push was asked for and no token may write, before anything is trained."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import LocalTokenNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if not hub.push:
        return
    remedy = "Set HF_TOKEN or run hf auth login, or set hub.push: false."
    try:
        user = HfApi().whoami()
    except LocalTokenNotFoundError as error:
        raise RunError(f"hub.push is true, but there is no token for the Hub. {remedy}") from error
    except (httpx.HTTPError, OSError) as error:
        raise RunError(f"hub.push is true, but logging in to the Hub failed: {first_line(error)} {remedy}") from error
    if user.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise RunError(f"hub.push is true, but the token may only read. Create one that may write. {remedy}")


def push(run: Path, hub: "HubSection") -> str | None:
    """Upload model, card and pictures; gives the address of the commit, or None after a failure, which is logged and loses nothing.

    Of `model.mode: lora` the merged model alone goes up: `adapter/` lacks what a decision folds into the merged weights, names its base
    model by the path it had on this machine, and an adapter_config.json makes loaders take the whole repository for an adapter.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    assert hub.repo_id is not None, "the config checks it"
    operations = [CommitOperationAdd(p.name, str(p)) for p in sorted((run / "model").iterdir()) if p.is_file()]
    operations += [CommitOperationAdd(name, str(run / name)) for name in SHARED if (run / name).is_file()]
    try:
        api = HfApi()
        api.create_repo(hub.repo_id, private=hub.private, exist_ok=True)
        if hub.revision:
            api.create_branch(hub.repo_id, branch=hub.revision, exist_ok=True)
        commit = api.create_commit(hub.repo_id, operations, commit_message=hub.commit_message, revision=hub.revision)
    except Exception as error:  # whatever the network does, the trained run is kept and the push can be repeated
        logger.warning("The push to %s failed: %s The run is complete in %s; repeat with:\n%s", hub.repo_id, first_line(error), run, push_command(run, hub))
        return None
    print(f"Pushed to {commit.commit_url}")
    return str(commit.commit_url)


def push_command(run: Path, hub: "HubSection") -> str:
    """Shell line that repeats the push with the Hub's own command: the model, then what stands beside it."""
    assert hub.repo_id is not None, "the config checks it"
    options = ["--commit-message", hub.commit_message]
    options += ["--private"] if hub.private else []
    options += ["--revision", hub.revision] if hub.revision else []
    include = [part for name in SHARED if (run / name).is_file() for part in ("--include", name)]
    model = ["hf", "upload", hub.repo_id, str(run / "model"), ".", *options]
    beside = ["hf", "upload", hub.repo_id, str(run), ".", *include, *options]
    return f"{shlex.join(model)} && {shlex.join(beside)}"
