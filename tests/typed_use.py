"""Every public name, used as a typed program uses it; test_typed_use.py checks it with mypy."""

from pathlib import Path
from typing import Any, assert_type

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import trainer
from trainer import (
    ClassBalancedSampler,
    Classifier,
    ComparisonResult,
    Config,
    ConfigError,
    DataError,
    GradientCheck,
    ModelError,
    Prediction,
    RunError,
    RunResult,
    SeedPredictions,
    TrainerError,
    TrainingError,
    WeightedTrainer,
    asymmetric,
    binary_cross_entropy,
    binary_focal,
    check_gradient,
    class_weights,
    compare,
    compare_predictions,
    cross_entropy,
    distribution_balanced,
    evaluate,
    fit_decision,
    floor,
    focal,
    load_config,
    logit_adjusted,
    negative_tolerant_focal,
    oversample,
    power,
    train,
    undersample,
)

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
ERRORS: list[type[TrainerError]] = [ConfigError, DataError, ModelError, RunError, TrainingError]


def configs() -> Config:
    """Load and use a config."""
    values = {"model": {"name": Path("m")}, "data": {"source": "a.csv"}}
    config = load_config(load_config(values, ["run.seed=3"]), ("run.name=x",))
    assert_type(config, Config)
    assert_type(config.run_path, Path)
    assert_type(config.run.seed, int)
    assert_type(config.to_yaml(), str)
    assert_type(trainer.__version__, str)
    return config


def runs(config: Config) -> list[Prediction]:
    """Train and predict."""
    result = train(config, resume="never")
    assert_type(result, RunResult)
    assert_type(result.folder, Path)
    assert_type(result.metrics, dict[str, Any])
    assert_type(compare(config).folder, Path)
    assert_type(ComparisonResult(result.folder).results, dict[str, Any])
    classifier = Classifier.load(result.folder)
    assert_type(classifier, Classifier)
    assert_type(classifier.predict("a text"), Prediction)
    assert_type(classifier.predict("a text").probabilities, dict[str, float])
    assert_type(classifier.probabilities(["a text"]), Floats)
    return classifier.predict(["a text"])


def rows(labels: list[str]) -> Floats:
    """Balance rows."""
    for method in (undersample, oversample, floor, power):
        assert_type(method(labels, seed=1), Ints)
    assert_type(list(ClassBalancedSampler(np.array(labels))), list[int])
    return class_weights(labels, {"a": 2.0})


def losses(logits_NC: Tensor, ids_N: Tensor, weights_C: Tensor) -> Tensor:
    """Compute each loss."""
    total = cross_entropy(logits_NC, ids_N, class_weights_C=weights_C)
    total += focal(logits_NC, ids_N, class_weights_C=weights_C, gamma=1.0)
    for loss in (binary_cross_entropy, binary_focal, asymmetric):
        total += loss(logits_NC, logits_NC, class_weights_C=weights_C)
    shift_C = torch.zeros(2)
    total += negative_tolerant_focal(
        logits_NC, logits_NC, class_weights_C=weights_C, prior_shift_C=shift_C
    )
    total += distribution_balanced(
        logits_NC,
        logits_NC,
        class_weights_C=weights_C,
        counts_C=torch.ones(2),
        prior_shift_C=shift_C,
    )
    return total + logit_adjusted(
        logits_NC, ids_N, class_weights_C=weights_C, log_prior_C=torch.zeros(2)
    )


def results(logits_NC: Floats, weighted: WeightedTrainer) -> float:
    """Evaluate, decide, compare and check."""
    found = evaluate(logits_NC, [0, 1], ["a", "b"])
    decision = fit_decision(logits_NC, [0, 1], ["a", "b"], thresholds="f1")
    assert_type(decision.decide(decision.log_probabilities(logits_NC)), Ints | Bools)
    checked = check_gradient(weighted, num_rows=4)
    assert_type(checked, GradientCheck)
    assert_type(checked.passed, bool)
    seeds = SeedPredictions(np.zeros((1, 2), np.int64), np.zeros((1, 2, 2)))
    compared = compare_predictions(
        np.zeros(2, np.int64), {"none": seeds}, ["a", "b"], minority_label="b"
    )
    assert_type(compared.recommended, str)
    assert_type(found.macro_f1, float)
    return found.macro_f1


MISSPELT = trainer.WeightedTrainr  # type: ignore[attr-defined]
