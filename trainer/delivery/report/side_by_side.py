"""Compare finished runs in one page and in a table in the terminal, from their folders' files."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from trainer.delivery.report import report_page
from trainer.delivery.report.page_curves import overlays
from trainer.delivery.report.page_intervals import (
    headline_intervals,
    resampled_figures,
    too_small,
)
from trainer.display import pages
from trainer.display.drawing import color_of
from trainer.display.figure_words import LESS_IS_BETTER, TITLES, difference_words
from trainer.display.shown_classes import MOST_IN_PAGE, Shown, worst_and_rarest
from trainer.display.terminal import console
from trainer.errors import RunError, listing
from trainer.evaluation.figure_intervals import LEAST_ROWS
from trainer.evaluation.intervals import Interval, interval
from trainer.run_folder.config_differences import flat
from trainer.run_folder.finished_run import FinishedRun, readable

Difference = tuple[float, Interval | None]
"""Macro F1 less that of the best run, with its 95 % interval."""
PAGE_NAME = "comparison.html"
NOT_SHOWN = ("run.name", "run.output_dir", "run.overwrite", "hub.", "report.", "compare.")
"""Config keys and prefixes of keys that do not affect the results."""


@dataclass(frozen=True)
class Comparison:
    """The comparison of several runs; all lists are in the order of `runs`.

    Attributes:
        runs: the runs, all with the same `split`.
        doubts: reasons why their figures cannot be compared; empty if all have the same rows.
        best: {figure: places of the best runs}; empty if there are doubts.
        intervals: of each run, {figure: 95 % interval}.
        differences: of each run; None for the best run, or if it is unknown.
    """

    runs: list[FinishedRun]
    names: list[str]
    doubts: list[str]
    best: dict[str, set[int]]
    intervals: list[dict[str, Interval | None]]
    differences: list[Difference | None]

    @property
    def figures(self) -> list[str]:
        """Names of the figures that all runs have."""
        kinds = dict.fromkeys(run.figures for run in self.runs)
        return [name for name in next(iter(kinds)) if all(name in kind for kind in kinds)]


def write(runs: list[FinishedRun], output: Path | None = None) -> Path:
    """Print the table and write the page, by default comparison.html; return its path.

    Raises:
        RunError: the runs share no evaluated split, or the path holds another file than a page.
    """
    page = output or Path(PAGE_NAME)
    report_page.check_page(page)
    with readable(*(run.path for run in runs)):
        compared = compare(runs)
        text = render(compared)
    print_comparison(compared)
    return report_page.write_page(page, text)


def compare(runs: list[FinishedRun]) -> Comparison:
    """Compare the figures of runs.

    Raises:
        RunError: the runs share no evaluated split.
    """
    shared = [split for split in ("test", "validation") if all(split in run.splits for run in runs)]
    if not shared:
        raise RunError(
            f"{listing(run.path for run in runs)}: share no evaluated split. Compare runs that have"
            " test rows, or runs that have validation rows."
        )
    runs = [replace(run, split=shared[0]) for run in runs]
    names = _names(runs)
    doubts = _doubts(runs, names)
    intervals = [headline_intervals(run, resampled_figures([run]), 0) for run in runs]
    if doubts:
        return Comparison(runs, names, doubts, {}, intervals, [None] * len(runs))
    best = {
        name: _best([run.final[name] for run in runs], less=name in LESS_IS_BETTER)
        for name in runs[0].figures
        if name != "f1_gap"
    }
    return Comparison(runs, names, [], best, intervals, _differences(runs, min(best["macro_f1"])))


def render(compared: Comparison) -> str:
    """Return the page as text. All values are escaped."""
    from trainer import __version__

    runs = compared.runs
    shown = _shown_classes(runs)
    return pages.template(Path(__file__).with_name("side_by_side_template.html")).render(
        version=__version__,
        compared=compared,
        split=runs[0].split,
        titles=TITLES,
        labels=shown.labels,
        shown=shown.sentence("each metrics.json"),
        per_class=[run.final["per_class"] for run in runs],
        minorities={run.metrics["minority_label"] for run in runs},
        curves=overlays(runs, compared.names),
        keys=[color_of(place) for place in range(len(runs))],
        differing=differing_keys(runs),
        no_means=no_means(runs),
    )


def _shown_classes(runs: list[FinishedRun]) -> Shown:
    """Choose all classes of the runs, or those with the lowest F1 and the fewest rows.

    The scores are those of the first run that has the class.
    """
    per_class: dict[str, Any] = {}
    for run in runs:
        per_class = run.final["per_class"] | per_class
    order = list(dict.fromkeys(label for run in runs for label in run.by_size))
    return worst_and_rarest(order, per_class, MOST_IN_PAGE)


def print_comparison(compared: Comparison) -> None:
    """Print the headline figures, one line per run, with the best marked."""
    headline = ("macro_f1", "accuracy", "balanced_accuracy", "micro_f1")
    shown = [name for name in compared.figures if name in headline]
    title = f"{len(compared.runs)} runs on {compared.runs[0].split}, the best marked *"
    table = Table(title=title, title_justify="left")
    table.add_column("run", overflow="fold", min_width=10)
    for name in shown:
        table.add_column(TITLES[name], justify="right")
        if name == "macro_f1":
            table.add_column("less the best", justify="right")
    for place, run in enumerate(compared.runs):
        figures = [
            f"{run.final[name]:.4f}{'*' if place in compared.best.get(name, ()) else ' '}"
            for name in shown
        ]
        difference = difference_words(compared.differences[place])
        table.add_row(compared.names[place], figures[0], difference, *figures[1:])
    console.print(table)
    for warning in (*compared.doubts, *filter(None, [no_means(compared.runs)])):
        console.print(f"warning: {warning}")


def no_means(runs: list[FinishedRun]) -> str:
    """Say why means over classes have no intervals; empty if every run has them."""
    small = {label for run in runs for label in too_small(run)}
    if not small:
        return ""
    return (
        "macro F1, its differences and balanced accuracy have no intervals where a class has fewer"
        f" than {LEAST_ROWS} rows ({listing(small, 5)}): a small difference may be chance."
    )


def differing_keys(runs: list[FinishedRun]) -> list[tuple[str, list[str]]]:
    """Return (key, value in each run) of config keys that differ and may affect the results."""
    configs = [flat(run.config) for run in runs]
    rows = [
        (key, [_value(config[key]) if key in config else "not set" for config in configs])
        for key in dict.fromkeys(key for config in configs for key in config)
        if not key.startswith(NOT_SHOWN)
    ]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _value(value: Any) -> str:
    """Return a value as YAML writes it."""
    return {"None": "null", "True": "true", "False": "false"}.get(str(value), str(value))


def _names(runs: list[FinishedRun]) -> list[str]:
    """Return the folders' names, with the parent folder or as whole paths if two are equal."""
    for names in (
        [run.name for run in runs],
        ["/".join(run.path.resolve().parts[-2:]) for run in runs],
    ):
        if len(set(names)) == len(names):
            return names
    return [str(run.path.resolve()) for run in runs]


