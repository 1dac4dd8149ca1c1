"""report.html of real runs: self-contained, escaped, in agreement with the run's files."""

import csv
import json
import logging
import re
import shutil
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from page_parser import Page
from sklearn.metrics import average_precision_score

from trainer import load_config
from trainer.delivery.hub.repository_files import SHARED
from trainer.delivery.report import page_intervals, report_page
from trainer.delivery.report.mistakes import MOST_MISTAKES
from trainer.display import curves
from trainer.display.reliability_plot import bins_of, reliability
from trainer.errors import RunError
from trainer.evaluation.outcome import outcome_of
from trainer.run_folder.finished_run import FinishedRun, read_runs
from trainer.run_folder.predictions import Predictions
from trainer.run_folder.writer import RunFolder
from trainer.runs import ensemble, training_run

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
EVIL = "<img src=http://evil.example/x onerror=alert(1)>"
EVIL_TEXT = "<script>alert('text')</script>"
SECTIONS = [
    "results",
    "data",
    "balancing",
    "training",
    "classes",
    "confusion",
    "curves",
    "mistakes",
    "decision",
    "config",
    "environment",
]


def train(folder, tiny_model, source, **sections):
    values = {
        "run": {"name": "run", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 32},
        "data": {"source": str(source)},
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "training": {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-3,
            "bf16": False,
        },
    }
    for name, content in sections.items():
        values[name] = {**values.get(name, {}), **content}
    (folder / "config.yaml").write_text(json.dumps(values), encoding="utf-8")
    config = load_config(str(folder / "config.yaml"))
    return (
        ensemble.train_ensemble(config) if config.ensemble.size > 1 else training_run.train(config)
    )


@pytest.fixture(scope="module")
def single(tmp_path_factory, tiny_model, tweets):
    """Balanced run of three classes with a decision; class names and texts contain markup."""
    folder = tmp_path_factory.mktemp("single")
    with tweets.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {"negative": EVIL, "neutral": "neutral & $x^2$", "positive": "积极"}
    lines = [
        json.dumps({"text": f"{EVIL_TEXT} {row['text']}", "label": names[row["sentiment"]]})
        for row in rows
    ]
    (folder / "rows.jsonl").write_text("\n".join(lines), encoding="utf-8")
    decision = {"prior": "natural", "temperature": True, "thresholds": "f1"}
    return train(
        folder,
        tiny_model,
        folder / "rows.jsonl",
        balance={"method": "oversample"},
        loss={"class_weights": dict(zip(names.values(), (1, 2, 3), strict=True))},
        decision=decision,
    )


@pytest.fixture(scope="module")
def multi(tmp_path_factory, tiny_model, tactics):
    """Multi-label run that shows no texts."""
    folder = tmp_path_factory.mktemp("multi")
    wanted = {"discovery", "execution", "persistence"}
    rows = [
        {**row, "labels": [label for label in row["labels"] if label in wanted]}
        for row in tactics[::80][:180]
    ]
    (folder / "rows.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    return train(
        folder,
        tiny_model,
        folder / "rows.jsonl",
        data={"label_column": "labels"},
        loss={"class_weights": "balanced"},
        report={"show_texts": False},
    )


@pytest.fixture(scope="module")
def folds(tmp_path_factory, tiny_model, tweets):
    """Ensemble of two folds whose members are heads on the frozen encoder."""
    folder = tmp_path_factory.mktemp("folds")
    return train(
        folder,
        tiny_model,
        tweets,
        data={"label_column": "sentiment"},
        model={"mode": "head"},
        ensemble={"size": 2, "kind": "folds"},
    )


@pytest.fixture(params=["single", "multi", "folds"])
def run(request):
    return request.getfixturevalue(request.param)


def page_of(run):
    return (run / "report.html").read_text(encoding="utf-8")


def words_of(text):
    return " ".join(" ".join(Page(text).words).split())


def predictions(run):
    table = pq.read_table(run / "predictions.parquet").to_pandas()
    return table[table["split"] == "test"]


