"""Train from Python: `train` takes a config and returns the finished run."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
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
        >>> run = RunResult("runs/run")  # a run of an earlier day
        >>> run.metrics["minority_label"]
        'positive'
        >>> run.classifier.predict("What a lovely day!").label in run.classifier.labels
        True
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
            >>> RunResult("runs/run").metrics["validation"]["num_rows"]
            48
        """
        return FinishedRun.read(self.folder).metrics

    @cached_property
    def classifier(self) -> "Classifier":
        """The trained model, loaded on the first use.

        Raises:
            RunError: the run is not finished, or its model is missing.

        Example:
            >>> RunResult("runs/run").classifier.labels
            ['negative', 'neutral', 'positive']
        """
        from trainer.delivery.predicting.predict import Classifier

        return Classifier.load(self.folder)

    @cached_property
    def epochs(self) -> "DataFrame":
        """The table of the epochs: losses, accuracy, macro F1. An ensemble has none.

        Example:
            >>> list(RunResult("runs/run").epochs.columns[:4])
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
            >>> RunResult("runs/run").per_class("validation").support.astype(int).to_dict()
            {'negative': 24, 'neutral': 16, 'positive': 8}
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
        classes = self.per_class(split).rename(columns={"f1": "F1"})
        tables = [classes.to_html(border=0, float_format="{:.3f}".format)]
        if len(self.epochs):
            headed = self.epochs.rename(columns=lambda name: name.replace("_", " "))
            shown = {"float_format": "{:.4f}".format, "formatters": {"epoch": "{:.4g}".format}}
            headed = headed.rename(columns={"macro f1": "macro F1"})
            tables += [headed.to_html(border=0, index=False, **shown)]
        return "\n".join([f"<p>{words}</p>", *(f"<div>{table}</div><br>" for table in tables)])


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
        >>> values = {  # model and tweets are paths
        ...     "model": {"name": model, "max_length": 16},
        ...     "data": {"source": tweets, "text_column": "text", "label_column": "sentiment"},
        ...     "balance": {"method": "undersample"},
        ...     "run": {"output_dir": "runs", "name": "tweets"},
        ... }
        >>> result = train(values, ["training.max_steps=2"])
        Read 240 rows ...
        >>> 0 <= result.metrics["validation"]["macro_f1"] <= 1
        True
    """
    checked = load_config(config, overrides)
    from trainer.runs import ensemble, training_run

    is_ensemble = checked.ensemble.size > 1 and not checked.ensemble.member
    run = ensemble.train_ensemble if is_ensemble else training_run.train
    with keeping_threads():
        return RunResult(run(checked, resume=resume))


@contextmanager
def keeping_threads() -> Iterator[None]:
    """Put back torch's number of threads, which `run.num_threads` sets, for other code."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    try:
        yield
    finally:
        if torch:
            torch.set_num_threads(before)
