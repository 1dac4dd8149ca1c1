"""Arrow's reading of JSONL blocks against Python's reading of each line, which decides."""

import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.sections.data import DataSection
from trainer.data.reading.bad_rows import BadRows
from trainer.data.reading.formats import json_rows
from trainer.data.reading.formats.json_rows import arrow_records, read_jsonl
from trainer.data.reading.row_columns import SCHEMA
from trainer.data.reading.sources import read_rows
from trainer.errors import DataError

KINDS = pa.schema(
    [
        ("text", pa.string()),
        ("label", pa.int64()),
        ("weight", pa.float64()),
        ("labels", pa.list_(pa.string())),
    ]
)
FIRST = b'{"text": "a", "label": 1, "weight": 0.5, "labels": ["x"], "other": 1}\n'

ORDINARY = [
    b'{"text": "b", "label": 2}',
    b'{"text": "2020-01-01 10:00:00", "label": -0, "weight": 3, "labels": []}',
    b'{"label": 9223372036854775807, "text": null, "weight": 1e-300, '
    b'"other": {"text": "c", "x": [1, {}]}}',
    b'{"t\\u0065xt": "\\ud83d\\ude00 \\u0000 \\"q\\" \\n", "labels": ["y", "y", "z"]}\r',
    (
        '{"text": "für \u2028 \x85 é\u0301 中 \x7f", "weight": null, "labels": null, "other": NaN} '
    ).encode(),
    b'  {"text": "{\\"text\\": 1}"}',
    b"{}",
]
AWKWARD = [
    b"",
    b" \t",
    b"\xef\xbb\xbf{}",
    b'{"text": "a", "text": "b"}',
    b'{"text": "a", "other": 1, "other": 2}',
    b'{"text": 1, "label": 1}',
    b'{"text": true}',
    b'{"text": ["a"]}',
    b'{"text": {"a": 1}}',
    b'{"text": NaN, "label": NaN, "weight": NaN}',
    b'{"weight": Infinity}',
    b'{"weight": -Infinity, "other": Infinity}',
    b'{"other": Inf}',
    b'{"other": [1, -Inf ]}',
    b'{"other": Infinit}',
    b'{"label": 1.0}',
    b'{"label": 1e2}',
    b'{"label": "x"}',
    b'{"label": false}',
    b'{"label": 99999999999999999999}',
    b'{"weight": 9007199254740993}',
    b'{"weight": 1e400}',
    b'{"weight": 123456789012345678901234567890}',
    b'{"labels": [1, "x", null]}',
    b'{"text": "\\ud83d", "label": 1}',
    b'{"text": "\\ude00"}',
    b'{"other": "\\ud83d"}',
    b'{"text": "\\ud83d\\ud83d"}',
    b'{"text": "a\tb"}',
    b'{"text": "a\\xb"}',
    b'{"text": "a"} {"text": "b"}',
    b'{"text": "a"}{"text": "b"}',
    b'{"text": "a"}\r{"text": "b"}',
    b'{"text": "a"',
    b'"label": 1}',
    b'{"text": "a",}',
    b"{'text': 'a'}",
    b'{"text": "a"} x',
    b'{"text": "a"}\x0b',
    b'{"text": "a"}\x00',
    b"[1]",
    b"7",
    b"null",
    b'{"label": 01}',
    b'{"text": "a"} // note',
]


def outcome(folder, content, *, arrow=True):
    """Rows and bad rows, or the refusal; the blocks are as short as a few lines."""
    path = folder / "a.jsonl"
    path.write_bytes(content)
    bad_rows = BadRows()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "JSON_BLOCK_CHARACTERS", 200)
        if not arrow:
            patch.setattr(json_rows, "arrow_records", lambda block, kinds: None)
        try:
            tables = list(read_jsonl(path, KINDS.names, DataSection(source="a.jsonl"), bad_rows))
        except DataError as error:
            return str(error)
    return [row for table in tables for row in table.to_pylist()], bad_rows


def same(one, two):
    """Whether two values are equal, if 1 is 1.0, and NaN is a missing value."""
    return json.dumps(_plain(one)) == json.dumps(_plain(two))


def _plain(value):
    if isinstance(value, float):
        return None if value != value else int(value) if value.is_integer() else value
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return {k: _plain(v) for k, v in value.items()} if isinstance(value, dict) else value


@pytest.mark.parametrize("line", [*ORDINARY, *AWKWARD], ids=repr)
def test_line_among_ordinary_ones_reads_as_python_reads_it(tmp_path, line):
    content = FIRST * 5 + line + b"\n" + FIRST * 5
    assert same(outcome(tmp_path, content), outcome(tmp_path, content, arrow=False))


@settings(deadline=None, max_examples=150, database=None)
@given(
    st.lists(
        st.one_of(st.sampled_from(ORDINARY), st.sampled_from(ORDINARY), st.sampled_from(AWKWARD)),
        max_size=25,
    ),
    st.sampled_from([b"\n", b"\r\n"]),
)
def test_any_mixture_of_lines_reads_as_python_reads_it(tmp_path_factory, lines, newline):
    folder = tmp_path_factory.mktemp("mixed")
    content = FIRST * 3 + newline.join(lines)
    assert same(outcome(folder, content), outcome(folder, content, arrow=False))


@pytest.mark.parametrize("line", ORDINARY[:4], ids=repr)
def test_ordinary_lines_are_read_by_arrow(line):
    table = arrow_records(FIRST + line + b"\n" + FIRST, KINDS)
    assert table.num_rows == 3


@pytest.mark.parametrize(
    "content",
    [
        FIRST.replace(b"{", b"[{", 1),
        b'{"a": 1}\n\n{"a": 2}',
        b'{"text":\n"a"}\n',
        b'{"text": "a"}{"text": "b"}\n{"text":\n"c"}',
    ],
)
def test_lines_that_are_not_one_object_each_are_left_to_python(content):
    assert arrow_records(content, KINDS) is None


def test_line_numbers_go_on_behind_blocks_that_arrow_read(tmp_path):
    rows, bad = outcome(tmp_path, FIRST * 50 + b'{"text": "b"\n' + FIRST * 50 + b"7\n")
    assert len(rows) == 100
    assert [row["line"] for row in bad] == [51, 102]


def test_labels_change_from_numbers_to_texts_within_a_file(tmp_path):
    lines = [
        json.dumps({"text": f"t{i}", "label": i % 2 if i < 60 else "ab"[i % 2]}) for i in range(120)
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "JSON_BLOCK_CHARACTERS", 200)
        rows = read_rows(DataSection(source=str(tmp_path / "a.jsonl")), tmp_path / "cache")
    assert rows.table.schema == SCHEMA
    assert rows.table["label"].to_pylist() == [
        str(i % 2) if i < 60 else "ab"[i % 2] for i in range(120)
    ]
