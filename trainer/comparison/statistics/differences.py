"""Compare strategies on the same rows: differences, intervals and p values.

Legend: N rows, C classes, S seeds, K strategies.

A difference is the mean over seeds of a metric's difference between two strategies, with paired
seeds and paired rows; variance_components.py gives its variance. Differences from the baseline get
t tests, adjusted by Holm's method. The best strategy is chosen from the data, so differences from
it get simultaneous intervals of all pairs. Intervals are 95 % intervals. They are None if nothing
varies: two strategies agree on every row, or all rows of a class are correct.

In simulations, intervals of differences of macro F1 cover as stated, with 5 rows of the rarest
class too. Intervals of one metric near 0 or 1, such as the recall of 10 rows, are too narrow.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from trainer.arrays import Floats, Ints
from trainer.comparison.statistics import label_set_influence, row_influence
from trainer.comparison.statistics.comparison_result import (
    LABEL_SET_METRICS,
    METRICS,
    AgainstBaseline,
    AgainstBest,
    ClassEffect,
    Comparison,
    Difference,
    Figure,
    GroupEffect,
    Strategy,
)
from trainer.comparison.statistics.variance_components import (
    Estimate,
    all_pairs_quantile,
    estimate,
)
from trainer.errors import did_you_mean, listing
from trainer.evaluation.intervals import LEVEL, Interval
from trainer.extras import require

LOWEST = {"mcc": -1.0}
"""The lowest value of metrics that can be negative."""


@dataclass(frozen=True)
class SeedPredictions:
    """The final predictions of a strategy with each seed.

    Attributes:
        predicted_SN: label ids of each seed; with several labels a row, label sets (S, N, C).
        p_SNC: probabilities (N, C) of each seed.

    Example:
        >>> import numpy as np
        >>> p_SNC = np.array([[[0.9, 0.1], [0.3, 0.7]]])  # one seed, two rows
        >>> SeedPredictions(p_SNC.argmax(axis=-1), p_SNC).predicted_SN
        array([[0, 1]])
    """

    predicted_SN: Ints
    p_SNC: Floats | list[Any]


def compare(
    label_ids_N: Ints,
    predictions: dict[str, SeedPredictions],
    labels: list[str],
    *,
    minority_label: str,
    metric: str = "macro_f1",
    baseline: str = "none",
    groups: Mapping[str, Sequence[str]] | None = None,
    num_left_out: int = 0,
) -> Comparison:
    """Return the comparison of strategies that were evaluated on the same rows.

    Args:
        label_ids_N: true label ids; with several labels a row, label sets (N, C).
        predictions: predictions of each strategy, with the same rows and seeds in the same order.
        labels: the class names, in the order of the label ids.
        minority_label: the class of `minority_recall` and `minority_f1`.
        metric: decides; macro_f1, accuracy, balanced_accuracy, minority_recall, minority_f1, mcc
            or weighted_f1. Several labels a row have micro_f1 and mean_average_precision in place
            of balanced_accuracy and mcc.
        baseline: the strategy that the others are compared with.
        groups: {name: labels} of groups of classes whose macro F1 is compared too.
        num_left_out: strategies that were left out because of these rows; p values are adjusted for
            them too.
    Returns:
        The differences with intervals and p values; `best` and `recommended` name a strategy.
    Raises:
        ValueError: a name is unknown; there are no rows or seeds; shapes, label ids or numbers of
            seeds do not fit; or a minority metric has no rows.

    Example:
        >>> import numpy as np
        >>> label_ids_N = np.repeat([0, 1], 20)
        >>> def seeds(wrong):
        ...     predicted_SN = np.stack([np.where(np.arange(40) % 8 < wrong, 0, label_ids_N)] * 2)
        ...     return SeedPredictions(predicted_SN, np.eye(2)[predicted_SN])
        >>> found = compare(
        ...     label_ids_N, {"none": seeds(4), "weights": seeds(1)}, ["a", "b"], minority_label="b"
        ... )
        >>> found.best
        'weights'
    """
    has_sets = label_ids_N.ndim > 1
    metrics = LABEL_SET_METRICS if has_sets else METRICS
    _check_names(metric, metrics, baseline, minority_label, predictions, labels)
    _check_predictions(label_ids_N, predictions, labels, baseline)
    of_groups = _checked_groups(groups or {}, labels)
    minority = labels.index(minority_label)
    counts_C = (
        label_ids_N.sum(axis=0) if has_sets else np.bincount(label_ids_N, minlength=len(labels))
    )
    support = dict(zip(labels, counts_C.tolist(), strict=True))
    if metric.startswith("minority") and not support[minority_label]:
        raise ValueError(
            f"no row of '{minority_label}' to compare {metric} on; choose another metric, such as "
            "macro_f1"
        )
    names = list(predictions)
    base = names.index(baseline)
    given: list[Any] = [(found.predicted_SN, found.p_SNC) for found in predictions.values()]
    sample = (
        label_set_influence.sample(label_ids_N, given)
        if has_sets
        else row_influence.sample(label_ids_N, given, len(labels))
    )
    values_KS, _ = sample.figure(metric, minority)
    means_K = values_KS.mean(axis=1)
    best = base if means_K[base] == means_K.max() else int(means_K.argmax())
    strategies = _strategies(sample, support, of_groups, metric, minority, base, best, num_left_out)
    return Comparison(
        metric=metric,
        baseline=baseline,
        best=names[best],
        level=LEVEL,
        num_rows=len(label_ids_N),
        num_tests=len(names) - 1 + num_left_out,
        num_seeds=values_KS.shape[1],
        labels=list(labels),
        support=support,
        minority_label=minority_label,
        strategies=dict(zip(names, strategies, strict=True)),
        groups=of_groups,
    )


def _strategies(
    sample: row_influence.Sample,
    support: dict[str, int],
    groups: dict[str, list[str]],
    metric: str,
    minority: int,
    base: int,
    best: int,
    num_left_out: int,
) -> list[Strategy]:
    """Return the results of each strategy, given the indices of the baseline and of the best."""
    figures, differences = {}, {}
    for name in sample.metrics:
        found = sample.figure(name, minority)
        figures[name] = [_figure(name, *of, sample.starts) for of in zip(*found, strict=True)]
        differences[name] = [_difference(name, less) for less in _less(*found, sample.starts, base)]
    values_KS, spread_KSN = sample.figure(metric, minority)
    less_base = _less(values_KS, spread_KSN, sample.starts, base)
    columns = zip(
        _by_strategy(figures),
        [{} if k == base else of for k, of in enumerate(_by_strategy(differences))],
        against_baseline(metric, less_base, base, num_left_out),
        against_best(metric, values_KS, spread_KSN, sample.starts, best),
        strict=True,
    )
    per_class = {
        label: _class_effects(sample, c, base, has_rows=rows > 0)
        for c, (label, rows) in enumerate(support.items())
    }
    place = {label: c for c, label in enumerate(support)}
    per_group = {
        name: _group_effects(
            sample, np.array([place[label] for label in of if support[label]]), base
        )
        for name, of in groups.items()
    }
    effects = zip(
        columns,
        _by_strategy(per_class),
        _by_strategy(per_group) or [{}] * len(values_KS),
        strict=True,
    )
    return [Strategy(*of, by_class, by_group) for of, by_class, by_group in effects]


def _check_names(
    metric: str,
    metrics: Sequence[str],
    baseline: str,
    minority_label: str,
    predictions: dict[str, SeedPredictions],
    labels: list[str],
) -> None:
    for what, name, known in (
        ("metric", metric, metrics),
        ("baseline", baseline, list(predictions)),
        ("minority_label", minority_label, labels),
    ):
        if name not in known:
            raise ValueError(
                f"{what} is '{name}'; known: {listing(known)}.{did_you_mean(name, known)}"
            )


def _checked_groups(groups: Mapping[str, Sequence[str]], labels: list[str]) -> dict[str, list[str]]:
    for name, of in groups.items():
        if unknown := sorted(set(of) - set(labels)):
            raise ValueError(f"groups: '{name}' holds {listing(unknown)}; known: {listing(labels)}")
    return {name: list(of) for name, of in groups.items()}


def _check_predictions(
    label_ids_N: Ints, predictions: dict[str, SeedPredictions], labels: list[str], baseline: str
) -> None:
    num_rows, num_seeds = len(label_ids_N), len(predictions[baseline].predicted_SN)
    if not num_rows or not num_seeds:
        raise ValueError(f"{num_rows} rows and {num_seeds} seeds: nothing to compare")
    for name, found in predictions.items():
        ids_SN, p_SNC = found.predicted_SN, found.p_SNC
        if len(ids_SN) != num_seeds:
            raise ValueError(
                f"{name} has {len(ids_SN)} seeds and {baseline} {num_seeds}; seeds are paired, so "
                "leave out the seeds that one of them lacks"
            )
        shape = len(p_SNC), *p_SNC[0].shape
        ids_shape = ids_SN.shape if label_ids_N.ndim > 1 else (*ids_SN.shape, len(labels))
        if not ids_shape == shape == (num_seeds, num_rows, len(labels)):
            raise ValueError(
                f"{name}: predictions of shapes {ids_SN.shape} and {shape} for {num_rows} rows and "
                f"{len(labels)} labels"
            )
        if ids_SN.min() < 0 or ids_SN.max() >= len(labels):
            raise ValueError(
                f"{name}: label ids {ids_SN.min()} to {ids_SN.max()} for {len(labels)} labels"
            )


def _by_strategy(found: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Turn {name: value of each strategy} into {name: value}, one for each strategy."""
    return [dict(zip(found, of, strict=True)) for of in zip(*found.values(), strict=True)]


