"""The errors a user may see, and the helpers that word them: where, found, allowed, remedy."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
"""A Hub token; no message shows one."""


class TrainerError(Exception):
    """Any fault we can explain; the command line prints its text alone and exits with code 2."""


class ConfigError(TrainerError):
    """A fault of the YAML or of a --set override."""


class DataError(TrainerError):
    """A fault of the rows: files, columns, labels, encodings."""


class ModelError(TrainerError):
    """A model that cannot be found, loaded or used for text classification."""


class AugmentError(TrainerError):
    """Synthetic rows that could not be written."""


class RunError(TrainerError):
    """A run folder that cannot be started, resumed or written."""


class ExportError(TrainerError):
    """A model that cannot be written in another format, or that answers differently there."""


class TrainingError(TrainerError):
    """Training that cannot go on, such as a loss that is not a number."""


class Stopped(TrainerError):
    """A run that ended before its time; the same command goes on with it.

    Attributes:
        reason: what ended it, in words.
        step: the last optimizer step; None before the first.
        is_alone: whether it happened to this process alone.
    """

    def __init__(self, reason: str, step: int | None = None, *, is_alone: bool = False) -> None:
        super().__init__(f"{reason}. Run the same command again to go on.")
        self.reason, self.step, self.is_alone = reason, step, is_alone

    def __reduce__(self) -> tuple[type["Stopped"], tuple[str, int | None]]:
        return Stopped, (self.reason, self.step)


def listing(names: Iterable[object], most: int = 12) -> str:
    """Sorted, comma-separated names, cut after `most` with a count of the rest."""
    ordered = sorted(str(name) for name in names)
    rest = len(ordered) - most
    return ", ".join(ordered[:most]) + (f" and {rest} more" if rest > 0 else "")


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest known name, or nothing."""
    nearest = get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    return f" Did you mean '{nearest[0]}'?" if nearest else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, or its kind where it has none; ended by a full stop. A token that a server repeats is blotted out."""
    line = TOKEN.sub("***", next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__))
    return line if line.endswith(".") else f"{line}."
