"""report.html: a finished run as one page that needs nothing else: no script, no request, pictures inside. Made of the run folder's files alone."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.delivery.report.page_confusion import MOST_CLASSES_WITH_NUMBERS, confusion_of
from trainer.delivery.report.page_parts import refuse_poorer
from trainer.display import page_plots, pages
from trainer.display.figure_words import TITLES
from trainer.display.shown_classes import (
    MOST_IN_PAGE,
    MOST_IN_PICTURE,
    MOST_IN_SENTENCE,
    Shown,
    largest_and_rarest,
    worst_and_rarest,
)
from trainer.errors import RunError, Stopped, first_line, listing
from trainer.evaluation.confusion import MOST_DENSE
from trainer.evaluation.intervals import Interval, Resampled, interval, resample
from trainer.evaluation.scores import Probabilities, over_classes
from trainer.run_folder import run_files, writer
from trainer.run_folder.finished_run import FinishedRun, Predictions, readable

if TYPE_CHECKING:
    from trainer.evaluation.outcome import Outcome

logger = logging.getLogger(__name__)
PAGE_NAME = writer.PAGE_NAME
MOST_MISTAKES = 30
MOST_CURVES = 8
MOST_CHARACTERS = 600
LEAST_ROWS = 20
"""A class with fewer has no interval, nor has a mean over classes that holds one: redrawing so few rows moves too little.

