"""What a tokenizer must have: words, a padding token, and only ids that its model knows."""

import json
from typing import Any

from trainer.errors import ModelError
from trainer.training.models.positions import position_limit

LONGEST_DEFAULT = 512
"""Tokens at which texts are cut if neither the config nor the model sets a limit."""
NO_LIMIT = 1_000_000
"""Tokenizers without a limit state a number above this one."""


def complete_tokenizer(
    tokenizer: Any, config: Any, where: str, *, trust_remote_code: bool = False
) -> list[int]:
    """Give a tokenizer and its config a padding token, and return the limits of the text length.

    Args:
        where: name of the tokenizer, for messages.
    Returns:
        The numbers of tokens that the tokenizer and its model allow, if they set any.
    Raises:
        ModelError: the tokenizer has no words, no token to pad with, or ids unknown to the model.
    """
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ModelError(
            f"{where} knows no words. Are its files missing? Copy them beside config.json."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ModelError(
            f"{where} has no padding, end or unknown token, so batches cannot be padded."
            " Choose another model."
        )
    _refuse_unknown_ids(tokenizer, config, where)
    # a model of text and images has one config for each of them
    for part in (config, config.get_text_config()):
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = tokenizer.pad_token_id
    of_model = position_limit(config, trust_remote_code=trust_remote_code)
    limits = (of_model, tokenizer.model_max_length)
    return [int(limit) for limit in limits if limit and limit < NO_LIMIT]


def _refuse_unknown_ids(tokenizer: Any, config: Any, where: str) -> None:
    """Raise ModelError if a tokenizer gives ids for which the model has no embedding.

    Some added tokens without an embedding occur only if a text contains them, such as the image
    token of Gemma 3. They are removed from the tokenizer, which then reads them as characters.
    """
    num_rows = getattr(config.get_text_config(), "vocab_size", None)
    if not num_rows:  # CANINE hashes characters
        return
    vocabulary = tokenizer.get_vocab()
    beyond = {token: number for token, number in vocabulary.items() if number >= num_rows}
    if not beyond:
        return
    used = {tokenizer.pad_token_id, *tokenizer("")["input_ids"]}
    is_fast = getattr(tokenizer, "backend_tokenizer", None) is not None
    are_added = beyond.keys() <= tokenizer.get_added_vocab().keys()
    if is_fast and are_added and not used & set(beyond.values()):
        _remove_added(tokenizer, beyond)
        return
    first = min(beyond, key=lambda token: beyond[token])
    raise ModelError(
        f"{where} gives ids up to {max(beyond.values()):,} ('{first[:40]}' is {beyond[first]:,}),"
        f" but the model has embeddings for {num_rows:,} tokens. Use the tokenizer that the"
        " model was trained with, or resize the model's embeddings and save it again."
    )


def _remove_added(tokenizer: Any, tokens: dict[str, int]) -> None:
    """Remove added tokens from a fast tokenizer."""
    from tokenizers import Tokenizer

    state = json.loads(tokenizer.backend_tokenizer.to_str())
    added = [token for token in state["added_tokens"] if token["content"] not in tokens]
    tokenizer._tokenizer = Tokenizer.from_str(json.dumps(state | {"added_tokens": added}))
    extra = tokenizer._extra_special_tokens
    tokenizer._extra_special_tokens = [token for token in extra if str(token) not in tokens]
    for name, token in tokenizer.special_tokens_map.items():
        if str(token) in tokens:
            setattr(tokenizer, name, None)
