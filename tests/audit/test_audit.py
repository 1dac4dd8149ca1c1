"""The audit command: it finds planted leakage and refuses bad input before it writes."""

import csv
import json

import pytest

from trainer.cli.inspecting import audit_command

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def audit(config=None, data=None, set_=None, output=None, **options):
    defaults = {
        "text_column": None,
        "label_column": None,
        "group_column": None,
        "encoding": None,
        "model": None,
        "threshold": 0.8,
        "max_rows": 100_000,
    }
    audit_command(config=config, data=data, set_=set_, output=output, **{**defaults, **options})


@pytest.fixture
def fails(capsys, tmp_path):
    """Function (**options) -> message of an audit that fails with exit code 2 and no page."""

    def run(**options):
        with pytest.raises(SystemExit) as stopped:
            audit(**options)
        assert stopped.value.code == 2
        assert not list(tmp_path.rglob("audit.*"))
        return capsys.readouterr().err

    return run


def write_rows(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(rows)
    return path


@pytest.fixture
def planted(tweets, tmp_path):
    """Train and test files of real tweets with planted faults.

    12 training texts are nearly copied to test, 3 of them with another label. 2 are copied exactly.
    """
    with tweets.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["sentiment"]) for row in csv.DictReader(file)]
    long_rows = [row for row in rows[:160] if len(row[0]) > 90]
    other = {"negative": "neutral", "neutral": "positive", "positive": "negative"}
    near = [
        (f"{text} ok", other[label] if n < 3 else label)
        for n, (text, label) in enumerate(long_rows[:12])
    ]
    order = [*range(0, 240, 3), *range(1, 240, 3), *range(2, 240, 3)]
    rows = [rows[i] for i in order]
    train = [row for row in rows if row in long_rows[:14]] + [
        row for row in rows if row not in long_rows[:14]
    ][:160]
    test = [row for row in rows if row not in train][:60] + near + long_rows[12:14]
    return write_rows(tmp_path / "train.csv", train), write_rows(tmp_path / "test.csv", test)


def test_config_audit_finds_what_was_planted_and_writes_beside_the_run(
    planted, config_file, tmp_path, capsys
):
    train, test = planted
    config = config_file(
        data={"source": ..., "train": str(train), "test": str(test), "label_column": "label"},
        split={"test": ..., "train": 0.8, "validation": 0.2},
    )
    audit(config=config)
    out = capsys.readouterr().out
    folder = tmp_path / "runs/run-audit"
    assert sorted(path.name for path in folder.iterdir()) == ["audit.html", "audit.json"]
    assert f"Audit: {folder}/audit.html" in out
    found = json.loads((folder / "audit.json").read_text(encoding="utf-8"))
    assert found["cleaning"]["shared_texts"][0]["splits"] == ["train", "test"]
    assert found["cleaning"]["shared_texts"][0]["texts"] == 2
    assert found["cleaning"]["counts"]["text also in validation or test"] == 2
    near = found["near_duplicates"]
    assert near["num_clusters"] >= 12
    assert (
        near["soft_leakage"]["test"]["rows"] >= 8
    )  # the others resemble rows that were drawn for validation
    assert near["num_conflicting"] >= 3
    assert set(found["classes"]["counts"]) == {"all", "train", "validation", "test"}
    assert found["lengths"]["tokens"]["by_class"]["negative"]["median"] > 3
    assert "embeddings of" in " ".join(found["notes"])
    assert "soft_leakage" in [advice["rule"] for advice in found["advice"]]
    audit(config=config)  # an older audit is replaced


