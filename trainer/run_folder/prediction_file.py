"""predictions.parquet, written and read a block of rows at a time. Legend: N rows, C classes, B rows of a block.

Up to MOST_DENSE classes each has a column `probability_<label>`. Above, a row holds its MOST_LABELS largest probabilities
in `top_labels` and `top_probabilities`, and those of its true and its predicted label in `label_probability` and
`predicted_probability`; of multi-label rows these two are lists, as `label` and `predicted` are.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.arrays import Array, Floats32, Ints
from trainer.errors import RunError
from trainer.evaluation.blocks import release, room, row_slices
from trainer.evaluation.confusion import MOST_DENSE

if TYPE_CHECKING:
    import pyarrow as pa

    from trainer.evaluation.outcome import Outcome

MOST_LABELS = 20


@dataclass(frozen=True)
class Top:
    """What is kept of the probabilities of many classes. Legend: K kept.

    Attributes:
        ids_NK, p_NK: the largest and their classes, the largest first.
        true_p_N, predicted_p_N: of the true and the predicted label; of multi-label rows arrays of those of each label that they
            have, and are given, in the order of the label ids.
    """

    ids_NK: Ints
    p_NK: Floats32
    true_p_N: Array
    predicted_p_N: Array


@dataclass(frozen=True)
class ReadRows:
    """Rows of one split as predictions.parquet holds them.

    Attributes:
        targets, predicted: label ids (N,); of multi-label rows which labels they have and are given, (N, C).
        p_NC: probabilities; None where only the largest were kept.
        top: those, where they are all that was kept.
    """

    rows_N: Ints
    targets: Array
    predicted: Array
    p_NC: Array | None
    top: Top | None = None


def whole_path(folder: Path, name: str) -> Path:
    """File of all probabilities in float32, rows as in the predictions `name`: for an ensemble's vote, or a comparison."""
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
        parts: {split: (row ids, what the model did on them)}.
        whole: file for all probabilities, where there are more classes than the predictions hold.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    is_list = next(iter(parts.values()))[1].label_ids_N.ndim > 1
    schema = _schema(labels, is_list=is_list)
    with pq.ParquetWriter(path, schema) as writer:
        for split, (row_ids, outcome) in parts.items():
            for rows, log_p_BC in outcome.log_p_NC.blocks():
                writer.write_table(
                    pa.table(
                        _columns(rows, split, row_ids, outcome, np.exp(log_p_BC), labels), schema
                    )
                )
                for read in (outcome.label_ids_N, outcome.predicted_N):
                    release(read)
    if whole and len(labels) > MOST_DENSE:
        _write_whole(whole, [outcome for _, outcome in parts.values()])


def _schema(labels: list[str], *, is_list: bool) -> "pa.Schema":
    import pyarrow as pa

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
    ]
    return pa.schema(
        [
            *fields,
            ("top_labels", pa.list_(pa.string())),
            ("top_probabilities", pa.list_(pa.float32())),
        ]
    )


def _columns(
    rows: slice, split: str, row_ids: Any, outcome: "Outcome", p_BC: Array, labels: list[str]
) -> dict[str, Any]:
    """The columns of a block."""
    names, p_BC = np.array(labels, dtype=object), p_BC.astype(np.float32)
    true, predicted = np.asarray(outcome.label_ids_N[rows]), np.asarray(outcome.predicted_N[rows])
    columns = {"row": np.asarray(row_ids)[rows], "split": np.full(len(p_BC), split, dtype=object)}
    columns |= {"label": _values(true, names), "predicted": _values(predicted, names)}
    if len(labels) <= MOST_DENSE:
        return columns | {f"probability_{label}": p_BC[:, c] for c, label in enumerate(labels)}
    columns |= {
        "label_probability": _of_each(p_BC, true),
        "predicted_probability": _of_each(p_BC, predicted),
    }
    ids_BK = np.argpartition(-p_BC, MOST_LABELS - 1, axis=1)[:, :MOST_LABELS]
    ids_BK = np.take_along_axis(
        ids_BK, np.lexsort((ids_BK, -np.take_along_axis(p_BC, ids_BK, 1))), 1
    )
    return columns | {
        "top_labels": list(names[ids_BK]),
        "top_probabilities": list(np.take_along_axis(p_BC, ids_BK, 1)),
    }


def _values(targets: Array, names: Array) -> Any:
    """The label of each row, or the list of its labels."""
    return (
        names[targets] if targets.ndim == 1 else [names[held_C].tolist() for held_C in targets > 0]
    )


def _of_each(p_BC: Array, targets: Array) -> Any:
    """Probability of the label of each row, or the list of those of its labels."""
    if targets.ndim == 1:
        return p_BC[np.arange(len(p_BC)), targets]
    return [p_C[held_C] for p_C, held_C in zip(p_BC, targets > 0, strict=True)]


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
    """Rows of one split of a file that `write` made, with all probabilities where they were kept.

    Raises:
        RunError: labels that metrics.json lacks.
    """
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        is_own_M = pc.equal(file.read(["split"])["split"], split).to_numpy(zero_copy_only=False)
        is_list, is_top = (
            pa.types.is_list(file.schema_arrow.field("label").type),
            "top_labels" in file.schema_arrow.names,
        )
        shape = (int(is_own_M.sum()), len(labels))
        targets, predicted = (
            room(shape, np.bool_, path.parent) if is_list else np.empty(shape[0], np.int64)
            for _ in range(2)
        )
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
                p_NC[rows] = np.stack(
                    [own[f"probability_{label}"].to_numpy() for label in labels], axis=1
                )
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


def _top(batch: "pa.RecordBatch", labels: list[str]) -> tuple[Array, ...]:
    """The columns of `Top` of a block."""
    ids = _ids(batch["top_labels"].flatten(), labels).reshape(-1, MOST_LABELS)
    p_BK = batch["top_probabilities"].flatten().to_numpy().reshape(-1, MOST_LABELS)
    return (
        ids,
        p_BK,
        *(_kept(batch[name]) for name in ("label_probability", "predicted_probability")),
    )


def _kept(column: "pa.Array") -> Array:
    """A value of each row, or an array of values."""
    import pyarrow as pa

    if not pa.types.is_list(column.type):
        return column.to_numpy()
    found = np.empty(len(column), object)
    found[:] = (
        np.split(column.flatten().to_numpy(), np.cumsum(column.value_lengths().to_numpy())[:-1])
        if len(column)
        else []
    )
    return found


def _whole_rows(p_MC: Array, places_N: Ints) -> Array:
    """Some rows; where they stand together, as those of a split do, without a copy."""
    if len(places_N) and places_N[-1] - places_N[0] + 1 == len(places_N):
        return p_MC[places_N[0] : places_N[-1] + 1]
    return p_MC[places_N]


def _targets(names: "pa.Array", labels: list[str]) -> Array:
    """The label id of each row, or which labels it has; the reverse of `_values`."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_list(names.type):
        return _ids(names, labels)
    held_BC = np.zeros((len(names), len(labels)), np.bool_)
    held_BC[pc.list_parent_indices(names).to_numpy(), _ids(pc.list_flatten(names), labels)] = True
    return held_BC


def _ids(names: "pa.Array", labels: list[str]) -> Ints:
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pc.index_in(
        names.cast(pa.string()), value_set=pa.array(labels, pa.string())
    )  # of rows without any label the type is null
    if ids.null_count:
        raise RunError(
            "predictions.parquet holds labels that metrics.json lacks; the two are of different runs. Train anew."
        )
    return ids.to_numpy().astype(np.int64)
