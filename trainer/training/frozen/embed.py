"""Token ids to vectors of a frozen encoder, each distinct row once, whatever split, seed or run asks for it.

For `model.mode: head` what the final Linear layer reads; for the audit, which trains nothing, the mean of the last hidden states.
Legend: N rows, U distinct rows, M of them new, B rows of a batch, L tokens, H features. On disk a folder per model (weights,
architecture, config) holds shards: `<id>.npy`, float32 vectors that are memory-mapped, and `<id>.keys.npy`, the sorted digests
of their rows' tokens, written last.
"""

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from tqdm.auto import tqdm

from trainer.arrays import Array, Floats32, Ints
from trainer.data.tokens.tokenise import TokenisedRows, tokenise
from trainer.data.tokens.tokenizer_digest import code_digest
from trainer.errors import RunError, TrainingError
from trainer.files.cache import ABOUT
from trainer.files.locks import mark_used, partial_path, remove_dead
from trainer.launch import stopping
from trainer.launch.distributed import gains_from_bf16
from trainer.training.batches.batching import Collator, token_batches, tokens_per_pass
from trainer.training.memory import in_smaller_passes
from trainer.training.models.layers import final_layer
from trainer.training.models.model import (
    complete_tokenizer,
    load_encoder,
    load_pretrained_config,
    load_tokenizer,
)
from trainer.training.models.model_checks import fit_collator, position_limit
from trainer.training.models.model_weights import check_weights

if TYPE_CHECKING:
    from trainer.config.sections.model import ModelSection
    from trainer.data.cleaning.clean import CleanRows

VectorsOf = Callable[[dict[str, Array]], Floats32]
Opened = Callable[[], AbstractContextManager[tuple[VectorsOf, bool]]]
"""A context with a function from rows to vectors, and whether its rows must have one length."""

FORMAT = 3
KEY_TYPE = np.dtype("S16")
SHARD_ROWS = 16_384  # a killed run loses less than this many rows: minutes on a CPU
NOT_FEATURES = (
    "id2label",
    "label2id",
    "problem_type",
    "_name_or_path",
    "transformers_version",
    "decision",
)
"""Keys of a model's config that do not change what its final layer reads."""


@dataclass(frozen=True)
class OpenedEncoder:
    """A pretrained encoder that stays as it is.

    Attributes:
        embed: function (rows, row ids, cache folder) -> (mean-pooled embeddings, tokens).
        max_length: tokens at which texts are cut.
        position_limit: the most tokens that it can read; None where it has no limit.
    """

    embed: Callable[["CleanRows", Ints, Path], tuple[Floats32, TokenisedRows]]
    max_length: int
    position_limit: int | None


def embed(
    model: Any, rows: TokenisedRows, collate: Collator, *, device: Any, cache_dir: Path
) -> Floats32:
    """Inputs of the final Linear layer (N, H) in the order of the rows, in float32 as `pipeline()` computes.

    Args:
        cache_dir: where vectors are kept; for rows that are found there the model is not called.
    """

    @contextmanager
    def opened() -> Iterator[tuple[VectorsOf, bool]]:
        with _without_final_layer(model, device), torch.inference_mode():
            equal_lengths = fit_collator(
                lambda batch: model(**batch).logits, model.config, device, collate
            )
            yield (
                lambda batch: model(**_inputs(collate, batch, device)).logits.float().cpu().numpy(),
                equal_lengths,
            )

    folder = cache_dir / f"embeddings-{_model_digest(model, collate, without=final_layer(model))}"
    return _kept_vectors(rows, folder, opened, tokens_per_pass(device), _name_of(model))


def open_encoder(model: "ModelSection") -> OpenedEncoder:
    """A pretrained encoder for the audit, loaded now.

    Raises:
        ModelError: a model that cannot be found or loaded.
    """
    config = load_pretrained_config(model)
    tokenizer, max_length = load_tokenizer(model, config)
    check_weights(model)
    encoder = load_encoder(model, config)

    def embed_rows(
        clean: "CleanRows", ids_N: Ints, cache_dir: Path
    ) -> tuple[Floats32, TokenisedRows]:
        labels_N, digest = clean.label_ids_N[ids_N], clean.text_fingerprint
        tokens = tokenise(
            clean.rows.table,
            ids_N,
            labels_N,
            tokenizer,
            max_length=max_length,
            fingerprint=digest,
            cache_dir=cache_dir,
            release=clean.rows.release,
        )
        return embed_means(encoder, tokens, tokenizer, cache_dir=cache_dir), tokens

    trusts = model.trust_remote_code
    limits = complete_tokenizer(
        tokenizer, config, f"model.name: the tokenizer of '{model.name}'", trust_remote_code=trusts
    )
    limit = position_limit(config, trust_remote_code=trusts) or min(limits, default=None)
    return OpenedEncoder(embed_rows, max_length, limit)


