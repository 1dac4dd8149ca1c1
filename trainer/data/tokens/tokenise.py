"""Turn texts into token ids, and keep them in memory-mapped files that all processes share."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Array, Bools, Ints
from trainer.data.reading.row_access import take_rows
from trainer.data.tokens.special_tokens import NONE_SPECIAL, SpecialInTexts, SpecialTokenCounter
from trainer.data.tokens.tokenizer_digest import tokenizer_digest
from trainer.data.tokens.word_tokens import WordTokens, splits_at_spaces
from trainer.files.locks import partial_path, write_once
from trainer.progress import progress_bar

BATCH_ROWS = 2000
PADDING = -1
"""Index of a padding row, which fills up a batch and does not count."""
TOKEN_BYTES = np.dtype(np.int32).itemsize
IGNORED = -100
"""Label id that every loss leaves out."""


@dataclass(frozen=True)
class TokenisedRows:
    """Model inputs of some rows; the index PADDING gives a row whose label is IGNORED.

    Attributes:
        columns: input_ids, and token_type_ids for text pairs; each is flat over all rows and
            memory-mapped.
        offsets_N1: where each row starts in `columns`, and where the last row ends.
        label_ids_N: label id of each row; for multi-label rows which labels each has, (N, C).
        truncated_N: whether the row was truncated at the maximum length.
        full_lengths_N: tokens of each row before truncation, if the tokenizer gives them.
        special: rows whose text contains special tokens; empty for rows made by `take`.
    """

    columns: dict[str, Array]
    offsets_N1: Ints
    label_ids_N: Array
    truncated_N: Bools
    full_lengths_N: Ints | None = None
    special: SpecialInTexts = NONE_SPECIAL

    def __len__(self) -> int:
        return len(self.label_ids_N)

    def __getitems__(self, indices: Sequence[int] | Ints) -> dict[str, Array]:
        """Return a batch of rows: their flat columns, their `lengths` and their `labels`.

        torch's DataLoader calls this method, if there is one, instead of `__getitem__`.
        """
        indices_B = np.asarray(indices, np.int64)
        rows_B = np.where(indices_B == PADDING, 0, indices_B)
        starts_B, ends_B = self.offsets_N1[rows_B], self.offsets_N1[rows_B + 1]
        flat = {
            name: np.concatenate([column[s:e] for s, e in zip(starts_B, ends_B, strict=True)])
            for name, column in self.columns.items()
        }
        labels = self.label_ids_N[rows_B]
        if labels.ndim == 2:
            labels = labels.astype(np.float32)  # binary cross-entropy needs floats
        labels[indices_B == PADDING] = IGNORED
        return flat | {"lengths": ends_B - starts_B, "labels": labels}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one row as lists and numbers."""
        row = self.__getitems__([index])
        columns = {name: row[name].tolist() for name in self.columns}
        return columns | {"labels": row["labels"][0].tolist()}

    def take(self, indices_M: Ints) -> "TokenisedRows":
        """Return some of the rows, in the order of the indices."""
        flat = self.__getitems__(indices_M)
        return TokenisedRows(
            {name: flat[name] for name in self.columns},
            np.r_[0, np.cumsum(flat["lengths"])],
            self.label_ids_N[indices_M],
            self.truncated_N[indices_M],
            None if self.full_lengths_N is None else self.full_lengths_N[indices_M],
        )

    @property
    def lengths_N(self) -> Ints:
        """Number of tokens of each row."""
        return np.diff(self.offsets_N1)


