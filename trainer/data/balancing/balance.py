"""Choose the training rows of an epoch from class counts; table METHODS.

A method says how many rows of each stratum an epoch sees; `draw` draws them. Row indices are drawn,
texts are not copied. The functions get the labels of the rows that they may draw from and nothing
else, so validation and test rows cannot get here.

Legend: N rows, C classes, S strata (the classes, or the domains of `balance.by`).
"""

import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from trainer.arrays import Array, Hashes, Ints
from trainer.config.sections.balancing import PARAMETERS
from trainer.data.cleaning.lost_classes import refuse_one_class
from trainer.data.labels.class_order import count_drawn
from trainer.errors import ConfigError, DataError, listing

MOST_REPEATS = 5
"""A warning names rows that an epoch sees more often than this."""
LEAST_KEPT_SHARE, LEAST_KEPT_ROWS = 0.1, 50
"""A warning is given if a method keeps a smaller share of the training rows, or fewer rows."""


def stage_generator(seed: int, *stage: str | int) -> np.random.Generator:
    """Return the random generator of one stage, derived from the run's seed and its name."""
    return np.random.default_rng([seed, *(zlib.crc32(str(part).encode()) for part in stage)])


def keep_counts(counts_S: Ints, _: float) -> Ints:
    """Keep every row once."""
    return counts_S


def undersample(counts_S: Ints, target_ratio: float) -> Ints:
    """Reduce every stratum to at most `target_ratio` times the smallest.

    Source: random undersampling. imbalanced-learn's RandomUnderSampler counts the same way; its
    ratio is the inverse of ours.
    """
    return np.minimum(counts_S, np.floor(counts_S.min() * target_ratio + 1e-9).astype(np.int64))


def oversample(counts_S: Ints, target_ratio: float) -> Ints:
    """Raise every stratum to at least `target_ratio` times the largest.

    Source: random oversampling. For two classes, imbalanced-learn's RandomOverSampler counts the
    same way, except that we round up.
    """
    return np.maximum(counts_S, np.ceil(counts_S.max() * target_ratio - 1e-9).astype(np.int64))


def floor(counts_S: Ints, min_share: float) -> Ints:
    """Raise rare strata together until each has `min_share` of the resulting rows.

    No row is lost. If the k rarest strata are raised to one size r, then
    r = min_share (k r + rows of the others). k is the least number for which no other stratum is
    smaller than r.
    """
    ordered_S = np.sort(counts_S)
    for k in range(len(ordered_S)):
        size = min_share * ordered_S[k:].sum() / (1 - k * min_share)
        if ordered_S[k] >= size - 1e-9:
            break
    wanted_S = np.maximum(counts_S, np.ceil(size - 1e-9).astype(np.int64)) if k else counts_S
    # whole numbers may be a row short
    while (short_S := wanted_S < (min_share - 1e-9) * wanted_S.sum()).any():
        wanted_S = wanted_S + short_S
    return wanted_S


def power(counts_S: Ints, alpha: float) -> Ints:
    """Share out as many rows as there are, in proportion to n^alpha.

    alpha 1 is the natural distribution, 0.5 its square root, 0 a balanced one.

    Source: Mahajan et al. 2018, https://arxiv.org/abs/1805.00932 (square root); Kang et al. 2020,
    https://arxiv.org/abs/1910.09217 (q).
    """
    shares_S = counts_S.astype(np.float64) ** alpha
    exact_S = counts_S.sum() * shares_S / shares_S.sum()
    wanted_S = np.maximum(1, np.floor(exact_S).astype(np.int64))
    missing = counts_S.sum() - wanted_S.sum()
    if missing > 0:  # the largest remainders get the rest
        wanted_S[np.argsort(wanted_S - exact_S, kind="stable")[:missing]] += 1
    return wanted_S


