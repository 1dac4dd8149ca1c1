"""Several finished runs side by side: one page, and a table in the terminal. Made of their folders' files alone."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from trainer.delivery.report import report_page
from trainer.display import page_plots, pages
from trainer.display.figure_words import LESS_IS_BETTER, TITLES, difference_words
from trainer.display.shown_classes import MOST_IN_PAGE, Shown, worst_and_rarest
from trainer.display.terminal import console
from trainer.errors import RunError, listing
from trainer.evaluation.intervals import Interval, interval
from trainer.run_folder import writer
from trainer.run_folder.finished_run import FinishedRun, readable

PAGE_NAME = "comparison.html"
NOT_SHOWN = ("run.name", "run.output_dir", "run.overwrite", "hub.", "report.", "compare.")
"""Config keys, or their beginnings, that change no figure."""


@dataclass(frozen=True)
class Comparison:
    """What is shown of several runs; lists are in the order of `runs`.

    Attributes:
        runs: all with the same split to count.
        doubts: why their figures cannot be compared; empty where all were judged on the same rows.
        best: {figure: places of the best runs}; empty where there are doubts.
        intervals: of each run, {figure: 95 % interval}.
        differences: macro F1 less that of the best run, with its 95 % interval on paired rows; None for the best, or where it is not known.
    """

    runs: list[FinishedRun]
    names: list[str]
    doubts: list[str]
    best: dict[str, set[int]]
    intervals: list[dict[str, Interval | None]]
    differences: list[tuple[float, Interval | None] | None]

    @property
    def figures(self) -> list[str]:
        """Figures that all runs have."""
        kinds = dict.fromkeys(run.figures for run in self.runs)
        return [name for name in next(iter(kinds)) if all(name in kind for kind in kinds)]


def write(runs: list[FinishedRun], output: Path | None = None) -> Path:
    """Print the table and write the page, comparison.html here if no other is given; returns its path.

    Raises:
        RunError: no split that all runs were evaluated on, or a file of others in place of the page.
    """
    page = output or Path(PAGE_NAME)
    report_page.check_page(page)
    with readable(*(run.path for run in runs)):
        compared = compare(runs)
        text = render(compared)
    print_comparison(compared)
    return report_page.write_page(page, text)


def compare(runs: list[FinishedRun]) -> Comparison:
    """What can be said of runs side by side.

    Raises:
        RunError: no split that all runs were evaluated on.
    """
    split = next(
        (split for split in ("test", "validation") if all(split in run.splits for run in runs)),
        None,
    )
    if split is None:
        raise RunError(
            f"{listing(run.path for run in runs)}: share no evaluated split. Compare runs that have test rows, or runs that have validation rows."
        )
    runs = [replace(run, split=split) for run in runs]
    names = _names(runs)
    doubts = _doubts(runs, names)
    intervals: list[dict[str, Interval | None]] = [
        report_page.headline_intervals(run, report_page.resampled_figures([run]), 0) for run in runs
    ]
    differences: list[tuple[float, Interval | None] | None] = [None] * len(runs)
    best: dict[str, set[int]] = {}
    if not doubts:
        best = {
            name: _best([run.final[name] for run in runs], less=name in LESS_IS_BETTER)
            for name in runs[0].figures
            if name != "f1_gap"
        }
        differences = _differences(runs, min(best["macro_f1"]))
    return Comparison(runs, names, doubts, best, intervals, differences)


def render(compared: Comparison) -> str:
    """The page as text, escaped."""
    from trainer import __version__

    runs = compared.runs
    shown = _shown_classes(runs)
    has_curves = any(run.epochs for run in runs)
    return pages.template(Path(__file__).with_name("side_by_side_template.html")).render(
        version=__version__,
        compared=compared,
        split=runs[0].split,
        titles=TITLES,
        labels=shown.labels,
        shown=shown.sentence("each metrics.json"),
        per_class=[run.final["per_class"] for run in runs],
        minorities={run.metrics["minority_label"] for run in runs},
        curves=report_page.overlays(runs, compared.names) if has_curves else [],
        keys=[page_plots.color_of(place) for place in range(len(runs))],
        differing=differing_keys(runs),
        no_means=no_means(runs),
    )


def _shown_classes(runs: list[FinishedRun]) -> Shown:
    """All classes of the runs, or those with the lowest F1 and the fewest rows in the first run that has them."""
    per_class: dict[str, Any] = {}
    for run in runs:
        per_class = run.final["per_class"] | per_class
    return worst_and_rarest(
        list(dict.fromkeys(label for run in runs for label in run.by_size)), per_class, MOST_IN_PAGE
    )


def print_comparison(compared: Comparison) -> None:
    """The runs as lines of a table of the headline figures, the best marked."""
    shown = [
        name
        for name in compared.figures
        if name in ("macro_f1", "accuracy", "balanced_accuracy", "micro_f1")
    ]
    table = Table(
        title=f"{len(compared.runs)} runs on {compared.runs[0].split}, the best marked *",
        title_justify="left",
    )
    table.add_column("run", overflow="fold", min_width=10)
    for name in shown:
        table.add_column(TITLES[name], justify="right")
        if name == "macro_f1":
            table.add_column("less the best", justify="right")
    for place, run in enumerate(compared.runs):
        cells = [
            f"{run.final[name]:.4f}{'*' if place in compared.best.get(name, ()) else ' '}"
            for name in shown
        ]
        table.add_row(
            compared.names[place],
            cells[0],
            difference_words(compared.differences[place]),
            *cells[1:],
        )
    console.print(table)
    for warning in (*compared.doubts, *filter(None, [no_means(compared.runs)])):
        console.print(f"warning: {warning}")


def no_means(runs: list[FinishedRun]) -> str:
    """Why means over the classes have no intervals; empty where every run has them."""
    small = {label for run in runs for label in report_page.too_small(run)}
    words = f"macro F1, its differences and balanced accuracy have no intervals where a class has fewer than {report_page.LEAST_ROWS} rows"
    return f"{words} ({listing(small, 5)}): a small difference may be chance." if small else ""


def differing_keys(runs: list[FinishedRun]) -> list[tuple[str, list[str]]]:
    """(key, value in each run) of the config keys in which they differ and that may change a figure."""
    flat = [writer.flat(run.config) for run in runs]
    keys = [
        key
        for key in dict.fromkeys(key for values in flat for key in values)
        if not key.startswith(NOT_SHOWN)
    ]
    rows = [
        (key, [_value(values[key]) if key in values else "not set" for values in flat])
        for key in keys
    ]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _value(value: Any) -> str:
    return (
        {None: "null", True: "true", False: "false"}[value]
        if value is None or isinstance(value, bool)
        else str(value)
    )


def _names(runs: list[FinishedRun]) -> list[str]:
    """Names of the folders; with the folder above where two are equal, or the whole path."""
    for names in (
        [run.name for run in runs],
        ["/".join(run.path.resolve().parts[-2:]) for run in runs],
    ):
        if len(set(names)) == len(names):
            return names
    return [str(run.path.resolve()) for run in runs]


def _doubts(runs: list[FinishedRun], names: list[str]) -> list[str]:
    """For each run that was judged on other rows than the first, why its figures cannot be compared."""
    first, doubts = runs[0], []
    for run, name in zip(runs[1:], names[1:], strict=True):
        reason = _difference_of_rows(first, run)
        if reason:
            doubts.append(f"{names[0]} and {name} cannot be compared: {reason}. No best is marked.")
    return doubts


def _difference_of_rows(first: FinishedRun, other: FinishedRun) -> str:
    """How the rows differ that two runs were judged on; empty where they are the same."""
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


def _differences(runs: list[FinishedRun], best: int) -> list[tuple[float, Interval | None] | None]:
    """Macro F1 of each run less that of the best, on the same resampled rows."""
    same_order = all(run.labels == runs[0].labels for run in runs)
    resampled = (
        report_page.resampled_figures(runs)
        if same_order and not report_page.too_small(runs[best])
        else None
    )
    scores = [run.final["macro_f1"] for run in runs]
    found: list[tuple[float, Interval | None] | None] = []
    for place, score in enumerate(scores):
        paired = (
            None
            if resampled is None
            else interval(resampled.macro_f1_BR[:, place] - resampled.macro_f1_BR[:, best])
        )
        found.append(None if place == best else (score - scores[best], paired))
    return found
