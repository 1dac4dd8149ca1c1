"""A run with 1,500 classes: its pictures, pages and files, and predictions."""

import json
import random
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from trainer.config.config import load_config
from trainer.evaluation.confusion import Confusion
from trainer.run_folder.finished_run import FinishedRun

pytestmark = pytest.mark.slow

NUM_CLASSES = 1500
MOST_PIXELS = 4000


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """CSV of 1,500 classes with four rows each (the first ten: 40); the class is in the text."""
    path = tmp_path_factory.mktemp("many") / "rows.csv"
    words, generator = (
        ["alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel"],
        random.Random(0),
    )
    lines = ["text,label"]
    for c in range(NUM_CLASSES):
        for n in range(40 if c < 10 else 4):
            lines.append(f"number {c} {' '.join(generator.choices(words, k=4))} {n},class {c:04}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def config_of(folder, model, rows, **sections):
    values = {
        "run": {"name": "many", "output_dir": str(folder / "runs")},
        "model": {"name": str(model), "max_length": 16},
        "data": {"source": str(rows), "text_column": "text", "label_column": "label"},
        "split": {"train": 0.5, "validation": 0.25, "test": 0.25},
        "loss": {"class_weights": "balanced"},
        "decision": {"prior": "natural"},
        "training": {
            "max_steps": 12,
            "per_device_train_batch_size": 64,
            "bf16": False,
            "learning_rate": 0.01,
        },
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(values | sections), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def run(narrow_model, rows, tmp_path_factory):
    from trainer.runs.training_run import train

    return train(load_config(str(config_of(tmp_path_factory.mktemp("run"), narrow_model, rows))))


def test_1500_classes_train_to_a_finished_run_with_bounded_pictures(run):
    pictures = {path.name: Image.open(path).size for path in run.glob("*.png")}
    assert set(pictures) == {
        "class_distribution.png",
        "learning_curves.png",
        "confusion_matrix.png",
        "reliability.png",
    }
    assert max(max(size) for size in pictures.values()) < MOST_PIXELS
    assert (run / "model/model.safetensors").is_file()


def test_card_and_page_show_some_classes_and_say_where_all_are(run):
    card, page = ((run / name).read_text(encoding="utf-8") for name in ("README.md", "report.html"))
    assert "1,500 classes" in card
    assert "1,480 more, all in `model/config.json`" in card
    assert len(card.splitlines()) < 500
    assert re.search(
        (
            r"Shown: \d+ of 1,500 classes, the 50 with the lowest F1 and, of the others,"
            r" the \d+ with the fewest rows\. All are in `metrics\.json`\."
        ),
        card,
    )
    assert len(page) < 1_500_000
    assert page.count("<tr") < 2000
    assert re.search(
        (
            r"40 of 1,500 classes, the \d+ predicted most often and, of the others, the"
            r" \d+ with the lowest F1"
        ),
        page,
    )
    assert "predictions.parquet holds only the largest probabilities" in page


def test_predictions_keep_20_probabilities_and_those_of_true_and_predicted_label(
    run,
):
    table = pq.read_table(run / "predictions.parquet")
    assert table.column_names == [
        "row",
        "split",
        "label",
        "predicted",
        "label_probability",
        "predicted_probability",
        "top_labels",
        "top_probabilities",
    ]
    top = np.array(table["top_probabilities"].to_pylist())
    assert top.shape == (table.num_rows, 20)
    assert (np.diff(top, axis=1) <= 0).all()
    for record in table.slice(0, 50).to_pylist():
        kept = dict(zip(record["top_labels"], record["top_probabilities"], strict=True))
        assert record["predicted_probability"] == kept[record["predicted"]] == max(kept.values())
        assert record["label_probability"] == kept.get(record["label"], record["label_probability"])


def test_sparse_confusion_matrix_counts_the_rows_of_predictions(run):
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    matrix = metrics["decision"]["test"]["confusion_matrix"]
    assert matrix["format"] == "sparse"
    assert sum(matrix["counts"]) == metrics["test"]["num_rows"]
    read = FinishedRun.read(run).predictions
    counted = Confusion.count(read.targets, read.predicted, NUM_CLASSES)
    assert counted.plain() == matrix


def test_report_and_predict_work_on_a_run_of_1500_classes(run, run_cli, rows, tmp_path):
    done = run_cli("report", run, "--output", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "<title>many" in (tmp_path / "page.html").read_text(encoding="utf-8")
    texts = tmp_path / "texts.csv"
    texts.write_text("text\nnumber 3 alpha\nnumber 4 bravo\n", encoding="utf-8")
    done = run_cli("predict", run, "--input", texts, "--output", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text(encoding="utf-8").count("class ") == 2
