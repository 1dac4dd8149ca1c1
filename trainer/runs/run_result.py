"""Train from Python: `train` takes a config and returns the finished run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config.config import Config, load_config
from trainer.errors import did_you_mean
from trainer.run_folder.finished_run import FinishedRun

if TYPE_CHECKING:
    from pandas import DataFrame

    from trainer.delivery.predicting.predict import Classifier


@dataclass(frozen=True)
class RunResult:
    """A finished run. In Jupyter it shows itself as tables.

    Attributes:
        folder: the run folder, with the report, the model card and the model.

    Example:
        >>> run = RunResult(folder)  # a run of an earlier day, or the result of train()
        >>> list(run.metrics)
        ['validation', 'test', 'minority_label', 'training']
        >>> run.classifier.predict("What a lovely day!").label
        'positive'
    """

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))  # a str is fine as well

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """All of metrics.json; the values of a split are under its name.

        Raises:
            RunError: the folder holds no finished run.

        Example:
            >>> RunResult(folder).metrics["validation"]["num_rows"]
            36
        """
        return FinishedRun.read(self.folder).metrics

    @cached_property
    def classifier(self) -> "Classifier":
        """The trained model, loaded on the first use.

        Raises:
            RunError: the run is not finished, or its model is missing.

        Example:
            >>> RunResult(folder).classifier.labels
            ['negative', 'neutral', 'positive']
        """
        from trainer.delivery.predicting.predict import Classifier

        return Classifier.load(self.folder)

    @cached_property
    def epochs(self) -> "DataFrame":
        """The table of the epochs: losses, accuracy, macro F1. An ensemble has none.

        Example:
            >>> list(RunResult(folder).epochs.columns[:4])
            ['training_loss', 'epoch', 'step', 'validation_loss']
        """
        import pandas as pd

        path = self.folder / "epochs.csv"
        return pd.read_csv(path) if path.is_file() else pd.DataFrame()

    def per_class(self, split: str = "test") -> "DataFrame":
        """Return precision, recall, F1 and support of each class, one row a class.

        Args:
            split: `validation` or `test`.
        Raises:
            ValueError: the run has no such split.

        Example:
            >>> RunResult(folder).per_class("validation").support.tolist()
            [18, 12, 6]
        """
        import pandas as pd

        splits = [name for name in ("validation", "test") if name in self.metrics]
        if split not in splits:
            known = f"known: {', '.join(splits)}.{did_you_mean(split, splits)}"
            raise ValueError(f"split is {split!r}; {known}")
        return pd.DataFrame.from_dict(self.metrics[split]["per_class"], orient="index")

    def _repr_html_(self) -> str:
        """Return the tables of the classes and of the epochs for Jupyter; pandas escapes names."""
        split = "test" if "test" in self.metrics else "validation"
        figures = self.metrics[split]
        words = (
            f"<b>{escape(str(self.folder))}</b><br>{split}: macro F1 {figures['macro_f1']:.3f},"
            f" accuracy {figures['accuracy']:.3f} on {figures['num_rows']:,} rows"
        )
        tables = [self.per_class(split).to_html(float_format="{:.3f}".format, border=0)]
        if len(self.epochs):
            tables += [self.epochs.to_html(float_format="{:.4g}".format, border=0, index=False)]
        return "\n".join([f"<p>{words}</p>", *tables])


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
        >>> result = train(config)  # the dict of the tutorial
        >>> result.folder.name
        'run'
        >>> result.metrics["validation"]["macro_f1"] <= 1
        True
    """
    checked = load_config(config, overrides)
    from trainer.runs import ensemble, training_run

    is_ensemble = checked.ensemble.size > 1 and not checked.ensemble.member
    run = ensemble.train_ensemble if is_ensemble else training_run.train
    return RunResult(run(checked, resume=resume))
