"""Clean the rows: missing values, duplicates, conflicting labels, leakage between given splits.

No row is dropped without being counted.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Array, Bools, Hashes, Ints
from trainer.data.cleaning.duplicates import ranks_of_copies, settle_repeats
from trainer.data.cleaning.leakage import drop_leaks
from trainer.data.cleaning.missing_values import missing_value_reasons
from trainer.data.cleaning.reasons import (
    CONFLICTS,
    DUPLICATE,
    JOINED,
    KEPT,
    REASONS,
    UNWANTED,
    refuse_nothing_left,
)
from trainer.data.labels.class_order import Labels, count_values, encode, order_labels
from trainer.data.labels.label_mapping import LabelNames, name_labels
from trainer.data.labels.long_format import join_rows, warn_of_long_rows, warn_of_separators
from trainer.data.labels.multi_label import (
    count_spellings,
    label_matrix,
    label_set_ids,
    label_set_words,
    rarest_label_ids,
)
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.source_tables import SLOTS
from trainer.data.reading.sources import Rows

if TYPE_CHECKING:
    from trainer.config.sections.data import CleanSection

DROPPED_ROWS = 10_000
"""Dropped rows that are in memory at once while they are written."""


@dataclass(frozen=True)
class Streamed:
    """The result of reading with `data.streaming`.

    Attributes:
        counts: rows by reason, as in `CleanRows.counts`; 'kept' are all rows that cleaning left.
        natural: {split: cleaned rows of each class before rows were chosen}, by label id.
        dropped: the first dropped and unreadable rows with their reasons.
    """

    counts: dict[str, int]
    natural: dict[str, list[int]]
    dropped: list[dict[str, Any]]

    def sentence(self, chosen: dict[str, int]) -> str:
        """Return the number of rows that were read, cleaned and chosen, in words."""
        total = sum(count for reason, count in self.counts.items() if _is_of_rows(reason))
        parts = [
            f"{count:,} of {sum(self.natural[name]):,} of {name}" for name, count in chosen.items()
        ]
        return (
            f"Streamed: {total:,} rows read, {self.counts['kept']:,} left by cleaning; chosen:"
            f" {'; '.join(parts)}."
        )


@dataclass(frozen=True)
class CleanRows:
    """The rows that cleaning kept, and why it dropped the others. Arrays have all rows of `rows`.

    Attributes:
        reasons_N: index into REASONS of each row, 0 for kept.
        label_ids_N: label id, -1 where there is none. For a multi-label row it is the id of its
            rarest label, for uses that need one class a row (data.limit), or len(labels) if it has
            no label.
        naming: the class of each spelling of a label.
        lost: {class of which no row is kept: {reason: rows}}; such a class has no label id.
        num_synthetic: rows at the end that a language model wrote (`augment`).
        streamed: what `data.streaming` read; `rows` are then the rows that were chosen.
        label_matrix_NC: which labels each row has; None unless the data are multi-label.
    """

    rows: Rows
    labels: Labels
    reasons_N: NDArray[np.int8]
    label_ids_N: Ints
    naming: LabelNames
    lost: dict[str, dict[str, int]] = field(default_factory=dict)
    num_synthetic: int = 0
    streamed: Streamed | None = None
    label_matrix_NC: Bools | None = None

    @property
    def text_hashes_N(self) -> Hashes:
        """The hash of each row's text, equal for equal texts."""
        return self.rows.text_hashes_N

    @property
    def targets(self) -> Array:
        """The targets of training: label ids (N,), or which labels each row has (N, C)."""
        return self.label_ids_N if self.label_matrix_NC is None else self.label_matrix_NC

    def label_words(self, row: int) -> str:
        """Return the label of a row, or its labels."""
        if self.label_matrix_NC is None:
            return self.labels.names[self.label_ids_N[row]]
        return label_set_words(
            [self.labels.names[c] for c in np.flatnonzero(self.label_matrix_NC[row])]
        )

    def kept(self, slot: str) -> Ints:
        """Return the ids of the kept rows of a config key (source, train, validation, test)."""
        return np.flatnonzero((self.reasons_N == KEPT) & (self.rows.slots_N == SLOTS.index(slot)))

    @property
    def counts(self) -> dict[str, int]:
        """Real rows by reason, 'kept' first, and the numbers of unreadable and stripped rows."""
        if self.streamed:
            return self.streamed.counts
        real_N = self.reasons_N[: len(self.reasons_N) - self.num_synthetic]
        by_reason = {reason: int((real_N == code).sum()) for code, reason in enumerate(REASONS)}
        return by_reason | {
            "unreadable": len(self.rows.bad_rows),
            "stripped of white space first, kept or not": self.rows.num_stripped,
        }

    @property
    def dropped_counts(self) -> dict[str, int]:
        """Dropped and unreadable rows by reason."""
        counts = self.counts.items()
        return {key: rows for key, rows in counts if key != "kept" and _is_of_rows(key)}

    @property
    def sentences(self) -> list[str]:
        """How files and labels were understood, where that is not obvious."""
        multiline = self.rows.num_multiline
        found = [f"CSV rows that span several lines: {multiline:,}."] if multiline else []
        return [*self.rows.remarks, *found, *self.naming.sentences()]

    @property
    def fingerprint(self) -> str:
        """Digest of the kept texts, their labels, groups and config keys."""
        kept = self.reasons_N == KEPT
        digest = hashlib.blake2b(digest_size=16)
        for column in (self.text_hashes_N[kept], self.targets[kept], self.rows.slots_N[kept]):
            digest.update(np.ascontiguousarray(column).tobytes())
        digest.update("\n".join(self.labels.names).encode())
        groups = self.rows.table["group"].filter(pa.array(kept)).combine_chunks()
        if groups.null_count < len(groups):
            codes = pc.fill_null(groups.dictionary_encode().indices, -1).to_numpy()
            digest.update(np.ascontiguousarray(codes).tobytes())
        return digest.hexdigest()

    @property
    def text_fingerprint(self) -> str:
        """Digest of all texts in their order."""
        return hashlib.blake2b(self.text_hashes_N.tobytes(), digest_size=16).hexdigest()

    def dropped(self) -> Iterator[dict[str, Any]]:
        """Yield each dropped or unreadable row with its reason, for dropped.jsonl.

        With `data.streaming` it yields the first rows, then the number of the others.
        """
        if self.streamed:
            yield from self.streamed.dropped
            rest = sum(self.dropped_counts.values()) - len(self.streamed.dropped)
            if rest > 0:
                words = f"and {rest:,} more, which data.streaming counts and does not list"
                yield {"row": None, "reason": words}
            return
        ids = np.flatnonzero(self.reasons_N != KEPT)
        for start in range(0, len(ids), DROPPED_ROWS):
            part = ids[start : start + DROPPED_ROWS]
            records = take_rows(self.rows.table, part).to_pylist()
            for row, record in zip(part.tolist(), records, strict=True):
                yield {
                    "row": row,
                    "from": SLOTS[self.rows.slots_N[row]],
                    **self.rows.places.keyed(row),
                    "reason": REASONS[self.reasons_N[row]],
                    **{key: value for key, value in record.items() if value not in (None, "")},
                }
            self.rows.release()
        for bad in self.rows.bad_rows:
            yield {"row": None, **bad}


