"""Uploads of a training run: processes of their own, which end when the training ends, and never fail, hang or slow it."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm.auto import tqdm

from trainer.config.sections.hub import HubSection
from trainer.delivery.hub import hub as hub_module
from trainer.errors import Stopped
from trainer.launch import stopping
from trainer.launch.distributed import is_main
from trainer.run_folder.writer import RunFolder

LAST_SAVE_SECONDS = 60.0
"""How long the end of a training waits for the upload of a checkpoint that is under way."""
GRACE_SECONDS = 30.0
"""What an upload may take longer than its own time limit before it is killed."""


@contextmanager
def uploading(hub: HubSection, run: Path) -> Iterator[Callable[[Path, int], None] | None]:
    """Pushes the run, unless that is done, when the block ends without an error.

    Yields what takes each checkpoint with its step, None where nothing is to be done with them.

    A stop signal or an error in the block ends an upload at once. One that comes later, while the finished run is pushed, ends the push alone.
    """
    if not (hub.push and is_main()):
        yield None
        return
    saves = SavedModels(hub, RunFolder(run))
    try:
        yield saves.offer if hub.every == "save" else None
    except BaseException:
        saves.close(0)
        raise
    try:
        signal = (
            stopping.received()
        )  # too late for the run, which is finished, but not for its push
        saves.close(0 if signal else LAST_SAVE_SECONDS)
        if hub_module.is_pushed(run, hub):  # the run was found finished
            return
        fault = f"stopped by {signal}." if signal else _push(run, hub)
    except (Stopped, KeyboardInterrupt) as stop:
        saves.close(0)
        fault = (
            f"stopped by {stopping.received() if isinstance(stop, Stopped) else 'the keyboard'}."
        )
    except OSError as error:  # no process could be started
        fault = hub_module.words_of(error)
    if fault:
        print(hub_module.failure(run, hub, fault), file=sys.stderr, flush=True)


class SavedModels:
    """The models of checkpoints, uploaded one at a time; the newest that waits is next, older ones are passed over."""

    def __init__(self, hub: HubSection, run: RunFolder) -> None:
        self.hub, self.run = hub, run
        self._lock = threading.Lock()
        self._waiting: tuple[Path, int] | None = None
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None
        self._closed = self._has_staged = False

    def offer(self, checkpoint: Path, step: int) -> None:
        """Upload the model of a checkpoint when the one under way is done; returns at once."""
        self._has_staged = True
        try:
            staged = self.run.stage_model(hub_module.model_files(checkpoint), step)
        except OSError as error:
            print(
                f"The model of step {step} is not pushed: {hub_module.words_of(error)}",
                file=sys.stderr,
                flush=True,
            )
            return
        with self._lock:
            passed_over, self._waiting = self._waiting, (staged, step)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._work, daemon=True)
                self._thread.start()
        if passed_over:
            shutil.rmtree(passed_over[0], ignore_errors=True)

    def close(self, seconds: float) -> None:
        """Forget what waits, wait so long for what is under way, then kill it; nothing is left of it on disk."""
        with self._lock:
            self._closed, self._waiting, thread = True, None, self._thread
        if thread is not None:
            thread.join(seconds)
            with self._lock:
                if self._process is not None:
                    self._process.kill()
            thread.join(5)
        if self._has_staged:  # else they might be those of another training of this folder
            self.run.drop_staged()

    def _work(self) -> None:
        while True:
            with self._lock:
                if self._waiting is None or self._closed:
                    self._thread = None
                    return
                (staged, step), self._waiting = self._waiting, None
                hub = self.hub.model_copy(
                    update={"commit_message": f"Step {step}: {self.hub.commit_message}"}
                )
                try:
                    self._process = _start(staged, hub, quiet=True)
                except OSError as error:
                    tqdm.write(
                        f"The model of step {step} was not pushed: {hub_module.words_of(error)}",
                        file=sys.stderr,
                    )
                    continue
            told = _end_of(self._process, hub)
            shutil.rmtree(staged, ignore_errors=True)
            with self._lock:
                code, self._process = self._process.returncode, None
                if self._closed and code:
                    return
            is_pushed = code == 0 and bool(told) and told[-1].startswith("Pushed to ")
            line = (
                f"Step {step}: {told[-1]}"
                if is_pushed
                else f"The model of step {step} was not pushed: {hub_module.reason_in(told)}"
            )
            tqdm.write(line, file=sys.stderr)


def _push(run: Path, hub: HubSection) -> str | None:
    """Why the push of a finished run did not come to its end; None where its process told how it ended."""
    process = _start(run, hub)
    try:
        code = process.wait(60 * hub.timeout_minutes + GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        return "it did not end."
    finally:
        process.kill()  # nothing where it has ended
        process.wait()
    return None if code in (0, 2) else f"its process ended with code {code}."


def _start(folder: Path, hub: HubSection, *, quiet: bool = False) -> "subprocess.Popen[str]":
    """The command that pushes a folder, in a session of its own: signals for the training are not for it."""
    sys.stdout.flush()
    package = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(path for path in (package, os.environ.get("PYTHONPATH", "")) if path)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if quiet else {}
    silent = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} if quiet or not sys.stderr.isatty() else {}
    command = [
        sys.executable,
        "-P",
        "-m",
        "trainer",
        *hub_module.push_arguments(folder, hub),
    ]  # -P: no trainer.py of the user's
    return subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": paths, **silent},
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        **pipes,
    )  # type: ignore[call-overload]


def _end_of(process: "subprocess.Popen[str]", hub: HubSection) -> list[str]:
    """The lines that a quiet upload wrote, when it has ended or was killed."""
    try:
        return process.communicate(timeout=60 * hub.timeout_minutes + GRACE_SECONDS)[0].splitlines()
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0].splitlines()
