"""Faults that pydantic found in a config, in words: the place, what was found, what is allowed."""

import re
from collections.abc import Mapping
from datetime import date
from typing import Any, TypeVar, get_args, get_origin

from pydantic import ValidationError

from trainer.config.sections.old_names import OLD_NAMES
from trainer.config.sections.section import Section
from trainer.config.sections.training import OWNED_KEYS
from trainer.config.yaml_source import Keys, YamlSource, plain_values
from trainer.errors import bounded, brief, did_you_mean, listing

MOST_KEYS_IN_FULL = 25
"""Sections with more keys than this are listed in part."""
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
"""Types of pydantic's faults, and what they ask for."""
BROKEN_RULE = ("value_error", "assertion_error")

Kind = TypeVar("Kind", bound=Section)


def checked_section(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """Return a section of the config from arguments in Python; ValueError names all faults."""
    plain = plain_values(values)
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        faults = word_faults(error, plain, YamlSource("", plain), kind)
        raise ValueError("\n".join(faults)) from error


def word_faults(
    error: ValidationError, values: dict[str, Any], source: YamlSource, model: type[Section]
) -> list[str]:
    """Return one line per fault, in the order of the file."""
    groups: dict[Keys, list[Any]] = {}
    for fault in error.errors(include_url=False):
        groups.setdefault(_real_keys(fault, values), []).append(fault)
    lines = []
    for keys, faults in groups.items():
        if any(other != keys and other[: len(keys)] == keys for other in groups if keys):
            continue  # a fault inside the value says more
        place = source.place(keys)
        number = place.rpartition(":")[2]
        sentence = _sentence(keys, faults, model).replace("\n", "\\n")
        text = f"{place}: {sentence}" if place else sentence
        lines.append((int(number) if number.isdigit() else 0, bounded(text)))
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])]


def known_keys(model: Any, path: Keys) -> list[str]:
    """Return the keys that are allowed in the section at this path; none if it is no section."""
    if not path:
        return list(model.model_fields)
    field = model.model_fields.get(path[0])
    for kind in (field.annotation, *get_args(field.annotation)) if field else ():
        if hasattr(kind, "model_fields"):
            return known_keys(kind, path[1:])
        if get_origin(kind) is dict and path[1:]:  # a mapping whose values may be sections
            values = get_args(get_args(kind)[1])
            if section := next((each for each in values if hasattr(each, "model_fields")), None):
                return known_keys(section, path[2:])
    return []


def _real_keys(fault: Any, values: Any) -> Keys:
    """Return the key path of a fault without the tags that pydantic adds for parts of a union."""
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


def _sentence(keys: Keys, faults: list[Any], model: type[Section]) -> str:
    name = ".".join(brief(key) for key in keys)
    # a rule that is broken says more than the types of the other parts of a union
    first = next((fault for fault in faults if fault["type"] in BROKEN_RULE), faults[0])
    if first["type"] in ("extra_forbidden", "invalid_key"):
        return f"{name} {_unknown(keys, model)}"
    if first["type"] == "missing":
        return f"{name} is missing."
    if first["type"] in BROKEN_RULE:
        return f"{name + ': ' if name else ''}{first['ctx']['error']!s}."
    found = _found(first["input"])
    choices = [
        text for fault in faults if fault["type"] == "literal_error" for text in _choices(fault)
    ]
    if choices:
        known = listing([*choices, *(WANTED[f["type"]] for f in faults if f["type"] in WANTED)])
        return f"{name} is {found}; known: {known}.{did_you_mean(first['input'], choices)}"
    wanted = dict.fromkeys(WANTED.get(fault["type"], _plain(fault)) for fault in faults)
    return f"{name} is {found}; needed: {' or '.join(wanted)}."


def _unknown(keys: Keys, model: type[Section]) -> str:
    """Say what to do about a key that its section does not have."""
    key, names = keys[-1], known_keys(model, keys[:-1])
    if keys[:-1] == ("training",) and key in OWNED_KEYS:
        return f"is decided elsewhere; {OWNED_KEYS[key]}."
    if key in OLD_NAMES:
        return f"is a name of older versions, or of other programs; {OLD_NAMES[key]}."
    sections = [name for name in known_keys(model, ()) if key in known_keys(model, (name,))]
    homes = [f"set {section}.{key}" for section in sections] or [
        remedy for owned, remedy in OWNED_KEYS.items() if owned == key
    ]
    if len(homes) == 1:
        return f"is unknown here; {homes[0]}."
    most = MOST_KEYS_IN_FULL if len(names) <= MOST_KEYS_IN_FULL else 8
    return f"is unknown; known: {listing(names, most)}.{did_you_mean(key, names)}"


def _choices(fault: Any) -> list[str]:
    expected = fault["ctx"]["expected"].replace(" or ", ", ")
    return [choice.strip("'") for choice in expected.split(", ")]


def _found(value: Any) -> str:
    if isinstance(value, str):
        return f"'{brief(value)}'"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if value is None:
        return "empty"
    return brief(value) if isinstance(value, int | float | date) else f"a {type(value).__name__}"


def _plain(fault: Any) -> str:
    """Return what pydantic asks for, without the grammar of its sentence."""
    if fault["type"] == "string_pattern_mismatch":
        return f"text that matches {fault['ctx']['pattern']}"
    wanted = re.sub(r"^(Input should be|(Value|List|String) should( have)?) ", "", fault["msg"])
    return wanted.removesuffix(" after validation, not 0")
