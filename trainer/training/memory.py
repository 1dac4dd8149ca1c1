"""What is done when a GPU runs out of memory: from the last checkpoint with half the tokens in a pass, and the same rows in a step."""

import gc
import json
from pathlib import Path

from trainer.durable import aside
from trainer.errors import TrainingError

FILE = "tokens_per_pass.json"
"""Beside the checkpoints: the size of a pass that was too large, halved; a run that goes on keeps to it."""


def tokens_that_fit(checkpoints: Path) -> int | None:
    """Tokens of a pass after the memory was too small in this run; None if it never was."""
    path = checkpoints / FILE
    return int(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def halve_passes(checkpoints: Path, tokens_per_pass: int, longest_row: int, step: int, *, wanted: bool) -> str:
    """Keep half of the tokens for all that follows; what to say of it.

    Raises:
        TrainingError: smaller passes are not wanted, or a pass holds a single row already.
    """
    where = f"the GPU ran out of memory at step {step + 1} with passes of {tokens_per_pass:,} tokens"
    if not wanted:
        raise TrainingError(f"{where}. Lower speed.tokens_per_pass, or set speed.halve_on_out_of_memory: true.")
    if tokens_per_pass <= longest_row:
        raise TrainingError(
            f"{where}, which hold one row. Lower model.max_length, set model.mode: lora or training.activation_checkpointing: true, or take a smaller model."
        )
    with aside(checkpoints / FILE) as partial:
        partial.write_text(json.dumps(tokens_per_pass // 2), encoding="utf-8")
    return f"{where}; from the last checkpoint on they hold {tokens_per_pass // 2:,}, and a step the same rows"


def release() -> None:
    """Give the memory of what is no longer used back to the GPU."""
    import torch

    gc.collect()
    torch.cuda.empty_cache()
