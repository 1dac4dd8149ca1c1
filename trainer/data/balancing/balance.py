"""Class counts to row indices; table METHODS. Legend: N rows, S strata (the classes, or the domains of `balance.by`).

A method says how many rows of each stratum one epoch sees; one function draws them. Positions into the rows are drawn,
text is never copied. The stage is handed the labels of the rows it may draw from and nothing else, so validation and
test rows cannot arrive here.
"""

import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from trainer.arrays import Array, Hashes, Ints
from trainer.config.sections.balancing import PARAMETERS
from trainer.data.labels.class_order import count_drawn
from trainer.errors import ConfigError, DataError, listing

MOST_REPEATS = 5
"""Rows seen more often than this in one epoch are warned about."""
LEAST_KEPT_SHARE, LEAST_KEPT_ROWS = 0.1, 50
"""A method that keeps less of the training rows, or fewer of them, is warned about."""


def stage_generator(seed: int, *stage: str | int) -> np.random.Generator:
    """Random generator of one stage, derived from the run's seed and the stage's name."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in stage)])


def keep_counts(counts_S: Ints, _: float) -> Ints:
    """Every row once."""
    return counts_S


def undersample(counts_S: Ints, target_ratio: float) -> Ints:
    """The largest stratum at most `target_ratio` times the smallest.

    Source: random undersampling; counts as imbalanced-learn's RandomUnderSampler, which divides where we multiply.
    """
    return np.minimum(counts_S, np.floor(counts_S.min() * target_ratio + 1e-9).astype(np.int64))


def oversample(counts_S: Ints, target_ratio: float) -> Ints:
    """Every stratum at least `target_ratio` times the largest.

    Source: random oversampling; counts as imbalanced-learn's RandomOverSampler for two classes, but for rounding up.
    """
    return np.maximum(counts_S, np.ceil(counts_S.max() * target_ratio - 1e-9).astype(np.int64))


def floor(counts_S: Ints, min_share: float) -> Ints:
    """Every stratum at least `min_share` of the resulting rows; rare strata are raised together, no row is lost.

    With the k rarest raised to one size r, r = min_share (k r + rows of the others); k is the least for which no other
    stratum lies below r.
    """
    ordered_S = np.sort(counts_S)
    for k in range(len(ordered_S)):
        size = min_share * ordered_S[k:].sum() / (1 - k * min_share)
        if ordered_S[k] >= size - 1e-9:
            break
    wanted_S = np.maximum(counts_S, np.ceil(size - 1e-9).astype(np.int64)) if k else counts_S
    while (
        short_S := wanted_S < (min_share - 1e-9) * wanted_S.sum()
    ).any():  # whole numbers may fall short by a row
        wanted_S = wanted_S + short_S
    return wanted_S


def power(counts_S: Ints, alpha: float) -> Ints:
    """As many rows as there are, in shares proportional to n^alpha: 1 natural, 0.5 square root, 0 balanced.

    Source: Mahajan et al. 2018, https://arxiv.org/abs/1805.00932 (square root); Kang et al. 2020, https://arxiv.org/abs/1910.09217 (q).
    """
    shares_S = counts_S.astype(np.float64) ** alpha
    exact_S = counts_S.sum() * shares_S / shares_S.sum()
    wanted_S = np.maximum(1, np.floor(exact_S).astype(np.int64))
    missing = counts_S.sum() - wanted_S.sum()
    if missing > 0:  # the largest remainders take the rest
        wanted_S[np.argsort(wanted_S - exact_S, kind="stable")[:missing]] += 1
    return wanted_S


def balance_batches(counts_S: Ints, _: float) -> Ints:
    """As many rows of every class, together about as many as there are; the batches hold every class equally.

    Source: class-balanced sampling, Kang et al. 2020, https://arxiv.org/abs/1910.09217; here within every optimizer step.
    """
    return np.full(len(counts_S), -(-counts_S.sum() // len(counts_S)), np.int64)


METHODS: dict[str, Callable[[Ints, float], Ints]] = {
    "none": keep_counts,
    "undersample": undersample,
    "oversample": oversample,
    "floor": floor,
    "power": power,
    "class_balanced_batches": balance_batches,
}
"""Ways to choose training rows: (rows of each stratum, the method's parameter) -> rows of each stratum seen in an epoch."""


def draw(
    stratum_ids_N: Ints, row_keys_N: Hashes, wanted_S: Ints, generator: np.random.Generator
) -> Ints:
    """Sorted positions of the wanted rows of each stratum: whole copies first, the rest drawn without replacement."""
    counts_S = np.bincount(stratum_ids_N, minlength=len(wanted_S))
    if np.array_equal(counts_S, wanted_S):
        return np.arange(len(stratum_ids_N))
    order = np.argsort(stratum_ids_N.astype(np.int32), kind="stable")
    drawn = []
    for stratum, members in enumerate(np.split(order, np.cumsum(counts_S)[:-1])):
        copies, rest = divmod(int(wanted_S[stratum]), len(members))
        drawn += [members] * copies
        if rest:
            members = members[
                np.argsort(row_keys_N[members], kind="stable")
            ]  # the order of the file has no say
            drawn.append(generator.choice(members, size=rest, replace=False, shuffle=False))
    return np.sort(np.concatenate(drawn))


@dataclass(frozen=True)
class BalancePlan:
    """Which training rows are seen in each epoch.

    Attributes:
        targets: label id of each training row (N,), or which labels it has (N, C).
        row_keys_N: a number that depends on the row's text alone; makes the draw independent of the order of rows.
        draw_rows: the sorted positions of one epoch, drawn by a generator; a row may stand there several times.
    """

    targets: Array
    row_keys_N: Hashes
    draw_rows: Callable[[np.random.Generator], Ints]
    num_labels: int
    seed: int
    resample_each_epoch: bool = False
    balanced_batches: bool = False

    def positions(self, epoch: int = 0) -> Ints:
        """Sorted positions into the training rows that this epoch sees; a row may stand there several times."""
        return self._draw(epoch) if self.resample_each_epoch else self._first

    def _draw(self, epoch: int) -> Ints:
        return self.draw_rows(stage_generator(self.seed, "balance", epoch))

    @cached_property
    def _first(self) -> Ints:
        return self._draw(0)

    @property
    def num_kept(self) -> int:
        """Training rows that the first epoch sees, each counted once."""
        return int(np.count_nonzero(np.diff(self._first))) + 1 if len(self._first) else 0

    @cached_property
    def seen(self) -> Ints:
        """Sorted positions of the rows that some epoch may see, each once: what has to be tokenised."""
        return np.arange(len(self.targets)) if self.resample_each_epoch else np.unique(self._first)

    def positions_in_seen(self, epoch: int = 0) -> Ints:
        """As `positions`, counted within `seen`."""
        return np.searchsorted(self.seen, self.positions(epoch))

    @cached_property
    def counts_C(self) -> Ints:
        """Rows of each class in the first epoch (with one label a row and strata that are classes, in every epoch)."""
        return count_drawn(self.targets, self._first, self.num_labels)


def plan_balance(
    train_label_ids_N: Ints,
    row_keys_N: Hashes,
    *,
    labels: list[str],
    method: str,
    parameter: float | None = None,
    seed: int,
    resample_each_epoch: bool = False,
    domains: tuple[Ints, list[str]] | None = None,
) -> BalancePlan:
    """Return the plan of the rows drawn from a training split whose rows have one label each.

    Args:
        parameter: the method's number, None for its default.
        domains: stratum id of each row and names of the strata, where not the labels are balanced.
    Raises:
        DataError: no rows, a class without a row, or without one that is drawn.
        ConfigError: `min_share` that the strata together exceed.
    """
    counts_C = (
        np.bincount(train_label_ids_N, minlength=len(labels))
        if len(train_label_ids_N)
        else np.zeros(len(labels), int)
    )
    missing = [label for label, count in zip(labels, counts_C, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"the training rows hold no row of {listing(missing)}. Add rows, or list them in data.drop_labels."
        )
    if (counts_C > 0).sum() < 2:
        raise DataError(
            f"the training rows hold one class only, '{labels[0]}'; a classifier needs two."
        )
    stratum_ids_N, names = (train_label_ids_N, labels) if domains is None else domains
    counts_S = np.bincount(stratum_ids_N, minlength=len(names))
    wanted_S = wanted_rows(counts_S, method, parameter)
    warn_of_repeats(counts_S, wanted_S, names)
    smallest, kept = int(counts_S.argmin()), int(np.minimum(counts_S, wanted_S).sum())
    warn_of_few_rows(
        kept,
        len(row_keys_N),
        method,
        names[smallest],
        int(counts_S[smallest]),
        is_label=domains is None,
    )
    plan = BalancePlan(
        train_label_ids_N,
        row_keys_N,
        partial(draw, stratum_ids_N, row_keys_N, wanted_S),
        len(labels),
        seed,
        resample_each_epoch,
        balanced_batches=method == "class_balanced_batches",
    )
    if domains is not None:
        refuse_lost_labels(plan, labels, method)
    return plan


def refuse_lost_labels(plan: BalancePlan, labels: list[str], method: str) -> None:
    """Raises DataError when balanced domains leave no row of a label."""
    lost = [label for label, count in zip(labels, plan.counts_C, strict=True) if count == 0]
    if lost:
        words = f"balance.by: method {method} draws no row of {listing(lost)}, since domains are cut whatever their labels"
        raise DataError(f"{words}. Set balance.by_label: true, or method: floor or oversample.")


def wanted_rows(counts_S: Ints, method: str, parameter: float | None) -> Ints:
    """Return how many rows of each stratum a method wants, where a row belongs to one stratum.

    Raises:
        ConfigError: `min_share` that the strata together exceed.
    """
    if parameter is None:
        parameter = PARAMETERS[method].default if method in PARAMETERS else 0.0
    if method == "floor" and parameter * len(counts_S) > 1 + 1e-12:
        most = np.floor(1000 / len(counts_S)) / 1000
        raise ConfigError(
            f"balance.min_share is {parameter:g} for each of {len(counts_S)}, together above 1. Set balance.min_share: {most:g} or less, or method: oversample."
        )
    return METHODS[method](counts_S, parameter)


def warn_of_repeats(counts_S: Ints, wanted_S: Ints, names: list[str]) -> None:
    """Warn of strata whose rows are seen often in an epoch."""
    often = [
        f"'{names[s]}' {wanted_S[s] / counts_S[s]:.1f} times"
        for s in np.flatnonzero(wanted_S > MOST_REPEATS * counts_S)
    ]
    if often:
        words = f"balance: rows of some are seen often in an epoch: {listing(often)}; the model may learn them by heart"
        warnings.warn(f"{words}. Ask less of the method, or add rows.", stacklevel=3)


def warn_of_few_rows(
    kept: int, total: int, method: str, smallest: str, count: int, *, is_label: bool = True
) -> None:
    """Warn where a method keeps few of the rows that it was given.

    Args:
        kept: rows that an epoch sees, each counted once.
        smallest: name of the smallest label or domain, which has `count` rows.
        is_label: whether it is a label.
    """
    if kept >= total or (kept >= LEAST_KEPT_SHARE * total and kept >= LEAST_KEPT_ROWS):
        return
    rows = f"'{smallest}' has {count:,} row{'' if count == 1 else 's'}"
    less = "Set balance.target_ratio above 1, " if method == "undersample" else "Set "
    drop = f", or list '{smallest}' in data.drop_labels" if is_label else ""
    warnings.warn(
        f"balance: method {method} keeps only {kept:,} of {total:,} training rows an epoch, since {rows}."
        f" {less}balance.method: oversample, or method: none with loss.class_weights: balanced{drop}.",
        stacklevel=3,
    )


def plan_pool(
    label_ids_N: Ints,
    row_keys_N: Hashes,
    *,
    labels: list[str],
    method: str,
    parameter: float | None = None,
    seed: int,
) -> Ints:
    """Sorted positions kept of the whole pool before it is split into train and validation (`balance.scope: all`).

    The one exception to 'only training rows are balanced'; test rows have been split off before.
    """
    found_S, stratum_ids_N, counts_S = np.unique(
        label_ids_N, return_inverse=True, return_counts=True
    )
    kept = draw(
        stratum_ids_N,
        row_keys_N,
        wanted_rows(counts_S, method, parameter),
        stage_generator(seed, "pool"),
    )
    smallest = int(counts_S.argmin())
    warn_of_few_rows(
        len(kept), len(row_keys_N), method, labels[found_S[smallest]], int(counts_S[smallest])
    )
    return kept
