"""Stop signals: SIGTERM and SIGUSR1 (preemption, time limit) end a run after a checkpoint, at a step that all processes agree on."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from trainer.errors import Stopped
from trainer.launch.distributed import largest_of_all

SIGNALS = ("SIGTERM", "SIGUSR1")
EXIT_CODE = 75
"""EX_TEMPFAIL of sysexits.h: the same command, given again, goes on."""

_received = 0
"""Which of SIGNALS came, counted from 1; 0 for none. Signals belong to the process, so this does too."""
_is_training = False


@contextmanager
def listening() -> Iterator[None]:
    """Within, the first stop signal raises Stopped, while a model trains only where `agreed` is asked; all others are ignored."""
    global _received
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python gives signals to the main thread alone
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
        _received = 0  # else the next training of this process would stop at its first step


@contextmanager
def at_agreed_steps() -> Iterator[None]:
    """Within, a signal waits for the next `agreed`; one that comes after the last is left alone."""
    global _is_training
    _is_training = True
    try:
        yield
    finally:
        _is_training = False


def agreed() -> str | None:
    """The signal that any of the processes received; all call it at the same place and get the same answer."""
    number = largest_of_all(_received)
    return SIGNALS[number - 1] if number else None


def received() -> str | None:
    """The signal that this process received, if one came."""
    return SIGNALS[_received - 1] if _received else None


def stop_if_agreed(step: int | None = None) -> None:
    """Raises Stopped when a process received a signal; all call it at the same place.

    Args:
        step: the last optimizer step.
    """
    received = agreed()
    if received:
        raise Stopped(
            f"stopped by {received} {'before the first step' if step is None else f'after step {step}'}",
            step,
        )


def _receive(number: int, _frame: Any) -> None:
    global _received
    if _received:
        return
    _received = SIGNALS.index(signal.Signals(number).name) + 1
    if not _is_training:
        raise Stopped(f"stopped by {SIGNALS[_received - 1]} while no step was being trained")
