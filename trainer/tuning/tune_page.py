"""Show tuning.json as a page that needs no other file, and as a table in the terminal."""

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from trainer.config.yaml_source import dump_yaml
from trainer.delivery.report import report_page
from trainer.display import pages
from trainer.display.figure_words import TITLES, TITLES_OF_LABELS, has_label_sets
from trainer.display.terminal import console
from trainer.tuning import tune_plots
from trainer.tuning.space import shown, values_words, with_values

NUM_SHOWN = 5
"""Trials in the table of the terminal."""


def ranked(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the complete trials, the best first."""
    complete = [trial for trial in result["trials"] if trial["state"] == "complete"]
    return sorted(complete, key=lambda trial: (-trial["value"], trial["number"]))


def write(result: dict[str, Any], path: Path) -> Path:
    """Write the page of a search and return its path.

    Args:
        result: the values of tuning.json.
        path: tune.html in the folder of the search.
    """
    return report_page.write_page(path, render(result))


def render(result: dict[str, Any]) -> str:
    """Return the page; values and reasons are escaped."""
    keys = list(result["importances"]) or list(result["space"])
    best = result["trials"][result["best"]]
    order = ranked(result)
    strategies = result["held_out"]["strategies"]
    changed = best["values"] if best["number"] else {}
    return pages.template(Path(__file__).with_name("tune_template.html")).render(
        result,
        keys=list(result["space"]),
        searched_metric=result["metric"],
        titles=_titles(result),
        shown=shown,
        order=order,
        others=[trial for trial in result["trials"] if trial["state"] != "complete"],
        figures={
            name: strategy["figures"][result["held_out"]["metric"]]
            for name, strategy in strategies.items()
        },
        against=next((each["against_baseline"] for each in list(strategies.values())[1:]), None),
        history=tune_plots.history(result),
        parallel=tune_plots.parallel(result, keys) if len(order) > 1 else None,
        yaml=dump_yaml(with_values({}, changed)).strip() if changed else "",
        duration=pages.duration(result["seconds"]),
    )


def print_result(result: dict[str, Any]) -> None:
    """Print a table of the best trials and, last, the conclusion."""
    order, counts = ranked(result), result["counts"]
    own = result["trials"][0]
    rows = order[:NUM_SHOWN] + ([own] if own not in order[:NUM_SHOWN] else [])
    table = Table(
        title=f"{result['name']}: the best of {len(result['trials'])} trials by"
        f" {_titles(result)[result['metric']]} on {result['rows']['search']:,} search rows",
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    table.add_column("trial", justify="right")
    table.add_column(_titles(result)[result["metric"]], justify="right", no_wrap=True)
    table.add_column("seconds", justify="right", no_wrap=True)
    table.add_column("values", overflow="fold")
    for trial in rows:
        words = values_words(trial["values"])
        name = "0 (config)" if trial["number"] == 0 else str(trial["number"])
        seconds = pages.short_number(trial["seconds"])
        table.add_row(name, f"{trial['value']:.4f}", seconds, words)
    console.print(table)
    console.print(
        f"{counts['complete']} complete, {counts['pruned']} pruned, {counts['failed']} failed;"
        f" {pages.duration(result['seconds'])} in all.",
        soft_wrap=not console.is_terminal,
    )
    console.print(result["conclusion"], soft_wrap=not console.is_terminal)


def _titles(result: dict[str, Any]) -> dict[str, str]:
    return TITLES_OF_LABELS if has_label_sets(result["held_out"]) else TITLES
