"""Where the marks of a comparison's pictures stand, in percent of the picture; the page draws them as SVG of any width, in its light or dark colors."""

import cmath
from dataclasses import dataclass
from itertools import combinations
from typing import Any

MARGIN = 0.07
"""Of an axis beyond its outermost marks."""
SMALLEST = complex(230, 208)
"""Width and height of a scatter on a phone, in pixels: circles that stand apart there do so everywhere."""
CIRCLE = 10
"""Radius in pixels of the scatter's circles, which hold a number."""
ROUNDS = 300
"""After which circles stay where they are; dozens that share a place are apart by then."""


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
    return (f"{value:+,.0f}" if abs(value) >= 100 else f"{value:+.3g}").replace(
        "-", "\N{MINUS SIGN}"
    )


def scale(values: list[float], num_ticks: int) -> Scale:
    """An axis that holds these values and 0, with at most about so many ticks."""
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
    """Strategies whose difference from the baseline is reliable, for other seeds too: of one seed none is. Their marks are filled."""
    if compared["num_seeds"] == 1:
        return set()
    return {
        name
        for name, values in compared["strategies"].items()
        if values["against_baseline"] and values["against_baseline"]["is_reliable"]
    }


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
        seeds = [
            score - base
            for score, base in zip(
                strategies[name]["figures"][metric]["of_seeds"], baseline, strict=True
            )
        ]
        ends = [] if against["low"] is None else [against["low"], against["high"]]
        rows.append({"name": name, "seeds": seeds, "point": against["difference"], "ends": ends})
    axis = scale(
        [value for row in rows for value in (row["point"], *row["ends"], *row["seeds"])], 6
    )
    for row in rows:
        row |= {
            "point": axis.at(row["point"]),
            "ends": [axis.at(end) for end in row["ends"]],
            "seeds": [axis.at(seed) for seed in row["seeds"]],
        }
    return {"rows": rows, "ticks": axis.words, "zero": axis.at(0)}


def scatter(gains: dict[str, float], costs: dict[str, float]) -> dict[str, Any]:
    """Gain, upwards, against cost; both are differences from the baseline, which stands where the lines of 0 cross.

    Of each strategy `at`, where it stands, and `drawn`, where its circle does: moved off those that it would lie on.
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
    """Centres of circles near these places, in percent of the picture, none of which lie on one another or leave it."""
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
