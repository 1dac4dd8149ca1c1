"""Runs with a decision after training, domains and class-balanced batches."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import ModelCard
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef, recall_score
from transformers import pipeline

from trainer import Classifier
from trainer.evaluation.metrics import evaluate_logits

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, tweets, run_cli):
    """(run folder, metrics) of a run with balanced batches, prior correction and thresholds."""
    folder = tmp_path_factory.mktemp("decided")
    values = {
        "run": {"name": "run", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 64},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "split": {"train": 0.4, "validation": 0.4, "test": 0.2},
        "balance": {"method": "class_balanced_batches"},
        "loss": {"name": "logit_adjusted", "tau": 0.5},
        "decision": {"prior": "natural", "temperature": True, "thresholds": "f1"},
        "training": {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 16,
            "learning_rate": 3e-4,
            "bf16": False,
        },
    }
    (folder / "config.yaml").write_text(json.dumps(values), encoding="utf-8")
    done = run_cli("train", "--config", folder / "config.yaml")
    assert done.returncode == 0, done.stderr
    return folder / "run", json.loads((folder / "run/metrics.json").read_text(encoding="utf-8"))


def test_metrics_hold_the_results_without_and_with_the_decision(finished):
    metrics = finished[1]
    decision = metrics["decision"]
    assert set(decision["test"]) == set(metrics["test"])
    assert decision["test"]["loss"] != metrics["test"]["loss"]
    assert sum(decision["target_prior"].values()) == pytest.approx(1)
    assert decision["target_prior"]["negative"] == pytest.approx(0.5, abs=0.01)  # 120 of 240 tweets
    assert decision["training_prior"] == pytest.approx(
        dict.fromkeys(decision["training_prior"], 1 / 3)
    )
    assert decision["folded_into_weights"] is True
    assert decision["prior_is_approximate"] is False
    assert decision["neutral"] == ["positive (16 validation rows, 20 needed)"]


@pytest.fixture(scope="module")
def judged(finished):
    """(texts, lines of predictions.parquet) of the test split, which is not cross-fitted."""
    with open(finished[0] / "config.yaml", encoding="utf-8") as file:
        source = next(
            line.split(": ", 1)[1].strip() for line in file if line.strip().startswith("source:")
        )
    with open(source, encoding="utf-8", newline="") as file:
        texts = [row["text"].strip() for row in csv.DictReader(file)]
    records = [
        record
        for record in pq.read_table(finished[0] / "predictions.parquet").to_pylist()
        if record["split"] == "test"
    ]
    return [texts[record["row"]] for record in records], records


def test_pipeline_gives_the_corrected_probabilities(finished, judged):
    classify = pipeline("text-classification", str(finished[0] / "model"), top_k=None)
    for scores, record in zip(classify(judged[0], truncation=True), judged[1], strict=True):
        for score in scores:
            assert score["score"] == pytest.approx(
                record[f"probability_{score['label']}"], abs=1e-5
            )


def test_card_reports_the_figures_of_the_plain_pipeline_beside_those_of_the_decision(
    finished, judged
):
    classify = pipeline("text-classification", str(finished[0] / "model"))
    said = [answer["label"] for answer in classify(judged[0], truncation=True)]
    true, decided = (
        [record["label"] for record in judged[1]],
        [record["predicted"] for record in judged[1]],
    )
    assert said != decided  # thresholds speak
    card = ModelCard.load(finished[0] / "README.md")
    values = {result.metric_name: result for result in card.data.eval_results}
    assert len(values) == len(card.data.eval_results) == 8
    for rule, predicted in (("plain pipeline", said), ("with the decision", decided)):
        for title, name, figure in (
            ("Macro F1", "f1", f1_score(true, predicted, average="macro")),
            ("Accuracy", "accuracy", accuracy_score(true, predicted)),
            (
                "Balanced accuracy (macro recall)",
                "recall",
                recall_score(true, predicted, average="macro"),
            ),
            ("MCC", "matthews_correlation", matthews_corrcoef(true, predicted)),
        ):
            result = values[f"{title} ({rule})"]
            assert (result.metric_type, result.metric_value) == (
                name,
                pytest.approx(figure, abs=1e-6),
            )
            assert result.metric_args == (
                {"average": "macro"} if name in ("f1", "recall") else None
            )
    assert {(r.dataset_type, r.dataset_name, r.dataset_split) for r in values.values()} == {
        ("custom", "own split of tweets.csv", "test")
    }
    assert (
        f"| plain `pipeline()` | {evaluate_logits(*plain(judged[1])).loss:.4f} |"
        f" {accuracy_score(true, said):.4f} |"
    ) in card.text


def plain(records):
    """Log probabilities, true label ids and labels of lines of predictions.parquet."""
    labels = sorted({record["label"] for record in records})
    p = np.array([[record[f"probability_{label}"] for label in labels] for record in records])
    return np.log(p), np.array([labels.index(record["label"]) for record in records]), labels


def test_our_classifier_gives_the_labels_of_the_decision_too(finished, judged):
    classifier = Classifier.load(finished[0])
    labels, probabilities = (
        [prediction.label for prediction in classifier.predict(judged[0])],
        classifier.probabilities(judged[0]),
    )
    assert labels == [record["predicted"] for record in judged[1]]
    assert labels != [
        classifier.labels[c] for c in probabilities.argmax(axis=1)
    ]  # thresholds speak
    expected = [
        [record[f"probability_{label}"] for label in classifier.labels] for record in judged[1]
    ]
    np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_evaluate_gives_the_results_of_the_run_again(finished, judged, run_cli, tmp_path):
    rows = tmp_path / "test.jsonl"
    records = [
        {"text": text, "sentiment": record["label"]} for text, record in zip(*judged, strict=True)
    ]
    rows.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    done = run_cli("evaluate", finished[0], "--data", rows, "--output", tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["test"]
    expected = finished[1]["decision"]["test"]
    assert found["confusion_matrix"] == expected["confusion_matrix"]
    for name in ("macro_f1", "loss", "ece", "brier", "auroc_macro"):
        assert found[name] == pytest.approx(expected[name], abs=1e-5)


def test_card_tells_the_decision_and_that_pipeline_labels_differ(finished):
    card = (finished[0] / "README.md").read_text(encoding="utf-8")
    assert "Probabilities are corrected to these shares of the classes: negative 0.5" in card
    assert "The plain `pipeline()` returns the label of the largest probability instead" in card
    assert "Neutral thresholds were kept for positive (16 validation rows, 20 needed)." in card
    assert "| with the decision |" in card
    assert (finished[0] / "reliability.png").stat().st_size > 10_000


def test_metrics_are_reported_by_domain_and_add_up(
    tmp_path, tiny_model, tweets, run_cli, config_file
):
    with tweets.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with (tmp_path / "sites.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["text", "sentiment", "site"])
        writer.writeheader()
        writer.writerows(
            row | {"site": "forum" if i % 5 == 0 else "feed"} for i, row in enumerate(rows)
        )
    config = config_file(
        data={"source": str(tmp_path / "sites.csv")},
        balance={"method": "floor", "min_share": 0.4, "by": "site"},
        decision={"prior": "natural"},
    )
    done = run_cli("train", "--config", config)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "runs/run/metrics.json").read_text(encoding="utf-8"))
    assert metrics["decision"]["prior_is_approximate"] is True
    for split in ("validation", "test"):
        for whole in (metrics[split], metrics["decision"][split]):
            domains = whole["per_domain"]
            assert sum(d["num_rows"] for d in domains.values()) == whole["num_rows"]
            for figure in ("accuracy", "loss"):
                total = sum(d[figure] * d["num_rows"] for d in domains.values())
                assert total == pytest.approx(whole[figure] * whole["num_rows"])
    assert "test by domain" in done.stdout
    card = (tmp_path / "runs/run/README.md").read_text(encoding="utf-8")
    assert "| forum |" in card
    assert "this is approximate" in card
