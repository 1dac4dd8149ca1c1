"""Read inputs that once gave wrong results, and print a table of what was found and what is right.

usage: python scripts/odd_inputs.py [FOLDER]

The inputs are made here. With FOLDER, the files in it with the names of GIVEN are read as well.
The exit code is 1 if a row of the table is wrong. No model is loaded.
"""

import argparse
import csv
import gzip
import io
import json
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from trainer.config.config import Config
from trainer.data.prepared_data import PreparedData
from trainer.errors import TrainerError

ALL_TRAIN = {"train": 0.8, "validation": 0.2}
Files = dict[str, str | bytes]


@dataclass(frozen=True)
class Case:
    """An input and the right result.

    Attributes:
        files: {name: content} of the files to write first.
        sections: the config.
        right: the result of `found_in`, or words of the error.
        says: words that must be printed or warned of as well.
        found_in: returns what matters of the prepared data.
    """

    name: str
    files: Files
    sections: dict[str, Any]
    right: str
    says: str = ""
    found_in: Callable[[PreparedData], str] = field(default=lambda data: rows_by_class(data))


def rows_by_class(data: PreparedData) -> str:
    """Return the number of rows that cleaning kept, and that of each class, in label order."""
    kept = data.clean.reasons_N == 0
    counts = data.clean.labels.counts(data.clean.targets[kept])
    return f"{kept.sum()} rows: " + ", ".join(
        f"{label} {count}" for label, count in zip(data.labels, counts, strict=True)
    )


def drawn(data: PreparedData) -> str:
    """Return the rows of each label in a training epoch."""
    counts = dict(zip(data.labels, data.summary.counts["drawn"], strict=True))
    return f"{len(data.plan.positions())} drawn: " + ", ".join(
        f"{label} {count}" for label, count in counts.items()
    )


def sides(data: PreparedData) -> str:
    """Return the rows of each split."""
    return ", ".join(f"{name} {len(ids)}" for name, ids in data.splits.named.items())


def table(
    rows: list[tuple[Any, ...]], header: tuple[str, ...] = ("text", "label"), separator: str = ","
) -> str:
    """Return CSV with a header line."""
    out = io.StringIO()
    csv.writer(out, delimiter=separator, lineterminator="\n").writerows([header, *rows])
    return out.getvalue()


def lines(rows: list[tuple[Any, Any]]) -> str:
    """Return JSON lines of texts and labels."""
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


def texts(count: int, label: Any, start: int = 0) -> list[tuple[str, Any]]:
    """Return rows of one label with different texts."""
    return [(f"text number {number} of {label}", label) for number in range(start, start + count)]


GIVEN = [
    Case(
        "backslash-quotes.csv",
        {},
        {"data": {"source": "backslash-quotes.csv", "escape_char": "\\"}},
        "60 rows: neg 44, neu 11, pos 5",
    ),
    Case(
        "backslash-quotes.csv, no option",
        {},
        {"data": {"source": "backslash-quotes.csv"}},
        'data.escape_char: "\\\\"',
    ),
    Case(
        "label-variants.csv",
        {},
        {"data": {"source": "label-variants.csv"}},
        "90 rows: Négatif 36, Positive 14, neutral 30, positive 10",
        "'Positive' (14 rows), 'positive' (10 rows)",
    ),
    Case(
        "float-labels.csv and -validation.csv",
        {},
        {
            "data": {"train": "float-labels.csv", "validation": "float-labels-validation.csv"},
            "split": None,
        },
        "92 rows: 0 24, 1 22, 2 22, 10 24",
    ),
    Case(
        "string-lists.csv",
        {},
        {"data": {"source": "string-lists.csv"}},
        "80 rows: insult 36, threat 44, toxic 38",
        "lists",
    ),
    Case(
        "multi-hot.jsonl",
        {},
        {"data": {"source": "multi-hot.jsonl"}},
        "80 rows: label_0 35, label_1 25, label_2 25",
        "data.label_names",
    ),
    Case(
        "multi-hot.jsonl, names given",
        {},
        {"data": {"source": "multi-hot.jsonl", "label_names": ["toxic", "threat", "insult"]}},
        "80 rows: toxic 35, threat 25, insult 25",
    ),
    Case(
        "line-separators.csv",
        {},
        {"data": {"source": "line-separators.csv"}},
        "60 rows: neg 44, neu 11, pos 5",
    ),
    Case("open-quotes.tsv", {}, {"data": {"source": "open-quotes.tsv"}}, "open-quotes.tsv:12"),
    Case(
        "open-quotes.tsv, no quotes",
        {},
        {"data": {"source": "open-quotes.tsv", "quote_char": ""}},
        "60 rows: neg 44, neu 11, pos 5",
    ),
    Case("pandas.json", {}, {"data": {"source": "pandas.json"}}, "400 rows: a 200, b 200"),
]
"""Cases with files from FOLDER."""

