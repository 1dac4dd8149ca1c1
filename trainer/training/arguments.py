"""The `training:` section as transformers.TrainingArguments and callbacks."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from trainer.errors import ConfigError
from trainer.launch.launch_settings import follow_config

OWN_KEYS = (
    "early_stopping_patience",
    "early_stopping_threshold",
    "layerwise_learning_rate_decay",
    "refit_head",
    "train_sampling_strategy",
    "load_best_model_at_end",
    "save_total_limit",
    "report_to",
)
"""Keys of the section that are not passed to TrainingArguments."""

PROJECT = "equipoise"
"""Default of `training.project`, under which trackers list the runs."""


def build_arguments(training: dict[str, Any], *, checkpoints: Path, seed: int) -> TrainingArguments:
    """Return TrainingArguments with the keys that are set and the values that are fixed here.

    Raises:
        ConfigError: transformers refuses the values; its message is shown.
    """
    follow_config(training)
    given = {installed_name(key): training[key] for key in training if key not in OWN_KEYS}
    fixed = {
        "output_dir": str(checkpoints),
        "seed": seed,
        "disable_tqdm": True,  # EpochTable shows the progress
        "report_to": "none",  # Trackers are a callback of their own
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        "restore_callback_states_from_checkpoint": True,
        "use_cpu": given["use_cpu"] if "use_cpu" in given else not _has_accelerator(),
        # batches are pinned where they are sent to the device
        "dataloader_pin_memory": given.get("dataloader_pin_memory", False),
    }
    try:
        arguments = TrainingArguments(**({"project": PROJECT} | given | fixed))
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from error
    # set afterwards, since transformers would require equal intervals of saving and evaluating
    arguments.load_best_model_at_end = training.get("load_best_model_at_end", False)
    return arguments


def installed_name(key: str) -> str:
    """Return what the installed transformers calls a key of TrainingArguments.

    transformers 5.22 says gradient_checkpointing where later ones say activation_checkpointing.
    """
    if key in {field.name for field in fields(TrainingArguments)}:
        return key
    return key.replace("activation_", "gradient_", 1)


def _has_accelerator() -> bool:
    """Return whether this machine has an accelerator."""
    import torch  # not needed if the config asks for a CPU

    return torch.accelerator.is_available()


def quiet_libraries() -> None:
    """Disable the progress bars of transformers for loading and saving."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def early_stopping(training: dict[str, Any]) -> list[Any]:
    """Return the callback that stops training, or none if it is not configured.

    It stops when the metric has not improved for `early_stopping_patience` evaluations.
    """
    patience = training.get("early_stopping_patience")
    keeps_best = training.get("load_best_model_at_end") and training.get("eval_strategy") != "no"
    if patience is None or not keeps_best:
        return []
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(patience, training.get("early_stopping_threshold", 0.0))]
