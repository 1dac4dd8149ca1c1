"""How a command ends: our errors become one clear message and exit code 2, never a traceback."""

import errno
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from trainer.errors import TrainerError, TrainingError, bounded, first_line
from trainer.launch import watch
from trainer.launch.distributed import is_first_of_machine, is_main, name_of_process


@contextmanager
def worded_errors() -> Iterator[None]:
    """Our errors and the system's as one message on standard error, said by the main process; exit code 2."""
    warnings.formatwarning = lambda message, *_, **__: (
        f"warning: {bounded(str(message))}\n" if is_main() else ""
    )
    try:
        yield
    except TrainerError as error:
        end(str(error), everywhere=isinstance(error, TrainingError))
    except BrokenPipeError:  # who reads our output has enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(141) from None
    except OSError as error:
        remedy = (
            " Free space; what was saved before is kept."
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else ""
        )
        end(
            bounded(
                f"{error.filename or 'a file'}: {error.strerror or first_line(error).rstrip('.')}.{remedy}"
            ),
            everywhere=True,
        )
    except KeyboardInterrupt:
        end(
            "stopped by the keyboard; run the same command again to go on from the last checkpoint.",
            130,
        )


def end(message: str, code: int = 2, everywhere: bool = False) -> None:
    """Say it once; on every process what may have happened on one alone; until the processes know each other on each machine."""
    if is_main():
        print(message, file=sys.stderr, flush=True)
    elif everywhere or (is_first_of_machine() and not watch.is_watching()):
        print(f"{name_of_process()}: {message}", file=sys.stderr, flush=True)
    raise SystemExit(code)
