"""`split --output` keeps columns, names, types and values, and reads back to the same splits."""

import datetime
import gzip
import json

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from trainer.config.sections.balancing import BalanceSection, LossSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.prepare import balance_splits, read_splits
from trainer.data.split_files import export_splits
from trainer.errors import DataError

SPLIT = SplitSection(train=0.6, validation=0.2, test=0.2)


@pytest.fixture
def exported(tmp_path, capsys):
    """Function (source, format, **data) -> ({split: table or rows}, lines that were printed)."""

    def run(
        source, file_format="parquet", split=SPLIT, meanwhile=lambda: None, method="none", **values
    ):
        data = DataSection(**({"source": str(source)} if source else {}), **values)
        balance = BalanceSection(method=method)
        clean, splits = read_splits(data, split, balance, seed=1, cache_dir=tmp_path / "cache")
        prepared = balance_splits(clean, splits, balance, LossSection(), seed=1)
        meanwhile()
        out = tmp_path / f"out-{file_format}"
        capsys.readouterr()
        paths = [path for path, _ in export_splits(prepared, data, out, file_format)]
        printed = capsys.readouterr().out.splitlines()
        return {path.stem: load(path) for path in paths}, printed

    return run


def load(path):
    if path.suffix == ".parquet":
        return pq.read_table(path)
    if path.suffix == ".csv":
        return pacsv.read_csv(path, parse_options=pacsv.ParseOptions(newlines_in_values=True))
    return pa.Table.from_pylist(
        [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]
    )


def all_rows(splits):
    rows = [row for name in ("train", "validation", "test") for row in splits[name].to_pylist()]
    return sorted(rows, key=lambda row: row["row"])


