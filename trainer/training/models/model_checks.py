"""Questions put to a model itself: how long a text it reads, and whether padding changes it.

Legend: B rows, L tokens of the longest row.
"""

import json
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from trainer.errors import ModelError, first_line
from trainer.training.memory import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor

    from trainer.training.batches.batching import Collator

T = TypeVar("T")
PROBE_TOKENS = 8
MANY_TOKENS = 131
"""A prime, and more than models read at once that cut texts into chunks."""
SHORT_WIDTHS = (1, 2, 3, 4, 8, 16)
MULTIPLES = (1, 8, 16, 32, 64, 128, 256, 512)
TOLERANCE = 1e-4
"""Difference of two logits, as a share of the largest, that rounding explains."""
EQUAL_LENGTHS = "padding changes this model's answers: its batches hold texts of equal length. Give it one text at a time where other software serves it"
"""What the card says of such a model."""
ASK_IN_CHILD = (
    "import sys; from trainer.config.sections.model import ModelSection;"
    "from trainer.training.models import model, model_checks;"
    "section = ModelSection.model_validate_json(sys.argv[1]);"
    "print(model_checks.position_limit(model.pretrained_config(section)))"
)


def stated_limit(config: Any) -> int | None:
    """Return the number of positions that a config states, or None if it states none."""
    text = config.get_text_config()
    limit = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None)
    return int(limit) if limit and limit > 0 else None


def position_limit(config: Any, *, trust_remote_code: bool = False) -> int | None:
    """Return the tokens of the longest text that a model has positions for.

    Some models give their first tokens a position above 0, so they read fewer tokens than their
    config states. The model is asked: it is built without weights and reads a few tokens.

    Returns:
        None if there is no limit. Without torch (`--check`), the number that the config states.
    """
    limits = [stated_limit(config)]
    if sys.modules.get("torch", ...) is not None:
        limits += _sizes_of_position_tables(config, trust_remote_code)
    return min((limit for limit in limits if limit is not None), default=None)


def limit_of(model: Any, config: Any) -> int | None:
    """Return `position_limit` of a `model:` section.

    A check runs without torch. If its `max_length` is so close to the stated limit that
    the first position decides, a child process asks the model.
    """
    stated = stated_limit(config)
    is_without_torch = sys.modules.get("torch", ...) is None
    first = (getattr(config.get_text_config(), "pad_token_id", None) or 0) + 2
    first = first if stated and first < stated else 2  # no model starts behind its last position
    if not (is_without_torch and stated and model.max_length and model.max_length > stated - first):
        return position_limit(config, trust_remote_code=model.trust_remote_code)
    command = [sys.executable, "-P", "-c", ASK_IN_CHILD, model.model_dump_json()]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    last = asked.stdout.split()[-1:] or [""]
    if not last[0].isdigit():
        warnings.warn(
            f"'{model.name}' could not be asked how many tokens it reads; its config says {stated}.",
            stacklevel=2,
        )
        return stated
    return int(last[0])


