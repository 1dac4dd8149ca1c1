"""Write the YAML: one line a key, with the reason beside or above it."""

from collections.abc import Mapping
from typing import Any

from trainer.config.yaml_source import yaml_value
from trainer.starting.settings import Reasoned

LONGEST_LINE = 100


def commented_yaml(head: list[str], sections: Mapping[str, Reasoned]) -> str:
    """Return the YAML text of the sections, with a comment for each key that has a reason.

    Args:
        head: lines of the comment at the head of the file.
    """
    lines = [f"# {line}".rstrip() for line in head]
    for name, section in sections.items():
        lines.append(f"{name}:")
        for key, value in section.values.items():
            lines += _lines(key, value, section.reasons.get(key, ""))
    return "\n".join([*lines, ""])


def _lines(key: str, value: Any, reason: str) -> list[str]:
    """Return a key with its comment, above it if one line would be too long."""
    line = f"  {key}: {_written(value)}"
    comment = "".join(character if character.isprintable() else " " for character in reason)
    if not comment:
        return [line]
    whole = f"{line}  # {comment}"
    return [whole] if len(whole) <= LONGEST_LINE else [f"  # {comment}", line]


def _written(value: Any) -> str:
    """Return a value on one line; small numbers as 2.0e-5, which YAML 1.1 also reads as one."""
    if isinstance(value, float) and 0 < value < 1e-3:
        mantissa, _, exponent = f"{value:e}".partition("e")
        return f"{float(mantissa)}e{int(exponent)}"
    return yaml_value(value)
