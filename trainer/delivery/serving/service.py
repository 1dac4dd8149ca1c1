"""The model behind the routes, which many requests use at once."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import Request

from trainer.arrays import Floats
from trainer.delivery.predicting.predict import Classifier, Prediction, Text
from trainer.delivery.serving.batches import QueueFull, ServingQueue, TextFailed
from trainer.delivery.serving.guard import Refused
from trainer.delivery.serving.limits import Limits
from trainer.delivery.serving.metrics import Metrics

logger = logging.getLogger(__name__)

CHARACTERS_A_TOKEN = 4
"""Estimates tokens before a text is tokenised with its batch; English has about four."""

Answer = tuple[Prediction, Floats | None]
"""The prediction for a text, and its logits; None if several models vote."""


class Service:
    """The model behind the routes, loaded and run in a thread of its own.

    Args:
        on_loaded: called with None, or with the error that loading raised.
        bf16: compute in bfloat16.
    Attributes:
        is_draining: a stop signal has been received.
    """

    def __init__(
        self,
        load: Callable[[], Classifier],
        limits: Limits,
        metrics: Metrics,
        on_loaded: Callable[[Exception | None], None],
        *,
        bf16: bool,
    ) -> None:
        self.load, self.limits, self.metrics = load, limits, metrics
        self.on_loaded, self.bf16 = on_loaded, bf16
        self.classifier: Classifier | None = None
        self.queue: ServingQueue[Text, Answer] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.is_draining = False

    async def run(self) -> None:
        """Load the model, then compute until cancelled."""
        try:
            loop = asyncio.get_running_loop()
            self.classifier = await loop.run_in_executor(self.thread, self.load)
        except Exception as error:  # the caller reports it and ends the server
            self.on_loaded(error)
            return
        limits, longest = self.limits, self.classifier.models[0].max_length
        self.queue = ServingQueue(
            self._compute,
            lambda text: min(longest, 2 + _num_characters(text) // CHARACTERS_A_TOKEN),
            self.thread,
            max_waiting=limits.queue_size,
            max_batch_tokens=limits.max_batch_tokens,
            max_wait_seconds=limits.max_wait_ms / 1000,
            observe=self.metrics.observe_batch,
        )
        queue = self.queue
        self.metrics.queue_texts.set_function(lambda: queue.num_waiting)
        self.on_loaded(None)
        await queue.run()

    @property
    def is_ready(self) -> bool:
        """Whether the server accepts a text now."""
        return (
            self.queue is not None
            and not self.is_draining
            and self.queue.num_waiting < self.limits.queue_size
        )

    def loaded(self) -> Classifier:
        """Return the model; raise Refused if it is still loading."""
        if self.classifier is None:
            raise Refused(503, "The model is still loading.", {"retry-after": "1"})
        return self.classifier

    async def answer(self, request: Request, texts: list[Text]) -> list[Answer]:
        """Return an answer for each text.

        Raises:
            Refused: the model is loading or failed, the queue is full, the time is up, or the
                client left. Texts that still wait are removed from the queue.
        """
        self.loaded()
        assert self.queue is not None, "made when the model is loaded"
        work = asyncio.ensure_future(self.queue.answer(texts))
        left = asyncio.ensure_future(request.receive())
        seconds = self.limits.timeout_seconds
        try:
            await asyncio.wait({work, left}, timeout=seconds, return_when="FIRST_COMPLETED")
            if work.done():
                return work.result()
        except QueueFull as error:
            words = f"The queue is full: {error}. Try again later."
            raise Refused(429, words, {"retry-after": str(error.retry_seconds)}) from error
        except TextFailed as error:
            self.metrics.failed_texts.inc()
            logger.error("The model failed on %s of a request.", error, exc_info=error.__cause__)
            raise Refused(
                500,
                f"The model failed on {error} of this request; the server's log says why."
                " Other requests are not affected.",
            ) from error
        finally:
            left_early = left.done()
            work.cancel()
            left.cancel()
        if left_early:
            raise Refused(499, "The client left.")
        raise Refused(
            504,
            f"There was no answer within {seconds:g} seconds (--timeout-seconds)."
            " Send fewer texts, or try again later.",
        )

    def _compute(self, texts: list[Text]) -> list[Answer]:
        assert self.classifier is not None, "loaded before the first text is taken"
        import torch

        with torch.autocast(
            self.classifier.models[0].device.type, torch.bfloat16, enabled=self.bf16
        ):
            answers = self.classifier.classify(texts)
        logits = [None] * len(texts) if answers.logits_NC is None else answers.logits_NC
        return list(zip(self.classifier.predictions(answers), logits, strict=True))


def _num_characters(text: Text) -> int:
    return len(text) if isinstance(text, str) else len(text["text"]) + len(text["text_pair"])
