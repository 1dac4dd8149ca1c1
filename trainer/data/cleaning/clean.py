"""Empty rows, duplicates, conflicting labels, leakage between given splits; nothing is dropped without being counted.

Every rule works on the 64-bit hash of each text, so that texts stay in the memory-mapped table.
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
    rarest_label_ids,
)
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.source_tables import SLOTS
from trainer.data.reading.sources import Rows

if TYPE_CHECKING:
    from trainer.config.sections.data import CleanSection

DROPPED_ROWS = 10_000
"""Dropped rows that are held at once while they are written down."""


@dataclass(frozen=True)
class Streamed:
    """What `data.streaming` read.

    Attributes:
        counts: rows by reason, as `CleanRows.counts`; 'kept' are those that cleaning left, chosen or not.
        natural: {split: cleaned rows of each class before rows were chosen}, in the order of the label ids.
        dropped: the first dropped and unreadable rows with their reasons.
    """

    counts: dict[str, int]
    natural: dict[str, list[int]]
    dropped: list[dict[str, Any]]

    def sentence(self, chosen: dict[str, int]) -> str:
        """Rows read, cleaned and chosen, in words."""
        total = sum(
            count for reason, count in self.counts.items() if not reason.startswith("stripped")
        )
        parts = [
            f"{count:,} of {sum(self.natural[name]):,} of {name}" for name, count in chosen.items()
        ]
        return f"Streamed: {total:,} rows read, {self.counts['kept']:,} left by cleaning; chosen: {'; '.join(parts)}."


@dataclass(frozen=True)
class CleanRows:
    """What cleaning left, and why the rest went. Arrays run over all rows of `rows`.

    Attributes:
        reasons_N: index into REASONS of each row, 0 for kept.
        label_ids_N: label id, -1 where there is none. Of a multi-label row the id of its rarest label, for what needs one class a row
            (data.limit), and len(labels) where it has no label, which makes a class of its own.
        num_synthetic: rows at the end that a language model wrote (`augment`).
        label_matrix_NC: which labels each row has; None unless the source is multi-label.
        naming: the class of each spelling of a label.
        lost: {class of which cleaning left no row: {reason: rows}}; it has no label id.
    """

    rows: Rows
    labels: Labels
    reasons_N: NDArray[np.int8]
    label_ids_N: Ints
    naming: LabelNames
    lost: dict[str, dict[str, int]] = field(default_factory=dict)
    num_synthetic: int = 0
    streamed: "Streamed | None" = None
    """What `data.streaming` read of which these rows were chosen; all rows are then kept ones."""
    label_matrix_NC: Bools | None = None

    @property
    def text_hashes_N(self) -> Hashes:
        """Hash of each row's text, equal for equal texts."""
        return self.rows.text_hashes_N

    @property
    def targets(self) -> Array:
        """What a model learns: label ids (N,), or which labels each row has (N, C)."""
        return self.label_ids_N if self.label_matrix_NC is None else self.label_matrix_NC

    def kept(self, slot: str) -> Ints:
        """Ids of the rows kept of one config key (source, train, validation, test)."""
        return np.flatnonzero((self.reasons_N == KEPT) & (self.rows.slots_N == SLOTS.index(slot)))

    @property
    def counts(self) -> dict[str, int]:
        """Real rows by reason, 'kept' first; 'unreadable' and 'stripped' beside them."""
        if self.streamed:
            return self.streamed.counts
        real_N = self.reasons_N[: len(self.reasons_N) - self.num_synthetic]
        by_reason = {reason: int((real_N == code).sum()) for code, reason in enumerate(REASONS)}
        return by_reason | {
            "unreadable": len(self.rows.bad_rows),
            "stripped of white space (kept)": self.rows.num_stripped,
        }

    @property
    def sentences(self) -> list[str]:
        """How files and labels were understood, where that was no matter of course."""
        multiline = self.rows.num_multiline
        told = [f"CSV rows that span several lines: {multiline:,}."] if multiline else []
        return [*self.rows.remarks, *told, *self.naming.sentences()]

    @property
    def fingerprint(self) -> str:
        """Digest of the kept texts, labels, groups and where they came from."""
        kept = self.reasons_N == KEPT
        digest = hashlib.blake2b(digest_size=16)
        for column in (self.text_hashes_N[kept], self.targets[kept], self.rows.slots_N[kept]):
            digest.update(np.ascontiguousarray(column).tobytes())
        digest.update("\n".join(self.labels.names).encode())
        groups = self.rows.table["group"].filter(pa.array(kept)).combine_chunks()
        if groups.null_count < len(groups):
            digest.update(
                np.ascontiguousarray(
                    pc.fill_null(groups.dictionary_encode().indices, -1).to_numpy()
                ).tobytes()
            )
        return digest.hexdigest()

    @property
    def text_fingerprint(self) -> str:
        """Digest of all texts in their order."""
        return hashlib.blake2b(self.text_hashes_N.tobytes(), digest_size=16).hexdigest()

    def dropped(self) -> Iterator[dict[str, Any]]:
        """Each dropped or unreadable row with its reason, for dropped.jsonl; of streamed rows the first ones, then the number of the others."""
        if self.streamed:
            yield from self.streamed.dropped
            total = sum(
                count
                for reason, count in self.counts.items()
                if reason != "kept" and not reason.startswith("stripped")
            )
            if total > len(self.streamed.dropped):
                yield {
                    "row": None,
                    "reason": f"and {total - len(self.streamed.dropped):,} more, which data.streaming counts and does not list",
                }
            return
        ids = np.flatnonzero(self.reasons_N != KEPT)
        for start in range(0, len(ids), DROPPED_ROWS):
            part = ids[start : start + DROPPED_ROWS]
            for row, record in zip(
                part.tolist(), take_rows(self.rows.table, part).to_pylist(), strict=True
            ):
                found = {key: value for key, value in record.items() if value not in (None, "")}
                known = {
                    "row": row,
                    "from": SLOTS[self.rows.slots_N[row]],
                    **self.rows.places.keyed(row),
                }
                yield known | {"reason": REASONS[self.reasons_N[row]]} | found
            self.rows.release()
        for bad in self.rows.bad_rows:
            yield {"row": None, **bad}


