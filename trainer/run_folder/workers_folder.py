"""The folder in which workers divide trainings among themselves, and the last one writes a result.

The commands `compare` and `tune` have such a folder, beside the run folder.
"""

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xxhash

from trainer.config.config import Config
from trainer.data.cleaning.clean import CleanRows
from trainer.errors import RunError
from trainer.files.locks import holder, if_free, locked
from trainer.run_folder import config_differences, writer
from trainer.run_folder.environment import Commits, describe_environment


@dataclass(frozen=True)
class WorkersFolder:
    """A folder that any number of workers share.

    Attributes:
        what: what it holds, such as "comparison".
        result: name of the JSON file that is written last.
        files: names of all files.
        folders: names of all folders; a training locks `<folder>/*/*/<lock>`.
        again: the sentence that says how to train again what is finished.
        ignored: beginnings of the names of further files, which stay.
    """

    path: Path
    what: str
    result: str
    files: tuple[str, ...]
    folders: tuple[str, ...]
    again: str
    ignored: tuple[str, ...] = (".",)

    def open(
        self,
        config: Config,
        clean: CleanRows,
        commits: Commits,
        identity: str,
        differences: Callable[[], str],
        resume: str,
    ) -> bool:
        """Return whether the folder holds the finished result; else prepare the folder.

        Args:
            differences: returns what differs from the config and rows that are there, in words.
            resume: 'never' discards what is there.
        Raises:
            RunError: it holds other files; or results of another config or other rows, and
                `run.overwrite` is not set; or they are still being trained.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        with locked(self.path / writer.LOCK, f"a {self.what} is being opened"):
            differs = differences() if "config.yaml" in self._names() else ""
            if differs and not config.run.overwrite and resume != "never":
                raise RunError(
                    f"{self.path}: holds a {self.what} that differs: {differs}. Set run.overwrite:"
                    " true or --resume never to start again, or set another run.name."
                )
            if differs or resume == "never":
                self._discard()
            if self.is_concluded(identity):
                print(
                    f"{self.path}: holds the finished {self.what} of this config and data: nothing"
                    f" to do. {self.again}"
                )
                return True
            folder = writer.RunFolder(self.path)
            folder.write_text("config.yaml", config.to_yaml())
            environment = describe_environment(clean.fingerprint, clean.counts, 1, commits)
            folder.write_json("environment.json", environment)
        return False

    def _names(self) -> set[str]:
        """Return the names of the files and folders there.

        Raises:
            RunError: some are of another kind.
        """
        names = {found.name for found in self.path.iterdir() if found.suffix != ".partial"}
        names = {name for name in names if not name.startswith(self.ignored)}
        if not names <= {*self.files, *self.folders, writer.STOPPED}:
            raise RunError(
                f"{self.path}: holds files but no {self.what}. Set run.name or run.output_dir to"
                " another folder."
            )
        return names

    def is_concluded(self, identity: str) -> bool:
        """Return whether the result of this identity is written."""
        try:
            return bool(self.read().get("identity") == identity)
        except (OSError, ValueError, AttributeError):  # missing or damaged: it is written again
            return False

    def read(self) -> dict[str, Any]:
        """Return the values of the result."""
        return json.loads((self.path / self.result).read_text(encoding="utf-8"))

    def _discard(self) -> None:
        """Remove what is there.

        Raises:
            RunError: another process is training a part of it.
        """
        with ExitStack() as locks:
            for folder in self.folders:
                for lock in (self.path / folder).glob(f"*/*/{writer.LOCK}"):
                    if not locks.enter_context(if_free(lock)):
                        raise RunError(
                            f"{lock.parent}: is being trained by {holder(lock)}. Stop it before you"
                            f" discard the {self.what}."
                        )
            for name in self.files:
                (self.path / name).unlink(missing_ok=True)
            for name in self.folders:
                shutil.rmtree(self.path / name, ignore_errors=True)


def identity_of(config: Config, fingerprint: str, section: str) -> str:
    """Return a digest of all that results depend on: config with a section, and data."""
    values = {
        key: value
        for key, value in config_differences.flat(config.to_dict()).items()
        if not config_differences.is_not_compared(key) or key.startswith(f"{section}.")
    }
    return xxhash.xxh3_128(json.dumps([values, fingerprint], sort_keys=True).encode()).hexdigest()


def alone(config: Config, **sections: dict[str, Any]) -> Config:
    """Return the config of a process that trains by itself and pushes nothing.

    Args:
        sections: sections of the config that are replaced.
    """
    values = config.to_dict() | {"hub": {}} | sections
    values["run"] |= {"num_processes": 1}
    return Config.model_validate(values)
