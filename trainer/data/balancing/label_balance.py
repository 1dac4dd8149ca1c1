"""Label counts to row indices, for rows with several labels. Legend: N rows, C labels, S strata, R rows of one stratum.

A row belongs to several strata: its labels, or the pairs of its domain with each of its labels (`balance.by_label`). Rows
without a label form a stratum of their own, which never sets what the others come to and is never raised.

Labels that stand together in rows cannot all be given one count. Rows are therefore removed only while no stratum falls
below what is wanted of it, and repeated until every stratum reaches it; those that stand beside rare ones end higher.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from trainer.arrays import Bools, Hashes, Ints
from trainer.config.sections.balancing import PARAMETERS
from trainer.data.balancing.balance import (
    METHODS,
    BalancePlan,
    draw,
    refuse_lost_labels,
    stage_generator,
    wanted_rows,
    warn_of_few_rows,
    warn_of_repeats,
)
from trainer.data.labels.multi_label import NO_LABEL, label_set_ids
from trainer.errors import ConfigError, DataError, listing

MOST_GROWTH = 10
"""A floor that has not been reached when the rows are so many times as many is refused."""


@dataclass(frozen=True)
class Strata:
    """Which strata each row belongs to.

    Attributes:
        members: scipy.sparse.csr_array (N, S), 1 where the row belongs to the stratum; every row belongs to one or more.
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
    """Return the labels as strata, or with `domains` the pairs of domain and label that have rows."""
    from scipy.sparse import csr_array

    rows_M, labels_M = np.nonzero(np.c_[label_matrix_NC, label_matrix_NC.sum(axis=1) == 0])
    names, kinds = [*labels, NO_LABEL], len(labels) + 1
    strata_M = labels_M
    if domains:
        strata_M, names = (
            domains[0][rows_M] * kinds + labels_M,
            [f"{domain} / {name}" for domain in domains[1] for name in names],
        )
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
    """Return the plan of the rows drawn from a training split whose rows may have several labels.

    Args:
        parameter: the method's number, None for its default.
        domains: domain id of each row and the names of the domains that have rows, where domains are balanced.
        by_label: balance the pairs of domain and label.
    Raises:
        DataError: a label without a row, or without one that is drawn.
        ConfigError: `min_share` that the labels cannot have.
    """
    counts_C = label_matrix_NC.sum(axis=0)
    missing = [label for label, count in zip(labels, counts_C, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"the training rows hold no row of {listing(missing)}. Add rows, or list them in data.drop_labels."
        )
    if method == "none":
        return BalancePlan(
            label_matrix_NC,
            row_keys_N,
            partial(_every_row, len(row_keys_N)),
            len(labels),
            seed,
            resample_each_epoch,
        )
    if domains and not by_label:
        counts_S, names = np.bincount(domains[0], minlength=len(domains[1])), domains[1]
        draw_rows = partial(draw, domains[0], row_keys_N, wanted_rows(counts_S, method, parameter))
    else:
        strata = label_strata(label_matrix_NC, labels, domains)
        counts_S, names = strata.counts_S, strata.names
        draw_rows = partial(
            draw_by_labels, strata, _canonical_order(label_matrix_NC, row_keys_N), method, parameter
        )
    plan = BalancePlan(
        label_matrix_NC, row_keys_N, draw_rows, len(labels), seed, resample_each_epoch
    )
    if domains:
        refuse_lost_labels(plan, labels, method)
    smallest = (
        int(counts_S[strata.is_label_S].argmin())
        if not domains or by_label
        else int(counts_S.argmin())
    )
    warn_of_few_rows(
        plan.num_kept,
        len(row_keys_N),
        method,
        names[smallest],
        int(counts_S[smallest]),
        is_label=not domains,
    )
    warn_of_repeats(counts_C, plan.counts_C, labels)
    return plan


def _every_row(num_rows: int, generator: np.random.Generator) -> Ints:
    return np.arange(num_rows)


def _canonical_order(label_matrix_NC: Bools, row_keys_N: Hashes) -> Ints:
    """The rows in an order that the file has no say in."""
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
    """Return the sorted positions of the rows of one epoch; a row may stand there several times.

    Args:
        order_N: the rows in an order of their own, from which the generator draws.
    """
    times_N = np.ones(len(order_N), np.int64)
    ranks_N = np.empty(len(order_N), np.int64)
    ranks_N[order_N] = generator.permutation(len(order_N))
    if parameter is None:
        parameter = PARAMETERS[method].default if method in PARAMETERS else 0.0
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
    """Rows of each stratum wanted of an epoch: as METHODS say of the labels; rows without a label are cut alike, never raised."""
    wanted_S = counts_S.copy()
    labels_S, others_S = counts_S[is_label_S], counts_S[~is_label_S]
    wanted_S[is_label_S] = METHODS[method](labels_S, parameter)
    if method == "undersample":
        wanted_S[~is_label_S] = np.minimum(others_S, int(labels_S.min() * parameter + 1e-9))
    elif method == "power":
        scale = labels_S.sum() / (labels_S.astype(np.float64) ** parameter).sum()
        wanted_S[~is_label_S] = np.minimum(
            others_S,
            np.ceil(scale * others_S.astype(np.float64) ** parameter - 1e-9).astype(np.int64),
        )
    return wanted_S


def _removed(strata: Strata, ranks_N: Ints, least_S: Ints) -> list[int]:
    """Rows that go: each whose strata all have more than the least that they keep.

    Those of the stratum with the largest surplus are asked first, which ends nearest to equal counts.
    """
    surplus_S = strata.counts_S / least_S
    surplus_N = np.maximum.reduceat(surplus_S[strata.members.indices], strata.members.indptr[:-1])
    order_N = np.lexsort((ranks_N, -surplus_N))
    starts, members = strata.members.indptr.tolist(), strata.members.indices.tolist()
    left, removed = (strata.counts_S - least_S).tolist(), []
    for row in order_N.tolist():
        own = members[starts[row] : starts[row + 1]]
        for stratum in own:
            if left[stratum] <= 0:
                break
        else:
            for stratum in own:
                left[stratum] -= 1
            removed.append(row)
    return removed


def _raise_to_share(strata: Strata, times_N: Ints, ranks_N: Ints, min_share: float) -> None:
    """Repeat rows, in place, until every label has `min_share` of all rows.

    Raises:
        ConfigError: a share that they do not reach.
    """
    num_labels = int(strata.is_label_S.sum())
    while True:
        counts_S = strata.members.T @ times_N
        least = int(np.ceil(min_share * times_N.sum() - 1e-9))
        if not (counts_S[strata.is_label_S] < least).any():
            return
        if min_share * num_labels > 1 and times_N.sum() > MOST_GROWTH * len(times_N):
            most = np.floor(1000 / num_labels) / 1000
            raise ConfigError(
                f"balance.min_share is {min_share:g} for each of {num_labels} labels, which repeated rows do not reach."
                f" Set balance.min_share: {most:g} or less, or method: oversample."
            )
        _repeat(
            strata,
            times_N,
            ranks_N,
            np.where(strata.is_label_S, np.maximum(counts_S, least), counts_S),
        )


def _repeat(strata: Strata, times_N: Ints, ranks_N: Ints, wanted_S: Ints) -> None:
    """Repeat rows, in place, until every stratum has the wanted rows, the one furthest behind first.

    No row is repeated more often than its rarest stratum alone would need, so that copies are spread evenly.
    """
    members = strata.members
    counts_S = members.T @ times_N
    if not (counts_S < wanted_S).any():
        return
    needed_S = -(-wanted_S // strata.counts_S)
    most_N = np.maximum.reduceat(needed_S[members.indices], members.indptr[:-1])
    by_stratum = members.tocsc()
    behind = set(np.flatnonzero(counts_S < wanted_S).tolist())
    while behind:
        stratum = max(behind, key=lambda s: (wanted_S[s] - counts_S[s], -s))
        behind.remove(stratum)
        rows_R = by_stratum.indices[by_stratum.indptr[stratum] : by_stratum.indptr[stratum + 1]]
        rows_R = rows_R[np.argsort(ranks_N[rows_R])]
        times_N[rows_R] = _filled(
            members[rows_R], stratum, times_N[rows_R], most_N[rows_R], counts_S, wanted_S
        )


def _filled(
    members: Any, stratum: int, times_R: Ints, most_R: Ints, counts_S: Ints, wanted_S: Ints
) -> Ints:
    """How often each row of a stratum stands in an epoch once it has its wanted rows; the counts are changed in place.

    First come the rows with the fewest strata that have enough already, among them those that were repeated least.
    """
    times_R = times_R.copy()
    while (need := int(wanted_S[stratum] - counts_S[stratum])) > 0:
        enough_R = members @ (counts_S >= wanted_S).astype(np.int64)
        is_open_R = times_R < most_R
        if not is_open_R.any():  # rounding or rows removed before
            most_R = most_R + 1
            continue
        is_best_R = is_open_R & (enough_R == enough_R[is_open_R].min())
        lowest = times_R[is_best_R].min()
        higher_R = times_R[is_best_R & (times_R > lowest)]
        is_best_R &= times_R == lowest
        best_S = members.T @ is_best_R.astype(np.int64)
        behind_S = (counts_S < wanted_S) & (best_S > 0)
        whole = int(((wanted_S - counts_S)[behind_S] // best_S[behind_S]).min())
        whole = min(
            whole,
            int((most_R - times_R)[is_best_R].min()),
            int(higher_R.min() - lowest) if len(higher_R) else whole,
        )
        if whole:
            times_R[is_best_R] += whole
            counts_S += whole * best_S
            continue
        for place in np.flatnonzero(is_best_R)[:need].tolist():
            own = members.indices[members.indptr[place] : members.indptr[place + 1]]
            if (counts_S[own] >= wanted_S[own]).sum() == enough_R[
                place
            ]:  # none of its strata was filled by the rows before it
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
    """Return the sorted positions kept of a pool that is balanced before it is split into train and validation."""
    strata = label_strata(label_matrix_NC, labels)
    order_N = _canonical_order(label_matrix_NC, row_keys_N)
    kept = draw_by_labels(strata, order_N, method, parameter, stage_generator(seed, "pool"))
    smallest = int(label_matrix_NC.sum(axis=0).argmin())
    warn_of_few_rows(
        len(kept), len(order_N), method, labels[smallest], int(label_matrix_NC[:, smallest].sum())
    )
    return kept