def embed_means(encoder: Any, rows: TokenisedRows, tokenizer: Any, *, cache_dir: Path) -> Floats32:
    """Mean over the tokens of each row of the last hidden states (N, H), in the order of the rows; padding counts nothing.

    Args:
        encoder: a model without a head; computed on the device that `distributed.start_processes` chose, in bfloat16 where
            that gains.
        cache_dir: as of `embed`.
    Source: the pooling of Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
    """
    device = PartialState().device
    is_bf16 = gains_from_bf16(device.type)

    collate = Collator(tokenizer)

    def means(inputs_BL: dict[str, Any]) -> Any:
        states_BLH = encoder(**inputs_BL).last_hidden_state.float()
        mask_BL1 = inputs_BL["attention_mask"].unsqueeze(-1).float()
        return (states_BLH * mask_BL1).sum(dim=1) / mask_BL1.sum(dim=1)

    @contextmanager
    def opened() -> Iterator[tuple[VectorsOf, bool]]:
        encoder.to(device).eval()
        with torch.inference_mode():
            equal_lengths = fit_collator(means, encoder.config, device, collate)
            with torch.autocast(device.type, torch.bfloat16, enabled=is_bf16):
                yield (
                    lambda batch: means(_inputs(collate, batch, device)).cpu().numpy(),
                    equal_lengths,
                )

    folder = (
        cache_dir / f"embeddings-mean-{'bf16-' if is_bf16 else ''}{_model_digest(encoder, collate)}"
    )
    return _kept_vectors(rows, folder, opened, tokens_per_pass(device), _name_of(encoder))


