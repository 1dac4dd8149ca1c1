"""Rows that fit neither memory nor the local disk: `data.streaming`. All files are read twice, and only the chosen rows are kept.

The first reading cleans, gives each row its side by the hash of its text and keeps 21 bytes of it on disk, which settle duplicates,
conflicts and leakage by the rules of trainer/data/cleaning/clean.py and count the classes. Rows are then chosen by the smallest keys, which
depend on seed and text alone. The second reading fetches the chosen rows. How many rows a class gives is known only when all
are counted, so one reading would have to keep every text that might still be chosen: that is, all of them.

Legend: N rows of a batch, S config keys or sides (SLOTS), C labels, R reasons, M chosen rows.
"""

import hashlib
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from tqdm.auto import tqdm

from trainer.arrays import Array, Ints
from trainer.data.cleaning.clean import CleanRows, Streamed
from trainer.data.cleaning.duplicates import settle_repeats
from trainer.data.cleaning.leakage import drop_leaks
from trainer.data.cleaning.lost_classes import refuse_lost_classes, refuse_unseen_labels
from trainer.data.cleaning.missing_values import missing_value_reasons
from trainer.data.cleaning.reasons import KEPT, RARE, REASONS, UNWANTED, refuse_nothing_left
from trainer.data.cleaning.text_hashes import hash_texts
from trainer.data.labels.class_order import Labels, count_values, encode, order_labels
from trainer.data.labels.label_mapping import LabelNames, name_labels
from trainer.data.reading import sources
from trainer.data.reading.bad_rows import BATCH_ROWS, BadRows, refuse_bad_rows
from trainer.data.reading.places import PLACE, Places
from trainer.data.reading.row_access import write_in_order
from trainer.data.reading.row_columns import new_notes, normalise
from trainer.data.reading.sources import HASH, SLOTS, stored_schema
from trainer.data.splitting.rare_classes import missing_classes_words
from trainer.data.splitting.split import Splits
from trainer.data.streaming.chosen_rows import chosen_counts, lowest
from trainer.data.streaming.hash_records import Partitions, Records, record_type
from trainer.data.streaming.stream_sides import (
    TEST,
    TRAIN,
    VALIDATION,
    cut_sides,
    move_to_train,
    rare_labels,
    sides,
    take_out,
)
from trainer.errors import DataError, listing
from trainer.files.locks import partial_path, write_once

if TYPE_CHECKING:
    from trainer.config.sections.balancing import BalanceSection
    from trainer.config.sections.data import DataSection, SplitSection


MOST_LISTED = 1_000
"""Dropped and unreadable rows that are kept for dropped.jsonl, the first of each; the others are counted."""


