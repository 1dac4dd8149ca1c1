"""The public Python API: complete, documented with examples that run, and light to import."""

import doctest
import inspect
import os
import subprocess
import sys
from collections import Counter
from functools import cached_property
from pathlib import Path
from shutil import copytree

import numpy as np
import pandas as pd
import pytest
import torch
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader

import trainer
from trainer import ClassBalancedSampler, RunResult, class_weights, fit_decision

pytestmark = pytest.mark.slow

CALLABLES = [name for name in trainer.__all__ if callable(getattr(trainer, name))]
LABELS = np.repeat(["a", "b", "c"], [60, 25, 15])


def test_importing_the_package_imports_no_torch():
    code = "import sys, trainer; assert not {'torch', 'transformers', 'pandas'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_listed_once_and_a_wrong_one_is_an_attribute_error():
    assert sorted(trainer.__all__) == sorted(set(trainer.__all__))
    with pytest.raises(AttributeError, match="has no attribute 'WeightedTrainr'"):
        trainer.WeightedTrainr  # noqa: B018


def documented():
    """Yield (name, object) of each public function, class, method and property."""
    for name in CALLABLES:
        public = getattr(trainer, name)
        is_long = name == "compare"  # the fixture `compared` calls it every day
        yield pytest.param(name, public, id=name, marks=[pytest.mark.exhaustive] * is_long)
        for member, value in vars(public).items() if inspect.isclass(public) else ():
            is_function = inspect.isroutine(value) or isinstance(value, property | cached_property)
            if is_function and not member.startswith("_"):
                yield pytest.param(name, getattr(public, member), id=f"{name}.{member}")


@pytest.fixture(scope="session")
def compared(narrow_model, tweets, tmp_path_factory):
    """Folder of a finished comparison of two strategies."""
    config = {
        "model": {"name": str(narrow_model), "max_length": 16, "mode": "head"},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "compare": {"strategies": ["undersample"], "seeds": 1},
        "run": {"output_dir": str(tmp_path_factory.mktemp("compared")), "name": "tweets"},
    }
    return trainer.compare(config).folder


def test_comparison_shows_itself_as_a_table_with_its_recommendation(compared):
    page = trainer.ComparisonResult(str(compared))._repr_html_()
    assert page.count("<tr") == 5  # two strategies, each without and with thresholds
    assert trainer.ComparisonResult(compared).results["recommendation"][:20] in page
    with pytest.raises(trainer.RunError, match="no such folder"):
        trainer.ComparisonResult("nowhere").results  # noqa: B018


@pytest.mark.parametrize(("name", "public"), list(documented()))
def test_everything_public_is_documented_with_an_example_that_runs(
    name, public, request, narrow_model, tweets, tmp_path, monkeypatch
):
    text = inspect.getdoc(public) or ""
    assert len(text.split("\n")[0]) <= 100
    is_class = inspect.isclass(public) and not issubclass(public, Exception)
    has_own = is_class and "__init__" in vars(public)
    if has_own or inspect.isfunction(public) or inspect.ismethod(public):
        missing = [name for name in inspect.signature(public).parameters if name not in text]
        assert missing in ([], ["self"])
    if "runs/run" in text:  # the run that examples read
        (tmp_path / "runs").symlink_to(request.getfixturevalue("whole_run")[1].parent)
    monkeypatch.chdir(tmp_path)
    if "tweets-compare" in text and name == "ComparisonResult":
        copytree(request.getfixturevalue("compared"), tmp_path / "runs/tweets-compare")
    names = vars(sys.modules[getattr(trainer, name).__module__]) | vars(trainer)
    names |= {"model": str(narrow_model), "tweets": str(tweets)}
    example = doctest.DocTestParser().get_doctest(text, dict(names), name, None, 0)
    assert example.examples
    assert "+SKIP" not in text
    failures = []
    doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=failures.append)
    assert not failures, "".join(failures)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(trainer.undersample, RandomUnderSampler()), (trainer.oversample, RandomOverSampler())],
)
def test_counts_are_those_of_imbalanced_learn(ours, theirs):
    _, expected = theirs.fit_resample(np.arange(100)[:, None], LABELS)
    rows = ours(LABELS, seed=3)
    assert Counter(LABELS[rows].tolist()) == Counter(expected.tolist())
    assert (rows == ours(LABELS, seed=3)).all()
    assert (rows == np.sort(rows)).all()


