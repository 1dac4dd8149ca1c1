"""Write report.html: a finished run as one page that needs no script and no other file.

The page is made only from the files of the run folder.
"""

import logging
from pathlib import Path

from trainer.delivery.report import page_classes, page_curves
from trainer.delivery.report.mistakes import MOST_MISTAKES
from trainer.delivery.report.page_confusion import MOST_CLASSES_WITH_NUMBERS, confusion_of
from trainer.delivery.report.page_intervals import (
    headline_intervals,
    resampled_figures,
    too_small,
)
from trainer.delivery.report.page_parts import refuse_poorer
from trainer.display import pages
from trainer.display.figure_words import TITLES
from trainer.display.shown_classes import MOST_IN_PAGE, MOST_NAMED, worst_and_rarest
from trainer.errors import RunError, Stopped, first_line, listing
from trainer.evaluation.figure_intervals import LEAST_ROWS
from trainer.evaluation.scores import over_classes
from trainer.run_folder import missing_files, writer
from trainer.run_folder.config_differences import flat
from trainer.run_folder.finished_run import FinishedRun, readable

logger = logging.getLogger(__name__)
PAGE_NAME = writer.PAGE_NAME
GENERATOR = '<meta name="generator" content="equipoise'


def write_or_warn(path: Path) -> bool:
    """Write the page of a finished run; return whether this succeeded.

    Any error is a warning: the run is complete without its page.
    """
    try:
        page = rebuild(FinishedRun.read(path))
    except Stopped:
        raise
    except Exception as error:
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
    """Write the page of a run as report.html in its folder, or as another file; return its path.

    Args:
        show_texts: quote the texts of mistakes, if the run kept them (`report.show_texts`).
    Raises:
        RunError: the path holds another file than a page, or a file of the run is damaged. Without
            `output` also if files are missing, so that the new page would lack parts of the old.
    """
    page = output or run.path / PAGE_NAME
    check_page(page)
    with readable(run.path):
        text = render(run, show_texts=show_texts)
    if output is None:
        refuse_poorer(page, text, list(missing_files.lacking(run)), show_texts=show_texts)
    return write_page(page, text)


def check_page(page: Path) -> None:
    """Raise RunError if the page cannot be written, or would overwrite another kind of file."""
    writer.check_writable(page.parent, "Set --output")
    if page.is_dir():
        raise RunError(
            f"{page}: is a folder; --output is the page itself, such as {page / PAGE_NAME}."
        )
    head = page.read_bytes()[:2000].decode(errors="replace") if page.exists() else ""
    if head and GENERATOR not in head:
        raise RunError(f"{page}: is not a page of equipoise. Give another --output.")


def write_page(page: Path, text: str) -> Path:
    """Write a page, which appears complete or not at all; return its path."""
    page.parent.mkdir(parents=True, exist_ok=True)
    writer.RunFolder(page.parent).write_text(page.name, text)
    return page


def render(run: FinishedRun, *, show_texts: bool = True) -> str:
    """Return the page as text. Labels and quoted texts are escaped."""
    from trainer import __version__

    texts = run.texts if show_texts else {}
    resampled = resampled_figures([run])
    headline = headline_intervals(run, resampled, 0)
    predictions = run.predictions
    mistakes = predictions.hardest(run.labels, MOST_MISTAKES) if predictions else None
    precisions = page_curves.average_precisions(run)
    shown = worst_and_rarest(run.by_size, run.final["per_class"], MOST_IN_PAGE)
    classes = page_classes.class_rows(run, shown, resampled, precisions)
    return pages.template(Path(__file__).with_name("report_template.html")).render(
        version=__version__,
        run=run,
        facts=run.facts,
        final=run.final,
        over=over_classes(run.final["per_class"]),
        results=page_classes.results(run),
        groups=page_classes.group_rows(run),
        intervals=headline if any(headline.values()) else {},
        shown=shown,
        classes=classes,
        has_intervals=any(row["f1_interval"] for row in classes),
        has_precisions=any(precisions.values()),
        has_thresholds=bool(page_classes.label_thresholds(run)),
        distribution=page_classes.distribution(run),
        is_folded=len(run.labels) > MOST_CLASSES_WITH_NUMBERS,
        curves=page_curves.learning_curves(run),
        confusion=None if run.is_multi_label else confusion_of(run),
        answers=page_classes.answers(run, shown),
        precision_recall=page_curves.precision_recall(run, precisions),
        reliability=page_curves.reliability_picture(run),
        mistakes=mistakes,
        num_wrong=predictions.num_wrong if predictions else 0,
        keeps_all=predictions is None or predictions.p_NC is not None,
        texts=texts,
        lacks=missing_files.lacking(run),
        quotes=bool(mistakes and any(m.row in texts for m in mistakes)),
        decided=page_classes.decided(run),
        scope_all=(run.config.get("balance") or {}).get("scope") == "all",
        environment=flat({k: v for k, v in (run.environment or {}).items() if k != "data"}),
        titles=TITLES,
        least_rows=LEAST_ROWS,
        too_small=listing(too_small(run), MOST_NAMED),
    )
