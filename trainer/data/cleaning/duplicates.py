"""Texts that stand several times: conflicting labels, duplicates, and texts shared by given splits.

Every rule works on the 64-bit hash of each text, so that texts stay in the memory-mapped table.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.arrays import Floats, Hashes, Ints
from trainer.data.cleaning.reasons import DUPLICATE, KEPT, OUTVOTED, TIE
from trainer.data.cleaning.text_hashes import repeated
from trainer.data.reading.row_access import take_rows
from trainer.data.reading.source_tables import SLOTS
from trainer.data.reading.sources import Rows
from trainer.data.splitting.times import newest_first

if TYPE_CHECKING:
    from trainer.config.sections.data import CleanSection

EVALUATION = (SLOTS.index("validation"), SLOTS.index("test"))
SAME_WEIGHT = 1e-9
"""Sums of weights that differ by less than this part are equal: 0.1 + 0.2 and 0.15 + 0.15 differ in the last bit."""


def settle_repeats(
    reasons_N: NDArray[np.int8],
    label_ids_N: Ints,
    hashes_N: Hashes,
    slots_N: NDArray[np.int8],
    weights_of: Callable[[Ints], Floats],
    rules: "CleanSection",
    ranks_of: Callable[[Ints], Ints] = np.zeros_like,
) -> None:
    """Conflicts by majority vote, then duplicates kept once; within one config key each, in place. Given validation and test rows
    stay as they are, unless `rules.evaluation` is set.

    Legend: M rows whose text stands there several times, R runs of them with one text and one label, G texts.

    Args:
        weights_of: weights of the rows at these positions, NaN where there is none.
        ranks_of: ranks of the rows at these positions; of copies the one of the lowest rank is
            kept, then the first.
    """
    members_M = repeated(hashes_N)
    members_M = members_M[reasons_N[members_M] == KEPT]
    if not rules.evaluation:
        members_M = members_M[~np.isin(slots_N[members_M], EVALUATION)]
    slots_M, hashes_M, label_ids_M = slots_N[members_M], hashes_N[members_M], label_ids_N[members_M]
    order = np.lexsort((members_M, ranks_of(members_M), label_ids_M, hashes_M, slots_M))
    members_M, slots_M, hashes_M, label_ids_M = (
        members_M[order],
        slots_M[order],
        hashes_M[order],
        label_ids_M[order],
    )
    new_text_M = np.r_[True, (np.diff(hashes_M) != 0) | (np.diff(slots_M) != 0)][: len(members_M)]
    new_run_M = new_text_M | np.r_[True, np.diff(label_ids_M) != 0][: len(members_M)]
    if rules.conflicts:
        weights_M = weights_of(members_M)
        weights_M = np.where(np.isnan(weights_M), 0.0, weights_M)
        losses_R = _lost_votes(
            np.cumsum(new_text_M)[new_run_M] - 1, np.cumsum(new_run_M) - 1, weights_M
        )
        losses_M = losses_R[np.cumsum(new_run_M) - 1]
        reasons_N[members_M] = losses_M
    else:
        losses_M = np.full(len(members_M), KEPT, np.int8)
    if rules.duplicates:
        reasons_N[members_M[~new_run_M & (losses_M == KEPT)]] = DUPLICATE


def ranks_of_copies(rows: Rows, ids: Ints) -> Ints:
    """Rank of each row by its time, the newest first, where rows are split by time; then by its
    group and its domain, in the order of their names, missing ones last; then by the order in which
    a row with several labels names them.

    Copies of a text may differ in these; which of them is kept then does not depend on the order of
    the rows.
    """
    names = ["group", "domain", *(["label"] if rows.multi_label else [])]
    copies = take_rows(rows.table.select(names), ids)
    ranks_M = (
        newest_first(take_rows(rows.table.select(["time"]), ids)["time"])
        if "time" in rows.table.column_names
        else np.zeros(len(ids), np.int64)
    )
    for column in copies.columns:
        codes_M = pc.rank(column.combine_chunks(), tiebreaker="dense").to_numpy()
        ranks_M = np.unique(
            ranks_M * (len(ids) + 1) + codes_M.astype(np.int64), return_inverse=True
        )[1].ravel()
    return ranks_M.astype(np.int64)


def _lost_votes(texts_R: Ints, runs_M: Ints, weights_M: Floats) -> NDArray[np.int8]:
    """Reason of each run: the label with the most votes, then with the most weight, is kept; on a tie in both none is.

    Args:
        texts_R: text of each run, in [0, G), sorted.
        runs_M: run of each row.
    """
    order = np.lexsort(
        (weights_M, runs_M)
    )  # one order of the summands, whatever the order of the rows
    votes_R, totals_R = np.bincount(runs_M), np.bincount(runs_M[order], weights_M[order])
    order = np.lexsort((totals_R, votes_R, texts_R))  # the best run of each text comes last
    last_G = np.flatnonzero(np.r_[np.diff(texts_R) != 0, True][: len(texts_R)])
    best_G, second_G = order[last_G], order[np.maximum(last_G - 1, 0)]
    has_second_G = (texts_R[second_G] == texts_R[best_G]) & (second_G != best_G)
    is_close_G = np.isclose(totals_R[second_G], totals_R[best_G], rtol=SAME_WEIGHT, atol=0)
    tied_G = has_second_G & (votes_R[second_G] == votes_R[best_G]) & is_close_G
    reasons_R = np.where(tied_G, TIE, OUTVOTED).astype(np.int8)[texts_R]
    reasons_R[best_G[~tied_G]] = KEPT
    return reasons_R
