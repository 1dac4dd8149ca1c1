"""Rows that are labelled are named by file and line, as those that are trained on."""

import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.config.sections.data import DataSection
from trainer.data.reading.formats.records import Records
from trainer.data.reading.sources import read_rows

ROWS = [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(2500)]


def parquet(path):
    pq.write_table(pa.Table.from_pylist(ROWS), path, row_group_size=700)


FILES = {
    "rows.csv": lambda path: path.write_text(
        'text,label\n"two\nlines",a\n\nthird,b\n' + "x,a\n" * 1500
    ),
    "rows.jsonl": lambda path: path.write_text(
        "\n".join(json.dumps(row) + "\n" * (n % 2) for n, row in enumerate(ROWS))
    ),
    "rows.json": lambda path: path.write_text(json.dumps(ROWS)),
    "rows.parquet": parquet,
}


@pytest.mark.parametrize("name", FILES)
def test_places_are_those_of_training(name, tmp_path):
    path = tmp_path / name
    FILES[name](path)
    data = DataSection(source=str(path))
    trained = read_rows(data, tmp_path / "cache")
    records = Records(path, data, ["text"])
    found = [(row["text"], records.place) for row in records]
    texts = trained.table["text"].to_pylist()
    assert found == [(text, trained.places.where(n)) for n, text in enumerate(texts)]


def test_a_file_that_the_reading_thread_closes_now_has_no_estimate(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "x\n" * 100)
    records = Records(path, DataSection(source=str(path)), ["text"])
    assert records.estimated_rows(1) is None  # nothing is open yet
    assert len(list(records)) == 100
    assert records.estimated_rows(100) is None  # closed
    descriptor = os.open(path, os.O_RDONLY)
    records._raw = open(descriptor, "rb", closefd=False)  # noqa: SIM115
    os.close(descriptor)  # its `closed` is still False, as between the check and the question
    assert records.estimated_rows(100) is None
