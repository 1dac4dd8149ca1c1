"""A run as experiment trackers show it: its name, its place, its config and its results."""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import TOKEN, brief

logger = logging.getLogger(__name__)
MOST_CLASSES = 300
"""Number of classes whose metrics are logged; those with the lowest F1 if there are more."""
PREFIXES = {"validation": "eval_final/", "test": "test_"}
"""How names of results begin, so that transformers' callbacks put them beside its own."""
CREDENTIALS = re.compile(
    r"(?<=://)[^/\s@]+(?=@)|(?<=[?&])[^=&\s]*(?:key|sig|token)[^=&\s]*=[^&\s]+"
)
"""User names and passwords in addresses, and keys in their queries."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as trackers show it.

    Attributes:
        name: name of the run, with that of its group.
        logs: folder of what trackers write to files. Runs of a group share it.
        config: {"section.key": value}.
        key: place of the run within its group, such as "member-1"; empty for a run of its own.
        group: name of the ensemble or comparison.
    """

    name: str
    logs: Path
    config: Mapping[str, Any]
    key: str = ""
    group: str | None = None

    @classmethod
    def of_group(cls, group: str, key: str, logs: Path, config: Mapping[str, Any]) -> "TrackedRun":
        """Return a run of an ensemble or a comparison."""
        return cls(f"{group} {key.replace('/', ' ')}", logs, config, key, group)

    @property
    def parameters(self) -> dict[str, str | int | float | bool]:
        """The config as plain values without access tokens and passwords."""
        return {
            key: value if isinstance(value, int | float) else public(str(value))
            for key, value in self.config.items()
        }

    def saved_id(self, tracker: str) -> str | None:
        """Return the id that a tracker gave to the run when it started; None if unknown."""
        path = self._ids
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return known.get(tracker)

    def save_id(self, tracker: str, run_id: str) -> None:
        """Store the id that a tracker gave to the run, so that it can be resumed."""
        path = self._ids
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known | {tracker: run_id}), encoding="utf-8")

    @property
    def _ids(self) -> Path:
        return self.logs / "ids" / f"{(self.key or 'run').replace('/', ' ')}.json"


UNNAMED = TrackedRun("run", Path("logs"), {})
"""The run of a trainer without trackers."""


def public(text: str) -> str:
    """Return a text without access tokens of the Hub and passwords in addresses."""
    return CREDENTIALS.sub("***", TOKEN.sub("***", text))


def result_figures(metrics: Mapping[str, Any], unsuited: str) -> dict[str, float]:
    """Return the final figures of metrics.json by names that transformers' callbacks understand.

    Args:
        unsuited: pattern of characters that the names of a tracker may not have.
    """
    figures: dict[str, float] = {}
    for split, values in metrics.get("decision", metrics).items():
        if split not in PREFIXES:
            continue
        prefix = PREFIXES[split]
        figures |= {f"{prefix}{name}": value for name, value in _numbers(values).items()}
        names = class_names(values["labels"], unsuited)
        per_class = sorted(values["per_class"].items(), key=lambda item: item[1]["f1"])
        if len(per_class) > MOST_CLASSES:
            logger.warning(
                "Trackers show the %d classes with the lowest F1 of %s, of %d.",
                MOST_CLASSES,
                split,
                len(per_class),
            )
        for label, measured in per_class[:MOST_CLASSES]:
            for name, value in _numbers(measured).items():
                figures[f"{prefix}{name}/{names[label]}"] = value
    return figures


def class_names(labels: list[str], unsuited: str) -> dict[str, str]:
    """Return {label: its name in a tracker}; numbers keep names apart that would become equal."""
    names = {label: re.sub(unsuited, "_", brief(label)) for label in labels}
    if len(set(names.values())) == len(labels):
        return names
    return {label: f"{number}_{name}" for number, (label, name) in enumerate(names.items())}


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
