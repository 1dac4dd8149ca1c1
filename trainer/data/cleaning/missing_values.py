"""Rows without a text, and rows without a label."""

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
"""Texts of nothing but white space, control characters and format characters such as zero-width spaces."""


RELEASED_CHUNKS = 16
"""Chunks of texts after which their memory is given back."""


def missing_value_reasons(
    table: pa.Table, rules: "CleanSection", release: Callable[[], None] = lambda: None
) -> NDArray[np.int8]:
    """Reason of each row as far as the row alone tells: kept, empty text or missing label.

    Args:
        release: is called now and then, so that the texts of a memory-mapped table do not pile up.
    """
    reasons_N = np.zeros(table.num_rows, np.int8)
    _drop_empty(reasons_N, table, rules, release)
    blank = pa.array(
        [
            label
            for label in pc.unique(table["label"]).to_pylist()
            if label is None or not label_key(label)
        ],
        pa.string(),
    )
    reasons_N[(reasons_N == KEPT) & pc.is_in(table["label"], value_set=blank).to_numpy()] = (
        UNLABELLED
    )
    return reasons_N


def _drop_empty(
    reasons_N: NDArray[np.int8], table: pa.Table, rules: "CleanSection", release: Callable[[], None]
) -> None:
    """Rows without a text, in place; only texts that are short, or begin with what may be invisible, are looked at."""
    start = 0
    for number, batch in enumerate(table.select(["text", "text_pair"]).to_batches()):
        raw = batch.column(0).cast(pa.binary())
        first = pc.binary_slice(raw, 0, 1)
        is_odd = pc.or_(pc.less(first, b"!"), pc.greater(first, b"~"))
        is_short = pc.less_equal(pc.binary_length(raw), max(map(len, MISSING_TEXTS)))
        suspects = np.flatnonzero(
            pc.fill_null(pc.or_(is_odd, is_short), True).to_numpy(zero_copy_only=False)
        )
        texts, pairs = batch.take(pa.array(suspects)).columns
        no_text = _mask(pc.and_(_blank(texts), _blank(pairs)))
        if rules.empty:
            no_text |= _mask(pc.is_in(texts, value_set=pa.array(MISSING_TEXTS))) & _mask(
                pc.is_null(pairs)
            )
        else:
            no_text &= _mask(pc.is_null(texts))  # nothing at all cannot be tokenised
        reasons_N[start + suspects[no_text]] = EMPTY
        start += batch.num_rows
        if number % RELEASED_CHUNKS == RELEASED_CHUNKS - 1:
            release()


def _blank(column: Any) -> Any:
    return pc.or_(
        pc.is_null(column), pc.fill_null(pc.match_substring_regex(column, INVISIBLE), False)
    )


def _mask(column: Any) -> Bools:
    return (
        pc.fill_null(column, False).to_numpy(zero_copy_only=False).astype(bool)
        if isinstance(column, pa.Array)
        else pc.fill_null(column, False).to_numpy()
    )
