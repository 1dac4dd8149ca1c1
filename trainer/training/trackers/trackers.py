"""Experiment trackers of `training.report_to`, which never cost a run its model.

The callbacks of transformers log the training curve. `destinations.py` adds where they write, the
config and the pictures. A fault of a tracker is a warning.
"""

import atexit
import json
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from trainer.config.sections.tracker_names import chosen_trackers
from trainer.errors import Stopped, counted, first_line
from trainer.launch.distributed import is_main
from trainer.training.trackers.destinations import DESTINATIONS, Destination
from trainer.training.trackers.tracked_run import UNNAMED, TrackedRun, result_figures

logger = logging.getLogger(__name__)
_OPEN: "list[Destination]" = []
"""Trackers that have started and not ended. Most trackers know only one run per process, so those
of a run that failed are ended before the next one starts, or when the process ends."""


class Trackers:
    """Callback that passes the events of a training to its trackers, in the main process alone.

    A fault of a tracker is a warning, one for each kind of event. A tracker that cannot start is
    left out. What trackers do at the end of training waits for `finish`, after the model is saved.

    Args:
        report_to: value of `training.report_to`.
        run: the run as trackers show it.
    Attributes:
        failures: {name of a tracker: number of failures}.
    """

    def __init__(self, report_to: Any = "none", run: TrackedRun = UNNAMED) -> None:
        self.names = chosen_trackers(report_to) if is_main() else []
        self.run = run
        self.failures: Counter[str] = Counter()
        self._live: list[Destination] = []
        self._told: set[tuple[str, str]] = set()
        self._moment: tuple[Any, ...] = ()

    def __getattr__(self, event: str) -> Callable[..., None]:
        if not event.startswith("on_"):
            raise AttributeError(event)
        return partial(self._pass_on, event)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the trackers; a resumed training continues their runs."""
        self._end_failed()
        args.run_name = self.run.name
        for name in self.names:
            destination = DESTINATIONS.get(name, Destination)(name, self.run)
            _OPEN.append(destination)
            if self._attempt(
                name, "start", partial(destination.start, args, state, control, **kwargs)
            ):
                self._live.append(destination)
        # registered after the trackers' own handlers, so called before they end a run as finished
        atexit.register(self._end_failed)

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Delay the work of trackers at the end of training until `finish`."""
        self._moment = args

    def finish(self, folder: Path) -> None:
        """Log the results and pictures of a finished run folder, and end the trackers."""
        if not self._live:
            return
        args, state, control = self._moment
        pictures = sorted(folder.glob("*.png"))
        for each in self._live:
            self._attempt(each.name, "results", partial(self._log_results, each, folder))
            self._attempt(each.name, "pictures", partial(each.log_pictures, pictures, state))
            self._attempt(
                each.name, "on_train_end", partial(each.callback.on_train_end, args, state, control)
            )
            self._attempt(each.name, "end", partial(each.end, is_failed=False))
            _OPEN.remove(each)
        self._live = []

    def _log_results(self, tracker: Any, folder: Path) -> None:
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        figures = result_figures(metrics, tracker.unsuited)
        tracker.callback.on_log(*self._moment, logs=figures)

    def sentences(self) -> list[str]:
        """Return a sentence for the report about each tracker that failed so far."""
        return [
            f"tracker {name}: {counted(number, 'failure')}; it may lack values or files"
            for name, number in self.failures.items()
        ]

    def _end_failed(self) -> None:
        """End the trackers of a run that failed or was stopped."""
        while _OPEN:
            left = _OPEN.pop()
            self._attempt(left.name, "end", partial(left.end, is_failed=True))

    def _pass_on(self, event: str, *args: Any, **kwargs: Any) -> None:
        for each in self._live:
            self._attempt(each.name, event, partial(getattr(each.callback, event), *args, **kwargs))

    def _attempt(self, name: str, event: str, action: Callable[[], Any]) -> bool:
        """Return whether the action of a tracker succeeds, and log a fault as a warning."""
        try:
            action()
        except Stopped:
            raise
        except Exception as error:
            self.failures[name] += 1
            if (name, event) not in self._told:
                self._told.add((name, event))
                logger.warning(
                    "Tracker %s failed (%s): %s Training continues; the tracker may lack values or"
                    " files.",
                    name,
                    event,
                    first_line(error),
                )
            return False
        return True


def log_finished(
    report_to: Any, run: TrackedRun, arguments: TrainingArguments, folder: Path
) -> None:
    """Log a finished run folder that no trainer made, such as that of an ensemble."""
    trackers = Trackers(report_to, run)
    moment = arguments, TrainerState(), TrainerControl()
    trackers.on_train_begin(*moment)
    trackers.on_train_end(*moment)
    trackers.finish(folder)
