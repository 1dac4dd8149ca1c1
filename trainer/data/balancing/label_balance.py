"""Choose the training rows of an epoch if a row may have several labels.

A row belongs to several strata: its labels, or with `balance.by_label` the pairs of its domain and
each of its labels. Rows without a label form a stratum of their own. It never sets the target of
the other strata, and its rows are never repeated.

Labels that occur together cannot all get the same count. Therefore a row is removed only while no
stratum falls below its target, and rows are repeated until every stratum reaches it. Labels that
share rows with rare labels end higher.

Legend: N rows, C labels, S strata, R rows of one stratum.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from trainer.arrays import Bools, Hashes, Ints
from trainer.data.balancing.balance import (
    METHODS,
    BalancePlan,
    draw,
    parameter_of,
    refuse_lost_labels,
    refuse_missing_labels,
    stage_generator,
    wanted_rows,
    warn_of_few_rows,
    warn_of_repeats,
)
from trainer.data.balancing.label_rounds import draw_evenly, drawn_of_strata
from trainer.data.labels.multi_label import NO_LABEL, label_set_ids
from trainer.errors import ConfigError

MOST_GROWTH = 10
"""A `min_share` that is not reached with so many times the rows is refused."""


@dataclass(frozen=True)
class Strata:
    """The strata that each row belongs to.

    Attributes:
        members: scipy.sparse.csr_array (N, S), 1 if the row belongs to the stratum. Every row
            belongs to at least one.
        names: names of the strata.
        is_label_S: False for the strata of rows without a label.
    """

    members: Any
    names: list[str]
    is_label_S: Bools

    @property
    def counts_S(self) -> Ints:
        """Rows of each stratum."""
        return np.bincount(self.members.indices, minlength=len(self.names))


def label_strata(
    label_matrix_NC: Bools, labels: list[str], domains: tuple[Ints, list[str]] | None = None
) -> Strata:
    """Return the labels as strata, or with `domains` the pairs of domain and label with rows."""
    from scipy.sparse import csr_array

    rows_M, strata_M = np.nonzero(np.c_[label_matrix_NC, label_matrix_NC.sum(axis=1) == 0])
    names, kinds = [*labels, NO_LABEL], len(labels) + 1
    if domains:
        strata_M = domains[0][rows_M] * kinds + strata_M
        names = [f"{domain} / {name}" for domain in domains[1] for name in names]
    found, strata_M = np.unique(strata_M, return_inverse=True)
    members = csr_array(
        (np.ones(len(rows_M), np.int64), (rows_M, strata_M)),
        shape=(len(label_matrix_NC), len(found)),
    )
    return Strata(members, [names[s] for s in found], found % kinds < len(labels))


def plan_label_balance(
    label_matrix_NC: Bools,
    row_keys_N: Hashes,
    *,
    labels: list[str],
    method: str,
    parameter: float | None = None,
    seed: int,
    resample_each_epoch: bool = False,
    domains: tuple[Ints, list[str]] | None = None,
    by_label: bool = False,
) -> BalancePlan:
    """Return the plan of a training split whose rows may have several labels.

    Args:
        parameter: the method's number; None for its default.
        domains: domain id of each row and the names of the domains, if domains are balanced.
        by_label: balance the pairs of domain and label.

    Raises:
        DataError: a label has no row, or none that is drawn.
        ConfigError: the labels cannot all have `min_share`.
    """
    natural_C, draws_S = label_matrix_NC.sum(axis=0), None
    refuse_missing_labels(natural_C, labels)
    if method == "none" or (domains and not by_label):
        one_stratum = np.zeros(len(row_keys_N), np.int64), ["all rows"]
        stratum_ids_N, names = domains or one_stratum
        counts_S = np.bincount(stratum_ids_N, minlength=len(names))
        wanted_S = wanted_rows(counts_S, method, parameter)
        draw_rows = partial(draw, stratum_ids_N, row_keys_N, wanted_S)
    else:
        strata = label_strata(label_matrix_NC, labels, domains)
        order_N = _canonical_order(label_matrix_NC, row_keys_N)
        if method == "class_balanced_batches":
            draws_S = drawn_of_strata(strata.counts_S, strata.is_label_S, len(order_N))
            draw_rows = partial(draw_evenly, strata, np.argsort(order_N), draws_S)
        else:
            draw_rows = partial(draw_by_labels, strata, order_N, method, parameter)
        counts_S = strata.counts_S[strata.is_label_S]
        names = [strata.names[s] for s in np.flatnonzero(strata.is_label_S)]
    plan = BalancePlan(
        label_matrix_NC,
        row_keys_N,
        draw_rows,
        len(labels),
        seed,
        resample_each_epoch,
        draws_S=draws_S,
    )
    if domains:
        refuse_lost_labels(plan, labels, method)
    kept = len(np.unique(plan.first))
    warn_of_few_rows(kept, len(row_keys_N), method, counts_S, names, is_label=not domains)
    warn_of_repeats(natural_C, plan.counts_C, labels)
    return plan


def _canonical_order(label_matrix_NC: Bools, row_keys_N: Hashes) -> Ints:
    """Return the rows in an order that does not depend on their order in the file."""
    order_N = np.argsort(row_keys_N, kind="stable")
    if (np.diff(row_keys_N[order_N]) == 0).any():  # one text several times
        return np.lexsort((label_set_ids(label_matrix_NC), row_keys_N))
    return order_N


def draw_by_labels(
    strata: Strata,
    order_N: Ints,
    method: str,
    parameter: float | None,
    generator: np.random.Generator,
) -> Ints:
    """Return the sorted positions of the rows of one epoch; a position may occur several times.

    Args:
        order_N: the rows in an order of their own, from which the generator draws.
    """
    parameter = parameter_of(method, parameter)
    times_N = np.ones(len(order_N), np.int64)
    ranks_N = np.empty(len(order_N), np.int64)
    ranks_N[order_N] = generator.permutation(len(order_N))
    if method == "floor":
        _raise_to_share(strata, times_N, ranks_N, parameter)
    else:
        counts_S = strata.counts_S
        wanted_S = _wanted(counts_S, strata.is_label_S, method, parameter)
        if (wanted_S < counts_S).any():
            times_N[_removed(strata, ranks_N, np.minimum(counts_S, wanted_S))] = 0
        _repeat(strata, times_N, ranks_N, wanted_S)
    return np.repeat(np.arange(len(times_N)), times_N)


def _wanted(counts_S: Ints, is_label_S: Bools, method: str, parameter: float) -> Ints:
    """Return the rows of each stratum that an epoch should see.

    METHODS decide for the labels. Rows without a label are reduced like a label and never repeated.
    """
    wanted_S = counts_S.copy()
    labels_S, others_S = counts_S[is_label_S], counts_S[~is_label_S]
    wanted_S[is_label_S] = METHODS[method](labels_S, parameter)
    if method == "undersample":
        wanted_S[~is_label_S] = np.minimum(others_S, int(labels_S.min() * parameter + 1e-9))
    elif method == "power":
        scale = labels_S.sum() / (labels_S.astype(np.float64) ** parameter).sum()
        share_S = np.ceil(scale * others_S.astype(np.float64) ** parameter - 1e-9)
        wanted_S[~is_label_S] = np.minimum(others_S, share_S.astype(np.int64))
    return wanted_S


def _removed(strata: Strata, ranks_N: Ints, least_S: Ints) -> list[int]:
    """Return the rows to remove: rows whose strata all have more than the least that they keep.

    Rows of the stratum with the largest surplus come first, which ends nearest to equal counts.
    """
    surplus_S = strata.counts_S / least_S
    surplus_N = np.maximum.reduceat(surplus_S[strata.members.indices], strata.members.indptr[:-1])
    order_N = np.lexsort((ranks_N, -surplus_N))
    starts, members = strata.members.indptr.tolist(), strata.members.indices.tolist()
    left, removed = (strata.counts_S - least_S).tolist(), []
    for row in order_N.tolist():
        own = members[starts[row] : starts[row + 1]]
        if all(left[stratum] > 0 for stratum in own):
            for stratum in own:
                left[stratum] -= 1
            removed.append(row)
    return removed


def _raise_to_share(strata: Strata, times_N: Ints, ranks_N: Ints, min_share: float) -> None:
    """Repeat rows, in place, until every label has `min_share` of all rows.

    Raises:
        ConfigError: the labels do not reach this share.
    """
    is_label_S, num_labels = strata.is_label_S, int(strata.is_label_S.sum())
    while True:
        counts_S = strata.members.T @ times_N
        least = int(np.ceil(min_share * times_N.sum() - 1e-9))
        if not (counts_S[is_label_S] < least).any():
            return
        if min_share * num_labels > 1 and times_N.sum() > MOST_GROWTH * len(times_N):
            most = np.floor(1000 / num_labels) / 1000
            raise ConfigError(
                f"balance.min_share is {min_share:g} for each of {num_labels} labels, which"
                " repeated rows do not reach."
                f" Set balance.min_share: {most:g} or less, or method: oversample."
            )
        wanted_S = np.where(is_label_S, np.maximum(counts_S, least), counts_S)
        _repeat(strata, times_N, ranks_N, wanted_S)


def _repeat(strata: Strata, times_N: Ints, ranks_N: Ints, wanted_S: Ints) -> None:
    """Repeat rows, in place, until every stratum has the wanted rows.

    The stratum that lacks most rows comes first. No row is repeated more often than its rarest
    stratum alone would need, so that copies are spread evenly.
    """
    members = strata.members
    counts_S = members.T @ times_N
    is_behind_S = counts_S < wanted_S
    if not is_behind_S.any():
        return
    needed_S = -(-wanted_S // strata.counts_S)
    most_N = np.maximum.reduceat(needed_S[members.indices], members.indptr[:-1])
    by_stratum = members.tocsc()
    while is_behind_S.any():
        lacking_S = np.where(is_behind_S, wanted_S - counts_S, np.iinfo(np.int64).min)
        stratum = int(lacking_S.argmax())
        is_behind_S[stratum] = False
        rows_R = by_stratum.indices[by_stratum.indptr[stratum] : by_stratum.indptr[stratum + 1]]
        rows_R = rows_R[np.argsort(ranks_N[rows_R])]
        times_N[rows_R] = _filled(
            members[rows_R], stratum, times_N[rows_R], most_N[rows_R], counts_S, wanted_S
        )


def _filled(
    members: Any, stratum: int, times_R: Ints, most_R: Ints, counts_S: Ints, wanted_S: Ints
) -> Ints:
    """Return how often an epoch sees each row of a stratum so that it has its wanted rows.

    Rows with the fewest strata that already have enough come first, and among them the rows that
    were repeated least. The counts are changed in place.
    """
    times_R = times_R.copy()
    while (need := int(wanted_S[stratum] - counts_S[stratum])) > 0:
        enough_R = members @ (counts_S >= wanted_S).astype(np.int64)
        is_open_R = times_R < most_R
        if not is_open_R.any():  # because of rounding, or because rows were removed before
            most_R = most_R + 1
            continue
        is_best_R = is_open_R & (enough_R == enough_R[is_open_R].min())
        lowest = times_R[is_best_R].min()
        higher_R = times_R[is_best_R & (times_R > lowest)]
        is_best_R &= times_R == lowest
        best_S = members.T @ is_best_R.astype(np.int64)
        behind_S = (counts_S < wanted_S) & (best_S > 0)
        whole = min(
            int(((wanted_S - counts_S)[behind_S] // best_S[behind_S]).min()),
            int((most_R - times_R)[is_best_R].min()),
            int(higher_R.min(initial=2**62) - lowest),
        )
        if whole:
            times_R[is_best_R] += whole
            counts_S += whole * best_S
            continue
        for place in np.flatnonzero(is_best_R)[:need].tolist():
            own = members.indices[members.indptr[place] : members.indptr[place + 1]]
            # skip the row if the rows before it filled one of its strata
            if (counts_S[own] >= wanted_S[own]).sum() == enough_R[place]:
                times_R[place] += 1
                counts_S[own] += 1
    return times_R


def plan_label_pool(
    label_matrix_NC: Bools,
    row_keys_N: Hashes,
    *,
    labels: list[str],
    method: str,
    parameter: float | None = None,
    seed: int,
) -> Ints:
    """Return sorted positions of the rows kept of a pool that is balanced before it is split."""
    strata = label_strata(label_matrix_NC, labels)
    order_N = _canonical_order(label_matrix_NC, row_keys_N)
    kept = draw_by_labels(strata, order_N, method, parameter, stage_generator(seed, "pool"))
    warn_of_few_rows(len(kept), len(order_N), method, label_matrix_NC.sum(axis=0), labels)
    return kept
