"""Text to token ids, truncation counted; kept in memory-mapped files that every process of a machine shares."""

import hashlib
import json
import sys
import tempfile
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
from tqdm.auto import tqdm

from trainer.arrays import Array, Bools, Ints
from trainer.data.reading.row_access import take_rows
from trainer.data.tokens.special_tokens import NONE_SPECIAL, SpecialInTexts, SpecialTokenCounter
from trainer.data.tokens.word_tokens import WordTokens, splits_at_spaces, untouched
from trainer.files.locks import partial_path, write_once

BATCH_ROWS = 2000
PADDING = -1
"""Index that stands for a row that fills up a batch and counts zero."""
TOKEN_BYTES = np.dtype(np.int32).itemsize
SETTINGS = ("truncation_side", "model_input_names", "split_special_tokens", "special_tokens_map")
"""What decides token ids beside a tokenizer's backend."""
NOT_SETTINGS = (
    "_file",
    "name_or_path",
    "init_kwargs",
    "init_inputs",
    "deprecation_warnings",
    "files_loaded",
)
"""Ends of the names of attributes that say where a tokenizer in Python lies, or what was told of it."""
IGNORED = -100
"""Label id that every loss of ours leaves out."""


@dataclass(frozen=True)
class TokenisedRows:
    """Model inputs of some rows; index PADDING gives a row whose label is IGNORED.

    Attributes:
        columns: input_ids, and token_type_ids for text pairs; each flat over all rows, memory-mapped.
        offsets_N1: where each row starts in `columns`; one more than there are rows.
        label_ids_N: label id of each row; of multi-label rows which labels each has, (N, C).
        truncated_N: whether the row was cut at the maximal length.
        full_lengths_N: tokens of each row before it was cut, where the tokenizer tells.
        special: rows whose text holds special tokens; not of rows that were taken from others.
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
        """Some rows at once, as torch's DataLoader asks for a batch: their columns flat, their `lengths` and their `labels`."""
        indices_B = np.asarray(indices, np.int64)
        rows_B = np.where(indices_B == PADDING, 0, indices_B)
        starts_B, ends_B = self.offsets_N1[rows_B], self.offsets_N1[rows_B + 1]
        flat = {
            name: np.concatenate([column[s:e] for s, e in zip(starts_B, ends_B, strict=True)])
            for name, column in self.columns.items()
        }
        labels = (
            self.label_ids_N[rows_B]
            if self.label_ids_N.ndim == 1
            else self.label_ids_N[rows_B].astype(np.float32)
        )  # binary cross-entropy wants floats
        labels[indices_B == PADDING] = IGNORED
        return flat | {"lengths": ends_B - starts_B, "labels": labels}

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One row as lists and numbers."""
        row = self.__getitems__([index])
        return {name: row[name].tolist() for name in self.columns} | {
            "labels": row["labels"][0].tolist()
        }

    def take(self, indices_M: Ints) -> "TokenisedRows":
        """Some of the rows, in the order of their indices."""
        flat = self.__getitems__(indices_M)
        full_lengths_M = None if self.full_lengths_N is None else self.full_lengths_N[indices_M]
        columns = {name: flat[name] for name in self.columns}
        return TokenisedRows(
            columns,
            np.r_[0, np.cumsum(flat["lengths"])],
            self.label_ids_N[indices_M],
            self.truncated_N[indices_M],
            full_lengths_M,
        )

    @property
    def lengths_N(self) -> Ints:
        """Tokens of each row."""
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
    """Token ids of the given rows, in their order.

    Args:
        table: columns text and text_pair of all rows.
        label_ids_N: label id of each of the given rows; of multi-label rows which labels each has, (N, C).
        max_length: tokens; longer rows are cut.
        fingerprint: digest of the table's texts, part of the cache's key.
        release: called after each batch, so that the texts of a memory-mapped table do not pile up.
    """
    cache_dir.mkdir(parents=True, exist_ok=True)
    digest = hashlib.blake2b(
        f"format 4 {fingerprint} {max_length} {tokenizer_digest(tokenizer)}".encode(),
        digest_size=16,
    )
    digest.update(np.ascontiguousarray(row_ids_N).tobytes())
    index_path = cache_dir / f"tokens-{digest.hexdigest()}.npz"
    stored = write_once(
        index_path,
        lambda: _write_tokens(table, row_ids_N, tokenizer, max_length, index_path, release),
        lambda: _load_tokens(index_path, len(row_ids_N)),
    )
    return replace(stored, label_ids_N=label_ids_N)  # type: ignore[no-any-return]


def _load_tokens(index_path: Path, num_rows: int) -> TokenisedRows | None:
    """The rows in the cache, without labels yet; None where a file is missing or damaged."""
    try:
        with np.load(index_path) as index:
            offsets_N1, truncated_N, full_lengths_N, names = (
                index["offsets"],
                index["truncated"],
                index["full_lengths"],
                index["names"].tolist(),
            )
            special = SpecialInTexts(
                int(index["special_rows"]),
                tuple(index["special_tokens"].tolist()),
                bool(index["special_as_text"]),
            )
        paths = {name: _column_path(index_path, name) for name in names}
        num_tokens = int(offsets_N1[-1])
        if len(offsets_N1) != num_rows + 1 or any(
            path.stat().st_size != num_tokens * TOKEN_BYTES for path in paths.values()
        ):
            return None
        columns = {
            name: np.memmap(path, np.int32, mode="r") if num_tokens else np.zeros(0, np.int32)
            for name, path in paths.items()
        }
    except (OSError, ValueError, LookupError, EOFError, BadZipFile):
        return None
    return TokenisedRows(
        columns, offsets_N1, np.zeros(0, np.int64), truncated_N, full_lengths_N, special
    )


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
    names = [
        name for name in ("input_ids", "token_type_ids") if name in tokenizer.model_input_names
    ]
    partials = {name: partial_path(_column_path(index_path, name)) for name in names}
    partial = partial_path(index_path, ".partial.npz")
    try:
        batches, special = _write_columns(
            table, row_ids_N, tokenizer, max_length, partials, release
        )
        lengths_N, full_lengths_N, truncated_N = (
            np.concatenate(parts) for parts in zip(*batches, strict=True)
        )
        offsets_N1 = np.r_[0, np.cumsum(lengths_N)]
        made_from = np.array(
            f"{len(row_ids_N):,} rows, {getattr(tokenizer, 'name_or_path', '')}, max_length {max_length}"
        )
        np.savez(
            partial,
            offsets=offsets_N1,
            truncated=truncated_N,
            full_lengths=full_lengths_N,
            names=np.array(names),
            made_from=made_from,
            special_rows=np.array(special.rows),
            special_tokens=np.array(special.tokens, str),
            special_as_text=np.array(special.as_text),
        )
        for name, path in partials.items():
            path.replace(_column_path(index_path, name))
        partial.replace(index_path)  # the index comes last: where it is, the columns are whole
    finally:
        for path in [*partials.values(), partial]:
            path.unlink(missing_ok=True)


def _write_columns(
    table: pa.Table,
    row_ids_N: Ints,
    tokenizer: Any,
    max_length: int,
    paths: dict[str, Path],
    release: Callable[[], None],
) -> tuple[list["RowLengths"], SpecialInTexts]:
    """Write the tokens of all rows to a file for each column; count the rows whose text holds special tokens."""
    texts = table.select(["text", "text_pair"])
    is_paired = texts["text_pair"].null_count < texts.num_rows
    by_words = WordTokens(tokenizer) if splits_at_spaces(tokenizer) and not is_paired else None
    batches, special = [], SpecialTokenCounter(tokenizer)
    with ExitStack() as opened:
        files = {name: opened.enter_context(path.open("wb")) for name, path in paths.items()}
        for start in tqdm(
            range(0, len(row_ids_N), BATCH_ROWS),
            desc="Tokenising",
            unit=" batches",
            delay=2,
            disable=None,
            leave=False,
        ):
            rows = take_rows(texts, row_ids_N[start : start + BATCH_ROWS])
            if by_words is None:
                firsts, seconds = (pc.fill_null(column, "").to_pylist() for column in rows.columns)
                columns, batch = encode_texts(
                    firsts, seconds if is_paired else None, tokenizer, max_length
                )
            else:
                columns, batch = _encode_words(rows, by_words, max_length)
            batches.append(batch)
            special.see(rows)
            release()
            for name, file in files.items():
                columns[name].tofile(file)
    return batches, special.found


class RowLengths(NamedTuple):
    """Of each row: tokens, tokens before it was cut (as many as after where the tokenizer does not tell), whether it was cut."""

    lengths: Ints
    full_lengths: Ints
    truncated: Bools


def _encode_words(
    rows: pa.Table, by_words: WordTokens, max_length: int
) -> tuple[dict[str, NDArray[np.int32]], RowLengths]:
    ids, lengths, full = by_words.encode(
        pc.fill_null(rows["text"], "").combine_chunks(), max_length
    )
    return {"input_ids": ids, "token_type_ids": np.zeros(len(ids), np.int32)}, RowLengths(
        lengths, full, full > lengths
    )


def encode_texts(
    firsts: list[str], seconds: list[str] | None, tokenizer: Any, max_length: int
) -> tuple[dict[str, NDArray[np.int32]], RowLengths]:
    """Token ids of texts, or of text pairs, flat over all rows; how long each row is, and was.

    Args:
        seconds: the second text of each pair; joined to the first by a line break where the tokenizer knows no pairs.
    """
    if seconds is not None and not takes_pairs(tokenizer):
        firsts, seconds = (
            [f"{first}\n{second}" for first, second in zip(firsts, seconds, strict=True)],
            None,
        )
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
    special = tokenizer.num_special_tokens_to_add(pair=False)
    rests = [
        sum(len(part.ids) - special for part in encoding.overflowing) if seconds is None else 0
        for encoding in encoded.encodings
    ]
    return columns, RowLengths(lengths, lengths + rests, truncated)


def takes_pairs(tokenizer: Any) -> bool:
    """Whether the tokenizer marks where the second text of a pair begins (BERT does, GPT-2 and Llama do not)."""
    return bool(
        tokenizer.num_special_tokens_to_add(pair=True)
        > tokenizer.num_special_tokens_to_add(pair=False)
    )


def tokenizer_digest(tokenizer: Any) -> str:
    """Digest of all that decides the token ids of a text, whatever folder the tokenizer was loaded from.

    That is the backend with its vocabulary, rules and added tokens (of tokenizers in Python the files that they would save, and
    their settings), what our own code reads of the tokenizer, the code of a remote tokenizer, and the versions of the libraries.
    """
    import tokenizers
    import transformers

    backend = getattr(tokenizer, "backend_tokenizer", None)
    settings = {name: _plain(getattr(tokenizer, name, None)) for name in SETTINGS}
    parts = [
        transformers.__version__,
        tokenizers.__version__,
        type(tokenizer).__name__,
        settings,
        code_digest(type(tokenizer)),
    ]
    parts.append(_files_and_settings(tokenizer) if backend is None else untouched(backend).to_str())
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=16).hexdigest()


def _files_and_settings(tokenizer: Any) -> list[Any]:
    """Of a tokenizer in Python: its files, which hold merges and scores too, and the values that its constructor and its user set."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        saved = sorted(
            path
            for path in Path(folder).rglob("*")
            if path.is_file() and path.name != "tokenizer_config.json"
        )
        files = {
            path.name: hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
            for path in saved
        }
    added = {
        number: repr(token) for number, token in sorted(tokenizer.added_tokens_decoder.items())
    }
    values = {
        name: value
        for name, value in vars(tokenizer).items()
        if not name.startswith("_") and not name.endswith(NOT_SETTINGS)
    }
    settings = {
        name: _plain(value)
        for name, value in values.items()
        if isinstance(value, str | int | float | list | tuple | dict | None)
    }
    return [files, added, sorted(tokenizer.get_vocab().items()), settings]


def _plain(value: Any) -> Any:
    """Settings as JSON has them; tokens by all that they say."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return (
        [_plain(inner) for inner in value]
        if isinstance(value, list | tuple)
        else value
        if isinstance(value, bool | int | None)
        else repr(value)
    )


def code_digest(kind: type) -> str:
    """Digest of the Python code that came with a model (`trust_remote_code`); empty for classes of installed libraries."""
    package = kind.__module__.rpartition(".")[0]
    if not kind.__module__.startswith("transformers_modules."):
        return ""
    modules = [
        module for name, module in list(sys.modules.items()) if name.startswith(f"{package}.")
    ]
    files = sorted(
        {str(module.__file__) for module in modules if getattr(module, "__file__", None)}
    )
    return hashlib.blake2b(
        b"".join(Path(file).read_bytes() for file in files), digest_size=16
    ).hexdigest()
