"""What is done when a device runs out of memory: smaller passes, with the same rows in a step."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from trainer.errors import TrainingError, first_line
from trainer.files.durable import aside

T = TypeVar("T")
FILE = "tokens_per_pass.json"
"""Beside the checkpoints: the size of a pass that was too large, halved; a run that goes on keeps to it."""
SMALLER = "Lower model.max_length, set model.mode: lora or training.activation_checkpointing: true, or take a smaller model."


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error tells that a device has too little memory; each kind of device has its own words for it."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return (
        isinstance(error, torch.OutOfMemoryError)
        or should_reduce_batch_size(error)
        or "ALLOC_FAILED" in str(error)
    )


def tokens_that_fit(checkpoints: Path) -> int | None:
    """Tokens of a pass after the memory was too small in this run; None if it never was."""
    path = checkpoints / FILE
    return int(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def halve_passes(
    checkpoints: Path, tokens_per_pass: int, longest_row: int, step: int, *, wanted: bool
) -> str:
    """Keep half of the tokens for all that follows; what to say of it.

    Args:
        checkpoints: folder of the checkpoints; made where no run has made it, as when steps are timed.
        tokens_per_pass: tokens of the largest pass, padding counted where the device computes it.
    Raises:
        TrainingError: smaller passes are not wanted, or a pass holds a single row already.
    """
    where = f"memory ran out at step {step + 1} with passes of {tokens_per_pass:,} tokens"
    if not wanted:
        raise TrainingError(
            f"{where}. Lower speed.tokens_per_pass, or set speed.halve_on_out_of_memory: true."
        )
    if tokens_per_pass <= longest_row:
        raise TrainingError(f"{where}, which hold one row. {SMALLER}")
    checkpoints.mkdir(parents=True, exist_ok=True)
    with aside(checkpoints / FILE) as partial:
        partial.write_text(json.dumps(tokens_per_pass // 2), encoding="utf-8")
    return f"{where}; from the last checkpoint on they hold {tokens_per_pass // 2:,}, and a step the same rows"


def in_smaller_passes(compute: Callable[[int], T], tokens: int, longest_row: int) -> tuple[T, int]:
    """Compute in passes of so many tokens, halved whenever memory is too small; the result, and the tokens that fitted.

    Args:
        compute: tokens of a pass -> result; called anew from its beginning with half of them.
    Raises:
        RuntimeError: what `compute` raised, where a pass holds a single row already, or for another reason.
    """
    while True:
        try:
            return compute(tokens), tokens
        except RuntimeError as error:
            if not is_out_of_memory(error) or tokens <= longest_row:
                raise
        tokens //= 2
        release()


@contextmanager
def naming_lack(model: str) -> Iterator[None]:
    """Turns a lack of memory that smaller passes cannot mend, as when a model is loaded, into a TrainingError.

    Args:
        model: its name.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"memory is too small for '{model}': {first_line(error)} {SMALLER}"
        ) from error


def release() -> None:
    """Give the memory of what is no longer used back to the device."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
