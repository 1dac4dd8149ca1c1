"""Labelled rows for the evaluation of a saved model: `evaluate` and `export --data`."""

import json
import shlex
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trainer.arrays import Array, Ints
from trainer.data.cleaning.clean import is_unwanted, label_naming
from trainer.data.cleaning.missing_values import missing_value_reasons
from trainer.data.cleaning.reasons import JOINED, KEPT, REASONS, UNWANTED
from trainer.data.labels.class_order import Labels, count_values, encode
from trainer.data.labels.label_mapping import LabelNames
from trainer.data.labels.label_normalisation import known_as, label_key
from trainer.data.labels.long_format import join_rows
from trainer.data.labels.multi_label import count_spellings, label_matrix
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.sources import Rows, read_rows
from trainer.errors import DataError, did_you_mean, listing

if TYPE_CHECKING:
    from trainer.config.sections.data import DataSection
    from trainer.delivery.predicting.predict import Classifier

MOST_IN_COMMAND = 12
"""Most unknown labels that a suggested command lists."""


@dataclass(frozen=True)
class LabelledRows:
    """Rows on which a model can be evaluated.

    Attributes:
        rows: all rows that were read.
        ids_N: the ids of rows with a text and a label.
        targets: their label ids among the model's labels (N,), or which labels they have (N, C).
        naming: the class of each spelling of a label.
        left_out: {reason: number of the other rows}.
    """

    rows: Rows
    ids_N: Ints
    targets: Array
    naming: LabelNames
    left_out: dict[str, int]


def read_labelled(
    classifier: "Classifier", data: "DataSection", cache_dir: Path, *, has_set: bool = True
) -> LabelledRows:
    """Read the rows of `data.source`; ignore labels of `label_map` and `drop_labels` without rows.

    Args:
        has_set: whether the command has the option --set, for messages.
    Raises:
        DataError: rows that cannot be read, labels that the model does not know, or no row.
    """
    rows = read_rows(data, cache_dir)
    reasons_N = missing_value_reasons(rows.table, data.clean)
    if data.labels_per_row == "long":
        rows, is_joined_N = join_rows(rows, reasons_N == KEPT)
        reasons_N[is_joined_N] = JOINED
    where = f"data.source {data.source}"
    if rows.multi_label != classifier.is_multi_label:
        kinds = {True: "any number of labels", False: "one label"}
        raise DataError(
            f"{where}: holds {kinds[rows.multi_label]} a row, but {classifier.name} gives"
            f" {kinds[classifier.is_multi_label]}. Several labels are lists in data.label_column,"
            " or 0/1 columns in data.label_columns."
        )
    spelt = label_naming(rows, {}, []).classes
    # a file may lack some of the run's labels
    label_map = {label: name for label, name in data.label_map.items() if known_as(label, spelt)}
    present = [*spelt, *filter(None, label_map.values())]
    naming = label_naming(
        rows, label_map, [label for label in data.drop_labels if known_as(label, present)]
    )
    reasons_N[(reasons_N == KEPT) & is_unwanted(rows, naming)] = UNWANTED
    ids_N = np.flatnonzero(reasons_N == KEPT)
    if not len(ids_N):
        raise DataError(
            f"{where}: no row has both a text and a label."
            " Check data.text_column and data.label_column."
        )
    targets = _targets(
        take_rows(rows.table.select(["label"]), ids_N)["label"], naming, classifier, where, has_set
    )
    left_out = {
        REASONS[code]: int((reasons_N == code).sum())
        for code in np.unique(reasons_N)
        if code != KEPT
    }
    return LabelledRows(rows, ids_N, targets, naming, left_out)


def _targets(
    column: pa.ChunkedArray, naming: LabelNames, classifier: "Classifier", where: str, has_set: bool
) -> Array:
    """Return the label id of each row, or which labels each row has.

    Raises:
        DataError: labels that the model does not know, with their numbers of rows.
    """
    labels = Labels(classifier.labels)
    counts: Counter[str] = Counter()
    for spelling, rows in (
        count_spellings(column) if classifier.is_multi_label else count_values(column)
    ).items():
        if (name := naming.names[spelling]) is not None:
            counts[name] += rows
    by_key = {label_key(label): label for label in reversed(classifier.labels)}
    unknown = {name: rows for name, rows in counts.items() if label_key(name) not in by_key}
    if unknown:
        found = listing(
            f"{label} ({count:,} row{'' if count == 1 else 's'})"
            for label, count in unknown.items()
        )
        hint = next(
            filter(None, (did_you_mean(label, classifier.labels) for label in sorted(unknown))), ""
        )
        drop = f"data.drop_labels={json.dumps(sorted(unknown), ensure_ascii=False)}"
        remedy = "Correct these labels, or remove their rows."
        if has_set:
            is_short = len(unknown) <= MOST_IN_COMMAND
            command = f": --set {shlex.quote(drop)}" if is_short else " with data.drop_labels"
            remedy = f"Rename the labels with data.label_map, or skip their rows{command}."
        raise DataError(
            f"{where}: labels that {classifier.name} does not know: {found};"
            f" known: {listing(classifier.labels)}.{hint} {remedy}"
        )
    names = {
        spelling: name and by_key.get(label_key(name)) for spelling, name in naming.names.items()
    }
    return (
        label_matrix(column, labels, names)
        if classifier.is_multi_label
        else encode(column, labels, names)
    )
