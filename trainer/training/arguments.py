"""The `training:` section as transformers.TrainingArguments and callbacks."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from trainer.errors import ConfigError
from trainer.launch.launch_settings import follow_config

if TYPE_CHECKING:
    from transformers import EarlyStoppingCallback

NOT_THEIRS = (
    "early_stopping_patience",
    "early_stopping_threshold",
    "train_sampling_strategy",
    "load_best_model_at_end",
    "save_total_limit",
)
"""Keys of the section that our own callbacks, samplers and checkpoints read."""


def build_arguments(training: dict[str, Any], *, checkpoints: Path, seed: int) -> TrainingArguments:
    """TrainingArguments of the keys that are set, with what the program decides.

    Raises:
        ConfigError: a combination that transformers refuses, in its words.
    """
    follow_config(training)
    given = {key: value for key, value in training.items() if key not in NOT_THEIRS}
    on_cpu = given.get("use_cpu") or not _has_accelerator()
    fixed = {
        "output_dir": str(checkpoints),
        "seed": seed,
        "disable_tqdm": True,  # our own progress bar stands in
        "report_to": given.get("report_to", "none"),
        "remove_unused_columns": False,
        "logging_nan_inf_filter": False,
        "restore_callback_states_from_checkpoint": True,
        "use_cpu": given.get("use_cpu", on_cpu),
        "dataloader_pin_memory": given.get("dataloader_pin_memory", not on_cpu and _pins_memory()),
    }
    try:
        arguments = TrainingArguments(**(given | fixed))
    except (ValueError, TypeError, ImportError, RuntimeError) as error:
        raise ConfigError(f"training: {' '.join(str(error).split())}") from error
    arguments.load_best_model_at_end = training.get(
        "load_best_model_at_end", False
    )  # set now: transformers would want equal intervals
    return arguments


def _has_accelerator() -> bool:
    import torch  # here, since what is checked for a CPU needs none of it

    return torch.accelerator.is_available()


def _pins_memory() -> bool:
    """Whether the accelerator reads pinned memory; Apple GPUs share the memory of the CPU, and torch warns there."""
    import torch

    found = torch.accelerator.current_accelerator()
    return found is not None and found.type != "mps"


def quiet_libraries() -> None:
    """No progress bars of transformers' own for loading and saving."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def early_stopping(training: dict[str, Any]) -> "list[EarlyStoppingCallback]":
    """Callback that stops when the metric of the best model has not risen for `early_stopping_patience` evaluations."""
    patience = training.get("early_stopping_patience")
    if (
        patience is None
        or not training.get("load_best_model_at_end")
        or training.get("eval_strategy") == "no"
    ):
        return []
    from transformers import EarlyStoppingCallback

    return [EarlyStoppingCallback(patience, training.get("early_stopping_threshold", 0.0))]
