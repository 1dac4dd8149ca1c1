"""Write a trained model as a graph and compare it with the original: `equipoise export`."""

import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trainer.config.config import load_config
from trainer.config.sections.data import DataSection
from trainer.data.reading.row_access import take_rows
from trainer.delivery.export import export_folder
from trainer.delivery.predicting.graph_files import FINDINGS, GRAPHS, READERS, graph_format
from trainer.delivery.predicting.labelled_rows import read_labelled
from trainer.errors import ExportError, TrainerError, first_line, listing
from trainer.extras import EXTRAS, require
from trainer.files.cache import cache_dir
from trainer.run_folder.writer import RunFolder
from trainer.runs.preparation import read_and_split

if TYPE_CHECKING:
    from trainer.arrays import Array, Ints
    from trainer.delivery.export.export_check import AnswersOfRows, Rows
    from trainer.delivery.predicting.predict import Classifier

MAX_LOSS = 0.01
"""Macro F1 that 8 bits may lose if the user says nothing."""
SELECTING_KEYS = {
    "source",
    "train",
    "validation",
    "test",
    "limit",
    "streaming",
    "split_names",
    "subset",
    "revision",
    "group_column",
    "split_column",
}
"""Keys of the data section that select rows; the other keys describe how to read a file."""
EXAMPLES = [
    " ".join(["How long does it take to answer a text of this many words?"] * times)
    for times in (1, 2, 4)
]
"""Texts for the measurement of speed if there are no rows."""


