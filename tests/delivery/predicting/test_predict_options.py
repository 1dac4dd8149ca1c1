"""`predict`: options of reading, remarks about the file, packed input."""

import csv
import lzma
import zipfile

import pyarrow as pa
import pytest
from openpyxl import Workbook
from saved_models import make_model

from trainer import cli


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    return make_model(tiny_model, tmp_path_factory.mktemp("model"))


@pytest.fixture
def predict(model, capfd):
    """Function that runs the command in this process.

    (*arguments) -> (exit code, standard output, standard error).
    """

    def run(*arguments):
        code = 0
        try:
            cli.app(["predict", str(model), *map(str, arguments)], standalone_mode=False)
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return run


def texts(path):
    """The texts of a file, each of which has a label."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    assert all(row["predicted_label"] for row in rows)
    return [row["text"] for row in rows]


@pytest.mark.parametrize(
    ("content", "option", "expected", "words"),
    [
        (
            'id\ttext\n1\t"open\n2\tb\n3\t"c\n',
            "data.quote_char=''",
            ['"open', "b", '"c'],
            ":2: text follows a closing quote; data.quote_char: '' reads quotes as text",
        ),
        (
            'id,text\n1,"say \\"no\\", now"\n2,b\n',
            'data.escape_char="\\\\"',
            ['say "no", now', "b"],
            ':2: text follows a closing quote; data.escape_char: "\\\\" reads \\" as a quote',
        ),
        (
            'id,text\n1,"a\n2,b\n3,c\n4,d"\n',
            "data.multiline_cells=true",
            ["a\n2,b\n3,c\n4,d"],
            ":2: a quoted cell makes one row of 4 lines, of which 4 look like rows.",
        ),
        (
            'id,text\n1, "a, b"\n',
            "data.skip_initial_space=true",
            ["a, b"],
            ":2: 3 cells, expected 2; data.skip_initial_space: true reads",
        ),
    ],
)
def test_options_of_reading_are_named_by_the_error_and_taken(
    content, option, expected, words, predict, tmp_path
):
    source = tmp_path / ("rows.tsv" if "\t" in content else "rows.csv")
    source.write_text(content, encoding="utf-8")
    code, _, err = predict("--input", source)
    assert (code, f"{source}{words}" in err, len(err) < 600) == (2, True, True), err
    code, _, err = predict("--input", source, "--set", option, "--overwrite")
    assert code == 0, err
    assert texts(tmp_path / f"rows.predicted{source.suffix}") == expected


def test_first_line_of_excel_and_the_sheet_that_is_read_are_said(predict, tmp_path):
    (tmp_path / "rows.csv").write_text("sep=;\ntext;id\na;1\n", encoding="utf-8")
    code, out, err = predict("--input", tmp_path / "rows.csv", "--output", "-")
    assert (code, out.splitlines()[0]) == (0, "text,id,predicted_label,predicted_score"), err
    assert f"{tmp_path}/rows.csv: its first line, sep=;, is not a row; the separator is ';'." in err
    book = Workbook()
    for row in (["text", "id"], ["a", 1]):
        book.active.append(row)
    other = book.create_sheet("Other")
    for row in (["text"], ["b"]):
        other.append(row)
    book.save(tmp_path / "sheets.xlsx")
    code, _, err = predict("--input", tmp_path / "sheets.xlsx")
    assert (code, "sheet 'Sheet' of 2 is read; data.sheet chooses another." in err) == (0, True), (
        err
    )
    assert texts(tmp_path / "sheets.predicted.csv") == ["a"]
    assert (
        predict("--input", tmp_path / "sheets.xlsx", "--set", "data.sheet=Other", "--overwrite")[0]
        == 0
    )
    assert texts(tmp_path / "sheets.predicted.csv") == ["b"]


@pytest.mark.parametrize("packing", ["XZ", "zst", "Zip"])
def test_packed_input_is_labelled_into_a_plain_file(packing, predict, tmp_path):
    content, source = b"id,text\n1,a\n2,b\n", tmp_path / f"rows.csv.{packing}"
    if packing == "Zip":
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("inner name.csv", content)
    elif packing == "XZ":
        source.write_bytes(lzma.compress(content))
    else:
        with pa.CompressedOutputStream(str(source), "zstd") as file:
            file.write(content)
    code, _, err = predict("--input", source)
    assert code == 0, err
    assert texts(tmp_path / "rows.predicted.csv") == ["a", "b"]
    code, _, err = predict("--input", source, "--output", tmp_path / "out.csv.zst")
    assert (code, "out.csv.zst: cannot be written; possible endings: .csv" in err) == (2, True)
