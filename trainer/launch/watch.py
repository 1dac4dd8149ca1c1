"""Processes watch each other: if one dies or hangs, the others end and name it.

In each process, one thread writes a sign of life to the store of torch.distributed and reads the
signs of the others. A second thread looks for faults and ends the process, since no thread can
interrupt a collective operation.
"""

import atexit
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from trainer.errors import TrainingError, first_line, listing

GRACE_SECONDS = 10.0
"""The others have this time to end with an error of their own after a process has ended."""
QUIET_ROUNDS = 5
"""After a broken connection, a process without a sign for this many rounds counts as dead."""
LEFT, LOST = "left", "lost"
"""How a process ended without an error of its own: normally, or because of another process."""
REMEDY = (
    "Look at the last output of this process and its machine. Run the same command again to"
    " resume from the last checkpoint."
)


@dataclass(frozen=True)
class Sign:
    """A sign of life of a process.

    Attributes:
        space: host and process-id namespace, within which process ids are comparable.
        beat: number of this sign.
        count: steps of progress so far; a process that hangs has the fewest.
        doing: the last step of progress.
        idle: seconds since then; None if no progress is expected.
        place: file and line of the main thread.
        end: LEFT, LOST or the error with which it ended; None while it runs.
    """

    name: str
    pid: int
    space: str
    beat: int = 0
    count: int = 0
    doing: str = "start"
    idle: float | None = None
    place: str = "no known line"
    end: str | None = None

    def __str__(self) -> str:
        return f"{self.name}, last seen at {self.doing} in {self.place},"


