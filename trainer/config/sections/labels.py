"""YAML scalars as the labels they name: true and 1 as data files spell them."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field


def _label(key: Any) -> Any:
    if isinstance(key, bool):
        return str(key).lower()
    return str(key) if isinstance(key, int | float) else key


def _by_label(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    named: dict[Any, Any] = {}
    for key, item in value.items():
        if (name := _label(key)) in named:
            raise ValueError(f"names the label {name} twice; needed: once")
        named[name] = item
    return named


def _not_blank(name: str | None) -> str | None:
    if name is not None and not name.strip():
        raise ValueError("is empty; needed: a name, or null to drop the label")
    return name


LabelWeights = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_by_label)]
LabelCosts = Annotated[
    dict[str, Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_by_label)]],
    BeforeValidator(_by_label),
]
LabelMap = Annotated[
    dict[str, Annotated[str | None, BeforeValidator(_label), AfterValidator(_not_blank)]],
    BeforeValidator(_by_label),
]
LabelList = Annotated[
    list[str],
    BeforeValidator(lambda value: [_label(v) for v in value] if isinstance(value, list) else value),
]
