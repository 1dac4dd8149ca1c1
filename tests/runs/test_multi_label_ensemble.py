"""Ensembles of models that give a text any number of labels: votes, decisions, files."""

import json
import random

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score
from small_runs import train

from trainer import Classifier, cli
from trainer.delivery.predicting.saved_model import SavedModel
from trainer.evaluation.decisions.multi_label_decision import MultiLabelDecision, mean_decision
from trainer.evaluation.decisions.vote import MULTI_LABEL_COMBINERS, combine

LABELS = ["heat", "jam", "rain"]
WORDS = {"rain": "it rains all day", "heat": "it is far too hot", "jam": "the road is blocked"}


def decision(thresholds, **limits):
    return MultiLabelDecision(1.0, np.zeros(3), thresholds_C=np.array(thresholds), **limits)


def test_mean_decision_takes_the_mean_thresholds_and_the_limits_that_all_models_have():
    found = mean_decision(
        [
            decision([0.1, 0.5, 0.6], at_least_one=True, at_most=1),
            decision([0.3, 0.5, 0.2], at_least_one=True, at_most=2),
        ]
    )
    assert found.thresholds_C == pytest.approx([0.2, 0.5, 0.4])
    assert (found.at_least_one, found.at_most) == (True, 2)
    plain = MultiLabelDecision(1.0, np.zeros(3))
    assert mean_decision([plain, plain]).thresholds_C.tolist() == [0.5] * 3
    assert mean_decision([plain, found]).at_most is None


def test_mean_gives_a_label_from_the_mean_threshold_and_a_tie_of_votes_follows_it():
    p = np.array([[[0.3, 0.1, 0.9]], [[0.1, 0.4, 0.1]]])  # two models, one row
    given = p >= np.array([[[0.1, 0.5, 0.6]], [[0.3, 0.3, 0.2]]])
    together = mean_decision([decision([0.1, 0.5, 0.6]), decision([0.3, 0.3, 0.2])])
    # means 0.2, 0.25, 0.5 against thresholds 0.2, 0.4, 0.4; each label has one vote of two
    assert combine("mean", p, given, together)[0].tolist() == [True, False, True]
    assert combine("majority", p, given, together)[0].tolist() == [True, False, True]


def test_majority_keeps_within_the_limits_of_the_decision():
    p = np.full((3, 1, 3), 0.4)
    each_another = np.eye(3, dtype=bool)[:, None]
    one = decision([0.5, 0.3, 0.5], at_least_one=True)
    assert combine("majority", p, each_another, one)[0].tolist() == [False, True, False]
    every = np.ones((3, 1, 3), bool)
    most = decision([0.5, 0.3, 0.4], at_most=2)
    assert combine("majority", p, every, most)[0].tolist() == [False, True, True]


@pytest.mark.parametrize("name", MULTI_LABEL_COMBINERS)
def test_one_model_decides_alone_and_the_order_of_models_has_no_say(name):
    p = np.random.default_rng(0).random((5, 40, 3))
    own = decision([0.3, 0.5, 0.8], at_least_one=True, at_most=2)
    given = np.stack([own.decide(np.log(each)) for each in p])
    alone = combine(name, p[:1], given[:1], mean_decision([own]))
    assert np.array_equal(alone, given[0])
    together = mean_decision([own] * 5)
    turned = combine(name, p[::-1], given[::-1], together)
    assert np.array_equal(turned, combine(name, p, given, together))


@pytest.fixture(scope="module")
def topics(tmp_path_factory):
    """JSONL of 300 texts with none to three of LABELS."""
    draw = random.Random(0)
    path = tmp_path_factory.mktemp("topics") / "topics.jsonl"
    shares = {"rain": 0.5, "heat": 0.3, "jam": 0.2}
    with path.open("w", encoding="utf-8") as file:
        for number in range(300):
            labels = [label for label, share in shares.items() if draw.random() < share]
            words = " and ".join(WORDS[label] for label in labels) or "nothing happens"
            noise = " ".join(draw.choice(["today", "here", "again", "now"]) for _ in range(3))
            row = {"text": f"{words} {noise} {number}", "topics": labels}
            file.write(json.dumps(row) + "\n")
    return path