def _figure(name: str, values_S: Floats, spread_SN: Floats, starts: Ints) -> Figure:
    deviation = float(values_S.std(ddof=1)) if len(values_S) > 1 else None
    found = estimate(values_S, spread_SN, starts)
    low, high = _within(found.interval(), LOWEST.get(name, 0), 1)
    return Figure(found.value, deviation, values_S.tolist(), low, high)


def _less(values_KS: Floats, spread_KSN: Floats, starts: Ints, other: int) -> list[Estimate]:
    """Return each strategy minus the one at index `other`."""
    pairs = zip(values_KS - values_KS[other], spread_KSN - spread_KSN[other], strict=True)
    return [estimate(values_S, spread_SN, starts) for values_S, spread_SN in pairs]


def _difference(name: str, found: Estimate, quantile: float | None = None) -> Difference:
    most = 1 - LOWEST.get(name, 0)
    return Difference(found.value, *_within(found.interval(quantile), -most, most))


def _within(
    found: Interval | None, lowest: float, highest: float
) -> tuple[float, float] | tuple[None, None]:
    """Return an interval cut to the possible values."""
    return (max(found[0], lowest), min(found[1], highest)) if found else (None, None)


def against_baseline(
    metric: str, found: list[Estimate], base: int, num_left_out: int = 0
) -> list[AgainstBaseline | None]:
    """Return the tested and adjusted differences from the baseline; None for itself.

    Strategies that the same rows left out count as tests that found nothing.
    """
    require("compare", "comparing predictions")
    from statsmodels.stats.multitest import multipletests  # slow to import

    others = [k for k in range(len(found)) if k != base]
    result: list[AgainstBaseline | None] = [None] * len(found)
    if not others:
        return result
    p_values = [found[k].p for k in others] + [1.0] * num_left_out
    adjusted = multipletests(p_values, alpha=1 - LEVEL, method="holm")[1]
    for k, p_holm in zip(others, adjusted, strict=False):
        result[k] = AgainstBaseline(
            **asdict(_difference(metric, found[k])),
            p=found[k].p,
            p_holm=float(p_holm),
            degrees_of_freedom=found[k].degrees_of_freedom if found[k].deviation else None,
            seed_variance=found[k].seed_variance,
            row_variance=found[k].row_variance,
            is_reliable=bool(p_holm < 1 - LEVEL),
        )
    return result


