"""`predict`: files of every kind in, files of every kind out, whatever happens on the way."""

import csv
import gzip
import io
import json
import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT
from saved_models import as_run, make_model

from trainer import Classifier, cli
from trainer.delivery.predicting import label_file, partial_file
from trainer.delivery.predicting.labeller import Labeller
from trainer.delivery.predicting.model_source import folder_identity
from trainer.files import locks
from trainer.files.locks import work_file

pytestmark = pytest.mark.slow

TEXTS = [
    "What a lovely day!",
    "I hate this.",
    "The train leaves at nine, and nobody knows why. " * 30,
    'He said "no", then\nleft; why?',
    "Füße 😀 and\ttabs",
]
ROWS = [{"id": str(n), "text": text, "note": f"a\rb {n}"} for n, text in enumerate(TEXTS)]


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    return make_model(tiny_model, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def expected(model):
    """What the classifier says of TEXTS."""
    return Classifier.load(model).predict(TEXTS)


@pytest.fixture
def predict(model, capfd):
    """Function that runs the command in this process.

    (*arguments, models) -> (exit code, standard output, standard error).
    """

    def run(*arguments, models=(model,)):
        code = 0
        try:
            cli.app(["predict", *map(str, models), *map(str, arguments)], standalone_mode=False)
        except SystemExit as stop:
            code = stop.code
        return code, *capfd.readouterr()

    return run


def write(path, rows=ROWS):
    """The rows as a file of this name."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "arrow":
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        out = io.StringIO()
        if kind in ("csv", "tsv", "txt", "tab"):
            writer = csv.DictWriter(
                out, list(rows[0]), delimiter="\t" if kind in ("tsv", "tab") else ","
            )
            writer.writeheader()
            writer.writerows(rows)
        else:
            out.write(
                json.dumps(rows)
                if kind == "json"
                else "".join(json.dumps(row) + "\n" for row in rows)
            )
        content = out.getvalue().encode()
        path.write_bytes(gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
    return path


def read(path):
    """The rows of a file."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    content = (
        gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    ).decode()
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if kind == "jsonl":
        return [json.loads(line) for line in content.splitlines()]
    return list(
        csv.DictReader(io.StringIO(content, newline=""), delimiter="\t" if kind == "tsv" else ",")
    )


INPUTS = [
    "csv",
    "csv.gz",
    "tsv",
    "tab",
    "txt",
    "jsonl",
    "jsonl.gz",
    "ndjson",
    "json",
    "parquet",
    "arrow",
]
DEFAULT = {"tab": "tsv", "txt": "csv", "json": "jsonl", "arrow": "parquet"}


@pytest.mark.parametrize("kind", INPUTS)
def test_every_kind_of_file_comes_back_beside_itself_with_label_and_score_behind_its_columns(
    kind, predict, expected, tmp_path
):
    source = write(tmp_path / f"my.rows.{kind}")
    code, out, err = predict("--input", source)
    target = tmp_path / f"my.rows.predicted.{DEFAULT.get(kind, kind)}"
    assert code == 0, err
    assert out.startswith(f"{target}: 5 rows (1 longer than the model reads, cut), ")
    found = read(target.rename(target.with_suffix(".jsonl")) if kind == "ndjson" else target)
    assert [list(row) for row in found] == [
        ["id", "text", "note", "predicted_label", "predicted_score"]
    ] * 5
    assert [{name: row[name] for name in ROWS[0]} for row in found] == ROWS
    assert [row["predicted_label"] for row in found] == [p.label for p in expected]
    assert [float(row["predicted_score"]) for row in found] == pytest.approx(
        [p.score for p in expected], abs=1e-5
    )
    assert {path.name for path in tmp_path.iterdir()} <= {
        source.name,
        target.name,
        target.with_suffix(".jsonl").name,
    }


@pytest.mark.parametrize(
    "kinds",
    ["csv parquet", "parquet jsonl", "jsonl csv", "jsonl parquet", "arrow tsv", "csv jsonl.gz"],
)
def test_the_ending_of_the_output_says_how_it_is_written(kinds, predict, expected, tmp_path):
    kind, form = kinds.split()
    rows = [{**row, "id": n} for n, row in enumerate(ROWS)]
    source, target = write(tmp_path / f"rows.{kind}", rows), tmp_path / "new" / f"out.{form}"
    code, _, err = predict("--input", source, "--output", target)
    assert code == 0, err
    found = read(target)
    assert [str(row["id"]) for row in found] == ["0", "1", "2", "3", "4"]
    assert [row["predicted_label"] for row in found] == [p.label for p in expected]


