"""`data.streaming`: cleaning as without it, any order of the files, no incomplete results."""

import csv
import gzip
import io
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from hub_server import HubServer

from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.cleaning.clean import clean_rows
from trainer.data.prepare import balance_splits, read_splits
from trainer.data.reading.sources import read_rows
from trainer.data.streaming import chosen_rows, hash_records, selection
from trainer.errors import DataError

pytestmark = pytest.mark.slow

SHARES = {"approve": 700, "review": 250, "fraud": 50}


def rows_of(number, seed=0):
    """Return rows with labels in these shares; some repeat or contradict a text, or are empty."""
    draw = random.Random(seed)
    rows = [
        {"text": f"text number {i} about {draw.randrange(50)}", "label": label}
        for label, n in SHARES.items()
        for i in range(0, n * number // 1000)
    ]
    rows = [{**row, "text": f"{row['label'][:2]} {row['text']}"} for row in rows]
    same = [dict(row) for row in draw.sample(rows, number // 20)]
    other = [{**row, "label": draw.choice(list(SHARES))} for row in draw.sample(rows, number // 10)]
    rows += (
        same
        + other
        + [
            {"text": "", "label": "fraud"},
            {"text": " NaN ", "label": "review"},
            {"text": "no label", "label": None},
        ]
    )
    draw.shuffle(rows)
    return rows


def write(path, rows):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return
    text = io.StringIO()
    if ".csv" in path.name:
        writer = csv.DictWriter(text, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    else:
        text.writelines(json.dumps(row) + "\n" for row in rows)
    content = text.getvalue().encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def write_shards(folder, rows, number, ending=".parquet"):
    folder.mkdir(exist_ok=True)
    for place in range(number):
        write(folder / f"{place:03d}{ending}", rows[place::number])
    return str(folder / "*")


@pytest.fixture
def stream(tmp_path):
    """Function (source or None, **sections) -> (CleanRows, Splits) with an own cache each time."""
    caches = itertools.count()

    def run(source=None, *, balance=None, split=None, seed=1, cache=None, **data):
        section = DataSection(streaming=True, **({"source": source} if source else {}), **data)
        cut = SplitSection(**split) if split else None
        return read_splits(
            section,
            cut,
            BalanceSection(**(balance or {})),
            seed=seed,
            cache_dir=cache or tmp_path / f"cache{next(caches)}",
        )

    return run


@pytest.fixture
def refused(stream):
    """Function like stream -> text of the DataError."""

    def message(*args, **kwargs):
        with pytest.raises(DataError) as raised:
            stream(*args, **kwargs)
        return str(raised.value)

    return message


def content(result):
    """{split: [(text, label)] in the order of the rows}."""
    clean, splits = result
    table = clean.rows.table
    pairs = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    return {name: [pairs[i] for i in ids] for name, ids in splits.named.items()}


UNDERSAMPLE = {"method": "undersample"}


def test_same_rows_are_chosen_whatever_the_order_of_rows_and_shards_and_their_format(
    stream, tmp_path
):
    rows = rows_of(3_000)
    first = stream(write_shards(tmp_path / "a", rows, 3), balance=UNDERSAMPLE)
    shuffled = random.Random(5).sample(rows, len(rows))
    for name, number, ending in (
        ("b", 7, ".parquet"),
        ("c", 2, ".jsonl"),
        ("d", 4, ".jsonl.gz"),
        ("e", 1, ".csv"),
        ("f", 2, ".csv.gz"),
    ):
        again = stream(write_shards(tmp_path / name, shuffled, number, ending), balance=UNDERSAMPLE)
        assert content(again) == content(first)
        assert again[0].fingerprint == first[0].fingerprint
        assert again[0].streamed.counts == first[0].streamed.counts


def test_small_batches_and_chunks_choose_the_same_rows(stream, tmp_path, monkeypatch):
    source = write_shards(tmp_path / "a", rows_of(3_000), 3)
    first = stream(source, balance=UNDERSAMPLE)
    monkeypatch.setattr(hash_records, "CHUNK_RECORDS", 10)
    monkeypatch.setattr(selection, "BATCH_ROWS", 170)
    assert content(stream(source, balance=UNDERSAMPLE)) == content(first)


def test_undersampling_keeps_exactly_the_rows_of_the_smallest_class_of_each(stream, tmp_path):
    clean, splits = stream(write_shards(tmp_path / "a", rows_of(3_000), 3), balance=UNDERSAMPLE)
    natural = dict(zip(clean.labels.names, clean.streamed.natural["train"], strict=True))
    kept = Counter(label for _, label in content((clean, splits))["train"])
    assert kept == dict.fromkeys(SHARES, min(natural.values()))
    data = balance_splits(
        clean, splits, BalanceSection(method="undersample"), LossSection(), seed=1
    )
    assert len(data.plan.positions()) == len(splits.train)
    assert data.summary.imbalance_ratio == pytest.approx(
        max(natural.values()) / min(natural.values())
    )
    assert next(iter(data.summary.columns)) == "train before rows were chosen"
    assert data.streamed_sentence.startswith("Streamed: 3,453 rows read, ")
    two = stream(str(tmp_path / "a/*"), balance={"method": "undersample", "target_ratio": 2})
    kept = Counter(label for _, label in content(two)["train"])
    assert kept == {
        label: min(count, 2 * min(natural.values())) for label, count in natural.items()
    }


@pytest.mark.parametrize(
    "rules",
    [
        {},
        {"conflicts": False},
        {"duplicates": False},
        {"conflicts": False, "duplicates": False},
        {"strip": False, "empty": False},
    ],
)
@pytest.mark.parametrize("weighted", [False, True])
def test_cleaning_keeps_and_drops_the_rows_of_the_ordinary_path(stream, tmp_path, rules, weighted):
    rows = rows_of(1_000)
    draw = random.Random(2)
    for row in rows:
        row["sure"] = draw.choice([0.1, 0.5, None])
    source = write_shards(tmp_path / "a", rows, 3)
    options = {"clean": rules, "weight_column": "sure" if weighted else None}
    plain = DataSection(source=source, **options)
    expected = clean_rows(read_rows(plain, tmp_path / "plain"), plain.clean, [])
    clean, splits = stream(source, **options)
    assert clean.counts == expected.counts
    table = expected.rows.table.take(pa.array(expected.kept("source")))
    wanted = sorted(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    assert sorted(itertools.chain(*content((clean, splits)).values())) == wanted
    dropped = {
        row["row"]: (row["reason"], row.get("text"), row.get("label")) for row in clean.dropped()
    }
    assert dropped == {
        row["row"]: (row["reason"], row.get("text"), row.get("label")) for row in expected.dropped()
    }
    for row in clean.dropped():
        file, place = expected.rows.places.origin(row["row"])
        assert (row["file"], row.get("line", row.get("record"))) == (file, place)
    texts, places = (
        clean.rows.table["text"].to_pylist(),
        {
            text: expected.rows.where(row)
            for row, text in enumerate(expected.rows.table["text"].to_pylist())
        },
    )
    unique = {
        text
        for text, count in Counter(row["text"].strip() for row in rows if row["text"]).items()
        if count == 1
    }
    assert all(
        clean.rows.where(row) == places[text] for row, text in enumerate(texts) if text in unique
    )


def test_spellings_maps_and_dropped_labels_name_the_classes_of_the_ordinary_path(stream, tmp_path):
    rows = rows_of(1_000)
    draw = random.Random(3)
    for row in rows:
        row["label"] = row["label"] and draw.choice(
            [row["label"], f" {row['label']}", f"{row['label']}\u200b"]
        )
    source = write_shards(
        tmp_path / "a",
        [
            *rows,
            {"text": "one", "label": "1"},
            {"text": "two", "label": "1.0"},
            {"text": "no", "label": "spam"},
        ],
        3,
    )
    options = {"label_map": {"1": "fraud", "spam": None}, "drop_labels": ["review"]}
    plain = DataSection(source=source, **options)
    expected = clean_rows(
        read_rows(plain, tmp_path / "plain"), plain.clean, plain.drop_labels, plain.label_map
    )
    clean, splits = stream(source, **options)
    assert clean.labels.names == expected.labels.names == ["approve", "fraud"]
    assert clean.counts == expected.counts
    assert clean.naming.merged == expected.naming.merged
    ids = np.concatenate(list(splits.named.values()))
    found = zip(clean.text_hashes_N[ids].tolist(), clean.label_ids_N[ids].tolist(), strict=True)
    kept = expected.kept("source")
    assert sorted(found) == sorted(
        zip(expected.text_hashes_N[kept].tolist(), expected.label_ids_N[kept].tolist(), strict=True)
    )


def test_class_of_which_cleaning_leaves_no_row_is_refused_by_name(stream, tmp_path):
    write(
        tmp_path / "a.jsonl",
        [*rows_of(300), {"text": "torn", "label": "odd"}, {"text": "torn", "label": "fraud"}],
    )
    with pytest.raises(
        DataError, match=r"^cleaning leaves no row of 'odd' \(1 dropped\)\. Fix these rows"
    ):
        stream(str(tmp_path / "a.jsonl"))


def test_given_files_keep_their_sides_and_leaks_are_dropped_as_in_the_ordinary_path(
    stream, tmp_path
):
    paths = {}
    train = rows_of(400)
    for name, rows in (
        ("train", train),
        ("validation", rows_of(200, 1) + train[:40]),
        ("test", rows_of(200, 2) + train[30:80]),
    ):
        paths[name] = str(tmp_path / f"{name}.jsonl")
        write(tmp_path / f"{name}.jsonl", rows)
    plain = DataSection(**paths)
    expected = clean_rows(read_rows(plain, tmp_path / "plain"), plain.clean, [])
    clean, splits = stream(**paths)
    assert clean.counts == expected.counts
    assert clean.counts["text also in validation or test"] > 50
    for name, pairs in content((clean, splits)).items():
        table = expected.rows.table.take(pa.array(expected.kept(name)))
        assert sorted(pairs) == sorted(
            zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True)
        )


def test_equal_texts_stay_on_one_side_and_shares_are_kept(stream, tmp_path):
    rows = rows_of(6_000)
    split = {"train": 0.6, "validation": 0.3, "test": 0.1}
    result = stream(
        write_shards(tmp_path / "a", rows, 2),
        split=split,
        clean={"duplicates": False, "conflicts": False},
    )
    sides = {name: {text for text, _ in pairs} for name, pairs in content(result).items()}
    assert not any(a & b for a, b in itertools.combinations(sides.values(), 2))
    total = sum(map(len, sides.values()))
    assert {name: round(len(texts) / total, 1) for name, texts in sides.items()} == split
    half = stream(
        write_shards(tmp_path / "b", rows[: len(rows) // 2], 2),
        split=split,
        clean={"duplicates": False, "conflicts": False},
    )
    for name, pairs in content(half).items():
        assert {text for text, _ in pairs} <= sides[
            name
        ]  # a row's side does not depend on the other rows


@pytest.mark.parametrize("method", ["none", "oversample"])
def test_limits_keep_natural_shares_or_cut_the_largest_classes_first(
    stream, tmp_path, method, capsys
):
    limits = {"streaming_rows": 600, "streaming_evaluation_rows": 100}
    clean, splits = stream(
        write_shards(tmp_path / "a", rows_of(3_000), 3), balance={"method": method}, **limits
    )
    natural = np.array(clean.streamed.natural["train"])
    counts = clean.labels.counts(clean.label_ids_N[splits.train])
    assert (len(splits.train), len(splits.validation)) == (600, 100)
    if method == "none":
        assert np.abs(counts - 600 * natural / natural.sum()).max() < 1
    else:
        fraud = clean.labels.names.index("fraud")
        assert counts[fraud] == natural[fraud]
        assert np.ptp(np.delete(counts, fraud)) == 0 or counts.sum() == 600
    shares = np.array(clean.streamed.natural["validation"]) / sum(
        clean.streamed.natural["validation"]
    )
    assert (
        np.abs(clean.labels.counts(clean.label_ids_N[splits.validation]) - 100 * shares).max() < 1
    )
    assert "data.streaming_rows: 600 of " in capsys.readouterr().out


def test_undersampling_that_keeps_few_of_the_rows_read_is_warned_of_though_only_those_were_kept(
    stream, tmp_path
):
    rows = [
        {"text": f"{label} {n}", "label": label}
        for label, count in (("common", 1000), ("rare", 30))
        for n in range(count)
    ]
    write(tmp_path / "rows.jsonl", rows)
    balance = {"method": "undersample"}
    clean, splits = stream(str(tmp_path / "rows.jsonl"), balance=balance)
    count = clean.streamed.natural["train"][1]
    total = sum(clean.streamed.natural["train"])
    assert len(splits.train) == 2 * count
    with pytest.warns(
        UserWarning,
        match=(
            rf"keeps only {2 * count} of {total} training rows an epoch, since 'rare' has "
            rf"{count} rows"
        ),
    ):
        balance_splits(clean, splits, BalanceSection(**balance), LossSection(), seed=1)


def test_level_cuts_the_largest_to_one_height():
    assert chosen_rows.level(np.array([10, 50, 90]), 100).tolist() == [10, 45, 45]
    assert chosen_rows.level(np.array([40, 40, 40]), 100).tolist() == [33, 33, 33]


def test_second_run_reads_the_cache_and_another_seed_chooses_other_rows(stream, tmp_path):
    source = write_shards(tmp_path / "a", rows_of(3_000), 3)
    first = stream(source, balance=UNDERSAMPLE, cache=tmp_path / "cache")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert sorted(path.suffix for path in written) == [".arrow", ".json", ".lock"]
    assert content(stream(source, balance=UNDERSAMPLE, cache=tmp_path / "cache")) == content(first)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()} == written
    assert content(
        stream(source, balance=UNDERSAMPLE, cache=tmp_path / "cache", seed=2)
    ) != content(first)


def test_dropped_rows_beyond_the_first_are_counted_and_said_so(stream, tmp_path, monkeypatch):
    monkeypatch.setattr(selection, "MOST_LISTED", 5)
    clean, _ = stream(write_shards(tmp_path / "a", rows_of(1_000), 2))
    lines = list(clean.dropped())
    total = sum(
        count
        for reason, count in clean.counts.items()
        if reason != "kept" and not reason.startswith("stripped")
    )
    assert len(lines) == 6
    assert (
        lines[-1]["reason"]
        == f"and {total - 5:,} more, which data.streaming counts and does not list"
    )


def test_of_a_text_in_two_domains_the_first_by_name_is_kept_whatever_the_order_of_the_files(
    stream, tmp_path
):
    shared = [{"text": "shared", "label": "x", "site": site} for site in ("web", "app", None)]
    rows = [
        {"text": f"{label} {i}", "label": label, "site": "web"}
        for label in "xy"
        for i in range(200)
    ]
    for turn in range(3):
        source = write_shards(tmp_path / f"{turn}", shared[turn:] + rows + shared[:turn], 3)
        clean, _ = stream(source, balance={"by": "site", "method": "oversample"})
        found = {row["text"]: row["domain"] for row in clean.rows.table.to_pylist()}
        assert found["shared"] == "app"


def test_text_pairs_and_domains_come_along(stream, tmp_path):
    rows = [
        {"a": f"first {i}", "b": f"second {i}", "label": "xy"[i % 2], "source": "mn"[i % 3 % 2]}
        for i in range(200)
    ]
    clean, splits = stream(
        write_shards(tmp_path / "a", rows, 2),
        balance={"method": "undersample", "by": "source"},
        text_column=["a", "b"],
    )
    table = clean.rows.table
    assert all(
        b == a.replace("first", "second")
        for a, b in zip(table["text"].to_pylist(), table["text_pair"].to_pylist(), strict=True)
    )
    assert set(table["domain"].to_pylist()) == {"m", "n"}
    assert sum(len(ids) for ids in splits.named.values()) == 200


def test_bad_shards_are_named(refused, tmp_path):
    rows = rows_of(3_000)
    source = write_shards(tmp_path / "gz", rows, 2, ".jsonl.gz")
    cut = tmp_path / "gz/001.jsonl.gz"
    cut.write_bytes(cut.read_bytes()[:-2000])
    assert refused(source).startswith(
        f"{cut}: cannot be read to its end: Compressed file ended before"
    )
    source = write_shards(tmp_path / "csv", rows, 2, ".csv.gz")
    cut = tmp_path / "csv/001.csv.gz"
    cut.write_bytes(cut.read_bytes()[:-2000])
    assert refused(source).startswith(f"{cut}: cannot be read to its end: ")
    source = write_shards(tmp_path / "parquet", rows, 2)
    cut = tmp_path / "parquet/001.parquet"
    cut.write_bytes(cut.read_bytes()[:-2000])
    assert refused(source).startswith(f"{cut}: is not a Parquet file: ")
    damaged = bytearray(pq_bytes(rows))
    damaged[200:4000] = b"\0" * 3800
    cut.write_bytes(bytes(damaged))
    assert refused(source).startswith(f"{cut}: cannot be read to its end: ")


def pq_bytes(rows):
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out)
    return out.getvalue()


def test_missing_columns_and_bad_rows_are_named_with_their_file(stream, refused, tmp_path):
    source = write_shards(tmp_path / "a", rows_of(1_000), 2, ".jsonl")
    assert refused(source, text_column="body").startswith(
        f"{tmp_path}/a/000.jsonl:1: no column 'body'; found: label, text."
    )
    with (tmp_path / "a/001.jsonl").open("a", encoding="utf-8") as file:
        file.write("{broken\n")
    assert f"{tmp_path}/a/001.jsonl:" in (message := refused(source))
    assert "(1 bad in this file). Fix the file, or set data.on_bad_rows: skip." in message
    clean, _ = stream(source, on_bad_rows="skip")
    assert clean.counts["unreadable"] == 1
    assert [row["content"] for row in clean.dropped() if row["row"] is None] == ["{broken"]


@pytest.mark.filterwarnings("ignore:data.streaming. no row of")
def test_rows_that_cannot_be_trained_on_are_refused(refused, tmp_path):
    write(tmp_path / "lists.jsonl", [{"text": "a", "label": ["x", "y"]}])
    message = (
        "data.source: column 'label' holds lists, which data.streaming does not allow. Set "
        "data.streaming: false."
    )
    assert refused(str(tmp_path / "lists.jsonl")) == message
    source = write_shards(tmp_path / "a", rows_of(1_000), 2)
    expected = (
        "data.drop_labels names frauds; labels in the data: approve, fraud, review. Did you "
        "mean 'fraud'?"
    )
    assert refused(source, drop_labels=["frauds"]) == expected
    assert "holds one class only" in refused(source, drop_labels=["fraud", "review"]).replace(
        "the rows hold", "holds"
    )
    (tmp_path / "empty.jsonl").write_text("\n", encoding="utf-8")
    assert (
        refused(str(tmp_path / "empty.jsonl"))
        == f"data.source: {tmp_path}/empty.jsonl holds no rows."
    )
    write(tmp_path / "blank.jsonl", [{"text": " ", "label": "x"}])
    assert "data.source: no row is left of 1 after cleaning: 1 empty text." in refused(
        str(tmp_path / "blank.jsonl")
    )
    write(tmp_path / "few.jsonl", [{"text": "one", "label": "x"}, {"text": "two", "label": "y"}])
    few = str(tmp_path / "few.jsonl")
    tiny, most = {"train": 1e-9, "validation": 1 - 1e-9}, {"train": 1 - 1e-9, "validation": 1e-9}
    for shares in (tiny, most):  # a class of one row trains
        assert refused(few, split=shares).startswith(
            "data.streaming: rows are split by their text, and none was assigned to "
            "validation. Add rows"
        )
    strict = refused(few, split=tiny | {"rare_classes": "error"})
    assert strict.startswith(
        "data.streaming: x, y: too few rows for 2 splits. Merge such labels with data.label_map"
    )
    write(tmp_path / "other.jsonl", [{"text": "three", "label": "z"}])
    message = "data.validation: holds z, which the training rows lack; labels of train: x, y."
    assert refused(train=few, validation=str(tmp_path / "other.jsonl")).startswith(message)


def test_evaluation_side_without_a_class_is_warned_about(stream, tmp_path):
    write(tmp_path / "train.jsonl", rows_of(500))
    write(
        tmp_path / "validation.jsonl",
        [{"text": "one", "label": "fraud"}, {"text": "two", "label": "review"}],
    )
    with pytest.warns(
        UserWarning,
        match=r"^data.streaming: no row of approve in validation: such a class is trained, but",
    ):
        stream(train=str(tmp_path / "train.jsonl"), validation=str(tmp_path / "validation.jsonl"))


def test_classes_too_rare_for_every_side_train_or_are_dropped(stream, tmp_path):
    rows = [
        *rows_of(1_000),
        {"text": "one", "label": "single"},
        {"text": "two", "label": "pair"},
        {"text": "three", "label": "pair"},
    ]
    write(tmp_path / "rows.jsonl", rows)
    shares = {"train": 0.4, "validation": 0.3, "test": 0.3}
    with pytest.warns(
        UserWarning,
        match=(
            "no row of pair, single in validation and test: such a class is trained, but not "
            "measured there"
        ),
    ):
        clean, splits = stream(str(tmp_path / "rows.jsonl"), split=shares)
    counts = {
        name: Counter(clean.labels.names[i] for i in clean.label_ids_N[ids])
        for name, ids in splits.named.items()
    }
    assert [
        (counts[name]["single"], counts[name]["pair"]) for name in ("train", "validation", "test")
    ] == [(1, 2), (0, 0), (0, 0)]
    kept = clean.counts["kept"]
    clean, splits = stream(str(tmp_path / "rows.jsonl"), split=shares | {"rare_classes": "drop"})
    assert clean.labels.names == ["approve", "fraud", "review"]
    assert (clean.counts["class too rare to split"], clean.counts["kept"]) == (3, kept - 3)
    assert sum(len(ids) for ids in splits.named.values()) == kept - 3
    assert [
        row["text"] for row in clean.dropped() if row["reason"] == "class too rare to split"
    ] == ["one", "two", "three"]


def test_files_that_change_between_the_readings_are_refused(refused, tmp_path, monkeypatch):
    source = write_shards(tmp_path / "a", rows_of(1_000), 2)

    def change(*args):
        write(tmp_path / "a/001.parquet", rows_of(300, seed=9))
        return lowest(*args)

    lowest = selection.lowest
    monkeypatch.setattr(selection, "lowest", change)
    assert refused(source).startswith(
        "data.streaming: the files changed between the two readings. Start again when nothing"
    )
    assert [path.suffix for path in (tmp_path / "cache0").iterdir()] == [".lock"]


KILLED = """
import sys
from pathlib import Path
from trainer.data.prepare import read_splits
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection
source, cache, slow = sys.argv[1:]
if slow:
    import time
    from trainer.data.streaming import streamed_rows
    fetch = streamed_rows.write_in_order
    def wait(*args):
        fetch(*args); print("written", flush=True); time.sleep(600)
    streamed_rows.write_in_order = wait
data, balance = DataSection(source=source, streaming=True), BalanceSection(method="undersample")
clean, _ = read_splits(data, None, balance, seed=1, cache_dir=Path(cache))
print(clean.fingerprint)
"""


def test_killed_selection_leaves_nothing_that_is_taken_for_whole_and_the_next_one_cleans_up(
    stream, tmp_path
):
    source = write_shards(tmp_path / "a", rows_of(1_000), 2)
    cache = tmp_path / "cache"
    command = [sys.executable, "-c", KILLED, source, str(cache)]
    with subprocess.Popen(
        [*command, "slow"], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
    assert sorted(path.suffix for path in cache.iterdir()) == [".lock", ".partial"]
    again = stream(source, balance=UNDERSAMPLE, cache=cache)
    assert sorted(path.suffix for path in cache.iterdir()) == [".arrow", ".json", ".lock"]
    assert content(again) == content(stream(source, balance=UNDERSAMPLE))


HUB = """
import json, sys
from pathlib import Path
from trainer.data.prepare import read_splits
from trainer.errors import DataError
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection
for name in sys.argv[2:]:
    try:
        data = DataSection(source=name, streaming=True)
        balance = BalanceSection(method="undersample")
        clean, splits = read_splits(data, None, balance, seed=1, cache_dir=Path(sys.argv[1]))
        print(json.dumps([clean.fingerprint, len(splits.train)]))
    except DataError as error:
        print(json.dumps(str(error)))
"""


def test_hub_data_are_streamed_and_give_the_rows_of_the_files(stream, tmp_path):
    rows = rows_of(1_000)
    expected = stream(write_shards(tmp_path / "a", rows, 3), balance=UNDERSAMPLE)
    write_shards(tmp_path / "b", rows, 2, ".csv")
    with HubServer({}) as server:
        server.add(
            "dataset",
            "user/rows",
            {f"data/train-{p.name}": p.read_bytes() for p in (tmp_path / "a").iterdir()},
        )
        server.add(
            "dataset",
            "user/lines",
            {f"train-{p.name}": p.read_bytes() for p in (tmp_path / "b").iterdir()},
        )
        home = tmp_path / "home"
        environment = {
            **os.environ,
            "HF_ENDPOINT": server.url,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(home),
        }
        command = [
            sys.executable,
            "-c",
            HUB,
            str(tmp_path / "cache"),
            "user/rows",
            "user/lines",
            "user/none",
        ]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False
        )
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line[0] in '["']  # no lines of stages
    *found, message = map(json.loads, lines)
    assert found == [[expected[0].fingerprint, len(expected[1].train)]] * 2
    assert message.startswith(
        "data.source: 'user/none' is not a file here and could not be found on the Hub: "
    )
    assert not list(home.rglob("*.parquet"))


def test_labels_that_look_like_lists_are_warned_of(stream, tmp_path):
    labels = ["a", "b", "['a', 'b']", "b"] * 30
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"text": f"text {n}", "label": label}) + "\n"
            for n, label in enumerate(labels)
        )
    )
    with pytest.warns(
        UserWarning,
        match=(
            r"^column 'label': 30 of 120 labels look like lists, such as \['a', 'b'\], but "
            r"each is read as one label"
        ),
    ):
        stream(str(tmp_path / "rows.jsonl"))