def test_balanced_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.array(["a", "b", "c"]), y=LABELS)
    assert class_weights(LABELS) == pytest.approx(expected)
    found = class_weights(LABELS, {"c": 3.0}, classes=["c", "b", "a"])
    assert found == pytest.approx(np.array([3.0, 1.0, 1.0]) / 1.3)
    with pytest.raises(ValueError, match="labels holds 'c', which is not among classes"):
        class_weights(LABELS, classes=["a", "b"])
    with pytest.raises(ValueError, match="weighting is 'balance'; known: none, balanced"):
        class_weights(LABELS, "balance")


def test_class_balanced_sampler_in_a_plain_loader_and_in_processes():
    whole = ClassBalancedSampler(LABELS, seed=5)
    batches = [Counter(LABELS[batch.numpy()]) for batch in DataLoader(range(100), 6, sampler=whole)]
    assert all(batch == Counter("aabbcc") for batch in batches[:-1])
    first = list(whole)
    whole.set_epoch(1)
    assert list(whole) != first
    whole.set_epoch(0)
    assert list(whole) == first
    parts = [list(ClassBalancedSampler(LABELS, seed=5, num_replicas=3, rank=r)) for r in range(3)]
    assert {len(part) for part in parts} == {34}
    assert np.array(parts).T.ravel()[:100].tolist() == first


def test_no_row_of_a_class_is_repeated_before_all_were_drawn():
    rows = list(ClassBalancedSampler(LABELS, seed=1, num_samples=90))
    counts = Counter(rows)
    assert {n for row, n in counts.items() if LABELS[row] == "c"} == {2}
    assert {n for row, n in counts.items() if LABELS[row] == "a"} == {1}


@pytest.mark.parametrize(
    ("function", "values", "words"),
    [
        (trainer.undersample, {"target_ratio": 0.5}, "target_ratio is 0.5; undersample takes 1 or"),
        (trainer.oversample, {"target_ratio": 2}, "target_ratio is 2; oversample takes 0 to 1"),
        (trainer.power, {"alpha": -1}, "alpha is -1; power takes 0 to 1"),
        (class_weights, {"beta": 1}, "beta is 1; give a number between 0 and 1"),
        (class_weights, {"mean_over": "row"}, "mean_over is 'row'; known: rows, classes"),
        (class_weights, {"weighting": [1, 2]}, "weighting is of type list; known: none, bal"),
        (class_weights, {"weighting": {"a": 0}}, "the weight of 'a' is 0; give a number above 0"),
        (ClassBalancedSampler, {"num_samples": 0}, "num_samples is 0; give 1 or more"),
    ],
)
def test_values_outside_their_range_are_refused(function, values, words):
    with pytest.raises(ValueError, match=words):
        function(LABELS, **values)


@pytest.mark.parametrize(
    "labels",
    [
        ["a", None],
        [0.0, float("nan")],
        pd.Series(["a", None]),
        pd.Series(["a", pd.NA], dtype="string"),
    ],
    ids=["None", "nan", "column", "strings"],
)
@pytest.mark.parametrize("function", [class_weights, trainer.oversample, ClassBalancedSampler])
def test_missing_label_is_named_not_a_class(function, labels):
    with pytest.raises(ValueError, match="labels lacks the label of row 1; leave the row out"):
        function(labels)


