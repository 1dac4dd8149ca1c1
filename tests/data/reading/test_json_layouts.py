"""Layouts of JSON files: pandas' are read, others refused; a sample shows the columns."""

import gc
import json
import warnings
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.config.sections.data import DataSection
from trainer.data.reading.formats import json_layouts
from trainer.data.reading.formats.records import Records
from trainer.data.reading.sources import read_rows
from trainer.errors import DataError

FRAME = pd.DataFrame(
    {
        "id": [7, 8, 9],
        "text": ["Ärger, [sehr]", 'she said "no"\n{"a": 1}', "\u2028 \U0001f600"],
        "label": ["x", "y", "x"],
    }
)
ROWS = list(zip(FRAME["text"].str.strip(), FRAME["label"], strict=True))
REMEDY = (
    'Write it with DataFrame.to_json(path, orient="records", lines=True), and end its name '
    "in .jsonl."
)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "rows").mkdir()
    monkeypatch.chdir(tmp_path / "rows")


def both_readings(content, name="a.json", **options):
    """Return (text, label) of each row, or the error, in training and in prediction."""
    Path(name).write_text(content, encoding="utf-8")
    section = DataSection(source=name, **options)
    try:
        table = read_rows(section, Path("../cache")).table
        trained = list(zip(table["text"].to_pylist(), table["label"].to_pylist(), strict=True))
    except DataError as error:
        trained = str(error)
    try:
        predicted = [
            (row.get("text"), row.get("label")) for row in Records(Path(name), section, ["text"])
        ]
    except DataError as error:
        return trained, str(error)
    cleaned = [tuple(v.strip() if isinstance(v, str) else v for v in row) for row in predicted]
    assert isinstance(trained, str) or cleaned == trained
    return trained, predicted


@pytest.mark.parametrize(
    "content",
    [
        FRAME.to_json(),
        FRAME.to_json(indent=2),
        FRAME.to_json(force_ascii=False) + "\n",
        FRAME.to_json(orient="split"),
        FRAME.to_json(orient="split", index=False, indent=1),
        FRAME.to_json(orient="table"),
        FRAME.to_json(orient="records"),
        FRAME.to_json(orient="records", lines=True),
        json.dumps({"data": FRAME.to_dict("records")}, indent=1),
        json.dumps({"data": FRAME.to_dict("records")}),
    ],
)
@pytest.mark.parametrize("size", [3, 1 << 18])
def test_layouts_of_pandas_are_read(content, size, monkeypatch):
    monkeypatch.setattr(json_layouts, "READ_CHARACTERS", size)
    assert both_readings(content)[0] == ROWS


@pytest.mark.parametrize(
    "content",
    [
        FRAME.to_json(orient="index"),
        FRAME.to_json(orient="index", indent=1),
        json.dumps({"rows": FRAME.to_dict("records")}, indent=1),
        json.dumps({"version": 1, "data": FRAME.to_dict("records")}),
        "{}",
    ],
)
def test_other_objects_are_refused_in_one_line(content):
    expected = f"a.json: is one JSON object in a layout that cannot be read. {REMEDY}"
    assert both_readings(content) == (expected, expected)


def test_files_are_closed():
    content = json.dumps({"text": "a", "label": "x"})
    gc.collect()  # what other tests left
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        both_readings(content)
        gc.collect()
    assert not [w for w in caught if w.category is ResourceWarning]


def test_list_of_lists_is_refused_in_one_line():
    expected = f"a.json: is a list of lists, without column names. {REMEDY}"
    assert both_readings(FRAME.to_json(orient="values")) == (expected, expected)


def test_messages_about_large_odd_files_are_short():
    frame = pd.DataFrame({"body": ["some words"] * 3_000, "label": ["x"] * 3_000})
    for content in (
        frame.to_json(),
        frame.to_json(orient="index"),
        frame.to_json(orient="split"),
        frame.to_json(orient="values"),
    ):
        for name in ("a.json", "a.jsonl"):
            for message in both_readings(content, name):
                assert isinstance(message, str)
                assert len(message) < 600
    for message in both_readings(
        FRAME.to_json().replace("text", "body"), text_column="body", label_column="id"
    )[:1]:
        assert len(message) == 3 or len(message) < 600


def test_objects_that_hold_lists_of_objects_are_rows_where_there_are_several():
    line = json.dumps({"text": "a", "label": "x", "turns": [{"role": "user"}]})
    assert both_readings(line)[0] == [("a", "x")]
    assert both_readings(f'{{"turns": [{{"role": "user"}}]}}\n{line}')[0] == [
        (None, None),
        ("a", "x"),
    ]


@settings(deadline=None, max_examples=200, database=None)
@given(
    st.lists(
        st.one_of(
            st.fixed_dictionaries({"text": st.text(max_size=5)}),
            st.integers(),
            st.text('[]{},"\\ ', max_size=4),
        ),
        max_size=8,
    ),
    st.sampled_from([None, 1]),
    st.integers(1, 9),
    st.integers(0, 60),
)
def test_list_that_is_read_bit_by_bit_gives_what_python_reads_at_once(
    tmp_path_factory, values, indent, size, cut
):
    content = json.dumps(values, indent=indent)
    if cut < 10:
        content = content[: len(content) // 2] + content[len(content) // 2 + 1 :]
    path = tmp_path_factory.mktemp("list") / "a.json"
    path.write_text(content, encoding="utf-8")
    try:
        expected = json.loads(content)
    except ValueError:
        expected = None
    if content[:1] != "[":
        return
    with pytest.MonkeyPatch.context() as patch, path.open(encoding="utf-8", newline="") as text:
        patch.setattr(json_layouts, "READ_CHARACTERS", size)
        try:
            found = list(json_layouts.json_records(text, "a.json", ["text"]))
        except DataError:
            found = None
    if not (expected and isinstance(expected[0], list)):
        assert found == expected


@pytest.mark.parametrize("as_list", [False, True])
def test_columns_are_judged_by_the_first_thousand_objects(as_list):
    def content(*records):
        return json.dumps(records) if as_list else "\n".join(map(json.dumps, records))

    name = "a.json" if as_list else "a.jsonl"
    full = {"text": "a", "label": "x"}
    trained, predicted = both_readings(
        content({"text": "no label"}, {"label": "x"}, full, full), name
    )
    assert trained == predicted == [("no label", None), (None, "x"), ("a", "x"), ("a", "x")]
    assert len(both_readings(content(*[{"id": 1}] * 999, full), name)[1]) == 1000
    for message in both_readings(content(*[{"id": 1}] * 1000, full), name):
        assert "no column 'text' in the first 1,000 rows; found: id." in message
    trained, predicted = both_readings(content(*[{"text": "a"}] * 1000), name)
    assert "no column 'label' in the first 1,000 rows; found: text." in trained
    assert len(predicted) == 1000  # the label is not needed there


def test_broken_list_is_refused_with_its_place_however_late(monkeypatch):
    monkeypatch.setattr(json_layouts, "READ_CHARACTERS", 64)
    content = json.dumps([{"text": f"row {n}", "label": "x"} for n in range(100)])
    place = content.index("row 77")
    for message in both_readings(content[: place - 1] + "!" + content[place:]):
        assert message.startswith(
            f"a.json: broken JSON: Expecting value: char {place - 1:,}, near "
        )
    for message in both_readings(content + " x"):
        assert message == (
            "a.json: broken JSON: text follows the list, 'x'. Give one list, or one object a line."
        )
