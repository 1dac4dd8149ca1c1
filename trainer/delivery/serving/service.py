"""The model behind the routes, asked by many requests at once."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from fastapi import Request

from trainer.arrays import Floats
from trainer.delivery.predicting.predict import Classifier, Prediction, Text
from trainer.delivery.serving.batches import QueueFull, ServingQueue, TextFailed
from trainer.delivery.serving.guard import Metrics, Refused
from trainer.delivery.serving.limits import Limits

logger = logging.getLogger(__name__)

CHARACTERS_A_TOKEN = 4
"""By which the tokens of a text are estimated, so that it is tokenised once, with its batch; English has about four."""

Answer = tuple[Prediction, Floats | None]
"""What is said of a text, and the logits behind it; None where several models vote."""


class Service:
    """The model behind the routes: loaded and run in one thread of its own, asked through the queue.

    Args:
        on_loaded: called with None, or with what kept the model from being loaded.
        bf16: compute in bfloat16.
    Attributes:
        is_draining: a stop signal has come.
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
        self.load, self.limits, self.metrics, self.on_loaded, self.bf16 = (
            load,
            limits,
            metrics,
            on_loaded,
            bf16,
        )
        self.classifier: Classifier | None = None
        self.queue: ServingQueue[Text, Answer] | None = None
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.is_draining = False

    async def run(self) -> None:
        """Load the model, then compute until cancelled."""
        try:
            self.classifier = await asyncio.get_running_loop().run_in_executor(
                self.thread, self.load
            )
        except Exception as error:  # said by the caller, who ends the server
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
        """Whether a text sent now would be taken."""
        return (
            self.queue is not None
            and not self.is_draining
            and self.queue.num_waiting < self.limits.queue_size
        )

    def loaded(self) -> Classifier:
        """The model.

        Raises:
            Refused: it is still loading.
        """
        if self.classifier is None:
            raise Refused(503, "The model is still loading.", {"retry-after": "1"})
        return self.classifier

    async def answer(self, request: Request, texts: list[Text]) -> list[Answer]:
        """An answer for each text, unless the client leaves or the time is up; then what still waits of it is dropped.

        Raises:
            Refused: loading, no room in the queue, out of time, the client left, the model failed on a text.
        """
        self.loaded()
        assert self.queue is not None, "made when the model is loaded"
        work, left = (
            asyncio.ensure_future(self.queue.answer(texts)),
            asyncio.ensure_future(request.receive()),
        )
        try:
            await asyncio.wait(
                {work, left},
                timeout=self.limits.timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if work.done():
                return work.result()
        except QueueFull as error:
            raise Refused(
                429,
                f"The queue is full: {error}. Come again later.",
                {"retry-after": str(error.retry_seconds)},
            ) from error
        except TextFailed as error:
            self.metrics.failed_texts.inc()
            logger.error("The model failed on %s of a request.", error, exc_info=error.__cause__)
            words = f"The model failed on {error} of this request; the server's log says why. Other requests are not affected."
            raise Refused(500, words) from error
        finally:
            left_early = left.done()
            work.cancel()
            left.cancel()
        if left_early:
            raise Refused(499, "The client left.")
        raise Refused(
            504,
            f"There was no answer within {self.limits.timeout_seconds:g} seconds (--timeout-seconds). Send fewer texts, or come again later.",
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