def odd_table(number=30):
    return pa.table(
        {
            "id": pa.array([10**15 + n for n in range(number)], pa.int64()),
            "text": [f' {n}, "ä"\n\tb\u2028 ' for n in range(number)],
            "label": pa.array([n % 3 for n in range(number)], pa.int16()),
            "when": pa.array(
                [datetime.datetime(2024, 1, 1 + n % 28, 12, 30) for n in range(number)],
                pa.timestamp("ms"),
            ),
            "score": pa.array([None if n % 5 == 0 else n / 8 for n in range(number)], pa.float32()),
            "seen": [n % 2 == 0 for n in range(number)],
            "tags": [["x"] * (n % 3) for n in range(number)],
            "author": [{"name": f"a{n}", "age": n} for n in range(number)],
            "raw": pa.array([bytes([n, 255]) for n in range(number)], pa.binary()),
            "kind": pa.array(["k", "l", None] * (number // 3)).dictionary_encode(),
        }
    )


def test_parquet_keeps_names_types_and_values(exported, tmp_path):
    table = odd_table()
    pq.write_table(table, tmp_path / "rows.parquet")
    splits, printed = exported(tmp_path / "rows.parquet")
    assert printed == []
    assert {name: part.num_rows for name, part in splits.items()} == {
        "train": 18,
        "validation": 6,
        "test": 6,
        "train_balanced": 18,
    }
    rows = all_rows(splits)
    assert [row.pop("row") for row in rows] == list(range(30))
    assert rows == table.to_pylist()
    kinds = {field.name: field.type for field in splits["test"].schema}
    expected = {field.name: field.type for field in table.schema} | {
        "row": pa.int64(),
        "kind": pa.string(),
    }
    assert kinds == expected
    assert next(iter(kinds)) == "row"


def test_jsonl_and_csv_keep_what_they_can_hold(exported, tmp_path):
    table = odd_table()
    pq.write_table(table, tmp_path / "rows.parquet")
    given = table.to_pylist()
    for file_format in ("jsonl", "csv"):
        rows = all_rows(exported(tmp_path / "rows.parquet", file_format)[0])
        for row, found in zip(given, rows, strict=True):
            assert [found[name] for name in ("id", "text", "label", "score", "seen")] == [
                row[name] for name in ("id", "text", "label", "score", "seen")
            ]
            author, tags = (
                found[name] if file_format == "jsonl" else json.loads(found[name])
                for name in ("author", "tags")
            )
            assert (author, tags) == (row["author"], row["tags"])
            assert str(found["when"]).replace("T", " ") == str(row["when"])


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json", "parquet", "arrow", "csv.gz"])
def test_every_format_gives_all_columns(exported, tmp_path, ending):
    rows = [{"text": f"text {n}", "label": "ab"[n % 2], "author": f"author {n}"} for n in range(20)]
    path, table = tmp_path / f"rows.{ending}", pa.Table.from_pylist(rows)
    if ending == "parquet":
        pq.write_table(table, path)
    elif ending == "arrow":
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    elif ending.startswith("json"):
        path.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    else:
        separator = "\t" if ending == "tsv" else ","
        content = "\n".join(
            separator.join(row.values())
            for row in [dict(zip(rows[0], rows[0], strict=True)), *rows]
        ).encode()
        path.write_bytes(gzip.compress(content) if ending.endswith("gz") else content)
    assert [{name: row[name] for name in rows[0]} for row in all_rows(exported(path)[0])] == rows


def test_files_with_other_columns_and_types_give_their_union(exported, tmp_path):
    pq.write_table(
        pa.table(
            {
                "text": [f"a {n}" for n in range(10)],
                "label": ["x", "y"] * 5,
                "id": list(range(10)),
                "only a": [1.5] * 10,
            }
        ),
        tmp_path / "1.parquet",
    )
    pq.write_table(
        pa.table(
            {
                "id": ["i", "j"] * 5,
                "label": ["x", "y"] * 5,
                "text": [f"b {n}" for n in range(10)],
                "only b": [True] * 10,
            }
        ),
        tmp_path / "2.parquet",
    )
    rows = all_rows(exported(f"{tmp_path}/*.parquet")[0])
    assert rows[3] == {
        "row": 3,
        "text": "a 3",
        "label": "y",
        "id": "3",
        "only a": 1.5,
        "only b": None,
    }
    assert rows[13] == {
        "row": 13,
        "text": "b 3",
        "label": "y",
        "id": "j",
        "only a": None,
        "only b": True,
    }


def test_names_that_the_user_has_stay_the_users(exported, tmp_path):
    letters = list("abcdefghijklmnopqrst")
    pq.write_table(
        pa.table({"text": [f"t {n}" for n in range(20)], "label": ["x", "y"] * 10, "row": letters}),
        tmp_path / "rows.parquet",
    )
    splits, printed = exported(tmp_path / "rows.parquet")
    assert printed == ["The data already have a column 'row', so ours is called 'row_2'."]
    assert {
        (row["row_2"], row["row"])
        for name in ("train", "validation", "test")
        for row in splits[name].to_pylist()
    } == set(enumerate("abcdefghijklmnopqrst"))


def test_labels_that_were_merged_or_mapped_are_written_as_their_classes_and_counted(
    exported, tmp_path
):
    labels = ["Pos", " Pos", "Pos\u200b", "neg", "hatespeech"] * 6
    pq.write_table(
        pa.table({"text": [f"t {n}" for n in range(30)], "label": labels}),
        tmp_path / "rows.parquet",
    )
    splits, printed = exported(tmp_path / "rows.parquet", label_map={"hatespeech": "hate"})
    assert printed == [
        "Column 'label' holds the names of the classes; 18 of 30 rows had another spelling."
    ]
    assert [row["label"] for row in all_rows(splits)] == ["Pos", "Pos", "Pos", "neg", "hate"] * 6


def test_class_label_ids_become_names(exported, tmp_path):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=["neg", "pos"]), "stars": Value("int8")}
    )
    Dataset.from_dict(
        {"text": [f"t {n}" for n in range(20)], "label": [0, 1] * 10, "stars": list(range(20))},
        features=features,
    ).save_to_disk(tmp_path / "saved")
    splits, printed = exported(tmp_path / "saved")
    assert printed == [
        "Column 'label' holds the names of the classes; 20 of 20 rows had another spelling."
    ]
    assert [(row["label"], row["stars"]) for row in all_rows(splits)] == [
        (["neg", "pos"][n % 2], n) for n in range(20)
    ]


def test_rows_stay_right_where_others_cannot_be_read(exported, tmp_path):
    lines = [json.dumps({"text": f"t {n}", "label": "ab"[n % 2], "number": n}) for n in range(20)]
    lines[4], lines[11] = "{broken", '["no", "object"]'
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    rows = all_rows(exported(tmp_path / "rows.jsonl", on_bad_rows="skip")[0])
    assert [row["text"] for row in rows] == [f"t {row['number']}" for row in rows]
    assert [row["number"] for row in rows] == [n for n in range(20) if n not in (4, 11)]


