"""Equipoise: text classifiers for imbalanced data, from one YAML file. The import is light."""

from typing import TYPE_CHECKING, Any

from trainer.config.config import Config, load_config
from trainer.errors import ConfigError, DataError, ModelError, RunError, TrainerError, TrainingError

if TYPE_CHECKING:
    from trainer.delivery.predicting.predict import Classifier, Prediction

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Config",
    "ConfigError",
    "DataError",
    "ModelError",
    "Prediction",
    "RunError",
    "TrainerError",
    "TrainingError",
    "__version__",
    "load_config",
]


def __getattr__(name: str) -> Any:
    """Import the classes that need heavy libraries, on first use."""
    if name in ("Classifier", "Prediction"):
        from trainer.delivery.predicting import predict

        return getattr(predict, name)
    raise AttributeError(f"module 'trainer' has no attribute '{name}'")
