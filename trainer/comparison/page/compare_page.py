"""Show comparison.json as a page that needs no other file, and as a table in the terminal."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from trainer.comparison.page import compare_plots, tuned_table
from trainer.comparison.strategies import WITH_THRESHOLDS
from trainer.config.yaml_source import dump_yaml
from trainer.delivery.report import report_page
from trainer.display import pages
from trainer.display.figure_words import (
    LESS_IS_BETTER,
    TITLES,
    TITLES_OF_LABELS,
    baseline_words,
    by_metric,
    has_label_sets,
    p_words,
    spread_words,
)
from trainer.display.shown_classes import MOST_IN_PAGE, worst_and_rarest
from trainer.display.terminal import console
from trainer.run_folder import config_differences

SHOWN = {
    False: ("accuracy", "macro_f1", "minority_recall", "mcc", "auroc_macro", "ece"),
    True: ("macro_f1", "micro_f1", "mean_average_precision", "minority_recall", "accuracy"),
}
"""{whether rows have several labels: metrics beside the one that strategies are compared by}."""
SHOWN_IN_TERMINAL = {
    False: ("macro_f1", "accuracy", "minority_recall"),
    True: ("macro_f1", "micro_f1", "minority_recall"),
}

WIDE = 96
"""Columns of a terminal from which an interval fits on one line."""


def write(result: dict[str, Any], path: Path) -> Path:
    """Write the page of a comparison and return its path.

    Args:
        result: the values of comparison.json.
        path: comparison.html in the folder of the comparison.
    """
    return report_page.write_page(path, render(result))


def render(result: dict[str, Any]) -> str:
    """Return the page; names of strategies and classes, reasons and settings are escaped."""
    compared, quick, tune = result["validation"], result["quick"], result["tune"]
    order, baseline, strategies = by_metric(compared), compared["baseline"], compared["strategies"]
    others = [name for name in order if name != baseline]
    shown = _shown_classes(compared)
    known, is_multi_label = strategies[baseline]["figures"], has_label_sets(compared)
    return pages.template(Path(__file__).with_name("compare_template.html")).render(
        result,
        compared=compared,
        order=order,
        others=others,
        is_multi_label=is_multi_label,
        kind="label" if is_multi_label else "class",
        kinds="labels" if is_multi_label else "classes",
        with_thresholds=WITH_THRESHOLDS,
        has_thresholds=any(name.endswith(WITH_THRESHOLDS) for name in order),
        titles=TITLES_OF_LABELS if is_multi_label else TITLES,
        numbers={name: number for number, name in enumerate(order, 1)},
        gap=baseline_words,
        p_words=p_words,
        columns=columns(compared),
        best=best_of(compared),
        sure=compare_plots.sure(compared),
        is_tie=len(
            {values["figures"][compared["metric"]]["mean"] for values in strategies.values()}
        )
        == 1,
        same=same_with_every_seed(compared),
        seconds_heading=seconds_heading(result),
        forest=compare_plots.forest(compared, others) if others else None,
        heat=_heat(compared, others, shown.labels) if others else None,
        group_heat=_group_heat(compared, others) if others else [],
        shown=shown,
        costs=_costs(result, order) if others else [],
        unlike_best=[
            name
            for name in order
            if (found := strategies[name]["against_best"]) and found["is_distinguishable"]
        ],
        like_best=like_best(compared, order),
        code={
            name: dump_yaml(values).strip() if values else ""
            for name, values in result["overrides"].items()
        },
        trials=tuned_table.trials(tune, order) if tune else [],
        quick_order=by_metric(quick["comparison"]) if quick else [],
        facts=config_differences.flat(result["environment"]),
        duration=pages.duration(result["total_seconds"]),
        figures=[
            name
            for name in dict.fromkeys((compared["metric"], *SHOWN[is_multi_label], *TITLES))
            if name in known
        ],
    )


def _shown_classes(compared: dict[str, Any]) -> Any:
    """Return the classes of the heat map, those with the most rows first."""
    support = compared["support"]
    of_baseline = compared["strategies"][compared["baseline"]]["per_class"]
    per_class = {
        label: {"f1": of_baseline[label]["f1"], "support": count}
        for label, count in support.items()
    }
    by_support = sorted(compared["labels"], key=lambda label: -support[label])
    return worst_and_rarest(by_support, per_class, MOST_IN_PAGE)


def print_comparison(result: dict[str, Any]) -> None:
    """Print a table of the strategies, the failed ones and, last, the recommendation."""
    compared = result["validation"]
    metric, strategies = compared["metric"], compared["strategies"]
    shown = [name for name in SHOWN_IN_TERMINAL[has_label_sets(compared)] if name != metric]
    is_wide = console.width >= WIDE
    table = Table(
        title=f"{result['name']}: {len(strategies)} strategies on {compared['num_rows']:,} "
        f"compared rows, seeds: {compared['num_seeds']}",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("strategy", overflow="fold")
    headings = [TITLES[metric], f"minus {compared['baseline']}", "95\N{NO-BREAK SPACE}% interval"]
    headings += ["rarest recall" if name == "minority_recall" else TITLES[name] for name in shown]
    for heading in headings:
        heading = heading if is_wide else heading.replace(" ", "\n")
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column(seconds_heading(result).replace(" ", "\n", 1), justify="right", no_wrap=True)
    for name in by_metric(compared):
        figures, against = strategies[name]["figures"], strategies[name]["against_baseline"]
        difference, _, ends = baseline_words(against).partition(" ")
        star = ("*" if against["is_reliable"] else " ") if against else ""
        table.add_row(
            name,
            spread_words(figures[metric]),
            difference + star,
            ends if is_wide else ends.replace(" ", "\n"),
            *(pages.decimals(figures[figure]["mean"]) for figure in shown),
            pages.short_number(result["seconds"][name]),
        )
    console.print(table)
    if result["tune"]:
        tuned_table.print_tuned(result)
    for line in _notes(result):
        console.print(line, soft_wrap=not console.is_terminal)


def _notes(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lines below the table in the terminal."""
    compared, quick = result["validation"], result["quick"]
    if len(compared["strategies"]) > 1:
        is_single = compared["num_seeds"] == 1
        yield (
            f"* {'for these trainings alone (one seed)' if is_single else 'reliable'}: differs "
            f"from {compared['baseline']} with p below 0.05, adjusted for the number of "
            "strategies; an interval covers one comparison"
        )
    if result["budget"]["kind"] == "fit":
        yield "seconds to fit a head, without the time to embed the rows, which happens once"
    if same := same_with_every_seed(compared):
        yield f"the same with every seed: {', '.join(same)}"
    yield f"Selection: {result['selection']['words']}."
    if baseline := result["baseline_training"]:
        yield baseline["words"]
    for name, reason in (result["failed"] | (quick["failed"] if quick else {})).items():
        yield f"failed: {name}: {reason}"
    if quick:
        yield f"Shortlisted by heads on the frozen encoder: {', '.join(quick['shortlist'])}."
    if result["tune"]:
        yield result["tune"]["words"]
    yield result["recommendation"]


