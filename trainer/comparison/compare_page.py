"""What comparison.json says, for people: comparison.html, one page that needs nothing else, and a table in the terminal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from trainer.comparison import compare_plots
from trainer.config.yaml_source import dump_yaml
from trainer.delivery.report import report_page
from trainer.display import pages
from trainer.display.figure_words import (
    LESS_IS_BETTER,
    TITLES,
    baseline_words,
    by_metric,
    p_words,
    spread_words,
)
from trainer.display.shown_classes import MOST_IN_PAGE, worst_and_rarest
from trainer.display.terminal import console
from trainer.run_folder import config_differences

SHOWN = ("accuracy", "macro_f1", "minority_recall", "mcc", "auroc_macro", "ece")
"""Figures beside the one that strategies are chosen by."""

WIDE = 96
"""Columns of a terminal from which on intervals stand in one line."""


def write(result: dict[str, Any], path: Path) -> Path:
    """Write the page of a comparison as the file `path`, whole or not at all; returns it.

    Args:
        result: all of comparison.json.
        path: comparison.html in the folder of the comparison.
    """
    return report_page.write_page(path, render(result))


def render(result: dict[str, Any]) -> str:
    """The page as text; names of strategies and classes, reasons and overrides are escaped."""
    compared = result["validation"]
    order = by_metric(compared)
    others = [name for name in order if name != compared["baseline"]]
    of_baseline = compared["strategies"][compared["baseline"]]["per_class"]
    per_class = {
        label: {"f1": of_baseline[label]["f1"], "support": count}
        for label, count in compared["support"].items()
    }
    shown = worst_and_rarest(
        sorted(compared["labels"], key=lambda label: -compared["support"][label]),
        per_class,
        MOST_IN_PAGE,
    )
    return pages.template(Path(__file__).with_name("compare_template.html")).render(
        result,
        compared=compared,
        order=order,
        others=others,
        titles=TITLES,
        numbers={name: number for number, name in enumerate(order, 1)},
        gap=baseline_words,
        p_words=p_words,
        columns=columns(compared),
        best=best_of(compared),
        sure=compare_plots.sure(compared),
        same=same_with_every_seed(compared),
        seconds_heading=seconds_heading(result),
        forest=compare_plots.forest(compared, others) if others else None,
        heat=_heat(compared, others, shown.labels) if others else None,
        shown=shown,
        costs=_costs(result, order) if others else [],
        unlike_best=[
            name
            for name in order
            if (found := compared["strategies"][name]["against_best"])
            and found["is_distinguishable"]
        ],
        like_best=like_best(compared, order),
        code={
            name: dump_yaml(values).strip() if values else ""
            for name, values in result["overrides"].items()
        },
        quick_order=by_metric(result["quick"]["comparison"]) if result["quick"] else [],
        facts=config_differences.flat(result["environment"]),
        duration=_duration(result["total_seconds"]),
        figures=[
            name
            for name in dict.fromkeys((compared["metric"], *SHOWN, *TITLES))
            if name in compared["strategies"][compared["baseline"]]["figures"]
        ],
    )


def print_comparison(result: dict[str, Any]) -> None:
    """The strategies as a table, the best by the metric first; those that failed; the recommendation as the last line."""
    compared = result["validation"]
    metric, strategies = compared["metric"], compared["strategies"]
    shown = [name for name in ("macro_f1", "accuracy", "minority_recall") if name != metric]
    is_wide = console.width >= WIDE
    title = f"{result['name']}: {len(strategies)} strategies on {compared['num_rows']:,} validation rows, seeds: {compared['num_seeds']}"
    table = Table(
        title=title,
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("strategy", overflow="fold")
    beside = ["rarest recall" if name == "minority_recall" else TITLES[name] for name in shown]
    for heading in (
        TITLES[metric],
        f"less {compared['baseline']}",
        "95\N{NO-BREAK SPACE}% interval",
        *beside,
    ):
        table.add_column(
            heading if is_wide else heading.replace(" ", "\n"), justify="right", no_wrap=True
        )
    table.add_column(seconds_heading(result).replace(" ", "\n", 1), justify="right", no_wrap=True)
    for name in by_metric(compared):
        figures, against = strategies[name]["figures"], strategies[name]["against_baseline"]
        less, _, ends = baseline_words(against).partition(" ")
        ends = ends if is_wide else ends.replace(" ", "\n")
        less += ("*" if against["is_reliable"] else " ") if against else ""
        means = (pages.decimals(figures[figure]["mean"]) for figure in shown)
        table.add_row(
            name,
            spread_words(figures[metric]),
            less,
            ends,
            *means,
            pages.short_number(result["seconds"][name]),
        )
    console.print(table)
    for line in _notes(result):
        console.print(line, soft_wrap=not console.is_terminal)


def _notes(result: dict[str, Any]) -> Iterator[str]:
    """Lines below the table in the terminal."""
    compared, quick = result["validation"], result["quick"]
    if len(compared["strategies"]) > 1:
        star = (
            "* for these trainings alone (one seed)" if compared["num_seeds"] == 1 else "* reliable"
        )
        yield f"{star}: differs from {compared['baseline']} with p below 0.05, adjusted for the number of strategies; an interval is of one comparison alone"
    if result["budget"]["kind"] == "fit":
        yield "seconds of fitting a head; the embedding of the rows, made once for all, is not in them"
    if same := same_with_every_seed(compared):
        yield f"the same with every seed: {', '.join(same)}"
    yield from (
        f"failed: {name}: {reason}"
        for name, reason in (result["failed"] | (quick["failed"] if quick else {})).items()
    )
    if quick:
        yield f"Shortlisted by heads on the frozen encoder: {', '.join(quick['shortlist'])}."
    yield result["recommendation"]


def columns(compared: dict[str, Any]) -> list[str]:
    """Figures of the table beside the metric."""
    return [name for name in SHOWN if name != compared["metric"]]


def best_of(compared: dict[str, Any]) -> dict[str, set[str]]:
    """{figure: strategies with its best mean}."""
    found = {}
    for figure in columns(compared):
        means = {
            name: values["figures"][figure]["mean"]
            for name, values in compared["strategies"].items()
        }
        known = [mean for mean in means.values() if mean is not None]
        best = (min if figure in LESS_IS_BETTER else max)(known, default=None)
        found[figure] = {name for name, mean in means.items() if mean is not None and mean == best}
    return found


def like_best(compared: dict[str, Any], order: list[str]) -> list[str]:
    """Strategies not told apart from that of the highest mean, by intervals of all pairs or by the sharper test of a strategy against the baseline."""
    best, baseline, strategies = compared["best"], compared["baseline"], compared["strategies"]

    def is_told(name: str) -> bool:
        pair = {name, best} - {baseline}
        tested = strategies[pair.pop()]["against_baseline"] if len(pair) == 1 else None
        return bool(
            strategies[name]["against_best"]["is_distinguishable"]
            or (tested and tested["is_reliable"])
        )

    return [name for name in order if name != best and not is_told(name)]


def same_with_every_seed(compared: dict[str, Any]) -> list[str]:
    """Strategies whose metric no seed changes, as of heads that are fitted to their end on the same rows."""
    figures = {
        name: values["figures"][compared["metric"]]
        for name, values in compared["strategies"].items()
    }
    return [
        name
        for name, figure in figures.items()
        if figure["seed_deviation"] is not None and figure["seed_deviation"] < 1e-9
    ]


def seconds_heading(result: dict[str, Any]) -> str:
    """What the time of a strategy is: of heads the fitting alone, since their embeddings are made once for all."""
    return "seconds of\N{NO-BREAK SPACE}fitting" if result["budget"]["kind"] == "fit" else "seconds"


def _heat(compared: dict[str, Any], others: list[str], labels: list[str]) -> list[dict[str, Any]]:
    """F1 of the baseline and differences from it of some classes; shades from -1 to 1 of the widest difference."""
    strategies, support = compared["strategies"], compared["support"]
    found = {
        name: {
            label: values["f1_difference"]
            for label, values in strategies[name]["per_class"].items()
        }
        for name in others
    }
    widest = (
        max(
            (abs(d["difference"]) for of_class in found.values() for d in of_class.values() if d),
            default=0,
        )
        or 1
    )
    return [
        {
            "label": label,
            "support": support[label],
            "f1": strategies[compared["baseline"]]["per_class"][label]["f1"],
            "cells": [
                d
                and {
                    **d,
                    "shade": d["difference"] / widest,
                    "excludes_0": d["low"] is not None and d["low"] * d["high"] > 0,
                }
                for d in of_label
            ],
        }
        for label, of_label in (
            (label, [found[name][label] for name in others]) for label in labels
        )
    ]


def _costs(result: dict[str, Any], order: list[str]) -> list[dict[str, Any]]:
    """Gain against what it costs, each less the baseline: accuracy, of which balanced accuracy where accuracy is the metric, and time."""
    compared = result["validation"]
    strategies, baseline = compared["strategies"], compared["baseline"]
    against = "balanced_accuracy" if compared["metric"] == "accuracy" else "accuracy"
    gains = {
        name: (strategies[name]["against_baseline"] or {"difference": 0.0})["difference"]
        for name in order
    }
    points = {
        name: 100 * strategies[name]["differences"][against]["difference"]
        if name != baseline
        else 0.0
        for name in order
    }
    seconds = {name: result["seconds"][name] - result["seconds"][baseline] for name in order}
    time = "seconds of fitting" if result["budget"]["kind"] == "fit" else "seconds of training"
    pictures = (
        (f"What it does to {TITLES[against]}", f"points of {TITLES[against]}", points),
        ("What it takes in time", time, seconds),
    )
    return [
        {
            "title": title,
            "x": x,
            "words": _points_words(gains, costs),
            "marks": compare_plots.scatter(gains, costs),
        }
        for title, x, costs in pictures
    ]


def _points_words(gains: dict[str, float], costs: dict[str, float]) -> str:
    """Every point of a scatter, for those who do not see it."""
    return "; ".join(
        f"{name} {compare_plots.signed(gain)} for {compare_plots.signed(costs[name])}"
        for name, gain in gains.items()
    )


def _duration(seconds: float) -> str:
    """A time in words, to the two units that count."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min"
        if hours
        else f"{minutes} min {rest} s"
        if minutes
        else f"{rest} s"
    )
