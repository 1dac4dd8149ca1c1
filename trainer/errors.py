"""The errors a user may see, and the helpers that word them: where, found, allowed, remedy."""

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

MOST_CHARACTERS = 600
MOST_LINES = 3
"""Of a message."""
MOST_OF_NAME = 60
"""Characters shown of one name: a label, a column, a value."""
LISTING_CHARACTERS = 300
"""Characters of a list of at most 15 names."""
MOST_FAULTS = 20
"""Lines of the faults of a config."""
TAIL_CHARACTERS = 280
"""End of a message that is kept when it is too long: remedies stand there."""
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
"""A Hub token; no message shows one."""


class TrainerError(Exception):
    """Any fault we can explain; the command line prints its text alone and exits with code 2.

    The text has at most MOST_CHARACTERS and MOST_LINES, whatever a file or a server put into it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(bounded(message))


class ConfigError(TrainerError):
    """Faults of the YAML or of --set overrides, one a line; each has at most MOST_CHARACTERS."""

    def __init__(self, message: str) -> None:
        lines = message.split("\n")
        if len(lines) > MOST_FAULTS:
            lines = [*lines[: MOST_FAULTS - 1], f"and {len(lines) - MOST_FAULTS + 1} more."]
        Exception.__init__(self, "\n".join(map(bounded, lines)))


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


def bounded(text: str) -> str:
    """Return a message that a terminal can show: at most MOST_CHARACTERS and MOST_LINES, no control characters.

    What is too long loses its middle: it begins with the place of the fault and ends with the remedy.
    """
    text = "".join(character if character == "\n" else _visible(character) for character in text)
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        text = " ".join(line.strip() for line in lines if line.strip())
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[: MOST_CHARACTERS - TAIL_CHARACTERS - 3]} … {text[-TAIL_CHARACTERS:]}"


def brief(value: object, most: int = MOST_OF_NAME) -> str:
    """Return a label, a column name or another value on one line; of more than `most` characters the middle is left out.

    Example:
        >>> brief("two\\nlines"), brief("a/long/path/file.csv", 12)
        ('two\\\\nlines', 'a/lon…le.csv')
    """
    text = "".join(map(_visible, str(value)))
    return text if len(text) <= most else f"{text[: (most - 1) // 2]}…{text[-(most // 2) :]}"


def _visible(character: str) -> str:
    """The character; control characters, line ends and halves of surrogate pairs as escapes."""
    return (
        character
        if character.isprintable()
        or unicodedata.category(character) not in ("Cc", "Cs", "Zl", "Zp")
        else repr(character)[1:-1]
    )


def listing(names: Iterable[object], most: int = 12) -> str:
    """Sorted, comma-separated names; after `most` of them, or 300 characters, a count of the rest. Long names are cut by `brief`."""
    ordered = sorted(str(name) for name in names)
    room = max(LISTING_CHARACTERS, 20 * most)
    longest = max(
        MOST_OF_NAME, LISTING_CHARACTERS // max(1, len(ordered))
    )  # a single path stays whole
    shown: list[str] = []
    for name in (brief(name, longest) for name in ordered[:most]):
        if shown and len(", ".join([*shown, name])) > room:
            break
        shown.append(name)
    rest = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest > 0 else "")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: '1 row', '1,234 rows'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """' Did you mean 'x'?' for the nearest known name, or nothing."""
    nearest = get_close_matches(str(name)[:200], list(known), n=1, cutoff=0.6)
    return f" Did you mean '{brief(nearest[0])}'?" if nearest else ""


def first_line(error: BaseException) -> str:
    """The first line of an error's text, cut to 300 characters, or its kind where it has none; ended by a full stop.

    A token that a server repeats is blotted out.
    """
    line = TOKEN.sub(
        "***",
        next(
            (line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__
        ),
    )
    line = brief(line, 300)
    return line if line.endswith(".") else f"{line}."
