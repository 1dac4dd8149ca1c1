"""`init` understands files as they lie around, or says what it tried.

Each case is written, looked at, and its YAML is checked as `train --check` does.
"""

import csv
import gzip
import io
import json

import pandas as pd
import pytest

from trainer.config.config import load_config
from trainer.errors import TrainerError
from trainer.runs import training_run
from trainer.starting import command
from trainer.starting.command import Asking

MOODS = ("good", "bad", "mixed")


def text(number, words="the service was quick and the people are kind in shop"):
    return f"{words} number {number}, really"


def rows(count=60, labels=MOODS):
    return [(text(n), labels[n % len(labels)]) for n in range(count)]


def table(records, header=("text", "label"), separator=",", end="\n", **options):
    out = io.StringIO()
    writer = csv.writer(out, delimiter=separator, lineterminator=end, **options)
    writer.writerows([header, *records] if header else records)
    return out.getvalue()


def lines(records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def objects(count=60, **columns):
    return [
        {"text": text(n)} | {key: value(n) for key, value in columns.items()} for n in range(count)
    ]


PLAIN = {"text_column": "text", "label_column": "label"}
ORANGE = "Text\tCategory\nstring\tdiscrete\nmeta\tclass\n"
QUOTED = [(f'He said "no", then\nleft; {n}', MOODS[n % 3]) for n in range(60)]
PREMISES = [(text(n), text(n, "a man is in the shop"), MOODS[n % 3]) for n in range(60)]
TOXIC = [(n, text(n), int(n % 3 == 0), int(n % 4 == 0), 0 if n else 1) for n in range(60)]
AIRLINE = [
    (
        1000 + n,
        f"u{n % 15}",
        f"2024-05-{1 + n % 28:02d} 10:00:00",
        0.5 + n / 200,
        text(n),
        MOODS[n % 3],
    )
    for n in range(90)
]
GERMAN = [
    (f"Die Bedienung war schön und größer als in Köln, natürlich für {n} Leute", MOODS[n % 3])
    for n in range(60)
]
ONE_RARE = [*rows(60, MOODS[:2]), (text(99), "mixed")]

UNDERSTOOD = {
    "plain.csv": (table(rows()), PLAIN),
    "semicolon.csv": (
        table(GERMAN, separator=";").encode("cp1252"),
        PLAIN | {"separator": ";", "encoding": "cp1252"},
    ),
    "utf16.csv": (table(rows()).encode("utf-16"), PLAIN | {"encoding": "utf-16"}),
    "mark.csv": (table(rows()).encode("utf-8-sig"), PLAIN),
    "no_header.tsv": (
        table([(label, words) for words, label in rows()], header=None, separator="\t"),
        PLAIN | {"column_names": ["label", "text"]},
    ),
    "numbers_no_header.csv": (
        table([(n % 2, 7_000 + n, words) for n, (words, _) in enumerate(rows())], header=None),
        PLAIN | {"column_names": ["label", "column_2", "text"]},
    ),
    "tabs.txt": (table(rows(), separator="\t"), PLAIN | {"separator": "\t"}),
    "bars.csv": (table(rows(), separator="|"), PLAIN | {"separator": "|"}),
    "quoted_newlines.csv": (table(QUOTED), PLAIN),
    "mac_lines.csv": (table(rows(), end="\r"), PLAIN),
    "backslashes.csv": (
        "text,label\n" + "".join(f'"say \\"no\\", {n}",{MOODS[n % 3]}\n' for n in range(60)),
        PLAIN | {"escape_char": "\\"},
    ),
    "open_quotes.tsv": (
        'text\tlabel\n"half a quote\tgood\n' + table(rows(), header=None, separator="\t"),
        PLAIN | {"quote_char": ""},
    ),
    "spaces.csv": (
        "text, label\n" + "".join(f'"{words}", {label}\n' for words, label in rows()),
        {"text_column": "text", "label_column": "label", "skip_initial_space": True},
    ),
    "titles.csv": ("Export of May\n\n" + table(rows()), PLAIN | {"skip_lines": 1}),
    "orange.tab": (
        ORANGE + table(rows(), header=None, separator="\t"),
        {"text_column": "Text", "label_column": "Category", "skip_lines_after_header": 2},
    ),
    "pandas_index.csv": (pd.DataFrame(rows(), columns=["text", "label"]).to_csv(), PLAIN),
    "array.json": (
        json.dumps(objects(intent=lambda n: MOODS[n % 3])),
        {"text_column": "text", "label_column": "intent"},
    ),
    "pandas.json": (pd.DataFrame(rows(), columns=["text", "label"]).to_json(), PLAIN),
    "lists.jsonl": (
        lines(objects(topics=lambda n: [MOODS[n % 3], *["extra"] * (n % 2)])),
        {"text_column": "text", "label_column": "topics"},
    ),
    "vectors.jsonl": (
        lines(objects(label=lambda n: [n % 2, 1 - n % 2, n % 3 // 2])),
        PLAIN | {"label_names": ["label_0", "label_1", "label_2"]},
    ),
    "written_lists.csv": (
        table([(text(n), str([MOODS[n % 3], "x"][: 1 + n % 2])) for n in range(60)]),
        PLAIN,
    ),
    "multi_hot.csv": (
        table(TOXIC, header=("id", "comment_text", "toxic", "insult", "threat")),
        {"text_column": "comment_text", "label_columns": ["toxic", "insult", "threat"]},
    ),
    "bar_labels.csv": (
        table(
            [(text(n), "|".join(MOODS[: 1 + n % 3])) for n in range(60)], header=("text", "tags")
        ),
        {"text_column": "text", "label_column": "tags", "label_separator": "|"},
    ),
    "comma_labels.csv": (
        table([(text(n), ["good, bad", "good", "bad, mixed"][n % 3]) for n in range(60)]),
        PLAIN | {"label_separator": ","},
    ),
    "comma_names.csv": (table(rows(labels=["Food, drinks", "Cars", "Books, music"])), PLAIN),
    "numeric.csv": (
        table([(text(n), n % 5) for n in range(60)], header=("review", "stars")),
        {"text_column": "review", "label_column": "stars"},
    ),
    "missing_labels.csv": (
        table([(words, label if n % 4 else "NaN") for n, (words, label) in enumerate(rows())]),
        PLAIN | {"label_map": {"NaN": None}},
    ),
    "capitals.csv": (
        table([(text(n), ["Good", "good", "bad", "Good"][n % 4]) for n in range(80)]),
        PLAIN | {"label_map": {"good": "Good"}},
    ),
    "pairs.csv": (
        table(PREMISES, header=("premise", "hypothesis", "gold_label")),
        {"text_column": ["premise", "hypothesis"], "label_column": "gold_label"},
    ),
    "airline.csv": (
        table(
            AIRLINE,
            header=(
                "tweet_id",
                "user_id",
                "tweet_created",
                "sentiment_confidence",
                "tweet",
                "sentiment",
            ),
        ),
        {
            "text_column": "tweet",
            "label_column": "sentiment",
            "group_column": "user_id",
            "weight_column": "sentiment_confidence",
        },
    ),
    "splits.csv": (
        table(
            [(*row, ["train", "train", "dev", "test"][n % 4]) for n, row in enumerate(rows(80))],
            header=("text", "label", "split"),
        ),
        PLAIN | {"split_column": "split"},
    ),
    "packed.csv.gz": (gzip.compress(table(rows()).encode()), PLAIN),
    "rare.csv": (table(ONE_RARE), PLAIN),
    "many.csv": (
        table(rows(1200, [f"intent {n}" for n in range(400)]), header=("utterance", "intent")),
        {"text_column": "utterance", "label_column": "intent"},
    ),
    "bad_row.csv": (table(rows(200)) + "one,two,three\n", PLAIN | {"on_bad_rows": "skip"}),
    "short_texts.csv": (
        table([(f"Maria{n}", "fm"[n % 2]) for n in range(40)], header=("name", "gender")),
        {"text_column": "name", "label_column": "gender"},
    ),
}
FORM = ("source", "train", "validation", "test")


def look(path, **asking):
    found = command.look(str(path), Asking(**asking))
    return found, {key: value for key, value in found.data.values.items() if key not in FORM}


@pytest.fixture
def written(tmp_path, monkeypatch, tiny_model):
    """Function (look) -> the config that init writes, checked as by `train --check`."""

    def write(found):
        target = tmp_path / "written.yaml"
        command.write(found, target, str(tiny_model))
        config = load_config(str(target), [f"run.output_dir={tmp_path / 'runs'}"])
        training_run.check(config)
        return config

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return write


@pytest.mark.filterwarnings("ignore:column 'label'")
@pytest.mark.parametrize("name", UNDERSTOOD)
def test_file_is_understood_and_its_yaml_passes_the_check(name, tmp_path, written):
    content, expected = UNDERSTOOD[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    found, options = look(path)
    assert options == expected
    config = written(found)
    assert config.data.source == str(path)
    assert len(found.understood.clean.labels) >= 2


REFUSED = {
    "empty.csv": (b"", "is empty"),
    "header_only.csv": (b"text,label\n", "holds no rows|has one column|no rows"),
    "one_column.csv": (
        table([(words,) for words, _ in rows()], header=("text",)),
        "has one column",
    ),
    "picture.csv": (
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 8,
        "is not text: it holds zero bytes. Tried",
    ),
    "picture.png": (b"\x89PNG\r\n\x1a\n", "endings that can be read"),
    "fast.txt": (
        "".join(f"__label__{label} {words}\n" for words, label in rows()),
        "fastText's format. Make it a TSV file",
    ),
    "unique.csv": (
        table([(text(n), f"case {n}") for n in range(60)]),
        "no column looks like a label",
    ),
    "twice.csv": (
        table([(words, words, label) for words, label in rows()], header=("text", "text", "label")),
        "several columns are called text, so they are left out",
    ),
    "one_class.csv": (
        table(rows(labels=["good"])),
        "no column looks like a label.*one value, 'good'",
    ),
    "ragged.csv": ("text,label\n" + "a,b,c,d\nx\n" * 30, "another number of cells"),
    "json.csv": (lines(objects(label=lambda n: MOODS[n % 3])), "Rename the file"),
    "page.csv": (b"<!DOCTYPE html><html>", "holds HTML or XML"),
    "parquet.csv": (b"PAR1" + bytes(100), "is a Parquet file by its first bytes"),
    "all_bad.jsonl": ('{"text": "a", "label": \n' * 30, "30 of the first 30 rows cannot be read"),
    "mostly_bad.jsonl": (
        lines(objects(2, label=lambda n: "good")) + '{"text": "a", "label": \n' * 30,
        "30 of the first 32 rows cannot be read. The first: line 3: broken JSON",
    ),
    "broken.json": ('[{"text": "a", "label": "b"}, {', "broken JSON"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_file_that_is_not_understood_is_refused_with_what_was_tried(name, tmp_path):
    content, words = REFUSED[name]
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TrainerError, match=words) as raised:
        look(path)
    assert len(str(raised.value)) <= 600
    assert name in str(raised.value)
