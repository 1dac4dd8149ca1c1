"""What all sections of the YAML have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A part of the YAML. It refuses unknown keys, converts no types and cannot be changed."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )


def refuse(*rules: tuple[object, str]) -> None:
    """Raise ValueError with the message of the first rule whose condition is true."""
    for is_broken, message in rules:
        if is_broken:
            raise ValueError(message)
