"""Which of many classes a picture, a page, a card or the terminal shows, and the words that say so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MOST_IN_PICTURE = 40
MOST_IN_TERMINAL = 60
MOST_IN_CARD = 100
MOST_IN_PAGE = 300
MOST_IN_SENTENCE = 20
OTHERS = "all others"
"""Heading of what the classes that are shown were taken for beside each other."""


@dataclass(frozen=True)
class Shown:
    """Some classes, in the order in which they are shown.

    Attributes:
        words: which they are, such as "40 of 1,500 classes, those with the lowest F1"; empty where they are all.
    """

    labels: list[str]
    words: str = ""

    def sentence(self, where: str) -> str:
        """The words with the place of all classes; empty where they are all."""
        return f"Shown: {self.words}. All are in {where}." if self.words else ""


def worst(per_class: Mapping[str, Mapping[str, Any]], most: int) -> list[str]:
    """Classes that have rows, the lowest F1 first, of equals the one of more rows; at most so many."""
    measured = [label for label, values in per_class.items() if values["support"]]
    return sorted(
        measured, key=lambda label: (per_class[label]["f1"], -per_class[label]["support"])
    )[:most]


def worst_classes(
    order: Sequence[str], per_class: Mapping[str, Mapping[str, Any]], most: int = MOST_IN_PICTURE
) -> Shown:
    """All classes, or those with the lowest F1; in the order given."""
    if len(order) <= most:
        return Shown(list(order))
    chosen = set(worst(per_class, most))
    return Shown(
        [label for label in order if label in chosen],
        f"{len(chosen)} of {len(order):,} classes, those with the lowest F1",
    )


def worst_and_predicted(
    order: Sequence[str],
    per_class: Mapping[str, Mapping[str, Any]],
    predicted: Mapping[str, int],
    most: int = MOST_IN_PICTURE,
) -> Shown:
    """All classes, or the most predicted ones, a quarter, and of the others those with the lowest F1; in the order given.

    A class that many rows of others are taken for has few mistakes of its own, so it is seldom among those of the lowest F1.

    Args:
        predicted: rows that were taken for each class.
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


def worst_and_rarest(
    order: Sequence[str], per_class: Mapping[str, Mapping[str, Any]], most: int
) -> Shown:
    """All classes, or half as many with the lowest F1 and of the others half with the fewest rows; in the order given."""
    if len(order) <= most:
        return Shown(list(order))
    lowest = worst(per_class, most // 2)
    others = [label for label in order if per_class[label]["support"] and label not in lowest]
    rarest = sorted(others, key=lambda label: per_class[label]["support"])[: most // 2]
    chosen = {*lowest, *rarest}
    which = f"the {len(lowest)} with the lowest F1 and, of the others, the {len(rarest)} with the fewest rows"
    if len(rarest) == len(others):
        which = "those that have rows"
    words = f"{len(chosen)} of {len(order):,} classes, {which}"
    return Shown([label for label in order if label in chosen], words)


def largest_and_rarest(by_size: Sequence[str], most: int = MOST_IN_PICTURE) -> Shown:
    """All classes, or half as many from each end of an order by size."""
    if len(by_size) <= most:
        return Shown(list(by_size))
    half = most // 2
    return Shown(
        [*by_size[:half], *by_size[-half:]],
        f"{2 * half} of {len(by_size):,} classes, the {half} largest and the {half} rarest",
    )


def in_words(pairs: Mapping[str, str], where: str) -> str:
    """'label value, label value ...' of some classes; the others are counted, and where all are is said."""
    first = [f"{label} {value}" for label, value in list(pairs.items())[:MOST_IN_SENTENCE]]
    left = len(pairs) - len(first)
    return ", ".join(first) + (f" and {left:,} more, all in {where}" if left else "")
