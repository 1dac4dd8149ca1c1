"""Processes watch each other: one that dies or hangs ends the others with its name, where they would wait for it in silence.

A thread of each process tells the store at which torch.distributed came together that the process lives, what it did last and how long ago,
and reads what the others tell. A second thread judges, and ends the process itself: no thread can break off an operation of all processes.
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
"""A process that ended gives the others so long to end by themselves, in their own words."""
QUIET_ROUNDS = 5
"""When the connection has broken, a process is taken for dead that gave no sign for as many rounds; they live a round or two apart."""
LEFT, LOST = "left", "lost"
"""How a process ended without an error of its own: in order, or because it lost another."""
REMEDY = (
    "Look at what it and its machine wrote last; the same command goes on from the last checkpoint."
)


@dataclass(frozen=True)
class Sign:
    """What a process tells of itself.

    Attributes:
        space: host and process-id namespace; processes of one space see each other's process ids.
        beat: number of this sign.
        count: steps of progress so far: who is behind has the fewest.
        doing: what it did last.
        idle: seconds since then; None where no progress is expected.
        place: where its main thread stands.
        end: how it ended: LEFT, LOST or its error; None while it runs.
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
    """The two threads of a process.

    Args:
        store: a connection of its own to the store of the process group.
        launcher: words for the launcher that keeps the store; None where rank 0 does.
        timeout_seconds: how long a process may give no sign, or make no progress where it is expected.
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
        self.round_seconds = min(
            max(1.0, world_size / 64), timeout_seconds / 4
        )  # in each, every process reads what all of them tell
        self.keys = [f"watch/{r}" for r in range(world_size)]
        self.name, self.space = name, _space()
        self.beat, self.count, self.doing = 0, 0, "start"
        self.since: float | None = None
        self.end: str | None = None
        self.lived = 0.0  # seconds that this process ran: after it was suspended, the time without it counts for nobody
        self.answered = 0.0
        self.signs = {r: Sign(f"rank {r}", 0, "") for r in range(world_size)}
        self.heard = dict.fromkeys(self.signs, 0.0)
        self.gone: dict[int, float] = {}
        self.ending = threading.Event()
        self.threads = [
            threading.Thread(target=loop, daemon=True) for loop in (self._talk, self._judge)
        ]

    def start(self) -> None:
        """Begin, until the end of the process, once all have told their names.

        Raises:
            RuntimeError: one does not within the time of the store.
        """
        self.tell()
        self.hear()
        for thread in self.threads:
            thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """Say goodbye and end the threads: one that came back from the store after Python's end would abort the process."""
        self.end = self.end or LEFT
        self.ending.set()
        self.threads[0].join(2)

    def progress(self, doing: str | None) -> None:
        """Note a step of progress and expect the next; None: expect none for now."""
        self.count, self.doing, self.since = (
            self.count + 1,
            doing or self.doing,
            self.lived if doing else None,
        )

    def _sign(self) -> Sign:
        idle = None if self.since is None else self.lived - self.since
        return Sign(
            self.name,
            os.getpid(),
            self.space,
            self.beat,
            self.count,
            self.doing,
            idle,
            _place(),
            self.end,
        )

    def _talk(self) -> None:
        try:
            while not self.ending.wait(self.round_seconds):
                self.tell()
                self.hear()
            self.tell()  # how it ended
        except RuntimeError:  # the store is gone or cut off: judged when it stays so, since all may be ending in order
            return

    def tell(self) -> None:
        """Give a sign."""
        self.beat += 1
        self.store.set(self.keys[self.rank], json.dumps(asdict(self._sign())))

    def hear(self) -> None:
        """Read the signs of all; waits for those that gave none yet."""
        self.store.wait(self.keys)
        for r, text in enumerate(self.store.multi_get(self.keys)):
            sign = Sign(**json.loads(text))
            if sign.beat != self.signs[r].beat:
                self.signs[r], self.heard[r] = sign, self.lived
        self.answered = self.lived

    def _judge(self) -> None:
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
        """Words for the processes that the others need not wait for any more; None where there are none."""
        return self._ended(GRACE_SECONDS) or self._silent(self.timeout) or self._stuck()

    def _others(self) -> dict[int, Sign]:
        """The signs of the others that have not said that they ended, by rank."""
        return {r: sign for r, sign in self.signs.items() if r != self.rank and sign.end is None}

    def _ended(self, grace_seconds: float) -> str | None:
        """Words for processes that ended with an error of their own, or are gone from this machine without a word; None if there are none."""
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
        """Words for processes that gave no sign for so long."""
        if self.lived - self.answered > seconds:
            return f"{self.launcher or self.signs[0]} gave no answer for {_duration(seconds)}; it keeps what the processes tell each other"
        silent = [r for r in self._others() if self.answered - self.heard[r] > seconds]
        faults = [f"{self.signs[r]} gave no sign for {_duration(seconds)}" for r in silent]
        return "; ".join(faults[:3]) or None

    def _stuck(self) -> str | None:
        """Words for the processes that are behind when one has waited for progress too long."""
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
        words = f"{'gave no sign' if quiet else 'made no progress'} for {_duration(self.timeout)} (run.timeout_minutes)"
        if len(behind) == len(signs) and not quiet:
            return f"all processes are equally far and {words}: {signs[self.rank]} and the others"
        return f"{'; '.join(str(signs[r]) for r in (quiet or behind)[:3])} {words}"

    def blame(self) -> str:
        """Words for who is to blame for a broken connection, waited for a few rounds."""
        self.end = LOST
        for _ in range(20 * (QUIET_ROUNDS + 3)):
            fault = self._ended(0) or self._silent(QUIET_ROUNDS * self.round_seconds)
            if fault:
                return fault
            time.sleep(self.round_seconds / 20)
        left = listing(f"{sign.name} ended" for sign in self.signs.values() if sign.end)
        return left or "the connection between the processes broke, though all of them live"


