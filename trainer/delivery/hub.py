"""The only module that writes to the network: pushes a finished run to the Hugging Face Hub."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.errors import RunError

if TYPE_CHECKING:
    from trainer.config import HubSection

logger = logging.getLogger(__name__)
SHARED = ("README.md", "metrics.json", "epochs.csv", "class_weights.json", "class_distribution.png", "learning_curves.png", "confusion_matrix.png")


def check_login(hub: "HubSection") -> None:
    """Raises RunError when a push was asked for and no token works, before anything is trained."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not hub.push:
        return
    try:
        HfApi().whoami()
    except (LocalTokenNotFoundError, HfHubHTTPError, OSError) as error:
        raise RunError(
            f"hub.push is true, but the Hub does not know you ({type(error).__name__}). Set HF_TOKEN, run hf auth login, or set hub.push: false."
        ) from error


def push(run: Path, hub: "HubSection") -> str | None:
    """Upload model, card and pictures; gives the address of the commit, or None after a failure, which is logged and loses nothing."""
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
        logger.warning(
            "The push to %s failed (%s). The run is complete in %s; repeat with: hf upload %s %s",
            hub.repo_id,
            type(error).__name__,
            run,
            hub.repo_id,
            run / "model",
        )
        return None
    print(f"Pushed to {commit.commit_url}")
    return str(commit.commit_url)