@pytest.mark.parametrize(
    ("labels", "values", "words"),
    [
        ([], {}, r"labels has the shape \(0,\); give one label a row"),
        (np.zeros((2, 2, 2)), {}, r"labels has the shape \(2, 2, 2\)"),
        (np.eye(3) * 2, {}, "labels holds other values than 0 and 1 in its vectors"),
        (np.zeros((2, 3)), {}, "labels holds no 1, so no label can be drawn"),
        ([0, 1], {"num_replicas": 2, "rank": 2}, r"rank is 2; give 0 to 1"),
    ],
)
def test_bad_arguments_of_the_sampler_are_refused(labels, values, words):
    with pytest.raises(ValueError, match=words):
        ClassBalancedSampler(labels, **values)


def test_fitted_decision_corrects_the_prior_that_training_taught():
    logits = np.log(np.array([[0.5, 0.5], [0.8, 0.2]]))
    found = fit_decision(
        logits, [0, 1], ["a", "b"], prior={"a": 0.9, "b": 0.1}, training_counts_C=[10, 10]
    )
    p = np.exp(found.log_probabilities(logits))
    assert p[0] == pytest.approx([0.9, 0.1])
    assert p[1] == pytest.approx([0.72 / 0.74, 0.02 / 0.74])
    plain = fit_decision(logits, [0, 1], ["a", "b"])
    assert plain.log_probabilities(logits) == pytest.approx(
        logits - np.logaddexp(*logits.T)[:, None]
    )


LOGITS = [[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]]
SETS = {"targets": [[1, 0], [0, 1], [1, 1]]}


def test_decision_of_label_sets_gives_label_sets_and_corrects_the_prior():
    targets = np.array([[1, 0], [0, 1], [1, 1], [0, 0]] * 10)
    logits = np.where(targets, 1.0, -1.0) + np.array([-1.5, 0.5])
    found = fit_decision(logits, targets, ["a", "b"], thresholds="f1")
    assert np.array_equal(found.decide(found.log_probabilities(logits)), targets > 0)
    one = fit_decision(logits, targets, ["a", "b"], thresholds="f1", at_least_one=True, at_most=1)
    assert one.decide(one.log_probabilities(logits)).sum(axis=1).tolist() == [1] * 40
    # odds taught: 2 x 10 of 40; odds of the validation rows: 1
    prior = fit_decision(
        logits,
        targets,
        ["a", "b"],
        prior="natural",
        training_counts_C=[10, 20],
        num_training_rows=40,
        class_weights_C=[2.0, 1.0],
    )
    assert prior.shift_C == pytest.approx([np.log(1.5), 0], abs=0.1)
    both = fit_decision(
        logits, targets, ["a", "b"], prior="natural", class_weights_C=[[1, 4], [1, 4]]
    )
    assert both.shift_C.tolist() == [0, 0]


