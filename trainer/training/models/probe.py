"""Trials of a model: a small batch that any text model reads, and changes that are undone.

Legend: B rows, L tokens of the longest row.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from trainer.errors import first_line

T = TypeVar("T")


def probe_batch(config: Any, lengths_B: list[int]) -> dict[str, Tensor]:
    """Return input ids and attention mask (B, L) of rows of the given lengths, padded on the right.

    The ids vary, none is padding, and each row ends with the end token if there is one.
    """
    text = config.get_text_config()
    size = getattr(text, "vocab_size", None) or 256
    padding = getattr(text, "pad_token_id", None) or 0
    end = getattr(text, "eos_token_id", None)
    end = end if isinstance(end, int) and end < size else None  # Llama 3 has a list of them
    mask_BL = torch.arange(max(lengths_B)) < torch.tensor(lengths_B)[:, None]
    numbers_BL = torch.arange(mask_BL.numel()).view(mask_BL.shape)
    ids_BL = numbers_BL % max(2, size - 20) + min(10, size // 2)
    word = next(number for number in range(1, 5) if number not in (padding, end))
    for special in {padding, end} - {None}:
        ids_BL = torch.where(ids_BL == special, word, ids_BL)
    if end is not None:
        ids_BL[torch.arange(len(ids_BL)), torch.tensor(lengths_B) - 1] = end
    return {"input_ids": torch.where(mask_BL, ids_BL, padding), "attention_mask": mask_BL.long()}


@contextmanager
def in_mode(model: Any, *, training: bool) -> Iterator[None]:
    """Put a model into training or evaluation mode, and back into its own mode afterwards."""
    was_training = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(was_training)


def kept_randomness(device: Any) -> AbstractContextManager[None]:
    """Return a context that restores the random state of the CPU and of a device."""
    kind = torch.device(device).type
    if kind == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=kind)


def keep_if_same(
    model: Any,
    measure: Callable[[], T],
    change: Callable[[], Callable[[], None]],
    difference: Callable[[T], str | None],
) -> str | None:
    """Change a model, and undo the change if the model then answers differently or fails.

    Args:
        measure: function that returns the answers of the unchanged model.
        change: function that changes the model and returns a function that undoes it.
        difference: function (those answers) -> what differs now, or None.
    Returns:
        None if the change is kept, else the reason why it is not.
    """
    undo: Callable[[], None] | None = None
    with in_mode(model, training=False):
        try:
            expected = measure()
            undo = change()
            reason = difference(expected)
        except Exception as error:  # the model's own code may raise anything
            reason = f"{type(error).__name__}: {first_line(error)}"
    if reason and undo:
        undo()
    return reason
