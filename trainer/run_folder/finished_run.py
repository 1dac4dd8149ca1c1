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

from trainer.arrays import Array, Bools, Ints
from trainer.config.yaml_source import read_yaml
from trainer.errors import RunError, first_line, listing
from trainer.evaluation.blocks import Rows, Taken, release, row_blocks, row_slices
from trainer.run_folder import prediction_file
from trainer.run_folder.prediction_file import Top

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
        p_NC: probabilities with the decision; None where only the largest were kept.
        top: what was kept of them then.
    """

    rows_N: Ints
    targets: Array
    predicted: Array
    p_NC: Rows | None
    top: Top | None = None

    @property
    def num_wrong(self) -> int:
        """Rows, of multi-label rows answers, that are wrong."""
        return sum(
            int((self.targets[rows] != self.predicted[rows]).sum()) for rows in self._blocks()
        )

    @property
    def knows_confidences(self) -> bool:
        """Whether `confidences` can be told: of multi-label rows every probability is needed."""
        return self.p_NC is not None or (self.top is not None and self.targets.ndim == 1)

    def confidences(self) -> Iterator[tuple[Array, Bools]]:
        """How sure, and whether right, in blocks: of each row the most probable class; of multi-label rows each answer, yes from 0.5."""
        if self.p_NC is None:
            assert self.top is not None
            yield self.top.p_NK[:, 0], self.top.ids_NK[:, 0] == self.targets
            return
        for rows, p_BC in row_blocks(self.p_NC):
            if self.targets.ndim > 1:
                yield (
                    np.maximum(p_BC, 1 - p_BC).ravel(),
                    ((p_BC >= 0.5) == self.targets[rows]).ravel(),
                )
                release(self.targets)
            else:
                yield p_BC.max(axis=1), p_BC.argmax(axis=1) == self.targets[rows]

    def answers(self) -> tuple[Ints, Ints, Ints]:
        """Of multi-label rows: how often each label is rightly given, missed, and given too much."""
        right_C, missed_C, wrong_C = np.zeros((3, self.targets.shape[1]), np.int64)
        for rows in self._blocks():
            true_BC, given_BC = self.targets[rows], self.predicted[rows]
            right_C += (true_BC & given_BC).sum(axis=0)
            missed_C += (true_BC & ~given_BC).sum(axis=0)
            wrong_C += (~true_BC & given_BC).sum(axis=0)
        return right_C, missed_C, wrong_C

    def hardest(self, labels: list[str], most: int) -> list[Mistake]:
        """The most confident mistakes, the surest first."""
        if self.targets.ndim == 1:
            wrong = np.flatnonzero(self.targets != self.predicted)
            sure, true_p = self._p_of(self.predicted, wrong), self._p_of(self.targets, wrong)
            order = np.argsort(-sure, kind="stable")[:most]
            given, true = self.predicted[wrong[order]], self.targets[wrong[order]]
            rows = zip(
                self.rows_N[wrong[order]], true, given, sure[order], true_p[order], strict=True
            )
            return [
                Mistake(int(row), labels[t], labels[g], float(p), float(p_true))
                for row, t, g, p, p_true in rows
            ]
        rows_M, ids_M, sure_M, is_given_M = self._wrong_answers(most)
        order = np.lexsort((ids_M, rows_M, -sure_M))[:most]
        words = {True: "given", False: "missed"}
        answers = zip(
            self.rows_N[rows_M[order]], ids_M[order], is_given_M[order], sure_M[order], strict=True
        )
        return [
            Mistake(int(row), labels[c], words[bool(is_given)], float(p), float(1 - p))
            for row, c, is_given, p in answers
        ]

    def _p_of(self, ids_N: Ints, rows: Ints) -> Array:
        """Probability of one class of each of these rows: of the true one, or of the predicted one."""
        if self.p_NC is None:
            assert self.top is not None
            return (self.top.true_p_N if ids_N is self.targets else self.top.predicted_p_N)[rows]
        chosen = Taken(self.p_NC, rows)
        blocks = [
            p_BC[np.arange(len(p_BC)), ids_N[rows[places]]] for places, p_BC in row_blocks(chosen)
        ]
        return np.concatenate([np.empty(0, np.float32), *blocks])

    def _wrong_answers(self, most: int) -> tuple[Array, ...]:
        """(row, label id, probability of what the model said, whether the label was given) of wrong answers, the surest among them."""
        parts = []
        for rows in self._blocks():
            rows_M, ids_M = np.nonzero(self.targets[rows] != self.predicted[rows])
            is_given_M = self.predicted[rows][rows_M, ids_M]
            p_M = (
                self.p_NC[rows][rows_M, ids_M]
                if self.p_NC is not None
                else self._kept_p(rows, rows_M, ids_M, is_given_M)
            )
            sure_M = np.where(is_given_M, p_M, 1 - p_M)
            first = np.argsort(-sure_M, kind="stable")[:most]
            parts.append(
                (rows_M[first] + rows.start, ids_M[first], sure_M[first], is_given_M[first])
            )
        return tuple(np.concatenate(column) for column in zip(*parts, strict=True))

    def _kept_p(self, rows: slice, rows_M: Ints, ids_M: Ints, is_given_M: Bools) -> Array:
        """Probabilities of wrong answers, of which each was given or is true, so that it was kept."""
        assert self.top is not None
        p_BC = np.zeros(self.targets[rows].shape, np.float32)
        for held_NC, kept_N in (
            (self.targets, self.top.true_p_N),
            (self.predicted, self.top.predicted_p_N),
        ):
            p_BC[held_NC[rows]] = np.concatenate([np.empty(0, np.float32), *kept_N[rows]])
        return p_BC[rows_M, ids_M]

    def _blocks(self) -> Iterator[slice]:
        for rows in row_slices(self.targets.shape):
            yield rows
            for read in (self.targets, self.predicted, self.p_NC):
                release(read)


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
            raise RunError(
                f"{path}: {'is a file' if path.exists() else 'no such folder'}. Give run folders, such as runs/quickstart."
            )
        if not (path / "config.yaml").is_file():
            raise RunError(
                f"{path}: holds no run (no config.yaml). Give run folders, such as runs/quickstart."
            )
        if not (path / "metrics.json").is_file():
            raise RunError(
                f"{path}: holds an unfinished run (no metrics.json). Train it to its end first: the same command goes on."
            )
        try:
            lines = (
                (path / "mistakes.jsonl").read_bytes().split(b"\n")
                if (path / "mistakes.jsonl").is_file()
                else []
            )
            texts = {
                int(record["row"]): str(record["text"])
                for record in map(json.loads, filter(None, lines))
            }
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{path / 'mistakes.jsonl'}: is damaged: {first_line(error)} Remove it to have a page without texts."
            ) from error
        metrics = _json(path / "metrics.json")
        if not isinstance(metrics, dict) or not any(
            isinstance(metrics.get(split), dict) for split in ("validation", "test")
        ):
            raise RunError(
                f"{path / 'metrics.json'}: holds no results of validation or test. Give a run folder that training wrote."
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
            texts=texts,
            split="test" if "test" in metrics else "validation",
        )

    @property
    def name(self) -> str:
        """Name of the folder."""
        return self.path.resolve().name

    @property
    def is_ensemble(self) -> bool:
        """Whether it is several models that vote, each with a run folder within this one."""
        return "ensemble" in self.metrics

    @property
    def members(self) -> list[Path]:
        """Run folders of the members of an ensemble, the first one first; empty of a single model."""
        size = self.metrics["ensemble"]["size"] if self.is_ensemble else 0
        return [self.path / f"member-{number}" for number in range(1, size + 1)]

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
            found = prediction_file.read(self.path / "predictions.parquet", self.split, self.labels)
            return Predictions(found.rows_N, found.targets, found.predicted, found.p_NC, found.top)
        except (
            OSError,
            ValueError,
            KeyError,
        ) as error:  # pyarrow's errors are ValueErrors and KeyErrors
            raise RunError(
                f"{self.path / 'predictions.parquet'}: cannot be read: {first_line(error)} Remove it to have a page without it."
            ) from error


def read_runs(paths: list[Path]) -> list[FinishedRun]:
    """The runs of these folders.

    Raises:
        RunError: as of `FinishedRun.read`, or a folder that is given twice.
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
    evaluations = [
        (name + split, held[split])
        for name, held in (("", metrics), ("decision.", decided))
        for split in ("validation", "test")
        if split in held
    ]
    lacking = [] if "minority_label" in metrics else ["minority_label"]
    for name, values in evaluations:
        figures = FIGURES if "confusion_matrix" in values else MULTI_LABEL_FIGURES
        lacking += [
            f"{name}.{key}"
            for key in (*figures, "labels", "num_rows", "per_class")
            if key not in values
        ]
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
            f"{path}: lacks {listing(lacking, 5)}; it is damaged, or of another version. Make the page with that version, or train again."
        )