def test_types_of_parquet_columns_and_values_of_json_stay(predict, tmp_path):
    rows = [
        {"text": text, "n": n, "x": n / 3, "when": None, "tags": [str(n)], "more": {"a": n}}
        for n, text in enumerate(TEXTS)
    ]
    schema = pa.schema(
        [
            ("text", pa.string()),
            ("n", pa.int16()),
            ("x", pa.float32()),
            ("when", pa.date32()),
            ("tags", pa.list_(pa.string())),
            ("more", pa.struct({"a": pa.int64()})),
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "rows.parquet")
    assert predict("--input", tmp_path / "rows.parquet")[0] == 0
    found = pq.read_table(tmp_path / "rows.predicted.parquet")
    assert found.schema == schema.append(pa.field("predicted_label", pa.string())).append(
        pa.field("predicted_score", pa.float64())
    )
    assert found.select(schema.names).equals(pa.Table.from_pylist(rows, schema=schema))
    write(tmp_path / "rows.jsonl", rows)
    assert predict("--input", tmp_path / "rows.jsonl")[0] == 0
    assert [
        {name: row[name] for name in rows[0]} for row in read(tmp_path / "rows.predicted.jsonl")
    ] == rows
    assert predict("--input", tmp_path / "rows.jsonl", "--output", tmp_path / "rows.csv")[0] == 0
    assert read(tmp_path / "rows.csv")[1]["more"] == '{"a": 1}'


def test_numbers_that_json_lacks_are_null_in_it_however_deep(predict, tmp_path):
    rows = [
        {"text": "a", "f": float("nan"), "deep": {"tags": [1.5, float("inf")]}},
        {"text": "b", "f": -float("inf"), "deep": {"tags": []}},
    ]
    source = write(tmp_path / "rows.parquet", rows)
    code, out, err = predict("--input", source, "--output", "-")
    assert (code, "NaN" in out, "Infinity" in out) == (0, False, False), err
    found = [json.loads(line) for line in out.splitlines()]
    assert [(row["f"], row["deep"]) for row in found] == [
        (None, {"tags": [1.5, None]}),
        (None, {"tags": []}),
    ]
    assert predict("--input", source, "--output", tmp_path / "rows.csv")[0] == 0
    assert read(tmp_path / "rows.csv")[0]["deep"] == '{"tags": [1.5, null]}'


def test_rows_without_a_text_are_counted_and_kept_without_a_label(predict, tmp_path):
    values = ["fine", "", None, "  ", "nan", "null", float("nan"), 7, 7.0, 0.5]
    code, out, _ = predict(
        "--input", write(tmp_path / "rows.jsonl", [{"text": value} for value in values])
    )
    assert (code, "10 rows (6 without a text, so without a label)" in out) == (0, True)
    found = read(tmp_path / "rows.predicted.jsonl")
    assert [row["predicted_label"] is None and row["predicted_score"] is None for row in found] == [
        False,
        *[True] * 6,
        False,
        False,
        False,
    ]
    assert (
        found[7]["predicted_score"] == found[8]["predicted_score"]
    )  # a whole number reads '7', however it is written


def test_a_file_without_rows_gives_one_without_rows(predict, tmp_path):
    for kind in ("csv", "parquet"):
        source = tmp_path / f"rows.{kind}"
        if kind == "csv":
            source.write_text("id,text\n", encoding="utf-8")
        else:
            pq.write_table(
                pa.table({"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())}),
                source,
            )
        code, out, err = predict("--input", source)
        assert (code, ": 0 rows, " in out) == (0, True), err
    assert (tmp_path / "rows.predicted.csv").read_text(
        encoding="utf-8"
    ) == "id,text,predicted_label,predicted_score\n"
    assert pq.read_table(tmp_path / "rows.predicted.parquet").column_names == [
        "id",
        "text",
        "predicted_label",
        "predicted_score",
    ]


def test_probabilities_get_a_column_a_label(predict, expected, tmp_path):
    assert (
        predict("--input", write(tmp_path / "rows.csv"), "--probabilities", "--prefix", "p_")[0]
        == 0
    )
    found = read(tmp_path / "rows.predicted.csv")
    assert list(found[0])[3:] == [
        "p_label",
        "p_score",
        "p_probability_negative",
        "p_probability_neutral",
        "p_probability_positive",
    ]
    for row, prediction in zip(found, expected, strict=True):
        assert {
            label: float(row[f"p_probability_{label}"]) for label in prediction.probabilities
        } == pytest.approx(prediction.probabilities, abs=1e-5)


def test_multi_label_models_give_lists(predict, tiny_model, tmp_path):
    folder = make_model(tiny_model, tmp_path / "multi", problem_type="multi_label_classification")
    given = [list(p.labels) for p in Classifier.load(folder).predict(TEXTS)]
    for kind in ("csv", "jsonl", "parquet"):
        assert predict("--input", write(tmp_path / f"rows.{kind}"), models=[folder])[0] == 0
        found = [row["predicted_label"] for row in read(tmp_path / f"rows.predicted.{kind}")]
        assert [json.loads(label) if kind == "csv" else label for label in found] == given


def test_text_pairs_and_the_columns_of_the_run(predict, model, tmp_path):
    pairs = [{"prompt": "What a day!", "reply": reply} for reply in ("It rains.", "", "Yes")]
    classifier = Classifier.load(model)
    labels = [
        p.score
        for p in classifier.predict(
            [{"text": row["prompt"], "text_pair": row["reply"]} for row in pairs]
        )
    ]
    source = write(tmp_path / "rows.csv", pairs)
    assert predict("--input", source, "--text-column", "prompt", "--pair-column", "reply")[0] == 0
    assert [
        float(row["predicted_score"]) for row in read(tmp_path / "rows.predicted.csv")
    ] == pytest.approx(labels, abs=1e-5)
    run = as_run(tmp_path / "run", [model], {})
    (run / "config.yaml").write_text("data: {text_column: [prompt, reply]}", encoding="utf-8")
    assert predict("--input", source, "--output", tmp_path / "own.csv", models=[run])[0] == 0
    assert read(tmp_path / "own.csv") == read(tmp_path / "rows.predicted.csv")


@pytest.mark.parametrize("vote", [None, "majority", "mean"])
def test_several_models_vote(vote, predict, model, tiny_model, tmp_path):
    models = [model, *(make_model(tiny_model, tmp_path / str(seed), seed=seed) for seed in (1, 2))]
    together = Classifier(
        [Classifier.load(folder) for folder in models], vote=vote or "majority"
    ).predict(TEXTS)
    assert (
        predict(
            "--input",
            write(tmp_path / "rows.csv"),
            *(["--vote", vote] if vote else []),
            models=models,
        )[0]
        == 0
    )
    assert [row["predicted_label"] for row in read(tmp_path / "rows.predicted.csv")] == [
        p.label for p in together
    ]


def test_one_model_has_nobody_to_vote_with(predict, model, tmp_path):
    code, _, err = predict("--input", write(tmp_path / "rows.csv"), "--vote", "mean")
    assert (
        code,
        f"--vote is 'mean', but {model} is one model. Leave it out, or give several models." in err,
    ) == (2, True), err
    ensemble = as_run(
        tmp_path / "run", [model, model], {"ensemble": {"size": 2, "combine": "majority"}}
    )
    assert predict("--input", tmp_path / "rows.csv", "--vote", "mean", models=[ensemble])[0] == 0


def many(number):
    return [{"id": str(n), "text": TEXTS[n % 2] + f" {n}"} for n in range(number)]


@pytest.fixture
def stopped(predict, monkeypatch, tmp_path):
    """(input, output) of a command that was interrupted in its third piece, after 192 rows."""

    def make(kind):
        source, target = write(tmp_path / "rows.csv", many(300)), tmp_path / f"out.{kind}"
        append, calls = partial_file.PartialFile.append, []

        def append_two(self, *arguments):
            calls.append(1)
            if len(calls) == 3:
                self.file.write(b"half a piece, which nobody noted")
                raise KeyboardInterrupt
            append(self, *arguments)

        with monkeypatch.context() as patched:
            patched.setattr(partial_file.PartialFile, "append", append_two)
            patched.setattr(
                label_file, "PIECE_SECONDS", float("inf")
            )  # pieces of 64 and 128 rows on a busy machine too
            code, _, err = predict("--input", source, "--output", target)
        assert (code, "run the same command again" in err) == (130, True), err
        assert {path.name for path in tmp_path.iterdir()} == {
            "rows.csv",
            f".out.{kind}.equipoise-partial",
            f".out.{kind}.equipoise-partial.json",
        }
        return source, target

    return make


@pytest.mark.parametrize("kind", ["csv", "jsonl.gz", "parquet"])
def test_the_same_command_goes_on_behind_the_last_whole_piece(kind, stopped, predict, tmp_path):
    source, target = stopped(kind)
    code, out, err = predict("--input", source, "--output", target)
    assert (code, "Resuming" in err, "after 192 rows." in err) == (0, True, True), err
    assert ": 300 rows, " in out
    assert predict("--input", source, "--output", tmp_path / f"whole.{kind}")[0] == 0
    whole, found = read(tmp_path / f"whole.{kind}"), read(target)
    assert [row["predicted_label"] for row in found] == [row["predicted_label"] for row in whole]
    assert [float(row["predicted_score"]) for row in found] == pytest.approx(
        [float(row["predicted_score"]) for row in whole], abs=1e-5
    )
    assert [row["id"] for row in found] == [str(n) for n in range(300)]
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", target.name, f"whole.{kind}"}


@pytest.mark.parametrize("changed", ["input", "models", "options", "damage"])
def test_what_was_begun_with_something_else_is_begun_anew(
    changed, stopped, predict, model, tiny_model, tmp_path
):
    source, target = stopped("csv")
    models, arguments = [model], []
    if changed == "input":
        write(source, [{**row, "id": "x"} for row in many(300)])
    elif changed == "models":
        models = [make_model(tiny_model, tmp_path / "other", seed=5)]
    elif changed == "options":
        arguments = ["--probabilities"]
    else:
        os.truncate(work_file(target, "partial"), 10)
    code, _, err = predict("--input", source, "--output", target, *arguments, models=models)
    words = "is not complete" if changed == "damage" else f"has other {changed}"
    assert (code, f"{work_file(target, 'partial')} {words}: starting again." in err) == (0, True), (
        err
    )
    assert [row["id"] for row in read(target)] == (
        ["x"] * 300 if changed == "input" else [str(n) for n in range(300)]
    )
    assert ("predicted_probability_neutral" in read(target)[0]) == (changed == "options")


def test_input_of_the_same_size_and_time_with_other_content_is_begun_anew(stopped, predict):
    source, target = stopped("csv")
    path = Path(source)
    stat, content = path.stat(), path.read_bytes()
    last = content.rindex(b"299")
    path.write_bytes(content[:last] + b"xyz" + content[last + 3 :])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    code, _, err = predict("--input", source, "--output", target)
    assert (
        code,
        f"{work_file(target, 'partial')} has other input: starting again." in err,
    ) == (0, True), err


def test_model_folder_of_the_same_sizes_and_times_with_other_weights_is_another_model(tmp_path):
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(b"a" * 100)
    before, stat = folder_identity(tmp_path), weights.stat()
    weights.write_bytes(b"b" * 100)
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert folder_identity(tmp_path) != before


def test_a_killed_process_loses_no_whole_piece(model, predict, tmp_path):
    source, target = write(tmp_path / "rows.csv", many(3000)), tmp_path / "out.csv"
    note = work_file(target, "partial.json")
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "predict", model, "--input", source, "--output", target],
        cwd=ROOT,
    )
    while not note.exists() and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    rows = json.loads(note.read_text(encoding="utf-8"))["progress"]["rows"]
    assert 64 <= rows < 3000
    code, _, err = predict("--input", source, "--output", target)
    assert (code, f"after {rows:,} rows." in err) == (0, True), err
    assert [row["id"] for row in read(target)] == [str(n) for n in range(3000)]


def test_a_full_disk_is_told_and_what_was_written_is_kept(predict, tmp_path):
    source, target = write(tmp_path / "rows.csv", many(1000)), tmp_path / "out.parquet"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        code, _, err = predict("--input", source, "--output", target)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 2
    assert f"{work_file(target, 'partial')}: [Errno 27] File too large. The first " in err
    assert "rows are kept; free space and run the same command again, which resumes there." in err
    code, _, err = predict("--input", source, "--output", target)
    assert (code, "Resuming" in err) == (0, True), err
    assert len(read(target)) == 1000


def test_a_pipe_is_read_and_written_while_it_comes_and_who_has_enough_may_leave(model):
    command = [sys.executable, "-m", "trainer", "predict", str(model), "--input", "-"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    ) as process:
        for row in many(64):
            process.stdin.write(json.dumps(row).encode() + b"\n")
        process.stdin.flush()
        found = [
            json.loads(process.stdout.readline()) for _ in range(64)
        ]  # standard input is still open
        assert [row["id"] for row in found] == [str(n) for n in range(64)]
        process.stdout.close()
        try:
            for row in many(1000):
                process.stdin.write(json.dumps(row).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_standard_input_is_csv_or_json_lines_by_its_first_character(
    predict, monkeypatch, expected, tmp_path
):
    def pipe(content):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))

    labels = [p.label for p in expected]
    for kind in ("csv", "jsonl"):
        pipe(write(tmp_path / f"rows.{kind}").read_bytes())
        code, _, err = predict("--input", "-", "--output", tmp_path / "out.jsonl", "--overwrite")
        assert code == 0, err
        assert [row["predicted_label"] for row in read(tmp_path / "out.jsonl")] == labels
    pipe(b"text\n\xff\n")
    code, _, err = predict("--input", "-", "--output", tmp_path / "odd.jsonl")
    assert (code, "standard input: is not utf-8 (invalid start byte). Give --encoding." in err) == (
        2,
        True,
    ), err


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            b' [\n {"text": "x"}]',
            (
                "standard input: is a JSON list; needed: CSV with a header line, or one"
                " JSON object a line. Give a file that ends in .json."
            ),
        ),
        (
            gzip.compress(b"text\nx\n", mtime=0),
            (
                "standard input: is compressed with gzip; needed: CSV with a header line, or "
                "JSON lines. Decompress it: gzip -dc FILE | ..."
            ),
        ),
    ],
)
def test_standard_input_that_only_a_file_can_be_is_told_in_words(
    content, words, predict, monkeypatch
):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(io.BytesIO(content))))
    code, _, err = predict("--input", "-")
    assert (code, words in err) == (2, True), err


