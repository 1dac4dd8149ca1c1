"""A run on real multi-label sentences with the tiny model, and errors for multi-label data."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest

from trainer import Classifier, ConfigError, load_config
from trainer.audit import audit
from trainer.errors import DataError
from trainer.runs import training_run
from trainer.runs.preparation import prepare

METRICS = [
    "num_rows",
    "loss",
    "accuracy",
    "macro_f1",
    "micro_f1",
    "weighted_f1",
    "samples_f1",
    "f1_gap",
    "macro_precision",
    "macro_recall",
]
METRICS += ["mean_average_precision", "hamming_loss", "labels", "per_class", "per_group"]


@pytest.fixture(scope="module")
def sentences(tactics, tmp_path_factory):
    """JSONL of 300 real sentences of five tactics, some of them with none or several."""
    wanted = {"discovery", "execution", "exfiltration", "persistence", "privilege-escalation"}
    rows = [
        {**row, "labels": [label for label in row["labels"] if label in wanted]}
        for row in tactics[::50][:300]
    ]
    path = tmp_path_factory.mktemp("sentences") / "sentences.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def values(sentences, tiny_model):
    """Function (folder) -> config values of a run."""
    return lambda folder: {
        "run": {"name": "run", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 32},
        "data": {"source": str(sentences), "label_column": "labels", "group_column": "group"},
        "split": {"train": 0.6, "validation": 0.2, "test": 0.2},
        "balance": {"method": "oversample", "target_ratio": 0.2, "resample_each_epoch": True},
        "loss": {"class_weights": {"exfiltration": 4}},
        "report": {"groups": {"head": 60, "medium": 30}},
        "training": {
            "num_train_epochs": 1,
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-3,
            "bf16": False,
        },
    }


@pytest.fixture(scope="module")
def finished(values, tmp_path_factory):
    """Run folder of a finished run."""
    folder = tmp_path_factory.mktemp("multi_label")
    (folder / "config.yaml").write_text(json.dumps(values(folder)), encoding="utf-8")
    return training_run.train(load_config(str(folder / "config.yaml")))


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_metrics_hold_the_documented_names(finished):
    metrics = read_json(finished / "metrics.json")
    assert list(metrics["test"]) == list(metrics["validation"]) == METRICS
    assert metrics["minority_label"] == "exfiltration"
    assert read_json(finished / "class_weights.json")["exfiltration"] == 4


def test_groups_by_limits_are_in_metrics_page_and_card(finished):
    metrics, counts = read_json(finished / "metrics.json"), read_json(finished / "report.json")
    train = dict(zip(counts["labels"], counts["audit"]["natural_C"], strict=True))
    assert set(metrics["test"]["per_group"]) == {"head", "medium", "tail"}
    page, card = ((finished / name).read_text("utf-8") for name in ("report.html", "README.md"))
    assert "<h3>Frequent and rare classes</h3>" in page
    for split in ("validation", "test"):
        per_class = metrics[split]["per_class"]
        for name, group in metrics[split]["per_group"].items():
            least, most = group["least_train_rows"], group["most_train_rows"]
            labels = [label for label, rows in train.items() if least <= rows <= most]
            measured = [per_class[label] for label in labels if per_class[label]["support"]]
            assert group["num_classes"] == len(labels)
            assert group["support"] == sum(values["support"] for values in measured)
            assert group["macro_f1"] == pytest.approx(np.mean([v["f1"] for v in measured]))
            cells = f"{group['support']} | {group['macro_f1']:.4f} | {group['micro_f1']:.4f} |"
            assert re.search(rf"\| {name} \|.*\| {re.escape(cells)}", card)


def test_run_folder_shows_label_scores_in_place_of_a_confusion_matrix(finished):
    names = {path.name for path in finished.iterdir()}
    assert "label_scores.png" in names
    assert "confusion_matrix.png" not in names


def test_predictions_hold_lists_and_give_the_metrics_again(finished, sentences):
    table = pq.read_table(finished / "predictions.parquet").to_pandas()
    rows = [json.loads(line) for line in sentences.read_text(encoding="utf-8").splitlines()]
    metrics = read_json(finished / "metrics.json")
    assert [sorted(labels) for labels in table["label"]] == [
        sorted(rows[row]["labels"]) for row in table["row"]
    ]
    for split in ("validation", "test"):
        part = table[table["split"] == split]
        right = [
            set(label) == set(predicted)
            for label, predicted in zip(part["label"], part["predicted"], strict=True)
        ]
        assert np.mean(right) == pytest.approx(metrics[split]["accuracy"])
        for label in metrics[split]["labels"]:
            assert [label in predicted for predicted in part["predicted"]] == (
                part[f"probability_{label}"] >= 0.5
            ).tolist()


def test_plain_pipeline_gives_the_probabilities_of_the_predictions_file(finished, sentences):
    from transformers import pipeline as transformers_pipeline

    table = pq.read_table(finished / "predictions.parquet").to_pandas()[:20]
    texts = [
        json.loads(line)["text"].strip()
        for line in sentences.read_text(encoding="utf-8").splitlines()
    ]
    classify = transformers_pipeline("text-classification", str(finished / "model"), top_k=None)
    for row, found in zip(
        table.to_dict("records"),
        classify([texts[row] for row in table["row"]], truncation=True),
        strict=True,
    ):
        assert {f["label"]: f["score"] for f in found} == pytest.approx(
            {f["label"]: row[f"probability_{f['label']}"] for f in found}, abs=1e-4
        )


def test_our_classifier_gives_the_labels_of_the_predictions_file(finished, sentences):
    table = pq.read_table(finished / "predictions.parquet").to_pandas()[:20]
    texts = [
        json.loads(line)["text"] for line in sentences.read_text(encoding="utf-8").splitlines()
    ]
    found = Classifier.load(finished).predict([texts[row] for row in table["row"]])
    assert [list(prediction.labels) for prediction in found] == [
        list(predicted) for predicted in table["predicted"]
    ]


def test_card_fits_multi_label_data(finished):
    from huggingface_hub import ModelCard

    card = ModelCard.load(finished / "README.md")
    metrics = read_json(finished / "metrics.json")["test"]
    assert "multi-label-classification" in card.data.tags
    assert {
        result.metric_name: result.metric_value for result in card.data.eval_results
    } == pytest.approx(
        {
            "Macro F1": metrics["macro_f1"],
            "Micro F1": metrics["micro_f1"],
            "Subset accuracy": metrics["accuracy"],
        }
        | {"Mean average precision": metrics["mean_average_precision"]},
        abs=1e-6,
    )
    for words in (
        "top_k=None",
        "A multi-label text classifier",
        "The loss is binary cross-entropy with positive weights",
        "(label_scores.png)",
    ):
        assert words in card.text
    assert "labels a row" in card.text


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "training.label_smoothing_factor=0.1",
            (
                "training.label_smoothing_factor is set, which multi-label data cannot"
                " have. Remove it."
            ),
        ),
        (
            "training.metric_for_best_model=mcc",
            (
                "training.metric_for_best_model is 'mcc'; with multi-label data known:"
                " accuracy, loss, macro_f1,"
            ),
        ),
        (
            "decision.temperature=true",
            (
                "decision is set, which multi-label data cannot have: each label is"
                " decided at a probability of 0.5. Remove it."
            ),
        ),
        (
            "model.mode=head balance.resample_each_epoch=false",
            (
                "model.mode is 'head', which needs one label a row; with multi-label data"
                " known: full, lora."
            ),
        ),
        (
            "augment.generator=local augment.model=x augment.target_rows=5",
            "augment.generator is set; new rows are written for data with one label a row only.",
        ),
        (
            "ensemble.size=2",
            (
                "ensemble.size is above 1; ensembles of multi-label models are not"
                " supported. Set ensemble.size: 1."
            ),
        ),
        (
            "loss.name=logit_adjusted",
            (
                "loss.name is 'logit_adjusted'; with multi-label data known: asymmetric, cb_ntr,"
                " cross_entropy, distribution_balanced, focal, ntr_focal."
            ),
        ),
        (
            "loss.weights_mean=classes",
            (
                "loss.weights_mean is set, but the weights of multi-label data are not"
                " rescaled. Remove it."
            ),
        ),
        (
            "balance.method=class_balanced_batches balance.target_ratio=null",
            "balance.method is 'class_balanced_batches', which needs one label a row;",
        ),
    ],
)
@pytest.mark.parametrize("check", [True, False], ids=["check", "train"])
def test_what_multi_label_data_cannot_have_is_refused_in_words(
    values, tmp_path, override, words, check
):
    (tmp_path / "config.yaml").write_text(json.dumps(values(tmp_path)), encoding="utf-8")
    config = load_config(str(tmp_path / "config.yaml"), override.split())
    with pytest.raises(ConfigError) as raised:
        (training_run.check if check else prepare)(config)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "split.primary_label=true",
            (
                "split.primary_label is set, but the data hold one label a row. Remove"
                " it, or set data.label_columns."
            ),
        ),
        (
            "training.metric_for_best_model=micro_f1",
            "training.metric_for_best_model is 'micro_f1'; with one label a row known: accuracy,",
        ),
    ],
)
def test_what_only_multi_label_data_have_is_refused_for_one_label_a_row(
    config_file, override, words
):
    with pytest.raises(ConfigError) as raised:
        training_run.check(load_config(config_file(), [override]))
    assert words in str(raised.value)


def test_audit_of_multi_label_data_is_refused_in_words(values, tmp_path):
    (tmp_path / "config.yaml").write_text(json.dumps(values(tmp_path)), encoding="utf-8")
    with pytest.raises(
        DataError, match="the audit reads one label a row, but the data are multi-label"
    ):
        audit.audit(
            load_config(str(tmp_path / "config.yaml")),
            with_encoder=False,
            folder=tmp_path / "audit",
            threshold=0.8,
            max_rows=100,
        )