def _json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        remedy = "Put it back from a copy, or set run.overwrite: true to train anew."
        raise RunError(f"{path}: is damaged: {first_line(error)} {remedy}") from error


def _epochs(path: Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        try:
            lines = [
                {name: float(value) for name, value in line.items()}
                for line in csv.DictReader(file)
            ]
        except (ValueError, TypeError) as error:
            raise RunError(
                f"{path}: is damaged: {first_line(error)} Remove it to have a page without the epochs."
            ) from error
    if lines and (lacking := EPOCH_COLUMNS - lines[0].keys()):
        raise RunError(
            f"{path}: lacks columns ({listing(lacking)}). Remove it to have a page without the epochs."
        )
    return lines


def read_predictions(
    path: Path, split: str, labels: list[str], name: str = "predictions.parquet"
) -> tuple[Any, Any, Any, Any]:
    """Row ids, label ids, predicted label ids and probabilities (N, C) of one split, from the predictions of a run folder.

    Of multi-label rows which labels they have and are given, (N, C), in place of label ids.

    Raises:
        RunError: of more classes than predictions.parquet holds, the file of all probabilities is not there.
    """
    found = prediction_file.read(path / name, split, labels)
    if found.p_NC is None:
        whole = prediction_file.whole_path(path, name)
        raise RunError(
            f"{whole}: is missing; {name} keeps the largest probabilities alone. Train that run again: --resume never."
        )
    return found.rows_N, found.targets, found.predicted, found.p_NC
