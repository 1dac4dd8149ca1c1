"""Excel files: values as the sheet shows them, sheets by name, rows of the sheet as lines."""

from datetime import date, datetime
from pathlib import Path

import pytest
from openpyxl import Workbook

from trainer import extras
from trainer.config.sections.data import DataSection
from trainer.data.reading.formats.records import Records
from trainer.data.reading.sources import read_rows
from trainer.errors import DataError, MissingPackageError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path / "rows")


def save(name="a.xlsx", **sheets):
    book = Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(name)


def read(name="a.xlsx", **options):
    return read_rows(DataSection(source=name, **options), Path("../cache"))


def pairs(rows):
    return list(zip(rows.table["text"].to_pylist(), rows.table["label"].to_pylist(), strict=True))


def test_values_are_texts_as_the_sheet_shows_them():
    values = [
        1,
        1.0,
        1.5,
        True,
        False,
        "01",
        "NA",
        date(2026, 1, 2),
        datetime(2026, 1, 2, 3, 4),
        10**15,
    ]
    save(Sheet=[["text", "label", "note"], *(["a", value] for value in values)])
    labels = [
        "1",
        "1",
        "1.5",
        "true",
        "false",
        "01",
        "NA",
        "2026-01-02T00:00:00",
        "2026-01-02T03:04:00",
        "1000000000000000",
    ]
    assert pairs(read()) == [("a", label) for label in labels]
    found = list(Records(Path("a.xlsx"), DataSection(source="a.xlsx"), ["text"]))
    assert found == [{"text": "a", "label": label, "note": None} for label in labels]


def test_rows_are_those_of_the_sheet_and_blank_ones_are_passed_over():
    save(Sheet=[[], ["text", "label"], ["a", "x"], [None, None], ["b", "y"], [None, "z"]])
    rows = read()
    assert pairs(rows) == [("a", "x"), ("b", "y"), (None, "z")]
    assert [rows.where(n) for n in range(3)] == ["a.xlsx:3", "a.xlsx:5", "a.xlsx:6"]


def test_first_sheet_is_read_and_said_and_another_can_be_named():
    save(One=[["text", "label"], ["a", "x"]], Two=[["text", "label"], ["b", "y"]])
    first, second = read(), read(sheet="Two")
    assert (pairs(first), first.remarks) == (
        [("a", "x")],
        ["a.xlsx: sheet 'One' of 2 is read; data.sheet chooses another."],
    )
    assert (pairs(second), second.remarks) == ([("b", "y")], [])
    with pytest.raises(
        DataError,
        match=r"^a.xlsx: no sheet 'Tow'; found: One, Two. Did you mean 'Two'\? Set data.sheet.$",
    ):
        read(sheet="Tow")


def test_what_is_wrong_with_a_sheet_is_worded(monkeypatch):
    save(Sheet=[["body", "label"], ["a", "x"]])
    with pytest.raises(DataError, match=r"^a.xlsx: no column 'text'; found: body, label."):
        read()
    save(Sheet=[])
    with pytest.raises(
        DataError, match=r"^a.xlsx: sheet 'Sheet' is empty. Give one with a header line and rows.$"
    ):
        read()
    Path("a.xlsx").write_bytes(b"text,label\n")
    with pytest.raises(DataError, match=r"^a.xlsx: is not an .xlsx file: "):
        read()
    monkeypatch.setattr(extras, "find_spec", lambda name: None)
    with pytest.raises(
        MissingPackageError,
        match=(
            r"^a.xlsx: reading .xlsx needs packages that are not installed: openpyxl\. "
            r"Run: pip install 'equipoise\[xlsx\]'$"
        ),
    ):
        read()
