"""The CSV parser: Arrow reads blocks as the strict parser does; what the parser refuses."""

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.formats.csv_rows import CsvRows
from trainer.data.reading.formats.text_encoding import text_blocks
from trainer.data.reading.row_places import LINE
from trainer.errors import DataError


def read(text, *, size=1 << 20, arrow=True, columns=None, **options):
    """(rows with their lines, bad rows, records of several lines) of a text, or what refuses it."""
    section = DataSection(
        source="a.csv", **({"column_names": columns} if columns else {}), **options
    )
    bad_rows = BadRows()
    blocks = text_blocks(io.BytesIO(text.encode()).read, "a.csv", "utf-8", size)
    rows = CsvRows(blocks, "a.csv", [], section, ".csv", bad_rows, lambda names: None)
    if not arrow:
        rows._by_arrow = lambda block: (yield from ()) or False
    try:
        found = [tuple(row.values()) for table in rows.tables() for row in table.to_pylist()]
    except DataError as error:
        return str(error)
    return found, list(bad_rows), bad_rows.num_multiline


TEXTS = st.lists(
    st.sampled_from(
        [
            '"',
            '""',
            '"""',
            ",",
            "\n",
            "\r",
            "\r\n",
            " ",
            "\\",
            "a",
            "é",
            '","',
            '"\n"',
            '",\n',
            ',"',
            '"a"',
            "a,b\n",
            "\0",
        ]
    ),
    max_size=40,
).map("".join)
SIZES = st.sampled_from([1, 2, 3, 5, 8, 13, 40, 1000])


@settings(deadline=None, max_examples=1500, database=None)
@given(TEXTS, SIZES, st.integers(1, 3), st.booleans(), st.sampled_from(['"', "", "a"]))
def test_blocks_that_arrow_reads_give_the_rows_lines_and_faults_of_the_strict_parser(
    text, size, width, multiline, quote
):
    options = {
        "columns": ["x", "label", "y"][:width],
        "multiline_cells": multiline,
        "quote_char": quote,
    }
    whole, in_blocks = (read(text, size=each, arrow=False, **options) for each in (1 << 20, size))
    assert read(text, **options) == whole
    assert read(text, size=size, **options) == in_blocks
    if isinstance(whole, str):  # small blocks may find another of several faults first
        assert isinstance(in_blocks, str)
    else:
        assert in_blocks == whole


@settings(deadline=None, max_examples=500, database=None)
@given(TEXTS, SIZES)
def test_text_without_a_fault_reads_as_python_reads_it(text, size):
    lines = io.StringIO(text, newline="")
    try:
        expected = [tuple(row) for row in csv.reader(lines, strict=True) if row]
    except csv.Error:
        return
    width = len(expected[0]) if expected else 1
    if text and all(len(row) == width for row in expected):
        found = read(
            text, size=size, columns=[f"column {n}" for n in range(width)], multiline_cells=True
        )
        assert ([row[:-1] for row in found[0]], found[1]) == (expected, [])


@settings(deadline=None, max_examples=300, database=None)
@given(
    st.lists(
        st.lists(st.text('", \r\n\\aé;\0', max_size=8), min_size=3, max_size=3),
        min_size=1,
        max_size=12,
    ),
    SIZES,
    st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_what_python_writes_is_read_back_with_its_lines(rows, size, end):
    out = io.StringIO(newline="")
    writer, starts = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL), []
    for row in rows:
        starts.append(len(list(io.StringIO(out.getvalue() + "x", newline=""))))
        writer.writerow(row)
    found, bad, _ = read(
        out.getvalue(), size=size, columns=["x", "label", "y"], multiline_cells=True
    )
    assert (found, bad) == ([(*row, start) for row, start in zip(rows, starts, strict=True)], [])


def refusals(text, **options):
    """Line and reason of each bad row."""
    return [(row["line"], row["reason"]) for row in read(text, **options)[1]]


def rows(text, **options):
    return [row[:-1] for row in read(text, **options)[0]]


HEAD = "text,label\n"