def tokenise(
    table: pa.Table,
    row_ids_N: Ints,
    label_ids_N: Array,
    tokenizer: Any,
    *,
    max_length: int,
    fingerprint: str,
    cache_dir: Path,
    release: Callable[[], None] = lambda: None,
) -> TokenisedRows:
    """Return the token ids of the given rows, in their order.

    Args:
        table: columns text and text_pair of all rows.
        label_ids_N: label id of each given row; for multi-label rows which labels each has, (N, C).
        max_length: most tokens of a row; longer rows are truncated.
        fingerprint: digest of the table's texts, a part of the cache key.
        release: called after each batch to free the texts of a memory-mapped table.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(
        f"format 4 {fingerprint} {max_length} {tokenizer_digest(tokenizer)}".encode(),
        digest_size=16,
    )
    digest.update(np.ascontiguousarray(row_ids_N).tobytes())
    index_path = cache_dir / f"tokens-{digest.hexdigest()}.npz"
    stored: TokenisedRows = write_once(
        index_path,
        lambda: _write_tokens(table, row_ids_N, tokenizer, max_length, index_path, release),
        lambda: _load_tokens(index_path, len(row_ids_N)),
    )
    return replace(stored, label_ids_N=label_ids_N)


def _load_tokens(index_path: Path, num_rows: int) -> TokenisedRows | None:
    """Return the cached rows without labels, or None if a file is missing or damaged."""
    try:
        with np.load(index_path) as file:
            index = dict(file)
        offsets_N1, num_tokens = index["offsets"], int(index["offsets"][-1])
        paths = {name: _column_path(index_path, name) for name in index["names"].tolist()}
        sizes = {path.stat().st_size for path in paths.values()}
        if len(offsets_N1) != num_rows + 1 or sizes != {num_tokens * TOKEN_BYTES}:
            return None
        columns = {
            name: np.memmap(path, np.int32, mode="r") if num_tokens else np.zeros(0, np.int32)
            for name, path in paths.items()
        }
        special = SpecialInTexts(
            int(index["special_rows"]),
            tuple(index["special_tokens"].tolist()),
            bool(index["special_as_text"]),
        )
        no_labels = np.zeros(0, np.int64)
        truncated_N, full_lengths_N = index["truncated"], index["full_lengths"]
    except (OSError, ValueError, LookupError, EOFError, BadZipFile):
        return None
    return TokenisedRows(columns, offsets_N1, no_labels, truncated_N, full_lengths_N, special)


def _column_path(index_path: Path, name: str) -> Path:
    return index_path.with_suffix(f".{name}.bin")


def _write_tokens(
    table: pa.Table,
    row_ids_N: Ints,
    tokenizer: Any,
    max_length: int,
    index_path: Path,
    release: Callable[[], None],
) -> None:
    """Write the columns and then the index, so that an index always has complete columns."""
    names = [
        name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names
    ]
    partials = {name: partial_path(_column_path(index_path, name)) for name in names}
    partial = partial_path(index_path, ".partial.npz")
    origin = getattr(tokenizer, "name_or_path", "")
    try:
        batches, special = _write_columns(
            table, row_ids_N, tokenizer, max_length, partials, release
        )
        lengths_N, full_lengths_N, truncated_N = map(np.concatenate, zip(*batches, strict=True))
        np.savez(
            partial,
            offsets=np.r_[0, np.cumsum(lengths_N)],
            truncated=truncated_N,
            full_lengths=full_lengths_N,
            names=np.array(names),
            made_from=np.array(f"{len(row_ids_N):,} rows, {origin}, max_length {max_length}"),
            special_rows=np.array(special.rows),
            special_tokens=np.array(special.tokens, str),
            special_as_text=np.array(special.as_text),
        )
        for name, path in partials.items():
            path.replace(_column_path(index_path, name))
        partial.replace(index_path)
    finally:
        for path in [*partials.values(), partial]:
            path.unlink(missing_ok=True)


class RowLengths(NamedTuple):
    """Number of tokens of each row, before truncation too, and whether the row was truncated.

    `full_lengths` equals `lengths` if the tokenizer does not give the tokens that it cut off.
    """

    lengths: Ints
    full_lengths: Ints
    truncated: Bools


def _write_columns(
    table: pa.Table,
    row_ids_N: Ints,
    tokenizer: Any,
    max_length: int,
    paths: dict[str, Path],
    release: Callable[[], None],
) -> tuple[list[RowLengths], SpecialInTexts]:
    """Write the tokens of all rows, one file for each column; count rows with special tokens."""
    texts = table.select(["text", "text_pair"])
    is_paired = texts["text_pair"].null_count < texts.num_rows
    by_words = WordTokens(tokenizer) if splits_at_spaces(tokenizer) and not is_paired else None
    batches, special = [], SpecialTokenCounter(tokenizer)
    starts = range(0, len(row_ids_N), BATCH_ROWS)
    with ExitStack() as opened:
        files = {name: opened.enter_context(path.open("wb")) for name, path in paths.items()}
        for start in progress_bar(starts, desc="Tokenising", unit=" batches", delay=2):
            rows = take_rows(texts, row_ids_N[start : start + BATCH_ROWS])
            firsts, seconds = (pc.fill_null(column, "").combine_chunks() for column in rows.columns)
            if by_words:
                ids, lengths, full = by_words.encode(firsts, max_length)
                columns = {"input_ids": ids, "token_type_ids": np.zeros_like(ids)}
                batches.append(RowLengths(lengths, full, full > lengths))
            else:
                pairs = seconds.to_pylist() if is_paired else None
                columns, row_lengths = encode_texts(
                    firsts.to_pylist(), pairs, tokenizer, max_length
                )
                batches.append(row_lengths)
            special.see(rows)
            release()
            for name, file in files.items():
                columns[name].tofile(file)
    return batches, special.found


def encode_texts(
    firsts: list[str], seconds: list[str] | None, tokenizer: Any, max_length: int
) -> tuple[dict[str, NDArray[np.int32]], RowLengths]:
    """Return the token ids of texts or text pairs, flat over all rows, and the row lengths.

    Args:
        seconds: the second text of each pair. If the tokenizer knows no pairs, the two texts are
            joined by a line break.
    """
    if seconds is not None and not takes_pairs(tokenizer):
        firsts = [f"{first}\n{second}" for first, second in zip(firsts, seconds, strict=True)]
        seconds = None
    encoded = tokenizer(
        firsts, seconds, truncation=True, max_length=max_length, return_attention_mask=False
    )
    columns = {
        name: np.fromiter(chain.from_iterable(ids), np.int32) for name, ids in encoded.items()
    }
    lengths = np.array([len(ids) for ids in encoded["input_ids"]], np.int64)
    if encoded.encodings is None:
        return columns, RowLengths(lengths, lengths, lengths >= max_length)
    truncated = np.array([bool(encoding.overflowing) for encoding in encoded.encodings])
    if seconds is not None:
        return columns, RowLengths(lengths, lengths, truncated)
    num_special = tokenizer.num_special_tokens_to_add(pair=False)
    cut_off = [
        sum(len(part.ids) - num_special for part in encoding.overflowing)
        for encoding in encoded.encodings
    ]
    return columns, RowLengths(lengths, lengths + cut_off, truncated)


def takes_pairs(tokenizer: Any) -> bool:
    """Return whether the tokenizer marks where the second text of a pair begins.

    BERT's tokenizer does; those of GPT-2 and Llama do not.
    """
    num_special = tokenizer.num_special_tokens_to_add
    return bool(num_special(pair=True) > num_special(pair=False))
