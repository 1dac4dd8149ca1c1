"""Comparisons of rows with several labels: what is trained, what is refused, what is shown."""

import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from page_parser import Page
from sklearn.metrics import average_precision_score, f1_score

from trainer import load_config
from trainer.comparison import compare
from trainer.comparison.page import compare_page
from trainer.comparison.strategies import refuse, trained_name, with_strategies
from trainer.config.sections.compare import DEFAULT_STRATEGIES
from trainer.errors import ConfigError
from trainer.runs import training_run

PHRASES = {
    "heat": ["it is far too hot", "another hot day", "the sun burns"],
    "jam": ["the road is blocked", "cars stand still", "a long traffic jam"],
    "rain": ["it rains all day", "heavy rain again", "bring an umbrella"],
}
SHARES = {"rain": 0.6, "heat": 0.4, "jam": 0.25}
LABELS = sorted(PHRASES)


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """JSONL of 300 short texts with none, one or several of three labels; some are misleading."""
    draw = random.Random(0)
    rows = []
    for number in range(300):
        own = [label for label, share in SHARES.items() if draw.random() < share]
        said = [draw.choice(PHRASES[label]) for label in own if draw.random() < 0.8]
        text = f"{', '.join(said) or 'nothing happens here'}, note {number}"
        rows.append({"text": text, "topics": own})
    path = tmp_path_factory.mktemp("topics") / "topics.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def config_of(source, encoder, folder, **sections):
    values = {
        "run": {"name": "topics", "output_dir": str(folder)},
        "model": {"name": str(encoder), "max_length": 24, "mode": "full"},
        "data": {"source": str(source), "label_column": "topics"},
        "split": {"train": 0.4, "validation": 0.4, "test": 0.2},
        "training": {
            "num_train_epochs": 2,
            "per_device_train_batch_size": 16,
            "learning_rate": 1e-3,
            "bf16": False,
        },
    }
    merged = {key: values.get(key, {}) | sections.get(key, {}) for key in values | sections}
    return load_config(merged)


