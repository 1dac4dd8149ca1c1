"""The Optuna study of a search: which trial a worker trains next.

The study is a journal file, which any number of workers share. Only Optuna's databases know when a
worker has died, so each trial has a lock file: a running trial whose lock is free has lost its
worker, and the next worker resumes it with the same values, from its last checkpoint.
"""

import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from trainer.comparison.trainings import Training
from trainer.config.config import Config
from trainer.data.balancing.balance import stage_generator
from trainer.files.locks import if_free, locked
from trainer.run_folder import writer
from trainer.tuning.space import Parameter, parameters, trial_config

STUDY = "study.log"
"""The journal file of the study."""
TRIALS = "trials"
"""The folder of the trials."""
START_UP_TRIALS = 5
"""Trials that are never pruned, and, after the config as it is, drawn at random."""
TRIES = 20
"""Suggestions of Optuna for a trial before a value that was not tried is taken."""
REASON, SECONDS = "reason", "seconds"
"""What is noted of a trial: why it failed, and how long it took."""


@dataclass(frozen=True)
class Search:
    """The trials of a search, finished and running.

    Attributes:
        config: the given config, completed for this hardware.
        path: the folder of the search.
        multi_label: whether a row may have any number of labels.
    """

    config: Config
    path: Path
    multi_label: bool

    @cached_property
    def space(self) -> list[Parameter]:
        """Return the keys that trials change."""
        return parameters(self.config, multi_label=self.multi_label)

    @cached_property
    def study(self) -> optuna.Study:
        """Return the study; the first worker creates it, with the config as its first trial."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with locked(self.path / writer.LOCK, "the study is being opened"):
            study = optuna.create_study(
                storage=JournalStorage(JournalFileBackend(str(self.path / STUDY))),
                study_name=self.config.run.name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=START_UP_TRIALS),
            )
            if not study.get_trials(deepcopy=False):
                study.enqueue_trial({each.key: each.own for each in self.space})
        return study

    @property
    def trials(self) -> list[FrozenTrial]:
        """Return all trials of the study, by number."""
        return self.study.get_trials(deepcopy=False)

    @property
    def finished(self) -> list[FrozenTrial]:
        """Return the trials that are complete, pruned or failed."""
        return [trial for trial in self.trials if trial.state.is_finished()]

    @property
    def complete(self) -> list[FrozenTrial]:
        """Return the trials that have a value, the best first; of equals the earlier one."""
        found = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        return sorted(found, key=lambda trial: (-(trial.value or 0.0), trial.number))

    @property
    def seconds(self) -> float:
        """Return the seconds that the finished trials took."""
        return float(sum(trial.user_attrs.get(SECONDS, 0.0) for trial in self.trials))

    @property
    def is_spent(self) -> bool:
        """Return whether no further trial may start."""
        tune = self.config.tune
        if tune.minutes and self.seconds >= 60 * tune.minutes:
            return True
        started = [trial for trial in self.trials if trial.state != TrialState.WAITING]
        return len(started) >= self.num_trials

    @property
    def num_trials(self) -> int:
        """Return the number of trials in all: that of the config, or of all combinations."""
        sizes = [len(each.choices) if each.choices else None for each in self.space]
        combinations = None if None in sizes else math.prod(filter(None, sizes))
        return min(self.config.tune.trials, combinations or self.config.tune.trials)

    @property
    def is_over(self) -> bool:
        """Return whether all trials of the budget are finished."""
        running = any(trial.state == TrialState.RUNNING for trial in self.trials)
        return not running and self.is_spent

    def folder_of(self, number: int) -> Path:
        """Return the folder of a trial."""
        return self.path / TRIALS / f"{number:04}" / f"seed-{self.config.run.seed}"

    def values_of(self, trial: Any) -> dict[str, Any]:
        """Return {section.key: value} of a trial; new values are suggested for a new trial."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="optuna")
            return {each.key: each.suggest(trial) for each in self.space}

    def training_of(self, trial: Any) -> Training:
        """Return the training of a trial.

        Raises:
            ConfigError: its values contradict each other.
        """
        values = self.values_of(trial) if trial.number else {}
        return Training(
            f"trial {trial.number}",
            trial_config(self.config, self.folder_of(trial.number), values),
        )

    @contextmanager
    def claimed(self) -> Iterator[optuna.Trial | None]:
        """Yield a trial for this worker alone; None if there is none at the moment."""
        with ExitStack() as held:
            study = self.study
            with locked(self.path / writer.LOCK, "a trial is being chosen"):
                trial = self._abandoned(held)
                if trial is None and not self.is_spent:
                    trial = self._new(study, held)
            yield trial

    def _abandoned(self, held: ExitStack) -> optuna.Trial | None:
        """Return a running trial whose worker has died, if there is one."""
        for trial in self.trials:
            if trial.state == TrialState.RUNNING and self._lock(trial.number, held):
                return optuna.Trial(self.study, trial.number)  # a file has one study: id = number
        return None

    def _new(self, study: optuna.Study, held: ExitStack) -> optuna.Trial:
        """Return a new trial with its values."""
        waiting = (trial.number for trial in self.trials if trial.state == TrialState.WAITING)
        number = next(waiting, len(self.trials))
        self._lock(number, held)
        if number == len(self.trials):
            study.enqueue_trial(self._suggested(number))
        trial = study.ask()
        self.values_of(trial)
        return trial

    def _suggested(self, number: int) -> dict[str, Any]:
        """Return values that no trial has had; equal values would give an equal model.

        They are asked for in memory, so that the study holds no trial that is not trained. Each
        number has samplers of its own seeds, so the suggestions depend on the trials before alone.
        """
        known = [self.values_of(trial) for trial in self.trials]
        seeds = stage_generator(self.config.run.seed, f"tune {number}").integers(2**32, size=TRIES)
        for seed in seeds:
            sampler = optuna.samplers.TPESampler(
                seed=int(seed),
                multivariate=True,
                constant_liar=True,
                n_startup_trials=START_UP_TRIALS,
            )
            asked = optuna.create_study(direction="maximize", sampler=sampler)
            asked.add_trials([trial for trial in self.trials if trial.params])
            if (values := self.values_of(asked.ask())) not in known:
                return values
        combinations = product(*(each.choices or (each.own,) for each in self.space))
        listed = (dict(zip(values, each, strict=True)) for each in combinations)
        return next((each for each in listed if each not in known), values)

    def _lock(self, number: int, held: ExitStack) -> bool:
        folder = self.folder_of(number)
        folder.mkdir(parents=True, exist_ok=True)
        return held.enter_context(if_free(folder / writer.LOCK))