def copy_of(run, tmp_path):
    return shutil.copytree(
        run, tmp_path / "copy", ignore=shutil.ignore_patterns("model", "member-*")
    )


def test_page_needs_nothing_from_outside_and_runs_nothing(run):
    page = Page(page_of(run))
    assert not {"script", "link", "iframe", "object", "form"} & set(page.tags)
    assert all(
        address.startswith(("data:image/svg+xml;base64,", "#")) for address in page.addresses
    )
    assert "url(" not in page_of(run)
    assert len(page_of(run)) < 1_000_000


def test_page_has_every_section_and_the_links_to_them_lead_there(run):
    text = page_of(run)
    assert re.findall(r'<section id="(\w+)">', text) == SECTIONS
    assert [address[1:] for address in Page(text).addresses if address.startswith("#")] == SECTIONS


def test_labels_and_texts_are_escaped_and_read_as_they_are(single):
    text = page_of(single)
    assert EVIL not in text
    assert EVIL_TEXT not in text
    assert "<img src=http" not in text
    for words in (EVIL, EVIL_TEXT, "neutral & $x^2$", "积极"):
        assert words in words_of(text)


def test_headline_is_that_of_metrics_json(run):
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    final = metrics.get("decision", metrics)["test"]
    words = words_of(page_of(run))
    assert f"{final['macro_f1']:.3f}" in words
    for label, values in final["per_class"].items():
        assert (
            f"{label} {'rarest ' if label == metrics['minority_label'] else ''}{values['f1']:.3f}"
            in words
        )


def test_intervals_of_the_page_are_those_of_the_resampled_rows(single):
    finished = FinishedRun.read(single)
    resampled = page_intervals.resampled_figures([finished])
    low, high = page_intervals.headline_intervals(finished, resampled, 0)["accuracy"]
    assert low <= finished.final["accuracy"] <= high
    assert f"{low:.3f} to {high:.3f}" in words_of(page_of(single))


def test_rows_before_and_after_balancing_are_those_of_the_card(single):
    facts = json.loads((single / "report.json").read_text(encoding="utf-8"))
    card = (
        (single / "README.md").read_text(encoding="utf-8").replace("\\", "")
    )  # Markdown's escapes
    for c, label in enumerate(facts["labels"]):
        counts = [counts[c] for counts in facts["columns"].values()]
        assert f"| {label} | {' | '.join(f'{count:,}' for count in counts)} |" in card
    assert len(set(facts["columns"]["seen per epoch"])) == 1
    words = words_of(page_of(single))
    assert "balance.method: oversample" in words
    assert "severe" in words or facts["severity"] in words