def _is_of_rows(reason: str) -> bool:
    return not reason.startswith("stripped")


def clean_rows(
    rows: Rows,
    rules: "CleanSection",
    drop_labels: Sequence[str] = (),
    label_map: Mapping[str, str | None] | None = None,
    labels_per_row: str = "wide",
) -> CleanRows:
    """Return the rows with the reasons of those that the rules drop.

    Args:
        labels_per_row: long: the rows of one text are joined to one row with all their labels.
    Raises:
        DataError: no row or fewer than two classes are left, or `drop_labels` or `label_map` name a
            label that no row has.
    """
    reasons_N = missing_value_reasons(rows.table, rules, rows.release)
    if labels_per_row == "long":
        rows, is_joined_N = join_rows(rows, reasons_N == KEPT)
        reasons_N[is_joined_N] = JOINED
    naming = label_naming(rows, label_map or {}, drop_labels)
    every = Labels(naming.classes)
    targets_of = label_matrix if rows.multi_label else encode
    targets: Array = targets_of(rows.table["label"], every, naming.names)
    reasons_N[(reasons_N == KEPT) & is_unwanted(rows, naming)] = UNWANTED
    _refuse_nothing_left(reasons_N, rows)
    _settle_repeats(rows, targets, reasons_N, rules)
    if rules.leakage:
        drop_leaks(reasons_N, rows.text_hashes_N, rows.slots_N)
    _refuse_nothing_left(reasons_N, rows)
    labels, targets, lost = _kept_labels(every, targets, reasons_N, naming.order(rows.label_order))
    rows.release()
    if not rows.multi_label:
        warn_of_separators(labels.names)
        return CleanRows(rows, labels, reasons_N, targets, naming, lost)
    rarest_N = rarest_label_ids(targets, reasons_N == KEPT)
    return CleanRows(rows, labels, reasons_N, rarest_N, naming, lost, label_matrix_NC=targets)


