"""Which of several strategies is better on the same rows, and how sure that is. Legend: N rows, C classes, S seeds, K strategies.

The quantity is the difference of a figure between two strategies, mean over seeds, with paired seeds and paired rows; evaluation/crossed.py
says how sure it is. Against the baseline: t tests, adjusted after Holm. Against the best, which is chosen by looking: simultaneous intervals
of all pairs. Intervals are of 95 %, and None where nothing varies and so nothing can be told: both sides equal on every row, or a class of
rows that are all right. Intervals of differences of macro F1 held in simulations, with 5 rows of the rarest class too; one row counts as no
surer than a coin (evaluation/influence.py). Those of one figure near 0 or 1, such as the recall of 10 rows, are too narrow.
"""

from dataclasses import asdict, dataclass
from typing import Any

from trainer.arrays import Floats, Ints
from trainer.comparison.statistics import influence
from trainer.comparison.statistics.crossed import Estimate, all_pairs_quantile, estimate
from trainer.errors import did_you_mean, listing
from trainer.evaluation.intervals import LEVEL, Interval

TITLES = {
    "macro_f1": "macro F1",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "minority_recall": "minority recall",
    "minority_f1": "minority F1",
    "mcc": "MCC",
    "weighted_f1": "weighted F1",
    "auroc_macro": "AUROC",
    "ece": "calibration error",
}
"""Figures in words; all of one label a row."""
METRICS = tuple(TITLES)[:7]
"""Figures that strategies may be compared by; the more, the better."""
LOWEST = {"mcc": -1.0}
"""Of figures that can be less than 0."""
SMALL = 0.005
"""Gains below are called small, however sure they are."""


@dataclass(frozen=True)
class SeedPredictions:
    """What a strategy predicts with each seed, as it counts: after its decision.

    Attributes:
        predicted_SN, p_SNC: label ids; probabilities of each seed, (N, C).
    """

    predicted_SN: Ints
    p_SNC: Floats | list[Any]


@dataclass(frozen=True)
class Figure:
    """A figure over the seeds; `low` and `high` for other rows and other seeds. One seed: for other rows alone, and `seed_deviation` is None."""

    mean: float
    seed_deviation: float | None
    of_seeds: list[float]
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """Less the baseline, mean over seeds; for this figure alone."""

    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class AgainstBaseline(Difference):
    """The metric less the baseline's.

    Attributes:
        p: two-sided; 1 where nothing can be told.
        p_holm: adjusted for the number of strategies that the baseline is compared with (Holm 1979).
        seed_variance, row_variance: see `Estimate`; their sum is the squared standard error.
    """

    p: float
    p_holm: float
    degrees_of_freedom: float | None
    seed_variance: float
    row_variance: float
    is_reliable: bool


@dataclass(frozen=True)
class AgainstBest(Difference):
    """The metric less that of the best; the intervals of all pairs of strategies hold at once."""

    is_distinguishable: bool


@dataclass(frozen=True)
class ClassEffect:
    """F1 and recall of a class, means over seeds; 0 without a difference where it has no rows."""

    f1: float
    recall: float
    f1_difference: Difference | None
    recall_difference: Difference | None


@dataclass(frozen=True)
class Strategy:
    """What is known of a strategy; `against_baseline` is None and `differences` empty for the baseline, `against_best` None for the best."""

    figures: dict[str, Figure]
    differences: dict[str, Difference]
    against_baseline: AgainstBaseline | None
    against_best: AgainstBest | None
    per_class: dict[str, ClassEffect]


