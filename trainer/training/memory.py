"""Recovery from too little device memory: smaller passes, with the same rows in each step."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from trainer.errors import TrainingError, first_line
from trainer.files.durable import aside

T = TypeVar("T")
FILE = "tokens_per_pass.json"
"""File beside the checkpoints with the reduced size of a pass, which a resumed run reads."""
SMALLER = (
    "Lower model.max_length, set model.mode: lora or training.activation_checkpointing: true,"
    " or take a smaller model."
)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether an error means too little device memory, on any kind of device."""
    import torch
    from accelerate.utils.memory import should_reduce_batch_size

    return (
        isinstance(error, torch.OutOfMemoryError)
        or should_reduce_batch_size(error)
        or "ALLOC_FAILED" in str(error)
    )


def tokens_that_fit(checkpoints: Path) -> int | None:
    """Return the reduced size of a pass in tokens, None if memory has sufficed in this run."""
    path = checkpoints / FILE
    return int(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def halve_passes(
    checkpoints: Path, tokens_per_pass: int, longest_row: int, step: int, *, wanted: bool
) -> str:
    """Write half the size of a pass for the next start, and return a message about it.

    Args:
        checkpoints: folder of the checkpoints, made if missing.
        tokens_per_pass: tokens of the largest pass, with padding where the device computes it.
        longest_row: tokens of the longest row.
        step: optimizer steps that are done.
        wanted: whether smaller passes are allowed.
    Raises:
        TrainingError: smaller passes are not wanted, or a pass holds only one row.
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
    return (
        f"{where}; from the last checkpoint on they hold {tokens_per_pass // 2:,},"
        " and a step holds the same rows"
    )


def in_smaller_passes(compute: Callable[[int], T], tokens: int, longest_row: int) -> tuple[T, int]:
    """Compute in passes of a number of tokens, which is halved while memory is too small.

    Args:
        compute: function (tokens of a pass) -> result; it is called again from its beginning.
        tokens: tokens of a pass in the first call.
        longest_row: tokens of the longest row.
    Returns:
        The result, and the tokens of a pass that fitted.
    Raises:
        RuntimeError: the error of `compute`, if it has another reason or a pass holds one row.
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
    """Raise TrainingError if the memory is too small for a model, whatever the size of passes.

    Args:
        model: name of the model.
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
    """Give unused memory back to the device."""
    from accelerate.utils.memory import clear_device_cache

    clear_device_cache(garbage_collection=True)
