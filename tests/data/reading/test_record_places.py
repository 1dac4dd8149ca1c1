"""Rows that are labelled are named by file and line, as those that are trained on."""

import json

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