def export(
    source: str,
    *,
    file_format: str = "onnx",
    int8: bool = False,
    max_loss: float | None = None,
    output: Path | None = None,
    data: str | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Write a trained model as a graph, compare it with the original and measure the speed of both.

    Args:
        source: run folder, model folder or Hub id.
        file_format: "onnx" or "openvino".
        int8: write weights of 8 bits.
        max_loss: macro F1 that `int8` may lose on the rows of the comparison; default: MAX_LOSS.
        output: folder; default: `<source>-<format>`, or `<source>-<format>-int8`.
        data: labelled file to compare on, with the columns of the run; default: the validation
            rows of the run.
    Returns:
        The folder.
    Raises:
        MissingPackageError: packages of the extra `onnx` or `openvino` are not installed.
        ExportError: another format, a model that cannot be written, or one that
            gives other answers as a graph.
        TrainerError: no such model, wrong `data`, or a folder that holds other files.
    """
    _check_options(file_format, int8, max_loss)
    run = _run_of(Path(source).expanduser())
    target = output or _default_output(source, run, f"{file_format}-int8" if int8 else file_format)
    export_folder.check_output(target)

    from trainer.delivery.predicting.predict import Classifier
    from trainer.training.arguments import quiet_libraries

    quiet_libraries()
    original = Classifier.load(source, trust_remote_code=trust_remote_code, device="cpu")
    if len(original.models) > 1:
        raise ExportError(
            f"{source}: holds an ensemble of {len(original.models)} models."
            f" Export its members one by one: {Path(source) / 'member-1'} and so on."
        )
    if graph := graph_format(original.models[0].name):
        raise ExportError(
            f"{source}: is a model for {READERS[graph]} already. Give the run or the model folder"
            " that it was exported from."
        )
    rows = _rows_of(data, run, original) if data else _validation_rows(run, original)
    if int8 and isinstance(rows, str):
        raise ExportError(f"--int8 needs labelled rows, to count what it loses, but {rows}")
    with export_folder.aside(target) as work:
        job = _Job(original, rows, file_format, work, trust_remote_code)
        findings = {"source": source} | _export(
            job, (MAX_LOSS if max_loss is None else max_loss) if int8 else None
        )
        folder = work / ("int8" if int8 else "float32")
        export_folder.describe(original.models[0], folder, target, findings)
        export_folder.publish(folder, target)
    print(f"Exported: {target}")
    return target


def _check_options(file_format: str, int8: bool, max_loss: float | None) -> None:
    if file_format not in GRAPHS:
        raise ExportError(f"--format is '{file_format}'; known: {listing(GRAPHS)}.")
    if max_loss is not None and not int8:
        raise ExportError("--max-loss is the loss of --int8. Add --int8, or leave it out.")
    if max_loss is not None and not (isfinite(max_loss) and 0 <= max_loss <= 1):
        raise ExportError(f"--max-loss is {max_loss:g}; needed: macro F1 from 0 to 1.")
    require(file_format, f"equipoise export --format {file_format}")


@dataclass(frozen=True)
class _Job:
    """What is exported, how it is compared, and the folder in which it is written."""

    original: "Classifier"
    rows: "Rows | str"
    file_format: str
    work: Path
    trust_remote_code: bool

    def load(self, kind: str) -> "Classifier":
        """Return the exported model of a kind, float32 or int8."""
        from trainer.delivery.predicting.predict import Classifier

        return Classifier.load(
            self.work / kind, trust_remote_code=self.trust_remote_code, device="cpu"
        )


def _export(job: _Job, max_loss: float | None) -> dict[str, Any]:
    """Write, compare and time the graphs; return the findings for export.json.

    Args:
        max_loss: macro F1 that 8 bits may lose; None: write no 8 bits.
    """
    import torch

    from trainer.delivery.export import export_check, onnx_writer
    from trainer.delivery.export.eight_bits import convert_openvino

    model, rows, work = job.original.models[0], job.rows, job.work
    plain = onnx_writer.plain_copy(model.model)
    export_folder.write_companions(model, work / "float32")
    graph = work / ("float32" if job.file_format == "onnx" else "graph") / GRAPHS["onnx"]
    graph.parent.mkdir(exist_ok=True)
    onnx_writer.write_graph(plain, model.tokenizer, graph, max_length=model.max_length)
    if job.file_format == "openvino":
        convert_openvino(graph, work / "float32")
    exported = {"float32": job.load("float32")}
    if job.file_format == "openvino":
        found = onnx_writer.largest_difference(
            plain, exported["float32"].models[0].model, model.max_length
        )
        onnx_writer.refuse_difference(found, "on random tokens")
    check: dict[str, Any] = {"not_checked": rows}
    kept: list[str] = []
    if not isinstance(rows, str):
        answers = export_check.answers_of(job.original, rows)
        check = export_check.compare(job.original, answers, exported, rows)
        difference = check["float32"]["max_probability_difference"]
        is_small = difference <= onnx_writer.MOST_DIFFERENCE
        own = 0.0 if is_small else export_check.rounding(job.original, rows.texts)
        onnx_writer.refuse_difference(difference, f"on {rows.name}", own)
        if max_loss is not None:
            exported["int8"], check, kept = _in_8_bits(job, graph, answers, check, max_loss)
    export_check.print_check(check)
    seconds = export_check.measure_speed(
        {"original": job.original, **exported}, EXAMPLES if isinstance(rows, str) else rows.texts
    )
    num_bytes: dict[str, int] = {
        "original": sum(p.numel() * p.element_size() for p in plain.parameters())
    }
    num_bytes |= {kind: _graph_bytes(work / kind, job.file_format) for kind in exported}
    export_check.print_speed(seconds, num_bytes, torch.get_num_threads())
    return {
        "format": job.file_format,
        "int8": "int8" in exported,
        "max_loss": max_loss,
        "layers_in_float32": kept,
        "inputs": exported["float32"].models[0].model.names,
        "max_length": model.max_length,
        "bytes": num_bytes,
        "check": check,
        "speed": {"threads": torch.get_num_threads(), "seconds_of_a_call_by_rows": seconds},
        "versions": {
            name: version(name) for name in ("torch", "transformers", *EXTRAS[job.file_format])
        },
    }


def _in_8_bits(
    job: _Job, graph: Path, answers: "AnswersOfRows", check: dict[str, Any], max_loss: float
) -> tuple["Classifier", dict[str, Any], list[str]]:
    """Write the graph in 8 bits, with as few layers in float32 as `max_loss` allows.

    Args:
        graph: ONNX graph in float32.
        answers: of the original.
        check: the findings so far.
    Returns:
        The model, the findings with those of int8, and the layers in float32.
    Raises:
        ExportError: it loses more in any case.
    """
    from trainer.delivery.export import eight_bits, export_check

    assert not isinstance(job.rows, str), "checked before"
    model, folder, kept = job.original.models[0], job.work / "int8", []
    feeds = eight_bits.calibration_feeds(model, job.rows.texts, graph)
    for kept in eight_bits.kept_layers(graph, feeds):
        shutil.rmtree(folder, ignore_errors=True)
        export_folder.write_companions(model, folder)
        eight_bits.QUANTISERS[job.file_format](graph, folder, kept, feeds)
        RunFolder(folder).write_json(FINDINGS, {"int8": True})  # `describe` adds the rest
        exported = job.load("int8")
        check |= export_check.compare(job.original, answers, {"int8": exported}, job.rows)
        lost = check["macro_f1"] - check["int8"]["macro_f1"]
        print(
            f"int8 with {len(kept)} layer{'s' if len(kept) > 1 else ''} in float32:"
            f" macro F1 {-lost:+.4f}"
        )
        if lost <= max_loss:
            return exported, check, kept
    raise ExportError(
        f"--int8 loses more than --max-loss {max_loss:g}, also with {len(kept)} layers in float32:"
        f" {export_check.comparison_words(check, 'int8')}. Nothing was written."
        " Leave out --int8, or set --max-loss to what you accept."
    )


def _graph_bytes(folder: Path, file_format: str) -> int:
    stem = Path(GRAPHS[file_format]).stem
    return sum(path.stat().st_size for path in folder.glob(f"{stem}.*"))


def _run_of(path: Path) -> Path | None:
    """Return the run folder of a path to it or to its model/; None if it is no run."""
    return next(
        (
            folder
            for folder in (path, path.resolve().parent)
            if (folder / "config.yaml").is_file() and (folder / "metrics.json").is_file()
        ),
        None,
    )


def _default_output(source: str, run: Path | None, ending: str) -> Path:
    """Return a folder beside the run or the model folder; for a Hub id in the current folder."""
    path = run or Path(source).expanduser()
    base = path if path.name not in ("", "..") else path.resolve()
    if not path.exists():
        base = Path(base.name)
    return base.with_name(f"{base.name}-{ending}")


def _validation_rows(run: Path | None, model: "Classifier") -> "Rows | str":
    """Return the validation rows of a run, read and split again, or the reason why not."""
    if run is None:
        return f"{model.name} is no run folder, so it has no validation rows. Give --data."
    try:
        clean, splits = read_and_split(load_config(str(run / "config.yaml")))
        environment, ids = (
            json.loads((run / name).read_text(encoding="utf-8"))
            for name in ("environment.json", "splits.json")
        )
    except (TrainerError, OSError) as error:
        return f"the rows of the run cannot be read again: {first_line(error)} Give --data."
    # the fingerprint of a run with synthetic rows includes them
    is_same = clean.fingerprint == environment["data"]["fingerprint"] or "synthetic" in ids
    if (
        not is_same
        or ids["validation"] != splits.validation.tolist()
        or clean.labels.names != model.labels
    ):
        return "the run's data has changed since the training. Give --data."
    return _rows(
        clean.rows.table,
        splits.validation,
        clean.targets[splits.validation],
        f"the validation rows of {run.name}",
    )


def _rows_of(data: str, run: Path | None, model: "Classifier") -> "Rows":
    """Return the rows of a labelled file that have a text and a label; read like the run's data.

    Raises:
        DataError: no row, unknown labels, or lists of labels for a model that gives one label.
    """
    how = (
        load_config(str(run / "config.yaml")).data.model_dump(exclude=SELECTING_KEYS) if run else {}
    )
    found = read_labelled(model, DataSection(source=data, **how), cache_dir(), has_set=False)
    return _rows(found.rows.table, found.ids_N, found.targets, data)


def _rows(table: pa.Table, ids: "Ints", targets: "Array", name: str) -> "Rows":
    from trainer.delivery.export.export_check import Rows

    records = take_rows(table.select(["text", "text_pair"]), ids).to_pylist()
    return Rows(
        [record["text"] if record["text_pair"] is None else record for record in records],
        ids,
        targets,
        name,
    )
