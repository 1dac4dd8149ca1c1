"""The search space: which keys of the config a trial changes, and to what. Imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from trainer.config.config import Config, check_config
from trainer.config.sections.tune import ChoicesSection, is_range
from trainer.config.yaml_source import YamlSource
from trainer.errors import ConfigError

BALANCING: dict[str, Any] = {
    "balance.method": ["none", "undersample", "oversample"],
    "loss.class_weights": ["none", "sqrt", "balanced"],
    "decision.thresholds": [None, "f1"],
}
FINE_TUNING: dict[str, Any] = {
    "training.num_train_epochs": [2, 6],
    "training.per_device_train_batch_size": [16, 32, 64],
    "training.warmup_steps": [0.0, 0.2],
    "training.weight_decay": [0.0, 0.1],
    "training.layerwise_learning_rate_decay": [None, 0.95, 0.9, 0.8],
}
SPACES: dict[str, dict[str, Any]] = {
    "full": {"training.learning_rate": [1e-5, 2e-4], **FINE_TUNING, **BALANCING},
    "lora": {"training.learning_rate": [1e-4, 2e-3], **FINE_TUNING, **BALANCING},
    "head": {"loss.name": ["cross_entropy", "focal", "logit_adjusted"], **BALANCING},
}
"""The space of each `model.mode`, if `tune.space` is not set. Warm-up below 1 is a share of all
steps."""
LABEL_BALANCING: dict[str, Any] = {
    "loss.name": ["cross_entropy", "focal", "asymmetric", "distribution_balanced"],
    "balance.method": ["none", "power"],
    "loss.class_weights": ["none", "balanced", "effective_number"],
}
"""What takes the place of `BALANCING` with several labels a row, beside the thresholds."""
LABEL_THRESHOLDS: dict[str, list[str | None]] = {
    "micro_f1": [None, "micro_f1", "common"],
    "mean_average_precision": [],  # thresholds do not change it
}
"""{metric: `decision.thresholds` to search with several labels a row}."""
FOR_MACRO_F1: list[str | None] = [None, "f1", "common"]


@dataclass(frozen=True)
class Parameter:
    """A key of the config with its range or its choices.

    Attributes:
        own: the value of the config itself.
        choices: the values to choose from; None for a range.
        is_whole: whether the range holds whole numbers alone.
    """

    key: str
    own: Any
    choices: tuple[Any, ...] | None = None
    low: float = 0.0
    high: float = 0.0
    is_whole: bool = False

    @property
    def is_log(self) -> bool:
        """Return whether the range is logarithmic."""
        return self.choices is None and self.low > 0 and self.high >= 10 * self.low

    @property
    def words(self) -> str:
        """Return the range or the choices in words."""
        if self.choices is not None:
            return ", ".join(shown(value) for value in self.choices)
        scale = " (logarithmic)" if self.is_log else ""
        return f"{shown(self.low)} to {shown(self.high)}{scale}"

    def to_dict(self) -> dict[str, Any]:
        """Return the values for tuning.json."""
        choices = None if self.choices is None else list(self.choices)
        return {"range": self.words, "choices": choices, "is_log": self.is_log, "own": self.own}

    def suggest(self, trial: Any) -> Any:
        """Return the value of an Optuna trial; a number has three digits."""
        if self.choices is not None:
            return trial.suggest_categorical(self.key, self.choices)
        if self.is_whole:
            return trial.suggest_int(self.key, int(self.low), int(self.high), log=self.is_log)
        value = trial.suggest_float(self.key, self.low, self.high, log=self.is_log)
        return float(f"{value:.3g}")


def shown(value: Any) -> str:
    """Return a value as it stands in YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def values_words(values: dict[str, Any]) -> str:
    """Return the values of a trial in words; `training.` is left out before its keys."""
    words = (f"{key.removeprefix('training.')} {shown(each)}" for key, each in values.items())
    return ", ".join(words)


def default_space(config: Config, *, multi_label: bool) -> dict[str, Any]:
    """Return the space to search if `tune.space` is not set."""
    space = SPACES[config.model.mode]
    if not multi_label:
        return space
    others = {key: values for key, values in space.items() if key.startswith("training.")}
    thresholds = LABEL_THRESHOLDS.get(config.tune.metric, FOR_MACRO_F1)
    return others | LABEL_BALANCING | ({"decision.thresholds": thresholds} if thresholds else {})


