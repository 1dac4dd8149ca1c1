"""The `tune:` section: which settings `equipoise tune` searches, and how long."""

from typing import Any, get_args

from pydantic import Field, model_validator

from trainer.config.sections.balancing import BalanceSection, DecisionSection, LossSection
from trainer.config.sections.compare import Metric
from trainer.config.sections.model import ModelSection
from trainer.config.sections.section import Section, refuse
from trainer.config.sections.training import TrainingSection
from trainer.errors import brief, did_you_mean, listing

Scalar = bool | int | float | str | None
SECTIONS: dict[str, Any] = {
    "training": TrainingSection,
    "model": ModelSection,
    "balance": BalanceSection,
    "loss": LossSection,
    "decision": DecisionSection,
}
"""The sections whose keys can be searched. Trials share everything else, such as the rows."""
SHARED_KEYS = (
    "balance.by",
    "balance.by_label",
    "balance.scope",
    "model.convert_weights",
    "model.mode",
    "model.name",
    "model.revision",
    "model.trust_remote_code",
    "training.metric_for_best_model",
    "training.greater_is_better",
)
"""Keys of these sections that are the same in all trials."""


class ChoicesSection(Section):
    """Values of which each trial takes one."""

    choices: list[Scalar] = Field(min_length=2)
    """The values."""


def searchable_keys() -> list[str]:
    """Return the keys that `tune.space` may name, as `section.key`."""
    keys = [key for name, kind in SECTIONS.items() for key in _keys(name, kind)]
    return sorted(set(keys) - set(SHARED_KEYS))


def _keys(prefix: str, kind: Any) -> list[str]:
    found = []
    for key, field in kind.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        inner = next((each for each in kinds if hasattr(each, "model_fields")), None)
        name = f"{prefix}.{key}"
        found += _keys(name, inner) if inner else [name]
    return found


def is_range(values: Any) -> bool:
    """Return whether values are the two ends of a range: a list of two different numbers."""
    return (
        isinstance(values, list)
        and len(values) == 2
        and all(isinstance(each, int | float) and not isinstance(each, bool) for each in values)
    )


class TuneSection(Section):
    """What `equipoise tune` searches. The first trial is the config as it is; the others change
    some of its keys. Ordinary training does not use this section.
    """

    space: dict[str, list[Scalar] | ChoicesSection] | None = Field(default=None, min_length=1)
    """The keys to search, each with its range or its choices:
    `{training.learning_rate: [1.0e-5, 2.0e-4], balance.method: [none, oversample, undersample]}`.
    Two numbers are the ends of a range. It holds whole numbers if both ends are whole, and is
    logarithmic if the high end is at least 10 times the low one. Other lists are choices;
    `{choices: [16, 32]}` gives two numbers as choices. The value of the config itself is always
    part of the space. Keys of `training`, `model`, `balance`, `loss` and `decision` are known.
    Default: for `model.mode: full` and `lora`, learning rate, epochs, batch size, warm-up, weight
    decay, layer-wise decay of the learning rate, `balance.method`, `loss.class_weights` and
    `decision.thresholds`; for `head`, `loss.name` and the last three. With multi-label data,
    `loss.name` is always searched, and `mean_average_precision` searches no thresholds. Values that
    contradict the rest of the config are left out."""
    trials: int = Field(default=30, ge=2, le=10_000)
    """Number of trials in all. Pruned and failed trials count. No two trials have equal values, so
    a space of few choices may have fewer. If you raise it after a search has finished, the same
    command continues the search."""
    minutes: float | None = Field(default=None, gt=0)
    """If set, no trial starts after all trials together have taken so many minutes."""
    metric: Metric = "macro_f1"
    """What is maximised on the search rows, with the decision of each trial. `micro_f1` and
    `mean_average_precision` are for multi-label data, `balanced_accuracy` and `mcc` for one label a
    row."""
    held_out: float = Field(default=0.5, ge=0.1, le=0.9)
    """Share of the validation rows that the search does not see. On them, the best trial is
    compared with the config as it is."""
    prune: bool = True
    """Stop a trial early if its macro F1 is below the median of the trials before it at the same
    epoch. No trial is stopped before five are complete, and the config as it is never is."""

    @model_validator(mode="after")
    def _check(self) -> "TuneSection":
        for key, values in (self.space or {}).items():
            _check_key(key)
            listed = values.choices if isinstance(values, ChoicesSection) else values
            refuse(
                (len(listed) < 2, f"space: {key} has {len(listed)} value; give two or more"),
                (
                    len({(type(each), each) for each in listed}) < len(listed),
                    f"space: {key} holds a value twice",
                ),
                (
                    is_range(values) and listed[0] > listed[1],  # type: ignore[operator]
                    f"space: {key} is {listed}; give the low end first",
                ),
            )
        return self


def _check_key(key: str) -> None:
    """Raise ValueError if a key cannot be searched."""
    known = searchable_keys()
    refuse(
        (
            key in SHARED_KEYS,
            f"space: {key} is the same in all trials; remove it. Other values need a search of"
            " their own",
        ),
        (
            key not in known,
            f"space: '{brief(key)}' is unknown.{did_you_mean(key, known)} Known are keys of"
            f" {listing(SECTIONS)}, such as training.learning_rate",
        ),
    )
