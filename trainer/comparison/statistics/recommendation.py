"""The recommendation of a comparison, in one sentence."""

from trainer.comparison.statistics.comparison_result import (
    AgainstBaseline,
    Comparison,
    Difference,
)
from trainer.display.figure_words import TITLES

SMALL = 0.005
"""Gains below are called small, even if they are reliable."""


def recommend(comparison: Comparison, seconds: dict[str, float]) -> str:
    """Return which strategy to use, what it gains and what it costs.

    If no strategy is reliably better than the baseline, the sentence says so.

    Args:
        seconds: mean training time of strategies; may omit some.
    """
    base, chosen, others = comparison.baseline, comparison.recommended, comparison.others
    if not others:
        return f"{base} alone was compared: nothing to choose from."
    metric, best = TITLES[comparison.metric], comparison.best
    worse = [
        f"{name} is reliably worse ({_signed(found)})"
        for name, found in others.items()
        if _is_worse(found)
    ]
    scope = ""
    if comparison.num_seeds == 1:
        scope = " (with one seed: for these trainings alone, others may differ)"
    found_none = "strategy is reliably better" if worse else "reliable difference"
    none_better = f"No {found_none} in {metric}{scope}"
    if chosen != base:
        small = ", a small gain" if others[chosen].difference < SMALL else ""
        gain = f"{chosen}: {_signed(others[chosen], metric)} over {base}{small}{scope}"
        parts = [gain, *_rivals(comparison), *worse, *_effects(comparison)]
        parts += _time(comparison, seconds)
    elif best != base:
        p = f"Holm-adjusted p {others[best].p_holm:.3f}"
        highest = f"{best} is the highest with {_signed(others[best])} over {base} ({p})"
        parts = [f"{none_better}: {highest}", *worse, f"{base} is the simplest choice"]
    else:
        parts = [f"{none_better}: {base} is the highest itself, and the simplest choice", *worse]
    return "; ".join([*parts, *_rare(comparison)]) + "."


def _is_worse(found: AgainstBaseline) -> bool:
    return found.is_reliable and found.difference < 0


def _signed(found: Difference, unit: str = "") -> str:
    """Return '+0.11 macro F1 [0.08, 0.14]', with up to four decimals.

    Two decimals are not enough if they show a narrow interval as a point, or a value as 0.
    """
    values = [value for value in (found.difference, found.low, found.high) if value is not None]
    is_narrow = found.low is not None and found.high is not None and found.high - found.low < 0.02
    shown = (n for n in (2, 3) if all(round(value, n) or not value for value in values))
    digits = max(next(shown, 4), 3 if is_narrow else 2)
    interval = "" if found.low is None else f" [{found.low:z.{digits}f}, {found.high:z.{digits}f}]"
    return f"{found.difference:+z.{digits}f}{unit and f' {unit}'}{interval}"


def _rivals(comparison: Comparison) -> list[str]:
    """Return which strategies may be as good as the recommended one.

    The baseline and strategies reliably worse than it are not among them.
    """
    base, best, chosen = comparison.baseline, comparison.best, comparison.recommended
    others = {
        name: found
        for name, found in comparison.others.items()
        if name not in (best, chosen) and not _is_worse(found)
    }
    if chosen != best and best != base:
        gain = _signed(comparison.others[best])
        return [
            f"{best} is higher ({gain}), but not reliably better than {base}",
            *(
                f"{name} is reliably better than {base} too ({_signed(found)})"
                for name, found in others.items()
                if found.is_reliable
            ),
        ]
    alike = [
        name
        for name in others
        if (found := comparison.strategies[name].against_best) and not found.is_distinguishable
    ]
    verb = "are" if len(alike) > 1 else "is"
    return [f"{_and(alike)} {verb} not distinguishable from it"] if alike else []


def _and(names: list[str]) -> str:
    """Return 'a, b and c'."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _effects(comparison: Comparison) -> list[str]:
    """Return reliable effects of the recommended strategy on recall and accuracy.

    Rows with several labels have micro F1 in place of accuracy.
    """
    differences = comparison.strategies[comparison.recommended].differences
    name = "micro_f1" if "micro_f1" in differences else "accuracy"
    accuracy, recall = differences[name], differences["minority_recall"]
    parts = []
    if recall.low is not None and recall.high is not None and not recall.low <= 0 <= recall.high:
        parts.append(
            ("minority_recall", f"recall of {comparison.minority_label} {_signed(recall)}")
        )
    if accuracy.high is not None and accuracy.high < 0 and accuracy.difference <= -0.0005:
        cost = f"costs {-100 * accuracy.difference:.1f} points of {TITLES[name]}"
        parts.append((name, cost))
    return [words for metric, words in parts if metric != comparison.metric]


def _time(comparison: Comparison, seconds: dict[str, float]) -> list[str]:
    """Return how much longer the recommended strategy trains, if it is a fifth or more."""
    ours, theirs = seconds.get(comparison.recommended), seconds.get(comparison.baseline)
    if not ours or not theirs or ours < 1.2 * theirs:
        return []
    return [f"trains {ours / theirs:.1f} times as long as {comparison.baseline}"]


def _rare(comparison: Comparison) -> list[str]:
    """Return a remark on classes of a single row, the first three by name."""
    rare = [f"'{label}'" for label, rows in comparison.support.items() if rows == 1]
    shown = [*rare[:3], f"{len(rare) - 3} more"] if len(rare) > 3 else rare
    have = "have 1 row each: their" if len(rare) > 1 else "has 1 row: its"
    return [f"{_and(shown)} {have} F1 says little"] if rare else []