_watch: Watch | None = None


def start(rank: int, world_size: int, name: str, timeout_minutes: float) -> None:
    """Watch the others until the end of the process; from now on no operation of all processes has a time limit of its own.

    Waiting for one that prepares data or writes results is no fault, however long; torch's own limit would end it, and names nobody.
    """
    global _watch
    if _watch is not None:
        return
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import (
        _set_pg_timeout,
    )  # as torchtitan lowers it after the first step

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    launcher = (
        f"the launcher at {address}:{port}"
        if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        else None
    )
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
    """Whether the processes have come together."""
    return _watch is not None


def progress(doing: str) -> None:
    """Note a step of progress in training or evaluation; the next must come within `run.timeout_minutes`."""
    if _watch is not None:
        _watch.progress(doing)


def rest() -> None:
    """From now on no progress is expected."""
    if _watch is not None:
        _watch.progress(None)


@contextmanager
def naming_lost_processes() -> Iterator[None]:
    """What happens to this process is told to the others; what the end of another did to this one is told with its name.

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
        fault = _watch.blame()
        raise TrainingError(f"{fault}. {REMEDY}") from error


def _is_of_connection(error: BaseException | None) -> bool:
    """Whether an operation of all processes failed, as this error or as its cause."""
    import torch.distributed as dist

    while error is not None:
        if isinstance(error, dist.DistError) or (
            isinstance(error, RuntimeError) and "gloo" in str(error)
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def _space() -> str:
    namespace = Path("/proc/self/ns/pid")
    return f"{socket.gethostname()} {os.readlink(namespace) if namespace.is_symlink() else ''}"


def _lives(pid: int) -> bool:
    import psutil

    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _place() -> str:
    """The line where the main thread stands."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return (
        f"{'/'.join(Path(frame.f_code.co_filename).parts[-3:])}:{frame.f_lineno}"
        if frame
        else "no known line"
    )


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"
