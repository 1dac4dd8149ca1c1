"""Token ids to what the final Linear layer reads, each distinct row once, whatever split, seed or run asks for it.

Legend: N rows, U distinct rows, H features. On disk a folder per model (weights, architecture, config) holds shards: `<id>.npy`, float32 vectors
that are memory-mapped, and `<id>.keys.npy`, the sorted digests of their rows' tokens, written last.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm.auto import tqdm

from trainer.data.tokenise import TokenisedRows
from trainer.training.layers import final_layer

FORMAT = 1
SHARD_ROWS = 16_384  # a killed run loses less than this many rows: minutes on a CPU
NOT_FEATURES = ("id2label", "label2id", "problem_type", "_name_or_path", "transformers_version", "decision")
"""Keys of a model's config that do not change what its final layer reads."""


def embed(
    model: Any, rows: TokenisedRows, collate: Callable[[list[dict[str, Any]]], Any], *, device: Any, rows_per_batch: int, cache_dir: Path
) -> NDArray[np.float32]:
    """Inputs of the final Linear layer (N, H) in the order of the rows, in float32 as `pipeline()` computes.

    Args:
        collate: pads a list of rows to a batch.
        cache_dir: where vectors are kept; for rows that are found there the model is not called.
    """
    folder = cache_dir / f"embeddings-{_model_digest(model)}"
    folder.mkdir(parents=True, exist_ok=True)
    keys_U, first_U, place_N = np.unique(_row_keys(rows), return_index=True, return_inverse=True)
    missing_U = np.ones(len(keys_U), bool)
    for _, here_U, _ in _shards(folder, keys_U):
        missing_U[here_U] = False
    new_M = np.flatnonzero(missing_U)
    new_M = new_M[np.argsort(-rows.lengths_N[first_U[new_M]], kind="stable")]  # like lengths stand together, so padding is rare
    if len(new_M):
        with _without_final_layer(model, device), tqdm(total=len(new_M), desc="Embedding", unit=" rows", delay=2, disable=None, leave=False) as bar:
            for start in range(0, len(new_M), SHARD_ROWS):
                shard = new_M[start : start + SHARD_ROWS]
                vectors = []
                for begin in range(0, len(shard), rows_per_batch):
                    vectors.append(_vectors(model, [rows[int(row)] for row in first_U[shard[begin : begin + rows_per_batch]]], collate, device))
                    bar.update(len(vectors[-1]))
                _write_shard(folder, keys_U[shard], np.concatenate(vectors))
    parts = list(_shards(folder, keys_U))
    vectors_UH = np.empty((len(keys_U), parts[0][0].shape[1]), np.float32)
    for stored, here_U, there in parts:
        vectors_UH[here_U] = stored[there]
    return vectors_UH[place_N]


def _vectors(model: Any, features: list[dict[str, Any]], collate: Callable[[list[dict[str, Any]]], Any], device: Any) -> NDArray[np.float32]:
    inputs = collate(features).to(device)
    inputs.pop("labels")
    with torch.inference_mode():
        return model(**inputs).logits.float().cpu().numpy()


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


def _shards(folder: Path, keys_U: NDArray[np.bytes_]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]]:
    """Of each shard that holds some of the keys: its vectors, which keys those are, and where they stand in it."""
    for path in sorted(folder.glob("*.keys.npy")):
        keys = np.load(path)
        there_U = np.minimum(np.searchsorted(keys, keys_U), len(keys) - 1)
        here_U = np.flatnonzero(keys[there_U] == keys_U)
        if len(here_U):
            yield np.load(path.with_name(path.name.replace(".keys", "")), mmap_mode="r"), here_U, there_U[here_U]


def _write_shard(folder: Path, keys: NDArray[np.bytes_], vectors: NDArray[np.float32]) -> None:
    order = np.argsort(keys)
    name = hashlib.blake2b(keys[order].tobytes(), digest_size=16).hexdigest()
    for suffix, values in (("npy", vectors[order]), ("keys.npy", keys[order])):
        partial = folder / f"{name}.{os.getpid()}.partial"
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
    return np.array(keys, "S16")


def _model_digest(model: Any) -> str:
    """Digest of all that turns tokens into vectors: architecture, config, and every weight but the final layer's."""
    config = {key: value for key, value in model.config.to_dict().items() if key not in NOT_FEATURES}
    head = f"format {FORMAT} {type(model).__name__} {json.dumps(config, sort_keys=True, default=str)}"
    digest = hashlib.blake2b(head.encode(), digest_size=16)
    final = final_layer(model)
    for name, tensor in model.state_dict().items():
        if name.rpartition(".")[0] != final:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())  # type: ignore[arg-type]
    return digest.hexdigest()
