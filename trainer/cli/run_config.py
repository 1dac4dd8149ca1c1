"""The config of a command: a YAML file, or options that name a file of rows."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from trainer.config.config import Config, check_config
from trainer.config.yaml_source import YamlSource, read_yaml
from trainer.errors import ConfigError, TrainerError

OPTIONS = {
    "data.source": "--data",
    "data.text_column": "--text-column",
    "data.label_column": "--label-column",
    "data.group_column": "--group-column",
    "data.encoding": "--encoding",
}
"""The options that describe rows when there is no YAML file, and the keys that they set."""
MISSING = re.compile(r"'([^'/][^']*)' does not exist|no file matches '([^'/][^']*)'")
"""What `trainer.data.reading.locate` says of a relative path without a file."""
OTHER_OPTIONS = {"model.name": "--model", "run.output_dir": "--output", "run.name": "--output"}
"""Options that replace values of a YAML file too."""
ROWS = re.compile(
    r"\.(csv|tsv|tab|jsonl|ndjson|parquet|arrow|xlsx)(\.(gz|xz|zst|zip))?$", re.IGNORECASE
)


def line_of(command: str, path: str, set_: Sequence[str] | None = None) -> str:
    """Return the line that runs a command on a YAML file, quoted for a shell."""
    options = [part for text in set_ or () for part in ("--set", text)]
    return shlex.join(["equipoise", command, path, *options])


def path_of(command: str, argument: str | None, option: str | None) -> str | None:
    """Return the YAML file that is given as the argument or as `--config`; None without one.

    Raises:
        ConfigError: both are given, or the file contains rows.
    """
    if argument is not None and option is not None:
        raise ConfigError(
            f"{command}: found two configs, {argument} and --config {option}. Give one of them."
        )
    path = argument if option is None else option
    if path and ROWS.search(path):
        raise ConfigError(
            f"{path}: is a file of rows, not a YAML file of a run. The commands train and audit"
            f" take it as --data {path}."
        )
    return path


def required_path(command: str, argument: str | None, option: str | None) -> str:
    """Return the YAML file, for a command that needs one; raise ConfigError without it."""
    if (path := path_of(command, argument, option)) is None:
        raise ConfigError(
            f"{command}: no config is given. Give a YAML file, such as: equipoise {command}"
            " tweets.yaml."
        )
    return path


def config_of(
    command: str,
    path: str | None,
    keys: Mapping[str, str | None],
    overrides: Sequence[str],
) -> Config:
    """Return the checked config of a YAML file, or of `--data` without one.

    Args:
        keys: {section.key: value}; None for those that are not given. They replace the values of
            the YAML, and `--set` replaces them.
    Raises:
        ConfigError: neither a YAML file nor `--data` is given, or both; or faults of the config.
    """
    given = {key: value for key, value in keys.items() if value is not None}
    of_rows = [key for key in given if key in OPTIONS]
    if path is None and "data.source" not in given:
        found = f", only {OPTIONS[of_rows[0]]}" if of_rows else ""
        raise ConfigError(
            f"{command}: neither a config nor rows are given{found}. Give a YAML file (equipoise"
            f" {command} tweets.yaml), or --data (equipoise {command} --data tweets.csv)."
        )
    if path is not None and "data.source" in given:
        raise ConfigError(
            f"{command}: found a config and rows, {path} and --data {given['data.source']}. Give"
            " one of them; --set data.source=... replaces the rows of a config."
        )
    if path is not None and of_rows:
        raise ConfigError(
            f"{OPTIONS[of_rows[0]]} belongs to --data; with a config use --set {of_rows[0]}=..."
        )
    source = read_yaml(path) if path is not None else YamlSource(f"equipoise {command}", {})
    for name, value in given.items():
        section, key = name.split(".")
        inner = source.values.get(section)
        source.values[section] = (inner if isinstance(inner, dict) else {}) | {key: value}
        source.places[section, key] = (OPTIONS | OTHER_OPTIONS)[name]
    return check_config(source, tuple(overrides))


def row_keys(*values: str | None) -> dict[str, str | None]:
    """Return the keys that the options of OPTIONS set, given their values in that order."""
    return dict(zip(OPTIONS, values, strict=True))


def run_keys(output: Path | None, data: str | None) -> dict[str, str | None]:
    """Return the keys that name the run folder: that of `--output`, or one named like the rows."""
    if output is not None:
        return {"run.output_dir": str(output.parent), "run.name": output.name}
    if data is None:
        return {}
    from trainer.data.reading.formats.readers import run_name

    return {"run.name": run_name(data)}


@contextmanager
def naming_options(data: str | None, path: str | None = None) -> Iterator[None]:
    """Complete an error about rows by what only the command line knows.

    Rows that `--data` gave are named by the options, instead of keys of a YAML. A missing file that
    lies beside the YAML is named.

    Args:
        path: the YAML file.
    """
    try:
        yield
    except TrainerError as error:
        missing = MISSING.search(str(error)) if path else None
        folder = Path(path or "").parent
        if missing and any(folder.glob(missing[1] or missing[2])):
            found = folder / (missing[1] or missing[2])
            error.args = (f"{error} It is beside {path}: write {found}, or run in {folder}.",)
        if data is not None:
            keys = rf"\b(?:{'|'.join(map(re.escape, OPTIONS))})\b"
            error.args = (re.sub(keys, lambda found: OPTIONS[found[0]], str(error)),)
        raise