def result_of(folder):
    return json.loads((folder / "comparison.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compared(tmp_path_factory, tiny_model, topics):
    """Folder of a finished comparison of two strategies with two seeds."""
    folder = tmp_path_factory.mktemp("compared")
    asked = {"strategies": ["asymmetric"], "seeds": 2, "selection": "nested", "metric": "micro_f1"}
    return compare.compare(config_of(topics, tiny_model, folder, compare=asked))


def label_sets(column):
    return np.array([[label in own for label in LABELS] for own in column.to_pylist()])


def test_figures_are_those_of_scikit_learn_with_and_without_thresholds(compared):
    found = result_of(compared)["validation"]
    names = ["none", "none + thresholds", "asymmetric", "asymmetric + thresholds"]
    assert (list(found["strategies"]), found["metric"]) == (names, "micro_f1")
    for name, strategy in found["strategies"].items():
        for place, seed in enumerate((42, 43)):
            folder = compared / f"trainings/{trained_name(name)}/seed-{seed}"
            rows = pq.read_table(folder / "predictions.parquet").sort_by("row")
            true, given = label_sets(rows["label"]), label_sets(rows["predicted"])
            p = np.stack([rows[f"probability_{label}"].to_numpy() for label in LABELS], axis=1)
            if name != trained_name(name):
                order = np.argsort(pq.read_table(folder / "predictions.parquet")["row"].to_numpy())
                given = np.load(folder / "predictions.thresholds.npy")[order]
            expected = {
                "macro_f1": f1_score(true, given, average="macro"),
                "micro_f1": f1_score(true, given, average="micro"),
                "accuracy": (true == given).all(axis=1).mean(),
                "mean_average_precision": average_precision_score(true, p, average="macro"),
            }
            for metric, value in expected.items():
                told = strategy["figures"][metric]["of_seeds"][place]
                assert told == pytest.approx(value, abs=1e-6)
            f1_C = f1_score(true, given, average=None)
            if seed == 42:
                first_f1_C = f1_C
        means = [strategy["per_class"][label]["f1"] for label in LABELS]
        assert means == pytest.approx((first_f1_C + f1_C) / 2)


def test_thresholds_are_fitted_on_selection_rows_and_test_rows_are_used_once(compared):
    result = result_of(compared)
    assert result["selection"]["used"] == "nested"
    for path in compared.glob("trainings/*/seed-*/metrics.json"):
        thresholds = json.loads(path.read_text(encoding="utf-8"))["with_thresholds"]
        assert [*thresholds["thresholds"]] == LABELS
        rows = set(pq.read_table(path.with_name("predictions.parquet"))["row"].to_pylist())
        assert len(rows) == result["selection"]["num_compared"]
    tested = {"none", result["winner"]}
    assert set(result["test"]["strategies"]) == tested
    files = {path.parent.parent.name for path in compared.glob("trainings/*/*/test.parquet")}
    assert files == {trained_name(name) for name in tested}
    assert result["test"]["num_rows"] == 60
    assert not list(compared.rglob("*.safetensors"))
    winner = load_config(str(compared / "winner.yaml"))
    winner.check_problem_type(multi_label=True)


def test_page_and_terminal_speak_of_labels(compared, capsys):
    result = result_of(compared)
    words = " ".join("".join(Page(compare_page.render(result)).words).split())
    for shown in (
        "F1 of each label, minus none",
        "Labels with the most validation rows come first",
        "The rarest label is jam",
        "recall of the rarest label",
        "mean average precision",
        "Accuracy: the share of rows with exactly the right labels.",
        "points of macro F1, minus none",  # the metric itself is micro F1
    ):
        assert shown in words
    for gone in ("MCC", "balanced accuracy", "F1 of each class"):
        assert gone not in words
    compare_page.print_comparison(result)
    out = " ".join(capsys.readouterr().out.split())
    assert "micro" in out
    assert "accuracy" not in out


KINDS = {
    "metric of one label": (
        True,
        {"compare": {"metric": "balanced_accuracy"}},
        "compare.metric is 'balanced_accuracy'; with multi-label data known: accuracy, ",
    ),
    "metric of several labels": (
        False,
        {"compare": {"metric": "micro_f1"}},
        "compare.metric is 'micro_f1'; with one label a row known: accuracy, ",
    ),
    "strategies of one label": (
        True,
        {"compare": {"strategies": ["smote", "sqrt_weights", "focal", "logit_adjusted"]}},
        "compare.strategies: logit_adjusted, smote, sqrt_weights need one label a row; with"
        " multi-label data known: ",
    ),
    "strategies of several labels": (
        False,
        {"compare": {"strategies": ["asymmetric"]}},
        "compare.strategies: asymmetric needs multi-label data; with one label a row known: ",
    ),
    "own strategy": (
        True,
        {"compare": {"strategies": [{"name": "mine", "loss": {"class_weights": "sqrt"}}]}},
        "compare.strategies: mine needs one label a row",
    ),
    "own decision": (
        True,
        {"compare": {"strategies": [{"name": "mine", "decision": {"prior": "uniform"}}]}},
        "compare.strategies: mine: decision.prior is not 'natural'",
    ),
    "loss and prior": (
        True,
        {"decision": {"prior": "natural"}, "compare": {"strategies": ["ntr_focal"]}},
        "compare.strategies: ntr_focal: decision.prior has no known correction",
    ),
    "whole config": (
        True,
        {"training": {"metric_for_best_model": "mcc"}},
        "training.metric_for_best_model is 'mcc'; with multi-label data known",
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_what_does_not_fit_the_labels_is_refused_once(name, tmp_path):
    multi_label, sections, words = KINDS[name]
    config = config_of("nowhere.jsonl", "nowhere", tmp_path, **sections)
    with pytest.raises(ConfigError) as refused:
        refuse(with_strategies(config, multi_label=multi_label), multi_label=multi_label)
    assert str(refused.value).startswith(words)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) <= 600


def test_all_faults_are_told_before_any_training(tmp_path, tiny_model, topics):
    asked = {"metric": "mcc", "strategies": ["balanced_softmax"]}
    config = config_of(topics, tiny_model, tmp_path, compare=asked, ensemble={"size": 2})
    with pytest.raises(ConfigError) as refused:
        compare.compare(config)
    lines = str(refused.value).splitlines()
    assert [line.split()[0] for line in lines] == [
        "ensemble.size",
        "compare.metric",
        "compare.strategies:",
    ]
    assert not (tmp_path / "topics-compare").exists()


@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("mode", ["full", "lora", "head"])
def test_strategies_by_default_fit_the_data(mode, multi_label, tmp_path):
    config = config_of("nowhere.jsonl", "nowhere", tmp_path, model={"mode": mode})
    config = with_strategies(config, multi_label=multi_label)
    refuse(config, multi_label=multi_label)
    assert tuple(config.compare.strategies) == DEFAULT_STRATEGIES[multi_label]


@pytest.mark.exhaustive
def test_heads_of_all_default_strategies_are_compared_and_the_winner_trains(
    tmp_path, tiny_model, topics, capsys
):
    asked = {"seeds": 2, "metric": "mean_average_precision", "folds": 2}
    config = config_of(topics, tiny_model, tmp_path, compare=asked, model={"mode": "head"})
    folder = compare.compare(config)
    result = result_of(folder)
    trained = {trained_name(name) for name in result["validation"]["strategies"]}
    assert (trained, result["failed"]) == ({*DEFAULT_STRATEGIES[True]}, {})
    assert result["validation"]["num_rows"] == 240
    assert "mean average precision" in " ".join(capsys.readouterr().out.split())
    path = training_run.train(load_config(str(folder / "winner.yaml")))
    card = (path / "README.md").read_text(encoding="utf-8")
    assert "How the balancing was chosen" in card
    assert f"This model follows the strategy {result['winner']}" in card


@pytest.mark.exhaustive
def test_quick_shortlists_heads_of_several_labels(tmp_path, tiny_model, topics):
    asked = {"seeds": 1, "quick": True, "amount": 4}
    folder = compare.compare(config_of(topics, tiny_model, tmp_path, compare=asked))
    result = result_of(folder)
    assert len(result["quick"]["shortlist"]) == 2
    compared = {trained_name(name) for name in result["validation"]["strategies"]}
    assert compared == {"none", *result["quick"]["shortlist"]}
    assert (folder / "comparison.html").is_file()


@pytest.mark.exhaustive
def test_settings_are_tuned_by_the_metric_of_the_labels(tmp_path, narrow_model, topics):
    asked = {"strategies": ["asymmetric"], "seeds": 2, "selection": "nested", "metric": "micro_f1"}
    asked |= {"tune": {"learning_rate": [0.03]}}
    folder = compare.compare(config_of(topics, narrow_model, tmp_path, compare=asked))
    for name, trials in result_of(folder)["tune"]["strategies"].items():
        strategy = name.removesuffix(" + thresholds")
        kind = "decided" if name == strategy else "with_thresholds"
        found = {
            words: [
                json.loads(path.read_text(encoding="utf-8"))["selection"][kind]["micro_f1"]
                for path in sorted(folder.glob(f"trainings/{group}/*/metrics.json"))
            ]
            for words, group in (
                ("learning_rate 0.001", strategy),
                ("learning_rate 0.03", f"{strategy}@learning_rate=0.03"),
            )
        }
        assert {words: score["of_seeds"] for words, score in trials["scores"].items()} == found
        assert trials["chosen"] == [max(found, key=lambda words: np.mean(found[words]))]
