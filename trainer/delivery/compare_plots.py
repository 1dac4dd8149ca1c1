"""Where the marks of a comparison's pictures stand, in percent of the picture; the page draws them as SVG of any width, in its light or dark colors."""

from dataclasses import dataclass
from typing import Any

MARGIN = 0.07
"""Of an axis beyond its outermost marks."""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` with round ticks."""

    low: float
    high: float
    ticks: list[float]

    def at(self, value: float) -> float:
        """Percent of the way from low to high."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def words(self) -> list[tuple[float, str]]:
        """(percent, words) of each tick."""
        return [(self.at(tick), signed(tick) if tick else "0") for tick in self.ticks]


def signed(value: float) -> str:
    """A number with its sign: whole from 100 on, else three digits."""
    return (f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.3g}").replace("-", "\N{MINUS SIGN}")


def scale(values: list[float], num_ticks: int) -> Scale:
    """An axis that holds these values and 0, with at most about so many ticks."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(0.0, *values), max(0.0, *values)
    if high - low < 1e-6:
        low, high = low - 0.01, high + 0.01
    margin = MARGIN * (high - low)
    ticks = MaxNLocator(nbins=num_ticks, steps=[1, 2, 5, 10]).tick_values(low, high)
    return Scale(low - margin, high + margin, [round(float(tick), 9) for tick in ticks if low - margin <= tick <= high + margin])


def forest(compared: dict[str, Any], order: list[str]) -> dict[str, Any]:
    """Points, intervals and single seeds of the differences from the baseline on one axis; rows in the order given.

    Args:
        compared: 'validation' of comparison.json.
        order: strategies with a difference.
    """
    metric, strategies = compared["metric"], compared["strategies"]
    baseline = strategies[compared["baseline"]]["figures"][metric]["of_seeds"]
    rows = []
    for name in order:
        against = strategies[name]["against_baseline"]
        seeds = [score - base for score, base in zip(strategies[name]["figures"][metric]["of_seeds"], baseline, strict=True)]
        ends = [] if against["low"] is None else [against["low"], against["high"]]
        rows.append({"name": name, "seeds": seeds, "point": against["difference"], "ends": ends, "is_reliable": against["is_reliable"]})
    axis = scale([value for row in rows for value in (row["point"], *row["ends"], *row["seeds"])], 6)
    for row in rows:
        row |= {"point": axis.at(row["point"]), "ends": [axis.at(end) for end in row["ends"]], "seeds": [axis.at(seed) for seed in row["seeds"]]}
    return {"rows": rows, "ticks": axis.words, "zero": axis.at(0)}


def scatter(gains: dict[str, float], costs: dict[str, float]) -> dict[str, Any]:
    """Points of gain, upwards, against cost; both are differences from the baseline, which stands where the lines of 0 cross."""
    x, y = scale(list(costs.values()), 4), scale(list(gains.values()), 5)
    return {
        "points": [(name, x.at(costs[name]), round(100 - y.at(gain), 2)) for name, gain in gains.items()],
        "x_ticks": x.words,
        "y_ticks": [(round(100 - at, 2), words) for at, words in y.words],
        "zero": (x.at(0), round(100 - y.at(0), 2)),
    }