def test_hardest_mistakes_are_the_wrong_rows_of_highest_probability(single):
    test = predictions(single)
    wrong = test[test["label"] != test["predicted"]].copy()
    wrong["sure"] = [row[f"probability_{row['predicted']}"] for _, row in wrong.iterrows()]
    expected = wrong.sort_values("sure", ascending=False, kind="stable")["row"].tolist()[
        :MOST_MISTAKES
    ]
    assert [int(row) for row in re.findall(r"· row (\d+)", page_of(single))] == expected
    quoted = [
        json.loads(line)
        for line in (single / "mistakes.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [line["row"] for line in quoted] == expected
    assert all(line["text"].startswith(EVIL_TEXT) for line in quoted)


def test_hardest_mistakes_of_several_labels_are_single_answers():
    p_NC = np.array([[0.9, 0.2], [0.4, 0.01], [0.6, 0.7]])
    given = p_NC >= 0.5
    true = np.array([[False, False], [True, True], [True, True]])
    found = Predictions(np.array([7, 8, 9]), true, given, p_NC).hardest(["a", "b"], 3)
    assert [(m.row, m.label, m.predicted) for m in found] == [
        (8, "b", "missed"),
        (7, "a", "given"),
        (8, "a", "missed"),
    ]
    assert [m.probability for m in found] == pytest.approx([0.99, 0.9, 0.6])


def test_no_text_of_the_data_is_shown_or_kept_unless_asked_for(multi, tactics):
    assert not (multi / "mistakes.jsonl").exists()
    words = words_of(page_of(multi))
    assert "This page quotes texts" not in words
    assert "The texts are not on this page" in words
    assert not any(row["text"][:40] in words for row in tactics)


def test_texts_are_left_out_of_a_page_to_share(single, tmp_path):
    page = report_page.rebuild(FinishedRun.read(single), tmp_path / "share.html", show_texts=False)
    text = page.read_text(encoding="utf-8")
    assert "alert" not in text.replace("alert(1)", "")  # but for the class of that name
    assert "This page quotes texts of the data." in page_of(single)


def test_page_and_quoted_texts_never_go_to_the_hub():
    assert not {"report.html", "report.json", "mistakes.jsonl", "predictions.parquet"} & set(SHARED)


def test_decision_and_class_weights_are_told(single):
    words = words_of(page_of(single))
    for part in (
        "Probabilities are corrected to these shares",
        "threshold",
        "expected share",
        "Class weights",
        "test, with the decision",
    ):
        assert part in words


def test_multi_label_page_counts_answers_in_place_of_a_confusion_matrix(multi):
    test = predictions(multi)
    words = words_of(page_of(multi))
    assert "Confusion matrix" not in words
    for label in ("discovery", "execution", "persistence"):
        has, given = (
            np.array([label in labels for labels in test[name]]) for name in ("label", "predicted")
        )
        assert (
            f"{label} {(has & given).sum()} {(has & ~given).sum()} {(~has & given).sum()}" in words
        )


def test_ensemble_page_lists_members_and_lays_their_curves_upon_another(folds):
    metrics = json.loads((folds / "metrics.json").read_text(encoding="utf-8"))
    words = words_of(page_of(folds))
    for number, score in enumerate(metrics["ensemble"]["member_macro_f1"], 1):
        assert f"member-{number} {score:.3f}" in words
    assert "member-1 member-2" in words
    assert "The counts are those of the first member." in words


def test_page_of_a_member_with_a_head_tells_its_fits(folds):
    words = words_of(page_of(folds / "member-1"))
    assert "fit step training loss validation loss accuracy macro F1 minority recall L2" in words
    assert "final layer fitted by L-BFGS" in words


def test_page_is_made_again_from_the_folder_alone(run):
    before = page_of(run)
    page = run / "report.html"
    page.unlink()
    assert report_page.rebuild(FinishedRun.read(run)) == page
    assert page_of(run) == before


def test_what_older_runs_lack_is_left_out_in_words(single, tmp_path):
    old = copy_of(single, tmp_path)
    for name in (
        "report.json",
        "mistakes.jsonl",
        "predictions.parquet",
        "environment.json",
        "epochs.csv",
        "class_weights.json",
    ):
        (old / name).unlink()
    words = words_of(report_page.render(FinishedRun.read(old)))
    for part in (
        "No intervals: this run folder holds no predictions.parquet",
        "Not shown: this run folder holds no report.json, which has the counts by class",
        "there are no learning curves",
        "Not drawn: this run folder holds no predictions.parquet",
        "Not listed: this run folder holds no predictions.parquet",
        "holds no environment.json",
    ):
        assert part in words


def test_only_line_feeds_end_a_line_of_the_mistakes(single, tmp_path):
    copy = copy_of(single, tmp_path)
    path = copy / "mistakes.jsonl"
    first, *others = [
        json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line
    ]
    first["text"] = "one\u2028two\u2029three\u0085four"
    path.write_text(
        "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [first, *others]),
        encoding="utf-8",
    )
    read = FinishedRun.read(copy)
    assert len(read.texts) == 1 + len(others)
    assert read.texts[first["row"]] == first["text"]
    assert "one two three four" in words_of(report_page.render(read))


def test_a_fault_of_the_page_never_costs_the_run(single, tmp_path, caplog, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("no rows")

    copy = copy_of(single, tmp_path)
    monkeypatch.setattr(report_page, "render", broken)
    with caplog.at_level(logging.WARNING):
        report_page.write_or_warn(copy)
    assert (
        "report.html was not written: no rows. The run is complete; repeat with: equipoise report"
        f" {copy}" in caplog.text
    )


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda run: shutil.rmtree(run), "no such folder. Give run folders"),
        (lambda run: (shutil.rmtree(run), run.write_text("")), "is a file. Give run folders"),
        (lambda run: (run / "config.yaml").unlink(), "holds no run \\(no config.yaml\\)"),
        (
            lambda run: (run / "metrics.json").unlink(),
            "holds an unfinished run \\(no metrics.json\\)",
        ),
        (
            lambda run: (run / "metrics.json").write_text("{}"),
            "holds no results of validation or test",
        ),
        (lambda run: (run / "metrics.json").write_text("{"), "metrics.json: is damaged"),
        (
            lambda run: (run / "mistakes.jsonl").write_text("{}"),
            "mistakes.jsonl: is damaged.*Remove it",
        ),
        (
            lambda run: (run / "epochs.csv").write_text("epoch\nx\n"),
            "epochs.csv: is damaged.*Remove it",
        ),
        (
            lambda run: (run / "predictions.parquet").write_text("x"),
            "predictions.parquet: cannot be read.*Remove it",
        ),
    ],
)
def test_folders_that_cannot_be_read_are_told_in_words(single, tmp_path, damage, words):
    copy = copy_of(single, tmp_path)
    damage(copy)
    with pytest.raises(RunError, match=words):
        report_page.rebuild(FinishedRun.read(copy))


