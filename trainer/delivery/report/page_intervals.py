"""95 % intervals of a run's figures, from its predictions."""

from trainer.evaluation import figure_intervals
from trainer.evaluation.intervals import Interval, Resampled, resample
from trainer.run_folder.finished_run import FinishedRun


def resampled_figures(runs: list[FinishedRun]) -> Resampled | None:
    """Return the figures of runs on resampled rows, or None if one of them has no predictions.

    The runs must have been evaluated on the same rows.
    """
    predictions = [run.predictions for run in runs if run.predictions]
    if len(predictions) < len(runs):
        return None
    predicted = [each.predicted for each in predictions]
    return resample(predictions[0].targets, predicted, len(runs[0].labels))


def headline_intervals(
    run: FinishedRun, resampled: Resampled | None, place: int
) -> dict[str, Interval | None]:
    """Return {figure: its interval, or None if a class is too small}; empty without predictions.

    Args:
        place: place of the run among the resampled runs.
    """
    if resampled is None:
        return {}
    return figure_intervals.figure_intervals(
        _ordered(run), run.metrics["minority_label"], resampled, place
    )


def class_intervals(run: FinishedRun, resampled: Resampled | None) -> dict[str, Interval | None]:
    """Return {label: interval of its F1}; empty without predictions."""
    return {} if resampled is None else figure_intervals.f1_intervals(_ordered(run), resampled)


def too_small(run: FinishedRun) -> list[str]:
    """Return the classes that have rows, but fewer than an interval needs."""
    return figure_intervals.too_small(_ordered(run))


def _ordered(run: FinishedRun) -> figure_intervals.PerClass:
    """Return the figures of each class in the order of the label ids."""
    return {label: run.final["per_class"][label] for label in run.labels}