def label_naming(
    rows: Rows, label_map: Mapping[str, str | None], drop_labels: Sequence[str]
) -> LabelNames:
    """Return the class of each spelling of a label in the rows."""
    count = count_spellings if rows.multi_label else count_values
    return name_labels(count(rows.table["label"]), label_map, drop_labels)


def is_unwanted(rows: Rows, naming: LabelNames) -> Bools:
    """Return which rows `data.drop_labels` drops, or `data.label_map` if they have one label."""
    column = rows.table["label"]
    if not rows.multi_label:
        unwanted = [spelling for spelling, name in naming.names.items() if name is None]
        return pc.is_in(column, value_set=pa.array(unwanted, pa.string())).to_numpy()
    if not naming.dropped:
        return np.zeros(len(column), bool)
    return np.asarray(label_matrix(column, Labels(sorted(naming.dropped))).any(axis=1))


def _settle_repeats(
    rows: Rows, targets: Array, reasons_N: NDArray[np.int8], rules: "CleanSection"
) -> None:
    """Drop conflicting and duplicate rows, in place; warn if one text often has several labels."""
    hashes_N, slots_N = rows.text_hashes_N, rows.slots_N
    if rules.conflicts or rules.duplicates:
        settle_repeats(
            reasons_N,
            label_set_ids(targets) if rows.multi_label else targets,
            hashes_N,
            slots_N,
            lambda ids: rows.table["weight"].take(pa.array(ids)).to_numpy(),
            rules,
            lambda ids: ranks_of_copies(rows, ids),
        )
    if not rows.multi_label and np.isin(reasons_N, CONFLICTS).any():
        is_valid_N = np.isin(reasons_N, (KEPT, DUPLICATE, *CONFLICTS))
        warn_of_long_rows(targets, hashes_N, slots_N, is_valid_N)


def _kept_labels(
    every: Labels, targets: Array, reasons_N: NDArray[np.int8], order: list[str] | None
) -> tuple[Labels, Array, dict[str, dict[str, int]]]:
    """Return the classes that kept rows have, the targets by them, and the classes without rows.

    Args:
        targets: ids among `every` (N,), or which of them each row has (N, C).
    """
    counts_C = every.counts(targets[reasons_N == KEPT])
    dropped = np.bincount(reasons_N, minlength=len(REASONS)).tolist()
    found = {name for name, count in zip(every.names, counts_C, strict=True) if count}
    labels = order_labels(found, order, dict(zip(REASONS[1:], dropped[1:], strict=True)))
    lost = {}
    for c in np.flatnonzero(counts_C == 0):
        codes, rows = np.unique(
            reasons_N[targets == c if targets.ndim == 1 else targets[:, c]], return_counts=True
        )
        lost[every.names[c]] = {
            REASONS[code]: int(count) for code, count in zip(codes, rows, strict=True)
        }
    place_of = {name: place for place, name in enumerate(every.names)}
    places = [place_of[name] for name in labels.names]
    if targets.ndim == 2:
        return labels, targets[:, places], lost
    new_ids_C = np.full(len(every) + 1, -1, np.int64)  # the last one is for rows without a label
    new_ids_C[places] = np.arange(len(places))
    return labels, new_ids_C[targets], lost


def _refuse_nothing_left(reasons_N: NDArray[np.int8], rows: Rows) -> None:
    for code in np.unique(rows.slots_N):
        counts_R = np.bincount(reasons_N[rows.slots_N == code], minlength=len(REASONS))
        refuse_nothing_left(rows.key(SLOTS[code]), counts_R)