@pytest.mark.parametrize("mark", [";", "\t", "|", ","])
def test_the_separator_that_is_proposed_reads_the_file(mark, predict, tmp_path):
    source = tmp_path / ("rows.tsv" if mark == "," else "rows.csv")
    source.write_text(f"id{mark}text\n1{mark}x\n", encoding="utf-8")
    _, _, err = predict("--input", source)
    proposed = shlex.split(err[err.index("--set") :])[1].removesuffix(".")
    code, _, err = predict("--input", source, "--set", proposed, "--output", tmp_path / "out.jsonl")
    assert (code, read(tmp_path / "out.jsonl")[0]["text"]) == (0, "x"), err


def test_parquet_goes_to_standard_output_as_json_lines(predict, expected, tmp_path):
    code, out, err = predict("--input", write(tmp_path / "rows.parquet"), "--output", "-")
    assert (code, "standard output: 5 rows (1 longer than the model reads, cut), " in err) == (
        0,
        True,
    )
    assert [json.loads(line)["predicted_label"] for line in out.splitlines()] == [
        p.label for p in expected
    ]


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        (b"", [], "is empty. Give a file with a header line and rows."),
        (
            b"body\nx\n",
            [],
            (
                "no column 'text'; found: body. Give --text-column. If the file has no"
                " header line, set data.column_names."
            ),
        ),
        (
            b"text\nx\n",
            ["--pair-column", "reply"],
            "no column 'reply'; found: text. Give --text-column and --pair-column.",
        ),
        (
            b"id;text\n1;x\n",
            [],
            (
                "no column 'text', but a single one: 'id;text'. If a line holds more than"
                " one cell, give --set 'data.separator=;'."
            ),
        ),
        (
            b"id\ttext\n1\tx\n",
            [],
            "a single one: 'id\\ttext'. If a line holds more than one cell,"
            """ give --set 'data.separator="\\t"'.""",
        ),
        (b"text,text\nx,y\n", [], "2 columns are called 'text'. Rename all but one."),
        (
            b"text,predicted_label\nx,y\n",
            [],
            (
                "has a column 'predicted_label' already, which the prediction would"
                " overwrite. Give --prefix model_"
            ),
        ),
        (
            b"text,label\nx,y\n",
            ["--prefix", ""],
            "has a column 'label' already, which the prediction would overwrite",
        ),
        (
            b'text,id\nx,1\n"y,2\nz,3\n',
            [],
            (
                "rows.csv:3: a quote is opened and never closed; data.quote_char: ''"
                " reads quotes as text"
            ),
        ),
        (
            b"text,id\nx,1\ny\nz,3\n",
            [],
            (
                "rows.csv:3: 1 cells, expected 2 (the first bad one). Fix the file, or set "
                "data.on_bad_rows: skip."
            ),
        ),
        (
            b"text,id\nx,1\n\xff,2\n",
            [],
            (
                "rows.csv: byte 12 (line 3) is not utf-8; it looks like cp1252. Give"
                " --encoding, or save the file as UTF-8."
            ),
        ),
        (
            b"text\nx\n",
            ["--encoding", "klingon"],
            "data.encoding is 'klingon', which is not a text encoding that Python knows",
        ),
        (b"text\nx\n", ["--set", "data.sep=;"], "data.sep is unknown"),
        (
            b"text\nx\n",
            ["--output", "out.xlsx"],
            (
                "out.xlsx: cannot be written; possible endings: .csv, .jsonl, .ndjson,"
                " .parquet, .tsv, and"
            ),
        ),
        (
            b"text\nx\n",
            ["--output", "out.parquet.gz"],
            "out.parquet.gz: cannot be written; possible endings:",
        ),
    ],
)
def test_what_cannot_be_read_or_written_is_told_in_words(
    content, arguments, words, predict, tmp_path
):
    (tmp_path / "rows.csv").write_bytes(content)
    code, _, err = predict("--input", tmp_path / "rows.csv", *arguments)
    assert (code, words in err) == (2, True), err
    assert not list(tmp_path.glob("*predicted.csv"))


