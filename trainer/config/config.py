"""The YAML of a run as a checked model: load it, override values, write it back, and its schema.

Checks read no other file and need no network, torch or clock.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator

from trainer.config.conflicts import check_conflicts, problem_type_faults
from trainer.config.faults import word_faults
from trainer.config.stage_conflicts import check_stages, stage_faults
from trainer.config.top_level import TopLevel
from trainer.config.yaml_source import (
    YamlSource,
    dump_yaml,
    plain_values,
    read_overrides,
    read_yaml,
)
from trainer.errors import ConfigError


class Config(TopLevel):
    """The checked config of a run, with one attribute for each section. It cannot be changed.

    `load_config` makes it from a file or a dict.

    Raises:
        pydantic.ValidationError: values that `load_config` words as a ConfigError.

    Example:
        >>> from trainer import load_config
        >>> config = load_config({"model": {"name": "bert"}, "data": {"source": "a.csv"}})
        >>> config.data.text_column, config.balance.method
        ('text', 'none')
    """

    @model_validator(mode="after")
    def _check(self) -> "Config":
        check_conflicts(self)
        check_stages(self)
        return self

    @property
    def run_path(self) -> Path:
        """The run folder; for a member of an ensemble, the folder of the member within it.

        Example:
            >>> from trainer import load_config
            >>> values = {"model": {"name": "bert"}, "data": {"source": "a.csv"}}
            >>> load_config(values, ["run.name=first"]).run_path.as_posix()
            'runs/first'
        """
        path = Path(self.run.output_dir).expanduser() / self.run.name
        return path / f"member-{self.ensemble.member}" if self.ensemble.member else path

    @property
    def member_seed(self) -> int:
        """Seed of the head, the order and the draw of rows. The split always uses `run.seed`.

        Example:
            >>> from trainer import load_config
            >>> values = {"model": {"name": "bert"}, "data": {"source": "a.csv"}}
            >>> load_config(values, ["ensemble.size=3", "ensemble.member=2"]).member_seed
            43
        """
        return (self.run.seed + (self.ensemble.member or 1) - 1) % 2**32

    @property
    def uses_cpu(self) -> bool:
        """Whether the config asks to train on the CPU even if there is an accelerator.

        Example:
            >>> from trainer import load_config
            >>> values = {"model": {"name": "bert"}, "data": {"source": "a.csv"}}
            >>> load_config(values, ["training.use_cpu=true"]).uses_cpu
            True
        """
        return bool(self.training_values.get("use_cpu"))

    def check_problem_type(self, *, multi_label: bool) -> None:
        """Raise ConfigError with all settings that do not fit the data, once the rows are read.

        Args:
            multi_label: whether a row may have any number of labels.
        Raises:
            ConfigError: a setting that does not fit such labels.

        Example:
            >>> from trainer import load_config
            >>> values = {"model": {"name": "bert"}, "data": {"source": "a.csv"}}
            >>> load_config(values).check_problem_type(multi_label=False)
        """
        faults = problem_type_faults(self, multi_label=multi_label)
        if faults := faults + stage_faults(self, multi_label=multi_label):
            raise ConfigError("\n".join(faults))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values: all sections in full, except `training` (see `training_values`).

        Example:
            >>> from trainer import load_config
            >>> config = load_config({"model": {"name": "bert"}, "data": {"source": "a.csv"}})
            >>> load_config(config.to_dict()) == config
            True
        """
        return self.model_dump(exclude={"training"}) | {"training": self.training_values}

    def to_yaml(self) -> str:
        """Return YAML text that loads back to an equal Config.

        Example:
            >>> from trainer import load_config
            >>> config = load_config({"model": {"name": "bert"}, "data": {"source": "a.csv"}})
            >>> "name: bert" in config.to_yaml()
            True
        """
        return dump_yaml(self.to_dict())

    def with_training(self, **values: Any) -> "Config":
        """Return a copy with other `training` values, for those that depend on the hardware.

        Args:
            **values: keys of the section `training`.

        Example:
            >>> from trainer import load_config
            >>> config = load_config({"model": {"name": "bert"}, "data": {"source": "a.csv"}})
            >>> config.with_training(bf16=False).training_values["bf16"]
            False
        """
        return Config.model_validate(self.to_dict() | {"training": self.training_values | values})


def load_config(
    config: Config | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()
) -> Config:
    """Return the checked Config of a YAML file, or of the same values as a dict.

    Args:
        config: path of a YAML file, {section: {key: value}}, or a Config. Paths may be Path
            objects; numbers and lists may be those of numpy.
        overrides: `section.key=value` settings on top; the value is read as YAML.
    Raises:
        ConfigError: with every fault on a line of its own, in the order of the file.

    Example:
        >>> values = {"model": {"name": "distilbert-base-uncased"}, "data": {"source": "a.csv"}}
        >>> config = load_config(values, ["balance.method=undersample"])
        >>> config.balance.method, config.run.seed
        ('undersample', 42)
        >>> load_config(values | {"balance": {"method": "undersampel"}})
        Traceback (most recent call last):
            ...
        trainer.errors.ConfigError: balance.method is 'undersampel'; known: ...
    """
    given = [overrides] if isinstance(overrides, str) else list(overrides)
    if isinstance(config, str | Path):
        return check_config(read_yaml(str(config)), given)
    if isinstance(config, Config):
        return check_config(YamlSource("", config.to_dict()), given) if given else config
    if not isinstance(config, Mapping):
        raise ConfigError(
            f"the config is of type {type(config).__name__}; needed: the path of a YAML file, a"
            " dict or a Config."
        )
    try:
        values = plain_values(config)
    except RecursionError as error:
        raise ConfigError(
            "the config: a dict or list in it contains itself. Write the values out."
        ) from error
    return check_config(YamlSource("", values), given)


def check_config(source: YamlSource, overrides: Sequence[str] = ()) -> Config:
    """Return the checked Config of values that have been read; raise like `load_config`."""
    values = read_overrides(source, overrides)
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(word_faults(error, values, source, Config))) from error


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of the YAML for editors; `configs/schema.json` is a copy of it."""
    return Config.model_json_schema() | {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "equipoise config",
    }