def edit(name, change):
    """Damage: the values of a JSON file of the run folder, changed."""

    def damage(run):
        values = json.loads((run / name).read_text(encoding="utf-8"))
        change(values)
        (run / name).write_text(json.dumps(values), encoding="utf-8")

    return damage


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            edit("metrics.json", lambda m: m["test"].pop("auroc_macro")),
            r"metrics.json: lacks test.auroc_macro; it is damaged, or was written",
        ),
        (
            edit("metrics.json", lambda m: m.pop("minority_label")),
            r"metrics.json: lacks minority_label;",
        ),
        (
            edit("metrics.json", lambda m: m["decision"]["test"]["per_class"].pop("积极")),
            r"metrics.json: lacks decision.test.per_class.积极;",
        ),
        (
            edit("metrics.json", lambda m: m["test"].update(accuracy="high")),
            r"metrics.json: lacks test.accuracy as a number;",
        ),
        (
            edit("metrics.json", lambda m: m.update(test={})),
            r"metrics.json: lacks test.accuracy, .* more;",
        ),
        (
            edit("metrics.json", lambda m: m.update(test=3)),
            r"copy: a file there is damaged, or was written by another .* \(TypeError.*train again",
        ),
        (
            edit("report.json", lambda facts: facts.pop("saved_step")),
            r"copy: a file there is damaged, .* \(KeyError: 'saved_step'\). Make the page with",
        ),
        (
            edit("report.json", lambda facts: facts.pop("lengths")),
            r"copy: a file there is damaged, .* has no attribute 'lengths'",
        ),
        (
            edit("environment.json", lambda environment: environment.pop("data")),
            r"copy: a file there is damaged, .* has no attribute 'data'",
        ),
        (
            lambda run: (run / "config.yaml").write_text("model: 3"),
            r"copy: a file there is damaged, .* has no attribute 'get'",
        ),
        (
            lambda run: (run / "epochs.csv").write_text("epoch,other\n1,2\n"),
            r"epochs.csv: lacks columns \(accuracy, .*step.*\). Remove it",
        ),
        (
            lambda run: (run / "mistakes.jsonl").write_bytes(b"\xff\n"),
            r"mistakes.jsonl: is damaged: .*utf-8.*Remove it",
        ),
    ],
)
def test_files_of_another_shape_are_told_in_words(single, tmp_path, damage, words):
    copy = copy_of(single, tmp_path)
    damage(copy)
    with pytest.raises(RunError, match=words):
        report_page.rebuild(FinishedRun.read(copy))


