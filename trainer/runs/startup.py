"""The start of a run: load libraries, join the processes, set what the hardware decides."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainer.config.config import Config
from trainer.config.sections.balancing import SYNTHESIS_METHODS
from trainer.config.sections.tracker_names import refuse_missing_trackers
from trainer.delivery.hub import client
from trainer.extras import require
from trainer.launch import distributed
from trainer.launch.launch_settings import follow_config
from trainer.run_folder import config_differences, finished_comparison, writer


def start(config: Config) -> Config:
    """Join the processes and return the config with what the hardware decides, equal on all.

    Raises:
        TrainerError: the run cannot be written, launched or pushed, or the processes differ.
    """
    require_packages(config)
    writer.check_writable(config.run_path)
    finished_comparison.read_if_set(config.report.comparison)
    if config.model.mode == "head":
        distributed.refuse_several_processes("model.mode head")
    distributed.start_processes(
        config.run.num_processes,
        config.run.num_threads,
        timeout_minutes=config.run.timeout_minutes,
        use_cpu=config.uses_cpu,
    )
    notes = apple_limits(config.training_values, use_cpu=config.uses_cpu)
    config = with_hardware_defaults(config)
    notes = follow_config(config.training_values) + notes
    if distributed.is_main():
        print("".join(f"{note}\n" for note in notes), end="")
    distributed.refuse_differences(
        lambda: distributed.code_version() | config_differences.flat(config.to_dict())
    )
    distributed.from_main(lambda: client.check_login(config.hub))
    return config


def require_packages(config: Config) -> None:
    """Raise MissingPackageError if a setting needs an optional package that is not installed."""
    refuse_missing_trackers(config.training_values.get("report_to"))
    generator, method = config.augment.generator, config.balance.method
    if method in SYNTHESIS_METHODS:
        require("augment", f"balance.method: {method}", "imblearn")
    if generator == "endpoint":
        require("augment", "augment.generator: endpoint", "openai")
    if generator != "none" and config.augment.similarity < 1:
        require("augment", f"augment.similarity: {config.augment.similarity:g}", "datasketch")


@contextmanager
def loading_libraries() -> Iterator[None]:
    """Import libraries without garbage collection, and exclude their objects from later ones.

    Libraries create 800,000 objects that stay. Looking through them again and again takes 1 s of
    the 6 s before the first step. Does nothing the second time.
    """
    if gc.get_freeze_count() or not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


def with_hardware_defaults(config: Config) -> Config:
    """Return the config with `training.bf16` set, so that config.yaml repeats the run exactly.

    On an Apple GPU, half precision is switched off; see `apple_limits`.
    """
    training, device = config.training_values, distributed.device_type(use_cpu=config.uses_cpu)
    if device == "mps":
        return config.with_training(
            **{name: False for name in ("bf16", "fp16") if name == "bf16" or training.get(name)}
        )
    if "bf16" in training or training.get("fp16"):
        return config
    return config.with_training(bf16=distributed.gains_from_bf16(device))


def apple_limits(training: dict[str, Any], *, use_cpu: bool) -> list[str]:
    """Return a sentence for each requested feature that an Apple GPU does not support.

    Args:
        training: the values of the section, as given.
    """
    import torch

    if not torch.backends.mps.is_available():
        return []
    device = distributed.device_type(use_cpu=use_cpu)
    if device == "mps":
        asked = [name for name in ("bf16", "fp16") if training.get(name)]
        return [
            f"Apple GPUs train in float32 here: training.{name} is ignored." for name in asked[:1]
        ]
    if device == "cpu" and not use_cpu and distributed.world_size() > 1:
        return ["Several processes cannot share an Apple GPU: they train on the CPU."]
    return []
