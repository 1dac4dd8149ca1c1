"""`train` for Python: a config goes in, a finished run comes out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.config import Config, check_config, load_config
from trainer.config.yaml_source import YamlSource

if TYPE_CHECKING:
    from pandas import DataFrame

    from trainer.delivery.predicting.predict import Classifier


@dataclass(frozen=True)
class RunResult:
    """A finished run. In Jupyter it shows itself as tables.

    Attributes:
        folder: the run folder, with the report, the model card and the model.

    Example:
        >>> RunResult(Path("runs/x")).classifier.predict(["a text"])  # doctest: +SKIP
    """

    folder: Path

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """All of metrics.json; the values of a split are under its name."""
        found: dict[str, Any] = json.loads((self.folder / "metrics.json").read_text("utf-8"))
        return found

    @cached_property
    def classifier(self) -> "Classifier":
        """The trained model, loaded on the first use."""
        from trainer.delivery.predicting.predict import Classifier

        return Classifier.load(str(self.folder))

    @cached_property
    def epochs(self) -> "DataFrame":
        """The table of the epochs: losses, accuracy, macro F1. An ensemble has none."""
        import pandas as pd

        path = self.folder / "epochs.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()

    def per_class(self, split: str = "test") -> "DataFrame":
        """Return precision, recall, F1 and support of each class on a split.

        Raises:
            KeyError: the run has no such split.
        """
        import pandas as pd

        return pd.DataFrame.from_dict(self.metrics[split]["per_class"], orient="index")

    def _repr_html_(self) -> str:
        """Return the tables of the epochs and of the classes for Jupyter; pandas escapes names."""
        split = "test" if "test" in self.metrics else "validation"
        figures = self.metrics[split]
        title = f"{split}: macro F1 {figures['macro_f1']:.3f}, accuracy {figures['accuracy']:.3f}"
        tables = [self.per_class(split).round(3).to_html(), self.epochs.round(4).to_html()]
        return "\n".join([f"<p>{title}</p>", *tables])


def train(
    config: Config | Mapping[str, Any] | str | Path,
    overrides: Sequence[str] = (),
    *,
    resume: str = "auto",
) -> RunResult:
    """Train, evaluate and write the run folder, as `equipoise train` does.

    Args:
        config: a YAML file, its values as a dict, or a Config.
        overrides: `section.key=value` settings on top.
        resume: `auto` resumes an interrupted run if config and data are unchanged; `never`
            discards it.
    Returns:
        The finished run.
    Raises:
        ConfigError: with all faults of the config.
        TrainerError: unusable data or model, an existing other run, or a training that fails.

    Example:
        >>> result = train({"model": {"name": "distilbert-base-uncased"},  # doctest: +SKIP
        ...                 "data": {"source": "tweets.csv"}})
        >>> result.metrics["validation"]["macro_f1"]  # doctest: +SKIP
    """
    checked = as_config(config, overrides)
    from trainer.runs import ensemble, training_run

    is_ensemble = checked.ensemble.size > 1 and not checked.ensemble.member
    run = ensemble.train_ensemble if is_ensemble else training_run.train
    return RunResult(run(checked, resume=resume))


def as_config(
    config: Config | Mapping[str, Any] | str | Path, overrides: Sequence[str] = ()
) -> Config:
    """Return the checked config of a file, of values, or of a Config with overrides."""
    if isinstance(config, str | Path):
        return load_config(str(config), tuple(overrides))
    if isinstance(config, Config) and not overrides:
        return config
    values = config.to_dict() if isinstance(config, Config) else dict(config)
    return check_config(YamlSource("config", values), tuple(overrides))
