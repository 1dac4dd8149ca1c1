"""`evaluate`: a saved model judged by labelled rows, with the figures of run folders."""

import csv
import json
import shlex

import pytest
from saved_models import as_run, make_model
from sklearn.metrics import accuracy_score, f1_score, log_loss

from trainer import Classifier, cli
from trainer.delivery.predicting import evaluate_file
from trainer.files import locks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    return make_model(tiny_model, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def rows(tweets):
    with tweets.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def evaluate(capfd, monkeypatch, tmp_path):
    """Function that runs the command in this process.

    (model, data, *arguments) -> (exit code, standard output, standard error, results or None).
    """
    monkeypatch.chdir(tmp_path)

    def run(model, data, *arguments):
        code, path = 0, tmp_path / "evaluation/metrics.json"
        path.unlink(missing_ok=True)
        try:
            cli.app(
                ["evaluate", str(model), "--data", str(data), *map(str, arguments)],
                standalone_mode=False,
            )
        except SystemExit as stop:
            code = stop.code
        return (
            code,
            *capfd.readouterr(),
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else None,
        )

    return run


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_figures_are_those_of_scikit_learn_on_the_predicted_labels(evaluate, model, tweets, rows):
    code, out, err, metrics = evaluate(model, tweets, "--label-column", "sentiment")
    assert code == 0, err
    classifier = Classifier.load(model)
    texts, true = [row["text"] for row in rows], [row["sentiment"] for row in rows]
    predicted = [p.label for p in classifier.predict(texts)]
    assert metrics["test"]["num_rows"] == 240
    assert metrics["test"]["macro_f1"] == pytest.approx(f1_score(true, predicted, average="macro"))
    assert metrics["test"]["accuracy"] == pytest.approx(accuracy_score(true, predicted))
    assert metrics["test"]["loss"] == pytest.approx(
        log_loss(true, classifier.probabilities(texts), labels=classifier.labels), abs=1e-6
    )
    assert metrics["minority_label"] == "positive"
    assert metrics["evaluated"] == {
        "model": str(model),
        "data": str(tweets),
        "rows_read": 240,
        "rows_left_out": {},
    }
    assert f"macro F1 {metrics['test']['macro_f1']:.4f} on 240 rows" in out
    assert "Results: evaluation/metrics.json" in out


def test_figures_have_intervals_and_frequency_groups_if_the_model_records_its_training_rows(
    evaluate, model, tiny_model, tweets, tmp_path
):
    _, out, _, metrics = evaluate(model, tweets, "--label-column", "sentiment")
    assert "per_group" not in metrics["test"]
    assert (
        f"No figures of frequent and rare labels: {model} does not record the training rows" in out
    )
    of_figures = ("macro_f1", "accuracy", "balanced_accuracy", "minority_recall", "f1")
    assert tuple(metrics["intervals"]) == of_figures
    rows = {"by_label": {"negative": 90, "neutral": 40, "positive": 3}}
    recorded = make_model(
        tiny_model, tmp_path / "recorded", train_rows=rows | {"groups": {"head": 50, "medium": 9}}
    )
    two = evaluate(recorded, tweets, "--label-column", "sentiment", model)[3]["test"]
    _, out, _, metrics = evaluate(recorded, tweets, "--label-column", "sentiment")
    assert two["per_group"].keys() == metrics["test"]["per_group"].keys()
    per_class = metrics["test"]["per_class"]
    assert {name: group["macro_f1"] for name, group in metrics["test"]["per_group"].items()} == {
        "head": per_class["negative"]["f1"],
        "medium": per_class["neutral"]["f1"],
        "tail": per_class["positive"]["f1"],
    }
    assert "Frequent and rare classes" in out
    assert "does not record" not in out


def test_rows_without_a_text_or_a_label_are_counted_and_left_out(evaluate, model, tmp_path):
    rows = [
        {"text": "a", "label": "neutral"},
        {"text": "", "label": "neutral"},
        {"text": "b", "label": None},
        {"text": "c", "label": "positive"},
    ]
    code, out, err, metrics = evaluate(model, write(tmp_path / "rows.jsonl", rows))
    assert code == 0, err
    assert metrics["test"]["num_rows"] == 2
    assert metrics["evaluated"]["rows_left_out"] == {"empty text": 1, "missing label": 1}
    assert "Skipped rows: 1 empty text; 1 missing label." in out
    code, _, err, _ = evaluate(model, write(tmp_path / "none.jsonl", rows[1:3]))
    assert (
        code,
        "no row has both a text and a label. Check data.text_column and data.label_column." in err,
    ) == (2, True)


def test_labels_that_the_model_does_not_know_are_told_with_their_rows_and_may_be_dropped(
    evaluate, model, tmp_path
):
    labels = ["neutral", "maybe", "maybe", "yes", "positive"]
    data = write(
        tmp_path / "rows.jsonl",
        [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)],
    )
    code, _, err, metrics = evaluate(model, data)
    assert (code, metrics) == (2, None)
    assert (
        "does not know: maybe (2 rows), yes (1 row); known: negative, neutral,"
        " positive. Rename the labels with data.label_map, or skip their rows: "
    ) in err
    assert """--set 'data.drop_labels=["maybe", "yes"]'.""" in err
    code, _, err, metrics = evaluate(model, data, "--set", "data.drop_labels=[maybe, yes]")
    assert code == 0, err
    assert metrics["test"]["num_rows"] == 2
    assert metrics["evaluated"]["rows_left_out"] == {
        "label dropped by data.drop_labels or data.label_map": 3
    }


