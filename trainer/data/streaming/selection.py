"""Select the rows of `data.streaming` in the first reading, and list those that are dropped.

Legend: N rows of a batch, S config keys or splits (SLOTS), C labels, D domains, R reasons, M chosen
rows.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Array, Bools, Ints
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.cleaning.duplicates import settle_repeats
from trainer.data.cleaning.leakage import drop_leaks
from trainer.data.cleaning.lost_classes import refuse_lost_classes
from trainer.data.cleaning.missing_values import missing_value_reasons
from trainer.data.cleaning.reasons import KEPT, RARE, REASONS, UNWANTED, refuse_nothing_left
from trainer.data.cleaning.text_hashes import hash_texts
from trainer.data.labels.class_order import Labels, count_values, encode, order_labels
from trainer.data.labels.label_mapping import LabelNames, name_labels
from trainer.data.reading.bad_rows import BadRows, refuse_bad_rows
from trainer.data.reading.row_columns import RowColumns
from trainer.data.reading.row_places import BATCH_ROWS
from trainer.data.reading.source_tables import SLOTS, read_ahead, source_tables
from trainer.data.reading.sources import refuse_empty
from trainer.data.splitting.rare_classes import missing_classes_words
from trainer.data.streaming.chosen_rows import chosen_counts, lowest
from trainer.data.streaming.hash_records import Partitions, Records, chunks, record_type
from trainer.data.streaming.split_assignment import (
    TEST,
    TRAIN,
    VALIDATION,
    assigned_splits,
    cut_splits,
    rare_labels,
)
from trainer.errors import DataError, listing
from trainer.progress import progress_bar

MOST_LISTED = 1_000
"""Dropped and unreadable rows that are kept for dropped.jsonl; the others are counted."""


def read_batches(
    reading: int, columns: RowColumns, bad_rows: BadRows
) -> Iterator[tuple[int, int, pa.Table]]:
    """Yield each batch after the index of its config key and the position of its first row.

    The columns are still those of the files.

    Args:
        reading: 1 or 2, for the progress bar.
    """
    data, position = columns.data, 0
    with progress_bar(desc=f"Reading rows ({reading} of 2)", unit=" rows", delay=2) as bar:
        for slot, name in enumerate(SLOTS):
            shards = source_tables(name, data, columns.wanted, bad_rows)
            for number, tables in enumerate(shards, 1):
                bar.set_postfix_str(f"data.{name} shard {number}", refresh=False)
                with read_ahead(tables) as coming:
                    batches = (
                        whole.slice(start, BATCH_ROWS)
                        for whole in coming
                        for start in range(0, whole.num_rows, BATCH_ROWS)
                    )
                    for table in batches:
                        yield slot, position, table
                        position += table.num_rows
                        bar.update(table.num_rows)
                refuse_bad_rows(bad_rows, data, f"{bad_rows.total} bad in this file")


@dataclass
class Selection:
    """One selection of rows; its arrays grow with what is chosen, not with what is read.

    Attributes:
        folder: an empty folder for the records.
        bad_rows: rows of the first reading that cannot be read.
        sizes: rows read of each of SLOTS.
        spellings: rows of each spelling of a label, in the order in which they were found. Records
            of the first reading hold positions in it.
        naming: the class of each spelling. After the first reading records hold positions in its
            `classes`.
        domains: the domains of `balance.by`, in the order in which they were found.
        reasons_SR: rows of each config key by reason.
        dropped: the reasons of the first dropped rows by their position.
        counts_SC: cleaned rows of each split and class.
    """

    data: DataSection
    split: SplitSection | None
    balance: BalanceSection
    seed: int
    folder: Path
    bad_rows: BadRows = field(default_factory=lambda: BadRows(most=MOST_LISTED))
    sizes: list[int] = field(default_factory=lambda: [0] * len(SLOTS))
    spellings: dict[str, int] = field(default_factory=dict)
    naming: LabelNames = field(default_factory=lambda: LabelNames({}))
    domains: list[str] = field(default_factory=list)
    reasons_SR: Ints = field(default_factory=lambda: np.zeros((len(SLOTS), len(REASONS)), np.int64))
    dropped: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.columns = RowColumns(self.data, self.balance.by, files=self.bad_rows.files)
        has_weights, has_domains = self.data.weight_column is not None, self.balance.by is not None
        self.kind = record_type(weighted=has_weights, with_domain=has_domains)
        self.counts_SC = np.zeros((len(SLOTS), 0), np.int64)
        self.path = self.folder / "kept"

    def run(self) -> tuple[Labels, Records]:
        """Read, clean, split and choose.

        Returns:
            The labels in their order, and the records of the chosen rows, sorted by split and hash.
        """
        with closing(Partitions(self.folder / "parts", self.kind)) as partitions:
            self._scan(partitions)
            self.naming = name_labels(self.spellings, self.data.label_map, self.data.drop_labels)
            self._clean(partitions)
        self._refuse_lost()
        cut = cut_splits(self.data, self.split)
        rare_C = rare_labels(self.counts_SC, cut)
        self._count_rare(rare_C, cut)
        self._check_splits()
        names = self.naming.classes
        found = {names[c] for c in np.flatnonzero(self.counts_SC.sum(axis=0))}
        labels = order_labels(found, self.naming.order(self.columns.cells.label_order))
        wanted_SC = chosen_counts(self.counts_SC, self.data, self.balance)
        chosen_M = lowest(self._kept(rare_C, cut), self.kind, wanted_SC, self.seed)
        columns = [chosen_M[name] for name in ("position", "label", "hash", "slot")]
        return labels, chosen_M[np.lexsort(columns)]

    def _scan(self, partitions: Partitions) -> None:
        """Read all rows; every usable row becomes a record."""
        for slot, position, table in read_batches(1, self.columns, self.bad_rows):
            rows = self.columns.rows(table, f"data.{SLOTS[slot]}")
            self.sizes[slot] += rows.num_rows
            for spelling, count in count_values(rows["label"]).items():
                self.spellings[spelling] = self.spellings.get(spelling, 0) + count
            reasons_N = missing_value_reasons(rows, self.data.clean)
            positions_N = position + np.arange(len(reasons_N))
            self._drop(reasons_N, np.full(len(reasons_N), slot), positions_N)
            kept = np.flatnonzero(reasons_N == KEPT)
            partitions.add(self._records(rows.take(pa.array(kept)), slot, positions_N[kept]))
        refuse_empty(self.sizes, self.data)
        # Lists that are written as text are found, and refused, once all cells are read.
        form = self.columns.cells.form(self.data, self.bad_rows.files)
        if form.warning:
            warnings.warn(form.warning, stacklevel=2)

    def _records(self, rows: pa.Table, slot: int, positions_N: Ints) -> Records:
        records = np.zeros(rows.num_rows, self.kind)
        records["hash"], records["position"], records["slot"] = hash_texts(rows), positions_N, slot
        records["label"] = encode(rows["label"], Labels(list(self.spellings)))
        if self.data.weight_column:
            records["weight"] = rows["weight"].to_numpy()
        if self.balance.by:
            found = pc.unique(rows["domain"]).drop_null().to_pylist()
            self.domains = list(dict.fromkeys([*self.domains, *found]))
            records["domain"] = encode(rows["domain"], Labels(self.domains))
        return records

    def _clean(self, partitions: Partitions) -> None:
        """Drop duplicates, conflicts and leaked rows; write the others with their split."""
        names, rules = self.naming.classes, self.data.clean
        of_spelling = [self.naming.names.get(spelling) for spelling in self.spellings]
        classes = [-1 if name is None else names.index(name) for name in of_spelling]
        self.counts_SC = np.zeros((len(SLOTS), len(names)), np.int64)
        # The last rank is for -1, rows without a domain.
        ranks_D = np.argsort(np.argsort(np.array(self.domains, object)))
        ranks_D = np.r_[ranks_D, len(self.domains)]
        with self.path.open("wb") as file:
            for records in partitions.take():
                records["label"] = np.array(classes, np.int64)[records["label"]]
                label_ids_N, slots_N = records["label"].astype(np.int64), records["slot"]
                reasons_N = np.where(label_ids_N < 0, UNWANTED, KEPT).astype(np.int8)
                if rules.conflicts or rules.duplicates:
                    zeros_N = np.zeros(len(records))
                    weights_N = records["weight"] if self.data.weight_column else zeros_N
                    ranks_N = ranks_D[records["domain"]] if self.balance.by else zeros_N
                    settle_repeats(
                        reasons_N,
                        label_ids_N,
                        records["hash"],
                        slots_N,
                        weights_N.__getitem__,
                        rules,
                        ranks_N.__getitem__,
                    )
                if rules.leakage:
                    drop_leaks(reasons_N, records["hash"], slots_N)
                self._drop(reasons_N, slots_N, records["position"])
                kept = records[reasons_N == KEPT]
                self.reasons_SR[:, KEPT] += np.bincount(kept["slot"], minlength=len(SLOTS))
                kept["slot"] = assigned_splits(
                    kept["hash"], kept["slot"], self.data, self.split, self.seed
                )
                np.add.at(self.counts_SC, (kept["slot"], kept["label"]), 1)
                kept.tofile(file)

    def _drop(self, reasons_N: NDArray[np.int8], slots_N: Array, positions_N: Ints) -> None:
        """Count the rows that are dropped, and list the first ones; kept ones may be among them."""
        gone = np.flatnonzero(reasons_N != KEPT)
        np.add.at(self.reasons_SR, (slots_N[gone], reasons_N[gone]), 1)
        listed = gone[:MOST_LISTED]
        new = dict(zip(positions_N[listed].tolist(), reasons_N[listed].tolist(), strict=True))
        self.dropped = dict(sorted((self.dropped | new).items())[:MOST_LISTED])

    def _refuse_lost(self) -> None:
        """Raise DataError for config keys and classes of which cleaning left no row."""
        for slot in np.flatnonzero(self.sizes):
            refuse_nothing_left(f"data.{SLOTS[slot]}", self.reasons_SR[slot])
        rows_of = Counter[str]()
        for spelling, name in self.naming.names.items():
            rows_of[name or ""] += self.spellings[spelling]
        counts = zip(self.naming.classes, self.counts_SC.sum(axis=0), strict=True)
        refuse_lost_classes({name: {"dropped": rows_of[name]} for name, rows in counts if not rows})

    @property
    def rare_classes(self) -> str:
        """The rule for rare classes, `split.rare_classes`."""
        return self.split.rare_classes if self.split else "keep"

    def _count_rare(self, rare_C: Bools, cut: list[int]) -> None:
        """Count rare classes as training rows or not at all, or raise DataError."""
        if self.rare_classes == "keep":
            self.counts_SC[TRAIN, rare_C] += self.counts_SC[cut][:, rare_C].sum(axis=0)
            self.counts_SC[np.isin(np.arange(len(SLOTS)), cut)[:, None] & rare_C] = 0
        elif self.rare_classes == "drop":
            self.counts_SC[:, rare_C] = 0
        elif rare_C.any():
            names = listing(self.naming.classes[c] for c in np.flatnonzero(rare_C))
            raise DataError(
                f"data.streaming: {names}: too few rows for {1 + len(cut)} splits. Merge such "
                "labels with data.label_map, list them in data.drop_labels, or set "
                "split.rare_classes: keep."
            )

    def _kept(self, rare_C: Bools, cut: list[int]) -> Iterator[Records]:
        """Yield the cleaned records with rare classes moved to training, or dropped."""
        for records in chunks(self.path, self.kind):
            is_rare_N, is_cut_N = rare_C[records["label"]], np.isin(records["slot"], cut)
            if self.rare_classes == "drop":
                gone = records[is_rare_N]
                is_pooled = np.isin(gone["slot"], [TRAIN, *cut])
                keys = np.where(is_pooled, SLOTS.index(self.data.pool), gone["slot"])
                self._drop(np.full(len(gone), RARE, np.int8), keys, gone["position"])
                self.reasons_SR[:, KEPT] -= np.bincount(keys, minlength=len(SLOTS))
                records = records[~is_rare_N]
            else:
                records["slot"][is_rare_N & is_cut_N] = TRAIN
            yield records

    def _check_splits(self) -> None:
        """Raise DataError if validation is empty, and warn of classes that a split lacks."""
        names, present_C = self.naming.classes, self.counts_SC.sum(axis=0) > 0
        order_labels({names[c] for c in np.flatnonzero(present_C)}, None)
        if not self.counts_SC[VALIDATION].any():
            raise DataError(
                "data.streaming: rows are split by their text, and none was assigned to "
                "validation. Add rows, or set data.streaming: false."
            )
        missing: dict[str, Any] = {}
        for slot in (VALIDATION, TEST):
            lacking = np.flatnonzero(present_C & (self.counts_SC[slot] == 0))
            if self.counts_SC[slot].any() and len(lacking):
                missing[SLOTS[slot]] = [names[c] for c in lacking]
        if missing:
            warnings.warn(
                f"data.streaming: {missing_classes_words(missing)}: such a class is trained, but "
                "not measured there. Add rows, or give more of them to split.",
                stacklevel=2,
            )
