"""Push a finished run, or one model, to the Hugging Face Hub: `equipoise push`.

A training starts this command as a process of its own; see `uploads.py`.
"""

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, constants

from trainer.config.config import check_config
from trainer.config.sections.hub import HubSection
from trainer.config.yaml_source import YamlSource, read_yaml
from trainer.delivery.hub.client import hub_client, refuse_public, retrying, words_of
from trainer.delivery.hub.repository_files import (
    CARD,
    card_for_hub,
    files_to_push,
    refuse_folder,
    weights_among,
)
from trainer.errors import RunError, first_line, listing
from trainer.run_folder.writer import PUSHED, RunFolder

KEPT = " All files are kept in "


def settings(folder: Path, **given: Any) -> HubSection:
    """Return the options given; without a repository, those of the run's `hub` section too.

    Args:
        given: options of the command; None if left out.
    Raises:
        RunError: the folder cannot be pushed, or no repository is named.
        ConfigError: a wrong value.
    """
    refuse_folder(folder)
    config, values = folder / "config.yaml", {}
    if config.is_file() and given.get("repo_id") is None:
        section = read_yaml(str(config)).values.get("hub") or {}
        values = {key: section[key] for key in section.keys() & HubSection.model_fields.keys()}
    values |= {key: value for key, value in given.items() if value is not None}
    if not values.get("repo_id"):
        raise RunError(f"{folder}: its config names no hub.repo_id. Give --repo-id user/name.")
    required = {"model": {"name": "none"}, "data": {"source": "none"}}
    hub = values | {"push": True, "every": "end"}
    return check_config(YamlSource("push", required | {"hub": hub})).hub


def push(folder: Path, hub: HubSection) -> str:
    """Upload model, card and pictures of a run, or one model, as one commit; return its address.

    A push can be repeated: files that the Hub has are not sent again. For `model.mode: lora` only
    the merged model is pushed. The adapter lacks the decision that is folded into the merged
    weights, names its base model by a local path, and its adapter_config.json would make loaders
    read the whole repository as an adapter.

    Raises:
        RunError: the folder cannot be pushed, or the Hub cannot be reached or refuses. The
            message holds the command that repeats the push.
    """
    is_run = (folder / "model").is_dir()
    try:
        refuse_folder(folder)
        # The client of Xet has no time limits and repeats requests that the server refused.
        if "HF_HUB_DISABLE_XET" not in os.environ:
            constants.HF_HUB_DISABLE_XET = True
        others = {path.name for path in folder.iterdir()} - files_to_push(folder).keys()
        if others and not is_run:
            print(f"Not pushed, as no part of a model: {listing(others)}.", file=sys.stderr)
        address = str(retrying(lambda: _commit(folder, hub)).commit_url)
    except RunError:
        raise
    except Exception as error:  # network, server and the client's native code raise many types
        raise RunError(failure(folder, hub, words_of(error))) from error
    if is_run:
        _note(folder, hub, address)
    return address


def is_pushed(run: Path, hub: HubSection) -> bool:
    """Return whether pushed.json names this repository and all files of the run."""
    try:
        note = json.loads((run / PUSHED).read_text(encoding="utf-8"))
        is_here = (note["repo_id"], note["revision"]) == (hub.repo_id, hub.revision)
        return is_here and files_to_push(run).keys() <= set(note["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _note(run: Path, hub: HubSection, address: str) -> None:
    """Write pushed.json, so that the same training command does not push the run again."""
    note = {
        "repo_id": hub.repo_id,
        "revision": hub.revision,
        "address": address,
        "files": sorted(files_to_push(run)),
    }
    try:
        RunFolder(run).write_json(PUSHED, note)
    except OSError as error:
        print(
            f"{run / PUSHED}: cannot be written ({first_line(error)[:-1]}); the push succeeded.",
            file=sys.stderr,
        )


def failure(folder: Path, hub: HubSection, reason: str) -> str:
    """Return the message for a push that failed."""
    command = shlex.join(("equipoise", *push_arguments(folder, hub)))
    return f"The push to {hub.repo_id} failed: {reason}{KEPT}{folder}; repeat with:\n{command}"


def reason_in(lines: list[str]) -> str:
    """Return the reason in the last `failure` of an upload's output."""
    last = next(
        (line for line in reversed(lines) if KEPT in line),
        lines[-1] if lines else "it was interrupted.",
    )
    return last.partition("failed: ")[2].partition(KEPT)[0] or last


def push_arguments(folder: Path, hub: HubSection) -> list[str]:
    """Return the arguments of the command `equipoise` that pushes a folder."""
    assert hub.repo_id is not None, "the config checks it"
    return [
        "push",
        str(folder),
        "--repo-id",
        hub.repo_id,
        "--private" if hub.private else "--public",
        "--commit-message",
        hub.commit_message,
        "--timeout-minutes",
        f"{hub.timeout_minutes:g}",
        *(["--revision", hub.revision] if hub.revision else []),
    ]


def _commit(folder: Path, hub: HubSection) -> CommitInfo:
    """Push once; the client skips files that the Hub has."""
    assert hub.repo_id is not None, "the config checks it"
    files: dict[str, Any] = {name: str(path) for name, path in files_to_push(folder).items()}
    if CARD in files:
        card = (folder / CARD).read_text(encoding="utf-8")
        files[CARD] = card_for_hub(card, hub.repo_id, hub.revision).encode()
    api = hub_client()
    api.create_repo(hub.repo_id, private=hub.private, exist_ok=True)
    refuse_public(hub, bool(api.model_info(hub.repo_id).private))
    if hub.revision:
        api.create_branch(hub.repo_id, branch=hub.revision, exist_ok=True)
    existing = api.list_repo_files(hub.repo_id, revision=hub.revision)
    stale = sorted(weights_among(existing) - files.keys())  # loaders might read them
    return api.create_commit(
        hub.repo_id,
        [
            *(CommitOperationAdd(name, content) for name, content in files.items()),
            *(CommitOperationDelete(name) for name in stale),
        ],
        commit_message=hub.commit_message,
        revision=hub.revision,
    )
