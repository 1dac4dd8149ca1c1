"""Choose which of many classes a picture, page, card or table shows, and say so in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_IN_PICTURE = 40
MOST_IN_TERMINAL = 60
MOST_IN_CARD = 100
MOST_IN_PAGE = 300
MOST_IN_SENTENCE = 20
MOST_NAMED = 3
"""Classes that a remark names, such as those with too few rows."""

PerClass = Mapping[str, Mapping[str, Any]]
"""{class: its scores}, with `f1` and `support`."""


@dataclass(frozen=True)
class Shown:
    """The classes to show, in order.

    Attributes:
        words: describes the choice, such as "40 of 1,500 classes, those with the lowest F1"; empty
            if all classes are shown.
    """

    labels: list[str]
    words: str = ""

    def sentence(self, where: str) -> str:
        """Return the words, and where all classes are listed; empty if all are shown."""
        return f"Shown: {self.words}. All are in {where}." if self.words else ""


def worst(per_class: PerClass, most: int) -> list[str]:
    """Return the classes with the lowest F1, of those that have rows; larger classes first."""
    measured = [label for label, values in per_class.items() if values["support"]]
    return sorted(
        measured, key=lambda label: (per_class[label]["f1"], -per_class[label]["support"])
    )[:most]


def worst_classes(order: Sequence[str], per_class: PerClass, most: int = MOST_IN_PICTURE) -> Shown:
    """Choose all classes, or those with the lowest F1."""
    if len(order) <= most:
        return Shown(list(order))
    chosen = set(worst(per_class, most))
    return Shown(
        [label for label in order if label in chosen],
        f"{len(chosen)} of {len(order):,} classes, those with the lowest F1",
    )


def worst_and_predicted(
    order: Sequence[str],
    per_class: PerClass,
    predicted: Mapping[str, int],
    most: int = MOST_IN_PICTURE,
) -> Shown:
    """Choose all classes, or a quarter that is predicted most often and the worst of the others.

    A class that many rows of other classes are assigned to makes few mistakes itself, so it is
    seldom among the classes with the lowest F1.

    Args:
        predicted: {class: rows predicted as this class}.
    """
    if len(order) <= most:
        return Shown(list(order))
    given = sorted(
        (label for label in order if predicted[label]), key=lambda label: -predicted[label]
    )[: most // 4]
    others = {label: values for label, values in per_class.items() if label not in given}
    lowest = worst(others, most - len(given))
    chosen = {*given, *lowest}
    words = f"{len(chosen)} of {len(order):,} classes, the {len(given)} predicted most often"
    words += f" and, of the others, the {len(lowest)} with the lowest F1" if lowest else ""
    return Shown([label for label in order if label in chosen], words)


def worst_and_rarest(order: Sequence[str], per_class: PerClass, most: int) -> Shown:
    """Choose all classes, or half with the lowest F1 and half with the fewest rows."""
    if len(order) <= most:
        return Shown(list(order))
    lowest = worst(per_class, most // 2)
    others = [label for label in order if per_class[label]["support"] and label not in lowest]
    rarest = sorted(others, key=lambda label: per_class[label]["support"])[: most // 2]
    chosen = {*lowest, *rarest}
    which = f"the {len(lowest)} with the lowest F1 and, of the others, the {len(rarest)} with the"
    which = "those that have rows" if len(rarest) == len(others) else f"{which} fewest rows"
    words = f"{len(chosen)} of {len(order):,} classes, {which}"
    return Shown([label for label in order if label in chosen], words)


def largest_and_rarest(by_size: Sequence[str], most: int = MOST_IN_PICTURE) -> Shown:
    """Choose all classes, or the largest and the rarest, from an order by size."""
    if len(by_size) <= most:
        return Shown(list(by_size))
    half = most // 2
    return Shown(
        [*by_size[:half], *by_size[-half:]],
        f"{2 * half} of {len(by_size):,} classes, the {half} largest and the {half} rarest",
    )


def in_words(pairs: Mapping[str, str], where: str) -> str:
    """Return 'label value, label value' of the first classes, and how many more there are."""
    first = [f"{label} {value}" for label, value in list(pairs.items())[:MOST_IN_SENTENCE]]
    left = len(pairs) - len(first)
    return ", ".join(first) + (f" and {left:,} more, all in {where}" if left else "")


def share(count: int, total: int) -> str:
    """Return a count with its share of the total."""
    return f"{count:,} ({count / max(1, total):.1%})"
