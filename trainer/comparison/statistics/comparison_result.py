"""The result of comparing strategies, as comparison.json stores it."""

from dataclasses import asdict, dataclass, field
from typing import Any, get_args

from trainer.config.sections.compare import Metric

LABEL_SETS_ALONE = ("micro_f1", "mean_average_precision")
METRICS: tuple[str, ...] = tuple(of for of in get_args(Metric) if of not in LABEL_SETS_ALONE)
"""Metrics that strategies can be compared by, with one label a row; higher is better."""
ALL_METRICS = (*METRICS, "auroc_macro", "ece")
"""Metrics in the result, with one label a row."""
LABEL_SET_METRICS: tuple[str, ...] = tuple(
    of for of in get_args(Metric) if of not in ("balanced_accuracy", "mcc")
)
"""Metrics that strategies can be compared by with several labels a row, and in the result."""


@dataclass(frozen=True)
class Figure:
    """A metric over the seeds; `low` and `high` cover other rows and other seeds.

    With one seed, they cover other rows only, and `seed_deviation` is None.
    """

    mean: float
    seed_deviation: float | None
    of_seeds: list[float]
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """A mean difference over seeds, with its interval; None if nothing varies."""

    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class AgainstBaseline(Difference):
    """The metric minus the baseline's.

    Attributes:
        p: two-sided p value; 1 if nothing varies.
        p_holm: p adjusted for the number of strategies besides the baseline (Holm 1979).
        seed_variance, row_variance: see `Estimate`; their sum is the squared standard error.
        is_reliable: whether p_holm is below 0.05.
    """

    p: float
    p_holm: float
    degrees_of_freedom: float | None
    seed_variance: float
    row_variance: float
    is_reliable: bool


@dataclass(frozen=True)
class AgainstBest(Difference):
    """The metric minus that of the best strategy; the intervals of all pairs are simultaneous."""

    is_distinguishable: bool


@dataclass(frozen=True)
class ClassEffect:
    """F1 and recall of a class, means over seeds; no differences if it has no rows."""

    f1: float
    recall: float
    f1_difference: Difference | None
    recall_difference: Difference | None


@dataclass(frozen=True)
class GroupEffect:
    """Macro F1 of a group of classes, mean over seeds; classes without rows are left out.

    Attributes:
        macro_f1: None if no class has rows.
        difference: minus the baseline's; None for the baseline, or if no class has rows.
    """

    macro_f1: float | None
    difference: Difference | None


@dataclass(frozen=True)
class Strategy:
    """The results of one strategy.

    Attributes:
        differences: metrics minus the baseline's; empty for the baseline.
        against_baseline: None for the baseline.
        against_best: None for the best strategy.
    """

    figures: dict[str, Figure]
    differences: dict[str, Difference]
    against_baseline: AgainstBaseline | None
    against_best: AgainstBest | None
    per_class: dict[str, ClassEffect]
    per_group: dict[str, GroupEffect] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """The results of all strategies on the same rows.

    Attributes:
        best: the strategy with the highest mean, reliable or not; of equal means the baseline.
        num_tests: differences from the baseline that p values are adjusted for.
        support: number of rows of each label.
        groups: {name: labels} of groups of classes, such as the tail.
    """

    metric: str
    baseline: str
    best: str
    level: float
    num_rows: int
    num_tests: int
    num_seeds: int
    labels: list[str]
    support: dict[str, int]
    minority_label: str
    strategies: dict[str, Strategy]
    groups: dict[str, list[str]] = field(default_factory=dict)

    @property
    def others(self) -> dict[str, AgainstBaseline]:
        """Return {strategy: its difference from the baseline}, without the baseline."""
        found = {name: strategy.against_baseline for name, strategy in self.strategies.items()}
        return {name: against for name, against in found.items() if against}

    @property
    def recommended(self) -> str:
        """Return the best of the strategies reliably better than the baseline, or the baseline."""
        better = [name for name, against in self.others.items() if against.is_reliable]
        return max(
            [self.baseline, *better],
            key=lambda name: self.strategies[name].figures[self.metric].mean,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the values for comparison.json."""
        return asdict(self)
