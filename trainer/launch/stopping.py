"""Stop signals (preemption, time limit): end a run after a checkpoint, at the same step."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainer.errors import Stopped
from trainer.launch.distributed import largest_of_all

SIGNALS = ("SIGTERM", "SIGUSR1")
EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the same command, run again, resumes."""

_received = 0
"""The number in SIGNALS of the received signal, from 1; 0 for none."""
_is_training = False


@contextmanager
def listening() -> Iterator[None]:
    """Raise Stopped at the first stop signal in the block; during training only at agreed steps."""
    global _received
    if threading.current_thread() is not threading.main_thread():  # it gets no signals
        yield
        return
    _received = 0
    before = {
        name: signal.signal(getattr(signal, name), _receive)
        for name in SIGNALS
        if hasattr(signal, name)
    }
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
        _received = 0  # otherwise the next training of this process would stop at once


@contextmanager
def at_agreed_steps() -> Iterator[None]:
    """Let signals wait for the next `agreed`; one after the last call is ignored."""
    global _is_training
    _is_training = True
    try:
        yield
    finally:
        _is_training = False


def agreed() -> str | None:
    """Return the signal that any process received; all processes call this at the same place."""
    number = largest_of_all(_received)
    return SIGNALS[number - 1] if number else None


def received() -> str | None:
    """Return the signal that this process received, if any."""
    return SIGNALS[_received - 1] if _received else None


def stop_if_agreed(step: int | None = None) -> None:
    """Raise Stopped if a process received a signal; all processes call this at the same place.

    Args:
        step: the last optimizer step.
    """
    if name := agreed():
        when = "before the first step" if step is None else f"after step {step}"
        raise Stopped(f"stopped by {name} {when}", step)


def stop_if_received(when: str = "before the first step") -> None:
    """Raise Stopped if this process received a signal, in work that only one process does.

    Args:
        when: what was being done.
    """
    if name := received():
        raise Stopped(f"stopped by {name} {when}")


def _receive(number: int, _frame: Any) -> None:
    global _received
    if _received:
        return
    _received = SIGNALS.index(signal.Signals(number).name) + 1
    if not _is_training:
        raise Stopped(f"stopped by {SIGNALS[_received - 1]} while no step was being trained")
