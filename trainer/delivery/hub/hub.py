"""The only module that writes to the network: pushes a finished run, or one model, to the Hugging Face Hub.

An upload is one process (`equipoise push`): who trains starts it with `trainer/delivery/hub/uploads.py`, who repeats it gives the same command.
"""

import json
import os
import re
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from trainer.config.sections.hub import HubSection
from trainer.errors import RunError, first_line, listing
from trainer.files.links import target_outside
from trainer.run_folder.writer import PUSHED, RunFolder

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, HfApi

T = TypeVar("T")
CARD = "README.md"
PICTURES = (
    "class_distribution.png",
    "learning_curves.png",
    "confusion_matrix.png",
    "label_scores.png",
    "reliability.png",
)
SHARED = ("metrics.json", "epochs.csv", "class_weights.json", *PICTURES)
"""What goes up beside the model and the card, where the run has it: all that the card shows, and no row of the data."""
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
MODEL_FILES = (
    *WEIGHTS,
    *(
        "config.json",
        "generation_config.json",
        "tokenizer*.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ),
    *("vocab*.json", "vocab*.txt", "merges.txt", "*.model", "*.codes", "chat_template*"),
)
"""What a model folder may hold that goes up; no pickle, and nothing else that lies there, such as rows of data."""
LOADING = re.compile(
    r'^(classif(?:y = pipeline\("text-classification", |ier = Classifier\.load\())"model"',
    re.MULTILINE,
)
"""Lines of `card_template.md` that load the model from the folder beside the card."""
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Before each new attempt, where the server does not say Retry-After; after the last the upload is given up."""
LONGEST_WAIT_SECONDS = 600.0
"""A server that asks to wait longer is not waited for."""
KEPT = " All is kept in "
SILENCE_SECONDS = 60.0
"""A server that takes or sends nothing for so long counts as gone."""


def check_login(hub: HubSection) -> None:
    """Ask the Hub, before anything is trained, who the token is, whether it may write to `repo_id`, and whether it takes the card's metadata.

    Raises:
        RunError: a push was asked for and would fail.
    """
    from huggingface_hub import ModelCard, ModelCardData
    from huggingface_hub.errors import LocalTokenNotFoundError, RepositoryNotFoundError
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    if not hub.push:
        return
    assert hub.repo_id is not None, "the config checks it"
    remedy = "Set HF_TOKEN or run hf auth login, or set hub.push: false and push the finished run with equipoise push."
    api = _api()
    try:
        user = api.whoami()
        try:
            is_new, is_private = False, bool(api.model_info(hub.repo_id).private)
        except RepositoryNotFoundError:
            is_new, is_private = True, hub.private
        refused = (
            _refused_to_create(user, hub.repo_id) if is_new else _refused_to_write(api, hub.repo_id)
        )
        metadata = ModelCardData(language=hub.language, license=hub.license).to_yaml()
        if metadata != "{}":
            ModelCard(f"---\n{metadata}\n---\n").validate()
    except LocalTokenNotFoundError as error:
        raise RunError(f"hub.push is true, but there is no token for the Hub. {remedy}") from error
    except (httpx.HTTPError, OSError) as error:
        raise RunError(
            f"hub.push is true, but logging in to the Hub failed: {words_of(error)} {remedy}"
        ) from error
    except ValueError as error:
        raise RunError(
            f"hub.language or hub.license: the Hub does not take them: {words_of(error)}"
        ) from error
    if refused:
        raise RunError(
            f"hub.push is true, but {refused} Set hub.repo_id to a place of {user['name']}, or use another token. {remedy}"
        )
    _refuse_public(hub, is_private)


def _refused_to_create(user: dict[str, Any], repo_id: str) -> str | None:
    """Why a token may not create a repository, as far as the Hub tells who it is; None if it may."""
    name, namespace = user["name"], repo_id.partition("/")[0]
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        return f"the token of {name} may only read."
    if namespace != name:
        roles = {org["name"]: org.get("roleInOrg") for org in user.get("orgs", ())}
        if namespace not in roles:
            return f"{name} belongs to no organization '{namespace}' (but to: {listing(roles) or 'none'})."
        if roles[namespace] == "read":
            return f"{name} may only read in the organization '{namespace}'."
    if token.get("role") == "fineGrained" and "fineGrained" in token:
        given = [
            scope["permissions"]
            for scope in token["fineGrained"].get("scoped", ())
            if scope["entity"].get("name") == namespace
        ]
        if not any(
            "repo.write" in permissions
            for permissions in (*given, token["fineGrained"].get("global", ()))
        ):
            return f"the fine-grained token of {name} may not write repositories of '{namespace}'."
    return None


def _refused_to_write(api: "HfApi", repo_id: str) -> str | None:
    """Why the token may not write to a repository that is there, None if it may."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        api.auth_check(repo_id, write=True)
    except HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        return f"the token may not write to {repo_id}."
    return None


def _refuse_public(hub: HubSection, is_private: bool) -> None:
    if hub.private and not is_private:
        raise RunError(
            f"{hub.repo_id} is public on the Hub, and hub.private is true. Set hub.private: false (--public), or another repo_id."
        )


def settings(folder: Path, **given: Any) -> HubSection:
    """What was given by hand (None: not given); where no repository was, beside it the `hub` section of the run folder's config.

    Raises:
        RunError: the folder cannot be pushed, or no repository is named.
        ConfigError: a value that no config could have.
    """
    from trainer.config.config import check_config
    from trainer.config.yaml_source import YamlSource, read_yaml

    _refuse_folder(folder)
    config = folder / "config.yaml"
    values = (
        (read_yaml(str(config)).values.get("hub") or {})
        if config.is_file() and given.get("repo_id") is None
        else {}
    )
    values = {key: value for key, value in values.items() if key in HubSection.model_fields} | {
        k: v for k, v in given.items() if v is not None
    }
    if not values.get("repo_id"):
        raise RunError(f"{folder}: its config names no hub.repo_id. Give --repo-id user/name.")
    needed = {"model": {"name": "none"}, "data": {"source": "none"}}
    return check_config(
        YamlSource("push", needed | {"hub": values | {"push": True, "every": "end"}})
    ).hub


def push(folder: Path, hub: HubSection) -> str:
    """Upload model, card and pictures of a run folder, or the model of a model folder, as one commit; gives its address.

    What failed half-way, or succeeded already, can be pushed again: what the Hub has is not sent twice.
    Of `model.mode: lora` the merged model alone goes up: `adapter/` lacks what a decision folds into the merged weights, names its base
    model by the path it had on this machine, and an adapter_config.json makes loaders take the whole repository for an adapter.

    Raises:
        RunError: the folder cannot be pushed, or the Hub could not be reached or refused; with the command that repeats it.
    """
    try:
        _refuse_folder(folder)
        _upload_over_http()
        if not (folder / "model").is_dir():
            others = (
                {p.name for p in folder.iterdir()} - {p.name for p in model_files(folder)} - {CARD}
            )
            print(
                f"Not pushed, as no part of a model: {listing(others)}." if others else "",
                end="\n" if others else "",
                file=sys.stderr,
            )
        address = str(_retrying(lambda: _commit(folder, hub)).commit_url)
    except RunError:
        raise
    except Exception as error:  # whatever the network, the server or the client's native code did
        raise RunError(failure(folder, hub, words_of(error))) from error
    if (folder / "model").is_dir():
        _note(folder, hub, address)
    return address


def is_pushed(run: Path, hub: HubSection) -> bool:
    """Whether all that a run folder has to push was pushed to this repository, as its pushed.json tells; a card that came later was not."""
    try:
        note = json.loads((run / PUSHED).read_text(encoding="utf-8"))
        return (note["repo_id"], note["revision"]) == (hub.repo_id, hub.revision) and _files(
            run
        ).keys() <= set(note["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _note(run: Path, hub: HubSection, address: str) -> None:
    """Record a push that is done in the run folder, so that the same training command does not repeat it."""
    note = {
        "repo_id": hub.repo_id,
        "revision": hub.revision,
        "address": address,
        "files": sorted(_files(run)),
    }
    try:
        RunFolder(run).write_json(PUSHED, note)
    except OSError as error:
        print(
            f"{run / PUSHED}: could not be written ({first_line(error)[:-1]}); the push is done.",
            file=sys.stderr,
        )


def _files(folder: Path) -> dict[str, Path]:
    """{name on the Hub: file} of all that goes up of a run folder or model folder."""
    is_run = (folder / "model").is_dir()
    found = {path.name: path for path in model_files(folder / "model" if is_run else folder)}
    others = (*SHARED, CARD) if is_run else (CARD,)
    return found | {name: folder / name for name in others if (folder / name).is_file()}


def _upload_over_http() -> None:
    """Leave out Xet, whose native client knows none of our time limits and repeats what a server refused, unless the user asks for it.

    Costs its deduplication within files; whole files that the Hub has are not sent again either way.
    """
    from huggingface_hub import constants

    if "HF_HUB_DISABLE_XET" not in os.environ:
        constants.HF_HUB_DISABLE_XET = True


def failure(folder: Path, hub: HubSection, reason: str) -> str:
    """What is said of a push that failed."""
    return f"The push to {hub.repo_id} failed: {reason}{KEPT}{folder}; repeat with:\n{shlex.join(('equipoise', *push_arguments(folder, hub)))}"


def reason_in(lines: list[str]) -> str:
    """The reason that the last `failure` among the lines of an upload's output gives."""
    last = next(
        (line for line in reversed(lines) if KEPT in line), lines[-1] if lines else "it was ended."
    )
    return last.partition("failed: ")[2].partition(KEPT)[0] or last


def push_arguments(folder: Path, hub: HubSection) -> list[str]:
    """Arguments of the command `equipoise` that push a folder."""
    assert hub.repo_id is not None, "the config checks it"
    options = [
        "--private" if hub.private else "--public",
        "--commit-message",
        hub.commit_message,
        "--timeout-minutes",
        f"{hub.timeout_minutes:g}",
    ]
    return [
        "push",
        str(folder),
        "--repo-id",
        hub.repo_id,
        *options,
        *(["--revision", hub.revision] if hub.revision else []),
    ]


def model_files(folder: Path) -> list[Path]:
    """The files of a model folder or checkpoint that make up the model: weights, configs, tokenizer, and its own code where it has some."""
    config = folder / "config.json"
    patterns = (
        (*MODEL_FILES, "*.py")
        if config.is_file() and '"auto_map"' in config.read_text(encoding="utf-8")
        else MODEL_FILES
    )
    return sorted(
        p
        for p in folder.iterdir()
        if (p.is_file() or _is_broken(p))
        and any(fnmatchcase(p.name, pattern) for pattern in patterns)
    )


def _is_broken(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


@contextmanager
def at_most(minutes: float, message: str) -> Iterator[None]:
    """End the process with a message and exit code 2 where the block takes longer: no thread can break off a request that hangs."""

    def end() -> None:
        print(message, file=sys.stderr, flush=True)
        os._exit(2)

    timer = threading.Timer(60 * minutes, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def words_of(error: BaseException) -> str:
    """The first line of an error's text, and what the server said; a token that it repeats is blotted out."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    error = _cause(error)
    said = getattr(error, "server_message", None) or ""
    words = first_line(error)
    host = urlsplit(constants.ENDPOINT).netloc
    if isinstance(error, (httpx.TransportError, ConnectionError)) and host not in words:
        words = f"{host}: {words}"
    if said and said not in words:
        words = f"{words.removesuffix('.')}: {' '.join(said.split())}."
    token = get_token()
    return words.replace(token, "***") if token else words


def _refuse_folder(folder: Path) -> None:
    """Raises RunError for what is no finished run and no model, and for links out of the folder."""
    if not folder.is_dir():
        raise RunError(f"{folder}: is no folder. Give the folder of a finished run.")
    if any(folder.glob("member-*")):
        raise RunError(
            f"{folder}: holds an ensemble, and a repository holds one model. Push a member, such as {folder / 'member-1'}."
        )
    if (folder / "config.yaml").is_file() and not (folder / "metrics.json").is_file():
        raise RunError(
            f"{folder}: holds a run that is not finished. Run its train command again, which goes on from the last checkpoint."
        )
    model = folder / "model" if (folder / "model").is_dir() else folder
    if not (model / "config.json").is_file() or not any(
        p.suffix == ".safetensors" for p in model.iterdir()
    ):
        raise RunError(
            f"{folder}: holds no finished run and no model (config.json and safetensors weights). Give the folder of a finished run."
        )
    for path in (*model_files(model), *(folder / name for name in (*SHARED, CARD))):
        _refuse_link(path, folder)


def _refuse_link(path: Path, folder: Path) -> None:
    """Raises RunError for a file that would go up, but is not there or lies outside the folder, such as a private key."""
    if _is_broken(path):
        raise RunError(
            f"{path}: is a link to {os.readlink(path)}, which does not exist. Remove the link, or put the file there."
        )
    target = target_outside(path, folder)
    if target is not None:
        link = next(p for p in (path, *path.parents) if p.is_symlink())
        raise RunError(
            f"{link}: is a link to {target}, outside {folder}, so nothing is pushed. Remove the link, or put a copy of the file there."
        )


def _api() -> "HfApi":
    """The client, whose requests end where the server is silent; by itself it would wait for ever."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import get_session, httpx  # type: ignore[attr-defined]

    get_session().timeout = httpx.Timeout(SILENCE_SECONDS, connect=10)
    return HfApi()


def _commit(folder: Path, hub: HubSection) -> "CommitInfo":
    """One attempt; the client skips files that the Hub has."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    assert hub.repo_id is not None, "the config checks it"
    files = _files(folder)
    card = files.pop(CARD, None)
    operations: list[Any] = [CommitOperationAdd(name, str(path)) for name, path in files.items()]
    if card:
        operations.append(
            CommitOperationAdd(
                CARD,
                _card_for_hub(card.read_text(encoding="utf-8"), hub.repo_id, hub.revision).encode(),
            )
        )
    api = _api()
    api.create_repo(hub.repo_id, private=hub.private, exist_ok=True)
    _refuse_public(hub, bool(api.model_info(hub.repo_id).private))
    if hub.revision:
        api.create_branch(hub.repo_id, branch=hub.revision, exist_ok=True)
    names = {operation.path_in_repo for operation in operations}
    there = api.list_repo_files(hub.repo_id, revision=hub.revision)
    weights = {
        name
        for name in there
        if "/" not in name and any(fnmatchcase(name, pattern) for pattern in WEIGHTS)
    }
    stale = sorted(weights - names)  # loaders might take them for the model's
    operations += [CommitOperationDelete(name) for name in stale]
    return api.create_commit(
        hub.repo_id, operations, commit_message=hub.commit_message, revision=hub.revision
    )


def _card_for_hub(text: str, repo_id: str, revision: str | None) -> str:
    """The card of a run folder, telling to load what is in the repository, and not the folder beside the card."""
    there = f'"{repo_id}"' + (f', revision="{revision}"' if revision else "")
    return LOADING.sub(lambda match: match[1] + there, text)


def _retrying(attempt: Callable[[], T]) -> T:
    """Result of the first attempt that succeeds; what another attempt cannot change is raised at once."""
    for wait in WAITS_SECONDS:
        try:
            return attempt()
        except Exception as error:
            seconds = _retry_after(error) or wait
            if not _passes(error) or seconds > LONGEST_WAIT_SECONDS:
                raise
            print(
                f"The push failed: {words_of(error)} Next attempt in {seconds:g} s.",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(seconds)
    return attempt()


def _passes(error: BaseException) -> bool:
    """Whether the fault may pass by itself: a broken connection, a server that is overloaded, down, or busy with another commit."""
    from huggingface_hub.errors import OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    error = _cause(error)
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in (408, 409, 412, 425, 429) or response.status_code >= 500
    return isinstance(error, (httpx.TransportError, ConnectionError)) and not isinstance(
        error, OfflineModeIsEnabled
    )


def _retry_after(error: BaseException) -> float | None:
    """Seconds that the server asks to wait."""
    response = getattr(_cause(error), "response", None)
    value = "" if response is None else response.headers.get("Retry-After", "")
    return float(value) if value.isdigit() else None


def _cause(error: BaseException) -> BaseException:
    """The fault behind the client's "Error while uploading ..."."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error