def test_text_behind_a_closing_quote_is_refused_and_only_its_first_line_is_lost():
    text = HEAD + 'a,x\n"b" c,x\nd,y\n"e\nf" g,y\nh,x\n'
    reason = "text follows a closing quote; data.quote_char: '' reads quotes as text"
    assert refusals(text) == [(3, reason), (5, reason)]
    assert rows(text) == [("a", "x"), ("d", "y"), ('f" g', "y"), ("h", "x")]


def test_quote_left_open_costs_its_line_alone():
    text = (
        HEAD
        + "".join(f"row {n},x\n" for n in range(50))
        + '"open,x\n'
        + "".join(f"row {n},y\n" for n in range(50))
    )
    assert refusals(text) == [
        (52, "a quote is opened and never closed; data.quote_char: '' reads quotes as text")
    ]
    assert rows(text) == [
        *((f"row {n}", "x") for n in range(50)),
        *((f"row {n}", "y") for n in range(50)),
    ]


def test_escaped_quotes_are_refused_with_the_option_and_read_with_it():
    text = (
        HEAD
        + r'"he said \"no\", then left","x"'
        + "\n"
        + r'"C:\new \\ \"a\"","x"'
        + "\n"
        + r"c:\dir,x"
        + "\n"
        + r'"left\",","y"'
        + "\n"
        + 'b "\\n",y\n'
    )
    assert all(
        reason.endswith('; data.escape_char: "\\\\" reads \\" as a quote')
        for _, reason in refusals(text)
    )
    assert [line for line, _ in refusals(text)] == [2, 3, 5]
    assert rows(text, escape_char="\\") == [
        ('he said "no", then left', "x"),
        ('C:\\new \\ "a"', "x"),
        ("c:\\dir", "x"),
        ('left",', "y"),
        ('b "\\n"', "y"),
    ]


def test_space_between_separator_and_quote_is_named_and_can_be_passed_over():
    text = 'label,text\nx, "text, more"\ny, "text" \n'
    hint = "data.skip_initial_space: true reads a quote after spaces"
    assert refusals(text)[0] == (2, f"3 cells, expected 2; {hint}")
    assert rows('label,text\nx, "text, more"\ny,  plain\n', skip_initial_space=True) == [
        ("x", "text, more"),
        ("y", "plain"),
    ]


SWALLOWED = HEAD + 'a,x\n"open,x\nb,y\nc,x\nclosed",y\nd,x\n'


@pytest.mark.parametrize("arrow", [True, False])
def test_cell_that_holds_rows_is_refused_with_its_lines_and_remedies(arrow):
    remedy = (
        "Set data.quote_char: '' to read quotes as text, or data.multiline_cells: true if "
        "the text belongs together."
    )
    assert (
        read(SWALLOWED, arrow=arrow)
        == f"a.csv:3: a quoted cell makes one row of 4 lines, of which 4 look like rows. {remedy}"
    )
    assert rows(SWALLOWED, arrow=arrow, quote_char="") == [
        ("a", "x"),
        ('"open', "x"),
        ("b", "y"),
        ("c", "x"),
        ('closed"', "y"),
        ("d", "x"),
    ]
    found, bad, num_multiline = read(SWALLOWED, arrow=arrow, multiline_cells=True)
    assert [row[0] for row in found] == ["a", "open,x\nb,y\nc,x\nclosed", "d"]
    assert ([row[-1] for row in found], bad, num_multiline) == ([2, 3, 7], [], 1)


@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize("columns", [["text", "label"], ["text", "id"]])
def test_labels_that_only_later_rows_have_count(arrow, columns):
    text = 'a,q\n"open,x\nb,y\nclosed",z\n' + "c,x\nd,y\ne,z\n"
    message = read(text, columns=columns, arrow=arrow)
    if columns[1] == "label":
        assert message.startswith(
            "a.csv:2: a quoted cell makes one row of 3 lines, of which 3 look like rows."
        )
    else:  # one inner line only
        assert len(message[0]) == 5


@pytest.mark.parametrize(
    "cell",
    [
        # a separator on each line, but no labels
        "Dear John,\nhow are you, and\nwhere, do you live\nyours, Ann",
        "one\ntwo\n\nthree",
        "it quotes a row\nb,x\nand goes on",
        'dialogue\n""no"", she said\n""yes"", he said',
        "a,b\nc,d\ne,f\ng,h",
    ],
)
@pytest.mark.parametrize("arrow", [True, False])
def test_texts_of_several_lines_are_texts(cell, arrow):
    found = read(HEAD + f'a,x\n"{cell}",y\nb,x\n', arrow=arrow)
    assert [row[:2] for row in found[0]] == [("a", "x"), (cell.replace('""', '"'), "y"), ("b", "x")]
    assert found[1:] == ([], 1)