@pytest.mark.parametrize(
    "kind", [list, np.array, torch.tensor, lambda values: pd.DataFrame(values, index=[4, 5, 6])]
)
def test_lists_tensors_and_tables_are_evaluated_like_arrays(kind):
    ids_N = [0, 1, 1] if kind is list else kind([0, 1, 1])
    ids_N = ids_N[0] if isinstance(ids_N, pd.DataFrame) else ids_N
    found = trainer.evaluate(kind(LOGITS), ids_N, ("a", "b"), predicted=ids_N)
    assert found.accuracy == 1
    assert trainer.evaluate(kind(LOGITS), kind([[1, 0], [0, 1], [0, 1]]), ["a", "b"]).num_rows == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((["a", "b", "b"], ["a", "b"]), "targets holds text; give label ids, the places"),
        (([0, 1, 2], ["a", "b"]), "targets holds the ids 0 to 2; 2 labels have the ids 0 to 1"),
        (([0, 1, -1], ["a", "b"]), "targets holds the ids -1 to 1"),
        (([0, 1, 1], ["a", "b"], [0, 1, 5]), "predicted holds the ids 0 to 5"),
    ],
)
def test_labels_that_are_no_ids_are_not_evaluated(arguments, words):
    with pytest.raises(ValueError, match=words):
        trainer.evaluate(LOGITS, *arguments)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prior": "naturl"}, r"prior is 'naturl'; known: .* Did you mean 'natural'"),
        ({"thresholds": {"a": 0.5}}, "thresholds is a mapping; known: common, cost, f1, micro"),
        ({"thresholds": "micro_f1"}, "thresholds is 'micro_f1', which needs multi-label data"),
        (
            {"targets": [[1], [0], [1]]},
            r"targets has the shape \(3, 1\); give one label id per row",
        ),
        ({"targets": [[2, 0], [0, 1], [1, 1]]}, "label sets with other values than 0 and 1"),
        ({**SETS, "prior": "uniform"}, "decision.prior is not 'natural', the only one known"),
        ({**SETS, "training_counts_C": [9, 3]}, "is given without num_training_rows"),
        ({"targets": ["a", "b", "b"]}, "targets holds text"),
        ({"targets": [0, 1]}, r"logits_NC has the shape \(3, 2\); needed: \(2, 2\)"),
        ({"training_counts_C": [1, 2, 3]}, r"training_counts_C has the shape \(3,\); needed: \(2"),
        ({"class_weights_C": [1.0]}, r"class_weights_C has the shape \(1,\); needed: \(2,\)"),
    ],
)
def test_arguments_of_fit_decision_are_checked(given, words):
    arguments = {"logits_NC": LOGITS, "targets": [0, 1, 1], "labels": ["a", "b"]}
    with pytest.raises(ValueError, match=words):
        fit_decision(**arguments | given)


def test_losses_take_the_weights_of_class_weights_as_a_tensor():
    weights_C = torch.tensor(class_weights([0, 0, 1]))
    assert weights_C.dtype == torch.float64
    logits_NC, ids_N = torch.zeros(2, 2), torch.tensor([0, 1])
    for loss in (trainer.cross_entropy, trainer.focal):
        found = loss(logits_NC, ids_N, class_weights_C=weights_C)
        assert found == loss(logits_NC, ids_N, class_weights_C=weights_C.float())
        assert found.dtype == torch.float32


def test_in_jupyter_our_errors_show_their_message_without_a_traceback():
    error = trainer.DataError("tweets.csv: is empty.")
    assert error._render_traceback_() == ["DataError: tweets.csv: is empty."]


def test_train_takes_a_dict_and_gives_a_run_that_predicts(tiny_model, tweets, tmp_path):
    config = {
        "model": {"name": str(tiny_model), "max_length": 16},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "training": {"max_steps": 2, "per_device_train_batch_size": 8},
        "run": {"output_dir": str(tmp_path), "name": "run"},
    }
    threads = torch.get_num_threads()
    result = trainer.train(config, ["run.seed=3", f"run.num_threads={threads + 1}"])
    assert torch.get_num_threads() == threads
    assert RunResult(str(result.folder)).metrics == result.metrics
    with pytest.raises(ValueError, match="split is 'tst'; known: validation"):
        result.per_class("tst")
    assert isinstance(result, RunResult)
    assert result.folder == tmp_path / "run"
    assert 0 <= result.metrics["validation"]["macro_f1"] <= 1
    assert [prediction.label for prediction in result.classifier.predict(["a text"])]
    assert list(result.per_class("validation").index) == sorted(result.classifier.labels)
    page = result._repr_html_()
    assert "validation: macro F1" in page
    assert page.count("<table") == 2
    with pytest.raises(trainer.ConfigError, match=r"run\.sed is unknown"):
        trainer.train(config | {"run": {"sed": 1}})


def test_script_trains_and_finds_the_fault_of_two_trainers():
    script = Path(__file__).parents[1] / "scripts" / "weighted_trainer.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"ACCELERATE_USE_CPU": "true"},
    )
    assert "WeightedTrainer: The gradient does not depend on how" in done.stdout
    assert "\nTrainer: The gradient DEPENDS on how" in done.stdout
    assert "UsualOverride: The gradient DEPENDS on how" in done.stdout