def balance_batches(counts_S: Ints, _: float) -> Ints:
    """Give every class the same number of rows, together about as many as there are.

    The batches then contain every class equally often.

    Source: class-balanced sampling, Kang et al. 2020, https://arxiv.org/abs/1910.09217; here
    within every optimizer step.
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
"""{name: function from (rows of each stratum, parameter) to rows of each stratum in an epoch}."""


def draw(
    stratum_ids_N: Ints, row_keys_N: Hashes, wanted_S: Ints, generator: np.random.Generator
) -> Ints:
    """Return the sorted positions of the wanted rows of each stratum.

    A stratum is repeated as a whole first; the remaining rows are drawn without replacement, in a
    way that does not depend on the order of the rows in the file.
    """
    counts_S = np.bincount(stratum_ids_N, minlength=len(wanted_S))
    if np.array_equal(counts_S, wanted_S):
        return np.arange(len(stratum_ids_N))
    order = np.argsort(stratum_ids_N.astype(np.int32), kind="stable")
    drawn = []
    for stratum, members in enumerate(np.split(order, np.cumsum(counts_S)[:-1])):
        copies, rest = divmod(int(wanted_S[stratum]), len(members))
        drawn += [members] * copies
        if rest:
            members = members[np.argsort(row_keys_N[members], kind="stable")]
            drawn.append(generator.choice(members, size=rest, replace=False, shuffle=False))
    return np.sort(np.concatenate(drawn))


@dataclass(frozen=True)
class BalancePlan:
    """The training rows that each epoch sees.

    Attributes:
        targets: label id of each training row (N,), or which labels it has (N, C).
        row_keys_N: a number that depends on the row's text alone; it makes the draw independent
            of the order of the rows.
        draw_rows: draws the positions of one epoch; a position may occur several times.
        draws_S: draws for each label, then for rows without one, if every step draws the labels of
            multi-label rows equally often. The draws for the first label then come first; all other
            positions are sorted.
    """

    targets: Array
    row_keys_N: Hashes
    draw_rows: Callable[[np.random.Generator], Ints]
    num_labels: int
    seed: int
    resample_each_epoch: bool = False
    balanced_batches: bool = False
    draws_S: Ints | None = None

    def positions(self, epoch: int = 0) -> Ints:
        """Return the positions of the training rows of this epoch; they may repeat."""
        return self._draw(epoch) if self.resample_each_epoch else self.first

    def _draw(self, epoch: int) -> Ints:
        return self.draw_rows(stage_generator(self.seed, "balance", epoch))

    @cached_property
    def first(self) -> Ints:
        """Positions of the training rows of the first epoch; they may repeat."""
        return self._draw(0)

    @cached_property
    def seen(self) -> Ints:
        """Sorted positions of all rows that some epoch may see: the rows to tokenise."""
        return np.arange(len(self.targets)) if self.resample_each_epoch else np.unique(self.first)

    def positions_in_seen(self, epoch: int = 0) -> Ints:
        """Return `positions` as indices into `seen`."""
        return np.searchsorted(self.seen, self.positions(epoch))

    @cached_property
    def counts_C(self) -> Ints:
        """Rows of each class in the first epoch.

        They are the same in every epoch if each row has one label and the strata are the classes.
        """
        return count_drawn(self.targets, self.first, self.num_labels)


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
    """Return the plan of a training split whose rows have one label each.

    Args:
        parameter: the method's number; None for its default.
        domains: stratum id of each row and names of the strata, if not the labels are balanced.

    Raises:
        DataError: a class has no row, or none that is drawn.
        ConfigError: the strata cannot all have `min_share`.
    """
    refuse_missing_labels(np.bincount(train_label_ids_N, minlength=len(labels)), labels)
    refuse_one_class(labels)
    stratum_ids_N, names = domains or (train_label_ids_N, labels)
    counts_S = np.bincount(stratum_ids_N, minlength=len(names))
    wanted_S = wanted_rows(counts_S, method, parameter)
    warn_of_repeats(counts_S, wanted_S, names)
    kept = int(np.minimum(counts_S, wanted_S).sum())
    warn_of_few_rows(kept, len(row_keys_N), method, counts_S, names, is_label=domains is None)
    plan = BalancePlan(
        train_label_ids_N,
        row_keys_N,
        partial(draw, stratum_ids_N, row_keys_N, wanted_S),
        len(labels),
        seed,
        resample_each_epoch,
        balanced_batches=method == "class_balanced_batches",
    )
    if domains:
        refuse_lost_labels(plan, labels, method)
    return plan


def refuse_missing_labels(counts_C: Ints, labels: list[str]) -> None:
    """Raise DataError if a label has no training row."""
    missing = [label for label, count in zip(labels, counts_C, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"the training rows contain no row of {listing(missing)}."
            " Add rows, or list them in data.drop_labels."
        )


def refuse_lost_labels(plan: BalancePlan, labels: list[str], method: str) -> None:
    """Raise DataError if balanced domains leave no row of a label."""
    lost = [label for label, count in zip(labels, plan.counts_C, strict=True) if count == 0]
    if lost:
        raise DataError(
            f"balance.by: method {method} draws no row of {listing(lost)}, because it reduces"
            " domains without looking at labels. Set balance.by_label: true, or method: floor or"
            " oversample."
        )


def parameter_of(method: str, parameter: float | None) -> float:
    """Return the parameter given, else the method's default; 0 if it has none."""
    if parameter is None:
        return PARAMETERS[method].default if method in PARAMETERS else 0.0
    return parameter