def test_predictions_of_another_run_are_told(single, tmp_path):
    copy = copy_of(single, tmp_path)
    metrics = (copy / "metrics.json").read_text(encoding="utf-8")
    (copy / "metrics.json").write_text(metrics.replace("积极", "other"), encoding="utf-8")
    with pytest.raises(RunError, match=r"predictions.parquet holds labels that metrics.json lacks"):
        report_page.rebuild(FinishedRun.read(copy))


def test_files_of_others_are_not_overwritten(single, tmp_path):
    mine = tmp_path / "mine.html"
    mine.write_text("<p>mine</p>")
    with pytest.raises(RunError, match=r"is not a page of equipoise. Give another --output"):
        report_page.rebuild(FinishedRun.read(single), mine)
    with pytest.raises(RunError, match=r"is a folder; --output is the page itself"):
        report_page.rebuild(FinishedRun.read(single), tmp_path)
    assert mine.read_text() == "<p>mine</p>"


def test_a_run_given_twice_is_told(single):
    with pytest.raises(RunError, match="is given twice"):
        read_runs([single, single / "../run"])


def test_command_writes_the_page_without_loading_torch(single, tmp_path):
    code = (
        "import sys\nfrom trainer.cli import app\ntry:\n    app(sys.argv[1:])\n"
        "finally:\n    assert 'torch' not in sys.modules"
    )
    command = [
        sys.executable,
        "-c",
        code,
        "report",
        str(single),
        "--output",
        str(tmp_path / "page.html"),
        "--no-texts",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"Report: {tmp_path / 'page.html'}\n"), done.stderr
    wrong = subprocess.run(
        [*command[:4], str(tmp_path / "nowhere")], capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert (
        wrong.stderr
        == f"{tmp_path / 'nowhere'}: no such folder. Give run folders, such as runs/quickstart.\n"
    )


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium on this machine")
def test_browser_shows_pages_without_a_complaint_at_any_width(single, multi, folds, tmp_path):
    from playwright.sync_api import sync_playwright

    said, asked = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url.split(":")[0]))
        for run in (single, multi, folds):
            for width in (390, 1280):
                page.set_viewport_size({"width": width, "height": 900})
                page.goto((run / "report.html").as_uri())
                assert page.evaluate("document.documentElement.scrollWidth") == width
                assert page.evaluate(
                    "[...document.images].every(image => image.complete && image.naturalWidth > 0)"
                )
        page.pdf(path=tmp_path / "page.pdf", format="A4")
        browser.close()
    assert said == []
    assert set(asked) <= {"file", "data"}
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_hundred_classes_stay_usable(tmp_path):
    """No training: a run folder's files, made up, for what no small data set has."""
    labels = [f"class number {c:03}" for c in range(100)]
    rng = np.random.default_rng(0)
    true = np.sort(rng.zipf(1.4, 3000) % 100)
    p_NC = rng.dirichlet(np.full(100, 0.05), 3000)
    p_NC[np.arange(3000), true] += 1
    p_NC = (p_NC + 1e-9) / (p_NC + 1e-9).sum(axis=1, keepdims=True)
    predicted = np.where(rng.random(3000) < 0.2, rng.integers(0, 100, 3000), p_NC.argmax(axis=1))
    outcome = outcome_of(np.log(p_NC), true, labels, (np.log(p_NC), predicted), None)
    folder = RunFolder(tmp_path)
    folder.write_text("config.yaml", "model: {name: x}\ndata: {source: y}\n")
    folder.write_predictions({"test": (np.arange(3000), outcome)}, labels)
    folder.write_json(
        "metrics.json", {"test": outcome.final.to_dict(), "minority_label": labels[-1]}
    )
    text = report_page.render(FinishedRun.read(tmp_path))
    words = words_of(text)
    assert all(label in words for label in labels)
    assert len(text) < 1_500_000
    assert "pale the next 32; 60 classes are not drawn" in " ".join(text.split())


