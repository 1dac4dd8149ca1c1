"""Place the marks of a comparison's pictures, in percent of the picture.

The page draws them as SVG of any width, in light or dark colors.
"""

import cmath
from dataclasses import dataclass
from itertools import combinations
from typing import Any

MARGIN = 0.07
"""Share of an axis beyond its outermost marks."""
SMALLEST = complex(230, 208)
"""Width and height of a scatter on a phone, in pixels. Circles that are separate there are separate
on larger screens."""
CIRCLE = 10
"""Radius of the scatter's numbered circles, in pixels."""
ROUNDS = 300
"""Rounds of moving circles apart; they separate dozens in one place."""


@dataclass(frozen=True)
class Scale:
    """An axis from `low` to `high` with round ticks."""

    low: float
    high: float
    ticks: list[float]

    def at(self, value: float) -> float:
        """Return the position of a value, in percent of the axis."""
        return round(100 * (value - self.low) / (self.high - self.low), 2)

    @property
    def words(self) -> list[tuple[float, str]]:
        """Return (percent, words) of each tick."""
        return [(self.at(tick), signed(tick) if tick else "0") for tick in self.ticks]


def signed(value: float) -> str:
    """Return a number with its sign: an integer from 100 on, or three digits."""
    words = f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.3g}"
    return words.replace("-", "\N{MINUS SIGN}")


def scale(values: list[float], num_ticks: int) -> Scale:
    """Return an axis for some values and 0, with about `num_ticks` ticks at most."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(0.0, *values), max(0.0, *values)
    if high - low < 1e-6:
        low, high = low - 0.01, high + 0.01
    margin = MARGIN * (high - low)
    ticks = MaxNLocator(nbins=num_ticks, steps=[1, 2, 5, 10]).tick_values(low, high)
    return Scale(
        low - margin,
        high + margin,
        [round(float(tick), 9) for tick in ticks if low - margin <= tick <= high + margin],
    )


def sure(compared: dict[str, Any]) -> set[str]:
    """Return the strategies whose difference from the baseline is reliable; with one seed, none.

    Their marks are filled.
    """
    if compared["num_seeds"] == 1:
        return set()
    return {
        name
        for name, values in compared["strategies"].items()
        if values["against_baseline"] and values["against_baseline"]["is_reliable"]
    }


def forest(compared: dict[str, Any], order: list[str]) -> dict[str, Any]:
    """Return points, intervals and single seeds of the differences from the baseline.

    Args:
        compared: 'validation' of comparison.json.
        order: strategies with a difference, in the order of the rows.
    """
    metric, strategies = compared["metric"], compared["strategies"]
    baseline = strategies[compared["baseline"]]["figures"][metric]["of_seeds"]
    rows = []
    for name in order:
        against = strategies[name]["against_baseline"]
        of_seeds = strategies[name]["figures"][metric]["of_seeds"]
        seeds = [score - base for score, base in zip(of_seeds, baseline, strict=True)]
        ends = [] if against["low"] is None else [against["low"], against["high"]]
        rows.append({"name": name, "seeds": seeds, "point": against["difference"], "ends": ends})
    values = [value for row in rows for value in (row["point"], *row["ends"], *row["seeds"])]
    axis = scale(values, 6)
    for row in rows:
        row |= {
            "point": axis.at(row["point"]),
            "ends": [axis.at(end) for end in row["ends"]],
            "seeds": [axis.at(seed) for seed in row["seeds"]],
        }
    return {"rows": rows, "ticks": axis.words, "zero": axis.at(0)}


def scatter(gains: dict[str, float], costs: dict[str, float]) -> dict[str, Any]:
    """Return a scatter of gain (y) against cost (x), both minus the baseline's.

    Each strategy has its position `at`, and the center `drawn` of its circle, which is moved away
    from other circles.
    """
    x, y = scale(list(costs.values()), 4), scale(list(gains.values()), 5)
    places = [complex(x.at(costs[name]), 100 - y.at(gain)) for name, gain in gains.items()]
    return {
        "points": [
            {"name": name, "at": _pair(at), "drawn": _pair(drawn)}
            for name, at, drawn in zip(gains, places, apart(places), strict=True)
        ],
        "x_ticks": x.words,
        "y_ticks": [(round(100 - at, 2), words) for at, words in y.words],
        "zero": (x.at(0), round(100 - y.at(0), 2)),
    }


def apart(places: list[complex]) -> list[complex]:
    """Return centers of circles near some places, in percent, that neither overlap nor leave."""
    spots = [complex(at.real * SMALLEST.real, at.imag * SMALLEST.imag) / 100 for at in places]
    for _ in range(ROUNDS):
        for a, b in combinations(range(len(spots)), 2):
            way = spots[b] - spots[a]
            if (lack := 2 * CIRCLE + 1 - abs(way)) > 0:
                step = (way / abs(way) if abs(way) > 1e-6 else cmath.rect(1, a + b)) * lack / 2
                spots[a], spots[b] = _inside(spots[a] - step), _inside(spots[b] + step)
    return [complex(spot.real / SMALLEST.real, spot.imag / SMALLEST.imag) * 100 for spot in spots]


def _inside(spot: complex) -> complex:
    return complex(
        min(max(spot.real, CIRCLE), SMALLEST.real - CIRCLE),
        min(max(spot.imag, CIRCLE), SMALLEST.imag - CIRCLE),
    )


def _pair(at: complex) -> tuple[float, float]:
    return round(at.real, 2), round(at.imag, 2)
