"""Evaluate a saved model on labelled rows of any source: `equipoise evaluate`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from scipy.special import logit

from trainer.arrays import Array, Ints
from trainer.data.reading.column_checks import SET_COLUMNS
from trainer.data.reading.formats.readers import ENDINGS
from trainer.data.reading.locate import locate
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.sources import Rows, check_source
from trainer.delivery.predicting.label_file import refuse_existing
from trainer.delivery.predicting.labelled_rows import read_labelled
from trainer.display.tables import print_evaluation, print_groups, print_intervals
from trainer.errors import DataError, RunError
from trainer.evaluation.blocks import MOST_IN_MEMORY, release, room, row_blocks
from trainer.evaluation.figure_intervals import f1_intervals, figure_intervals
from trainer.evaluation.frequency_groups import group_figures
from trainer.evaluation.intervals import resample
from trainer.evaluation.multi_label import AnyEvaluation, evaluate
from trainer.files.locks import refuse_while_written
from trainer.progress import progress_bar
from trainer.run_folder import writer

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection
    from trainer.delivery.predicting.predict import Classifier, Text

PIECE_ROWS = 4_096
LEAST_PROBABILITY = 1e-15
"""Smaller probabilities are raised to this, so that one mistake cannot make the loss infinite."""


def metrics_path(output: Path, data: "DataSection", *, overwrite: bool = False) -> Path:
    """Return the file to write: as given, or metrics.json in a folder.

    Raises:
        DataError: `data.source` does not exist.
        RunError: the name does not end in .json; the file is in the data, in a model folder or in
            a run folder; it exists, without `overwrite`; or it cannot be written.
    """
    path = output / "metrics.json" if output.is_dir() or not output.suffix else output
    if path.suffix != ".json" or path.is_dir():
        raise RunError(
            f"--output: {path} {'is a folder' if path.is_dir() else 'does not end in .json'};"
            " needed: a .json file, or a folder for metrics.json."
        )
    writer.check_writable(path.parent, remedy="Set --output")
    whole = path.resolve()
    for source in [data.source] if isinstance(data.source, str) else data.source or []:
        if {whole, *whole.parents} & {
            found.resolve() for found in locate(source, "--data", ENDINGS) or []
        }:
            raise RunError(f"--output: {path} is in --data. Give another file.")
    if (path.parent / "config.json").is_file():
        raise RunError(
            f"{path}: is in a model folder, which holds only the files of the model."
            " Give another --output."
        )
    if (path.parent / "config.yaml").is_file() or any(
        (folder / "config.yaml").is_file() and (folder / "metrics.json").is_file()
        for folder in whole.parents
    ):
        raise RunError(
            f"{path}: is in a run folder, which holds the results of its training."
            " Give another --output."
        )
    refuse_existing(path, overwrite=overwrite)
    refuse_while_written(path)
    return path


@contextmanager
def naming_options() -> Iterator[None]:
    """Name the options of the command, not the keys of the config, in errors about columns."""
    try:
        yield
    except DataError as error:
        words = str(error)
        if SET_COLUMNS not in words:
            raise
        raise DataError(
            words.replace(SET_COLUMNS, "Give --text-column and --label-column.")
        ) from error


def check_data(data: "DataSection") -> None:
    """Raise DataError if the first rows cannot be read or lack a column."""
    with naming_options():
        check_source(data)


def evaluate_file(
    classifier: "Classifier", data: "DataSection", path: Path, *, cache_dir: Path
) -> AnyEvaluation:
    """Evaluate the classifier on the rows of `data.source`, print the results and write them.

    Rows without a text or a label are counted and skipped.

    Args:
        path: metrics.json, with `test` and `minority_label` as in run folders, `intervals`, and
            `evaluated` for the model and the data.
    Raises:
        DataError: rows that cannot be read, labels that the model does not know, or no row.
    """
    with naming_options():
        labelled = read_labelled(classifier, data, cache_dir)
    rows, counts = labelled.rows, labelled.left_out
    p_NC, decided = classify_texts(classifier, rows, labelled.ids_N, path.parent)
    evaluation = evaluate(
        logarithms(p_NC, path.parent, multi_label=rows.multi_label),
        labelled.targets,
        classifier.labels,
        decided,
    )
    figures = _figures(classifier, evaluation, labelled.targets, decided)
    print_evaluation(evaluation, str(data.source))
    print_intervals(figures["intervals"], evaluation)
    print_groups(figures["test"].get("per_group", {}))
    evaluated = {
        "model": classifier.name,
        "data": data.source,
        "rows_read": rows.table.num_rows,
        "rows_left_out": counts,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    writer.RunFolder(path.parent).write_json(path.name, figures | {"evaluated": evaluated})
    for sentence in [*_remarks(classifier), *rows.remarks, *labelled.naming.sentences()]:
        print(sentence)
    skipped = "; ".join(f"{count:,} {reason}" for reason, count in counts.items())
    print(f"{f'Skipped rows: {skipped}. ' if skipped else ''}Results: {path}")
    return evaluation


def _remarks(classifier: "Classifier") -> list[str]:
    """Return why there are no groups of labels, if the model does not know them."""
    first = classifier.models[0]
    why = f"{first.name} does not record the training rows of its labels"
    return [f"No figures of frequent and rare labels: {why}."] if first.groups is None else []


def _figures(
    classifier: "Classifier", evaluation: AnyEvaluation, targets: Array, decided: Array
) -> dict[str, Any]:
    """Return the values of metrics.json; groups are those of the first model."""
    minority = _rarest(evaluation)
    per_group = group_figures(classifier.models[0].groups or {}, evaluation, decided)
    return {
        "test": evaluation.to_dict() | ({"per_group": per_group} if per_group else {}),
        "intervals": _intervals(evaluation, targets, decided, minority),
        "minority_label": minority,
    }


def _rarest(evaluation: AnyEvaluation) -> str | None:
    """Return the class with the fewest rows, of those that have rows; None if none has."""
    support = {
        label: figures["support"]
        for label, figures in evaluation.per_class.items()
        if figures["support"]
    }
    return min(support, key=support.__getitem__, default=None)


def _intervals(
    evaluation: AnyEvaluation, targets: Array, decided: Array, minority: str | None
) -> dict[str, Any]:
    """Return {figure: its 95 % interval or None}, and `f1` with the interval of each class."""
    per_class, known = evaluation.per_class, {*evaluation.to_dict(), "minority_recall"}
    resampled = resample(targets, [decided], len(per_class))
    found = figure_intervals(per_class, minority, resampled)
    return {name: each for name, each in found.items() if name in known} | {
        "f1": f1_intervals(per_class, resampled)
    }


def logarithms(p_NC: Array, folder: Path, *, multi_label: bool = False) -> Array:
    """Return logits that give these probabilities, as `evaluate` takes them.

    Args:
        folder: the place for a file of logits if they are many; see `blocks.room`.
    """
    log_p_NC = room(p_NC.shape, p_NC.dtype, folder)
    for rows, p_BC in row_blocks(p_NC):
        p_BC = p_BC.astype(np.float64)
        log_p_NC[rows] = (
            logit(np.clip(p_BC, LEAST_PROBABILITY, 1 - LEAST_PROBABILITY))
            if multi_label
            else np.log(np.maximum(p_BC, LEAST_PROBABILITY))
        )
        release(log_p_NC)
    return log_p_NC


def classify_texts(
    classifier: "Classifier", rows: Rows, ids_N: Ints, folder: Path
) -> tuple[Array, Array]:
    """Return the probabilities and decided labels of rows, computed in pieces to save memory.

    Args:
        folder: the place for a file of probabilities, in float32, if they are many; see
            `blocks.room`.
    """
    shape = (len(ids_N), len(classifier.labels))
    is_large = 8 * shape[0] * shape[1] > MOST_IN_MEMORY
    p_NC = room(shape, np.float32 if is_large else np.float64, folder)
    decided = (
        room(shape, np.bool_, folder) if classifier.is_multi_label else np.empty(shape[0], np.int64)
    )
    texts = rows.table.select(["text", "text_pair"])
    is_paired = texts["text_pair"].null_count < texts.num_rows
    with progress_bar(total=len(ids_N), desc="Predicting", unit=" rows", delay=2) as bar:
        for start in range(0, len(ids_N), PIECE_ROWS):
            piece = take_rows(texts, ids_N[start : start + PIECE_ROWS])
            firsts, seconds = (pc.fill_null(column, "").to_pylist() for column in piece.columns)
            pairs: list[Text] = [
                {"text": first, "text_pair": second}
                for first, second in zip(firsts, seconds, strict=True)
            ]
            answers = classifier.classify(pairs if is_paired else firsts)
            p_NC[start : start + len(firsts)] = answers.probabilities_NC
            decided[start : start + len(firsts)] = answers.decided
            release(p_NC)
            release(decided)
            rows.release()
            bar.update(len(firsts))
    return p_NC, decided
