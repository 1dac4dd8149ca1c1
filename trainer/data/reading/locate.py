"""Find what a location names: `package:` paths, files, globs, saved folders or a Hub id."""

import re
import socket
from glob import glob
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies

from trainer.errors import DataError, TrainerError, did_you_mean, listing

PACKAGE_PATH = re.compile(
    r"package:(?P<name>[A-Za-z0-9][\w.-]*)(==(?P<version>[\w.+!-]+))?/(?P<path>.+)"
)
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
URL = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]*)://\S+|(www\.)?(huggingface\.co|hf\.co)/\S+", re.IGNORECASE
)
HUB_URL = re.compile(
    r"(?:hf://|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/)"
    r"(?P<kind>datasets/|spaces/|models/)?"
    r"(?P<id>[\w.-]+(/(?!(?:tree|blob|resolve|viewer)(?:/|$))[\w.-]+)?)",
    re.IGNORECASE,
)


def package_path(location: str, fault: type[TrainerError] = DataError) -> Path:
    """Return the path of a file or folder in an installed distribution, without importing it.

    Args:
        location: `package:<distribution>[==version]/<path as the distribution lays it out>`.
        fault: the class of the error that is raised.
    Raises:
        fault: the location is malformed, or the distribution, its version or the path is missing.
            The text gives the pip command.
    """
    match = PACKAGE_PATH.fullmatch(location)
    if match is None:
        raise fault(f"'{location}': needed: package:<distribution>[==version]/<path inside it>.")
    name, version = match["name"], match["version"]
    command = f"pip install --no-deps {name}{f'=={version}' if version else ''}"
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise fault(
            f"'{location}': the Python package {name} is not installed. Run: {command}"
        ) from None
    if version and found.version != version:
        raise fault(
            f"'{location}': {name} {found.version} is installed; needed: {version}. Run: {command}"
        )
    path = Path(str(found.locate_file(match["path"])))
    if not path.exists():
        near = [str(p) for p in found.files or [] if p.name == path.name]
        raise fault(
            f"'{location}': {name} {found.version} holds no {match['path']}."
            + (f" Found: {listing(near)}." if near else "")
        )
    return path


def refuse_url(location: str, where: str, kind: str, fault: type[TrainerError] = DataError) -> None:
    """Raise `fault` for an address such as https://..., and say what to give instead.

    Args:
        where: name of the config key, for messages.
        kind: what is needed: "file", "data set" or "model".
    """
    match = URL.fullmatch(location)
    if match is None:
        return
    shown = location.partition("?")[0]  # The rest may hold a secret.
    shown = shown if len(shown) <= 120 else f"{shown[:120]}..."
    name = f"an address with {match['scheme'].lower()}://" if match["scheme"] else "a web address"
    words = f"{where}: '{shown}' is {name}"
    if kind != "file" and (hub := HUB_URL.match(location)):
        wanted = {"data set": "datasets/", "model": ""}[kind]
        found = (hub["kind"] or "").lower().replace("models/", "")
        if found == wanted or location.lower().startswith("hf://"):
            raise fault(f"{words}. For a {kind} on the Hub give the bare id: {hub['id']}")
        other = {"datasets/": "a data set", "spaces/": "a Space"}.get(found, "a model")
        raise fault(f"{words} of {other}; needed: a {kind}.")
    place = "folder" if kind == "model" else "file"
    hub_id = "" if kind == "file" else f", or the id of a {kind} on the Hub"
    raise fault(f"{words}; needed: a {place} here{hub_id}. Download it first, and give its path.")


def hub_is_unreachable() -> bool:
    """Return whether the Hub's host has no address; False behind a proxy, which resolves it."""
    from huggingface_hub import constants

    if getproxies():
        return False
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)
    except socket.gaierror:
        return True
    return False


def hub_remedy() -> str:
    """Return what to do if something cannot be loaded from the Hub."""
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        return (
            "HF_HUB_OFFLINE is set and the cache lacks it: run once without, or copy the cache "
            "(HF_HOME) of a machine that has it."
        )
    if hub_is_unreachable():
        return "The Hub cannot be reached: check the network and the name."
    return "Check the name; set HF_TOKEN for a private one."


def locate(location: str, where: str, suffixes: tuple[str, ...]) -> list[Path] | None:
    """Return the files of a location, or None for the id of a Hub data set.

    Args:
        where: name of the config key, for messages.
        suffixes: endings of file names, so that a missing file is never taken for a Hub id.
    Raises:
        DataError: the location does not exist.
    """
    if location.startswith("package:"):
        return [package_path(location)]
    path = Path(location).expanduser()
    if path.exists():
        return [path]
    refuse_url(location, where, "file" if where == "--input" else "data set")
    hint = " Relative paths start at the folder you run in."
    if any(mark in location for mark in "*?["):
        found = [Path(p) for p in sorted(glob(str(path), recursive=True)) if Path(p).is_file()]
        if not found:
            raise DataError(f"{where}: no file matches '{location}'.{hint}")
        return found
    if path.suffix.lower() in suffixes or not HUB_ID.fullmatch(location):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = did_you_mean(path.name, siblings)
        raise DataError(f"{where}: '{location}' does not exist.{near}{hint}")
    return None
