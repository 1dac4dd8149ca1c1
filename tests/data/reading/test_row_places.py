"""File and line of each row, over globs, lists and formats, in training and prediction."""

import csv
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.dataset_sources import dataset_tables, load_saved
from trainer.data.reading.formats import json_rows, readers
from trainer.data.reading.formats.records import Records
from trainer.data.reading.row_places import LINE, RECORD
from trainer.data.reading.sources import read_rows
from trainer.errors import DataError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path / "rows")


def read(**section):
    return read_rows(DataSection(**section), Path("../cache"))


def origins(rows):
    return [rows.places.origin(row) for row in range(rows.table.num_rows)]


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("a.csv", 'text,label\na,x\n\n"b\nb",y\nc,x\n', [2, 4, 6]),
        ("a.csv", 'note\ntext,label\r\nskipped\r\na,x\r\n"b""\r\nb",y\r\n\r\n\r\nc,x', [4, 5, 9]),
        ("a.tsv", "text\tlabel\ra\tx\rb\ty\rc\tx", [2, 3, 4]),
        (
            "a.jsonl",
            (
                '{"text": "a", "label": "x"}\n\n{"text": "b", "label": "y"}\n{"text": "c", '
                '"label": "x"}\n\n'
            ),
            [1, 3, 4],
        ),
        (
            "a.json",
            (
                '\n[{"text": "a", "label": "x"},\n\n{"text": "b", "label": "y"}, {"text": '
                '"c", "label": "x"}]'
            ),
            [1, 2, 3],
        ),
    ],
)
def test_origin_is_the_line_on_which_a_row_starts_or_its_number(folder, name, content, places):
    Path(name).write_bytes(content.encode())
    skipped = {"skip_lines": 1, "skip_lines_after_header": 1} if content.startswith("note") else {}
    rows = read(source=name, **skipped)
    assert origins(rows) == [(name, place) for place in places]
    assert rows.where(1) == (
        f"{name}: record {places[1]}" if name.endswith(".json") else f"{name}:{places[1]}"
    )


@pytest.mark.parametrize(
    ("cells", "section"),
    [
        (("1", "heavy"), {"weight_column": "c"}),
        (("1", "yes"), {"label_columns": ["c", "d"]}),
        (("train", "holdout"), {"split_column": "c"}),
    ],
)
def test_bad_cell_over_a_glob_is_named_with_file_and_line(folder, cells, section):
    for name, cell in zip("ab", cells, strict=True):
        lines = f'text,label,c,d\n"t\n{name}",x,{cells[0]},0\nu{name},y,{cell},1\n'
        Path(f"{name}.csv").write_text(lines, encoding="utf-8")
    with pytest.raises(DataError, match=rf"^b\.csv:4: .*column 'c' holds '{cells[1]}'"):
        read(source="*.csv", **section)


def test_origin_over_globs_lists_and_config_keys(folder):
    for name in "ab":
        Path(f"{name}.csv").write_text(f"text,label\n{name}1,x\n{name}2,y\n", encoding="utf-8")
    pq.write_table(pa.table({"text": ["c1", "c2"], "label": ["x", "y"]}), "c.parquet")
    Path("empty.csv").write_text("text,label\n", encoding="utf-8")
    rows = read(train=["empty.csv", "[ab].csv"], test="c.parquet")
    assert origins(rows) == [
        ("a.csv", 2),
        ("a.csv", 3),
        ("b.csv", 2),
        ("b.csv", 3),
        ("c.parquet", 1),
        ("c.parquet", 2),
    ]
    assert (rows.where(3), rows.where(5)) == ("b.csv:3", "c.parquet: record 2")


def test_origin_goes_on_over_blocks_and_bad_rows(folder, monkeypatch):
    monkeypatch.setattr(readers, "CSV_BLOCK_BYTES", 64)
    monkeypatch.setattr(json_rows, "JSON_BLOCK_CHARACTERS", 64)
    lines = [f"row {n},{'xy'[n % 2]}" for n in range(200)]
    lines[50] = "bad"
    lines[120] = '"two\nlines",x'
    Path("a.csv").write_text("text,label\n" + "\n".join(lines) + "\n", encoding="utf-8")
    rows = read(source="a.csv", on_bad_rows="skip")
    expected = [n + 2 + (n > 120) for n in range(200) if n != 50]
    assert [place for _, place in origins(rows)] == expected
    Path("a.jsonl").write_text(
        "\n".join(
            "{" if n == 50 else json.dumps({"text": f"row {n}", "label": "x"}) for n in range(200)
        ),
        encoding="utf-8",
    )
    rows = read(source="a.jsonl", on_bad_rows="skip")
    assert [place for _, place in origins(rows)] == [n + 1 for n in range(200) if n != 50]


