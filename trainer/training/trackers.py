"""Experiment trackers of `training.report_to`, made harmless to the run.

If a tracker cannot log or upload, a warning is logged. What a tracker does at the end of training
waits until the model is saved.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from trainer.errors import Stopped, first_line

logger = logging.getLogger(__name__)


class Tracker:
    """The callback of a tracker, whose faults after its start are warnings, one for each event.

    A fault of its start ends the run, when nothing is lost yet. Its `on_train_end`, which uploads
    models, is delayed until `finish`.
    """

    def __init__(self, callback: Any) -> None:
        self.callback = callback
        self._end: Callable[[], Any] | None = None
        self._failed: set[str] = set()

    def __getattr__(self, event: str) -> Callable[..., Any]:
        return partial(self.attempt, event)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> Any:
        """Start the tracker."""
        return self.callback.on_train_begin(*args, **kwargs)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Delay the tracker's work at the end of training."""
        self._end = partial(self.attempt, "on_train_end", *args, **kwargs)

    def finish(self) -> None:
        """Do the delayed work, once."""
        if self._end:
            self._end()
            self._end = None

    def attempt(self, event: str, *args: Any, **kwargs: Any) -> Any:
        """Call the tracker for an event, and log a fault as a warning."""
        try:
            return getattr(self.callback, event)(*args, **kwargs)
        except Stopped:
            raise
        except Exception as error:
            if event not in self._failed:
                self._failed.add(event)
                logger.warning(
                    "%s failed (%s): %s Training continues; the tracker may lack values or files.",
                    type(self.callback).__name__.removesuffix("Callback"),
                    event,
                    first_line(error),
                )
            return None


def guard(callbacks: list[Any]) -> None:
    """Replace every tracker of transformers among the callbacks by a `Tracker`."""
    kinds = tuple(INTEGRATION_TO_CALLBACK.values())
    callbacks[:] = [Tracker(each) if isinstance(each, kinds) else each for each in callbacks]