def against_best(
    metric: str, values_KS: Floats, spread_KSN: Floats, starts: Ints, best: int
) -> list[AgainstBest | None]:
    """Return the differences from the best, with simultaneous intervals; None for itself."""
    quantile = all_pairs_quantile(values_KS, spread_KSN, starts)
    result: list[AgainstBest | None] = []
    for less in _less(values_KS, spread_KSN, starts, best):
        found = _difference(metric, less, quantile)
        is_distinguishable = found.high is not None and found.high < 0
        result.append(AgainstBest(**asdict(found), is_distinguishable=is_distinguishable))
    result[best] = None
    return result


def _class_effects(
    sample: row_influence.Sample, label_id: int, base: int, *, has_rows: bool
) -> list[ClassEffect]:
    """Return the effect of each strategy on one class."""
    columns: dict[str, list[Any]] = {}
    for name in ("f1", "recall"):
        values_KS, spread_KSN = sample.of_classes(name, np.array([label_id]))
        columns[name] = values_KS.mean(axis=1).tolist()
        columns[f"{name}_difference"] = [
            _difference(name, less) if has_rows and k != base else None
            for k, less in enumerate(_less(values_KS, spread_KSN, sample.starts, base))
        ]
    return [ClassEffect(**of) for of in _by_strategy(columns)]


def _group_effects(sample: row_influence.Sample, label_ids: Ints, base: int) -> list[GroupEffect]:
    """Return the effect of each strategy on the classes with rows of a group."""
    if not len(label_ids):
        return [GroupEffect(None, None)] * len(sample.of_labels)
    values_KS, spread_KSN = sample.of_classes("f1", label_ids)
    differences = enumerate(_less(values_KS, spread_KSN, sample.starts, base))
    return [
        GroupEffect(
            float(values_KS[k].mean()), None if k == base else _difference("macro_f1", less)
        )
        for k, less in differences
    ]
