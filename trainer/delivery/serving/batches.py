"""Collect the texts of many requests into batches for one model.

A bounded queue feeds the one thread that computes. No batch waits until it is full: the texts that
arrived during one batch form the next. Only if several requests were computed together, the queue
pauses shortly for clients that are about to send their next request.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

logger = logging.getLogger(__name__)

TURN = 16
"""Most texts of one request in a batch while others wait, so that large requests do not block."""
Text = TypeVar("Text")
Answer = TypeVar("Answer")


class QueueFull(Exception):
    """The queue has no room for the texts.

    Attributes:
        retry_seconds: estimated seconds until it has.
    """

    def __init__(self, waiting: int, retry_seconds: int) -> None:
        super().__init__(f"{waiting:,} texts are waiting already")
        self.retry_seconds = retry_seconds


class TextFailed(Exception):
    """The model failed on one text, even when that text was computed alone.

    Attributes:
        number: place of the text in its request, from 1.
        num_texts: number of texts of the request.
    """

    def __init__(self, number: int, num_texts: int) -> None:
        super().__init__(f"text {number:,} of {num_texts:,}")
        self.number, self.num_texts = number, num_texts


@dataclass(eq=False)
class _Job(Generic[Text, Answer]):
    """One request: its texts, how many of them were taken so far, and the answers in order."""

    texts: Sequence[Text]
    future: "asyncio.Future[list[Answer]]"
    answers: list[Answer]
    num_taken: int = 0

    @property
    def num_waiting(self) -> int:
        return len(self.texts) - self.num_taken


_Part = tuple[_Job[Text, Answer], int, int]
"""Texts of a request in a batch: the request, the index of the first text, and the end index."""


class ServingQueue(Generic[Text, Answer]):
    """A queue that serves requests in order, in turns of `TURN` texts.

    All methods run in the event loop; `compute` runs in `thread`.

    Args:
        compute: returns one answer per text, in order.
        num_tokens: estimates the tokens of a text.
        max_waiting: texts that may wait, without those in the present batch.
        max_batch_tokens: size of a batch; it has at least one text.
        max_wait_seconds: longest pause before a batch.
        observe: called with the number of texts of each batch.
    """

    def __init__(
        self,
        compute: Callable[[list[Text]], Sequence[Answer]],
        num_tokens: Callable[[Text], int],
        thread: ThreadPoolExecutor,
        *,
        max_waiting: int,
        max_batch_tokens: int,
        max_wait_seconds: float,
        observe: Callable[[int], None] = lambda num_texts: None,
    ) -> None:
        self.compute, self.num_tokens, self.thread = compute, num_tokens, thread
        self.max_waiting, self.max_batch_tokens = max_waiting, max_batch_tokens
        self.max_wait_seconds, self.observe = max_wait_seconds, observe
        self.num_waiting = 0
        self._jobs: deque[_Job[Text, Answer]] = deque()
        self._arrived, self._enough = asyncio.Event(), asyncio.Event()
        self._wanted = 1  # requests to wait for: as many as the last batch had
        self._seconds_per_text = 0.01  # running mean

    async def answer(self, texts: Sequence[Text]) -> list[Answer]:
        """Return one answer per text. If the caller is cancelled, its texts leave the queue.

        Raises:
            QueueFull: the queue has no room for all of them.
            TextFailed: the model failed on one of them.
        """
        if self.num_waiting + len(texts) > self.max_waiting:
            raise QueueFull(
                self.num_waiting,
                retry_seconds=min(60, 1 + int(self.num_waiting * self._seconds_per_text)),
            )
        job: _Job[Text, Answer] = _Job(texts, asyncio.get_running_loop().create_future(), [])
        self._jobs.append(job)
        self.num_waiting += len(texts)
        self._arrived.set()
        if len(self._jobs) >= self._wanted:
            self._enough.set()
        try:
            return await job.future
        finally:
            self._withdraw(job)

    async def run(self) -> None:
        """Compute batches until cancelled; an error fails only the request that caused it."""
        while True:
            await self._arrived.wait()
            await self._pause()
            batch = self._take()
            if not batch:
                continue
            self.observe(sum(stop - start for _, start, stop in batch))
            await self._compute_or_fail(batch)

    async def _compute_or_fail(self, batch: list[_Part[Text, Answer]]) -> None:
        """Compute a batch; if this fails, compute its requests, then their texts, one by one."""
        try:
            await self._compute(batch)
        except Exception as error:  # whatever the model raises, the server continues
            parts = batch
            if len(batch) == 1:
                parts = [(job, n, n + 1) for job, start, stop in batch for n in range(start, stop)]
            if len(parts) == 1:
                job, index, _ = parts[0]
                self._fail(job, index, error)
                return
            kind = "requests" if len(batch) > 1 else "texts of one request"
            logger.warning(
                "A batch of %d %s failed (%s); they are computed one by one.",
                len(parts),
                kind,
                type(error).__name__,
            )
            for part in parts:
                if not part[0].future.done():
                    await self._compute_or_fail([part])

    async def _compute(self, batch: list[_Part[Text, Answer]]) -> None:
        texts = [text for job, start, stop in batch for text in job.texts[start:stop]]
        begun = time.perf_counter()
        answers = await asyncio.get_running_loop().run_in_executor(self.thread, self.compute, texts)
        self._seconds_per_text += 0.2 * (
            (time.perf_counter() - begun) / len(texts) - self._seconds_per_text
        )
        for job, start, stop in batch:
            job.answers += answers[: stop - start]
            answers = answers[stop - start :]
            if len(job.answers) == len(job.texts) and not job.future.done():
                job.future.set_result(job.answers)

    def _fail(self, job: _Job[Text, Answer], index: int, error: Exception) -> None:
        self._withdraw(job)
        if not job.future.done():
            failed = TextFailed(index + 1, len(job.texts))
            failed.__cause__ = error
            job.future.set_exception(failed)

    async def _pause(self) -> None:
        if len(self._jobs) < self._wanted and self.max_wait_seconds:
            self._enough.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.max_wait_seconds):
                    await self._enough.wait()

    def _take(self) -> list[_Part[Text, Answer]]:
        """Take the next batch: texts of each waiting request in turn, until the batch is full."""
        batch: list[_Part[Text, Answer]] = []
        tokens, is_full = 0, False
        while self._jobs and not is_full:
            job = self._jobs.popleft()
            start = stop = job.num_taken
            while stop < min(len(job.texts), start + TURN):
                tokens += self.num_tokens(job.texts[stop])
                if tokens > self.max_batch_tokens and (batch or stop > start):
                    is_full = True
                    break
                stop += 1
            job.num_taken = stop
            self.num_waiting -= stop - start
            if stop > start:
                batch.append((job, start, stop))
            if job.num_waiting:
                self._jobs.append(job) if stop > start else self._jobs.appendleft(job)
        self._wanted = len({id(job) for job, _, _ in batch}) or 1
        if not self._jobs:
            self._arrived.clear()
        return batch

    def _withdraw(self, job: _Job[Text, Answer]) -> None:
        """Remove the waiting texts of a request from the queue."""
        if job.num_waiting:
            self._jobs.remove(job)
            self.num_waiting -= job.num_waiting
            job.num_taken = len(job.texts)
