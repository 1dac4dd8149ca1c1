"""Copies of one table in every format give the same rows, labels, cleaning and splits."""

import csv
import json
import tempfile
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection, SplitSection
from trainer.data.cleaning.reasons import REASONS
from trainer.data.prepare import read_splits
from trainer.errors import DataError

ODD = [
    "",
    " ",
    '"',
    '""',
    'say "no"',
    "a,b",
    "a;b",
    "a\tb",
    "one\ntwo",
    "one\r\ntwo",
    "back\\slash",
    '\\"',
    "\u2028",
    "\u200b",
    "NaN",
    "null",
    "0",
]
ODD += [
    "caf\u00e9",
    "cafe\u0301",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "\ufeffmark",
    "'single'",
    "#hash",
    "-",
    "=1+1",
    "x" * 300,
]
TEXTS = st.one_of(
    st.sampled_from(ODD),
    st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"), max_size=12),
    st.none(),
)
LABELS = {
    "texts": st.sampled_from(
        [
            "good",
            "good ",
            "good\u200b",
            "Good",
            "bad",
            "caf\u00e9",
            "cafe\u0301",
            "n/a",
            "None",
            "01",
            "1",
            None,
        ]
    ),
    "whole numbers": st.sampled_from([0, 1, 2, 10, -3, None]),
    "floats": st.sampled_from(
        [0.0, -0.0, 1.0, 2.0, 10.0, 2.5, 0.1, 1e-05, 1e-07, 1e16, 2.0**53, 1e22, None]
    ),
    "floats in 32 bits": st.sampled_from([0.1, -0.0, 1e-05, 2.5, 3.0, 1e10, None]),
    "floats in 16 bits": st.sampled_from([0.1, -0.0, 2.5, 3.0, None]),
    "lists": st.sampled_from([[1.5], [1.0], [2, 1.0], [0.1, 2]]),
    "booleans": st.sampled_from([True, False, None]),
}

TWO = {
    "texts": ["good", "bad"],
    "whole numbers": [0, 1],
    "floats": [0.0, 1.0],
    "booleans": [True, False],
    "lists": [[1.5], [0.1, 2]],
}
TWO |= {"floats in 32 bits": [0.1, 2.5], "floats in 16 bits": [0.1, 2.5]}


def write_copies(folder, rows, kind=None):
    """{format: path} of the same rows."""
    table = pa.table(
        {
            "text": pa.array([text for text, _ in rows], pa.string()),
            "label": pa.array([label for _, label in rows], kind),
        }
    )
    pq.write_table(table, folder / "rows.parquet")
    with (
        pa.OSFile(str(folder / "rows.arrow"), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    for name, separator in (("rows.csv", ","), ("rows.tsv", "\t")):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, delimiter=separator, quoting=csv.QUOTE_ALL).writerows(
                [("text", "label"), *rows]
            )
    records = [{"text": text, "label": label} for text, label in rows]
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records), encoding="utf-8"
    )
    (folder / "rows.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    return sorted(folder.glob("rows.*"))


def found(path, cache_dir):
    """Return the reason, text and label of each row, the classes and the splits; or the error."""
    data = DataSection(source=str(path), multiline_cells=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            split = SplitSection(train=0.5, validation=0.25, test=0.25)
            clean, splits = read_splits(data, split, BalanceSection(), seed=1, cache_dir=cache_dir)
        except DataError as error:
            return str(error).replace(str(path), "FILE")
    texts = clean.rows.table["text"].to_pylist()
    fates = [
        (REASONS[reason], text or "", label)
        for reason, text, label in zip(
            clean.reasons_N, texts, clean.label_ids_N.tolist(), strict=True
        )
    ]
    return (
        fates,
        clean.labels.names,
        clean.naming.classes,
        {name: ids.tolist() for name, ids in splits.named.items()},
    )


@pytest.mark.parametrize("kind", list(LABELS))
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_every_format_gives_the_same_rows_labels_and_splits(kind, data):
    odd = data.draw(st.lists(st.tuples(TEXTS, LABELS[kind]), max_size=30))
    labels = [*TWO[kind], *(label for _, label in odd if label is not None)]
    plain = [
        (f"plain text {number}", label) for number, label in enumerate(4 * labels)
    ]  # so that no class is lost, and all splits have rows
    rows = data.draw(st.permutations([*odd, *plain]))
    kinds = {"floats in 32 bits": pa.float32(), "floats in 16 bits": pa.float16()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = {
            path.suffix: found(path, folder / "cache")
            for path in write_copies(folder, rows, kinds.get(kind))
        }
    first = results.pop(".parquet")
    assert kind == "lists" or not isinstance(first, str), (
        first
    )  # lists of fractions are refused in every format
    for suffix, result in results.items():
        assert result == first, suffix
