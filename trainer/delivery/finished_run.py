"""A finished run as its folder tells it; reads files alone, so that pages can be made of any run, later and elsewhere."""

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import RunError, first_line, listing
from trainer.yaml_source import read_yaml

FIGURES = ("macro_f1", "accuracy", "balanced_accuracy", "mcc", "auroc_macro", "weighted_f1", "f1_gap", "ece", "brier", "loss")
MULTI_LABEL_FIGURES = ("macro_f1", "micro_f1", "weighted_f1", "samples_f1", "mean_average_precision", "accuracy", "hamming_loss", "loss")
EPOCH_COLUMNS = {"epoch", "step", "training_loss", "validation_loss", "accuracy", "macro_f1", "minority_recall"}
LESS_IS_BETTER = {"ece", "brier", "loss", "hamming_loss"}


@dataclass(frozen=True)
class Mistake:
    """A test row that the model got wrong, being sure; of multi-label rows one wrong answer about one label.

    Attributes:
        row: its number in the order of reading, from 0, as in predictions.parquet.
        label, predicted: one label a row: the true one and the model's; else the label in question and 'given' or 'missed'.
        probability: of what the model said.
        true_probability: of what it should have said.
    """

    row: int
    label: str
    predicted: str
    probability: float
    true_probability: float


@dataclass(frozen=True)
class Predictions:
    """What the model did on the rows of one split. Legend: N rows, C labels.

    Attributes:
        targets, predicted: label ids (N,); of multi-label rows which labels they have and are given, (N, C).
        p_NC: probabilities with the decision.
    """

    rows_N: NDArray[np.int64]
    targets: NDArray[Any]
    predicted: NDArray[Any]
    p_NC: NDArray[np.float64]

    def hardest(self, labels: list[str], most: int) -> list[Mistake]:
        """The most confident mistakes, the surest first."""
        if self.targets.ndim == 1:
            wrong = np.flatnonzero(self.targets != self.predicted)
            sure = self.p_NC[wrong, self.predicted[wrong]]
            chosen = wrong[np.argsort(-sure, kind="stable")[:most]]
            return [
                Mistake(int(self.rows_N[n]), labels[t], labels[g], float(self.p_NC[n, g]), float(self.p_NC[n, t]))
                for n, t, g in zip(chosen, self.targets[chosen], self.predicted[chosen], strict=True)
            ]
        rows, ids = np.nonzero(self.targets != self.predicted)
        p = self.p_NC[rows, ids]
        sure = np.where(self.predicted[rows, ids], p, 1 - p)
        order = np.argsort(-sure, kind="stable")[:most]
        words = {True: "given", False: "missed"}
        return [
            Mistake(int(self.rows_N[rows[i]]), labels[ids[i]], words[bool(self.predicted[rows[i], ids[i]])], float(sure[i]), float(1 - sure[i])) for i in order
        ]