Simulated (twelve sets of two to 40 classes, recall 0.6 to 0.97, 400 to 600 test splits each), 95 % intervals of macro F1 held the true value
in 90 to 98 % with 20 rows or more in each class, in 88 to 93 % with 500/300/40/20/10/5/3 rows; of two models equally good, 4 to 8 % differ with 20 or more.
Of balanced accuracy they hold as much, but for rare classes whose rows are nearly all right beside large ones: 49 % with 500/20 rows and recall 0.97.
"""
GENERATOR = '<meta name="generator" content="equipoise'


def write_or_warn(path: Path) -> bool:
    """Write the page of a finished run, and tell whether that was done; whatever goes wrong is a warning, since the run is whole without it."""
    try:
        page = rebuild(FinishedRun.read(path))
    except Stopped:
        raise
    except (
        Exception
    ) as error:  # the page is a view of files that are safe on disk; no fault of it may cost a run
        logger.warning(
            "%s was not written: %s The run is complete; repeat with: equipoise report %s",
            path / PAGE_NAME,
            first_line(error),
            path,
        )
        return False
    print(f"Report: {page}")
    return True


def rebuild(run: FinishedRun, output: Path | None = None, *, show_texts: bool = True) -> Path:
    """Write the page of a run anew, as report.html in its folder or as another file; returns its path.

    Args:
        show_texts: quote the mistakes' texts where the run kept them (`report.show_texts`).
    Raises:
        RunError: a file of others in place of the page, or one of the run folder that is damaged; without `output` a page that is
            there and tells more than the new one would, since files of the run are gone.
    """
    page = output or run.path / PAGE_NAME
    check_page(page)
    with readable(run.path):
        text = render(run, show_texts=show_texts)
    if output is None:
        refuse_poorer(page, text, list(run_files.lacking(run)), show_texts=show_texts)
    return write_page(page, text)


def check_page(page: Path) -> None:
    """Raises RunError when the page cannot be written, or would replace a file that is none of ours."""
    writer.check_writable(page.parent, "Set --output")
    if page.is_dir():
        raise RunError(
            f"{page}: is a folder; --output is the page itself, such as {page / PAGE_NAME}."
        )
    if (
        page.exists()
        and page.stat().st_size
        and GENERATOR not in page.read_bytes()[:2000].decode(errors="replace")
    ):
        raise RunError(f"{page}: holds something else than a page of ours. Give another --output.")


def write_page(page: Path, text: str) -> Path:
    """Write a page that appears whole or not at all."""
    page.parent.mkdir(parents=True, exist_ok=True)
    writer.RunFolder(page.parent).write_text(page.name, text)
    return page


def mistakes_to_quote(
    rows_N: Any, outcome: "Outcome", labels: list[str], texts_of: Callable[[Any], list[str]]
) -> list[dict[str, Any]]:
    """Lines of mistakes.jsonl: the hardest mistakes with their texts.

    Args:
        rows_N: row id of each row of the outcome.
        texts_of: row ids -> their texts, of pairs both.
    """
    judged = Predictions(
        np.asarray(rows_N),
        outcome.label_ids_N,
        outcome.predicted_N,
        Probabilities(outcome.log_p_NC),
    )
    mistakes = judged.hardest(labels, MOST_MISTAKES)
    rows = sorted({mistake.row for mistake in mistakes})
    texts = dict(zip(rows, texts_of(np.array(rows, np.int64)), strict=True))
    return [
        {
            "row": m.row,
            "label": m.label,
            "predicted": m.predicted,
            "probability": m.probability,
            "text": _cut(texts[m.row]),
        }
        for m in mistakes
    ]


def _cut(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def render(run: FinishedRun, *, show_texts: bool = True) -> str:
    """The page as text; labels and quoted texts are escaped."""
    from trainer import __version__

    texts = run.texts if show_texts else {}
    resampled = resampled_figures([run])
    headline = headline_intervals(run, resampled, 0)
    predictions = run.predictions
    mistakes = predictions.hardest(run.labels, MOST_MISTAKES) if predictions else None
    precisions = _average_precisions(run)
    shown = worst_and_rarest(run.by_size, run.final["per_class"], MOST_IN_PAGE)
    return pages.template(Path(__file__).with_name("report_template.html")).render(
        version=__version__,
        run=run,
        facts=run.facts,
        final=run.final,
        over=over_classes(run.final["per_class"]),
        results=_results(run),
        intervals=headline if any(headline.values()) else {},
        shown=shown,
        classes=(classes := _class_rows(run, shown, resampled, precisions)),
        has_intervals=any(row["f1_interval"] for row in classes),
        has_precisions=any(precisions.values()),
        distribution=_distribution(run),
        is_folded=len(run.labels) > MOST_CLASSES_WITH_NUMBERS,
        curves=_learning_curves(run),
        confusion=None if run.is_multi_label else confusion_of(run),
        answers=_answers(run),
        precision_recall=_precision_recall(run, precisions),
        reliability=_reliability(run),
        mistakes=mistakes,
        num_wrong=predictions.num_wrong if predictions else 0,
        keeps_all=predictions is None or predictions.p_NC is not None,
        texts=texts,
        lacks=run_files.lacking(run),
        quotes=bool(mistakes and any(m.row in texts for m in mistakes)),
        decided=_decided(run),
        scope_all=(run.config.get("balance") or {}).get("scope") == "all",
        environment=writer.flat({k: v for k, v in (run.environment or {}).items() if k != "data"}),
        titles=TITLES,
        least_rows=LEAST_ROWS,
        too_small=listing(too_small(run), 5),
    )


def resampled_figures(runs: list[FinishedRun]) -> Resampled | None:
    """Figures of runs on resampled rows of the split that counts, which must be the same rows; None where one has no predictions."""
    predictions = [run.predictions for run in runs]
    if not all(predictions):
        return None
    return resample(predictions[0].targets, [p.predicted for p in predictions], len(runs[0].labels))  # type: ignore[union-attr]


def headline_intervals(
    run: FinishedRun, resampled: Resampled | None, place: int
) -> dict[str, Interval | None]:
    """95 % intervals of the figures that have one, of the run at a place; means over the classes have none where a class is too small."""
    if resampled is None:
        return {}
    small = too_small(run)
    minority = run.metrics["minority_label"]
    return {
        "macro_f1": None if small else interval(resampled.macro_f1_BR[:, place]),
        "accuracy": interval(resampled.accuracy_BR[:, place]),
        "balanced_accuracy": None if small else interval(resampled.macro_recall_BR[:, place]),
        "minority_recall": interval(resampled.recall_BRC[:, place, run.labels.index(minority)])
        if minority not in small
        else None,
    }


def too_small(run: FinishedRun) -> list[str]:
    """Classes that have rows, and fewer than an interval needs."""
    return [
        label for label in run.labels if 0 < run.final["per_class"][label]["support"] < LEAST_ROWS
    ]


def _results(run: FinishedRun) -> list[tuple[str, dict[str, Any]]]:
    """(which, figures) of each split, what counts first: with the decision, then by the model alone."""
    rows = []
    for split in reversed(run.splits):
        decided = run.metrics.get("decision", {}).get(split)
        rows += [(f"{split}, with the decision", decided)] if decided else []
        rows.append((f"{split}, model alone" if decided else split, run.metrics[split]))
    return rows


def _class_rows(
    run: FinishedRun, shown: Shown, resampled: Resampled | None, precisions: dict[str, float | None]
) -> list[dict[str, Any]]:
    """Results of each class that is shown."""
    final, alone = run.final["per_class"], run.metrics[run.split]["per_class"]
    ids = {label: c for c, label in enumerate(run.labels)}
    return [
        {
            "label": label,
            **final[label],
            "f1_interval": interval(resampled.f1_BRC[:, 0, ids[label]])
            if resampled and final[label]["support"] >= LEAST_ROWS
            else None,
            "f1_alone": alone[label]["f1"] if "decision" in run.metrics else None,
            "average_precision": precisions[label],
        }
        for label in shown.labels
    ]


def _average_precisions(run: FinishedRun) -> dict[str, float | None]:
    if run.is_multi_label and len(run.labels) > MOST_DENSE:
        return {
            label: values["average_precision"] if values["support"] else None
            for label, values in run.final["per_class"].items()
        }
    if run.predictions is None or run.predictions.p_NC is None:
        return dict.fromkeys(run.labels)
    return dict(
        zip(
            run.labels,
            page_plots.average_precisions(run.predictions.targets, run.predictions.p_NC),
            strict=True,
        )
    )


def _distribution(run: FinishedRun) -> dict[str, Any] | None:
    """Rows of each class in each column, the largest class first; what training was given and what it saw have bars of one scale."""
    if run.facts is None:
        return None
    labels, columns = run.facts["labels"], run.facts["columns"]
    first = next(iter(columns.values()))
    ids = {label: c for c, label in enumerate(labels)}
    shown = largest_and_rarest(sorted(labels, key=lambda label: -first[ids[label]]), MOST_IN_PAGE)
    widest = max(
        1,
        *(
            count
            for heading, counts in columns.items()
            if heading not in ("validation", "test")
            for count in counts
        ),
    )
    return {
        "headings": list(columns),
        "totals": run.facts["totals"],
        "widest": [
            max(1, *counts) if heading in ("validation", "test") else widest
            for heading, counts in columns.items()
        ],
        "rows": [
            (label, [counts[ids[label]] for counts in columns.values()]) for label in shown.labels
        ],
        "shown": shown.sentence("report.json"),
    }


def _learning_curves(run: FinishedRun) -> list[dict[str, Any]]:
    """Pictures with what their lines are; of an ensemble those of its members."""
    if run.epochs:
        step = run.facts["saved_step"] if run.facts else None
        return [
            {"title": "Loss", "src": pages.picture(page_plots.losses(run.epochs)), "lines": []},
            {
                "title": "Accuracy, macro F1 and recall of the rarest class",
                "src": pages.picture(page_plots.scores(run.epochs, step)),
                "lines": [],
            },
        ]
    members = [
        FinishedRun.read(path)
        for path in sorted(run.path.glob("member-*"), key=lambda p: (len(p.name), p.name))
        if writer.MEMBER.fullmatch(path.name)
    ]
    return overlays(members) if any(member.epochs for member in members) else []


def overlays(runs: list[FinishedRun], names: list[str] | None = None) -> list[dict[str, Any]]:
    """Learning curves of several runs, laid upon another."""
    lines = [
        (page_plots.color_of(number), name)
        for number, name in enumerate(names or [run.name for run in runs])
    ]
    epochs = [run.epochs for run in runs]
    wanted = (("macro_f1", "macro F1 on validation"), ("validation_loss", "validation loss (nats)"))
    return [
        {
            "title": title,
            "src": pages.picture(page_plots.overlaid(epochs, column, title)),
            "lines": lines,
        }
        for column, title in wanted
    ]


def _answers(run: FinishedRun) -> dict[str, Any] | None:
    """Of multi-label rows: how often each label is rightly given, missed, and given too much."""
    if not run.is_multi_label or run.predictions is None:
        return None
    by_label = dict(
        zip(
            run.labels,
            zip(*(counts_C.tolist() for counts_C in run.predictions.answers()), strict=True),
            strict=True,
        )
    )
    shown = worst_and_rarest(run.by_size, run.final["per_class"], MOST_IN_PAGE)
    rows = [
        {"label": label, **dict(zip(("right", "missed", "wrong"), by_label[label], strict=True))}
        for label in shown.labels
    ]
    return {"rows": rows, "shown": shown.sentence("predictions.parquet")}


def _precision_recall(
    run: FinishedRun, precisions: dict[str, float | None]
) -> dict[str, Any] | None:
    """The curves of all classes, or of those with the least average precision in colors and some others behind them."""
    if run.predictions is None or run.predictions.p_NC is None:
        return None
    known = [label for label in run.by_size if precisions[label] is not None]
    ordered = sorted(known, key=lambda label: precisions[label] or 0.0)
    shown = known if len(known) <= len(page_plots.COLORS) else ordered[:MOST_CURVES]
    pale = [] if shown is known else ordered[MOST_CURVES:MOST_IN_PICTURE]
    ids = {label: c for c, label in enumerate(run.labels)}
    figure = page_plots.precision_recall(
        run.predictions.targets,
        run.predictions.p_NC,
        [ids[label] for label in shown],
        [ids[label] for label in pale],
    )
    lines = [
        (page_plots.color_of(place), label, precisions[label]) for place, label in enumerate(shown)
    ]
    return {
        "src": pages.picture(figure),
        "lines": lines,
        "num_pale": len(pale),
        "num_left_out": len(known) - len(shown) - len(pale),
    }


def _reliability(run: FinishedRun) -> str | None:
    if run.predictions is None or not run.predictions.knows_confidences:
        return None
    return pages.picture(
        page_plots.reliability(
            run.predictions.confidences(), "answers" if run.is_multi_label else "rows"
        )
    )


def _decided(run: FinishedRun) -> dict[str, Any] | None:
    """What the decision does to each class, as columns of figures."""
    decision = run.metrics.get("decision")
    if decision is None:
        return None
    names = {
        "training_prior": "share taught by training",
        "target_prior": "share expected",
        "thresholds": "threshold",
        "shift": "added to the score",
    }
    columns = {title: decision[name] for name, title in names.items() if name in decision}
    costs = decision.get("costs") if len(run.labels) <= MOST_IN_PICTURE else None
    neutral = listing(decision.get("neutral", []), MOST_IN_SENTENCE)
    return {
        "temperature": decision["temperature"],
        "costs": costs,
        "has_costs": "costs" in decision,
        "neutral": neutral,
        "columns": columns,
    }
