"""YAML 1.2 text to plain values with line numbers, and validation faults to sentences that name the line."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.representer import SafeRepresenter

from trainer.config.sections.old_names import OLD_NAMES
from trainer.errors import ConfigError, bounded, brief, did_you_mean, listing

Keys = tuple[Any, ...]


@dataclass(frozen=True)
class YamlSource:
    """Values of a YAML file and the place ('file:line' or '--set') of each key path."""

    name: str
    values: dict[str, Any]
    places: dict[tuple[str, ...], str] = field(default_factory=dict)

    def place(self, keys: Keys) -> str:
        """Place of the deepest known part of a key path."""
        names = tuple(str(key) for key in keys)
        for end in range(len(names), 0, -1):
            if names[:end] in self.places:
                return self.places[names[:end]]
        return self.name


def _yaml() -> YAML:
    return YAML(typ="safe", pure=True)  # YAML 1.2: 1e-5 is a number, no and off are text


def read_yaml(path: str) -> YamlSource:
    """Parsed file.

    Raises:
        ConfigError: the file is missing, not UTF-8, not YAML, or holds no mapping.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be read ({error.strerror}). Give the path of a YAML file with --config."
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"{path}: is not UTF-8 text (byte {error.start}). Save it as UTF-8."
        ) from error
    try:
        node = _yaml().compose(io.StringIO(text))
        values = _yaml().load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise ConfigError(f"{path}{line}: is not valid YAML: {_problem(error)}.") from error
    except YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {_problem(error)}.") from error
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ConfigError(
            f"{path}: holds {found}; needed: sections such as model: and data:. See configs/quickstart.yaml."
        )
    source = YamlSource(path, values)
    try:
        _note_places(node, (), path, source.places)
    except RecursionError as error:
        raise ConfigError(
            f"{path}: an alias (*name) stands inside its own anchor (&name). Write the values out."
        ) from error
    return source


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
                    f"{place}: a list or mapping stands where a name is needed (name: value)."
                )
            places[(*keys, key.value)] = place
            _note_places(value, (*keys, key.value), name, places)
    elif isinstance(node, SequenceNode):
        for index, value in enumerate(node.value):
            places[(*keys, str(index))] = f"{name}:{value.start_mark.line + 1}"


def read_overrides(source: YamlSource, overrides: list[str] | tuple[str, ...]) -> dict[str, Any]:
    """The file's values with `section.key=value` overrides laid over them; values are read as YAML.

    Raises:
        ConfigError: an override without '=' or section, or whose value is not YAML.
    """
    values = _copy(source.values)
    for text in overrides:
        path, equals, value_text = text.partition("=")
        keys = tuple(path.strip().split("."))
        if not equals or len(keys) < 2 or not all(keys):
            raise ConfigError(
                f"--set {brief(text, 200)}: needed: section.key=value, e.g. --set training.num_train_epochs=3."
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


def _copy(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _copy(value) for key, value in values.items()}
    return [_copy(value) for value in values] if isinstance(values, list) else values


class _Representer(SafeRepresenter):
    """Safe types; text with unusual white space in double quotes, since ruamel.yaml loses U+0085 and U+2028 in other styles."""


def _text_node(representer: SafeRepresenter, text: str) -> ScalarNode:
    return representer.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    )


_Representer.add_representer(str, _text_node)