def wanted_rows(counts_S: Ints, method: str, parameter: float | None) -> Ints:
    """Return how many rows of each stratum a method wants, if a row belongs to one stratum.

    Raises:
        ConfigError: the strata cannot all have `min_share`.
    """
    parameter = parameter_of(method, parameter)
    if method == "floor" and parameter * len(counts_S) > 1 + 1e-12:
        most = np.floor(1000 / len(counts_S)) / 1000
        raise ConfigError(
            f"balance.min_share is {parameter:g} for each of {len(counts_S)}, together above 1."
            f" Set balance.min_share: {most:g} or less, or method: oversample."
        )
    return METHODS[method](counts_S, parameter)


def warn_of_repeats(counts_S: Ints, wanted_S: Ints, names: list[str]) -> None:
    """Warn about strata whose rows an epoch sees often."""
    often = [
        f"'{names[s]}' {wanted_S[s] / counts_S[s]:.1f} times"
        for s in np.flatnonzero(wanted_S > MOST_REPEATS * counts_S)
    ]
    if often:
        warnings.warn(
            f"balance: some rows are seen often in an epoch: {listing(often)}. The model may"
            " memorise them. Lower the method's target, or add rows.",
            stacklevel=3,
        )


def warn_of_few_rows(
    kept: int,
    total: int,
    method: str,
    counts_S: Ints,
    names: Sequence[str],
    *,
    is_label: bool = True,
) -> None:
    """Warn if a method keeps few of the rows that it gets.

    Args:
        kept: rows that an epoch sees, each counted once.
        is_label: whether the strata are labels, not domains.
    """
    if kept >= total or (kept >= LEAST_KEPT_SHARE * total and kept >= LEAST_KEPT_ROWS):
        return
    count, smallest = int(counts_S.min()), names[int(counts_S.argmin())]
    rows = f"'{smallest}' has {count:,} row{'' if count == 1 else 's'}"
    less = "balance.target_ratio above 1, " if method == "undersample" else ""
    drop = f", or list '{smallest}' in data.drop_labels" if is_label else ""
    warnings.warn(
        f"balance: method {method} keeps only {kept:,} of {total:,} training rows an epoch,"
        f" since {rows}. Set {less}balance.method: oversample, or method: none with"
        f" loss.class_weights: balanced{drop}.",
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
    """Return sorted positions of the rows kept of a pool before it is split (`balance.scope: all`).

    This is the only case in which other rows than training rows are balanced. The pool becomes
    train and validation; the test rows have been taken out before.
    """
    found_S, stratum_ids_N, counts_S = np.unique(
        label_ids_N, return_inverse=True, return_counts=True
    )
    wanted_S = wanted_rows(counts_S, method, parameter)
    kept = draw(stratum_ids_N, row_keys_N, wanted_S, stage_generator(seed, "pool"))
    names = [labels[label_id] for label_id in found_S]
    warn_of_few_rows(len(kept), len(row_keys_N), method, counts_S, names)
    return kept