def _doubts(runs: list[FinishedRun], names: list[str]) -> list[str]:
    """Return why the figures of runs cannot be compared with those of the first run."""
    return [
        f"{names[0]} and {name} cannot be compared: {reason}. No best is marked."
        for name, run in zip(names[1:], runs[1:], strict=True)
        if (reason := _difference_of_rows(runs[0], run))
    ]


def _difference_of_rows(first: FinishedRun, other: FinishedRun) -> str:
    """Say how the evaluated rows of two runs differ; empty if they are the same."""
    split = first.split
    if set(first.labels) != set(other.labels):
        return f"their classes differ ({listing(set(first.labels) ^ set(other.labels), 5)})"
    rows = first.final["num_rows"], other.final["num_rows"]
    if rows[0] != rows[1]:
        return f"{rows[0]:,} and {rows[1]:,} {split} rows"
    a, b = first.predictions, other.predictions
    digests = [
        run.facts["row_digests"].get(split) if run.facts and "row_digests" in run.facts else None
        for run in (first, other)
    ]
    if all(digests):
        if digests[0] != digests[1]:
            return f"their {split} rows differ"
    elif _fingerprint(first) is None or _fingerprint(first) != _fingerprint(other):
        return "the data fingerprints differ"
    elif a and b and not np.array_equal(a.rows_N, b.rows_N):
        return f"their {split} rows differ"
    if a and b and first.labels == other.labels and not np.array_equal(a.targets, b.targets):
        return f"the labels of their {split} rows differ"
    return ""


def _fingerprint(run: FinishedRun) -> str | None:
    return run.environment["data"]["fingerprint"] if run.environment else None


def _best(values: list[float], *, less: bool) -> set[int]:
    best = min(values) if less else max(values)
    return {place for place, value in enumerate(values) if value == best}


def _differences(runs: list[FinishedRun], best: int) -> list[Difference | None]:
    """Return the difference of each run from the best run, on the same resampled rows."""
    same_order = all(run.labels == runs[0].labels for run in runs)
    is_known = same_order and not too_small(runs[best])
    resampled = resampled_figures(runs) if is_known else None
    found: list[Difference | None] = []
    for place, run in enumerate(runs):
        difference = run.final["macro_f1"] - runs[best].final["macro_f1"]
        paired = None
        if resampled is not None:
            scores_BR = resampled.macro_f1_BR
            paired = interval(scores_BR[:, place] - scores_BR[:, best])
        found.append(None if place == best else (difference, paired))
    return found