def test_data_audit_needs_no_yaml_and_no_model(tweets, tmp_path, run_cli):
    rows = tmp_path / "latin.csv"
    rows.write_bytes(
        tweets.read_text(encoding="utf-8")
        .replace("sentiment", "mood", 1)
        .encode("latin-1", "replace")
    )
    done = run_cli(
        "audit",
        "--data",
        rows,
        "--label-column",
        "mood",
        "--encoding",
        "latin-1",
        "--output",
        tmp_path / "page",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Rows by class: imbalance ratio 3 (mild, train)" in done.stdout
    assert "TF-IDF term weights, since no model is named (--model)" in done.stdout
    assert "Rule mild: imbalance ratio up to 3. Try balance: {method: none}" in done.stdout
    assert (
        json.loads((tmp_path / "page/audit.json").read_text(encoding="utf-8"))["format"]
        == "equipoise audit 1"
    )


def test_data_audit_checks_labels_by_an_encoder_that_is_named(tweets, tiny_model, tmp_path):
    audit(data=str(tweets), label_column="sentiment", model=str(tiny_model))
    found = json.loads((tmp_path / "audit/audit.json").read_text(encoding="utf-8"))
    assert f"embeddings of {tiny_model}" in " ".join(found["notes"])


def test_larger_data_are_sampled_with_a_word(tweets, tmp_path, capsys):
    audit(data=str(tweets), label_column="sentiment", max_rows=100, output=tmp_path / "small")
    assert "seeded, stratified sample of 100 of 240 rows (--max-rows)" in capsys.readouterr().out
    found = json.loads((tmp_path / "small/audit.json").read_text(encoding="utf-8"))
    assert found["near_duplicates"]["num_compared"] == 100
    assert sum(found["classes"]["counts"]["all"].values()) == 240


def test_rows_of_one_group_are_held_out_together(tmp_path):
    rows = tmp_path / "rows.jsonl"
    records = [
        {
            "text": f"text {n} {'good' if n % 2 else 'bad'}",
            "label": "ab"[n % 2],
            "author": "ab"[n % 2],
        }
        for n in range(40)
    ]
    rows.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    audit(data=str(rows), group_column="author")
    found = json.loads((tmp_path / "audit/audit.json").read_text(encoding="utf-8"))
    assert (
        found["label_noise"] is None
    )  # each class is one author: no row can be checked by another author's
    assert (
        "no row is left for validation: all rows of each class are one group by "
        "data.group_column: author"
    ) in found["obstacles"][0]


def test_labels_and_groups_that_training_refuses_are_obstacles(tmp_path, config_file):
    train = tmp_path / "train.jsonl"
    test = tmp_path / "test.jsonl"
    train.write_text(
        "\n".join(
            json.dumps({"text": f"{n} x", "label": "ab"[n % 2], "by": n % 20}) for n in range(60)
        ),
        encoding="utf-8",
    )
    test.write_text(
        "\n".join(
            json.dumps({"text": f"{n} y", "label": "abc"[n % 3], "by": 19 + n}) for n in range(30)
        ),
        encoding="utf-8",
    )
    data = {
        "source": ...,
        "train": str(train),
        "test": str(test),
        "label_column": "label",
        "group_column": "by",
    }
    audit(
        config=config_file(data=data, split={"test": ..., "train": 0.8, "validation": 0.2}),
        output=tmp_path / "page",
    )
    found = json.loads((tmp_path / "page/audit.json").read_text(encoding="utf-8"))
    assert [obstacle.split(":")[0] for obstacle in found["obstacles"]] == [
        "data.test",
        "data.group_column",
    ]
    assert found["classes"]["minority_label"] in ("a", "b")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "audit: neither a config nor rows are given. Give a YAML file"),
        (
            {"config": "a.yaml", "data": "b.csv"},
            "audit: found a config and rows, a.yaml and --data b.csv. Give one of them;",
        ),
        ({"data": "no.csv"}, "--data: 'no.csv' does not exist."),
        (
            {"data": "rows.csv", "label_column": "labell"},
            "no column 'labell'; found: label, text. Did you mean 'label'?",
        ),
        (
            {"data": "rows.csv", "label_column": "text"},
            "label_column and text_column are both 'text'",
        ),
        ({"data": "rows.csv", "encoding": "utf-99"}, "--encoding is 'utf-99'"),
        ({"data": "rows.csv", "threshold": 0.3}, "--threshold is 0.3; needed: 0.5 to 1."),
        ({"data": "rows.csv", "max_rows": 1}, "--max-rows is 1; needed: 2 or more."),
        ({"data": "rows.csv", "model": "./nowhere"}, "model.name: './nowhere' does not exist."),
        ({"data": "rows.csv", "set_": ["data.seperator=;"]}, "data.seperator is unknown"),
        (
            {"config": "a.yaml", "text_column": "body"},
            "--text-column belongs to --data; with a config use --set data.text_column=...",
        ),
        ({"config": "a.yaml"}, "a.yaml: cannot be read"),
        ({"data": "one.csv"}, "the rows hold one class only, 'a'"),
    ],
)
def test_bad_input_is_refused_and_nothing_written(fails, tmp_path, options, words):
    write_rows(tmp_path / "rows.csv", [(f"text {n}", "ab"[n % 2]) for n in range(20)])
    write_rows(tmp_path / "one.csv", [(f"text {n}", "a") for n in range(20)])
    assert words in fails(**options)


def test_page_of_somebody_else_is_kept(tmp_path, capsys):
    rows = write_rows(tmp_path / "rows.csv", [(f"text {n}", "ab"[n % 2]) for n in range(20)])
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/audit.html").write_text("mine")
    with pytest.raises(SystemExit):
        audit(data=str(rows))
    assert "not from this command. Give another --output" in capsys.readouterr().err
    assert (tmp_path / "audit/audit.html").read_text() == "mine"
