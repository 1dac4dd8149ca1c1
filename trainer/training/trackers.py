"""Experiment trackers of `training.report_to`: what they cannot log or upload costs no run, and what they do at the end waits for the saved model."""

import logging
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from trainer.errors import Stopped, first_line

logger = logging.getLogger(__name__)
EVENTS = (
    *(
        "on_epoch_begin",
        "on_epoch_end",
        "on_step_begin",
        "on_pre_optimizer_step",
        "on_optimizer_step",
        "on_substep_end",
        "on_step_end",
    ),
    *("on_evaluate", "on_predict", "on_save", "on_log", "on_prediction_step"),
)


class Tracker(TrainerCallback):
    """A tracker's callback whose faults after the start are warnings; the first of each event is said.

    Its start may fail: nothing is lost then. Its `on_train_end`, which uploads models, is kept for `finish`.
    """

    def __init__(self, callback: TrainerCallback) -> None:
        self.callback = callback
        self._end: Callable[[], Any] | None = None
        self._said: set[str] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Start."""
        return self.callback.on_train_begin(args, state, control, **kwargs)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what is to be done when the run is saved."""
        self._end = lambda: self.callback.on_train_end(args, state, control, **kwargs)

    def finish(self) -> None:
        """Do what was kept."""
        if self._end:
            self.attempt("on_train_end", self._end)
            self._end = None

    def attempt(self, event: str, action: Callable[[], Any]) -> Any:
        """Let the tracker do something; a fault becomes a warning."""
        try:
            return action()
        except Stopped:
            raise
        except Exception as error:
            if event not in self._said:
                self._said.add(event)
                name = type(self.callback).__name__.removesuffix("Callback")
                logger.warning(
                    "%s failed (%s): %s The training goes on; the tracker may lack figures or files.",
                    name,
                    event,
                    first_line(error),
                )
            return None


def _forwarded(event: str) -> Callable[..., Any]:
    def forward(self: Tracker, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        return self.attempt(
            event, lambda: getattr(self.callback, event)(args, state, control, **kwargs)
        )

    return forward


for name in EVENTS:
    setattr(Tracker, name, _forwarded(name))


def guard(callbacks: list[TrainerCallback]) -> None:
    """Put every tracker of transformers among the callbacks into a `Tracker`."""
    kinds = tuple(INTEGRATION_TO_CALLBACK.values())
    callbacks[:] = [
        Tracker(callback) if isinstance(callback, kinds) else callback for callback in callbacks
    ]
