"""The curves of a run's page, as pictures with legends."""

from dataclasses import dataclass, field

from trainer.display import curves, pages
from trainer.display.drawing import COLORS, color_of
from trainer.display.reliability_plot import bins_of, reliability
from trainer.display.shown_classes import MOST_IN_PICTURE
from trainer.evaluation.confusion import MOST_DENSE
from trainer.run_folder.finished_run import FinishedRun
from trainer.run_folder.writer import MEMBER

MOST_CURVES = 8
"""Colored precision-recall curves if there are more classes than colors."""


@dataclass(frozen=True)
class Picture:
    """A picture of the page.

    Attributes:
        src: the picture as a data URI.
        lines: (color, name) of each line, for the legend.
    """

    title: str
    src: str
    lines: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class PrecisionRecall:
    """Precision-recall curves.

    Attributes:
        lines: (color, class, average precision) of each colored curve.
        num_pale, num_left_out: further classes, drawn in a pale color, and not drawn.
    """

    src: str
    lines: list[tuple[str, str, float | None]]
    num_pale: int
    num_left_out: int


def learning_curves(run: FinishedRun) -> list[Picture]:
    """Return the learning curves of a run, or of the members of an ensemble."""
    if run.epochs:
        step = run.facts["saved_step"] if run.facts else None
        return [
            Picture(title, pages.picture(curves.learning_curves(run.epochs, step, [chart])))
            for title, chart in zip(
                ("Loss", "Accuracy, macro F1 and recall of the rarest class"),
                curves.CHARTS,
                strict=True,
            )
        ]
    folders = [path for path in run.path.glob("member-*") if MEMBER.fullmatch(path.name)]
    folders.sort(key=lambda path: int(path.name.removeprefix("member-")))
    members = [FinishedRun.read(path) for path in folders]
    return overlays(members, [member.name for member in members])


def overlays(runs: list[FinishedRun], names: list[str]) -> list[Picture]:
    """Return the learning curves of several runs on top of each other; empty without epochs."""
    epochs = [run.epochs for run in runs]
    if not any(epochs):
        return []
    lines = [(color_of(number), name) for number, name in enumerate(names)]
    charts = {"macro_f1": "macro F1 on validation", "validation_loss": "validation loss (nats)"}
    return [
        Picture(title, pages.picture(curves.overlaid(epochs, column, title)), lines)
        for column, title in charts.items()
    ]


def average_precisions(run: FinishedRun) -> dict[str, float | None]:
    """Return the average precision of each class, or None if it is unknown."""
    if run.is_multi_label and len(run.labels) > MOST_DENSE:
        return {
            label: values["average_precision"] if values["support"] else None
            for label, values in run.final["per_class"].items()
        }
    if run.predictions is None or run.predictions.p_NC is None:
        return dict.fromkeys(run.labels)
    found = curves.average_precisions(run.predictions.targets, run.predictions.p_NC)
    return dict(zip(run.labels, found, strict=True))


def precision_recall(
    run: FinishedRun, precisions: dict[str, float | None]
) -> PrecisionRecall | None:
    """Return the curves of all classes, or the worst in color and some others in a pale color."""
    if run.predictions is None or run.predictions.p_NC is None:
        return None
    known = [label for label in run.by_size if precisions[label] is not None]
    ordered = sorted(known, key=lambda label: precisions[label] or 0.0)
    is_small = len(known) <= len(COLORS)
    shown = known if is_small else ordered[:MOST_CURVES]
    pale = [] if is_small else ordered[MOST_CURVES:MOST_IN_PICTURE]
    ids = {label: c for c, label in enumerate(run.labels)}
    figure = curves.precision_recall(
        run.predictions.targets,
        run.predictions.p_NC,
        [ids[label] for label in shown],
        [ids[label] for label in pale],
    )
    lines = [(color_of(place), label, precisions[label]) for place, label in enumerate(shown)]
    num_left_out = len(known) - len(shown) - len(pale)
    return PrecisionRecall(pages.picture(figure), lines, len(pale), num_left_out)


def reliability_picture(run: FinishedRun) -> str | None:
    """Return the reliability diagram as a data URI, or None if the probabilities are unknown."""
    if run.predictions is None or not run.predictions.knows_confidences:
        return None
    bins = bins_of(run.predictions.confidences())
    return pages.picture(reliability({"": bins}, "answers" if run.is_multi_label else "rows"))