def test_reliability_shows_how_often_right_the_answers_of_each_sureness_are():
    p_NC, targets = np.array([[0.9, 0.1], [0.92, 0.08], [0.3, 0.7]]), np.array([0, 1, 1])
    found = Predictions(np.arange(3), targets, targets, p_NC).confidences()
    axis = reliability({"": bins_of(found)}).axes[0]
    np.testing.assert_allclose(axis.lines[1].get_xydata(), [[0.7, 1.0], [0.91, 0.5]])
    has_NC = np.array([[True, False], [False, True]])
    found = Predictions(np.arange(2), has_NC, has_NC, np.array([[0.9, 0.1], [0.9, 0.9]]))
    answers = reliability({"": bins_of(found.confidences())}, "answers")
    np.testing.assert_allclose(answers.axes[0].lines[1].get_xydata(), [[0.9, 0.75]])


@pytest.mark.parametrize("num_positive", [3, 40, 1000])
def test_area_under_a_precision_recall_curve_is_the_average_precision(num_positive):
    rng = np.random.default_rng(0)
    targets = np.repeat([0, 1], [2000, num_positive])
    p_N = rng.beta(2, 5, len(targets)) + 0.2 * targets
    p_NC = np.c_[1 - p_N, p_N]
    recall, precision = (
        curves.precision_recall(targets, p_NC, [1], []).axes[0].lines[0].get_xydata().T
    )
    assert len(recall) <= curves.MOST_POINTS
    assert -np.diff(recall) @ precision[:-1] == pytest.approx(
        average_precision_score(targets, p_N), abs=1e-9 if num_positive < 100 else 0.01
    )


def test_precision_recall_curve_of_a_perfect_class_is_flat():
    targets = np.repeat([0, 1], [90, 10])
    curve = curves.precision_recall(targets, np.eye(2)[targets], [1], []).axes[0].lines[0]
    assert curve.get_ydata().tolist() == [1, 1]


def test_one_epoch_stands_in_the_middle_of_an_axis_of_whole_epochs():
    epoch = {
        "epoch": 1.0,
        "step": 4.0,
        "training_loss": 0.9,
        "validation_loss": 0.8,
        "accuracy": 0.5,
        "macro_f1": 0.4,
        "minority_recall": 0.3,
    }
    overlaid = curves.overlaid([[epoch], [], [epoch]], "macro_f1", "")
    figures = [overlaid, curves.learning_curves([epoch], 4)]
    for axis in (axis for figure in figures for axis in figure.axes):
        low, high = axis.get_xlim()
        assert (low, high) == (0.5, 1.5)
        assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [1]


def test_average_precision_is_the_mean_of_precisions_where_recall_rises():
    targets, p_NC = (
        np.array([0, 0, 1, 2]),
        np.array([[0.9, 0.1, 0], [0.2, 0.7, 0.1], [0.4, 0.6, 0], [0.3, 0.3, 0.4]]),
    )
    assert curves.average_precisions(targets, p_NC)[:3] == pytest.approx(
        [0.5 * 1 + 0.5 * 2 / 4, 1 / 2, 1.0]
    )
    assert curves.average_precisions(targets, np.c_[p_NC, np.zeros(4)])[3] is None


def test_page_and_card_call_the_rows_of_a_balanced_pool_balanced_and_test_rows_natural(
    tmp_path, tiny_model, tweets
):
    balanced, natural = "classes balanced before the split", "with their natural distribution"
    cases = {
        "cut": ({"train": 0.5, "validation": 0.5, "test": None}, balanced),
        "tested": ({"test": 0.2}, natural),
    }
    for name, (split, words) in cases.items():
        (tmp_path / name).mkdir()
        balance = {"method": "undersample", "scope": "all"}
        run = train(
            tmp_path / name,
            tiny_model,
            tweets,
            data={"label_column": "sentiment"},
            split=split,
            balance=balance,
        )
        page, card = (
            (run / file).read_text(encoding="utf-8") for file in ("report.html", "README.md")
        )
        assert [words in page, {balanced: natural, natural: balanced}[words] in page] == [
            True,
            False,
        ]
        assert "Validation has a balanced distribution" in page
        assert "Validation figures are on a balanced distribution" in card
        assert (
            ("as in the test rows" in card) == ("as in the test rows" in page) == (name == "tested")
        )
