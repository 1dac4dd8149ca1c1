"""The results of a model card: rows and rule, as the Hub's own client reads the model-index."""

from types import SimpleNamespace

import numpy as np
import pytest
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results
from sklearn.metrics import f1_score

from trainer.config.config import check_config
from trainer.config.yaml_source import YamlSource
from trainer.data.reading.source_tables import SLOTS
from trainer.delivery.card.card_results import (
    EvaluatedRows,
    eval_results,
    evaluated_rows,
    plain_pipeline,
)
from trainer.delivery.card.card_words import decision_words
from trainer.evaluation.decisions.decision import Decision
from trainer.evaluation.outcome import outcome_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"
COMMITS = {"model": {}, "data": {"user/parts": COMMIT}}
GIVEN = {"train": "user/parts", "validation": "user/parts", "test": "user/parts"}
OWN = {
    "own split of a Hub data set": (
        {"source": "user/parts", "subset": "short"},
        "own split of user/parts (short)",
    ),
    "own split of given training rows": ({"train": "user/parts"}, "own split of user/parts"),
    "column of a Hub data set": (
        {"source": "user/parts", "split_column": "part"},
        "own split of user/parts by the column part",
    ),
    "private file beside Hub rows": (
        {"train": "user/parts", "test": "/home/me/secret/exam.csv"},
        "exam.csv",
    ),
    "package": ({"train": "user/parts", "test": "package:rows/test.csv"}, "package:rows/test.csv"),
    "Hub rows and a file": (
        {"train": "user/parts", "test": ["user/parts", "more.csv"]},
        "user/parts, more.csv",
    ),
    "many files": (
        {"train": "a.csv", "test": ["b.csv", "c.csv", "d.csv", "e.csv", "f.csv"]},
        "b.csv, c.csv, d.csv and 2 more",
    ),
    "labels merged": (
        {**GIVEN, "label_map": {"a": "b"}},
        "user/parts with labels renamed or left out",
    ),
    "labels dropped": (
        {**GIVEN, "drop_labels": ["a"]},
        "user/parts with labels renamed or left out",
    ),
    "streamed": ({**GIVEN, "streaming": True}, "4 rows of user/parts"),
}


def judged(section, *, num_read=4, streamed=None):
    values = {"model": {"name": "some/model"}, "data": section}
    slots = np.full(num_read, SLOTS.index("test"))
    clean = SimpleNamespace(rows=SimpleNamespace(slots_N=slots), streamed=streamed)
    data = SimpleNamespace(clean=clean, splits=SimpleNamespace(named={"test": np.arange(4)}))
    return evaluated_rows(check_config(YamlSource("test", values)), data, "test", COMMITS)


@pytest.mark.parametrize("case", OWN)
def test_rows_that_are_no_whole_split_of_the_hub_claim_no_result_there(case):
    section, name = OWN[case]
    rows = judged(section, streamed=section.get("streaming"))
    assert rows == EvaluatedRows("custom", name, "test")


def test_hub_split_of_which_rows_were_left_out_is_not_claimed():
    assert judged(GIVEN, num_read=5) == EvaluatedRows("custom", "4 rows of user/parts", "test")


def test_whole_hub_split_is_named_with_configuration_split_and_commit():
    assert judged(GIVEN) == EvaluatedRows("user/parts", "user/parts", "test", None, COMMIT)
    section = {**GIVEN, "subset": "short", "split_names": {"test": "held_out"}}
    assert judged(section) == EvaluatedRows("user/parts", "user/parts", "held_out", "short", COMMIT)


@pytest.mark.parametrize("split", ["held_out[:50%]", "train+test"])
def test_part_or_sum_of_hub_splits_is_not_claimed_as_one_of_them(split):
    section = {**GIVEN, "subset": "short", "split_names": {"test": split}}
    assert judged(section) == EvaluatedRows("custom", f"user/parts (short) ({split})", "test")


def outcome(decision, *, folded, without=()):
    """Outcome of rows of three classes, and the decision as metrics.json holds it."""
    generator = np.random.default_rng(0)
    label_ids = generator.choice([c for c in range(3) if c not in without], 200)
    logits = np.eye(3)[label_ids] + generator.normal(0, 1, (200, 3))
    labels = ["a", "b", "c"]
    figures = decision.figures(labels) | {"folded_into_weights": folded}
    return (
        outcome_of(logits, label_ids, labels, decision.apply(logits), None),
        figures,
        logits,
    )


def test_metrics_of_plain_pipeline_are_those_of_the_weights_it_reads():
    shift, even = np.array([0.0, 0.5, -1.0]), np.full(3, 1 / 3)
    thresholds = Decision(2.0, shift, np.array([0.2, 0.3, 0.5]))
    costs = Decision(2.0, shift, None, np.array([[0.0, 1, 1], [9, 0, 1], [1, 1, 0]]))
    for decision in (thresholds, costs):
        for folded in (True, False):
            found, figures, logits = outcome(decision, folded=folded)
            plain = plain_pipeline(found, figures)
            scores = logits / 2 + shift if folded else logits
            expected = f1_score(found.label_ids_N, scores.argmax(axis=1), average="macro")
            assert plain.macro_f1 == pytest.approx(expected)
            assert plain.macro_f1 != found.final.macro_f1
    prior = Decision(2.0, shift)
    assert plain_pipeline(*outcome(prior, folded=True)[:2]) is None  # the weights hold it
    assert (
        plain_pipeline(*outcome(prior, folded=False)[:2]).macro_f1
        != outcome(prior, folded=False)[0].final.macro_f1
    )
    assert plain_pipeline(outcome(Decision(1.0, even * 0), folded=True)[0], None) is None