def stream_splits(
    data: "DataSection",
    split: "SplitSection | None",
    balance: "BalanceSection",
    *,
    seed: int,
    cache_dir: Path,
) -> tuple[CleanRows, Splits]:
    """The chosen rows and their sides, the same whatever the order of the files; written once as Arrow and memory-mapped.

    Raises:
        DataError: anything wrong with the rows, or files that changed between the two readings.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    target = cache_dir / f"stream-{_key(data, split, balance, seed)}.arrow"
    notes_path = target.with_suffix(".json")  # it is written last: where it is, the table is whole

    def write() -> None:
        folder = partial_path(target)
        folder.mkdir()
        try:
            notes = _Selection(data, split, balance, seed, folder).run()
            notes |= {
                "bytes": (folder / "rows.arrow").stat().st_size,
                "made_from": sources.made_from(data),
            }
            (folder / "notes.json").write_text(json.dumps(notes), encoding="utf-8")
            (folder / "rows.arrow").replace(target)
            (folder / "notes.json").replace(notes_path)
        finally:
            shutil.rmtree(folder)

    rows, notes = write_once(notes_path, write, lambda: sources.load_rows(target))
    labels = Labels(notes["names"])
    streamed = Streamed(notes["counts"], notes["natural"], notes["dropped"])
    naming = LabelNames(notes["spellings"], merged=notes["merged"])
    label_ids_N = encode(rows.table["label"], labels, naming.names)
    clean = CleanRows(
        rows, labels, np.zeros(len(label_ids_N), np.int8), label_ids_N, naming, streamed=streamed
    )
    if data.source is None:
        refuse_unseen_labels(clean)
    return clean, Splits(clean.kept("train"), clean.kept("validation"), clean.kept("test"))


def _key(
    data: "DataSection", split: "SplitSection | None", balance: "BalanceSection", seed: int
) -> str:
    values = [data.model_dump(), split.model_dump() if split else None, balance.model_dump(), seed]
    return hashlib.blake2b(
        f"{sources.source_key(data, balance.by)} {json.dumps(values)}".encode(), digest_size=16
    ).hexdigest()


class _FirstRows(BadRows):
    """The first MOST_LISTED of what is appended, and how many there were."""

    total = 0

    def append(self, record: dict[str, Any]) -> None:
        self.total += 1
        if self.total <= MOST_LISTED:
            super().append(record)


@dataclass
class _Selection:
    """One selection; its arrays grow with what is chosen, not with what is read."""

    data: "DataSection"
    split: "SplitSection | None"
    balance: "BalanceSection"
    seed: int
    folder: Path
    bad_rows: _FirstRows = field(default_factory=_FirstRows)
    again: _FirstRows = field(default_factory=_FirstRows)
    """What the second reading finds."""
    state: dict[str, Any] = field(init=False)
    spellings: dict[str, int] = field(default_factory=dict)
    """Rows of each spelling of a label, in the order in which they were met; records of the first reading hold places in it."""
    naming: LabelNames = field(default_factory=lambda: LabelNames({}))
    """Known after the first reading; labels of the records are then places in `naming.classes`."""
    domains: list[str] = field(default_factory=list)
    """The same of the domains of `balance.by`."""
    sizes: list[int] = field(default_factory=lambda: [0] * len(SLOTS))
    reasons_SR: Ints = field(default_factory=lambda: np.zeros((len(SLOTS), len(REASONS)), np.int64))
    dropped: dict[int, int] = field(default_factory=dict)
    """Reason of the first dropped rows by their place."""

    def __post_init__(self) -> None:
        self.state = new_notes(self.bad_rows.files)

    def run(self) -> dict[str, Any]:
        """Write rows.arrow into the folder; the notes about it."""
        kind = record_type(
            weighted=self.data.weight_column is not None, with_domain=self.balance.by is not None
        )
        partitions = Partitions(self.folder / "parts", kind)
        try:
            self._scan(partitions, kind)
            self.naming = name_labels(self.spellings, self.data.label_map, self.data.drop_labels)
            counts_SC = self._settle(partitions, kind)
        finally:
            partitions.close()
        self._refuse_lost(counts_SC)
        self._settle_rare(counts_SC, kind)
        self._refuse(counts_SC)
        present_C = np.flatnonzero(counts_SC.sum(axis=0))
        names = self.naming.classes
        labels = order_labels(
            {names[c] for c in present_C}, self.naming.order(self.state["cells"].label_order)
        )
        wanted_SC = chosen_counts(counts_SC, self.data, self.balance)
        chosen_M = lowest(self.folder / "kept", kind, wanted_SC, self.seed)
        chosen_M = chosen_M[
            np.lexsort(
                (chosen_M["position"], chosen_M["label"], chosen_M["hash"], chosen_M["slot"])
            )
        ]
        listed = self._fetch(chosen_M)
        order_C = [names.index(name) for name in labels.names]
        return {
            "names": labels.names,
            "spellings": self.naming.names,
            "merged": self.naming.merged,
            "labels": self.state["cells"].label_order,
            "sizes": np.bincount(chosen_M["slot"], minlength=len(SLOTS)).tolist(),
            "stripped": 0,
            "bad_rows": [],
            "files": self.again.files,
            "remarks": self.bad_rows.remarks,
            "multiline": self.bad_rows.num_multiline,
            "multi_label": False,
            "counts": dict(zip(REASONS, self.reasons_SR.sum(axis=0).tolist(), strict=True))
            | {
                "unreadable": self.bad_rows.total,
                "stripped of white space (kept)": self.state["stripped"],
            },
            "natural": {
                SLOTS[side]: counts_SC[side, order_C].tolist() for side in (TRAIN, VALIDATION, TEST)
            },
            "dropped": [*listed, *({"row": None, **bad} for bad in self.bad_rows)],
        }

    def _tables(self, reading: str, bad_rows: _FirstRows) -> Iterator[tuple[int, int, pa.Table]]:
        """(config key, place of the first row, rows as they are in the files), in batches."""
        position = 0
        with tqdm(
            desc=f"Reading rows ({reading} of 2)", unit=" rows", delay=2, disable=None, leave=False
        ) as bar:
            for slot, name in enumerate(SLOTS):
                for number, tables in enumerate(
                    sources.shards(name, self.data, self.balance.by, bad_rows), 1
                ):
                    bar.set_postfix_str(f"data.{name} shard {number}", refresh=False)
                    for whole in sources.read_ahead(tables):
                        for start in range(0, whole.num_rows, BATCH_ROWS):
                            table = whole.slice(start, BATCH_ROWS)
                            yield slot, position, table
                            position += table.num_rows
                            bar.update(table.num_rows)
                    refuse_bad_rows(bad_rows, self.data, f"{bad_rows.total} bad in this file")

    def _scan(self, partitions: Partitions, kind: np.dtype[Any]) -> None:
        """The first reading: every usable row becomes a record."""
        for slot, position, table in self._tables("1", self.bad_rows):
            rows = normalise(table, self.data, self.balance.by, self.state, f"data.{SLOTS[slot]}")
            self.sizes[slot] += rows.num_rows
            reasons_N = missing_value_reasons(rows, self.data.clean)
            for spelling, count in count_values(rows["label"]).items():
                self.spellings[spelling] = self.spellings.get(spelling, 0) + count
            self._drop(
                reasons_N, np.full(len(reasons_N), slot), position + np.arange(len(reasons_N))
            )
            kept = np.flatnonzero(reasons_N == KEPT)
            records = np.zeros(len(kept), kind)
            rows = rows.take(pa.array(kept))
            records["hash"], records["position"], records["slot"] = (
                hash_texts(rows),
                position + kept,
                slot,
            )
            records["label"] = encode(rows["label"], Labels(list(self.spellings)))
            if self.data.weight_column:
                records["weight"] = rows["weight"].to_numpy()
            if self.balance.by:
                known = set(self.domains)
                self.domains += [
                    name
                    for name in pc.unique(rows["domain"]).to_pylist()
                    if name is not None and name not in known
                ]
                records["domain"] = encode(rows["domain"], Labels(self.domains))
            partitions.add(records)
        sources.refuse_empty(self.sizes, self.data)
        form = self.state["cells"].form(
            self.data, self.bad_rows.files
        )  # refuses lists written as text
        if form.warning:
            warnings.warn(form.warning, stacklevel=2)

    def _drop(self, reasons_N: NDArray[np.int8], slots_N: Array, positions_N: Ints) -> None:
        """Count the rows that are dropped, and keep the places of the first ones."""
        gone = np.flatnonzero(reasons_N != KEPT)
        np.add.at(self.reasons_SR, (slots_N[gone], reasons_N[gone]), 1)
        places = dict(
            zip(
                positions_N[gone[:MOST_LISTED]].tolist(),
                reasons_N[gone[:MOST_LISTED]].tolist(),
                strict=True,
            )
        )
        self.dropped = dict(sorted((self.dropped | places).items())[:MOST_LISTED])

    def _settle(self, partitions: Partitions, kind: np.dtype[Any]) -> Ints:
        """Duplicates, conflicts and leakage; what is kept goes to one file, with its side in place of its config key. Cleaned rows (S, C)."""
        names = self.naming.classes
        classes_of = np.array(
            [
                -1 if name is None else names.index(name)
                for name in map(self.naming.names.get, self.spellings)
            ],
            np.int64,
        )
        counts_SC = np.zeros((len(SLOTS), len(names)), np.int64)
        rules = self.data.clean
        ranks_D = np.r_[
            np.argsort(np.argsort(np.array(self.domains, object))), len(self.domains)
        ]  # -1, no domain, finds the last one
        with (self.folder / "kept").open("wb") as file:
            for records in partitions.take():
                records["label"] = classes_of[records["label"]]
                reasons_N = np.where(records["label"] < 0, UNWANTED, KEPT).astype(np.int8)
                if rules.conflicts or rules.duplicates:
                    weights_N = (
                        records["weight"]
                        if "weight" in (kind.names or ())
                        else np.zeros(len(records))
                    )
                    columns = (records["label"].astype(np.int64), records["hash"], records["slot"])
                    domains_N = (
                        ranks_D[records["domain"]]
                        if self.balance.by
                        else np.zeros(len(records), np.int64)
                    )
                    settle_repeats(
                        reasons_N, *columns, weights_N.__getitem__, rules, domains_N.__getitem__
                    )
                if rules.leakage:
                    drop_leaks(reasons_N, records["hash"], records["slot"])
                self._drop(reasons_N, records["slot"], records["position"])
                kept = records[reasons_N == KEPT]
                self.reasons_SR[:, KEPT] += np.bincount(kept["slot"], minlength=len(SLOTS))
                kept["slot"] = sides(kept["hash"], kept["slot"], self.data, self.split, self.seed)
                np.add.at(counts_SC, (kept["slot"], kept["label"]), 1)
                kept.tofile(file)
        return counts_SC

    def _refuse_lost(self, counts_SC: Ints) -> None:
        """Raises DataError for config keys and classes of which cleaning left no row."""
        for slot in np.flatnonzero(self.sizes):
            refuse_nothing_left(f"data.{SLOTS[slot]}", self.reasons_SR[slot])
        rows_of = Counter[str]()
        for spelling, name in self.naming.names.items():
            rows_of[name or ""] += self.spellings[spelling]
        lost = [
            name
            for name, count in zip(self.naming.classes, counts_SC.sum(axis=0), strict=True)
            if not count
        ]
        refuse_lost_classes({name: {"dropped": rows_of[name]} for name in lost})

    def _settle_rare(self, counts_SC: Ints, kind: np.dtype[Any]) -> None:
        """Classes too rare for every side train, are dropped or refused (`split.rare_classes`)."""
        cut, policy = (
            cut_sides(self.data, self.split),
            self.split.rare_classes if self.split else "keep",
        )
        rare_C = rare_labels(counts_SC, cut)
        if not rare_C.any():
            return
        if policy == "keep":
            move_to_train(self.folder / "kept", kind, counts_SC, rare_C, cut)
        elif policy == "drop":
            gone = take_out(self.folder / "kept", kind, counts_SC, rare_C)
            keys = np.where(
                np.isin(gone["slot"], [TRAIN, *cut]), SLOTS.index(self.data.pool), gone["slot"]
            )
            self._drop(np.full(len(gone), RARE, np.int8), keys, gone["position"])
            self.reasons_SR[:, KEPT] -= np.bincount(keys, minlength=len(SLOTS))
        else:
            words = f"data.streaming: {listing(self.naming.classes[c] for c in np.flatnonzero(rare_C))}: too few rows to stand in {1 + len(cut)} splits"
            raise DataError(
                f"{words}. Merge such labels with data.label_map, list them in data.drop_labels, or set split.rare_classes: keep."
            )

    def _refuse(self, counts_SC: Ints) -> None:
        """Raises DataError for one class alone, and for sides that lack all rows; warns of what evaluation lacks."""
        present = counts_SC.sum(axis=0) > 0
        names = self.naming.classes
        order_labels({name for name, found in zip(names, present, strict=True) if found}, None)
        if not counts_SC[VALIDATION].any():
            raise DataError(
                "data.streaming: rows are split by their text, and none fell to validation. Add rows, or set data.streaming: false."
            )
        missing = {
            SLOTS[side]: [names[c] for c in np.flatnonzero(present & (counts_SC[side] == 0))]
            for side in (VALIDATION, TEST)
            if counts_SC[side].any()
        }
        missing = {side: lacking for side, lacking in missing.items() if lacking}
        if missing:
            words = f"data.streaming: {missing_classes_words(missing)}: such a class is trained, but not measured there"
            warnings.warn(f"{words}. Add rows, or give more of them to split.", stacklevel=2)

    def _fetch(self, chosen_M: Records) -> list[dict[str, Any]]:
        """The second reading: the chosen rows go to rows.arrow in an order of their own; the listed dropped rows are returned."""
        wanted = np.union1d(
            chosen_M["position"], np.fromiter(self.dropped, np.int64, len(self.dropped))
        )
        by_place = np.argsort(chosen_M["position"])
        places_M = chosen_M["position"][by_place]
        listed: list[dict[str, Any]] = []
        hashes_M, labels_M, done = chosen_M["hash"][by_place], chosen_M["label"][by_place], 0
        fetched = self.folder / "fetched.arrow"
        with (
            pa.OSFile(str(fetched), "wb") as sink,
            pa.ipc.new_stream(sink, stored_schema()) as writer,
        ):
            for slot, position, table in self._tables("2", self.again):
                first, last = np.searchsorted(wanted, (position, position + table.num_rows))
                if first == last:
                    continue
                ids = wanted[first:last]
                table = table.take(pa.array(ids - position))
                rows = normalise(
                    table,
                    self.data,
                    self.balance.by,
                    new_notes(self.again.files),
                    f"data.{SLOTS[slot]}",
                )
                is_chosen = np.isin(ids, places_M)
                listed += self._listed(
                    ids[~is_chosen],
                    rows.filter(pa.array(~is_chosen)),
                    table[PLACE.name].filter(pa.array(~is_chosen)),
                    slot,
                )
                rows = sources.stored(
                    rows.filter(pa.array(is_chosen)), table[PLACE.name].filter(pa.array(is_chosen))
                )
                hashes_N, place = rows[HASH.name].to_numpy(), slice(done, done + rows.num_rows)
                same_labels = np.array_equal(
                    encode(rows["label"], Labels(self.naming.classes), self.naming.names),
                    labels_M[place],
                )
                if not (same_labels and np.array_equal(hashes_N, hashes_M[place])):
                    break
                done += len(hashes_N)
                writer.write_table(rows)
        if done < len(chosen_M):
            raise DataError(
                "data.streaming: the files changed between the two readings. Start again when they stand still; for a Hub data set set data.revision."
            )
        write_in_order(fetched, self.folder / "rows.arrow", np.argsort(by_place), BATCH_ROWS)
        return listed

    def _listed(
        self, ids: Ints, rows: pa.Table, codes: pa.ChunkedArray, slot: int
    ) -> Iterator[dict[str, Any]]:
        """Dropped rows of a batch, for dropped.jsonl."""
        places = Places(codes.to_numpy(), self.again.files)
        for number, (row, record) in enumerate(zip(ids.tolist(), rows.to_pylist(), strict=True)):
            file, place = places.origin(number)
            found = {key: value for key, value in record.items() if value not in (None, "")}
            yield {
                "row": row,
                "from": SLOTS[slot],
                "file": file,
                places.unit(number): place,
                "reason": REASONS[self.dropped[row]],
                **found,
            }