def _sizes_of_position_tables(config: Any, trust_remote_code: bool) -> list[int]:
    """Return, for each table of positions that a model looks up, the tokens that it lasts for."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from transformers import AutoModelForSequenceClassification
    from transformers.initialization import no_init_weights

    limits: list[int] = []

    class Lookups(TorchDispatchMode):
        """Notes lookups of consecutive rows of a table, until the first attention."""

        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            name = str(func)
            if "softmax" in name or "scaled_dot_product" in name:
                raise _PositionsAreKnownError
            if name in ("aten.embedding.default", "aten.index.Tensor"):
                table, indices = args[0], args[1]
                index = indices[0] if isinstance(indices, list) else indices
                first = _first_of_consecutive(index)
                if first is not None and len(table) > PROBE_TOKENS:
                    limits.append(len(table) - first)
            return func(*args, **(kwargs or {}))

    batch = probe_batch(config, [PROBE_TOKENS])
    batch["input_ids"][0, :-1] = batch["input_ids"][0, 0]  # so that token ids are not consecutive
    with suppress(
        Exception
    ):  # of any kind: the model has no weights, and is built to be asked alone
        with no_init_weights():
            kind = AutoModelForSequenceClassification
            model = kind.from_config(config, trust_remote_code=trust_remote_code).eval()
        with torch.no_grad(), Lookups():
            model(**batch)
    return limits


class _PositionsAreKnownError(Exception):
    """Ends a forward pass at the first attention, when all positions have been looked up."""


def _first_of_consecutive(index: Any) -> int | None:
    """Return the first number of an index whose rows all begin with the same consecutive ones."""
    if index is None or index.dtype.is_floating_point or index.shape[-1:] < (PROBE_TOKENS,):
        return None
    rows = index.reshape(-1, index.shape[-1])[:, :PROBE_TOKENS].tolist()
    first = int(rows[0][0])
    return first if all(row == list(range(first, first + PROBE_TOKENS)) for row in rows) else None


def probe_batch(config: Any, lengths_B: list[int]) -> dict[str, "Tensor"]:
    """Return input ids and attention mask (B, L) of rows of the given lengths, padded on the right.

    Their ids vary, none is padding, and each row ends with the end token if there is one.
    """
    import torch

    text = config.get_text_config()
    size, padding = (
        getattr(text, "vocab_size", None) or 256,
        getattr(text, "pad_token_id", None) or 0,
    )
    end = getattr(text, "eos_token_id", None)
    end = end if isinstance(end, int) and end < size else None  # Llama 3 has a list of them
    mask_BL = torch.arange(max(lengths_B)) < torch.tensor(lengths_B)[:, None]
    ids_BL = torch.arange(mask_BL.numel()).view(mask_BL.shape) % max(2, size - 20) + min(
        10, size // 2
    )
    word = next(number for number in range(1, 5) if number not in (padding, end))
    for special in {padding, end} - {None}:
        ids_BL = torch.where(ids_BL == special, word, ids_BL)
    if end is not None:
        ids_BL[torch.arange(len(ids_BL)), torch.tensor(lengths_B) - 1] = end
    return {"input_ids": torch.where(mask_BL, ids_BL, padding), "attention_mask": mask_BL.long()}


@contextmanager
def in_mode(model: Any, *, training: bool) -> Iterator[None]:
    """Within, a model is in training or evaluation mode; afterwards in the mode that it was in."""
    was_training = model.training
    model.train(training)
    try:
        yield
    finally:
        model.train(was_training)


def keep_if_same(
    model: Any,
    measure: Callable[[], T],
    change: Callable[[], Callable[[], None]],
    difference: Callable[[T], str | None],
) -> str | None:
    """Change a model, and undo the change if the model answers differently or fails.

    Args:
        measure: function that gives the answers of the model as it is.
        change: function that changes the model and returns a function that undoes it.
        difference: function (those answers) -> what differs now, or None.
    Returns:
        None if the change is kept, else the reason why not.
    """
    undo: Callable[[], None] | None = None
    with in_mode(model, training=False):
        try:
            expected = measure()
            undo = change()
            reason = difference(expected)
        except Exception as error:  # whatever a model's own code may raise
            reason = f"{type(error).__name__}: {first_line(error)}"
    if reason and undo:
        undo()
    return reason


def refuse_unknown_ids(tokenizer: Any, config: Any, where: str) -> None:
    """Refuse a tokenizer that gives ids for which the model has no embedding.

    Added tokens without an embedding that only a text itself could hold, such as the image token
    of Gemma 3, are taken out of the tokenizer: they are read as ordinary characters.

    Args:
        where: words for the tokenizer.
    Raises:
        ModelError: naming the first and the last of these ids.
    """
    num_rows = getattr(config.get_text_config(), "vocab_size", None)
    if not num_rows:  # CANINE hashes characters
        return
    beyond = {
        token: number for token, number in tokenizer.get_vocab().items() if number >= num_rows
    }
    if not beyond:
        return
    used = {tokenizer.pad_token_id, *tokenizer("")["input_ids"]}
    is_fast = getattr(tokenizer, "backend_tokenizer", None) is not None
    if (
        is_fast
        and beyond.keys() <= tokenizer.get_added_vocab().keys()
        and not used & set(beyond.values())
    ):
        _take_out(tokenizer, beyond)
        return
    first = min(beyond, key=lambda token: beyond[token])
    raise ModelError(
        f"{where} gives ids up to {max(beyond.values()):,} ('{first[:40]}' is {beyond[first]:,}),"
        f" but the model has embeddings for {num_rows:,} tokens. Use the tokenizer that the"
        " model was trained with, or resize the model's embeddings and save it anew."
    )


def _take_out(tokenizer: Any, tokens: dict[str, int]) -> None:
    """Remove added tokens from a tokenizer that no text gets otherwise."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [
        added for added in state["added_tokens"] if added["content"] not in tokens
    ]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state))
    extra = tokenizer._extra_special_tokens
    tokenizer._extra_special_tokens = [token for token in extra if str(token) not in tokens]
    for name, token in list(tokenizer._special_tokens_map.items()):
        if str(token) in tokens:
            del tokenizer._special_tokens_map[name]