@pytest.mark.parametrize("arrow", [True, False])
def test_without_a_label_column_all_inner_lines_must_look_like_rows(arrow):
    text = 'id,text\n1,"open\n2,b\n3,c\n4,d"\n5,e\n'
    assert read(text, arrow=arrow).startswith(
        "a.csv:2: a quoted cell makes one row of 4 lines, of which 4 look like rows."
    )
    assert len(read(text.replace("3,c", "3 c"), arrow=arrow)[0]) == 2
    assert len(read(text.replace('4,d"', '4 d"'), arrow=arrow)[0]) == 2


@pytest.mark.parametrize("arrow", [True, False])
def test_without_a_label_column_commas_of_sentences_make_no_rows(arrow):
    letter = '"Dear John\nthanks, I am well\nand you, Ann\nYours, Tom"'
    assert len(read(f"id,text\n1,{letter}\n2,b\n", arrow=arrow)[0]) == 2


@pytest.mark.parametrize("arrow", [True, False])
def test_rows_swallowed_in_pairs_are_refused(arrow):
    pairs = "".join(f'"opened {n}\tpos\nclosed {n}"\tneg\n' for n in range(20))
    text = (
        "text\tlabel\n"
        + "".join(f"plain {n}\t{'pos' if n % 2 else 'neg'}\n" for n in range(80))
        + pairs
    )
    words = "a.csv:82: a quoted cell makes one row of 2 lines, of which 2 look like rows."
    assert read(text, separator="\t", arrow=arrow).startswith(words)
    assert len(rows(text, separator="\t", arrow=arrow, quote_char="")) == 120
    assert (
        len(rows(text.replace("\tpos\nclosed", "\tsure\nclosed"), separator="\t", arrow=arrow))
        == 100
    )


@pytest.mark.parametrize("arrow", [True, False])
def test_sentence_that_starts_with_a_label_is_no_row(arrow):
    assert len(read('label,text\nyes,a\nno,b\nyes,"first\nno, never"\n', arrow=arrow)[0]) == 3


@pytest.mark.parametrize("arrow", [True, False])
def test_missing_label_is_no_known_one(arrow):
    poem = '"the sea,\nthe sky,\nthe wind,\nthe end"'
    assert len(read(f"{HEAD}a,x\nb,\n{poem},y\n", arrow=arrow)[0]) == 3


def test_open_quote_that_ends_in_a_row_of_other_length_costs_its_line_alone():
    text = HEAD + 'a,x\n"open,x\nb,y\nc,x\nclosed",y,z\nd,x\n'
    assert [line for line, _ in refusals(text)] == [3, 6]
    assert rows(text) == [("a", "x"), ("b", "y"), ("c", "x"), ("d", "x")]


@pytest.mark.parametrize("first", ["sep=;\n", "\ufeffsep=;\r\n", "SEP=;\n"])
def test_first_line_of_excel_sets_the_separator(first):
    section, bad_rows = DataSection(source="a.csv"), BadRows()
    blocks = text_blocks(
        io.BytesIO(f"{first}text;label\na, b;x\n".encode()).read, "a.csv", "utf-8", 100
    )
    table = next(
        CsvRows(blocks, "a.csv", ["text"], section, ".csv", bad_rows, lambda names: None).tables()
    )
    assert table.to_pydict() == {"text": ["a, b"], LINE: [3]}
    line = first.strip("\ufeff\r\n")
    assert bad_rows.remarks == [
        f"a.csv: its first line, {line.replace('SEP', 'sep')}, is not a row; the separator is ';'."
    ]
    assert rows("sep=;\ntext|label\na;b|x\n", separator="|") == [("a;b", "x")]


def test_long_content_of_bad_rows_is_cut():
    (bad,) = read(HEAD + "a" * 5_000 + "\n")[1]
    assert bad["content"] == "a" * 1_000 + " ... (5,000 characters)"