def parameters(config: Config, *, multi_label: bool) -> list[Parameter]:
    """Return the search space of a config: `tune.space`, or what fits of the default of its mode.

    Args:
        multi_label: whether a row may have any number of labels.
    Raises:
        ConfigError: a range belongs to a key that the config does not set to a number.
    """
    if config.tune.space is not None:
        return [_parameter(config, key, values) for key, values in config.tune.space.items()]
    space = default_space(config, multi_label=multi_label)
    if (config.training_values.get("max_steps") or 0) > 0:
        space = {key: each for key, each in space.items() if key != "training.num_train_epochs"}
    fitting = {
        key: values
        if is_range(values)
        else [each for each in values if not _fault(config, key, each, multi_label=multi_label)]
        for key, values in space.items()
        if not isinstance(own_value(config, key), dict | list)
    }
    found = (_parameter(config, key, values) for key, values in fitting.items())
    return [each for each in found if each.choices is None or len(each.choices) > 1]


def _parameter(config: Config, key: str, values: Any) -> Parameter:
    own = own_value(config, key)
    if isinstance(own, dict | list):
        raise ConfigError(
            f"tune.space: {key} is a {type(own).__name__} in the config, which cannot be searched."
            f" Remove {key} from one of them."
        )
    if not is_range(values):
        listed = values.choices if isinstance(values, ChoicesSection) else values
        is_new = all((type(own), own) != (type(each), each) for each in listed)
        return Parameter(key, own, (*listed, *([own] if is_new else [])))
    if isinstance(own, bool) or not isinstance(own, int | float):
        raise ConfigError(
            f"tune.space: {key} is a range, but the config, which is the first trial, sets no"
            f" number. Set {key}."
        )
    is_whole = all(float(each).is_integer() for each in (*values, own)) and not any(
        isinstance(each, float) for each in values
    )
    low, high = min(own, *values), max(own, *values)
    return Parameter(key, own, None, low, high, is_whole)


def own_value(config: Config, key: str) -> Any:
    """Return the value of a config for a key, or the default of TrainingArguments."""
    section, _, rest = key.partition(".")
    if section == "training":
        if rest in config.training_values:
            return config.training_values[rest]
        from transformers import TrainingArguments

        return next((each.default for each in fields(TrainingArguments) if each.name == rest), None)
    value: Any = getattr(config, section)
    for name in rest.split("."):
        value = getattr(value, name)
    return value


def with_values(values: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    """Return the values of a config with some keys changed, which may be nested."""
    result = dict(values)
    for key, value in changed.items():
        name, _, rest = key.partition(".")
        inner = result.get(name)
        result[name] = (
            with_values(inner if isinstance(inner, dict) else {}, {rest: value}) if rest else value
        )
    return result


def trial_config(config: Config, path: Path, changed: dict[str, Any]) -> Config:
    """Return the config of a trial.

    Args:
        path: the folder of the trial.
        changed: {section.key: value}; empty for the config as it is.
    Raises:
        ConfigError: the values contradict each other.
    """
    values = config.to_dict()
    values["run"] |= {"name": path.name, "output_dir": str(path.parent), "num_processes": 1}
    values |= {section: {} for section in ("ensemble", "compare", "tune", "report", "hub")}
    return check_config(YamlSource("", with_values(values, changed)))


def faults(config: Config, *, multi_label: bool) -> Iterator[str]:
    """Yield what is wrong with each value of the space alone, with the other keys as configured."""
    for parameter in parameters(config, multi_label=multi_label):
        ends = (parameter.low, parameter.high)
        for value in parameter.choices or (map(int, ends) if parameter.is_whole else ends):
            if value == parameter.own:
                continue
            if fault := _fault(config, parameter.key, value, multi_label=multi_label):
                yield f"tune.space: {parameter.key}: {shown(value)}: {fault}"


def _fault(config: Config, key: str, value: Any, *, multi_label: bool) -> str:
    try:
        trial = trial_config(config, Path("trial"), {key: value})
        trial.check_problem_type(multi_label=multi_label)
    except ConfigError as error:
        return str(error)
    return ""
