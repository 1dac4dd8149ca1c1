"""Uploads during a training run: processes of their own that never stop or slow the training."""

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.config.sections.hub import HubSection
from trainer.delivery.hub.client import words_of
from trainer.delivery.hub.push import failure, is_pushed, push_arguments, reason_in
from trainer.delivery.hub.repository_files import model_files
from trainer.errors import Stopped
from trainer.launch import stopping
from trainer.launch.distributed import is_main
from trainer.progress import print_line
from trainer.run_folder.writer import RunFolder

LAST_SAVE_SECONDS = 60.0
"""The wait for a running upload of a checkpoint at the end of a training."""
GRACE_SECONDS = 30.0
"""An upload is killed if it exceeds its own time limit by more than this."""


@contextmanager
def uploading(hub: HubSection, run: Path) -> Iterator[Callable[[Path, int], None] | None]:
    """Push the run after the block, unless it is pushed already or the block fails.

    Yields the function that uploads the model of a checkpoint, given its folder and step; None if
    checkpoints are not pushed. A stop signal or an error in the block ends an upload at once. A
    signal during the push of the finished run ends only the push.
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
        signal = stopping.received()  # the run is finished, but not its push
        saves.close(0 if signal else LAST_SAVE_SECONDS)
        if is_pushed(run, hub):
            return
        fault = f"stopped by {signal}." if signal else _push(run, hub)
    except (Stopped, KeyboardInterrupt) as stop:
        saves.close(0)
        cause = stopping.received() if isinstance(stop, Stopped) else "the keyboard"
        fault = f"stopped by {cause}."
    except OSError as error:  # the process cannot be started
        fault = words_of(error)
    if fault:
        print(failure(run, hub, fault), file=sys.stderr, flush=True)


class SavedModels:
    """The models of checkpoints, uploaded one at a time; only the newest one waits."""

    def __init__(self, hub: HubSection, run: RunFolder) -> None:
        self.hub, self.run = hub, run
        self.uploads: dict[Future[None], Path] = {}
        self._executor = ThreadPoolExecutor(max_workers=1)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._is_closed = self._has_staged = False

    def offer(self, checkpoint: Path, step: int) -> None:
        """Upload the model of a checkpoint after the running upload; return at once."""
        self._has_staged = True
        try:
            staged = self.run.stage_model(model_files(checkpoint), step)
        except OSError as error:
            _report(step, words_of(error))
            return
        for waiting in list(self.uploads):
            if waiting.cancel():
                shutil.rmtree(self.uploads.pop(waiting), ignore_errors=True)
        self.uploads[self._executor.submit(self._upload, staged, step)] = staged

    def close(self, seconds: float) -> None:
        """Drop the waiting model, wait for the running upload, then kill it; remove its files."""
        self._executor.shutdown(wait=False, cancel_futures=True)
        wait(self.uploads, timeout=seconds)
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()
        wait(self.uploads, timeout=5)
        if self._has_staged:  # otherwise the files may belong to another training in this folder
            self.run.drop_staged()

    def _upload(self, staged: Path, step: int) -> None:
        message = f"Step {step}: {self.hub.commit_message}"
        hub = self.hub.model_copy(update={"commit_message": message})
        with self._lock:
            if self._is_closed:
                return
            try:
                self._process = subprocess.Popen(**_command(staged, hub, quiet=True))
            except OSError as error:
                _report(step, words_of(error))
                return
        lines = _output_of(self._process, hub)
        shutil.rmtree(staged, ignore_errors=True)
        with self._lock:
            code, self._process = self._process.returncode, None
            if self._is_closed and code:
                return
        if code == 0 and lines and lines[-1].startswith("Pushed to "):
            print_line(f"Step {step}: {lines[-1]}", file=sys.stderr)
        else:
            _report(step, reason_in(lines))


def _report(step: int, reason: str) -> None:
    print_line(f"The model of step {step} was not pushed: {reason}", file=sys.stderr)


def _push(run: Path, hub: HubSection) -> str | None:
    """Push a finished run; return why the process failed, None if it reported the result itself."""
    try:
        code = subprocess.run(**_command(run, hub), timeout=_limit_seconds(hub)).returncode
    except subprocess.TimeoutExpired:
        return "it took too long."
    return None if code in (0, 2) else f"its process ended with code {code}."


def _command(folder: Path, hub: HubSection, *, quiet: bool = False) -> dict[str, Any]:
    """Return the process that pushes a folder, in a session without the training's signals."""
    sys.stdout.flush()
    package = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(path for path in (package, os.environ.get("PYTHONPATH", "")) if path)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True} if quiet else {}
    silent = {"HF_HUB_DISABLE_PROGRESS_BARS": "1"} if quiet or not sys.stderr.isatty() else {}
    return {
        # -P: import no trainer.py of the user
        "args": [sys.executable, "-P", "-m", "trainer", *push_arguments(folder, hub)],
        "env": {**os.environ, "PYTHONPATH": paths, **silent},
        "stdin": subprocess.DEVNULL,
        "start_new_session": True,
        **pipes,
    }


def _limit_seconds(hub: HubSection) -> float:
    return 60 * hub.timeout_minutes + GRACE_SECONDS


def _output_of(process: "subprocess.Popen[str]", hub: HubSection) -> list[str]:
    """Wait for the end of a quiet upload, at most its time limit; return its lines."""
    try:
        return process.communicate(timeout=_limit_seconds(hub))[0].splitlines()
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0].splitlines()