def dump_yaml(values: dict[str, Any]) -> str:
    """Block-style YAML text in the order of `values`."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    out = io.StringIO()
    yaml.dump(values, out)
    return out.getvalue()


WANTED = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping (name: value)",
    "list_type": "a list",
    "model_type": "a section (name: value)",
    "none_required": "null",
    "finite_number": "a finite number",
}


def word_faults(
    error: ValidationError,
    values: dict[str, Any],
    source: YamlSource,
    owned_keys: dict[str, dict[str, str]],
    known: Callable[[Keys], list[str]],
) -> list[str]:
    """One sentence a fault, in the order of the file: place, what was found, what is allowed, the nearest name."""
    groups: dict[Keys, list[Any]] = {}
    for fault in error.errors(include_url=False):
        groups.setdefault(_real_keys(fault, values), []).append(fault)
    lines = []
    for keys, faults in groups.items():
        if any(other != keys and other[: len(keys)] == keys for other in groups if keys):
            continue  # the fault inside says more
        place = source.place(keys)
        line_number = int(place.rpartition(":")[2]) if place.rpartition(":")[2].isdigit() else 0
        lines.append(
            (
                line_number,
                bounded(
                    f"{place}: {_sentence(keys, faults, owned_keys, known)}".replace("\n", "\\n")
                ),
            )
        )
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def _real_keys(fault: Any, values: Any) -> Keys:
    """The fault's key path without the tags that pydantic adds for the branches of a union."""
    keys: Keys = ()
    for part in fault["loc"]:
        named = {str(key): key for key in values} if isinstance(values, dict) else {}
        if str(part) in named:
            part = named[str(part)]
            values = values[part]
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        elif fault["type"] == "missing" and part == fault["loc"][-1]:
            values = None
        else:
            continue
        keys = (*keys, part)
    return keys


def _sentence(
    keys: Keys,
    faults: list[Any],
    owned_keys: dict[str, dict[str, str]],
    known: Callable[[Keys], list[str]],
) -> str:
    name = ".".join(brief(key) for key in keys)
    first = faults[0]
    if first["type"] in ("extra_forbidden", "invalid_key"):
        remedy = owned_keys.get(str(keys[0]), {}).get(str(keys[-1])) if len(keys) == 2 else None
        if remedy:
            return f"{name} is decided elsewhere; {remedy}."
        if keys[-1] in OLD_NAMES:
            return (
                f"{name} is a name of older versions, or of other programs; {OLD_NAMES[keys[-1]]}."
            )
        names = known(keys[:-1])
        homes = _homes(str(keys[-1]), owned_keys, known)
        if len(homes) == 1:
            return f"{name} is unknown here; {homes[0]}."
        return f"{name} is unknown; known: {listing(names, 25 if len(names) <= 25 else 8)}.{did_you_mean(keys[-1], names)}"
    if first["type"] == "missing":
        return f"{name} is missing."
    if first["type"] in ("value_error", "assertion_error"):
        return f"{name + ': ' if name else ''}{first['ctx']['error']!s}."
    found = _found(first["input"])
    choices = [
        text for fault in faults if fault["type"] == "literal_error" for text in _choices(fault)
    ]
    if choices:
        others = [WANTED[f["type"]] for f in faults if f["type"] in WANTED]
        return f"{name} is {found}; known: {listing([*choices, *others])}.{did_you_mean(first['input'], choices)}"
    wanted = list(dict.fromkeys(WANTED.get(fault["type"], _plain(fault)) for fault in faults))
    return f"{name} is {found}; needed: {' or '.join(wanted)}."


def _homes(
    key: str, owned_keys: dict[str, dict[str, str]], known: Callable[[Keys], list[str]]
) -> list[str]:
    """What to do for a key that stands in the wrong section: the sections that have it, or what is said of it there."""
    found = [f"set {section}.{key}" for section in known(()) if key in known((section,))]
    return found or [remedies[key] for remedies in owned_keys.values() if key in remedies]


def _choices(fault: Any) -> list[str]:
    expected = fault["ctx"]["expected"].replace(" or ", ", ")
    return [choice.strip("'") for choice in expected.split(", ")]


def _found(value: Any) -> str:
    if isinstance(value, str):
        return f"'{brief(value)}'"
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return "empty"
    return (
        "a mapping"
        if isinstance(value, dict)
        else "a list"
        if isinstance(value, list)
        else brief(value)
    )


def _plain(fault: Any) -> str:
    message: str = fault["msg"]
    if fault["type"] == "string_pattern_mismatch":
        return f"text that matches {fault['ctx']['pattern']}"
    return re.sub(
        r"^(Input should be|(Value|List|String) should( have)?) ", "", message
    ).removesuffix(" after validation, not 0")