def test_the_command_that_leaves_unknown_labels_out_can_be_pasted_whatever_they_are_called(
    evaluate, model, tmp_path
):
    labels = ["a, b", "it's", "1", "Positive", "positive"]
    data = write(
        tmp_path / "rows.jsonl",
        [{"text": f"text {n}", "label": label} for n, label in enumerate(labels)],
    )
    code, _, err, _ = evaluate(model, data)
    assert (
        code,
        (
            "known: negative, neutral, positive. Did you mean 'positive'? Rename the"
            " labels with data.label_map, or skip"
        )
        in err,
    ) == (2, True), err
    command = err[err.index("--set") :].strip().removesuffix(".")
    code, _, err, metrics = evaluate(model, data, *shlex.split(command))
    assert code == 0, err
    assert metrics["evaluated"]["rows_left_out"] == {
        "label dropped by data.drop_labels or data.label_map": 4
    }
    write(data, [{"text": f"text {n}", "label": str(n)} for n in range(13)])
    assert (
        "Rename the labels with data.label_map, or skip their rows with data.drop_labels."
        in evaluate(model, data)[2]
    )


@pytest.fixture(scope="module")
def multi_label(tiny_model, tmp_path_factory):
    return make_model(
        tiny_model,
        tmp_path_factory.mktemp("multi_label"),
        problem_type="multi_label_classification",
    )


def test_multi_label_rows_are_judged_label_by_label(evaluate, multi_label, rows, tmp_path):
    labels = [
        [row["sentiment"]] if n % 3 else ["positive", "neutral"] for n, row in enumerate(rows)
    ]
    data = write(
        tmp_path / "rows.jsonl",
        [{"text": row["text"], "label": held} for row, held in zip(rows, labels, strict=True)],
    )
    code, _, err, metrics = evaluate(multi_label, data)
    assert code == 0, err
    classifier = Classifier.load(multi_label)
    given = [p.labels for p in classifier.predict([row["text"] for row in rows])]
    true, predicted = (
        [[label in held for label in classifier.labels] for held in column]
        for column in (labels, given)
    )
    for average in ("macro", "micro"):
        assert metrics["test"][f"{average}_f1"] == pytest.approx(
            f1_score(true, predicted, average=average, zero_division=0)
        )
    ones = [
        {"text": row["text"], **{label: int(label in held) for label in classifier.labels}}
        for row, held in zip(rows, labels, strict=True)
    ]
    assert (
        evaluate(
            multi_label,
            write(tmp_path / "ones.jsonl", ones),
            "--set",
            "data.label_columns=[negative, neutral, positive]",
        )[3]["test"]
        == metrics["test"]
    )
    data = write(
        tmp_path / "other.jsonl",
        [{"text": "x", "label": ["positive", "other"]}, {"text": "y", "label": ["other"]}],
    )
    assert (
        "does not know: other (2 rows); known: negative, neutral, positive."
        in evaluate(multi_label, data)[2]
    )


