"""The end of a command: an error becomes one message and exit code 2, without a traceback."""

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.errors import TrainerError, TrainingError, bounded, first_line
from trainer.launch import watch
from trainer.launch.distributed import is_first_of_machine, is_main, name_of_process
from trainer.progress import cleared, close_bars


@contextmanager
def worded_errors() -> Iterator[None]:
    """Turn our errors and those of the system into one message of the main process.

    A warning is printed once, however often it comes: a comparison trains with the same rows again
    and again.
    """
    printed: set[str] = set()

    def worded(message: Warning | str, *_: object, **__: object) -> str:
        words = bounded(str(message))
        if words in printed or not is_main():
            return ""
        printed.add(words)
        return f"{cleared()}warning: {words}\n"

    warnings.formatwarning = worded
    try:
        yield
    except TrainerError as error:
        end(str(error), everywhere=isinstance(error, TrainingError))
    except BrokenPipeError:  # the reader of our output has ended, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        words = f"{error.filename or 'a file'}: {error.strerror or first_line(error).rstrip('.')}."
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            words += " Free space; all that was saved before is kept."
        end(bounded(words), everywhere=True)
    except KeyboardInterrupt:
        end(
            "stopped by the keyboard; run the same command again to resume from the last"
            " checkpoint, if there is one.",
            130,
        )


def end(message: str, code: int = 2, everywhere: bool = False) -> None:
    """Close the progress bars, print a message and exit.

    The main process prints it; with `everywhere` all do. Before the processes are connected, the
    first of each machine prints it.
    """
    close_bars()
    if is_main():
        print(message, file=sys.stderr, flush=True)
    elif everywhere or (is_first_of_machine() and not watch.is_watching()):
        print(f"{name_of_process()}: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)
