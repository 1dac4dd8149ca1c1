"""The shapes of batches that a model takes, found by trying them on the model.

Legend: B rows, L tokens of the longest row.
"""

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.tokens.tokenise import encode_texts
from trainer.errors import ModelError, first_line
from trainer.training.batches.batching import Collator
from trainer.training.memory import is_out_of_memory
from trainer.training.models.positions import position_limit
from trainer.training.models.probe import in_mode, kept_randomness, probe_batch

MANY_TOKENS = 131
"""A prime number, and longer than the chunks into which some models cut their texts."""
SHORT_WIDTHS = (1, 2, 3, 4, 8, 16)
MULTIPLES = (1, 8, 16, 32, 64, 128, 256, 512)
TOLERANCE = 1e-4
"""Difference of two logits that rounding explains, as a share of the largest."""
EQUAL_LENGTHS = (
    "padding changes this model's answers, so each batch holds texts of equal length."
    " Give it one text at a time where other software serves it"
)
"""Sentence of the model card about such a model."""


def fit_collator(
    answers: Callable[[dict[str, Tensor]], Tensor],
    config: Any,
    device: Any,
    collate: Collator,
    *,
    columns: Iterable[str] = ("input_ids",),
    tolerance: float = TOLERANCE,
) -> bool:
    """Set the least width of a collator's batches; return whether padding changes the answers.

    If padding changes them, the rows of a batch must have equal lengths.

    Args:
        answers: function that returns logits or embeddings (B, ...) of a batch.
        config: config of the model.
        device: device of the model.
        columns: inputs of the model; those that hold no token ids are filled with 0.
        tolerance: difference that counts as none, as a share of the largest answer.
    """
    longest = _longest_probe(config)
    collate.least = _least_width(answers, config, device, columns)

    def first_answer(lengths_B: list[int], num_rows: int) -> Tensor:
        """Return the answer to the first of `num_rows` rows."""
        batch = probe_batch(config, lengths_B)
        ids_T = batch["input_ids"][batch["attention_mask"].bool()].numpy()
        ids_T = ids_T[: sum(lengths_B[:num_rows])]
        rows = {name: np.zeros(len(ids_T), np.int64) for name in columns} | {"input_ids": ids_T}
        padded = collate(rows | {"lengths": np.array(lengths_B[:num_rows])})
        return answers({name: tensor.to(device) for name, tensor in padded.items()})[0].float()

    for lengths_B in ([7, 19], [min(61, longest // 2), min(MANY_TOKENS, longest)]):
        try:
            with torch.no_grad(), kept_randomness(device):
                alone, again, beside = (first_answer(lengths_B, num_rows) for num_rows in (1, 1, 2))
        except RuntimeError as error:
            if is_out_of_memory(error):
                break
            raise
        if not alone.isfinite().all():  # the training reports broken weights
            break
        allowed = tolerance * float(alone.abs().max())
        # the hashing of Reformer gives another answer each time
        is_random = not torch.allclose(alone, again, rtol=0.0, atol=allowed)
        if not is_random and not torch.allclose(alone, beside, rtol=0.0, atol=allowed):
            return True
    return False


def _longest_probe(config: Any) -> int:
    """Return the most tokens of a probe that a model has positions for, special tokens aside."""
    return (position_limit(config) or MANY_TOKENS + 2) - 2


def _least_width(answers: Any, config: Any, device: Any, columns: Iterable[str]) -> int:
    """Return the tokens of the shortest batch that a model reads.

    They are more than 1 in models that pool tokens, such as CANINE.
    """
    for width in SHORT_WIDTHS:
        ids_1L = probe_batch(config, [width])["input_ids"].to(device)
        batch = {name: torch.zeros_like(ids_1L) for name in columns}
        with suppress(RuntimeError), torch.no_grad(), kept_randomness(device):
            answers(batch | {"input_ids": ids_1L, "attention_mask": torch.ones_like(ids_1L)})
            return width
    return 1


def multiple_in_training(model: Any) -> int:
    """Return the number that must divide the width of every training batch, mostly 1.

    Raises:
        ModelError: the model cannot be trained with any of the widths that were tried.
    """
    length = min(MANY_TOKENS, _longest_probe(model.config))
    batch = probe_batch(model.config, [length])
    padding = getattr(model.config.get_text_config(), "pad_token_id", None) or 0
    fill = {"input_ids": padding, "attention_mask": 0}
    fault = ValueError()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        for multiple in MULTIPLES:
            sides = (0, -length % multiple)
            wider = {
                name: torch.nn.functional.pad(tensor, sides, value=fill[name]).to(model.device)
                for name, tensor in batch.items()
            }
            try:
                with in_mode(model, training=True), torch.no_grad(), kept_randomness(model.device):
                    model(**wider)
            except ValueError as error:
                fault = error
            else:
                return multiple
    finally:
        for name, buffer in model.named_buffers():  # I-BERT's ranges change in training
            buffer.copy_(buffers[name])
    raise ModelError(f"{type(model).__name__} cannot be trained: {first_line(fault)}") from fault


def refuse_unreadable_length(model: Any, tokenizer: Any, max_length: int, name: str) -> None:
    """Raise ModelError if a model cannot read a text of the maximum length.

    Args:
        max_length: tokens.
        name: name of the model.
    """
    columns, lengths = encode_texts(["word " * max_length], None, tokenizer, max_length)
    batch = Collator(tokenizer)(columns | {"lengths": lengths.lengths})
    try:
        with in_mode(model, training=False), torch.no_grad(), kept_randomness(model.device):
            model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits.cpu()
    except Exception as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            return  # training takes smaller passes, or reports the lack of memory
        raise ModelError(
            f"model.name: '{name}' cannot read a text of {int(lengths.lengths[0]):,} tokens:"
            f" {type(error).__name__}: {first_line(error)}. Set model.max_length to less."
        ) from error