def test_several_multi_label_models_are_judged_by_their_votes(
    evaluate, multi_label, tiny_model, rows, tmp_path
):
    others = [
        make_model(
            tiny_model, tmp_path / str(seed), seed=seed, problem_type="multi_label_classification"
        )
        for seed in (1, 2)
    ]
    data = write(
        tmp_path / "rows.jsonl",
        [{"text": row["text"], "label": [row["sentiment"]]} for row in rows],
    )
    given = [
        set(p.labels)
        for p in Classifier([Classifier.load(folder) for folder in (multi_label, *others)]).predict(
            [row["text"] for row in rows]
        )
    ]
    right = sum(held == {row["sentiment"]} for held, row in zip(given, rows, strict=True))
    cli_arguments = ["evaluate", str(multi_label), *map(str, others), "--data", str(data)]
    cli.app(cli_arguments, standalone_mode=False)
    assert json.loads((tmp_path / "evaluation/metrics.json").read_text(encoding="utf-8"))["test"][
        "accuracy"
    ] == pytest.approx(right / len(rows))


def test_data_of_another_kind_than_the_model_is_told_in_words(
    evaluate, model, multi_label, tmp_path
):
    single, several = (
        write(tmp_path / "a.jsonl", [{"text": "x", "label": "positive"}]),
        write(tmp_path / "b.jsonl", [{"text": "x", "label": ["positive"]}]),
    )
    assert "a.jsonl: holds one label a row, but" in evaluate(multi_label, single)[2]
    assert (
        "gives one label. Several labels are lists in data.label_column, or 0/1"
        " columns in data.label_columns."
    ) in evaluate(model, several)[2]


def test_columns_are_those_of_the_run_and_pairs_are_pairs(evaluate, model, rows, tmp_path):
    run = as_run(tmp_path / "run", [model], {})
    (run / "config.yaml").write_text(
        "data: {text_column: [prompt, reply], label_column: kind}", encoding="utf-8"
    )
    pairs = [
        {"prompt": row["text"], "reply": rows[-n]["text"], "kind": row["sentiment"]}
        for n, row in enumerate(rows[:60])
    ]
    data = write(tmp_path / "rows.jsonl", pairs)
    code, _, err, metrics = evaluate(run, data)
    assert code == 0, err
    predicted = Classifier.load(model).predict(
        [{"text": row["prompt"], "text_pair": row["reply"]} for row in pairs]
    )
    assert metrics["test"]["accuracy"] == pytest.approx(
        sum(p.label == row["kind"] for p, row in zip(predicted, pairs, strict=True)) / 60
    )
    spelt = evaluate(
        model, data, "--text-column", "prompt", "--pair-column", "reply", "--label-column", "kind"
    )[3]
    assert spelt["test"] == metrics["test"]


@pytest.mark.parametrize(
    ("config", "cells"),
    [
        (
            "label_map: {good: positive, bad: negative, neutral: null, meh: neutral}",
            [["good"], ["bad", "neutral"], ["positive", "good"]],
        ),
        (
            "label_separator: ';', label_map: {good: positive}",
            ["good", "negative;neutral", "positive ; good"],
        ),
        ("labels_per_row: long, label_map: {good: positive}", ["good", "negative", "positive"]),
    ],
)
def test_a_file_like_the_runs_own_is_named_as_the_run_names_it(
    evaluate, multi_label, tmp_path, config, cells
):
    run = as_run(tmp_path / "run", [multi_label], {})
    (run / "config.yaml").write_text(f"data: {{text_column: text, {config}}}", encoding="utf-8")
    rows = [{"text": f"text {n}", "label": cell} for n, cell in enumerate(cells)]
    rows += [{"text": "text 1", "label": "neutral"}] if "long" in config else []
    code, out, err, metrics = evaluate(run, write(tmp_path / "rows.jsonl", rows))
    assert code == 0, err
    support = {label: figures["support"] for label, figures in metrics["test"]["per_class"].items()}
    assert support == {"negative": 1, "neutral": 0 if "null" in config else 1, "positive": 2}
    assert ("Labels removed by data.label_map: 'neutral' (1 row)." in out) == ("null" in config)


def test_the_results_of_a_run_folder_are_never_replaced(evaluate, model, tweets, tmp_path):
    run = as_run(tmp_path / "run", [model], {})
    code, _, err, _ = evaluate(run, tweets, "--output", run)
    assert (
        code,
        (
            "run/metrics.json: is in a run folder, which holds the results of its"
            " training. Give another --output."
        )
        in err,
    ) == (2, True)
    assert (
        evaluate(run, tweets, "--label-column", "sentiment", "--output", tmp_path / "mine.json")[0]
        == 0
    )
    assert "test" in json.loads((tmp_path / "mine.json").read_text(encoding="utf-8"))


