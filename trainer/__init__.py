"""Equipoise: balanced, honestly evaluated text classifiers. This is the public Python API.

Importing this module imports no torch; names that need it are loaded when they are first used.
"""

import sys
import warnings
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

from trainer.config.config import Config, load_config
from trainer.errors import (
    ConfigError,
    DataError,
    ModelError,
    RunError,
    TrainerError,
    TrainingError,
)

if TYPE_CHECKING:
    from trainer.comparison.compare_result import ComparisonResult, compare
    from trainer.comparison.statistics.differences import SeedPredictions
    from trainer.comparison.statistics.differences import compare as compare_predictions
    from trainer.data.balancing.from_labels import (
        class_weights,
        floor,
        oversample,
        power,
        undersample,
    )
    from trainer.delivery.predicting.predict import Classifier, Prediction
    from trainer.evaluation.decisions.validation_decision import fit_decision
    from trainer.evaluation.multi_label import evaluate
    from trainer.runs.run_result import RunResult, train
    from trainer.training.batches.class_balanced_sampler import ClassBalancedSampler
    from trainer.training.gradient_check import GradientCheck, check_gradient
    from trainer.training.losses.one_label import cross_entropy, focal, logit_adjusted
    from trainer.training.losses.several_labels import (
        asymmetric,
        binary_cross_entropy,
        binary_focal,
        distribution_balanced,
        negative_tolerant_focal,
    )
    from trainer.training.weighted_trainer import WeightedTrainer

__version__ = "0.1.0"

if sys.platform == "win32":
    warnings.warn(
        "equipoise is tested on Linux and not on Windows. There, batch systems cannot stop a run by"
        " SIGTERM or SIGUSR1, and the peak of memory is that of the whole process.",
        stacklevel=2,
    )

PLACES = {
    "Classifier": "delivery.predicting.predict:Classifier",
    "ClassBalancedSampler": "training.batches.class_balanced_sampler:ClassBalancedSampler",
    "ComparisonResult": "comparison.compare_result:ComparisonResult",
    "GradientCheck": "training.gradient_check:GradientCheck",
    "Prediction": "delivery.predicting.predict:Prediction",
    "RunResult": "runs.run_result:RunResult",
    "SeedPredictions": "comparison.statistics.differences:SeedPredictions",
    "WeightedTrainer": "training.weighted_trainer:WeightedTrainer",
    "asymmetric": "training.losses.several_labels:asymmetric",
    "binary_cross_entropy": "training.losses.several_labels:binary_cross_entropy",
    "binary_focal": "training.losses.several_labels:binary_focal",
    "check_gradient": "training.gradient_check:check_gradient",
    "class_weights": "data.balancing.from_labels:class_weights",
    "compare": "comparison.compare_result:compare",
    "compare_predictions": "comparison.statistics.differences:compare",
    "cross_entropy": "training.losses.one_label:cross_entropy",
    "distribution_balanced": "training.losses.several_labels:distribution_balanced",
    "evaluate": "evaluation.multi_label:evaluate",
    "fit_decision": "evaluation.decisions.validation_decision:fit_decision",
    "floor": "data.balancing.from_labels:floor",
    "focal": "training.losses.one_label:focal",
    "logit_adjusted": "training.losses.one_label:logit_adjusted",
    "negative_tolerant_focal": "training.losses.several_labels:negative_tolerant_focal",
    "oversample": "data.balancing.from_labels:oversample",
    "power": "data.balancing.from_labels:power",
    "train": "runs.run_result:train",
    "undersample": "data.balancing.from_labels:undersample",
}
"""Public names that are imported on first use: {name: module:name there}."""

__all__ = [
    "ClassBalancedSampler",
    "Classifier",
    "ComparisonResult",
    "Config",
    "ConfigError",
    "DataError",
    "GradientCheck",
    "ModelError",
    "Prediction",
    "RunError",
    "RunResult",
    "SeedPredictions",
    "TrainerError",
    "TrainingError",
    "WeightedTrainer",
    "__version__",
    "asymmetric",
    "binary_cross_entropy",
    "binary_focal",
    "check_gradient",
    "class_weights",
    "compare",
    "compare_predictions",
    "cross_entropy",
    "distribution_balanced",
    "evaluate",
    "fit_decision",
    "floor",
    "focal",
    "load_config",
    "logit_adjusted",
    "negative_tolerant_focal",
    "oversample",
    "power",
    "train",
    "undersample",
]


if not TYPE_CHECKING:  # for type checkers, a name that is not above is an error

    def __getattr__(name: str) -> Any:
        """Return a name of the public API from its module, which is imported now."""
        if name in PLACES:
            return resolve_name(f"trainer.{PLACES[name]}")
        raise AttributeError(f"module 'trainer' has no attribute '{name}'")
