"""The experiment trackers that `training.report_to` may name, and the packages that they need."""

import os
from collections.abc import Sequence
from importlib.util import find_spec

from trainer.errors import ConfigError, listing
from trainer.extras import is_installed

TRACKERS = {
    "azure_ml": ("azureml", "azureml-core"),
    "clearml": ("clearml", "clearml"),
    "codecarbon": ("codecarbon", "codecarbon"),
    "comet_ml": ("comet_ml", "comet-ml"),
    "dagshub": ("dagshub", "dagshub"),
    "dvclive": ("dvclive", "dvclive"),
    "flyte": ("flytekit", "flytekit"),
    "kubeflow": ("", "KUBEFLOW_TRAINER_SERVER_URL"),
    "mlflow": ("mlflow", "mlflow"),
    "neptune": ("neptune", "neptune"),
    "swanlab": ("swanlab", "swanlab"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "trackio": ("trackio", "trackio"),
    "wandb": ("wandb", "wandb"),
}
"""{name in transformers: (module, package to install)}; without a module, an environment variable
must be set."""


def chosen_trackers(report_to: str | Sequence[str] | None) -> list[str]:
    """Return the names of the trackers that a value of `training.report_to` asks for.

    "all" means those that are installed.
    """
    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if names == ["all"]:
        return [name for name in TRACKERS if _is_installed(name)]
    return [name for name in dict.fromkeys(names) if name != "none"]


def refuse_missing_trackers(report_to: str | Sequence[str] | None) -> None:
    """Raise ConfigError if a tracker is not installed. No tracker is imported."""
    missing = [name for name in chosen_trackers(report_to) if not _is_installed(name)]
    packages = [TRACKERS[name][1] for name in missing if TRACKERS[name][0]]
    if packages:
        raise ConfigError(
            f"training.report_to: {listing(missing)} is not installed."
            f" Run: pip install {' '.join(packages)}"
        )
    if missing:
        raise ConfigError(
            f"training.report_to: {missing[0]} needs the environment variable"
            f" {TRACKERS[missing[0]][1]}. Set it, or remove {missing[0]}."
        )


def _is_installed(name: str) -> bool:
    module, variable = TRACKERS[name]
    if not module:
        return variable in os.environ
    if name == "azure_ml":
        return find_spec(module) is not None  # its package has no file of its own
    return is_installed(module)