def columns(compared: dict[str, Any]) -> list[str]:
    """Return the metrics in the table beside the one that strategies are compared by."""
    return [name for name in SHOWN[has_label_sets(compared)] if name != compared["metric"]]


def best_of(compared: dict[str, Any]) -> dict[str, set[str]]:
    """Return {metric: strategies with the best mean}; none is best where all are equal."""
    found = {}
    for figure in columns(compared):
        means = {
            name: values["figures"][figure]["mean"]
            for name, values in compared["strategies"].items()
        }
        known = [mean for mean in means.values() if mean is not None]
        best = (min if figure in LESS_IS_BETTER else max)(known, default=None)
        first = {name for name, mean in means.items() if mean is not None and mean == best}
        found[figure] = first if len(first) < len(means) else set()
    return found


def like_best(compared: dict[str, Any], order: list[str]) -> list[str]:
    """Return the strategies that no test distinguishes from the one with the highest mean.

    The tests are the intervals of all pairs and, for pairs with the baseline, Holm's.
    """
    best, baseline, strategies = compared["best"], compared["baseline"], compared["strategies"]

    def is_different(name: str) -> bool:
        other = {name, best} - {baseline}
        tested = strategies[other.pop()]["against_baseline"] if len(other) == 1 else None
        is_reliable = bool(tested and tested["is_reliable"])
        return is_reliable or strategies[name]["against_best"]["is_distinguishable"]

    return [name for name in order if name != best and not is_different(name)]


