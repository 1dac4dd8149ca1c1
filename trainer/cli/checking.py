"""The option `--check`: check a config, its data and its model, without torch if possible."""

import os
import sys
from collections.abc import Callable

import typer

from trainer.config.config import Config


def check_and_report(path: str, config: Config, check: Callable[[Config], str | None]) -> None:
    """Run a check, and print that everything is in order.

    Args:
        check: returns which rows it read, in words; None for the first ones.
    """
    needs_torch = config.model.trust_remote_code or not config.training_values.keys().isdisjoint(
        {"fsdp", "deepspeed"}
    )
    if not needs_torch and "torch" not in sys.modules:
        leave_out_torch()
    rows = check(config) or "the first rows of the data"
    typer.echo(f"{path}: config, {rows} and model are in order.")


def leave_out_torch() -> None:
    """Make transformers load as if torch and peft were not installed, which is much faster.

    The process cannot import them afterwards. Configs, tokenizers and arguments work without them
    (https://huggingface.co/docs/transformers/installation), but the own code of a model and sharded
    training do not.
    """
    os.environ["TRANSFORMERS_NO_ADVISORY_WARNINGS"] = "1"  # no warning about the missing torch
    sys.modules["torch"] = sys.modules["peft"] = None  # type: ignore[assignment]
