"""Write and read predictions.parquet in blocks of rows. N rows, C classes, B rows of a block.

Up to MOST_DENSE classes, each class has a column `probability_<label>`. With more classes, a row
holds its MOST_LABELS largest probabilities in `top_labels` and `top_probabilities`, and the
probabilities of its true and its predicted label in `label_probability` and
`predicted_probability`. In multi-label data the last two are lists, as `label` and `predicted` are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trainer.arrays import Array, Floats32, Ints
from trainer.errors import RunError
from trainer.evaluation.blocks import release, room, row_slices
from trainer.evaluation.confusion import MOST_DENSE

if TYPE_CHECKING:
    from trainer.evaluation.outcome import Outcome

MOST_LABELS = 20


@dataclass(frozen=True)
class Top:
    """The probabilities that are kept if there are many classes. K: classes kept per row.

    Attributes:
        ids_NK, p_NK: the largest probabilities and their classes, the largest first.
        true_p_N, predicted_p_N: probabilities of the true and of the predicted label. In
            multi-label data, each row has an array of the probabilities of its labels, by id.
    """

    ids_NK: Ints
    p_NK: Floats32
    true_p_N: Array
    predicted_p_N: Array


@dataclass(frozen=True)
class ReadRows:
    """The rows of one split in predictions.parquet.

    Attributes:
        targets, predicted: label ids (N,); in multi-label data, flags of each label (N, C).
        p_NC: probabilities; None if only the largest were kept.
        top: the largest probabilities, if only these were kept.
    """

    rows_N: Ints
    targets: Array
    predicted: Array
    p_NC: Array | None
    top: Top | None = None


def whole_path(folder: Path, name: str) -> Path:
    """Return the path of the file with all probabilities of the rows of `name`, in float32.

    Ensembles need it to vote, and comparisons to compare.
    """
    return (folder / name).with_suffix(".npy")


def write(
    path: Path,
    parts: "dict[str, tuple[Any, Outcome]]",
    labels: list[str],
    *,
    whole: Path | None = None,
) -> None:
    """Write the predictions of some splits.

    Args:
        parts: {split: (row ids, results on these rows)}.
        whole: file for all probabilities, written if `path` holds only the largest.
    """
    is_list = next(iter(parts.values()))[1].label_ids_N.ndim > 1
    schema = _schema(labels, is_list=is_list)
    with pq.ParquetWriter(path, schema) as writer:
        for split, (row_ids, outcome) in parts.items():
            for rows, log_p_BC in outcome.log_p_NC.blocks():
                columns = {"row": np.asarray(row_ids)[rows], "split": [split] * len(log_p_BC)}
                columns |= _columns(rows, outcome, np.exp(log_p_BC), labels)
                writer.write_table(pa.table(columns, schema))
                release(outcome.label_ids_N)
                release(outcome.predicted_N)
    if whole and len(labels) > MOST_DENSE:
        _write_whole(whole, [outcome for _, outcome in parts.values()])


def _schema(labels: list[str], *, is_list: bool) -> pa.Schema:
    def several(kind: Any) -> Any:
        return pa.list_(kind) if is_list else kind

    fields = [
        ("row", pa.int64()),
        ("split", pa.string()),
        ("label", several(pa.string())),
        ("predicted", several(pa.string())),
    ]
    if len(labels) <= MOST_DENSE:
        return pa.schema([*fields, *((f"probability_{label}", pa.float32()) for label in labels)])
    fields += [
        ("label_probability", several(pa.float32())),
        ("predicted_probability", several(pa.float32())),
        ("top_labels", pa.list_(pa.string())),
        ("top_probabilities", pa.list_(pa.float32())),
    ]
    return pa.schema(fields)


def _columns(rows: slice, outcome: "Outcome", p_BC: Array, labels: list[str]) -> dict[str, Any]:
    """Return the columns of a block that hold labels and probabilities."""
    names, p_BC = np.array(labels, dtype=object), p_BC.astype(np.float32)
    true, predicted = np.asarray(outcome.label_ids_N[rows]), np.asarray(outcome.predicted_N[rows])
    columns = {"label": _names(true, names), "predicted": _names(predicted, names)}
    if len(labels) <= MOST_DENSE:
        return columns | {f"probability_{label}": p_BC[:, c] for c, label in enumerate(labels)}
    ids_BK = np.argpartition(-p_BC, MOST_LABELS - 1, axis=1)[:, :MOST_LABELS]
    order_BK = np.lexsort((ids_BK, -np.take_along_axis(p_BC, ids_BK, 1)))
    ids_BK = np.take_along_axis(ids_BK, order_BK, 1)
    return columns | {
        "label_probability": _p_of(p_BC, true),
        "predicted_probability": _p_of(p_BC, predicted),
        "top_labels": list(names[ids_BK]),
        "top_probabilities": list(np.take_along_axis(p_BC, ids_BK, 1)),
    }


def _names(targets: Array, names: Array) -> Any:
    """Return the label of each row, or the list of its labels."""
    if targets.ndim == 1:
        return names[targets]
    return [names[has_C].tolist() for has_C in targets > 0]


def _p_of(p_BC: Array, targets: Array) -> Any:
    """Return the probability of the label of each row, or the probabilities of its labels."""
    if targets.ndim == 1:
        return p_BC[np.arange(len(p_BC)), targets]
    return [p_C[has_C] for p_C, has_C in zip(p_BC, targets > 0, strict=True)]


def _write_whole(path: Path, outcomes: "list[Outcome]") -> None:
    shape = (sum(len(outcome.log_p_NC) for outcome in outcomes), outcomes[0].log_p_NC.shape[1])
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f4", "fortran_order": False, "shape": shape}
        )
        for outcome in outcomes:
            for _, log_p_BC in outcome.log_p_NC.blocks():
                file.write(np.exp(log_p_BC).astype("<f4").tobytes())


def read(path: Path, split: str, labels: list[str]) -> ReadRows:
    """Read the rows of one split, with all probabilities if they were kept.

    Raises:
        RunError: the file holds labels that are not in `labels`.
    """
    with pq.ParquetFile(path) as file:
        is_own_M = pc.equal(file.read(["split"])["split"], split).to_numpy(zero_copy_only=False)
        is_list = pa.types.is_list(file.schema_arrow.field("label").type)
        shape = (int(is_own_M.sum()), len(labels))
        targets, predicted = (
            room(shape, np.bool_, path.parent) if is_list else np.empty(shape[0], np.int64)
            for _ in range(2)
        )
        is_top = "top_labels" in file.schema_arrow.names
        p_NC = None if is_top else room(shape, np.float32, path.parent)
        rows_N, tops, start = np.empty(shape[0], np.int64), [], 0
        for batch in file.iter_batches(next(row_slices((1 << 62, len(labels)))).stop):
            own = batch.filter(pc.equal(batch["split"], split))
            rows = slice(start, start + own.num_rows)
            rows_N[rows] = own["row"].to_numpy()
            targets[rows], predicted[rows] = (
                _targets(own[name], labels) for name in ("label", "predicted")
            )
            if p_NC is not None:
                columns = [own[f"probability_{label}"].to_numpy() for label in labels]
                p_NC[rows] = np.stack(columns, axis=1)
            else:
                tops.append(_top(own, labels))
            start = rows.stop
            for kept in (targets, predicted, p_NC):
                release(kept)
    whole = whole_path(path.parent, path.name)
    if p_NC is None and whole.is_file():
        p_NC = _whole_rows(np.load(whole, mmap_mode="r"), np.flatnonzero(is_own_M))
    top = Top(*(np.concatenate(column) for column in zip(*tops, strict=True))) if tops else None
    return ReadRows(rows_N, targets, predicted, p_NC, top)


def read_predictions(
    path: Path, split: str, labels: list[str], name: str = "predictions.parquet"
) -> tuple[Any, Any, Any, Any]:
    """Return row ids, label ids, predicted label ids and all probabilities (N, C) of one split.

    In multi-label data, flags of each label (N, C) take the place of label ids.

    Raises:
        RunError: the file of all probabilities, which many classes need, is missing.
    """
    found = read(path / name, split, labels)
    if found.p_NC is None:
        raise RunError(
            f"{whole_path(path, name)}: is missing; {name} holds only the largest probabilities."
            " Train that run again: --resume never."
        )
    return found.rows_N, found.targets, found.predicted, found.p_NC


def _top(batch: pa.RecordBatch, labels: list[str]) -> tuple[Array, ...]:
    """Return the fields of `Top` of a block."""
    return (
        _ids(batch["top_labels"].flatten(), labels).reshape(-1, MOST_LABELS),
        batch["top_probabilities"].flatten().to_numpy().reshape(-1, MOST_LABELS),
        *(_kept(batch[name]) for name in ("label_probability", "predicted_probability")),
    )


def _kept(column: pa.Array) -> Array:
    """Return one value per row, or one array of values per row."""
    if not pa.types.is_list(column.type):
        return column.to_numpy()
    found = np.empty(len(column), object)
    if len(column):
        ends = np.cumsum(column.value_lengths().to_numpy())[:-1]
        found[:] = np.split(column.flatten().to_numpy(), ends)
    return found


def _whole_rows(p_MC: Array, places_N: Ints) -> Array:
    """Return some rows, without a copy if they are adjacent, as those of a split are."""
    if len(places_N) and places_N[-1] - places_N[0] + 1 == len(places_N):
        return p_MC[places_N[0] : places_N[-1] + 1]
    return p_MC[places_N]


def _targets(names: pa.Array, labels: list[str]) -> Array:
    """Return the label id of each row, or flags of its labels; the reverse of `_names`."""
    if not pa.types.is_list(names.type):
        return _ids(names, labels)
    has_BC = np.zeros((len(names), len(labels)), np.bool_)
    has_BC[pc.list_parent_indices(names).to_numpy(), _ids(pc.list_flatten(names), labels)] = True
    return has_BC


def _ids(names: pa.Array, labels: list[str]) -> Ints:
    strings = names.cast(pa.string())  # if no row has a label, the type of `names` is null
    ids = pc.index_in(strings, value_set=pa.array(labels, pa.string()))
    if ids.null_count:
        raise RunError(
            "predictions.parquet holds labels that metrics.json lacks; the two files are of"
            " different runs. Train again."
        )
    return ids.to_numpy().astype(np.int64)