TWO = texts(20, "a") + texts(20, "b")


def several(*sets: tuple[list[str], int]) -> str:
    """Return JSON lines with the given number of rows for each set of labels."""
    return lines(
        [
            (f"{'+'.join(labels) or 'none'} {number}", labels)
            for labels, count in sets
            for number in range(count)
        ]
    )


UNDERSAMPLED = {"split": {"train": 0.5, "validation": 0.5}, "balance": {"method": "undersample"}}
OWN = [
    Case(
        "undersampling beside rows without a label",
        {"x.jsonl": several((["a"], 400), (["b"], 400), ([], 4))},
        {"data": {"source": "x.jsonl"}} | UNDERSAMPLED,
        "402 drawn: a 200, b 200",
        found_in=drawn,
    ),
    Case(
        "compressed, capital ending",
        {"A.csv.GZ": gzip.compress(table(TWO).encode())},
        {"data": {"source": "A.csv.GZ"}},
        "40 rows: a 20, b 20",
    ),
    Case(
        "Excel's sep=;",
        {"x.csv": "sep=;\n" + table(TWO, separator=";")},
        {"data": {"source": "x.csv"}},
        "40 rows: a 20, b 20",
        "sep=;",
    ),
    Case(
        "space before a quote",
        {"x.csv": "label,text\n" + "".join(f'{label}, "{text}, more"\n' for text, label in TWO)},
        {"data": {"source": "x.csv"}},
        "data.skip_initial_space: true",
    ),
    Case(
        "space before a quote, read",
        {"x.csv": "label,text\n" + "".join(f'{label}, "{text}, more"\n' for text, label in TWO)},
        {"data": {"source": "x.csv", "skip_initial_space": True}},
        "40 rows: a 20, b 20",
    ),
    Case(
        "first object lacks the label",
        {"x.jsonl": '{"text": "no label"}\n' + lines(TWO)},
        {"data": {"source": "x.jsonl"}},
        "40 rows: a 20, b 20",
    ),
    Case(
        "pandas, orient split",
        {
            "x.json": json.dumps(
                {"columns": ["text", "label"], "index": list(range(40)), "data": TWO}
            )
        },
        {"data": {"source": "x.json"}},
        "40 rows: a 20, b 20",
    ),
    Case(
        "records under data",
        {
            "x.json": json.dumps(
                {"data": [dict(zip(("text", "label"), row, strict=True)) for row in TWO]}
            )
        },
        {"data": {"source": "x.json"}},
        "40 rows: a 20, b 20",
    ),
    Case(
        "delimited labels",
        {"x.csv": table([*texts(20, "a"), *texts(20, "b"), *texts(9, "a;b")])},
        {"data": {"source": "x.csv", "label_separator": ";"}},
        "49 rows: a 29, b 29",
    ),
    Case(
        "one row a text and label",
        {"x.csv": table([*TWO, *((text, "b") for text, _ in texts(9, "a"))])},
        {"data": {"source": "x.csv", "labels_per_row": "long"}},
        "40 rows: a 20, b 29",
    ),
    Case(
        "label_map",
        {
            "x.csv": table(
                [*texts(9, "hate"), *texts(9, "hatespeech"), *texts(9, "3"), *texts(5, "spam")]
            )
        },
        {
            "data": {
                "source": "x.csv",
                "label_map": {"hatespeech": "hate", "3": "positive", "spam": None},
            }
        },
        "27 rows: hate 18, positive 9",
    ),
    Case(
        "class whose rows are all outvoted",
        {"x.csv": table([*TWO, ("torn", "c"), ("torn", "a"), ("torn", "a")])},
        {"data": {"source": "x.csv"}},
        "cleaning leaves no row of 'c' (1 conflicting labels, outvoted)",
    ),
    Case(
        "published test file",
        {
            "a.csv": table([*TWO, ("shared", "a")]),
            "t.csv": table([("shared", "a"), ("shared", "b"), ("u", "b"), ("u", "b")]),
        },
        {"data": {"train": "a.csv", "test": "t.csv"}},
        "train 32, validation 8, test 4",
        found_in=sides,
    ),
    Case(
        "class of one row",
        {"x.csv": table([*TWO, ("alone", "c")])},
        {"data": {"source": "x.csv"}},
        "41 rows: a 20, b 20, c 1",
        "c",
    ),
    Case(
        "limit beside a rare class",
        {"x.csv": table([*texts(2000, "a"), *texts(10, "b")])},
        {"data": {"source": "x.csv", "limit": 200}},
        "train 160, validation 40",
        found_in=sides,
    ),
    Case(
        "predefined split",
        {
            "x.csv": table(
                [
                    (*row, side)
                    for row, side in zip(
                        TWO,
                        ["train"] * 10
                        + ["val"] * 5
                        + ["test"] * 5
                        + ["train"] * 10
                        + ["dev"] * 5
                        + ["test"] * 5,
                        strict=True,
                    )
                ],
                ("text", "label", "side"),
            )
        },
        {"data": {"source": "x.csv", "split_column": "side"}, "split": None},
        "train 20, validation 10, test 10",
        found_in=sides,
    ),
    Case(
        "URL", {}, {"data": {"source": "https://huggingface.co/datasets/owner/name"}}, "owner/name"
    ),
]
"""Cases with files that are made here."""


