"""The public Python API: complete, documented with examples that run, and light to import."""

import doctest
import inspect
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from imblearn.over_sampling import RandomOverSampler
from imblearn.under_sampling import RandomUnderSampler
from sklearn.utils.class_weight import compute_class_weight
from torch.utils.data import DataLoader

import trainer
from trainer import ClassBalancedSampler, RunResult, class_weights, fit_decision

CALLABLES = sorted(
    name for name in trainer.__all__ if callable(getattr(trainer, name)) and "Error" not in name
)
LABELS = np.repeat(["a", "b", "c"], [60, 25, 15])


def test_importing_the_package_imports_no_torch():
    code = "import sys, trainer; assert not {'torch', 'transformers', 'pandas'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_names_are_listed_once_and_a_wrong_one_is_an_attribute_error():
    assert sorted(trainer.__all__) == sorted(set(trainer.__all__))
    with pytest.raises(AttributeError, match="has no attribute 'WeightedTrainr'"):
        trainer.WeightedTrainr  # noqa: B018


@pytest.mark.parametrize("name", CALLABLES)
def test_examples_of_docstrings_run(name):
    public = getattr(trainer, name)
    module = sys.modules[public.__module__]
    found = doctest.DocTestFinder(recurse=False).find(public, name, module=module)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed = sum(runner.run(test).failed for test in found)
    assert failed == 0


@pytest.mark.parametrize("name", CALLABLES)
def test_every_public_function_and_class_is_documented_with_an_example(name):
    text = inspect.getdoc(getattr(trainer, name)) or ""
    assert len(text.split("\n")[0]) <= 100
    assert ">>>" in text or name in ("Config", "Prediction", "GradientCheck", "SeedPredictions"), (
        text
    )


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
    ("labels", "values", "words"),
    [
        ([], {}, r"labels has the shape \(0,\); give one label a row"),
        (np.eye(3), {}, r"labels has the shape \(3, 3\)"),
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


def test_train_takes_a_dict_and_gives_a_run_that_predicts(tiny_model, tweets, tmp_path):
    config = {
        "model": {"name": str(tiny_model), "max_length": 16},
        "data": {"source": str(tweets), "label_column": "sentiment"},
        "training": {"max_steps": 2, "per_device_train_batch_size": 8},
        "run": {"output_dir": str(tmp_path), "name": "run"},
    }
    result = trainer.train(config, ["run.seed=3"])
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