@dataclass(frozen=True)
class Comparison:
    """Strategies on the same rows.

    Attributes:
        best: highest mean of the metric, whether or not that is sure; the baseline where it is as high.
        support: rows of each label.
    """

    metric: str
    baseline: str
    best: str
    level: float
    num_rows: int
    num_seeds: int
    labels: list[str]
    support: dict[str, int]
    minority_label: str
    strategies: dict[str, Strategy]

    @property
    def recommended(self) -> str:
        """The highest of the strategies that are reliably better than the baseline, or the baseline."""
        better = [
            name
            for name, found in self.strategies.items()
            if found.against_baseline and found.against_baseline.is_reliable
        ]
        return max(
            [self.baseline, *better],
            key=lambda name: self.strategies[name].figures[self.metric].mean,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as comparison.json holds them."""
        return asdict(self)


def compare(
    label_ids_N: Ints,
    predictions: dict[str, SeedPredictions],
    labels: list[str],
    *,
    minority_label: str,
    metric: str = "macro_f1",
    baseline: str = "none",
) -> Comparison:
    """What can be said of strategies that were judged on the same rows.

    Args:
        label_ids_N: true classes.
        predictions: of each strategy, rows as in `label_ids_N`, the same seeds in the same order.
        metric: one of METRICS.
    Raises:
        ValueError: no row, shapes or label ids that do not fit, seeds that differ in number, unknown names, a minority metric without its rows.
    """
    _check(label_ids_N, predictions, labels, minority_label, metric, baseline)
    names, minority = list(predictions), labels.index(minority_label)
    base = names.index(baseline)
    sample = influence.sample(
        label_ids_N,
        [(found.predicted_SN, found.p_SNC) for found in predictions.values()],
        len(labels),
    )
    values_KS, spread_KSN = sample.figure(metric, minority)
    means_K = values_KS.mean(axis=1)
    best = base if means_K[base] == means_K.max() else int(means_K.argmax())
    from_baseline = against_baseline(
        metric, _less(values_KS, spread_KSN, sample.starts, base), base
    )
    from_best = against_best(metric, values_KS, spread_KSN, sample.starts, best)
    figures: dict[str, list[Figure]] = {}
    differences: dict[str, list[Difference]] = {}
    for title in TITLES:
        values_KS, spread_KSN = sample.figure(title, minority)
        figures[title] = [
            _figure(title, values_S, spread_SN, sample.starts)
            for values_S, spread_SN in zip(values_KS, spread_KSN, strict=True)
        ]
        differences[title] = [
            _difference(title, found) for found in _less(values_KS, spread_KSN, sample.starts, base)
        ]
    support = {label: int((label_ids_N == c).sum()) for c, label in enumerate(labels)}
    per_class = {
        label: _class_effects(sample, c, base, has_rows=support[label] > 0)
        for c, label in enumerate(labels)
    }
    strategies = {
        name: Strategy(
            figures={title: found[k] for title, found in figures.items()},
            differences={}
            if k == base
            else {title: found[k] for title, found in differences.items()},
            against_baseline=from_baseline[k],
            against_best=from_best[k],
            per_class={label: effects[k] for label, effects in per_class.items()},
        )
        for k, name in enumerate(names)
    }
    num_seeds = len(predictions[baseline].predicted_SN)
    return Comparison(
        metric,
        baseline,
        names[best],
        LEVEL,
        len(label_ids_N),
        num_seeds,
        list(labels),
        support,
        minority_label,
        strategies,
    )


def _check(
    label_ids_N: Ints,
    predictions: dict[str, SeedPredictions],
    labels: list[str],
    minority_label: str,
    metric: str,
    baseline: str,
) -> None:
    for what, name, known in (
        ("metric", metric, METRICS),
        ("baseline", baseline, list(predictions)),
        ("minority_label", minority_label, labels),
    ):
        if name not in known:
            raise ValueError(
                f"{what} is '{name}'; known: {listing(known)}.{did_you_mean(name, known)}"
            )
    num_rows, num_classes, num_seeds = (
        len(label_ids_N),
        len(labels),
        len(predictions[baseline].predicted_SN),
    )
    if not num_rows or not num_seeds:
        raise ValueError(f"{num_rows} rows and {num_seeds} seeds: nothing to compare")
    for name, found in predictions.items():
        if len(found.predicted_SN) != num_seeds:
            raise ValueError(
                f"{name} has {len(found.predicted_SN)} seeds and {baseline} {num_seeds}: seeds are paired, leave out those that one of them lacks"
            )
        shape = len(found.p_SNC), *found.p_SNC[0].shape
        if (*found.predicted_SN.shape, num_classes) != shape or shape != (
            num_seeds,
            num_rows,
            num_classes,
        ):
            raise ValueError(
                f"{name}: predictions of shapes {found.predicted_SN.shape} and {shape} for {num_rows} rows and {num_classes} labels"
            )
        if found.predicted_SN.min() < 0 or found.predicted_SN.max() >= num_classes:
            raise ValueError(
                f"{name}: label ids {found.predicted_SN.min()} to {found.predicted_SN.max()} for {num_classes} labels"
            )
    if metric.startswith("minority") and labels.index(minority_label) not in label_ids_N:
        raise ValueError(
            f"no row of '{minority_label}' to compare {metric} on; choose another metric, such as macro_f1"
        )


def _figure(title: str, values_S: Floats, spread_SN: Floats, starts: Ints) -> Figure:
    deviation = float(values_S.std(ddof=1)) if len(values_S) > 1 else None
    found = estimate(values_S, spread_SN, starts)
    return Figure(
        found.value,
        deviation,
        values_S.tolist(),
        *_within(found.interval(), LOWEST.get(title, 0), 1),
    )


def _less(values_KS: Floats, spread_KSN: Floats, starts: Ints, other: int) -> list[Estimate]:
    """Each strategy less the one at `other`."""
    pairs = zip(values_KS - values_KS[other], spread_KSN - spread_KSN[other], strict=True)
    return [estimate(values_S, spread_SN, starts) for values_S, spread_SN in pairs]


def _difference(title: str, found: Estimate, quantile: float | None = None) -> Difference:
    most = 1 - LOWEST.get(title, 0)
    return Difference(found.value, *_within(found.interval(quantile), -most, most))


def _within(
    found: Interval | None, lowest: float, highest: float
) -> tuple[float, float] | tuple[None, None]:
    """An interval cut to what a figure can be."""
    return (max(found[0], lowest), min(found[1], highest)) if found else (None, None)


def against_baseline(metric: str, found: list[Estimate], base: int) -> list[AgainstBaseline | None]:
    """Differences of each strategy from the one at `base`, tested and adjusted; None for itself."""
    from statsmodels.stats.multitest import multipletests  # slow to import

    others = [k for k in range(len(found)) if k != base]
    adjusted = (
        multipletests([found[k].p for k in others], alpha=1 - LEVEL, method="holm")[1]
        if others
        else []
    )
    result: list[AgainstBaseline | None] = [None] * len(found)
    for k, p_holm in zip(others, adjusted, strict=True):
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
    """Differences of each strategy from the one at `best`, with simultaneous intervals; None for itself."""
    quantile = all_pairs_quantile(values_KS, spread_KSN, starts)
    result: list[AgainstBest | None] = []
    for k, less in enumerate(_less(values_KS, spread_KSN, starts, best)):
        found = _difference(metric, less, quantile)
        result.append(
            None
            if k == best
            else AgainstBest(
                **asdict(found), is_distinguishable=found.high is not None and found.high < 0
            )
        )
    return result


def _class_effects(
    sample: influence.Sample, label_id: int, base: int, *, has_rows: bool
) -> list[ClassEffect]:
    """Of each strategy on one class."""
    means, less_base = {}, {}
    for kind in ("f1", "recall"):
        values_KS, spread_KSN = sample.of_class(kind, label_id)
        means[kind] = values_KS.mean(axis=1).tolist()
        found = [
            _difference(kind, less) for less in _less(values_KS, spread_KSN, sample.starts, base)
        ]
        less_base[kind] = [less if has_rows and k != base else None for k, less in enumerate(found)]
    return [
        ClassEffect(*of_strategy)
        for of_strategy in zip(
            means["f1"], means["recall"], less_base["f1"], less_base["recall"], strict=True
        )
    ]


def recommend(comparison: Comparison, seconds: dict[str, float]) -> str:
    """The last line, in words: what to use, what it gains and what it costs; or that no strategy is reliably better than the baseline.

    Args:
        seconds: mean training time of each strategy; those missing are not spoken of.
    """
    strategies, base, chosen, best = (
        comparison.strategies,
        comparison.baseline,
        comparison.recommended,
        comparison.best,
    )
    metric, against = (
        TITLES[comparison.metric],
        {
            name: found.against_baseline
            for name, found in strategies.items()
            if found.against_baseline
        },
    )
    worse = [
        f"{name} is reliably worse ({_signed(found)})"
        for name, found in against.items()
        if _is_worse(found)
    ]
    scope = (
        " (with one seed: for these trainings alone, others may differ)"
        if comparison.num_seeds == 1
        else ""
    )
    none_better = (
        f"No {'strategy is reliably better' if worse else 'reliable difference'} in {metric}{scope}"
    )
    if not against:
        return f"{base} alone was compared: nothing to choose from."
    if chosen != base:
        small = ", a small gain" if against[chosen].difference < SMALL else ""
        gain = f"{chosen}: {_signed(against[chosen], metric)} over {base}{small}{scope}"
        parts = [
            gain,
            *_rivals(comparison),
            *worse,
            *_effects(comparison),
            *_time(comparison, seconds),
        ]
    elif best != base:
        highest = f"{best} is the highest with {_signed(against[best])} over {base} (Holm-adjusted p {against[best].p_holm:.3f})"
        parts = [f"{none_better}: {highest}", *worse, f"{base} is the simplest choice"]
    else:
        parts = [f"{none_better}: {base} is the highest itself, and the simplest choice", *worse]
    return "; ".join([*parts, *_rare(comparison)]) + "."


def _is_worse(found: AgainstBaseline) -> bool:
    return found.is_reliable and found.difference < 0


def _signed(found: Difference, unit: str = "") -> str:
    """'+0.11 macro F1 [0.08, 0.14]'; up to four decimals where two would hide the interval, or a side of 0."""
    values = [value for value in (found.difference, found.low, found.high) if value is not None]
    least = (
        3
        if found.low is not None and found.high is not None and found.high - found.low < 0.02
        else 2
    )
    digits = next(
        (
            digits
            for digits in (2, 3)
            if digits >= least and all(round(value, digits) or not value for value in values)
        ),
        4,
    )
    interval = "" if found.low is None else f" [{found.low:z.{digits}f}, {found.high:z.{digits}f}]"
    return f"{found.difference:+z.{digits}f}{unit and f' {unit}'}{interval}"


def _rivals(comparison: Comparison) -> list[str]:
    """Strategies that might be as good as the recommended one, the baseline and those reliably worse than it apart."""
    base, best, chosen = comparison.baseline, comparison.best, comparison.recommended
    others = {
        name: found for name, found in comparison.strategies.items() if name not in (best, chosen)
    }
    rivals = {
        name: found.against_baseline
        for name, found in others.items()
        if found.against_baseline and not _is_worse(found.against_baseline)
    }
    highest = comparison.strategies[best].against_baseline
    if chosen != best and highest:
        higher = f"{best} is higher ({_signed(highest)}), but not reliably better than {base}"
        return [
            higher,
            *(
                f"{name} is reliably better than {base} too ({_signed(found)})"
                for name, found in rivals.items()
                if found.is_reliable
            ),
        ]
    alike = [
        name
        for name in rivals
        if (found := others[name].against_best) and not found.is_distinguishable
    ]
    return (
        [f"{_and(alike)} {'are' if len(alike) > 1 else 'is'} not distinguishable from it"]
        if alike
        else []
    )


def _and(names: list[str]) -> str:
    """'a, b and c'."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _effects(comparison: Comparison) -> list[str]:
    """What else the recommended strategy changes, where its interval excludes 0."""
    differences = comparison.strategies[comparison.recommended].differences
    accuracy, recall = differences["accuracy"], differences["minority_recall"]
    parts = []
    if (
        recall.low is not None
        and recall.high is not None
        and not recall.low <= 0 <= recall.high
        and comparison.metric != "minority_recall"
    ):
        parts.append(f"recall of {comparison.minority_label} {_signed(recall)}")
    if (
        accuracy.high is not None
        and accuracy.high < 0
        and accuracy.difference <= -0.0005
        and comparison.metric != "accuracy"
    ):
        parts.append(f"costs {-100 * accuracy.difference:.1f} points of accuracy")
    return parts


def _time(comparison: Comparison, seconds: dict[str, float]) -> list[str]:
    """How much longer the recommended strategy trains, where that is known and a fifth or more."""
    ours, theirs = seconds.get(comparison.recommended), seconds.get(comparison.baseline)
    return (
        [f"trains {ours / theirs:.1f} times as long as {comparison.baseline}"]
        if ours and theirs and ours >= 1.2 * theirs
        else []
    )


def _rare(comparison: Comparison) -> list[str]:
    """Classes of a single row, whose F1 is a coin's; the first three by name."""
    rare = [f"'{label}'" for label, rows in comparison.support.items() if rows == 1]
    shown, have = (
        _and([*rare[:3], f"{len(rare) - 3} more"] if len(rare) > 3 else rare),
        "have 1 row each: their" if len(rare) > 1 else "has 1 row: its",
    )
    return [f"{shown} {have} F1 says little"] if rare else []
