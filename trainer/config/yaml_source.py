"""YAML 1.2 text as plain values with their line numbers, and plain values as YAML text."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from trainer.errors import ConfigError, brief

Keys = tuple[Any, ...]
"""The keys, or list indices, that lead to a value."""


@dataclass(frozen=True)
class YamlSource:
    """The values of a YAML file, and where they come from.

    Attributes:
        name: the file, or the command that made the values; empty for a dict from Python.
        places: {keys: 'file:line' or '--set section.key'}.
    """

    name: str
    values: dict[str, Any]
    places: dict[tuple[str, ...], str] = field(default_factory=dict)

    def place(self, keys: Keys) -> str:
        """Return the place of a value, or of the innermost section whose place is known."""
        names = tuple(str(key) for key in keys)
        paths = (names[:end] for end in range(len(names), 0, -1))
        return next((self.places[path] for path in paths if path in self.places), self.name)


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)  # YAML 1.2: 1e-5 is a number; no and off are text


def read_yaml(path: str) -> YamlSource:
    """Return the values of a YAML file and their lines.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML, or contains no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Give the path of a YAML file."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    try:
        node = _yaml().compose(io.StringIO(text))
        values = _yaml().load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: is not valid YAML: {_problem(error)}.") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(
            f"{path}: contains {found}; needed: sections such as model: and data:. See"
            " configs/quickstart.yaml."
        )
    source = YamlSource(path, values)
    try:
        _note_places(node, (), path, source.places)
    except RecursionError as error:
        raise ConfigError(
            f"{path}: an alias (*name) is inside its own anchor (&name). Write the values out."
        ) from error
    return source


def read_values(text: str) -> dict[str, Any]:
    """Return the values of YAML text of our own."""
    values: dict[str, Any] = _yaml().load(text)
    return values


def _problem(error: YAMLError) -> str:
    problem = (error.problem or error.context) if isinstance(error, MarkedYAMLError) else None
    return str(problem or error).splitlines()[0]


def _note_places(
    node: Node, keys: tuple[str, ...], name: str, places: dict[tuple[str, ...], str]
) -> None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            place = f"{name}:{key.start_mark.line + 1}"
            if not isinstance(key, ScalarNode):
                raise ConfigError(
                    f"{place}: a list or mapping is used where a name is needed (name: value)."
                )
            places[(*keys, key.value)] = place
            _note_places(value, (*keys, key.value), name, places)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            places[(*keys, str(index))] = f"{name}:{value.start_mark.line + 1}"


def read_overrides(source: YamlSource, overrides: Sequence[str]) -> dict[str, Any]:
    """Return the values of the file with `section.key=value` overrides, which are read as YAML.

    Raises:
        ConfigError: an override has no '=' or no section, or its value is not YAML.
    """
    values = plain_values(source.values)
    for text in overrides:
        path, equals, value_text = text.partition("=")
        keys = tuple(path.strip().split("."))
        if not equals or len(keys) < 2 or not all(keys):
            raise ConfigError(
                f"--set {brief(text, 200)}: needed: section.key=value, such as"
                " --set training.num_train_epochs=3."
            )
        try:
            value = _yaml().load(value_text)
        except YAMLError as error:
            raise ConfigError(
                f"--set {brief(text, 200)}: the value is not valid YAML: {_problem(error)}."
            ) from error
        inner = values
        for key in keys[:-1]:
            if not isinstance(inner.get(key), dict):
                inner[key] = {}
            inner = inner[key]
        inner[keys[-1]] = value
        for replaced in [place for place in source.places if place[: len(keys)] == keys]:
            del source.places[replaced]
        source.places[keys] = f"--set {path.strip()}"
    return values


def plain_values(values: Any) -> Any:
    """Return a copy in plain types: Path becomes text, numbers and arrays of numpy become Python's.

    An alias (*name) no longer shares its values with its anchor.
    """
    if isinstance(values, Mapping):
        return {key: plain_values(value) for key, value in values.items()}
    if isinstance(values, list | tuple):
        return [plain_values(value) for value in values]
    if isinstance(values, Path):
        return str(values)
    return values.tolist() if hasattr(values, "tolist") else values


class _Representer(SafeRepresenter):
    """Writes safe types. Text with unusual white space gets double quotes, because ruamel.yaml
    loses U+0085 and U+2028 otherwise.
    """


def _text_node(representer: SafeRepresenter, text: str) -> ScalarNode:
    return representer.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    )


_Representer.add_representer(str, _text_node)


def dump_yaml(values: dict[str, Any]) -> str:
    """Return YAML text in block style, in the order of `values`."""
    return _dumped(values, default_flow_style=False)


def yaml_value(value: Any) -> str:
    """Return a text, a number, or a list or mapping of them, as YAML on one line.

    Example:
        >>> yaml_value("a: b"), yaml_value(["x", "y"]), yaml_value({"x": None})
        ("'a: b'", '[x, y]', '{x: null}')
    """
    if isinstance(value, dict):
        pairs = (f"{yaml_value(key)}: {yaml_value(each)}" for key, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    return _dumped([value], default_flow_style=True).strip()[1:-1]


def _dumped(values: Any, *, default_flow_style: bool) -> str:
    yaml = _yaml()
    yaml.Representer = _Representer
    yaml.default_flow_style = default_flow_style
    if default_flow_style:
        yaml.width = 1_000_000  # one line
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()
