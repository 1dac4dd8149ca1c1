"""The client of the Hub: access, time limits, repeated requests, words for errors."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit

from huggingface_hub import HfApi, ModelCard, ModelCardData, constants, errors, get_token
from huggingface_hub.utils import get_session, httpx  # type: ignore[attr-defined]

from trainer.config.sections.hub import HubSection
from trainer.errors import RunError, first_line, listing

T = TypeVar("T")
SILENCE_SECONDS = 60.0
"""A server that receives or sends nothing for this time counts as gone."""
WAITS_SECONDS = (1.0, 2.0, 4.0, 8.0)
"""Waits before the next attempts, unless the server sends Retry-After."""
LONGEST_WAIT_SECONDS = 600.0
"""If the server asks for a longer wait, the push fails at once."""


def hub_client() -> HfApi:
    """Return the client, with a time limit for servers that do not answer."""
    get_session().timeout = httpx.Timeout(SILENCE_SECONDS, connect=10)
    return HfApi()


def check_login(hub: HubSection) -> None:
    """Ask the Hub whether the token may write to `repo_id` and whether the metadata is valid.

    Raises:
        RunError: a push is requested and would fail.
    """
    if not hub.push:
        return
    assert hub.repo_id is not None, "the config checks it"
    remedy = (
        "Set HF_TOKEN or run hf auth login, or set hub.push: false and push the finished run with"
        " equipoise push."
    )
    api = hub_client()
    try:
        user = api.whoami()
        try:
            is_private = bool(api.model_info(hub.repo_id).private)
            refused = _refused_to_write(api, hub.repo_id)
        except errors.RepositoryNotFoundError:
            is_private, refused = hub.private, _refused_to_create(user, hub.repo_id)
        metadata = ModelCardData(language=hub.language, license=hub.license).to_yaml()
        if metadata != "{}":
            ModelCard(f"---\n{metadata}\n---\n").validate()
    except errors.LocalTokenNotFoundError as error:
        raise RunError(f"hub.push is true, but there is no token for the Hub. {remedy}") from error
    except (httpx.HTTPError, OSError) as error:
        raise RunError(
            f"hub.push is true, but the login to the Hub failed: {words_of(error)} {remedy}"
        ) from error
    except ValueError as error:
        raise RunError(
            f"hub.language or hub.license: the Hub does not accept them: {words_of(error)}"
        ) from error
    if refused:
        raise RunError(
            f"hub.push is true, but {refused} Set hub.repo_id to a repository of {user['name']},"
            f" or use another token. {remedy}"
        )
    refuse_public(hub, is_private)


def _refused_to_create(user: dict[str, Any], repo_id: str) -> str | None:
    """Return why the token may not create a repository, as far as it says; None if it may."""
    name, namespace = user["name"], repo_id.partition("/")[0]
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        return f"the token of {name} may only read."
    if namespace != name:
        roles = {org["name"]: org.get("roleInOrg") for org in user.get("orgs", ())}
        if namespace not in roles:
            known = listing(roles) or "none"
            return f"{name} belongs to no organization '{namespace}' (but to: {known})."
        if roles[namespace] == "read":
            return f"{name} may only read in the organization '{namespace}'."
    if token.get("role") == "fineGrained" and "fineGrained" in token:
        scopes = token["fineGrained"]
        permissions = [
            scope["permissions"]
            for scope in scopes.get("scoped", ())
            if scope["entity"].get("name") == namespace
        ]
        if not any("repo.write" in each for each in (*permissions, scopes.get("global", ()))):
            return f"the fine-grained token of {name} may not write repositories of '{namespace}'."
    return None


def _refused_to_write(api: HfApi, repo_id: str) -> str | None:
    """Return why the token may not write to an existing repository; None if it may."""
    try:
        api.auth_check(repo_id, write=True)
    except errors.HfHubHTTPError as error:
        if error.response.status_code not in (401, 403):
            raise
        return f"the token may not write to {repo_id}."
    return None


def refuse_public(hub: HubSection, is_private: bool) -> None:
    """Raise RunError for a public repository where a private one is requested."""
    if hub.private and not is_private:
        raise RunError(
            f"{hub.repo_id} is public on the Hub, and hub.private is true."
            " Set hub.private: false (--public), or another repo_id."
        )


def retrying(attempt: Callable[[], T]) -> T:
    """Return the result of the first attempt that succeeds; repeat only after transient errors."""
    for wait in WAITS_SECONDS:
        try:
            return attempt()
        except Exception as error:
            response = getattr(_cause(error), "response", None)
            asked = "" if response is None else response.headers.get("Retry-After", "")
            seconds = (float(asked) if asked.isdigit() else 0) or wait
            if not _is_transient(error) or seconds > LONGEST_WAIT_SECONDS:
                raise
            print(
                f"The push failed: {words_of(error)} Next attempt in {seconds:g} s.",
                file=sys.stderr,
                flush=True,
            )
        time.sleep(seconds)
    return attempt()


def _is_transient(error: BaseException) -> bool:
    """Return whether the connection broke, or the server is overloaded, down or busy."""
    error = _cause(error)
    response = getattr(error, "response", None)
    if response is not None:
        return response.status_code in (408, 409, 412, 425, 429) or response.status_code >= 500
    return isinstance(error, (httpx.TransportError, ConnectionError)) and not isinstance(
        error, errors.OfflineModeIsEnabled
    )


def _cause(error: BaseException) -> BaseException:
    """Return the error behind the client's "Error while uploading ..."."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def words_of(error: BaseException) -> str:
    """Return the first line of an error and the server's message, without the token."""
    error = _cause(error)
    message = getattr(error, "server_message", None) or ""
    words = first_line(error)
    host = urlsplit(constants.ENDPOINT).netloc
    if isinstance(error, (httpx.TransportError, ConnectionError)) and host not in words:
        words = f"{host}: {words}"
    if message and message not in words:
        words = f"{words.removesuffix('.')}: {' '.join(message.split())}."
    token = get_token()
    return words.replace(token, "***") if token else words


@contextmanager
def at_most(minutes: float, message: str) -> Iterator[None]:
    """End the process with a message and exit code 2 if the block takes longer.

    No thread can interrupt a request that hangs.
    """

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