def clean_rows(
    rows: Rows,
    rules: "CleanSection",
    drop_labels: Sequence[str] = (),
    label_map: Mapping[str, str | None] | None = None,
    labels_per_row: str = "wide",
) -> CleanRows:
    """Rows judged by the rules that are switched on.

    Args:
        labels_per_row: long: the rows of one text are joined to one row with all their labels.
    Raises:
        DataError: every row was dropped, fewer than two classes are left, or `drop_labels` or `label_map` name a label that no row has.
    """
    reasons_N = missing_value_reasons(rows.table, rules, rows.release)
    if labels_per_row == "long":
        rows, is_joined_N = join_rows(rows, reasons_N == KEPT)
        reasons_N[is_joined_N] = JOINED
    column = rows.table["label"]
    naming = label_naming(rows, label_map or {}, drop_labels)
    every = Labels(naming.classes)
    targets: Array = (
        label_matrix(column, every, naming.names)
        if rows.multi_label
        else encode(column, every, naming.names)
    )
    reasons_N[(reasons_N == KEPT) & is_unwanted(rows, naming)] = UNWANTED
    _refuse_nothing_left(reasons_N, rows)
    if rules.conflicts or rules.duplicates:
        label_ids_N = label_set_ids(targets) if rows.multi_label else targets
        settle_repeats(
            reasons_N,
            label_ids_N,
            rows.text_hashes_N,
            rows.slots_N,
            lambda ids: rows.table["weight"].take(pa.array(ids)).to_numpy(),
            rules,
            lambda ids: ranks_of_copies(rows, ids),
        )
    if not rows.multi_label and np.isin(reasons_N, CONFLICTS).any():
        warn_of_long_rows(
            targets,
            rows.text_hashes_N,
            rows.slots_N,
            np.isin(reasons_N, (KEPT, DUPLICATE, *CONFLICTS)),
        )
    if rules.leakage:
        drop_leaks(reasons_N, rows.text_hashes_N, rows.slots_N)
    _refuse_nothing_left(reasons_N, rows)
    labels, targets, lost = _kept_labels(every, targets, reasons_N, naming.order(rows.label_order))
    rows.release()
    if rows.multi_label:
        return CleanRows(
            rows,
            labels,
            reasons_N,
            rarest_label_ids(targets, reasons_N == KEPT),
            naming,
            lost,
            label_matrix_NC=targets,
        )
    warn_of_separators(labels.names)
    return CleanRows(rows, labels, reasons_N, targets, naming, lost)


def label_naming(
    rows: Rows, label_map: Mapping[str, str | None], drop_labels: Sequence[str]
) -> LabelNames:
    """The class of each spelling of a label in the rows."""
    column = rows.table["label"]
    if rows.multi_label:
        return name_labels(count_spellings(column), label_map, drop_labels)
    return name_labels(count_values(column), label_map, drop_labels)


def is_unwanted(rows: Rows, naming: LabelNames) -> Bools:
    """Rows that `drop_labels` leaves out, and of rows with one label those whose label `label_map` maps to null."""
    column = rows.table["label"]
    if not rows.multi_label:
        unwanted = [spelling for spelling, name in naming.names.items() if name is None]
        return pc.is_in(column, value_set=pa.array(unwanted, pa.string())).to_numpy()
    if not naming.dropped:
        return np.zeros(len(column), bool)
    return np.logical_or.reduce(label_matrix(column, Labels(sorted(naming.dropped))), axis=1)


def _kept_labels(
    every: Labels, targets: Array, reasons_N: NDArray[np.int8], order: list[str] | None
) -> tuple[Labels, Array, dict[str, dict[str, int]]]:
    """The classes that kept rows have, in their order; all rows by them; the classes that lost every row, with rows by reason.

    Args:
        targets: ids among `every` (N,), or which of them each row has (N, C).
    """
    counts_C = every.counts(
        targets[reasons_N == KEPT]
        if targets.ndim == 2
        else targets[(reasons_N == KEPT) & (targets >= 0)]
    )
    dropped = dict(
        zip(REASONS[1:], np.bincount(reasons_N, minlength=len(REASONS))[1:].tolist(), strict=True)
    )
    labels = order_labels(
        {name for name, count in zip(every.names, counts_C, strict=True) if count}, order, dropped
    )
    lost = {}
    for c in np.flatnonzero(counts_C == 0):
        held = reasons_N[targets == c if targets.ndim == 1 else targets[:, c]]
        lost[every.names[c]] = {
            REASONS[code]: int((held == code).sum()) for code in np.unique(held)
        }
    place_of = {name: place for place, name in enumerate(every.names)}
    places = [place_of[name] for name in labels.names]
    if targets.ndim == 2:
        return labels, targets[:, places], lost
    new_ids_C = np.full(len(every) + 1, -1, np.int64)  # the last one for rows without a label
    new_ids_C[places] = np.arange(len(places))
    return labels, new_ids_C[targets], lost


def _refuse_nothing_left(reasons_N: NDArray[np.int8], rows: Rows) -> None:
    for code in np.unique(rows.slots_N):
        refuse_nothing_left(
            rows.key(SLOTS[code]),
            np.bincount(reasons_N[rows.slots_N == code], minlength=len(REASONS)),
        )