def test_rows_that_cannot_be_read_are_left_out_if_asked_and_counted(predict, tmp_path):
    (tmp_path / "rows.csv").write_text("text,id\nx,1\ny\n\nz,3\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text(
        '{"text": "x"}\n{"text"\n\n[1]\n{"text": "\\ud83d"}\n', encoding="utf-8"
    )
    for kind, number, lost in (("csv", 2, 1), ("jsonl", 1, 3)):
        code, out, err = predict(
            "--input", tmp_path / f"rows.{kind}", "--set", "data.on_bad_rows=skip"
        )
        assert (code, f": {number} rows ({lost} unreadable rows skipped)" in out) == (
            0,
            True,
        ), err
        assert len(read(tmp_path / f"rows.predicted.{kind}")) == number
    code, _, err = predict("--input", tmp_path / "rows.jsonl", "--overwrite")
    assert (code, "rows.jsonl:2: broken JSON: " in err) == (2, True), err


def test_reading_options_of_the_config_hold_here_too(predict, expected, tmp_path):
    lines = ["made by a machine", *(f"{n};'{text}'" for n, text in enumerate(TEXTS[:2]))]
    (tmp_path / "rows.csv").write_text("\n".join(lines), encoding="latin-1")
    options = [
        "data.separator=;",
        'data.quote_char="\'"',
        "data.skip_lines=1",
        "data.column_names=[n, body]",
    ]
    sets = [part for option in options for part in ("--set", option)]
    code, _, err = predict(
        "--input", tmp_path / "rows.csv", "--text-column", "body", "--encoding", "latin-1", *sets
    )
    assert code == 0, err
    assert [
        (row["n"], row["predicted_label"]) for row in read(tmp_path / "rows.predicted.csv")
    ] == [(str(n), p.label) for n, p in enumerate(expected[:2])]