def trained(folder, tiny_model, source, l2, **sections):
    """The run folder of two heads on a frozen encoder that vote."""
    values = {
        "run": {"name": "both", "output_dir": str(folder)},
        "model": {"name": str(tiny_model), "max_length": 16, "mode": "head", "head": {"l2": l2}},
        "data": {"source": str(source), "label_column": "topics"},
        "balance": {"method": "undersample", "target_ratio": 1.5},
        "training": {"bf16": False},
    }
    (folder / "both.yaml").write_text(json.dumps(values | sections), encoding="utf-8")
    return train(folder / "both.yaml")


@pytest.mark.parametrize(
    ("kind", "vote"),
    [("folds", "mean"), pytest.param("seeds", "majority", marks=pytest.mark.exhaustive)],
)
def test_ensemble_of_heads_gives_what_its_run_reports(kind, vote, topics, tiny_model, tmp_path):
    folder = trained(
        *(tmp_path, tiny_model, topics, 0.01),
        split={"train": 0.5, "validation": 0.25, "test": 0.25},
        decision={"thresholds": "f1", "at_least_one": True, "at_most": 2},
        ensemble={"size": 2, "kind": kind, "combine": vote},
        report={"groups": {"head": 45, "medium": 30}},
    )
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    texts = [json.loads(line)["text"] for line in topics.read_text("utf-8").splitlines()]
    classifier = Classifier.load(folder)
    assert classifier.vote == vote
    test = [row for row in rows if row["split"] == "test"]
    answers = classifier.predict([texts[row["row"]] for row in test])
    assert [list(each.labels) for each in answers] == [row["predicted"] for row in test]
    assert all(1 <= len(each.labels) <= 2 for each in answers)
    for each, row in zip(answers, test, strict=True):
        assert each.probabilities == pytest.approx(
            {label: row[f"probability_{label}"] for label in LABELS}, abs=1e-5
        )
    exact = np.mean([sorted(row["label"]) == sorted(row["predicted"]) for row in test])
    assert metrics["test"]["accuracy"] == pytest.approx(exact)
    members = [SavedModel(str(folder / f"member-{n}/model")) for n in (1, 2)]
    assert all(member.decision.at_most == 2 for member in members)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "micro f1" in card
    assert "label_scores.png" in card
    assert (folder / "label_scores.png").is_file()
    assert (folder / "report.html").is_file()
    lines = topics.read_text("utf-8").splitlines(keepends=True)
    (tmp_path / "test.jsonl").write_text("".join(lines[row["row"]] for row in test), "utf-8")
    files = ["--data", str(tmp_path / "test.jsonl"), "--output", str(tmp_path / "new.json")]
    cli.app(["evaluate", str(folder), *files], standalone_mode=False)
    found = json.loads((tmp_path / "new.json").read_text(encoding="utf-8"))["test"]
    assert found["per_group"] == metrics["test"]["per_group"]
    assert len(found["per_group"]) > 1


@pytest.mark.exhaustive
def test_validation_figures_of_mean_thresholds_are_cross_fitted(topics, tiny_model, tmp_path):
    """Without it, each row would be judged by thresholds that its own labels helped to fit."""
    draw = random.Random(1)
    noisy = tmp_path / "noisy.jsonl"
    with noisy.open("w", encoding="utf-8") as file:
        for line in topics.read_text("utf-8").splitlines():
            row = json.loads(line)
            keep = [label for label in LABELS if (label in row["topics"]) != (draw.random() < 0.3)]
            file.write(json.dumps(row | {"topics": keep}) + "\n")
    folder = trained(
        *(tmp_path, tiny_model, noisy, 1),
        split={"train": 0.3, "validation": 0.4, "test": 0.3},
        decision={"thresholds": "f1"},
        ensemble={"size": 2, "kind": "seeds", "combine": "mean"},
    )
    rows = pq.read_table(folder / "predictions.parquet").to_pylist()
    rows = [row for row in rows if row["split"] == "validation"]
    targets = np.array([[label in row["label"] for label in LABELS] for row in rows])
    given = np.array([[label in row["predicted"] for label in LABELS] for row in rows])
    p = np.array([[row[f"probability_{label}"] for label in LABELS] for row in rows])
    saved = [SavedModel(str(folder / f"member-{n}/model")).decision for n in (1, 2)]
    optimistic = mean_decision(saved).decide(np.log(p))
    assert not np.array_equal(given, optimistic)
    f1 = [f1_score(targets, found, average="macro") for found in (given, optimistic)]
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["validation"]["macro_f1"] == pytest.approx(f1[0])