def _inputs(collate: Collator, batch: dict[str, Array], device: Any) -> dict[str, Any]:
    return {
        name: tensor.to(device)
        for name, tensor in collate(
            {name: values for name, values in batch.items() if name != "labels"}
        ).items()
    }


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """Keep a partial file in the folder, by which `cache --clear` knows that a process works there."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_dead(folder, "shard.*partial*")
    mark = partial_path(folder / "shard")
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _kept_vectors(
    rows: TokenisedRows,
    folder: Path,
    opened: Opened,
    tokens_per_batch: int,
    made_from: str,
) -> Floats32:
    """Vectors (N, H) in the order of the rows; those that the folder lacks are computed, the longest rows first, and kept there.

    Args:
        opened: a context in which rows become vectors; entered where a vector is missing.
        made_from: name of the model, for the list of the command `cache`.
    Raises:
        TrainingError: the encoder gives values that are not numbers.
        RunError: another process removed embeddings meanwhile.
    """
    with _in_use(folder):
        about = folder / ABOUT
        if not about.exists():
            about.write_text(made_from, encoding="utf-8")
        mark_used(about)
        keys_U, first_U, place_N = np.unique(
            _row_keys(rows), return_index=True, return_inverse=True
        )
        missing_U = np.ones(len(keys_U), bool)
        for _, here_U, _ in _shards(folder, keys_U):
            missing_U[here_U] = False
        new_M = np.flatnonzero(missing_U)
        new_M = new_M[np.argsort(-rows.lengths_N[first_U[new_M]], kind="stable")]
        if len(new_M):
            with (
                opened() as (vectors_of, equal_lengths),
                tqdm(
                    total=len(new_M),
                    desc="Embedding",
                    unit=" rows",
                    delay=2,
                    disable=None,
                    leave=False,
                ) as bar,
            ):
                for start in range(0, len(new_M), SHARD_ROWS):
                    shard = new_M[start : start + SHARD_ROWS]
                    compute = partial(
                        _vectors, rows, first_U[shard], vectors_of, bar, start, equal_lengths
                    )
                    longest = int(rows.lengths_N[first_U[shard]].max())
                    vectors, tokens_per_batch = in_smaller_passes(
                        compute, tokens_per_batch, longest
                    )
                    _write_shard(folder, keys_U[shard], _finite(vectors))
        parts = list(_shards(folder, keys_U))  # again, since they may be of other processes too
        if len(
            np.unique(np.concatenate([np.zeros(0, np.int64), *(here_U for _, here_U, _ in parts)]))
        ) < len(keys_U):
            raise RunError(
                f"{folder}: embeddings vanished while they were read. Run the same command again."
            )
        vectors_UH = np.empty((len(keys_U), parts[0][0].shape[1]), np.float32)
        for stored, here_U, there in parts:
            vectors_UH[here_U] = stored[there]
        return vectors_UH[place_N]


def _vectors(
    rows: TokenisedRows,
    ids_M: Ints,
    vectors_of: VectorsOf,
    bar: Any,
    num_done: int,
    equal_lengths: bool,
    tokens_per_batch: int,
) -> Floats32:
    """Vectors (M, H) of some rows, which are given with the longest first.

    Args:
        bar: progress bar, which stands at `num_done` rows.
    """
    found = []
    bar.n = num_done
    for batch in token_batches(
        rows.lengths_N[ids_M], tokens_per_batch, equal_lengths=equal_lengths
    ):
        stopping.stop_if_agreed()
        found.append(vectors_of(rows.__getitems__(ids_M[batch])))
        bar.update(len(batch))
    return np.concatenate(found)


def _finite(vectors_UH: Floats32) -> Floats32:
    if not np.isfinite(vectors_UH).all():
        raise TrainingError(
            "the encoder's embeddings hold values that are not finite numbers; its weights are broken. Choose another model."
        )
    return vectors_UH


@contextmanager
def _without_final_layer(model: Any, device: Any) -> Iterator[None]:
    """The model hands out, as its logits, what its final layer would have read: pooled as the model pools, dropout off."""
    name = final_layer(model)
    final = model.get_submodule(name)
    model.set_submodule(name, torch.nn.Identity())
    model.to(device).eval()
    try:
        yield
    finally:
        model.to("cpu")
        model.set_submodule(name, final)


def _shards(folder: Path, keys_U: NDArray[np.bytes_]) -> Iterator[tuple[Floats32, Ints, Ints]]:
    """Of each shard that holds some of the keys: its vectors, which keys those are, and where they stand in it."""
    for path in sorted(folder.glob("*.keys.npy")):
        vectors_path = path.with_name(path.name.replace(".keys", ""))
        try:
            keys, vectors = np.load(path), np.load(vectors_path, mmap_mode="r")
            if keys.dtype != KEY_TYPE or len(keys) != len(vectors):
                raise ValueError("of two lengths")
        except (OSError, ValueError, EOFError):  # a file is missing or cut off
            warnings.warn(
                f"{path}: this entry of the cache is damaged or incomplete, so it is computed anew.",
                stacklevel=2,
            )
            path.unlink(missing_ok=True)
            continue
        there_U = np.minimum(np.searchsorted(keys, keys_U), len(keys) - 1)
        here_U = np.flatnonzero(keys[there_U] == keys_U)
        if len(here_U):
            yield vectors, here_U, there_U[here_U]


def _write_shard(folder: Path, keys: NDArray[np.bytes_], vectors: Floats32) -> None:
    order = np.argsort(keys)
    name = hashlib.blake2b(keys[order].tobytes(), digest_size=16).hexdigest()
    for suffix, values in (("npy", vectors[order]), ("keys.npy", keys[order])):
        partial = partial_path(folder / "shard")
        with partial.open("wb") as file:
            np.save(file, values)
        partial.replace(folder / f"{name}.{suffix}")


def _row_keys(rows: TokenisedRows) -> NDArray[np.bytes_]:
    """A digest of the tokens of each row; always 16 bytes, so numpy's padding with zeros cannot make two of them equal."""
    keys = []
    for start, end in zip(rows.offsets_N1[:-1], rows.offsets_N1[1:], strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for column in rows.columns.values():
            digest.update(column[start:end].tobytes())
        keys.append(digest.digest())
    return np.array(keys, KEY_TYPE)


def _name_of(model: Any) -> str:
    return str(getattr(model.config, "_name_or_path", ""))


def _model_digest(model: Any, collate: Collator, *, without: str | None = None) -> str:
    """Digest of all that turns tokens into vectors: code, architecture, config, padding, and every weight but those of the layer `without`."""
    config = {
        key: value for key, value in model.config.to_dict().items() if key not in NOT_FEATURES
    }
    code = [
        type(model).__name__,
        code_digest(type(model)),
        collate.pads_left,
        collate.padding_ids,
        getattr(model.config, "_attn_implementation", None),
    ]
    head = f"format {FORMAT} {json.dumps([code, config], sort_keys=True, default=str)}"
    digest = hashlib.blake2b(head.encode(), digest_size=16)
    for name, tensor in model.state_dict().items():
        if name.rpartition(".")[0] != without:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()