def found(case: Case) -> tuple[str, str]:
    """What the case gives, or the error; and what was printed and warned of."""
    from trainer.runs.preparation import prepare

    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        sections = {"split": ALL_TRAIN, "model": {"name": "none"}} | case.sections
        config = Config.model_validate(
            {key: value for key, value in sections.items() if value is not None}
        )
        try:
            data = prepare(config)
            result = case.found_in(data)
            print(*data.clean.sentences, sep="\n")
        except TrainerError as error:
            result = str(error)
    return result, out.getvalue() + "\n".join(str(warning.message) for warning in caught)


@contextmanager
def folder_of(case: Case, given: Path | None) -> Iterator[None]:
    """Change to a folder with the files of the case, and back at the end."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for name, content in case.files.items():
            (Path(folder) / name).write_bytes(
                content if isinstance(content, bytes) else content.encode()
            )
        try:
            os.chdir(given if given and not case.files else folder)
            yield
        finally:
            os.chdir(before)


def main() -> int:
    """Print the table, and return 1 if something is wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="?", type=Path, help="folder with the files of GIVEN")
    folder = parser.parse_args().folder
    shown = Table(
        "input", "found", "right", "", title="Odd inputs", title_justify="left", show_lines=True
    )
    num_wrong = 0
    with tempfile.TemporaryDirectory() as home:
        from huggingface_hub import constants

        constants.HF_HOME = home
        for case in (GIVEN if folder else []) + OWN:
            with folder_of(case, folder and folder.resolve()):
                result, said = found(case)
            is_right = case.right in result and case.says in said
            num_wrong += not is_right
            beside = f"; said: {case.says}" if case.says else ""
            shown.add_row(
                case.name,
                result + ("" if is_right else f"\nsaid: {said}"),
                case.right + beside,
                "right" if is_right else "WRONG",
            )
    Console(width=None if sys.stdout.isatty() else 160).print(shown)
    print(f"{num_wrong} wrong")
    return int(num_wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
