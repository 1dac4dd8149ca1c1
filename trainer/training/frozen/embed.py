"""Token ids to vectors of a frozen encoder, which are kept on disk.

For `model.mode: head` the vectors are the input of the final Linear layer. For the audit, which
trains nothing, they are the mean of the last hidden states.

Legend: N rows, B rows of a batch, L tokens, H features.
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from trainer.arrays import Array, Floats32, Ints
from trainer.config.sections.model import ModelSection
from trainer.data.cleaning.clean import CleanRows
from trainer.data.tokens.tokenise import TokenisedRows, tokenise
from trainer.data.tokens.tokenizer_digest import code_digest
from trainer.launch.distributed import gains_from_bf16
from trainer.training.batches.batching import Collator, tokens_per_pass
from trainer.training.batches.widths import fit_collator
from trainer.training.frozen.vector_cache import VectorsOf, kept_vectors
from trainer.training.models.layers import final_layer
from trainer.training.models.model import load_encoder, load_pretrained_config, load_tokenizer
from trainer.training.models.model_weights import check_weights
from trainer.training.models.positions import architecture, position_limit
from trainer.training.models.tokenizer import complete_tokenizer

FORMAT = 3
"""Version of what is kept; another version is computed again."""


@dataclass(frozen=True)
class OpenedEncoder:
    """A pretrained encoder that is not changed.

    Attributes:
        embed: function (rows, row ids, cache folder) -> (mean-pooled embeddings, tokens).
        max_length: tokens at which texts are cut.
        position_limit: the most tokens that it can read; None without a limit.
    """

    embed: Callable[[CleanRows, Ints, Path], tuple[Floats32, TokenisedRows]]
    max_length: int
    position_limit: int | None


def embed(
    model: Any, rows: TokenisedRows, collate: Collator, *, device: Any, cache_dir: Path
) -> Floats32:
    """Return the inputs of the final Linear layer (N, H) in the order of the rows.

    They are computed in float32, as `pipeline()` does.

    Args:
        model: text classifier.
        rows: rows of token ids.
        collate: collator of the model.
        device: device that computes.
        cache_dir: folder of the cache; rows that are found there are not computed.
    """
    digest = _model_digest(model, collate, without=final_layer(model))
    return _embed(
        model,
        rows,
        collate,
        lambda batch: model(**batch).logits,
        device,
        cache_dir / f"embeddings-{digest}",
        _without_final_layer(model),
    )


def _embed(
    model: Any,
    rows: TokenisedRows,
    collate: Collator,
    vectors: Callable[[dict[str, Any]], Any],
    device: Any,
    folder: Path,
    context: AbstractContextManager[None],
    *,
    is_bf16: bool = False,
) -> Floats32:
    """Return the vectors of rows, from disk or from a model.

    Args:
        vectors: function (batch of tensors) -> vectors.
        device: device that computes.
        folder: folder of the vectors.
        context: context in which the model computes them.
        is_bf16: whether to compute in bfloat16.
    """

    @contextmanager
    def opened() -> Iterator[tuple[VectorsOf, bool]]:
        def compute(batch: dict[str, Array]) -> Floats32:
            tensors = collate({k: value for k, value in batch.items() if k != "labels"})
            inputs = {name: tensor.to(device) for name, tensor in tensors.items()}
            return vectors(inputs).float().cpu().numpy()

        autocast = torch.autocast(torch.device(device).type, torch.bfloat16, enabled=is_bf16)
        with context:
            model.to(device).eval()  # outside of inference mode, in which it could not be trained
            with torch.inference_mode():
                equal_lengths = fit_collator(vectors, model.config, device, collate)
                with autocast:
                    yield compute, equal_lengths

    name = str(getattr(model.config, "name_or_path", ""))
    return kept_vectors(rows, folder, opened, tokens_per_pass(device), name)


def open_encoder(model: ModelSection) -> OpenedEncoder:
    """Load a pretrained encoder for the audit.

    Raises:
        ModelError: the model cannot be found or loaded.
    """
    config = load_pretrained_config(model)
    tokenizer, max_length = load_tokenizer(model, config)
    check_weights(model)
    encoder = load_encoder(model, config)

    def embed_rows(
        clean: CleanRows, ids_N: Ints, cache_dir: Path
    ) -> tuple[Floats32, TokenisedRows]:
        tokens = tokenise(
            clean.rows.table,
            ids_N,
            clean.targets[ids_N],
            tokenizer,
            max_length=max_length,
            fingerprint=clean.text_fingerprint,
            cache_dir=cache_dir,
            release=clean.rows.release,
        )
        return embed_means(encoder, tokens, tokenizer, cache_dir=cache_dir), tokens

    trusts, where = model.trust_remote_code, f"model.name: the tokenizer of '{model.name}'"
    limits = complete_tokenizer(tokenizer, config, where, trust_remote_code=trusts)
    limit = position_limit(config, trust_remote_code=trusts) or min(limits, default=None)
    return OpenedEncoder(embed_rows, max_length, limit)


def embed_means(encoder: Any, rows: TokenisedRows, tokenizer: Any, *, cache_dir: Path) -> Floats32:
    """Return the mean of the last hidden states over the tokens of each row (N, H).

    Padding is left out of the mean.

    Args:
        encoder: model without a head. It runs on the device that `distributed.start_processes`
            chose, in bfloat16 where that is faster.
        rows: rows of token ids.
        tokenizer: tokenizer of the encoder.
        cache_dir: folder of the cache; rows that are found there are not computed.
    Source: the pooling of Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
    """
    device, collate = PartialState().device, Collator(tokenizer)
    is_bf16 = gains_from_bf16(device.type)

    def means(inputs_BL: dict[str, Any]) -> Any:
        states_BLH = encoder(**inputs_BL).last_hidden_state.float()
        mask_BL1 = inputs_BL["attention_mask"].unsqueeze(-1).float()
        return (states_BLH * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)

    precision = "bf16-" if is_bf16 else ""
    folder = cache_dir / f"embeddings-mean-{precision}{_model_digest(encoder, collate)}"
    return _embed(encoder, rows, collate, means, device, folder, nullcontext(), is_bf16=is_bf16)


@contextmanager
def _without_final_layer(model: Any) -> Iterator[None]:
    """Let a model return, as its logits, the input of its final layer, without dropout."""
    name = final_layer(model)
    final = model.get_submodule(name)
    model.set_submodule(name, torch.nn.Identity())
    try:
        yield
    finally:
        model.to("cpu")
        model.set_submodule(name, final)


def _model_digest(model: Any, collate: Collator, *, without: str | None = None) -> str:
    """Return a digest of all that turns tokens into vectors: code, config, padding and weights.

    Args:
        without: name of a layer whose weights are left out.
    """
    code = [
        type(model).__name__,
        code_digest(type(model)),
        collate.pads_left,
        collate.padding_ids,
        getattr(model.config, "_attn_implementation", None),
    ]
    settings = json.dumps([code, architecture(model.config)], sort_keys=True, default=str)
    digest = hashlib.blake2b(f"format {FORMAT} {settings}".encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        if name.rpartition(".")[0] != without:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()