def same_with_every_seed(compared: dict[str, Any]) -> list[str]:
    """Return the strategies whose metric no seed changes, such as heads fitted on all rows."""
    return [
        name
        for name, values in compared["strategies"].items()
        if (deviation := values["figures"][compared["metric"]]["seed_deviation"]) is not None
        and deviation < 1e-9
    ]


def seconds_heading(result: dict[str, Any]) -> str:
    """Return the heading of the seconds; those of heads do not include the embedding."""
    return "seconds of\N{NO-BREAK SPACE}fitting" if result["budget"]["kind"] == "fit" else "seconds"


def _heat(compared: dict[str, Any], others: list[str], labels: list[str]) -> list[dict[str, Any]]:
    """Return the differences of F1 of some classes."""
    per_class = {name: strategy["per_class"] for name, strategy in compared["strategies"].items()}
    return _shaded(
        {
            label: {
                "support": compared["support"][label],
                "f1": per_class[compared["baseline"]][label]["f1"],
                "differences": [per_class[name][label]["f1_difference"] for name in others],
            }
            for label in compared["labels"]
        },
        labels,
    )


def _group_heat(compared: dict[str, Any], others: list[str]) -> list[dict[str, Any]]:
    """Return the differences of macro F1 of frequent and rare classes; empty without groups."""
    groups, strategies = compared.get("groups", {}), compared["strategies"]
    return _shaded(
        {
            name: {
                "num_classes": len(labels),
                "support": sum(compared["support"][label] for label in labels),
                "f1": strategies[compared["baseline"]]["per_group"][name]["macro_f1"],
                "differences": [strategies[of]["per_group"][name]["difference"] for of in others],
            }
            for name, labels in groups.items()
        },
        list(groups),
    )


def _shaded(found: dict[str, dict[str, Any]], shown: list[str]) -> list[dict[str, Any]]:
    """Return some rows of a heat map; shades are relative to the largest difference of all."""
    differences = [d for row in found.values() for d in row["differences"] if d]
    largest = max((abs(d["difference"]) for d in differences), default=0)

    def shaded(d: dict[str, Any]) -> dict[str, Any]:
        excludes_0 = d["low"] is not None and d["low"] * d["high"] > 0
        return d | {"shade": d["difference"] / (largest or 1), "excludes_0": excludes_0}

    return [
        found[label]
        | {"label": label, "differences": [d and shaded(d) for d in found[label]["differences"]]}
        for label in shown
    ]


def _costs(result: dict[str, Any], order: list[str]) -> list[dict[str, Any]]:
    """Return the scatters of gain against cost in accuracy and in time, minus the baseline's.

    Rows with several labels have micro F1 in place of accuracy. If this is the metric itself,
    balanced accuracy or macro F1 takes its place.
    """
    compared, signed = result["validation"], compare_plots.signed
    strategies, seconds = compared["strategies"], result["seconds"]
    against, other = ("accuracy", "balanced_accuracy")
    if has_label_sets(compared):
        against, other = ("micro_f1", "macro_f1")
    against = other if compared["metric"] == against else against
    zero = {"difference": 0.0}
    gains = {name: (strategies[name]["against_baseline"] or zero)["difference"] for name in order}
    points = {
        name: 100 * strategies[name]["differences"].get(against, zero)["difference"]
        for name in order
    }
    times = {name: seconds[name] - seconds[compared["baseline"]] for name in order}
    is_fit = result["budget"]["kind"] == "fit"
    pictures = (
        (f"Effect on {TITLES[against]}", f"points of {TITLES[against]}", points),
        ("Training time", "seconds of fitting" if is_fit else "seconds of training", times),
    )
    return [
        {
            "title": title,
            "x": x,
            "words": "; ".join(f"{n} {signed(gains[n])} for {signed(costs[n])}" for n in order),
            "marks": compare_plots.scatter(gains, costs),
        }
        for title, x, costs in pictures
    ]
