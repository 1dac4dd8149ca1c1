"""Find the rows without a text or without a label. Legend: N rows."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Bools
from trainer.data.cleaning.reasons import EMPTY, KEPT, UNLABELLED
from trainer.data.labels.label_normalisation import label_key

if TYPE_CHECKING:
    from trainer.config.sections.data import CleanSection

MISSING_TEXTS = ["nan", "NaN", "None", "null", "NULL"]
INVISIBLE = r"^[\s\p{Z}\p{Cc}\p{Cf}]*$"
"""Texts of white space, control and format characters only, such as zero-width spaces."""
RELEASED_CHUNKS = 16
"""Chunks of texts after which their memory is released."""


def missing_value_reasons(
    table: pa.Table, rules: "CleanSection", release: Callable[[], None] = lambda: None
) -> NDArray[np.int8]:
    """Return the reason of each row: kept, empty text or missing label.

    Args:
        release: is called after some chunks, so that the texts of a memory-mapped table do not pile
            up in memory.
    """
    parts: list[Bools] = [np.zeros(0, bool)]
    for number, batch in enumerate(table.select(["text", "text_pair"]).to_batches(), 1):
        parts.append(_has_no_text(batch, rules))
        if number % RELEASED_CHUNKS == 0:
            release()
    reasons_N = np.where(np.concatenate(parts), np.int8(EMPTY), np.int8(KEPT))
    labels = pc.unique(table["label"]).to_pylist()
    blank = [label for label in labels if label is None or not label_key(label)]
    has_no_label_N = pc.is_in(table["label"], value_set=pa.array(blank, pa.string())).to_numpy()
    reasons_N[(reasons_N == KEPT) & has_no_label_N] = UNLABELLED
    return reasons_N


def _has_no_text(batch: pa.RecordBatch, rules: "CleanSection") -> Bools:
    """Return which rows have no text; only short texts and unusual beginnings are searched."""
    raw = batch.column(0).cast(pa.binary())
    first = pc.binary_slice(raw, 0, 1)
    is_odd = pc.or_(pc.less(first, b"!"), pc.greater(first, b"~"))
    is_short = pc.less_equal(pc.binary_length(raw), max(map(len, MISSING_TEXTS)))
    suspects = np.flatnonzero(_mask(pc.fill_null(pc.or_(is_odd, is_short), True)))
    texts, pairs = batch.take(pa.array(suspects)).columns
    is_empty = _mask(pc.and_(_blank(texts), _blank(pairs)))
    if rules.empty:
        is_missing = pc.is_in(texts, value_set=pa.array(MISSING_TEXTS))
        is_empty |= _mask(pc.and_(is_missing, pc.is_null(pairs)))
    else:
        is_empty &= _mask(pc.is_null(texts))  # a missing text cannot be tokenised
    has_no_text = np.zeros(batch.num_rows, bool)
    has_no_text[suspects[is_empty]] = True
    return has_no_text


def _mask(column: pa.BooleanArray) -> Bools:
    return np.asarray(column.to_numpy(zero_copy_only=False), bool)


def _blank(column: Any) -> Any:
    return pc.fill_null(pc.match_substring_regex(column, INVISIBLE), True)