def test_damaged_and_odd_files_are_told_in_words(predict, tmp_path):
    whole = write(tmp_path / "rows.csv.gz", many(500)).read_bytes()
    (tmp_path / "rows.csv.gz").write_bytes(whole[: len(whole) // 2])
    assert (
        "rows.csv.gz: cannot be read to its end:" in predict("--input", tmp_path / "rows.csv.gz")[2]
    )
    (tmp_path / "long.csv").write_text('text\n"' + "x" * (1 << 26) + '"\n', encoding="utf-8")
    assert (
        "long.csv:2: a record is longer than 32 MiB. Perhaps a quote is left open"
        in predict("--input", tmp_path / "long.csv")[2]
    )
    (tmp_path / "list.json").write_text('[{"text": "x"}, ', encoding="utf-8")
    assert "list.json: broken JSON: " in predict("--input", tmp_path / "list.json")[2]
    write(tmp_path / "lists.jsonl", [*many(66), {"text": ["a"]}])
    assert (
        "lists.jsonl:67: column 'text' holds a list; needed: one text or number a row."
        in predict("--input", tmp_path / "lists.jsonl")[2]
    )
    (tmp_path / "rows.xlsx").write_bytes(b"PK")
    assert (
        "rows.xlsx: is not an .xlsx file: File is not a zip file."
        in predict("--input", tmp_path / "rows.xlsx", "--output", "-")[2]
    )


def test_later_rows_of_json_lines_may_hold_other_columns_but_not_ours(predict, tmp_path):
    rows = [{"text": "x"}, {"text": "y", "more": 1}]
    source = write(tmp_path / "rows.jsonl", rows)
    assert predict("--input", source)[0] == 0
    assert [list(row) for row in read(tmp_path / "rows.predicted.jsonl")] == [
        ["text", "predicted_label", "predicted_score"],
        ["text", "more", "predicted_label", "predicted_score"],
    ]
    for form in ("csv", "parquet"):
        code, _, err = predict("--input", source, "--output", tmp_path / f"out.{form}")
        assert (
            code,
            (
                "a row has the column 'more', which the first row lacks. Give an --output"
                " that ends in .jsonl."
            )
            in err,
        ) == (2, True)
    write(source, [{"text": "x", "n": 1}, {"text": "y", "n": "one"}])
    code, _, err = predict("--input", source, "--output", tmp_path / "out.parquet")
    assert (code, "a row does not fit the columns of the Parquet file: " in err) == (2, True), err
    write(source, [{"text": "x", "n": "half of \ud83d"}])
    assert (
        predict("--input", source, "--output", tmp_path / "half.jsonl")[0]
        == predict("--input", source, "--output", tmp_path / "half.csv")[0]
        == 0
    )
    assert read(tmp_path / "half.jsonl")[0]["n"] == "half of \ud83d"
    assert read(tmp_path / "half.csv")[0]["n"] == "half of \\ud83d"
    code, _, err = predict("--input", source, "--output", tmp_path / "out.parquet")
    assert (code, "a row does not fit the columns of the Parquet file: " in err) == (2, True), err
    write(source, [{"text": "x"}, {"text": "y", "predicted_label": "mine"}])
    code, _, err = predict("--input", source, "--overwrite")
    assert (code, "has a column 'predicted_label' already" in err) == (2, True)


def test_no_file_is_replaced_unasked_and_never_the_input(predict, tmp_path, monkeypatch):
    source = write(tmp_path / "rows.csv")
    assert (
        "is the input. Give another file."
        in predict("--input", source, "--output", source, "--overwrite")[2]
    )
    (tmp_path / "rows.predicted.csv").write_text("mine", encoding="utf-8")
    code, _, err = predict("--input", source)
    assert (
        code,
        "rows.predicted.csv: exists already. Give --overwrite to overwrite it, or another --output."
        in err,
    ) == (2, True)
    assert (tmp_path / "rows.predicted.csv").read_text(encoding="utf-8") == "mine"
    assert predict("--input", source, "--overwrite")[0] == 0
    assert len(read(tmp_path / "rows.predicted.csv")) == 5
    assert (
        "Set --output to a folder you may write."
        in predict("--input", source, "--output", source / "below.csv")[2]
    )
    for kind in ("out", "out.csv"):
        (tmp_path / kind).mkdir()
        assert (
            f"{kind} is a folder. Give the name of a file."
            in predict("--input", source, "--output", tmp_path / kind, "--overwrite")[2]
        )
    assert "does not exist. Did you mean 'rows.csv'?" in predict("--input", tmp_path / "row.csv")[2]
    assert (
        "is not a file; needed: one file, or - for standard input."
        in predict("--input", tmp_path)[2]
    )
    assert "is several files; needed: one file" in predict("--input", tmp_path / "*.csv")[2]
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.1)
    with locks.locked(work_file(tmp_path / "rows.predicted.csv", "lock"), "held"):
        code, _, err = predict("--input", source, "--overwrite")
    assert (code, "rows.predicted.csv is being written by pid" in err) == (2, True), err


def test_files_of_the_user_beside_the_output_stay(predict, tmp_path):
    source, target = write(tmp_path / "rows.csv"), tmp_path / "out.csv"
    endings = ("partial", "partial.json", "partial.json.new", "lock")
    own = [tmp_path / f"out.csv.{ending}" for ending in endings]
    for path in own:
        path.write_text("mine", encoding="utf-8")
    assert predict("--input", source, "--output", target)[0] == 0
    assert [path.read_text(encoding="utf-8") for path in own] == ["mine"] * 4
    assert {path.name for path in tmp_path.iterdir()} == {
        "rows.csv",
        "out.csv",
        *(path.name for path in own),
    }


def test_nothing_is_left_of_an_output_that_holds_no_row(predict, tmp_path):
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "x"}\n{"text": ["no", "text"]}\n', encoding="utf-8")
    code, _, err = predict("--input", source)
    assert (code, "holds a list; needed: one text" in err) == (2, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    "note",
    ["{}", "[]", "null", "3", '{"identity": {}, "bytes": 3, "progress": {}}', '{"identity": 1'],
)
def test_damaged_note_is_begun_anew(note, stopped, predict):
    source, target = stopped("csv")
    work_file(target, "partial.json").write_text(note, encoding="utf-8")
    code, _, err = predict("--input", source, "--output", target)
    assert (code, f"{work_file(target, 'partial.json')} is damaged: starting again." in err) == (
        0,
        True,
    ), err
    assert [row["id"] for row in read(target)] == [str(n) for n in range(300)]


