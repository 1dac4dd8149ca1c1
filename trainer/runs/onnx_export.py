"""Write a trained model as ONNX and compare it with the original: `equipoise export`."""

import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from trainer.config.config import load_config
from trainer.config.sections.data import DataSection
from trainer.data.reading.row_access import take_rows
from trainer.delivery.export import onnx_folder
from trainer.delivery.predicting.labelled_rows import read_labelled
from trainer.delivery.predicting.onnx_files import FINDINGS, GRAPH
from trainer.errors import ExportError, TrainerError, first_line
from trainer.extras import require
from trainer.files.cache import cache_dir
from trainer.run_folder.writer import RunFolder
from trainer.runs.preparation import read_and_split

if TYPE_CHECKING:
    from trainer.arrays import Array, Ints
    from trainer.delivery.export.onnx_check import Rows
    from trainer.delivery.predicting.predict import Classifier

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
    output: Path | None = None,
    data: str | None = None,
    trust_remote_code: bool = False,
) -> Path:
    """Write a trained model as ONNX, compare it with the original and measure the speed of both.

    Args:
        source: run folder, model folder or Hub id.
        int8: write weights of 8 bits.
        output: folder; default: `<source>-onnx`, or `<source>-onnx-int8`.
        data: labelled file to compare on, with the columns of the run; default: the validation
            rows of the run.
    Returns:
        The folder.
    Raises:
        MissingPackageError: packages of the extra `onnx` are not installed.
        ExportError: another format, a model that cannot be written, or one that
            gives other answers as ONNX.
        TrainerError: no such model, wrong `data`, or a folder that holds other files.
    """
    if file_format != "onnx":
        raise ExportError(f"--format is '{file_format}'; known: onnx.")
    require("onnx", "equipoise export")
    run = _run_of(Path(source).expanduser())
    target = output or _default_output(source, run, "onnx-int8" if int8 else "onnx")
    onnx_folder.check_output(target)

    from trainer.delivery.predicting.onnx_files import is_graph
    from trainer.delivery.predicting.predict import Classifier
    from trainer.training.arguments import quiet_libraries

    quiet_libraries()
    original = Classifier.load(source, trust_remote_code=trust_remote_code, device="cpu")
    if len(original.models) > 1:
        raise ExportError(
            f"{source}: holds an ensemble of {len(original.models)} models."
            f" Export its members one by one: {Path(source) / 'member-1'} and so on."
        )
    if is_graph(original.models[0].name):
        raise ExportError(
            f"{source}: is an ONNX model already. Give the run or the model folder that it was"
            " exported from."
        )
    rows = _rows_of(data, run, original) if data else _validation_rows(run, original)
    with onnx_folder.aside(target) as work:
        findings = {"source": source} | _export(original, work, rows, int8, trust_remote_code)
        folder = work / ("int8" if int8 else "float32")
        onnx_folder.describe(original.models[0], folder, target, findings)
        onnx_folder.publish(folder, target)
    print(f"Exported: {target}")
    return target


def _export(
    original: "Classifier", work: Path, rows: "Rows | str", int8: bool, trust_remote_code: bool
) -> dict[str, Any]:
    """Write, compare and time the graphs; return the findings for export.json."""
    import torch

    from trainer.delivery.export import onnx_check, onnx_writer
    from trainer.delivery.predicting.predict import Classifier

    model = original.models[0]
    plain = onnx_writer.plain_copy(model.model)
    onnx_folder.write_companions(model, work / "float32")
    onnx_writer.write_graph(
        plain, model.tokenizer, work / "float32" / GRAPH, max_length=model.max_length
    )
    if int8:
        onnx_folder.write_companions(model, work / "int8")
        onnx_writer.quantise(work / "float32" / GRAPH, work / "int8" / GRAPH)
        RunFolder(work / "int8").write_json(FINDINGS, {"int8": True})  # `describe` adds the rest
    kinds = ["float32", *(["int8"] if int8 else [])]
    exported = {
        kind: Classifier.load(work / kind, trust_remote_code=trust_remote_code, device="cpu")
        for kind in kinds
    }
    check: dict[str, Any] = (
        {"not_checked": rows}
        if isinstance(rows, str)
        else onnx_check.compare(original, exported, rows)
    )
    if not isinstance(rows, str):
        difference = check["float32"]["max_probability_difference"]
        is_small = difference <= onnx_writer.MOST_DIFFERENCE
        own = 0.0 if is_small else onnx_check.rounding(original, rows.texts)
        onnx_writer.refuse_difference(difference, f"on {rows.name}", own)
    onnx_check.print_check(check)
    seconds = onnx_check.measure_speed(
        {"original": original, **exported}, EXAMPLES if isinstance(rows, str) else rows.texts
    )
    num_bytes: dict[str, int] = {
        "original": sum(p.numel() * p.element_size() for p in plain.parameters())
    }
    num_bytes |= {
        kind: sum(path.stat().st_size for path in (work / kind).glob(f"{GRAPH}*")) for kind in kinds
    }
    onnx_check.print_speed(seconds, num_bytes, torch.get_num_threads())
    return {
        "format": "onnx",
        "int8": int8,
        "inputs": exported["float32"].models[0].model.names,
        "max_length": model.max_length,
        "bytes": num_bytes,
        "check": check,
        "speed": {"threads": torch.get_num_threads(), "seconds_of_a_call_by_rows": seconds},
        "versions": {
            name: version(name) for name in ("torch", "transformers", "onnx", "onnxruntime")
        },
    }


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
    from trainer.delivery.export.onnx_check import Rows

    records = take_rows(table.select(["text", "text_pair"]), ids).to_pylist()
    return Rows(
        [record["text"] if record["text_pair"] is None else record for record in records],
        ids,
        targets,
        name,
    )