def test_model_index_is_read_back_whole_and_names_metrics_as_the_hub_does():
    found, figures, _ = outcome(Decision(1.0, np.zeros(3), np.array([0.2, 0.3, 0.5])), folded=True)
    rows = EvaluatedRows("user/parts", "user/parts", "test", "short", COMMIT)
    results = eval_results(rows, found, plain_pipeline(found, figures))
    card = ModelCard(f"---\n{ModelCardData(model_name='m', eval_results=results).to_yaml()}\n---\n")
    name, again = model_index_to_eval_results(card.data.to_dict()["model-index"])
    assert (name, again) == ("m", results)
    assert len({result.unique_identifier for result in again}) == 1
    kinds = {
        (r.metric_name.partition(" (with the decision)")[0], r.metric_type, str(r.metric_args))
        for r in again
        if "decision" in r.metric_name
    }
    assert kinds == {
        ("Macro F1", "f1", "{'average': 'macro'}"),
        ("Accuracy", "accuracy", "None"),
        ("Balanced accuracy (macro recall)", "recall", "{'average': 'macro'}"),
        ("MCC", "matthews_correlation", "None"),
    }


@pytest.mark.filterwarnings("ignore:no row of b")
def test_classes_without_a_row_are_named_in_the_arguments_of_averages():
    found, *_ = outcome(Decision(1.0, np.zeros(3)), folded=True, without=[1])
    results = eval_results(EvaluatedRows("custom", "x", "test"), found, None)
    macro = next(result for result in results if result.metric_name == "Macro F1")
    assert macro.metric_args == {"average": "macro", "labels": ["a", "c"]}
    predicted = found.predicted_N
    assert macro.metric_value == pytest.approx(
        f1_score(found.label_ids_N, predicted, average="macro", labels=[0, 2]), abs=1e-6
    )


@pytest.mark.filterwarnings("ignore:This split has no row of b")
def test_micro_f1_of_several_labels_claims_all_labels_as_it_counts_all():
    rng = np.random.default_rng(0)
    true = rng.random((60, 3)) < [0.5, 0.0, 0.3]
    logits = np.where(true, 1.0, -1.0) + rng.normal(size=true.shape)
    found = outcome_of(logits, true, ["a", "b", "c"], None, None)
    results = eval_results(EvaluatedRows("custom", "x", "test"), found, None)
    macro, micro = (
        next(result for result in results if result.metric_name == name)
        for name in ("Macro F1", "Micro F1")
    )
    assert macro.metric_args == {"average": "macro", "labels": ["a", "c"]}
    assert micro.metric_args == {"average": "micro"}
    assert micro.metric_value == pytest.approx(
        f1_score(true, found.predicted_N, average="micro"), abs=1e-6
    )
    assert micro.metric_value != pytest.approx(
        f1_score(true, found.predicted_N, average="micro", labels=[0, 2]), abs=1e-3
    )


def test_decision_on_many_labels_names_few_that_keep_the_common_threshold():
    few = [f"label {n}" for n in range(60)]
    decided = {
        "at_least_one": False,
        "at_most": None,
        "temperature": 1.0,
        "thresholds": dict.fromkeys(few, 0.25) | {"often": 0.6},
        "common_threshold": 0.25,
        "neutral": [f"{label} (1 validation row, 20 needed)" for label in few],
    }
    words = decision_words(decided)
    assert "(often 0.6; the others have the common threshold 0.25)." in words
    assert "label 2 (1 validation row, 20 needed); 57 more, all in metrics.json." in words
    assert "label 3" not in words
    common = decided | {"thresholds": dict.fromkeys(few, 0.25), "neutral": []}
    assert "reaches its threshold (0.25 for every label)." in decision_words(common)


@pytest.mark.parametrize(
    ("training", "line"), [({}, "`num_train_epochs`: 3.0"), ({"max_steps": 7}, "`max_steps`: 7")]
)
def test_card_names_what_ends_the_training(training, line):
    from trainer.config.config import Config
    from trainer.delivery.card.card_words import training_words

    values = {"model": {"name": "m"}, "data": {"source": "d"}, "split": {}, "training": training}
    words = training_words(Config.model_validate(values), [])
    assert f"- {line}\n" in words
    assert ("num_train_epochs" in words) != ("max_steps" in words)


@pytest.mark.parametrize(
    ("decision", "is_fitted"),
    [
        ({"thresholds": "f1"}, True),
        ({"temperature": True}, True),
        ({"thresholds": "cost", "costs": {"a": {"missed": 2}}, "at_most": 1}, False),
        ({"prior": "natural"}, False),
    ],
)
def test_card_speaks_of_a_fit_only_where_the_decision_is_fitted(decision, is_fitted):
    from trainer.config.sections.balancing import DecisionSection

    assert DecisionSection.model_validate(decision).is_fitted is is_fitted