def test_output_that_another_process_wrote_meanwhile_is_not_replaced(
    predict, tmp_path, monkeypatch
):
    source, target = write(tmp_path / "rows.csv"), tmp_path / "out.csv"
    only_writer = label_file.only_writer

    @contextmanager
    def after_another(path):
        with only_writer(path):
            path.write_text("of another process", encoding="utf-8")
            yield

    monkeypatch.setattr(label_file, "only_writer", after_another)
    code, _, err = predict("--input", source, "--output", target)
    assert (code, "out.csv: exists already" in err) == (2, True), err
    assert target.read_text(encoding="utf-8") == "of another process"


@pytest.mark.parametrize("ending", ["csv", "tsv"])
def test_formulas_stay_as_they_are_unless_a_spreadsheet_is_to_read_them(
    ending, predict, tiny_model, tmp_path
):
    names = ["=cmd|' /C calc'!A0", "-1.5", "plain"]
    model = make_model(tiny_model, tmp_path / "model", names)
    rows = [
        {"id": name, "text": text}
        for name, text in zip(["@me", "-7", "+x"], ["good", "bad", "so"], strict=True)
    ]
    source, target = write(tmp_path / f"rows.{ending}", rows), tmp_path / f"out.{ending}"
    assert predict("--input", source, "--output", target, models=[model])[0] == 0
    exact = read(target)
    assert [row["id"] for row in exact] == ["@me", "-7", "+x"]
    options = ["--spreadsheet-safe", "--probabilities", "--overwrite"]
    assert predict("--input", source, "--output", target, *options, models=[model])[0] == 0
    safe = read(target)
    assert [row["id"] for row in safe] == ["'@me", "-7", "'+x"]
    expected = {names[0]: f"'{names[0]}", names[1]: names[1], names[2]: names[2]}
    assert [row["predicted_label"] for row in safe] == [
        expected[row["predicted_label"]] for row in exact
    ]
    code, _, err = predict(
        "--input", source, "--output", "out.jsonl", "--spreadsheet-safe", models=[model]
    )
    assert (
        code,
        "--spreadsheet-safe: can be used with .csv and .tsv, not with .jsonl. Leave it out." in err,
    ) == (2, True), err