def test_multiline_rows_are_counted(folder):
    Path("a.csv").write_text('text,label\n"a\na",x\nb,y\n"c\n\nc",x\n', encoding="utf-8")
    for _ in range(2):  # the second time from the cache
        assert read(source="a.csv").num_multiline == 2


CELLS = st.text(st.sampled_from('ab", \t\n\r\\é😀;0\u2028\x85'), max_size=6)
ROWS = st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6)


def written(rows, kind):
    """A file of these rows."""
    records = [{"text": text, "label": label} for text, label in rows]
    if kind in ("csv", "tsv"):
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL)
        writer.writerows([("text", "label"), *rows])
        return out.getvalue().encode()
    if kind == "jsonl":
        return "".join(json.dumps(record) + "\n" for record in records).encode()
    if kind == "json":
        return json.dumps(records).encode()
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), out)
    return out.getvalue()


def outcomes(path, **options):
    """The rows of a file as training and as prediction read them; the line of what refuses it."""
    section = DataSection(source=str(path), clean={"strip": False}, **options)
    readings = []
    for reading in (
        lambda: list(
            zip(
                *read_rows(section, path.parent / "cache")
                .table.select(["text", "label"])
                .to_pydict()
                .values(),
                strict=True,
            )
        ),
        lambda: [(row["text"], row["label"]) for row in Records(path, section, ["text", "label"])],
    ):
        try:
            readings.append(reading())
        except DataError as error:
            readings.append(str(error).partition(" (")[0])
    return readings


@settings(deadline=None, max_examples=60, database=None)
@given(ROWS, st.sampled_from(["csv", "tsv", "jsonl", "json", "parquet"]))
def test_training_and_prediction_read_the_same_rows_from_every_format(tmp_path_factory, rows, kind):
    path = tmp_path_factory.mktemp("same") / f"a.{kind}"
    path.write_bytes(written(rows, kind))
    trained, predicted = outcomes(path, multiline_cells=True)
    assert trained == predicted == rows


@settings(deadline=None, max_examples=200, database=None)
@given(
    st.lists(
        st.sampled_from(
            ['"', '""', ",", "\t", "\n", "\r\n", " ", "\\", '\\"', "a", "x", "b,x\n", ',"', '",']
        ),
        max_size=30,
    ).map("".join),
    st.sampled_from(["csv", "tsv"]),
    st.sampled_from(
        [
            {},
            {"quote_char": ""},
            {"escape_char": "\\"},
            {"skip_initial_space": True},
            {"multiline_cells": True},
            {"on_bad_rows": "skip"},
        ]
    ),
)
def test_training_and_prediction_read_the_same_rows_or_refuse_the_same_line_of_any_text(
    tmp_path_factory, text, kind, options
):
    path = tmp_path_factory.mktemp("same") / f"a.{kind}"
    path.write_bytes(f"text{',' if kind == 'csv' else chr(9)}label\n{text}".encode())
    trained, predicted = outcomes(path, **options)
    if trained == f"data.source: {path} holds no rows.":
        trained = []
    assert trained == predicted


@pytest.mark.parametrize(
    "name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.parquet", "a.arrow", "a.xlsx", "saved"]
)
def test_readers_give_all_columns_where_none_are_wanted(folder, name):
    from datasets import Dataset
    from openpyxl import Workbook

    records, path = (
        [{"id": "1", "text": "a", "label": "x"}, {"id": "2", "text": "b", "label": "y"}],
        Path(name),
    )
    if name == "saved":
        Dataset.from_list(records).save_to_disk(name)
        tables = dataset_tables(
            load_saved(path, "train", DataSection(train=name)), name, [], DataSection(train=name)
        )
    else:
        if name == "a.xlsx":
            book = Workbook()
            for row in (list(records[0]), *(list(record.values()) for record in records)):
                book.active.append(row)
            book.save(name)
        elif name == "a.arrow":
            with pa.ipc.new_file(name, pa.Table.from_pylist(records).schema) as writer:
                writer.write_table(pa.Table.from_pylist(records))
        elif name == "a.parquet":
            pq.write_table(pa.Table.from_pylist(records), name)
        else:
            mark = "\t" if name == "a.tsv" else ","
            lines = (
                [json.dumps(record) for record in records]
                if "json" in name
                else [mark.join(records[0]), *(mark.join(r.values()) for r in records)]
            )
            path.write_text("\n".join(lines), encoding="utf-8")
        tables = readers.READERS[path.suffix](path, [], DataSection(source=name), BadRows())
    found = [
        {key: value for key, value in row.items() if key not in (LINE, RECORD)}
        for table in tables
        for row in table.to_pylist()
    ]
    assert found == records
