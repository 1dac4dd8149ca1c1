"""Equipoise: balanced, honestly evaluated text classifiers from one YAML file. Imports no torch."""

from trainer.config import Config, load_config
from trainer.errors import ConfigError, DataError, ModelError, RunError, TrainerError, TrainingError

__version__ = "0.1.0"

__all__ = [
    "Config",
    "ConfigError",
    "DataError",
    "ModelError",
    "RunError",
    "TrainerError",
    "TrainingError",
    "__version__",
    "load_config",
]