def test_a_file_with_a_label_column_is_labelled_and_the_old_names_are_there_on_request(
    predict, tmp_path
):
    rows = [{"text": "good", "label": "mine", "score": "1"}]
    source = write(tmp_path / "rows.csv", rows)
    assert predict("--input", source)[0] == 0
    (found,) = read(tmp_path / "rows.predicted.csv")
    assert (found["label"], found["score"]) == ("mine", "1")
    assert list(found) == ["text", "label", "score", "predicted_label", "predicted_score"]
    plain = write(tmp_path / "plain.csv", [{"text": "good"}])
    assert predict("--input", plain, "--prefix", "")[0] == 0
    assert list(read(tmp_path / "plain.predicted.csv")[0]) == ["text", "label", "score"]


def test_rows_of_an_installed_package_are_labelled_into_the_current_folder(
    predict, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, out, err = predict(
        "--input",
        "package:matplotlib/matplotlib/mpl-data/sample_data/msft.csv",
        "--text-column",
        "Date",
    )
    assert (code, out.startswith("msft.predicted.csv: 65 rows, ")) == (0, True), err
    assert [path.name for path in tmp_path.iterdir()] == ["msft.predicted.csv"]


class Placed(list):
    """Rows as `Records` gives them."""

    place = "rows.csv:2"


def test_pieces_grow_while_they_are_quick_and_hold_no_more_text_than_fits(model, monkeypatch):
    monkeypatch.setattr(label_file, "MOST_ROWS", 256)
    monkeypatch.setattr(label_file, "MOST_CHARACTERS", 500)

    def sizes(rows, seconds):
        monkeypatch.setattr(label_file, "PIECE_SECONDS", seconds)
        labeller = Labeller(Classifier.load(model), ["text"])
        return [len(piece) for piece, _ in label_file._labelled(labeller, Placed(rows), 0)]

    assert sizes([{"text": ""}] * 700, 1e9) == [64, 128, 256, 252]
    assert sizes([{"text": ""}] * 150, 0.0) == [64, 64, 22]
    assert sizes([{"text": "x" * 200}] * 7, 1e9) == [3, 3, 1]


def test_predict_answers_wrong_input_without_torch(tmp_path):
    code = "import sys\nsys.modules['torch'] = None\nfrom trainer.cli import app\napp(sys.argv[1:])"
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            code,
            "predict",
            "nobody/nothing",
            "--input",
            str(tmp_path / "none.csv"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, "none.csv' does not exist" in done.stderr) == (2, True), done.stderr
