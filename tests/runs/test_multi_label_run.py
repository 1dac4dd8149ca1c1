"""A run on real multi-label sentences with the tiny model, and errors for multi-label data."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.special import logit
from sklearn.metrics import f1_score, log_loss

from trainer import Classifier, ConfigError, cli, load_config
from trainer.data.balancing.balance import METHODS
from trainer.delivery.report import page_intervals
from trainer.delivery.serving.app import label_rule
from trainer.run_folder.finished_run import FinishedRun
from trainer.runs import training_run
from trainer.runs.preparation import prepare
from trainer.training.frozen.synthesis import SYNTHESISERS

pytestmark = pytest.mark.slow

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
        "report": {"groups": {"head": 20, "medium": 10}},
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


@pytest.fixture(scope="module")
def decided(values, tmp_path_factory):
    """Run folder of a finished run that fitted thresholds, a temperature and the prior."""
    folder = tmp_path_factory.mktemp("decided")
    changed = values(folder) | {
        "decision": {
            "thresholds": "f1",
            "temperature": True,
            "prior": "natural",
            "at_least_one": True,
            "at_most": 2,
        }
    }
    (folder / "config.yaml").write_text(json.dumps(changed), encoding="utf-8")
    return training_run.train(load_config(str(folder / "config.yaml")))


def texts_of(sentences):
    return [json.loads(line)["text"] for line in sentences.read_text(encoding="utf-8").splitlines()]


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
    assert "<h3>Frequent and rare labels</h3>" in page
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


def test_evaluating_the_test_rows_gives_the_groups_and_intervals_of_the_run(
    decided, sentences, tmp_path, capfd
):
    rows = sentences.read_text(encoding="utf-8").splitlines(keepends=True)
    of_test = [rows[row] for row in read_json(decided / "splits.json")["test"]]
    (tmp_path / "test.jsonl").write_text("".join(of_test), encoding="utf-8")
    output = tmp_path / "new.json"
    cli.app(
        ["evaluate", str(decided), "--data", str(tmp_path / "test.jsonl"), "--output", str(output)],
        standalone_mode=False,
    )
    found, printed = read_json(output), capfd.readouterr().out
    final = read_json(decided / "metrics.json")["decision"]["test"]
    assert found["test"]["per_group"] == final["per_group"]
    assert found["test"]["macro_f1"] == pytest.approx(final["macro_f1"])
    run = FinishedRun.read(decided)
    expected = page_intervals.headline_intervals(run, page_intervals.resampled_figures([run]), 0)
    for name in ("macro_f1", "micro_f1", "accuracy"):
        assert found["intervals"][name] == (expected[name] and list(expected[name]))
    assert list(found["intervals"]["f1"]) == run.labels
    low, high = found["intervals"]["micro_f1"]
    assert low < final["micro_f1"] < high
    assert f"micro F1 {low:.4f} to {high:.4f}" in printed
    assert "Macro averages have no interval, since" in printed
    tail = final["per_group"]["tail"]
    assert re.search(rf"tail +│.*{tail['macro_f1']:.4f}.*{tail['support']}", printed)


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


def test_figures_with_the_decision_follow_from_the_predictions_file(decided):
    table = pq.read_table(decided / "predictions.parquet").to_pandas()
    metrics = read_json(decided / "metrics.json")
    labels = metrics["test"]["labels"]
    for split in ("validation", "test"):
        part, figures = table[table["split"] == split], metrics["decision"][split]
        true, given = (
            np.array([[label in row for label in labels] for row in part[name]])
            for name in ("label", "predicted")
        )
        p = part[[f"probability_{label}" for label in labels]].to_numpy(np.float64)
        assert figures["macro_f1"] == pytest.approx(f1_score(true, given, average="macro"))
        assert figures["micro_f1"] == pytest.approx(f1_score(true, given, average="micro"))
        assert figures["accuracy"] == pytest.approx((true == given).all(axis=1).mean())
        assert figures["loss"] == pytest.approx(log_loss(true.ravel(), p.ravel()), rel=1e-4)
        assert ((given.sum(axis=1) >= 1) & (given.sum(axis=1) <= 2)).all()
    assert metrics["decision"]["test"]["macro_f1"] != metrics["test"]["macro_f1"]


def test_test_labels_follow_from_thresholds_and_margins_in_metrics(decided):
    table = pq.read_table(decided / "predictions.parquet").to_pandas()
    decision = read_json(decided / "metrics.json")["decision"]
    thresholds = decision["thresholds"]
    assert all(words.endswith("validation rows, 20 needed)") for words in decision["neutral"])
    for row in table[table["split"] == "test"].to_dict("records"):
        margins = {
            label: logit(row[f"probability_{label}"]) - logit(threshold)
            for label, threshold in thresholds.items()
        }
        ordered = sorted(margins, key=lambda label: -margins[label])
        reached = [label for label in ordered if margins[label] >= 0]
        assert sorted(row["predicted"]) == sorted(reached[:2] or ordered[:1])


def test_our_classifier_and_the_command_decide_as_the_predictions_file(
    decided, sentences, tmp_path, run_cli
):
    table = pq.read_table(decided / "predictions.parquet").to_pandas()
    part = table[table["split"] == "test"]
    texts = [texts_of(sentences)[row] for row in part["row"]]
    found = Classifier.load(decided).predict(texts)
    expected = [list(predicted) for predicted in part["predicted"]]
    assert [list(prediction.labels) for prediction in found] == expected
    for prediction, row in zip(found, part.to_dict("records"), strict=True):
        assert prediction.probabilities == pytest.approx(
            {label: row[f"probability_{label}"] for label in prediction.probabilities}, abs=1e-4
        )
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in texts), encoding="utf-8")
    output = tmp_path / "labelled.jsonl"
    done = run_cli("predict", decided, "--input", path, "--output", output)
    assert done.returncode == 0, done.stderr
    lines = output.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["predicted_label"] for line in lines] == expected


def test_prior_correction_restores_the_natural_shares_and_says_it_is_approximate(decided):
    decision = read_json(decided / "metrics.json")["decision"]
    facts = read_json(decided / "report.json")
    rows = dict(zip(facts["labels"], next(iter(facts["columns"].values())), strict=True))
    for label, count in rows.items():
        assert decision["target_prior"][label] == pytest.approx(count / facts["totals"]["train"])
    drawn = facts["columns"]["seen per epoch"][facts["labels"].index("exfiltration")]
    odds = 4 * drawn / (facts["totals"]["seen per epoch"] - drawn)
    assert decision["training_prior"]["exfiltration"] == pytest.approx(odds / (1 + odds))
    assert decision["prior_is_approximate"] is True
    assert decision["folded_into_weights"] is True


def test_card_and_page_show_the_decision(decided):
    from huggingface_hub import ModelCard

    card = ModelCard.load(decided / "README.md")
    page = (decided / "report.html").read_text(encoding="utf-8")
    thresholds = read_json(decided / "metrics.json")["decision"]["thresholds"]
    words = " ".join(card.text.split())
    for sentence in (
        "A text gets each label that reaches its threshold (",
        "A text that no label reaches gets the label with the largest margin",
        "A text keeps at most 2 of its labels",
        "The plain `pipeline()` returns probabilities and knows nothing of this.",
    ):
        assert sentence in words
    assert "at least 0.5" not in words
    assert "figures with the decision are cross-fitted" in words
    for picture in re.findall(r"!\[[^]]*\]\(([^)]*)\)", card.text):
        assert (decided / picture).is_file(), picture
    names = {result.metric_name for result in card.data.eval_results}
    assert {"Macro F1 (with the decision)", "Macro F1 (plain pipeline)"} < names
    classes = page[page.index('<section id="classes">') : page.index('<section id="confusion">')]
    assert '<th class="n">threshold</th>' in classes
    section = page[page.index('<section id="decision">') : page.index('<section id="config">')]
    assert "reaches its threshold" in section
    assert len(thresholds) == section.count('<td class="k">')


def test_server_names_the_rule_by_which_it_gives_labels(decided, finished):
    thresholds = read_json(decided / "metrics.json")["decision"]["thresholds"]
    rule = label_rule(Classifier.load(decided))
    assert rule.model_dump() == {
        "thresholds": pytest.approx(thresholds),
        "at_least_one": True,
        "at_most": 2,
    }
    plain = label_rule(Classifier.load(finished))
    assert set(plain.thresholds.values()) == {0.5}
    assert label_rule(Classifier.load_several([str(finished), str(decided)])) is None


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
            "decision.prior=uniform",
            (
                "decision.prior is not 'natural', the only one known with multi-label data: shares"
                " of several labels do not sum to 1. Set decision.prior: natural."
            ),
        ),
        (
            "decision.prior=natural loss.name=asymmetric",
            (
                "decision.prior has no known correction for multi-label data with loss.name:"
                " asymmetric; its scores are no log odds. Remove it, or set loss.name:"
                " cross_entropy."
            ),
        ),
        (
            'decision.thresholds=cost decision.costs={"execution":{"discovery":5}}',
            (
                "decision.costs names discovery; with multi-label data needed: {label: {missed:"
                " cost, wrong: cost}}."
            ),
        ),
        (
            'decision.thresholds=cost decision.costs={"execution":{"missed":0}}',
            "decision.costs holds 0; with multi-label data every cost is above 0.",
        ),
        (
            "decision.at_most=1 balance.scope=all balance.method=undersample"
            " balance.target_ratio=null balance.resample_each_epoch=false",
            (
                "decision is set with balance.scope: all, and multi-label validation rows cannot be"
                " weighted to natural shares. Set balance.scope: train."
            ),
        ),
        (
            "model.mode=head balance.method=smote balance.target_ratio=null"
            " balance.resample_each_epoch=false",
            (
                "balance.method is 'smote', which needs one label a row: a point between two rows"
                " has no label set of its own. Set oversample, floor or power, or"
                " loss.class_weights: balanced."
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
            "ensemble.size=2 decision.thresholds=f1",
            (
                "ensemble.combine: mean with decision.thresholds: members decide by their own"
                " thresholds. Set ensemble.combine: majority."
            ),
        ),
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
        (
            "decision.thresholds=micro_f1",
            (
                "decision.thresholds is 'micro_f1', which needs multi-label data; with one label a"
                " row known: cost, f1, recall_at_precision."
            ),
        ),
        (
            "decision.at_least_one=true",
            (
                "decision.at_least_one is set, which needs multi-label data: here each row gets one"
                " label. Remove it."
            ),
        ),
        (
            "decision.at_most=2",
            (
                "decision.at_most is set, which needs multi-label data: here each row gets one"
                " label. Remove it."
            ),
        ),
    ],
)
def test_what_only_multi_label_data_have_is_refused_for_one_label_a_row(
    config_file, override, words
):
    with pytest.raises(ConfigError) as raised:
        training_run.check(load_config(config_file(), override.split()))
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "method",
    [
        *(
            pytest.param(name, marks=pytest.mark.exhaustive)
            for name in METHODS
            if name != "class_balanced_batches"
        ),
        "class_balanced_batches",
        *SYNTHESISERS,
    ],
)
def test_every_method_balances_several_labels_or_is_refused_in_words(
    method, values, tmp_path, capfd
):
    changed = values(tmp_path) | {"balance": {"method": method}}
    (tmp_path / "config.yaml").write_text(json.dumps(changed), encoding="utf-8")
    overrides = ["training.max_steps=2"]
    if method in SYNTHESISERS:
        with pytest.raises(
            ConfigError, match=f"method {method} makes new embeddings.* or balance by oversample or"
        ):
            load_config(str(tmp_path / "config.yaml"), overrides)
        return
    training_run.train(load_config(str(tmp_path / "config.yaml"), overrides))
    out = " ".join(capfd.readouterr().out.split())
    assert "seen per epoch" in out
    assert ("Balanced by label: an epoch sees" in out) == (method != "none")
    if method == "class_balanced_batches":
        assert re.search(r"Every label is drawn \d+ times\. Labels that share rows cannot all", out)
