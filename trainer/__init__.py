"""Equipoise: balanced, honestly evaluated text classifiers. This is the public Python API.

Importing this module imports no torch; names that need it are loaded when they are first used.
"""

from importlib import import_module
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
    from trainer.evaluation.multi_label import evaluate
    from trainer.evaluation.validation_decision import fit_decision
    from trainer.runs.run_result import RunResult, train
    from trainer.training.class_balanced_sampler import ClassBalancedSampler
    from trainer.training.gradient_check import GradientCheck, check_gradient
    from trainer.training.losses import (
        binary_cross_entropy,
        cross_entropy,
        focal,
        logit_adjusted,
    )
    from trainer.training.weighted_trainer import WeightedTrainer

__version__ = "0.1.0"

LAZY = {
    "comparison.statistics.differences": {"SeedPredictions": "", "compare_predictions": "compare"},
    "data.balancing.from_labels": dict.fromkeys(
        ("class_weights", "floor", "oversample", "power", "undersample"), ""
    ),
    "delivery.predicting.predict": {"Classifier": "", "Prediction": ""},
    "evaluation.multi_label": {"evaluate": ""},
    "evaluation.validation_decision": {"fit_decision": ""},
    "runs.run_result": {"RunResult": "", "train": ""},
    "training.class_balanced_sampler": {"ClassBalancedSampler": ""},
    "training.gradient_check": {"GradientCheck": "", "check_gradient": ""},
    "training.losses": dict.fromkeys(
        ("binary_cross_entropy", "cross_entropy", "focal", "logit_adjusted"), ""
    ),
    "training.weighted_trainer": {"WeightedTrainer": ""},
}
"""{module: {public name: its name there, if it is another one}}."""
PLACES = {
    name: (f"trainer.{module}", own or name)
    for module, names in LAZY.items()
    for name, own in names.items()
}

__all__ = [
    "ClassBalancedSampler",
    "Classifier",
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
    "binary_cross_entropy",
    "check_gradient",
    "class_weights",
    "compare_predictions",
    "cross_entropy",
    "evaluate",
    "fit_decision",
    "floor",
    "focal",
    "load_config",
    "logit_adjusted",
    "oversample",
    "power",
    "train",
    "undersample",
]


def __getattr__(name: str) -> Any:
    """Return a name of the public API from its module, which is imported now."""
    if name in PLACES:
        module, own = PLACES[name]
        return getattr(import_module(module), own)
    raise AttributeError(f"module 'trainer' has no attribute '{name}'")
