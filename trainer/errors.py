"""The errors that users may see, and functions that keep their messages short and readable.

A message says where the fault is, what was found, what is allowed, and what to do about it.
"""

import re
import unicodedata
from collections.abc import Iterable
from difflib import get_close_matches

MOST_CHARACTERS = 600
"""Maximum length of a message."""
MOST_LINES = 3
"""Maximum number of lines of a message."""
MOST_OF_NAME = 60
"""Maximum length of a label, a column name or a value in a message."""
LISTING_CHARACTERS = 300
"""Maximum length of a list of up to 15 names."""
MOST_FAULTS = 20
"""Maximum number of faults of a config that are listed."""
TAIL_CHARACTERS = 280
"""Length of the end of a message that is kept if the message is too long; it has the remedy."""
TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")
"""An access token of the Hub, which no message may show."""


class TrainerError(Exception):
    """An error with an explanation. The command line prints only this text, and exits with code 2.

    The text is cut to MOST_CHARACTERS and MOST_LINES, whatever files or servers contribute to it.
    All errors of this package derive from it, except ValueError and TypeError for arguments.

    Example:
        >>> from trainer import load_config
        >>> try:
        ...     load_config("nowhere.yaml")
        ... except TrainerError as error:
        ...     print(error)
        nowhere.yaml: cannot be read (No such file or directory). Give the path of a YAML file.
    """

    def __init__(self, message: str) -> None:
        super().__init__(bounded(message))

    def _render_traceback_(self) -> list[str]:
        """Return what Jupyter shows: the message, which says more than a traceback."""
        return [f"{type(self).__name__}: {self}"]


class ConfigError(TrainerError):
    """Faults of the YAML or of --set, one per line; each has at most MOST_CHARACTERS.

    Example:
        >>> from trainer import load_config
        >>> load_config({"model": {"name": "bert"}, "data": {"source": "a.csv"}}, ["run.seed=-1"])
        Traceback (most recent call last):
            ...
        trainer.errors.ConfigError: --set run.seed: run.seed is -1; needed: ...
    """

    def __init__(self, message: str) -> None:
        lines = message.split("\n")
        if len(lines) > MOST_FAULTS:
            lines = [*lines[: MOST_FAULTS - 1], f"and {len(lines) - MOST_FAULTS + 1} more."]
        Exception.__init__(self, "\n".join(map(bounded, lines)))


class DataError(TrainerError):
    """A fault of the data: files, columns, labels or encodings.

    Example:
        >>> from trainer import fit_decision
        >>> fit_decision([], [], ["a", "b"], temperature=True)
        Traceback (most recent call last):
            ...
        trainer.errors.DataError: ...
    """


class ModelError(TrainerError):
    """A model that cannot be found, loaded or used for text classification.

    Example:
        >>> from trainer import Classifier
        >>> Classifier.load("./nowhere")
        Traceback (most recent call last):
            ...
        trainer.errors.ModelError: ./nowhere: ...
    """


class AugmentError(TrainerError):
    """A failure to write synthetic rows."""


class RunError(TrainerError):
    """A run that cannot be started, resumed, written or read.

    Example:
        >>> from trainer import RunResult
        >>> RunResult("nowhere").metrics
        Traceback (most recent call last):
            ...
        trainer.errors.RunError: nowhere: ...
    """


class ExportError(TrainerError):
    """A model that cannot be exported, or whose export gives other results."""


class MissingPackageError(TrainerError):
    """An optional package that is not installed; the message has the command that installs it."""


class TrainingError(TrainerError):
    """Training that cannot continue, for example because the loss is not a number.

    Example:
        >>> from trainer import train
        >>> values = {  # model and tweets are paths
        ...     "model": {"name": model, "max_length": 16},
        ...     "data": {"source": tweets, "text_column": "text", "label_column": "sentiment"},
        ...     "run": {"output_dir": "runs", "name": "diverged"},
        ... }
        >>> try:
        ...     run = train(values, ["training.learning_rate=1e30", "training.max_grad_norm=0"])
        ... except TrainingError as error:
        ...     print(error)
        Read 240 rows ... loss ...
    """


class Stopped(TrainerError):
    """An interrupted run, which the same command resumes.

    Attributes:
        reason: what interrupted it, in words.
        step: the last optimizer step; None before the first.
        is_alone: whether it happened only to this process.
    """

    def __init__(self, reason: str, step: int | None = None, *, is_alone: bool = False) -> None:
        super().__init__(f"{reason}. Run the same command again to resume.")
        self.reason, self.step, self.is_alone = reason, step, is_alone

    def __reduce__(self) -> tuple[type["Stopped"], tuple[str, int | None]]:
        return Stopped, (self.reason, self.step)


def bounded(text: str) -> str:
    """Return a message without control characters, of at most MOST_CHARACTERS and MOST_LINES.

    A longer message loses its middle, because it starts with the place and ends with the remedy.
    """
    text = "".join(character if character == "\n" else _visible(character) for character in text)
    lines = text.split("\n")
    if len(lines) > MOST_LINES:
        text = " ".join(line.strip() for line in lines if line.strip())
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[: MOST_CHARACTERS - TAIL_CHARACTERS - 3]} … {text[-TAIL_CHARACTERS:]}"


def brief(value: object, most: int = MOST_OF_NAME) -> str:
    """Return a label, a column name or another value on one line, without its middle if it is long.

    Example:
        >>> brief("two\\nlines"), brief("a/long/path/file.csv", 12)
        ('two\\\\nlines', 'a/lon…le.csv')
    """
    text = "".join(map(_visible, str(value)))
    return text if len(text) <= most else f"{text[: (most - 1) // 2]}…{text[-(most // 2) :]}"


def _visible(character: str) -> str:
    """Return the character, or an escape for control characters, line ends and half surrogates."""
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp"):
        return repr(character)[1:-1]
    return character


def listing(names: Iterable[object], most: int = 12) -> str:
    """Return the names sorted and separated by commas, with a count of those that are left out.

    At most `most` names and about LISTING_CHARACTERS are listed, and long names are cut by `brief`.
    """
    ordered = sorted(str(name) for name in names)
    room = max(LISTING_CHARACTERS, 20 * most)
    longest = max(MOST_OF_NAME, LISTING_CHARACTERS // max(1, len(ordered)))  # one path stays whole
    shown = [brief(name, longest) for name in ordered[:most]]
    while len(shown) > 1 and len(", ".join(shown)) > room:
        shown.pop()
    rest = len(ordered) - len(shown)
    return ", ".join(shown) + (f" and {rest:,} more" if rest else "")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: '1 row', '1,234 rows'."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" with the nearest known name, or nothing if none is near."""
    nearest = get_close_matches(str(name)[:200], list(known), n=1, cutoff=0.6)
    return f" Did you mean '{brief(nearest[0])}'?" if nearest else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type, as a sentence of 300 characters.

    An access token in it is replaced by `***`.
    """
    lines = (line.strip() for line in str(error).splitlines())
    text = next(filter(None, lines), type(error).__name__)
    line = brief(TOKEN.sub("***", text), 300)
    return line if line.endswith(".") else f"{line}."