def test_lists_and_columns_of_labels_stay_as_they_are(exported, tmp_path):
    lists = [["a"], ["b", "a"], ["b"], []] * 10
    pq.write_table(
        pa.table(
            {"text": [f"t {n}" for n in range(40)], "label": pa.array(lists, pa.list_(pa.string()))}
        ),
        tmp_path / "lists.parquet",
    )
    splits, printed = exported(tmp_path / "lists.parquet")
    assert (printed, [row["label"] for row in all_rows(splits)]) == ([], lists)
    ones = {name: [int(name in row) for row in lists] for name in "ab"}
    pq.write_table(
        pa.table({"text": [f"t {n}" for n in range(40)], **ones}), tmp_path / "ones.parquet"
    )
    rows = all_rows(exported(tmp_path / "ones.parquet", "jsonl", label_columns=["a", "b"])[0])
    assert ([row["a"] for row in rows], [row["b"] for row in rows]) == (ones["a"], ones["b"])


def test_file_that_changed_meanwhile_is_refused(exported, tmp_path):
    path = tmp_path / "rows.csv"
    content = "text,label,author\n" + "".join(f"text {n},{'ab'[n % 2]},{n}\n" for n in range(20))
    for change in ("other 0", "text 0,a,0\ntext 0"):
        path.write_text(content)
        with pytest.raises(
            DataError,
            match=r"The files changed while their rows were exported\. Run the same command again",
        ):
            exported(
                path,
                meanwhile=lambda change=change: path.write_text(content.replace("text 0", change)),
            )


@pytest.mark.parametrize("file_format", ["jsonl", "parquet", "csv"])
def test_written_splits_read_again_give_the_same_rows_and_labels(exported, tmp_path, file_format):
    texts = [
        f'{n} "quoted", ünï\r\nline' if n % 2 else f"plain  {n}; it's {n / 7}" for n in range(40)
    ]
    labels = [["01", "1", "yes, no", "ja"][n % 4] for n in range(40)]
    pq.write_table(
        pa.table({"body": texts, "class": labels, "row": list(range(40)), "empty": pa.nulls(40)}),
        tmp_path / "rows.parquet",
    )
    columns = {"text_column": "body", "label_column": "class"}
    exported(tmp_path / "rows.parquet", file_format, method="oversample", **columns)
    out = tmp_path / f"out-{file_format}"
    first, splits = read_splits(
        DataSection(source=str(tmp_path / "rows.parquet"), **columns),
        SPLIT,
        BalanceSection(),
        seed=1,
        cache_dir=tmp_path / "c",
    )
    given = {name: str(out / f"{name}.{file_format}") for name in ("train", "validation", "test")}
    again, same = read_splits(
        DataSection(**given, **columns, multiline_cells=True),
        None,
        BalanceSection(),
        seed=1,
        cache_dir=tmp_path / "c",
    )
    assert again.labels == first.labels
    for name, ids in splits.named.items():
        assert pairs(again, same.named[name]) == pairs(first, ids)


def pairs(clean, ids):
    return sorted(
        (text, clean.labels.names[label])
        for text, label in zip(
            clean.rows.table["text"].take(pa.array(ids)).to_pylist(),
            clean.label_ids_N[ids],
            strict=True,
        )
    )


def test_given_files_go_back_to_their_own_splits(exported, tmp_path):
    for name in ("train", "validation", "test"):
        rows = [{"text": f"{name} {n}", "label": "ab"[n % 2], "from": name} for n in range(10)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    splits, _ = exported(
        None,
        split=None,
        **{name: str(tmp_path / f"{name}.jsonl") for name in ("train", "validation", "test")},
    )
    assert {name: set(part["from"].to_pylist()) for name, part in splits.items()} == {
        "train": {"train"},
        "validation": {"validation"},
        "test": {"test"},
        "train_balanced": {"train"},
    }


def test_half_a_surrogate_pair_in_an_unused_column_becomes_a_replacement_character(
    exported, tmp_path
):
    lines = [json.dumps({"text": f"t {n}", "label": "ab"[n % 2], "note": "x"}) for n in range(20)]
    lines[3] = '{"text": "t 3", "label": "b", "note": "\\ud83d"}'
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    rows = all_rows(exported(tmp_path / "rows.jsonl")[0])
    assert (rows[3]["text"], rows[3]["note"]) == ("t 3", "\ufffd")


def test_half_a_surrogate_pair_in_a_list_of_labels_is_a_bad_row(tmp_path):
    lines = [json.dumps({"text": f"t {n}", "label": ["ab"[n % 2]]}) for n in range(20)]
    lines[3] = '{"text": "t 3", "label": ["\\ud83d"]}'
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    data = DataSection(source=str(tmp_path / "rows.jsonl"))
    with pytest.raises(DataError, match=r"rows\.jsonl:4: 'label' holds half a surrogate pair"):
        read_splits(data, SPLIT, BalanceSection(), seed=1, cache_dir=tmp_path / "cache")
