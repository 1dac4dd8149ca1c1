"""Train the trials of a search, one after the other, beside any number of other workers."""

import time
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from trainer.errors import (
    ConfigError,
    DataError,
    ModelError,
    Stopped,
    TrainingError,
    first_line,
)
from trainer.launch import stopping
from trainer.progress import print_line, progress_bar
from trainer.tuning import trials
from trainer.tuning.rows import SearchData
from trainer.tuning.search import REASON, SECONDS, Search
from trainer.tuning.space import shown, values_words

POLL_SECONDS = 1.0
"""Seconds between two looks for a free trial."""
STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def work(search: Search, data: SearchData) -> None:
    """Train until all trials of the budget are finished, by this worker or by others.

    Raises:
        TrainingError: the config as it is cannot be trained.
        Stopped: on a signal.
    """
    tune = search.config.tune
    limit = f" or {tune.minutes:g} minutes" if tune.minutes else ""
    begun = len(search.finished)
    print_line(
        f"{search.num_trials} trials{limit}, {begun} of them finished; {tune.metric} decides."
    )
    for each in search.space:
        print_line(f"  {each.key}: {each.words}; the config has {shown(each.own)}")
    bar = progress_bar(total=search.num_trials, initial=begun, unit=" trials", leave=True)
    is_waiting = False
    while not search.is_over:
        if signal := stopping.received():
            raise Stopped(f"stopped by {signal} between two trials")
        refuse_failed_config(search)
        with search.claimed() as trial:
            if trial:
                bar.set_description(f"trial {trial.number}")
                _train(search, data, trial)
                print_line(line_of(search, search.trials[trial.number]))
        if not trial:
            if not is_waiting:
                print_line("Waiting for the trials of other workers.")
            is_waiting = True
            time.sleep(POLL_SECONDS)
        bar.update(len(search.finished) - bar.n)
    bar.close()
    refuse_failed_config(search)


def refuse_failed_config(search: Search) -> None:
    """Raise TrainingError if the config as it is, the first trial, has failed."""
    first = search.trials[0]
    if first.state == TrialState.FAIL:
        raise TrainingError(
            f"tune: the config as it is cannot be trained: {first.user_attrs[REASON]} Correct it,"
            " and start again with --resume never."
        )


def _train(search: Search, data: SearchData, trial: optuna.Trial) -> None:
    """Train a trial and tell Optuna its end; a trial that fails does not end the search."""
    begin, before = time.monotonic(), trial.user_attrs.get(SECONDS, 0.0)
    state, value, reason = TrialState.FAIL, None, ""
    try:
        value = trials.train(trial, search.training_of(trial), data)
        state = TrialState.COMPLETE
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except (ConfigError, DataError, ModelError, TrainingError) as error:
        reason = first_line(error)
    finally:  # also of a trial that a signal stopped
        trial.set_user_attr(SECONDS, before + time.monotonic() - begin)
    if reason:
        trial.set_user_attr(REASON, reason)
    search.study.tell(trial.number, value, state=state)
    trials.drop_checkpoints(search.folder_of(trial.number))


def line_of(search: Search, trial: FrozenTrial) -> str:
    """Return the line of a finished trial: its end, its metric, the best so far, its values."""
    best = search.complete[0] if search.complete else None
    value = "" if trial.value is None else f" {trial.value:.4f}"
    so_far = f" (best {best.value:.4f}, trial {best.number})" if best else ""
    return (
        f"trial {trial.number}: {STATES[trial.state]}{value}{so_far},"
        f" {trial.user_attrs.get(SECONDS, 0.0):.0f} s. {ending(search, trial)}"
    )


def ending(search: Search, trial: Any) -> str:
    """Return why a trial failed, or its values."""
    if reason := trial.user_attrs.get(REASON):
        return str(reason)
    values = search.values_of(trial) if trial.number else {}
    return values_words(values) or "the config as it is"
