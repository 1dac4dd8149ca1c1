"""Messages have at most 600 characters and three lines, whatever a file contains.

The remedy at the end of a message stays complete.
"""

import json
import pickle
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.config import check_config
from trainer.config.sections.balancing import BalanceSection
from trainer.config.sections.data import DataSection
from trainer.config.yaml_source import YamlSource
from trainer.data.cleaning.clean import clean_rows
from trainer.data.prepare import read_splits
from trainer.data.reading.column_checks import check_columns
from trainer.data.reading.sources import read_rows
from trainer.errors import (
    ConfigError,
    DataError,
    RunError,
    Stopped,
    bounded,
    brief,
    did_you_mean,
    listing,
)

ODD = st.one_of(
    st.text(max_size=2000),
    st.text(
        alphabet=st.sampled_from("ab \n\r\t\x00\x1b\x85\u2028'\",{}\u200b\ud83d"), max_size=400
    ).map(lambda text: text * 20),
    st.integers(1, 80_000).map(lambda size: "x" * size),
)
REMEDY = "Fix the file, or set data.on_bad_rows: skip."


@given(ODD, ODD)
def test_message_is_short_begins_with_its_place_and_ends_with_its_remedy(first, second):
    message = str(DataError(f"rows.csv:7: found {first} where {second} is needed. {REMEDY}"))
    assert len(message) <= 600
    assert message.count("\n") <= 2
    assert message.startswith("rows.csv:7: found ")
    assert message.endswith(REMEDY)
    assert not set(message) & set("\x00\x1b\x85\u2028\r")
    assert bounded(message) == message


@given(st.lists(ODD, max_size=30), st.integers(1, 25))
def test_listing_is_short_and_counts_every_name(names, most):
    text = listing(names, most)
    assert len(text) <= max(300, 20 * most) + 30
    assert "\n" not in text
    shown = [brief(name, max(60, 300 // max(1, len(names)))) for name in sorted(names)]
    number = next(
        n
        for n in range(len(names) + 1)
        if text == ", ".join(shown[:n]) + (f" and {len(names) - n} more" if n < len(names) else "")
    )
    assert number <= most


def test_short_messages_and_lists_are_left_as_they_are():
    words = "rows.csv: no column 'text'; found: body, label.\nDid you mean 'body'?"
    assert str(DataError(words)) == words
    assert listing(["b", "a", "c"], 2) == "a, b and 1 more"
    assert listing(["/a" * 100]) == "/a" * 100  # a single path stays whole
    assert brief("x" * 60) == "x" * 60
    assert brief("/folder" * 20 + "/file.csv", 20) == "/folder/f…r/file.csv"


def test_each_fault_of_a_config_is_short_and_all_are_counted():
    values = {
        "model": {"name": "m"},
        "data": {"source": "x" * 5000, "a\n" * 3000: 1, "text_column": 7},
        "y" * 3000: 1,
    }
    values["balance"] = {"method": "z" * 70_000}
    with pytest.raises(ConfigError) as raised:
        check_config(YamlSource("c.yaml", values))
    lines = str(raised.value).split("\n")
    assert len(lines) == 4
    assert max(map(len, lines)) <= 600
    with pytest.raises(ConfigError) as raised:
        check_config(
            YamlSource(
                "c.yaml", values | {"data": {"source": "x"} | {f"key{n}": n for n in range(500)}}
            )
        )
    lines = str(raised.value).split("\n")
    assert (len(lines), lines[-1]) == (20, "and 483 more.")


@given(ODD)
def test_message_survives_the_way_to_another_process(text):
    for error in (DataError(text), ConfigError(text), RunError(text), Stopped("ended", 3)):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("size", [5_000, 69_000])
@pytest.mark.parametrize("odd", ["x", "two words ", "\u4e16", "it's, "])
def test_columns_and_labels_of_any_length_give_short_messages(tmp_path, size, odd):
    long = (odd * size)[:size]
    with pytest.raises(DataError) as raised:
        check_columns(
            "rows.csv",
            ["text"],
            [long, *(f"{n}{long}" for n in range(50))],
            DataSection(source="rows.csv"),
        )
    assert len(str(raised.value)) <= 600
    path = tmp_path / "rows.jsonl"
    messages = []
    for labels in ([long, "b"], [long], ["a", "A" + long, "b" + long]):
        rows = [
            {"text": f"{n} words", "label": labels[n % len(labels)], long: n} for n in range(12)
        ] + [{"text": "one", "label": labels[-1] + "1"}]
        path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        for values in (
            {},
            {"text_column": long + "!"},
            {"drop_labels": [long + "?"]},
            {"group_column": long},
            {"weight_column": "text"},
        ):
            data = DataSection(source=str(path), **values)
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                try:
                    clean_rows(read_rows(data, tmp_path / "cache"), data.clean, data.drop_labels)
                    read_splits(data, None, BalanceSection(), seed=1, cache_dir=tmp_path / "cache")
                except DataError as error:
                    messages.append(str(error))
            messages += [bounded(str(warning.message)) for warning in told]
    assert len(messages) >= 6
    assert max(map(len, messages)) <= 600


def test_warnings_of_a_command_are_short_too_and_told_once():
    code = (
        "import warnings\nfrom trainer.launch.exits import worded_errors\nwith worded_errors():\n"
        "    for _ in range(3):\n"
        "        warnings.simplefilter('always')\n"
        "        warnings.warn('a' * 9000 + ' Set data.x.')"
    )
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert len(done.stderr) <= 600 + len("warning: \n")
    assert done.stderr.endswith("Set data.x.\n")
    assert done.stderr.count("warning: ") == 1


def test_hint_for_a_long_name_is_short():
    assert did_you_mean("a" * 5000, ["a" * 4999]) == ""
    assert len(did_you_mean("a" * 150, ["a" * 149 + "b"])) < 90