@dataclass(frozen=True)
class FinishedRun:
    """Files of a run folder, those that older runs lack as None or empty.

    Attributes:
        metrics, environment, facts: metrics.json, environment.json, report.json.
        epochs: lines of epochs.csv.
        texts: {row: text} of mistakes.jsonl.
        split: whose figures count: test, where there is one.
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
        """The run of a folder.

        Raises:
            RunError: no folder, no finished run in it, or a file that is damaged.
        """
        if not path.is_dir():
            raise RunError(f"{path}: {'is a file' if path.exists() else 'no such folder'}. Give run folders, such as runs/quickstart.")
        if not (path / "config.yaml").is_file():
            raise RunError(f"{path}: holds no run (no config.yaml). Give run folders, such as runs/quickstart.")
        if not (path / "metrics.json").is_file():
            raise RunError(f"{path}: holds an unfinished run (no metrics.json). Train it to its end first: the same command goes on.")
        try:
            lines = (path / "mistakes.jsonl").read_bytes().split(b"\n") if (path / "mistakes.jsonl").is_file() else []
            texts = {int(record["row"]): str(record["text"]) for record in map(json.loads, filter(None, lines))}
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path / 'mistakes.jsonl'}: is damaged: {first_line(error)} Remove it to have a page without texts.") from error
        metrics = _json(path / "metrics.json")
        if not isinstance(metrics, dict) or not any(isinstance(metrics.get(split), dict) for split in ("validation", "test")):
            raise RunError(f"{path / 'metrics.json'}: holds no results of validation or test. Give a run folder that training wrote.")
        with readable(path):
            _check_figures(path / "metrics.json", metrics)
        facts = _json(path / "report.json") or (_json(path / "member-1/report.json") if "ensemble" in metrics else None)
        return cls(
            path=path,
            config=read_yaml(str(path / "config.yaml")).values,
            config_text=(path / "config.yaml").read_text(encoding="utf-8"),
            metrics=metrics,
            environment=_json(path / "environment.json"),
            facts=facts,
            class_weights=_json(path / "class_weights.json"),
            epochs=_epochs(path / "epochs.csv"),
            texts=texts,
            split="test" if "test" in metrics else "validation",
        )

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def splits(self) -> list[str]:
        """Splits that were evaluated."""
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
        """Labels with the most rows in the split first."""
        per_class = self.final["per_class"]
        return sorted(self.labels, key=lambda label: -per_class[label]["support"])

    @property
    def final(self) -> dict[str, Any]:
        """Figures of the split that counts: with the decision where there is one."""
        evaluation: dict[str, Any] = self.metrics.get("decision", self.metrics)[self.split]
        return evaluation

    @cached_property
    def predictions(self) -> Predictions | None:
        """Rows of the split that counts; None without predictions.parquet."""
        if not (self.path / "predictions.parquet").is_file():
            return None
        try:
            return Predictions(*read_predictions(self.path, self.split, self.labels))
        except (OSError, ValueError, KeyError) as error:  # pyarrow's errors are ValueErrors and KeyErrors
            raise RunError(f"{self.path / 'predictions.parquet'}: cannot be read: {first_line(error)} Remove it to have a page without it.") from error


def read_runs(paths: list[Path]) -> list[FinishedRun]:
    """The runs of these folders.

    Raises:
        RunError: as of `FinishedRun.read`, or a folder that is given twice.
    """
    places = [path.resolve() for path in paths]
    twice = next((path for path, place in zip(paths, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise RunError(f"{twice}: is given twice. Give every run once.")
    return [FinishedRun.read(path) for path in paths]


@contextmanager
def readable(*paths: Path) -> Iterator[None]:
    """Words what comes of files that are JSON, CSV or YAML, but not of the shape that a page needs."""
    from jinja2 import UndefinedError

    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError, UndefinedError) as error:
        raise RunError(
            f"{listing(paths)}: a file there is damaged, or was written by another version ({type(error).__name__}: {first_line(error)[:-1]}). "
            "Make the page with the version that environment.json names, or train again."
        ) from error


def _check_figures(path: Path, metrics: dict[str, Any]) -> None:
    """Raises RunError naming the figures that metrics.json lacks."""
    decided = metrics.get("decision", {})
    evaluations = [(name + split, held[split]) for name, held in (("", metrics), ("decision.", decided)) for split in ("validation", "test") if split in held]
    lacking = [] if "minority_label" in metrics else ["minority_label"]
    for name, values in evaluations:
        figures = FIGURES if "confusion_matrix" in values else MULTI_LABEL_FIGURES
        lacking += [f"{name}.{key}" for key in (*figures, "labels", "num_rows", "per_class") if key not in values]
        lacking += [f"{name}.{key} as a number" for key in figures if not isinstance(values.get(key, 0), int | float | None)]
        lacking += [f"{name}.per_class.{label}" for label in values.get("labels", ()) if label not in values.get("per_class", ())]
    if lacking:
        raise RunError(f"{path}: lacks {listing(lacking, 5)}; it is damaged, or of another version. Make the page with that version, or train again.")


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path}: is damaged: {first_line(error)}") from error


def _epochs(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        try:
            lines = [{name: float(value) for name, value in line.items()} for line in csv.DictReader(file)]
        except (ValueError, TypeError) as error:
            raise RunError(f"{path}: is damaged: {first_line(error)} Remove it to have a page without the epochs.") from error
    if lines and (lacking := EPOCH_COLUMNS - lines[0].keys()):
        raise RunError(f"{path}: lacks columns ({listing(lacking)}). Remove it to have a page without the epochs.")
    return lines


def read_predictions(path: Path, split: str, labels: list[str], name: str = "predictions.parquet") -> tuple[Any, Any, Any, Any]:
    """Row ids, label ids, predicted label ids and probabilities (N, C) of one split, from the predictions of a run folder.

    Of multi-label rows which labels they have and are given, (N, C), in place of label ids.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path / name, filters=[("split", "=", split)])
    true_N, predicted_N = (_targets(table[name].combine_chunks(), labels) for name in ("label", "predicted"))
    return table["row"].to_numpy(), true_N, predicted_N, np.stack([table[f"probability_{label}"].to_numpy() for label in labels], axis=1)


def _targets(names: Any, labels: list[str]) -> Any:
    """The label id of each row, or which labels it has; the reverse of `report.RunFolder.write_predictions`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    is_list = pa.types.is_list(names.type)
    flat_names = (pc.list_flatten(names) if is_list else names).cast(pa.string())  # of rows without any label the type is null
    ids = pc.index_in(flat_names, value_set=pa.array(labels, pa.string()))
    if ids.null_count:
        raise RunError("predictions.parquet holds labels that metrics.json lacks; the two are of different runs. Train anew.")
    if not is_list:
        return ids.to_numpy().astype(np.int64)
    held_NC = np.zeros((len(names), len(labels)), np.bool_)
    held_NC[pc.list_parent_indices(names).to_numpy(), ids.to_numpy()] = True
    return held_NC
