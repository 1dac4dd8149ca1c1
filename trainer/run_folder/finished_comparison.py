"""Read comparison.json, for the card of a model whose balancing a comparison chose."""

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from trainer.config.sections.balancing import BalanceSection, DecisionSection, LossSection
from trainer.errors import RunError, first_line, listing

JSON_NAME, PAGE_NAME = "comparison.json", "comparison.html"
REMEDY = "Run equipoise compare again, or remove report.comparison."


class _Figure(BaseModel):
    mean: float | None


class _AgainstBaseline(BaseModel):
    difference: float
    low: float | None
    high: float | None
    is_reliable: bool


class _Strategy(BaseModel):
    figures: dict[str, _Figure]
    against_baseline: _AgainstBaseline | None


class _Validation(BaseModel):
    metric: str
    baseline: str
    best: str
    num_rows: int
    num_seeds: int
    labels: list[str]
    strategies: dict[str, _Strategy]


class _Budget(BaseModel):
    words: str


class Settings(BaseModel):
    """All settings of a strategy, from its part of `overrides`.

    Keys that a strategy does not set have the defaults of their sections, not those of the config.
    """

    balance: BalanceSection = BalanceSection()
    loss: LossSection = LossSection()
    decision: DecisionSection | None = None
    """None: the decision of the config applies."""
    training: dict[str, float] = {}
    """The values of `compare.tune` that the strategy chose."""

    def flat(self) -> dict[str, Any]:
        """Return {'section.key': value}."""
        return {
            f"{section}.{key}": value
            for section, values in self.model_dump().items()
            if values
            for key, value in values.items()
        }


class _Finished(BaseModel):
    """The part of comparison.json that the card needs."""

    recommendation: str
    winner: str
    model: str
    mode: str
    seeds: list[int]
    budget: _Budget
    overrides: dict[str, Settings]
    failed: dict[str, str]
    quick: dict[str, Any] | None
    test: dict[str, Any] | None
    tested: list[str]
    validation: _Validation


def read_if_set(folder: str | None) -> dict[str, Any] | None:
    """Return the comparison that `report.comparison` names, if any; raises as `read_comparison`."""
    return read_comparison(Path(folder).expanduser()) if folder else None


def read_comparison(folder: Path) -> dict[str, Any]:
    """Return comparison.json of a folder `<name>-compare`, checked for what the card needs.

    Raises:
        RunError: there is no such folder, it holds no finished comparison, or the file is damaged
            or was written by another version.
    """
    path = folder / JSON_NAME
    if not path.is_file():
        found = f"holds no {JSON_NAME}" if folder.is_dir() else "is a file"
        raise RunError(
            f"{folder}: {found if folder.exists() else 'no such folder'}; report.comparison needs"
            f" the folder of a finished comparison, <output_dir>/<name>-compare. {REMEDY}"
        )
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        finished = _Finished.model_validate(values)
    except ValidationError as error:
        places = (".".join(map(str, fault["loc"])) or "it all" for fault in error.errors())
        raise RunError(
            f"{path}: is damaged, or of another version: lacks {listing(places, 5)}, or holds"
            f" something else there. {REMEDY}"
        ) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: is damaged: {first_line(error)} {REMEDY}") from error
    validation = finished.validation
    lacking = {finished.winner, validation.baseline, validation.best} - validation.strategies.keys()
    lacking |= {
        f"{validation.metric} of {name}"
        for name, strategy in validation.strategies.items()
        if validation.metric not in strategy.figures
    }
    if lacking:
        raise RunError(
            f"{path}: is damaged, or of another version: validation.strategies lacks"
            f" {listing(lacking, 5)}. {REMEDY}"
        )
    return values
