"""Compare the config and data of a run folder with those of the present command."""

import json
from pathlib import Path
from typing import Any

from trainer.config.yaml_source import read_yaml

NOT_COMPARED = {
    "run.overwrite",
    "run.output_dir",
    "run.num_processes",
    "run.timeout_minutes",
    "speed.tokens_per_pass",
    "speed.halve_on_out_of_memory",
    "report.show_texts",
    "report.comparison",
    "training.report_to",
    "training.project",
}
"""Config keys that do not affect the results, beside the sections hub, compare and tune."""


def first_differences(path: Path, config: dict[str, Any], fingerprint: str) -> str:
    """Return up to five differences in config and data, or an empty string if there are none."""
    words = config_differences(path, config)
    try:
        environment = json.loads((path / "environment.json").read_text(encoding="utf-8"))
        if environment["data"]["fingerprint"] != fingerprint:
            words.append("the rows of the data differ")
    except (OSError, ValueError, KeyError):
        pass  # the run was interrupted before anything was trained
    return "; ".join(words[:5]) + (f"; and {len(words) - 5} more" if len(words) > 5 else "")


def config_differences(path: Path, config: dict[str, Any]) -> list[str]:
    """Return the differences between a run folder's config and this one, in words."""
    saved, ours = flat(read_yaml(str(path / "config.yaml")).values), flat(config)
    return [
        f"{key} is {saved.get(key)} there, {ours.get(key)} here"
        for key in sorted(saved.keys() | ours.keys())
        if saved.get(key) != ours.get(key) and not is_not_compared(key)
    ]


def is_not_compared(key: str) -> bool:
    """Return whether a config key does not affect the results."""
    return key in NOT_COMPARED or key.startswith(("hub.", "compare.", "tune."))


def flat(values: Any, key: str = "") -> dict[str, Any]:
    """Return {'section.key': value} of a config, or of any tree of dicts."""
    if isinstance(values, dict) and values:
        return {
            k: v
            for name, value in values.items()
            for k, v in flat(value, f"{key}.{name}" if key else str(name)).items()
        }
    return {key: values}
