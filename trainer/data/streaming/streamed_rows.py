"""Rows that fit neither memory nor the local disk: `data.streaming`.

All files are read twice, and only the chosen rows are kept.

1. The first reading (selection.py) cleans the rows and stores 21 bytes of each on disk. They are
   enough to find duplicates, conflicts and leakage by the rules of trainer/data/cleaning/, to
   assign each row to a split by the hash of its text, and to count the classes.
2. Rows are chosen by the smallest keys, which depend on the seed and the text alone
   (chosen_rows.py).
3. The second reading (here) fetches the chosen rows. The number of rows per class is known only
   when all are counted, so one reading would have to keep every text.

Legend: M chosen rows.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trainer.arrays import Ints
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.cleaning.clean import CleanRows, Streamed
from trainer.data.cleaning.lost_classes import refuse_unseen_labels
from trainer.data.cleaning.reasons import REASONS
from trainer.data.labels.class_order import Labels, encode
from trainer.data.labels.label_mapping import LabelNames
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.row_access import write_in_order
from trainer.data.reading.row_columns import RowColumns
from trainer.data.reading.row_places import BATCH_ROWS, PLACE, Places
from trainer.data.reading.source_tables import SLOTS, source_key
from trainer.data.reading.sources import HASH, cached_rows, stored, stored_schema
from trainer.data.splitting.split import Splits
from trainer.data.streaming.hash_records import Records
from trainer.data.streaming.selection import Selection, read_batches
from trainer.data.streaming.split_assignment import TEST, TRAIN, VALIDATION
from trainer.errors import DataError


def stream_splits(
    data: DataSection,
    split: SplitSection | None,
    balance: BalanceSection,
    *,
    seed: int,
    cache_dir: Path,
) -> tuple[CleanRows, Splits]:
    """Return the chosen rows and their splits, which do not depend on the order of the files.

    The rows are written once as Arrow and memory-mapped.

    Raises:
        DataError: the rows cannot be used, or the files changed between the two readings.
    """
    values = [data.model_dump(), split.model_dump() if split else None, balance.model_dump(), seed]
    key = f"{source_key(data, balance.by)} {json.dumps(values)}"
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()

    def write(path: Path) -> dict[str, Any]:
        return _write_chosen(Selection(data, split, balance, seed, path.parent), path)

    rows, notes = cached_rows(cache_dir / f"stream-{digest}.arrow", data, write)
    labels = Labels(notes["names"])
    naming = LabelNames(notes["spellings"], merged=notes["merged"])
    label_ids_N = encode(rows.table["label"], labels, naming.names)
    streamed = Streamed(notes["counts"], notes["natural"], notes["dropped"])
    reasons_N = np.zeros(len(label_ids_N), np.int8)
    clean = CleanRows(rows, labels, reasons_N, label_ids_N, naming, streamed=streamed)
    if data.source is None:
        refuse_unseen_labels(clean)
    return clean, Splits(clean.kept("train"), clean.kept("validation"), clean.kept("test"))


def _write_chosen(selection: Selection, path: Path) -> dict[str, Any]:
    """Write the chosen rows to an Arrow file, and return the notes about them."""
    labels, chosen_M = selection.run()
    files, listed = _fetch(selection, chosen_M, path)
    bad_rows, order_C = (
        selection.bad_rows,
        [selection.naming.classes.index(name) for name in labels.names],
    )
    counts = dict(zip(REASONS, selection.reasons_SR.sum(axis=0).tolist(), strict=True))
    counts |= {
        "unreadable": bad_rows.total,
        "stripped of white space first, kept or not": selection.columns.num_stripped,
    }
    return {
        "names": labels.names,
        "spellings": selection.naming.names,
        "merged": selection.naming.merged,
        "labels": selection.columns.cells.label_order,
        "sizes": np.bincount(chosen_M["slot"], minlength=len(SLOTS)).tolist(),
        "stripped": 0,
        "bad_rows": [],
        "files": files,
        "remarks": bad_rows.remarks,
        "multiline": bad_rows.num_multiline,
        "multi_label": False,
        "counts": counts,
        "natural": {
            SLOTS[slot]: selection.counts_SC[slot, order_C].tolist()
            for slot in (TRAIN, VALIDATION, TEST)
        },
        "dropped": [*listed, *({"row": None, **bad} for bad in bad_rows)],
    }


def _fetch(
    selection: Selection, chosen_M: Records, path: Path
) -> tuple[list[list[str]], list[dict[str, Any]]]:
    """Read all files again, and write the chosen rows in their order.

    Returns:
        The files, and the dropped rows for dropped.jsonl.
    """
    bad_rows, reasons = BadRows(most=1), selection.dropped
    columns = RowColumns(selection.data, selection.balance.by, files=bad_rows.files)
    wanted = np.union1d(chosen_M["position"], np.fromiter(reasons, np.int64, len(reasons)))
    by_place = np.argsort(chosen_M["position"])
    expected_M, done = chosen_M[by_place], 0
    listed: list[dict[str, Any]] = []
    fetched, labels = path.with_suffix(".fetched"), Labels(selection.naming.classes)
    with (
        pa.OSFile(str(fetched), "wb") as sink,
        pa.ipc.new_stream(sink, stored_schema(columns)) as writer,
    ):
        for slot, position, table in read_batches(2, columns, bad_rows):
            first, last = np.searchsorted(wanted, (position, position + table.num_rows))
            if first == last:
                continue
            ids = wanted[first:last]
            table = table.take(pa.array(ids - position))
            rows = stored(columns.rows(table, f"data.{SLOTS[slot]}"), table[PLACE.name])
            is_chosen = np.isin(ids, expected_M["position"])
            others = rows.filter(pa.array(~is_chosen))
            listed += _listed(ids[~is_chosen], others, SLOTS[slot], reasons, bad_rows.files)
            rows = rows.filter(pa.array(is_chosen))
            same = expected_M[done : done + rows.num_rows]
            label_ids = encode(rows["label"], labels, selection.naming.names)
            if not np.array_equal(label_ids, same["label"]) or not np.array_equal(
                rows[HASH.name].to_numpy(), same["hash"]
            ):
                break
            done += rows.num_rows
            writer.write_table(rows)
    if done < len(chosen_M):
        raise DataError(
            "data.streaming: the files changed between the two readings. Start again when nothing "
            "writes to them; for a Hub data set set data.revision."
        )
    write_in_order(fetched, path, np.argsort(by_place), BATCH_ROWS)
    return bad_rows.files, listed


def _listed(
    ids: Ints, rows: pa.Table, key: str, reasons: dict[int, int], files: list[list[str]]
) -> Iterator[dict[str, Any]]:
    """Yield the dropped rows of a batch as they are written to dropped.jsonl."""
    places = Places(rows[PLACE.name].to_numpy(), files)
    records = rows.drop_columns([HASH.name, PLACE.name]).to_pylist()
    for number, (row, record) in enumerate(zip(ids.tolist(), records, strict=True)):
        found = {name: value for name, value in record.items() if value not in (None, "")}
        where = {"row": row, "from": key, **places.keyed(number)}
        yield where | {"reason": REASONS[reasons[row]]} | found
