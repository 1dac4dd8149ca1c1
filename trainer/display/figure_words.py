"""Name metrics, and format their differences, for tables, cards and pages."""

from typing import Any

from trainer.display import pages
from trainer.evaluation.intervals import Interval

TITLES = {
    "num_rows": "rows",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "weighted_f1": "weighted F1",
    "samples_f1": "samples F1",
    "f1_gap": "F1 gap",
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mcc": "MCC",
    "auroc_macro": "AUROC",
    "mean_average_precision": "mean average precision",
    "hamming_loss": "Hamming loss",
    "ece": "ECE",
    "brier": "Brier",
    "loss": "loss",
    "minority_recall": "recall of the rarest class",
    "minority_f1": "F1 of the rarest class",
}
"""Name of each metric in tables."""
TITLES_OF_LABELS = {
    name: title.replace("rarest class", "rarest label") for name, title in TITLES.items()
}
"""The same for rows with several labels."""
LESS_IS_BETTER = {"ece", "brier", "loss", "hamming_loss"}


def difference_words(difference: tuple[float, Interval | None] | None) -> str:
    """Return a difference with its interval, or an empty string for None."""
    if difference is None:
        return ""
    value, found = difference
    return f"{value:+.3f} [{found[0]:+.3f}, {found[1]:+.3f}]" if found else f"{value:+.3f}"


def has_label_sets(compared: dict[str, Any]) -> bool:
    """Return whether the compared rows have any number of labels."""
    return "micro_f1" in compared["strategies"][compared["baseline"]]["figures"]


def by_metric(compared: dict[str, Any]) -> list[str]:
    """Return the strategies, the one with the highest mean of the metric first."""
    metric, strategies = compared["metric"], compared["strategies"]
    return sorted(strategies, key=lambda name: -strategies[name]["figures"][metric]["mean"])


def spread_words(figure: dict[str, Any]) -> str:
    """Return mean and standard deviation over seeds, or only the mean for one seed."""
    return pages.decimals(figure["mean"]) + (
        f" ± {figure['seed_deviation']:.3f}" if figure["seed_deviation"] is not None else ""
    )


def baseline_words(against: dict[str, Any] | None) -> str:
    """Return a difference, with its interval if it has one; empty for the baseline."""
    if against is None:
        return ""
    found = None if against["low"] is None else (against["low"], against["high"])
    return difference_words((against["difference"], found))


def train_rows_words(group: dict[str, Any]) -> str:
    """Return the fewest and most training rows of the classes of a frequency group."""
    least, most = group["least_train_rows"], group["most_train_rows"]
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def p_words(against: dict[str, Any] | None) -> str:
    """Return the Holm-adjusted p value, a dash if there is none, or nothing for the baseline."""
    if against is None:
        return ""
    p = against["p_holm"]
    return "<0.001" if p is not None and p < 0.001 else pages.decimals(p)
