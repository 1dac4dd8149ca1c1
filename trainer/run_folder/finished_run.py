"""Read a finished run from its folder.

Only files are read, so that pages can be made later and on another machine.
"""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trainer.config.yaml_source import read_yaml
from trainer.errors import RunError, first_line, listing
from trainer.run_folder import prediction_file
from trainer.run_folder.predictions import Predictions

FIGURES = (
    "macro_f1",
    "accuracy",
    "balanced_accuracy",
    "mcc",
    "auroc_macro",
    "weighted_f1",
    "f1_gap",
    "ece",
    "brier",
    "loss",
)
MULTI_LABEL_FIGURES = (
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "mean_average_precision",
    "accuracy",
    "hamming_loss",
    "loss",
)
EPOCH_COLUMNS = {
    "epoch",
    "step",
    "training_loss",
    "validation_loss",
    "accuracy",
    "macro_f1",
    "minority_recall",
}


@dataclass(frozen=True)
class FinishedRun:
    """The contents of a run folder; files that older runs lack are None or empty.

    Attributes:
        metrics, environment, facts: metrics.json, environment.json, report.json.
        epochs: lines of epochs.csv.
        texts: {row: text} of mistakes.jsonl.
        split: the split whose figures are shown: test if there is one, else validation.
    """

    path: Path
    config: dict[str, Any]
    config_text: str
    metrics: dict[str, Any]
    environment: dict[str, Any] | None
    facts: dict[str, Any] | None
    class_weights: dict[str, float] | None
    epochs: list[dict[str, float]]
    texts: dict[int, str]
    split: str

    @classmethod
    def read(cls, path: Path) -> "FinishedRun":
        """Read the run in a folder.

        Raises:
            RunError: there is no such folder, it holds no finished run, or a file is damaged.
        """
        _check_is_finished(path)
        metrics = _json(path / "metrics.json")
        if not isinstance(metrics, dict) or not any(
            isinstance(metrics.get(split), dict) for split in ("validation", "test")
        ):
            raise RunError(
                f"{path / 'metrics.json'}: holds no results of validation or test."
                " Give a run folder that training wrote."
            )
        with readable(path):
            _check_figures(path / "metrics.json", metrics)
        own = _json(path / "report.json")
        facts = own or (_json(path / "member-1/report.json") if "ensemble" in metrics else None)
        return cls(
            path=path,
            config=read_yaml(str(path / "config.yaml")).values,
            config_text=(path / "config.yaml").read_text(encoding="utf-8"),
            metrics=metrics,
            environment=_json(path / "environment.json"),
            facts=facts,
            class_weights=_json(path / "class_weights.json"),
            epochs=_epochs(path / "epochs.csv")
            or (own.get("epochs", []) if isinstance(own, dict) else []),
            texts=_texts(path / "mistakes.jsonl"),
            split="test" if "test" in metrics else "validation",
        )

    @property
    def name(self) -> str:
        """Name of the run folder."""
        return self.path.resolve().name

    @property
    def is_ensemble(self) -> bool:
        """Whether the run is an ensemble, whose members have run folders within this one."""
        return "ensemble" in self.metrics

    @property
    def members(self) -> list[Path]:
        """Run folders of the members of an ensemble, in order; empty for a single model."""
        size = self.metrics["ensemble"]["size"] if self.is_ensemble else 0
        return [self.path / f"member-{number}" for number in range(1, size + 1)]

    @property
    def splits(self) -> list[str]:
        """Evaluated splits."""
        return [split for split in ("validation", "test") if split in self.metrics]

    @property
    def labels(self) -> list[str]:
        """Names of the classes in the order of their ids."""
        return list(self.metrics[self.split]["labels"])

    @property
    def is_multi_label(self) -> bool:
        """Whether a row may have any number of labels."""
        return "confusion_matrix" not in self.metrics[self.split]

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures of a split, the headline first."""
        return MULTI_LABEL_FIGURES if self.is_multi_label else FIGURES

    @property
    def by_size(self) -> list[str]:
        """Labels, sorted by rows in the split, the largest class first."""
        per_class = self.final["per_class"]
        return sorted(self.labels, key=lambda label: -per_class[label]["support"])

    @property
    def final(self) -> dict[str, Any]:
        """Figures of `split`, with the decision if the run has one."""
        evaluation: dict[str, Any] = self.metrics.get("decision", self.metrics)[self.split]
        return evaluation

    @cached_property
    def predictions(self) -> Predictions | None:
        """Predictions on the rows of `split`; None without predictions.parquet."""
        path = self.path / "predictions.parquet"
        if not path.is_file():
            return None
        try:
            found = prediction_file.read(path, self.split, self.labels)
        # pyarrow raises subclasses of ValueError and KeyError
        except (OSError, ValueError, KeyError) as error:
            remedy = "Remove it to have a page without it."
            raise RunError(f"{path}: cannot be read: {first_line(error)} {remedy}") from error
        return Predictions(found.rows_N, found.targets, found.predicted, found.p_NC, found.top)


def read_runs(paths: list[Path]) -> list[FinishedRun]:
    """Read the runs in these folders.

    Raises:
        RunError: as `FinishedRun.read`, or a folder is given twice.
    """
    places = [path.resolve() for path in paths]
    twice = next(
        (path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None
    )
    if twice is not None:
        raise RunError(f"{twice}: is given twice. Give every run once.")
    return [FinishedRun.read(path) for path in paths]


@contextmanager
def readable(*paths: Path) -> Iterator[None]:
    """Raise RunError if a file in the block is not of the form that a page needs."""
    from jinja2 import UndefinedError

    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, UndefinedError) as error:
        raise RunError(
            f"{listing(paths)}: a file there is damaged, or was written by another version"
            f" ({type(error).__name__}: {first_line(error)[:-1]}). Make the page with the version"
            " that environment.json names, or train again."
        ) from error


def _check_is_finished(path: Path) -> None:
    """Raise RunError if the folder does not exist or holds no finished run."""
    remedy = "Give run folders, such as runs/quickstart."
    if not path.is_dir():
        found = "is a file" if path.exists() else "no such folder"
        raise RunError(f"{path}: {found}. {remedy}")
    if not (path / "config.yaml").is_file():
        raise RunError(f"{path}: holds no run (no config.yaml). {remedy}")
    if not (path / "metrics.json").is_file():
        raise RunError(
            f"{path}: holds an unfinished run (no metrics.json)."
            " Repeat the training command first: it resumes the run."
        )


def _check_figures(path: Path, metrics: dict[str, Any]) -> None:
    """Raise RunError if metrics.json lacks figures; the message names them."""
    evaluations = [
        (name + split, held[split])
        for name, held in (("", metrics), ("decision.", metrics.get("decision", {})))
        for split in ("validation", "test")
        if split in held
    ]
    lacking = [] if "minority_label" in metrics else ["minority_label"]
    for name, values in evaluations:
        figures = FIGURES if "confusion_matrix" in values else MULTI_LABEL_FIGURES
        needed = (*figures, "labels", "num_rows", "per_class")
        lacking += [f"{name}.{key}" for key in needed if key not in values]
        lacking += [
            f"{name}.{key} as a number"
            for key in figures
            if not isinstance(values.get(key, 0), int | float | None)
        ]
        lacking += [
            f"{name}.per_class.{label}"
            for label in values.get("labels", ())
            if label not in values.get("per_class", ())
        ]
    if lacking:
        raise RunError(
            f"{path}: lacks {listing(lacking, 5)}; it is damaged, or was written by another"
            " version. Make the page with that version, or train again."
        )


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        remedy = "Restore it from a copy, or set run.overwrite: true to train again."
        raise RunError(f"{path}: is damaged: {first_line(error)} {remedy}") from error


def _texts(path: Path) -> dict[int, str]:
    """Return {row: text} of mistakes.jsonl; empty without the file."""
    if not path.is_file():
        return {}
    try:
        records = map(json.loads, filter(None, path.read_bytes().split(b"\n")))
        return {int(record["row"]): str(record["text"]) for record in records}
    except (ValueError, KeyError, TypeError) as error:
        remedy = "Remove it to have a page without texts."
        raise RunError(f"{path}: is damaged: {first_line(error)} {remedy}") from error


def _epochs(path: Path) -> list[dict[str, float]]:
    """Return the lines of epochs.csv; empty without the file."""
    if not path.is_file():
        return []
    remedy = "Remove it to have a page without the epochs."
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        lines = [{name: float(value) for name, value in row.items()} for row in rows]
    except (ValueError, TypeError) as error:
        raise RunError(f"{path}: is damaged: {first_line(error)} {remedy}") from error
    if lines and (lacking := EPOCH_COLUMNS - lines[0].keys()):
        raise RunError(f"{path}: lacks columns ({listing(lacking)}). {remedy}")
    return lines
