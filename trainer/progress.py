"""What a command shows while it works: one line for each finished stage, and progress bars.

Bars appear on terminals only, not in files and not in continuous integration (the variable `CI`).
Of several processes, the main one shows both.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from tqdm.auto import tqdm

WORDS_WIDTH = 68
"""Characters of a stage before its time."""


def _is_shown() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def progress_bar(iterable: Any = None, *, leave: bool = False, **options: Any) -> Any:
    """Return a tqdm bar, which shows nothing where no bar is wanted.

    Args:
        leave: whether the bar stays visible when it is finished.
        options: those of tqdm, such as `desc`, `total` and `unit`.
    """
    is_ci = os.environ.get("CI", "").lower() not in ("", "0", "false")
    # None: tqdm itself looks whether its file is a terminal
    disable = None if _is_shown() and not is_ci else True
    return tqdm(iterable, leave=leave, disable=disable, dynamic_ncols=True, **options)


def print_line(text: str, file: TextIO | None = None) -> None:
    """Print a line of the main process above the bars, on the standard output by default."""
    if _is_shown():
        tqdm.write(text, file=file or sys.stdout)
        (file or sys.stdout).flush()


@contextmanager
def stage() -> Iterator[Callable[[str], None]]:
    """Give a function that prints what a stage has done, with the seconds since its start.

    Example:
        >>> with stage() as done:  # doctest: +SKIP
        ...     done("Read 38,158 rows")
        Read 38,158 rows                                                       1.2 s
    """
    begin = time.perf_counter()
    yield lambda words: print_line(f"{words:<{WORDS_WIDTH}} {time.perf_counter() - begin:7.1f} s")


def cleared() -> str:
    """Return what to print before a message, so that it does not continue the line of a bar."""
    is_live = any(not each.disable for each in getattr(tqdm, "_instances", ()))
    return "\r\x1b[K" if is_live else ""


def close_bars() -> None:
    """Close the bars that an interruption left open, so that the terminal is as before."""
    for each in list(getattr(tqdm, "_instances", ())):
        each.close()
