"""Place the marks of a search's pictures, in percent of the picture.

The page draws them as SVG of any width, in light or dark colors.
"""

import math
from itertools import pairwise
from typing import Any

from trainer.tuning.space import shown

MARGIN = 0.06
"""Share of an axis beyond its outermost marks."""
MOST_SHOWN = 5
"""Trials that the parallel coordinates draw in color."""


def history(result: dict[str, Any]) -> dict[str, Any]:
    """Return the trials over their numbers, with the best value so far.

    A pruned trial is shown at its last macro F1, if macro F1 is what the search maximises.
    """
    heights = [(trial, _height(result, trial)) for trial in result["trials"]]
    shown_trials = [(trial, value) for trial, value in heights if value is not None]
    low, high, ticks = _axis([value for _, value in shown_trials])
    most = max((each["number"] for each in result["trials"]), default=1)

    def at(number: float) -> float:
        return round(3 + 94 * number / max(1, most), 2)

    marks, steps, best = [], [], -math.inf
    for trial, value in shown_trials:
        x, y = at(trial["number"]), _percent(value, low, high)
        kind = "best" if trial["number"] == result["best"] else trial["state"]
        words = f"trial {trial['number']}: {value:.4f}, {trial['state']}"
        marks.append({"x": x, "y": y, "kind": kind, "words": words})
        if trial["state"] == "complete" and value > best:
            best = value
            steps.append((x, y))
    ends = [x for x, _ in steps[1:]] + [at(most)]
    return {
        "marks": marks,
        "levels": [(x, end, y) for (x, y), end in zip(steps, ends, strict=True)],
        "rises": [(x, before, y) for (_, before), (x, y) in pairwise(steps)],
        "y_ticks": [(_percent(tick, low, high), f"{tick:g}") for tick in ticks],
        "x_ticks": [(at(n), str(n)) for n in sorted({round(most * k / 4) for k in range(5)})],
    }


def _height(result: dict[str, Any], trial: dict[str, Any]) -> float | None:
    if trial["state"] == "pruned" and result["metric"] == "macro_f1" and trial["evaluations"]:
        return float(list(trial["evaluations"].values())[-1])
    return None if trial["value"] is None else float(trial["value"])


def _axis(values: list[float]) -> tuple[float, float, list[float]]:
    """Return the ends of an axis and its round ticks."""
    from matplotlib.ticker import MaxNLocator

    low, high = min(values), max(values)
    margin = MARGIN * (high - low) or 0.01
    low, high = low - margin, high + margin
    ticks = MaxNLocator(nbins=5, steps=[1, 2, 5, 10]).tick_values(low, high)
    return low, high, [round(float(tick), 6) for tick in ticks if low <= tick <= high]


def _percent(value: float, low: float, high: float) -> float:
    """Return the distance from the upper end of an axis, in percent."""
    return round(100 * (high - value) / (high - low), 2)


def parallel(result: dict[str, Any], keys: list[str]) -> dict[str, Any]:
    """Return one line for each complete trial over the axes of the keys and of the metric."""
    trials = [each for each in result["trials"] if each["state"] == "complete"]
    order = sorted(trials, key=lambda each: (-each["value"], each["number"]))
    top = {each["number"]: place for place, each in enumerate(order[:MOST_SHOWN])}
    columns = [_column(key, [each["values"][key] for each in trials], result) for key in keys]
    columns.append(_column(result["metric"], [each["value"] for each in trials], result))
    step = 92 / max(1, len(columns) - 1)
    for place, column in enumerate(columns):
        column["x"] = round(4 + place * step, 2)
    lines = []
    for row, trial in enumerate(trials):
        points = [(column["x"], column["places"][row]) for column in columns]
        rank = top.get(trial["number"])
        lines.append(
            {
                "segments": list(pairwise(points)),
                "kind": "rest" if rank is None else ("first" if rank == 0 else "top"),
                "words": f"trial {trial['number']}: {trial['value']:.4f}",
            }
        )
    return {"axes": columns, "lines": sorted(lines, key=lambda line: line["kind"] != "rest")}


def _column(key: str, values: list[Any], result: dict[str, Any]) -> dict[str, Any]:
    """Return an axis with the place of each value; choices have equal distances."""
    found = result["space"].get(key, {"choices": None, "is_log": False})
    if choices := found["choices"]:
        if all(type(choice) in (int, float) for choice in choices):  # the largest on top
            choices = sorted(choices, reverse=True)
        step = 88 / max(1, len(choices) - 1)
        at = {shown(choice): round(6 + step * place, 2) for place, choice in enumerate(choices)}
        places = [at[shown(value)] for value in values]
        return {"title": key, "places": places, "ticks": [(y, name) for name, y in at.items()]}
    scaled = [math.log(value) if found["is_log"] else value for value in values]
    low, high = min(scaled), max(scaled)
    spread = high - low or 1.0
    places = [round(94 - 88 * (each - low) / spread, 2) for each in scaled]
    ends = [(94, shown(min(values)))] + ([(6, shown(max(values)))] if high > low else [])
    return {"title": key, "places": places, "ticks": ends}
