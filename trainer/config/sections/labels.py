"""Labels in the YAML: `true` and `1` become the text that data files contain."""

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field


def _label(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int | float) else value


def _labels(value: Any) -> Any:
    return [_label(item) for item in value] if isinstance(value, list) else value


def _by_label(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    by_label: dict[Any, Any] = {}
    for key, item in value.items():
        if (label := _label(key)) in by_label:
            raise ValueError(f"contains the label {label} twice; needed: once")
        by_label[label] = item
    return by_label


def _not_blank(name: str | None) -> str | None:
    if name is not None and not name.strip():
        raise ValueError("is empty; needed: a name, or null to drop the label")
    return name


LabelList = Annotated[list[str], BeforeValidator(_labels)]
LabelWeights = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(_by_label)]
LabelCosts = Annotated[
    dict[str, Annotated[dict[str, Annotated[float, Field(ge=0)]], BeforeValidator(_by_label)]],
    BeforeValidator(_by_label),
]
LabelMap = Annotated[
    dict[str, Annotated[str | None, BeforeValidator(_label), AfterValidator(_not_blank)]],
    BeforeValidator(_by_label),
]
