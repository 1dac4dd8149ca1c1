"""Drop duplicates and conflicting labels: rows with one text, within one config key.

Every rule works on the 64-bit hash of each text, so that texts stay in the memory-mapped table.
Legend: N rows, M rows whose text occurs several times, R runs of these with one text and one label,
G texts.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Floats, Hashes, Ints
from trainer.data.cleaning.reasons import DUPLICATE, KEPT, OUTVOTED, TIE
from trainer.data.cleaning.text_hashes import repeated, run_starts
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.source_tables import SLOTS
from trainer.data.reading.sources import Rows
from trainer.data.splitting.times import newest_first

if TYPE_CHECKING:
    from trainer.config.sections.data import CleanSection

EVALUATION = (SLOTS.index("validation"), SLOTS.index("test"))
SAME_WEIGHT = 1e-9
"""Relative difference below which sums of weights are equal: 0.1 + 0.2 and 0.15 + 0.15 differ."""


def settle_repeats(
    reasons_N: NDArray[np.int8],
    label_ids_N: Ints,
    hashes_N: Hashes,
    slots_N: NDArray[np.int8],
    weights_of: Callable[[Ints], Floats],
    rules: "CleanSection",
    ranks_of: Callable[[Ints], Ints],
) -> None:
    """Settle conflicting labels by majority vote, then keep one of each duplicate, in place.

    Given validation and test rows stay as they are, unless `rules.evaluation` is set.

    Args:
        weights_of: returns the weights of the rows at some positions, NaN where there is none.
        ranks_of: returns the ranks of the rows at some positions. The copy of the lowest rank is
            kept, then the first.
    """
    members_M = repeated(hashes_N)
    members_M = members_M[reasons_N[members_M] == KEPT]
    if not rules.evaluation:
        members_M = members_M[~np.isin(slots_N[members_M], EVALUATION)]
    keys = (label_ids_N[members_M], hashes_N[members_M], slots_N[members_M])
    members_M = members_M[np.lexsort((members_M, ranks_of(members_M), *keys))]
    labels_M, hashes_M, slots_M = label_ids_N[members_M], hashes_N[members_M], slots_N[members_M]
    texts_M = np.cumsum(run_starts(hashes_M, slots_M)) - 1
    is_first_M = run_starts(texts_M, labels_M)
    found_M = np.full(len(members_M), KEPT, np.int8)
    if rules.conflicts:
        runs_M, weights_M = np.cumsum(is_first_M) - 1, weights_of(members_M)
        weights_M = np.where(np.isnan(weights_M), 0.0, weights_M)
        found_M = _lost_votes(texts_M[is_first_M], runs_M, weights_M)[runs_M]
    if rules.duplicates:
        found_M[~is_first_M & (found_M == KEPT)] = DUPLICATE
    reasons_N[members_M] = found_M


def ranks_of_copies(rows: Rows, ids: Ints) -> Ints:
    """Return the rank of each row among copies of its text, so that no order of rows matters.

    Rows are ranked by their time if rows are split by time, the newest first; then by the names of
    their group and their domain, missing ones last; then by the order in which a row with several
    labels names them.
    """
    names = ["group", "domain", *(["label"] if rows.multi_label else [])]
    ranks_M = np.zeros(len(ids), np.int64)
    if "time" in rows.table.column_names:
        ranks_M = newest_first(take_rows(rows.table.select(["time"]), ids)["time"])
    for column in take_rows(rows.table.select(names), ids).columns:
        codes_M = pc.rank(column.combine_chunks(), tiebreaker="dense").to_numpy().astype(np.int64)
        pairs_M = ranks_M * (len(ids) + 1) + codes_M
        ranks_M = np.unique(pairs_M, return_inverse=True)[1].ravel().astype(np.int64)
    return ranks_M


def _lost_votes(texts_R: Ints, runs_M: Ints, weights_M: Floats) -> NDArray[np.int8]:
    """Return the reason of each run: the label with the most votes, then most weight, is kept.

    If two labels tie in both, none is kept.

    Args:
        texts_R: text of each run, in [0, G), sorted.
        runs_M: run of each row.
    """
    order = np.lexsort((weights_M, runs_M))  # weights are summed in one order, whatever the rows'
    votes_R, totals_R = np.bincount(runs_M), np.bincount(runs_M[order], weights_M[order])
    order = np.lexsort((totals_R, votes_R, texts_R))  # the best run of each text comes last
    last_G = np.flatnonzero(np.r_[np.diff(texts_R) != 0, True][: len(texts_R)])
    best_G, second_G = order[last_G], order[np.maximum(last_G - 1, 0)]
    has_second_G = (texts_R[second_G] == texts_R[best_G]) & (second_G != best_G)
    is_close_G = np.isclose(totals_R[second_G], totals_R[best_G], rtol=SAME_WEIGHT, atol=0)
    is_tied_G = has_second_G & (votes_R[second_G] == votes_R[best_G]) & is_close_G
    reasons_R = np.where(is_tied_G, TIE, OUTVOTED).astype(np.int8)[texts_R]
    reasons_R[best_G[~is_tied_G]] = KEPT
    return reasons_R
