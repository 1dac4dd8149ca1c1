"""Vectors of a frozen encoder, kept on disk: each distinct row is computed once.

On disk, a folder per model (weights, architecture, config) holds shards. A shard is `<id>.npy`,
float32 vectors that are memory-mapped, and `<id>.keys.npy`, the sorted digests of the tokens of
their rows, which is written last.

Legend: N rows, U distinct rows, M rows that are not on disk yet, H features.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.arrays import Array, Floats32, Ints
from trainer.data.tokens.tokenise import TokenisedRows
from trainer.errors import RunError, TrainingError
from trainer.files.cache import ABOUT
from trainer.files.locks import mark_used, partial_path, remove_dead
from trainer.launch import stopping
from trainer.progress import progress_bar
from trainer.training.batches.batching import token_batches
from trainer.training.memory import in_smaller_passes

VectorsOf = Callable[[dict[str, Array]], Floats32]
Opened = Callable[[], AbstractContextManager[tuple[VectorsOf, bool]]]
"""A context with a function from rows to vectors, and whether its rows need equal lengths."""

KEY_TYPE = np.dtype("S16")
SHARD_ROWS = 16_384
"""Rows of a shard; an interrupted run loses at most so many, which take minutes on a CPU."""


def kept_vectors(
    rows: TokenisedRows, folder: Path, opened: Opened, tokens_per_batch: int, made_from: str
) -> Floats32:
    """Return vectors (N, H) in the order of the rows; compute and keep those that are missing.

    Args:
        rows: rows of token ids.
        folder: folder of the model in the cache.
        opened: context in which rows become vectors; entered only if a vector is missing.
        tokens_per_batch: most tokens of a batch.
        made_from: name of the model, shown by the command `cache`.
    Raises:
        TrainingError: the encoder gives values that are not numbers.
        RunError: another process removed embeddings meanwhile.
    """
    with _in_use(folder):
        about = folder / ABOUT
        if not about.exists():
            about.write_text(made_from, encoding="utf-8")
        mark_used(about)
        keys_U, first_U, place_N = np.unique(row_keys(rows), return_index=True, return_inverse=True)
        missing_U = np.ones(len(keys_U), bool)
        for _, here_U, _ in _shards(folder, keys_U):
            missing_U[here_U] = False
        new_M = np.flatnonzero(missing_U)
        if len(new_M):
            # the longest rows first, so that too little memory shows at once
            new_M = new_M[np.argsort(-rows.lengths_N[first_U[new_M]], kind="stable")]
            _compute(rows, first_U[new_M], keys_U[new_M], folder, opened, tokens_per_batch)
        missing_U[:] = True
        parts = list(_shards(folder, keys_U))  # other processes may have written some of them
        for _, here_U, _ in parts:
            missing_U[here_U] = False
        if missing_U.any():
            raise RunError(
                f"{folder}: embeddings were removed while they were read."
                " Run the same command again."
            )
        vectors_UH = np.empty((len(keys_U), parts[0][0].shape[1]), np.float32)
        for stored, here_U, there in parts:
            vectors_UH[here_U] = stored[there]
        return vectors_UH[place_N]


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """Keep a partial file in the folder, which tells `cache --clear` that it is in use."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_dead(folder, "shard.*partial*")
    mark = partial_path(folder / "shard")
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


def _compute(
    rows: TokenisedRows,
    ids_M: Ints,
    keys_M: NDArray[np.bytes_],
    folder: Path,
    opened: Opened,
    tokens: int,
) -> None:
    """Compute the vectors of rows, the longest of which come first, and write them as shards."""
    bar = progress_bar(total=len(ids_M), desc="Embedding", unit=" rows", delay=2)
    with opened() as (vectors_of, equal_lengths), bar:
        for start in range(0, len(ids_M), SHARD_ROWS):
            shard = slice(start, start + SHARD_ROWS)
            ids = ids_M[shard]

            def compute(tokens: int, start: int = start, ids: Ints = ids) -> Floats32:
                found = []
                bar.n = start
                for batch in token_batches(
                    rows.lengths_N[ids], tokens, equal_lengths=equal_lengths
                ):
                    stopping.stop_if_received()
                    found.append(vectors_of(rows.__getitems__(ids[batch])))
                    bar.update(len(batch))
                return np.concatenate(found)

            longest = int(rows.lengths_N[ids].max())
            vectors, tokens = in_smaller_passes(compute, tokens, longest)
            if not np.isfinite(vectors).all():
                raise TrainingError(
                    "the encoder's embeddings contain values that are not finite numbers,"
                    " because its weights are broken. Choose another model."
                )
            _write_shard(folder, keys_M[shard], vectors)


def _shards(folder: Path, keys_U: NDArray[np.bytes_]) -> Iterator[tuple[Floats32, Ints, Ints]]:
    """Yield for each shard its vectors, which of the keys it has, and their places in it."""
    for path in sorted(folder.glob("*.keys.npy")):
        vectors_path = path.with_name(path.name.replace(".keys", ""))
        try:
            keys, vectors = np.load(path), np.load(vectors_path, mmap_mode="r")
            if keys.dtype != KEY_TYPE or len(keys) != len(vectors):
                raise ValueError("different lengths")
        except (OSError, ValueError, EOFError):  # a file is missing or truncated
            warnings.warn(
                f"{path}: this entry of the cache is damaged or incomplete, so it is computed"
                " again.",
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


def row_keys(rows: TokenisedRows) -> NDArray[np.bytes_]:
    """Return a digest of the tokens of each row.

    All have 16 bytes, so numpy's padding with zeros cannot make two of them equal.
    """
    keys = []
    for start, end in zip(rows.offsets_N1[:-1], rows.offsets_N1[1:], strict=True):
        digest = hashlib.blake2b(digest_size=16)
        for column in rows.columns.values():
            digest.update(column[start:end].tobytes())
        keys.append(digest.digest())
    return np.array(keys, KEY_TYPE)