def fit_collator(
    answers: Callable[[dict[str, "Tensor"]], "Tensor"],
    config: Any,
    device: Any,
    collate: "Collator",
    *,
    columns: Iterable[str] = ("input_ids",),
    tolerance: float = TOLERANCE,
) -> bool:
    """Set the least width of a collator's batches, and return whether padding changes a model's answers.

    If it does, the rows of a batch must have equal lengths.

    Args:
        answers: function that gives logits or embeddings (B, ...) of a batch.
        config: of the model.
        device: where the model is.
        columns: inputs of the model; those that are no token ids are 0.
        tolerance: difference that counts as none, as a share of the largest answer.
    """
    import torch

    longest = (position_limit(config) or MANY_TOKENS + 2) - 2
    collate.least = _least_width(answers, config, device, columns)

    def row_answers(lengths_B: list[int], num_rows: int) -> "Tensor":
        """Answer to the first of `num_rows` rows."""
        batch = probe_batch(config, lengths_B)
        ids_T = batch["input_ids"][batch["attention_mask"].bool()].numpy()[
            : sum(lengths_B[:num_rows])
        ]
        rows = {name: np.zeros(len(ids_T), np.int64) for name in columns} | {"input_ids": ids_T}
        padded = collate(rows | {"lengths": np.array(lengths_B[:num_rows])})
        return answers({name: tensor.to(device) for name, tensor in padded.items()})[0].float()

    for lengths_B in ([7, 19], [min(61, longest // 2), min(MANY_TOKENS, longest)]):
        try:
            with torch.no_grad(), _kept_randomness(device):
                alone, again, beside = (row_answers(lengths_B, num_rows) for num_rows in (1, 1, 2))
        except RuntimeError as error:
            if is_out_of_memory(error):
                break
            raise
        if not alone.isfinite().all():  # broken weights, of which the training tells
            break
        allowed = tolerance * float(alone.abs().max())
        is_random = not torch.allclose(
            alone, again, rtol=0.0, atol=allowed
        )  # as Reformer's hashing
        if not (is_random or torch.allclose(alone, beside, rtol=0.0, atol=allowed)):
            return True
    return False


def _least_width(answers: Any, config: Any, device: Any, columns: Iterable[str]) -> int:
    """Return the tokens of the shortest batch that a model reads; more than 1 in models that pool tokens (CANINE)."""
    import torch

    for width in SHORT_WIDTHS:
        ids_1L = probe_batch(config, [width])["input_ids"].to(device)
        batch = {name: torch.zeros_like(ids_1L) for name in columns}
        with suppress(RuntimeError), torch.no_grad(), _kept_randomness(device):
            answers(batch | {"input_ids": ids_1L, "attention_mask": torch.ones_like(ids_1L)})
            return width
    return 1


def multiple_in_training(model: Any) -> int:
    """Return a number of which the length of every training batch must be a multiple, mostly 1.

    Raises:
        ModelError: the model trains on a batch of no length that was tried.
    """
    import torch

    length = min(MANY_TOKENS, (position_limit(model.config) or MANY_TOKENS + 2) - 2)
    batch = probe_batch(model.config, [length])
    padding = getattr(model.config.get_text_config(), "pad_token_id", None) or 0
    fill = {"input_ids": padding, "attention_mask": 0}
    fault = ValueError()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        for multiple in MULTIPLES:
            missing = -length % multiple
            wider = {
                name: torch.nn.functional.pad(tensor, (0, missing), value=fill[name]).to(
                    model.device
                )
                for name, tensor in batch.items()
            }
            try:
                with in_mode(model, training=True), torch.no_grad(), _kept_randomness(model.device):
                    model(**wider)
            except ValueError as error:
                fault = error
            else:
                return multiple
    finally:
        for name, buffer in model.named_buffers():  # I-BERT's ranges move in training
            buffer.copy_(buffers[name])
    raise ModelError(f"{type(model).__name__} cannot be trained: {first_line(fault)}") from fault


def refuse_unreadable_length(model: Any, tokenizer: Any, max_length: int, name: str) -> None:
    """Let a model read a text of the maximal length, before it is trained.

    Args:
        max_length: tokens.
        name: of the model.
    Raises:
        ModelError: the model fails on it.
    """
    import torch

    from trainer.data.tokens.tokenise import encode_texts
    from trainer.training.batches.batching import Collator

    columns, lengths = encode_texts(["word " * max_length], None, tokenizer, max_length)
    known = {
        name: column for name, column in columns.items() if name in ("input_ids", "token_type_ids")
    }
    batch = Collator(tokenizer)(known | {"lengths": lengths.lengths})
    try:
        with in_mode(model, training=False), torch.no_grad(), _kept_randomness(model.device):
            model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).logits.cpu()
    except Exception as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            return  # training takes smaller passes, or says so
        raise ModelError(
            f"model.name: '{name}' cannot read a text of {int(lengths.lengths[0]):,} tokens:"
            f" {type(error).__name__}: {first_line(error)}. Set model.max_length to less."
        ) from error


def _kept_randomness(device: Any) -> AbstractContextManager[None]:
    """Return a context that leaves the random numbers of the CPU and of a device as they were."""
    import torch

    kind = torch.device(device).type
    if kind == "cpu":
        return torch.random.fork_rng(devices=[])
    return torch.random.fork_rng(devices=[device], device_type=kind)