def test_no_other_file_than_figures_is_replaced(evaluate, model, tmp_path):
    rows = [{"text": "x", "label": "positive"}, {"text": "y", "label": "negative"}]
    data = write(tmp_path / "rows.json", rows)
    held = data.read_bytes()
    code, _, err, _ = evaluate(model, data, "--output", data)
    assert (
        code,
        "rows.json is in --data. Give another file." in err,
        data.read_bytes() == held,
    ) == (2, True, True), err
    assert (
        "rows.json is in --data."
        in evaluate(model, tmp_path / "*.json", "--output", tmp_path / "link" / ".." / "rows.json")[
            2
        ]
    )
    (tmp_path / "notes.csv").write_text("mine", encoding="utf-8")
    code, _, err, _ = evaluate(model, data, "--output", "notes.csv")
    assert (
        code,
        (
            "--output: notes.csv does not end in .json; needed: a .json file, or a folder"
            " for metrics.json."
        )
        in err,
    ) == (2, True), err
    assert (tmp_path / "notes.csv").read_text(encoding="utf-8") == "mine"
    (tmp_path / "new" / "metrics.json").mkdir(parents=True)
    assert (
        "--output: new/metrics.json is a folder; needed:"
        in evaluate(model, data, "--output", "new")[2]
    )


def test_a_place_that_cannot_be_written_is_told_before_the_model_is_loaded(evaluate, tmp_path):
    data = write(tmp_path / "rows.jsonl", [{"text": "x", "label": "positive"}])
    for output in ("rows.jsonl/metrics.json", "/proc/none/metrics.json"):
        code, _, err, _ = evaluate(tmp_path / "no_model", data, "--output", output)
        assert (
            code,
            "cannot be written" in err,
            "Set --output to a folder you may write." in err,
        ) == (2, True, True), err


def test_figures_are_shown_even_where_the_disk_takes_them_no_more(
    evaluate, model, tmp_path, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluate_file.writer.RunFolder, "write_json", full)
    data = write(tmp_path / "rows.jsonl", [{"text": "x", "label": "positive"}])
    code, out, err, metrics = evaluate(model, data)
    assert (code, "macro F1" in out, "No space left on device" in err, metrics) == (
        2,
        True,
        True,
        None,
    ), err


def test_nothing_is_put_beside_the_files_of_a_model(evaluate, model, tweets, tmp_path):
    run = as_run(tmp_path / "run", [model], {})
    held = sorted(run.rglob("*"))
    assert (
        "run/model/ev.json: is in a model folder, which holds only the files of the"
        " model. Give another --output."
    ) in (evaluate(run, tweets, "--output", "run/model/ev.json")[2])
    assert (
        "run/plots/ev.json: is in a run folder"
        in evaluate(run, tweets, "--output", "run/plots/ev.json")[2]
    )
    assert sorted(run.rglob("*")) == held


def test_figures_that_are_there_are_replaced_on_request_alone(evaluate, model, tmp_path):
    data = write(
        tmp_path / "rows.jsonl",
        [{"text": "x", "label": "positive"}, {"text": "y", "label": "negative"}],
    )
    figures = tmp_path / "older.json"
    figures.write_text("of another model", encoding="utf-8")
    code, _, err, _ = evaluate(model, data, "--output", figures)
    assert (
        code,
        "older.json: exists already. Give --overwrite to overwrite it, or another --output." in err,
    ) == (2, True)
    assert figures.read_text(encoding="utf-8") == "of another model"
    assert evaluate(model, data, "--output", figures, "--overwrite")[0] == 0
    assert json.loads(figures.read_text(encoding="utf-8"))["evaluated"]["model"] == str(model)


def test_figures_that_another_process_writes_meanwhile_are_not_replaced(
    evaluate, model, tmp_path, monkeypatch
):
    data = write(tmp_path / "rows.jsonl", [{"text": "x", "label": "positive"}])
    figures = tmp_path / "figures.json"
    with locks.only_writer(figures):
        monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.01)
        code, _, err, _ = evaluate(model, data, "--output", figures)
    assert (code, "figures.json is being written by pid " in err) == (2, True)
    assert not figures.exists()


def test_missing_columns_are_refused_before_a_model_is_loaded_by_the_names_of_the_options(
    evaluate, tmp_path
):
    data = write(tmp_path / "rows.jsonl", [{"text": "x", "sentiment": "y"}])
    code, _, err, _ = evaluate("/no/model", data)
    assert (code, "no column 'label'" in err) == (2, True), err
    assert "Give --text-column and --label-column." in err
    assert "data.label_column" not in err