class Watch:
    """The two watching threads of a process.

    Args:
        store: a separate connection to the store of the process group.
        launcher: name of the launcher that runs the store; None if rank 0 does.
        timeout_seconds: longest time without a sign, or without progress where it is expected.
    """

    def __init__(
        self,
        store: Any,
        rank: int,
        world_size: int,
        name: str,
        *,
        launcher: str | None,
        timeout_seconds: float,
    ) -> None:
        self.store, self.rank, self.launcher, self.timeout = store, rank, launcher, timeout_seconds
        # every process reads the signs of all others in each round
        self.round_seconds = min(max(1.0, world_size / 64), timeout_seconds / 4)
        self.keys = [f"watch/{r}" for r in range(world_size)]
        self.name, self.space = name, _space()
        self.beat, self.count, self.doing = 0, 0, "start"
        self.since: float | None = None
        self.end: str | None = None
        self.lived = 0.0  # seconds that this process ran; time while it was suspended is left out
        self.answered = 0.0
        self.signs = {r: Sign(f"rank {r}", 0, "") for r in range(world_size)}
        self.heard = dict.fromkeys(self.signs, 0.0)
        self.gone: dict[int, float] = {}
        self.ending = threading.Event()
        self.threads = [
            threading.Thread(target=loop, daemon=True)
            for loop in (self._exchange, self._look_for_faults)
        ]

    def start(self) -> None:
        """Start the threads as soon as all processes have given a sign.

        Raises:
            RuntimeError: one of them did not before the store's timeout.
        """
        self.send()
        self.receive()
        for thread in self.threads:
            thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Give a last sign and end the threads, which would abort Python at its exit."""
        self.end = self.end or LEFT
        self.ending.set()
        self.threads[0].join(2)

    def progress(self, doing: str | None) -> None:
        """Note a step of progress and expect the next one; None: expect no progress for now."""
        self.count += 1
        self.doing, self.since = doing or self.doing, self.lived if doing else None

    def _sign(self) -> Sign:
        return Sign(
            self.name,
            os.getpid(),
            self.space,
            self.beat,
            self.count,
            self.doing,
            None if self.since is None else self.lived - self.since,
            _place(),
            self.end,
        )

    def _exchange(self) -> None:
        try:
            while not self.ending.wait(self.round_seconds):
                self.send()
                self.receive()
            self.send()  # the end
        except RuntimeError:  # the store is gone; no fault if all processes are ending
            return

    def send(self) -> None:
        """Give a sign."""
        self.beat += 1
        self.store.set(self.keys[self.rank], json.dumps(asdict(self._sign())))

    def receive(self) -> None:
        """Read the signs of all processes; wait for those that gave none yet."""
        self.store.wait(self.keys)
        for r, text in enumerate(self.store.multi_get(self.keys)):
            sign = Sign(**json.loads(text))
            if sign.beat != self.signs[r].beat:
                self.signs[r], self.heard[r] = sign, self.lived
        self.answered = self.lived

    def _look_for_faults(self) -> None:
        last = time.monotonic()
        while not self.ending.wait(self.round_seconds):
            now = time.monotonic()
            self.lived, last = self.lived + min(now - last, 3 * self.round_seconds), now
            fault = self.fault()
            if fault and not self.ending.is_set():
                sys.stdout.flush()
                print(f"{self.name}: {fault}. {REMEDY}", file=sys.stderr, flush=True)
                os._exit(2)

    def fault(self) -> str | None:
        """Return a description of processes that died or hang; None if there are none."""
        return self._ended(GRACE_SECONDS) or self._silent(self.timeout) or self._stuck()

    def _others(self) -> dict[int, Sign]:
        """Return {rank: sign} of the other processes that have not ended."""
        return {r: sign for r, sign in self.signs.items() if r != self.rank and sign.end is None}

    def _ended(self, grace_seconds: float) -> str | None:
        """Describe processes that ended with an error, or died on this machine."""
        ended = {
            r: f"ended: {s.end}".rstrip(".")
            for r, s in self.signs.items()
            if r != self.rank and s.end not in (None, LEFT, LOST)
        }
        ended |= {
            r: "died: its process is gone"
            for r, s in self._others().items()
            if s.space == self.space and not _lives(s.pid)
        }
        now = time.monotonic()
        faults = [
            f"{self.signs[r].name}, last seen at {self.signs[r].doing}, {words}"
            for r, words in ended.items()
            if now - self.gone.setdefault(r, now) >= grace_seconds
        ]
        return "; ".join(faults[:3]) or None

    def _silent(self, seconds: float) -> str | None:
        """Describe processes that gave no sign for this time."""
        if self.lived - self.answered > seconds:
            store = self.launcher or self.signs[0]
            return f"{store} gave no answer for {_duration(seconds)}; it runs the common store"
        silent = [r for r in self._others() if self.answered - self.heard[r] > seconds]
        faults = [f"{self.signs[r]} gave no sign for {_duration(seconds)}" for r in silent]
        return "; ".join(faults[:3]) or None

    def _stuck(self) -> str | None:
        """Describe the processes that are behind if one has made no progress for too long."""
        own = {} if self.since is None else {self.rank: self.lived - self.since}
        idle = {
            r: s.idle + self.lived - self.heard[r]
            for r, s in self._others().items()
            if s.idle is not None
        } | own
        if max(idle.values(), default=0.0) <= self.timeout:
            return None
        signs = self._others() | {self.rank: self._sign()}
        least = min(sign.count for sign in signs.values())
        behind = [r for r, sign in signs.items() if sign.count == least]
        quiet = [
            r
            for r in behind
            if r != self.rank and self.answered - self.heard[r] > QUIET_ROUNDS * self.round_seconds
        ]
        words = "gave no sign" if quiet else "made no progress"
        words += f" for {_duration(self.timeout)} (run.timeout_minutes)"
        if len(behind) == len(signs) and not quiet:
            return f"all processes are at one step and {words}: {signs[self.rank]} and the others"
        return f"{'; '.join(str(signs[r]) for r in (quiet or behind)[:3])} {words}"

    def blame(self) -> str:
        """Describe the cause of a broken connection; wait for it a few rounds."""
        self.end = LOST
        for _ in range(20 * (QUIET_ROUNDS + 3)):
            fault = self._ended(0) or self._silent(QUIET_ROUNDS * self.round_seconds)
            if fault:
                return fault
            time.sleep(self.round_seconds / 20)
        left = listing(f"{sign.name} ended" for sign in self.signs.values() if sign.end)
        return left or "the connection between the processes broke, but all of them are alive"


_watch: Watch | None = None


def start(rank: int, world_size: int, name: str, timeout_minutes: float) -> None:
    """Watch the other processes; collective operations have no other time limit from now on.

    torch's own limit would also end processes that wait for one that prepares data or writes
    results, and it names no process.
    """
    global _watch
    if _watch is not None:
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _set_pg_timeout  # torchtitan uses it too

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    is_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    launcher = f"the launcher at {address}:{port}" if is_agent else None
    store = dist.TCPStore(
        address,
        port,
        is_master=False,
        wait_for_workers=False,
        timeout=timedelta(minutes=timeout_minutes),
    )
    _set_pg_timeout(timedelta(days=30))
    _watch = Watch(
        store, rank, world_size, name, launcher=launcher, timeout_seconds=60 * timeout_minutes
    )
    _watch.start()


def is_watching() -> bool:
    """Return whether the processes are connected."""
    return _watch is not None


def progress(doing: str | None) -> None:
    """Note a step of progress; the next one must follow within `run.timeout_minutes`.

    Args:
        doing: the step; None: expect no progress until the next step.
    """
    if _watch is not None:
        _watch.progress(doing)


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Tell the others about an error of this process; name a process that caused an error here.

    Raises:
        TrainingError: another process died, hangs or ended with an error.
    """
    if _watch is not None:
        _watch.end = None
    try:
        yield
    except BaseException as error:
        if _watch is None or _watch.end == LOST:
            raise
        if not _is_of_connection(error):
            _watch.end = first_line(error)
            raise
        raise TrainingError(f"{_watch.blame()}. {REMEDY}") from error


def _is_of_connection(error: BaseException | None) -> bool:
    """Return whether a collective operation failed, as this error or as its cause."""
    import torch.distributed as dist

    while error is not None:
        if isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and "gloo" in str(error)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _space() -> str:
    """Return the host and the namespace of process ids."""
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(namespace) if namespace.is_symlink() else ''}"


def _lives(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _place() -> str:
    """Return the file and line of the main thread."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    if frame is None:
        return "no known line"
    return f"{'/'.join(Path(frame.f_code.co_filename).parts[-3:])}:{frame.f_lineno}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
