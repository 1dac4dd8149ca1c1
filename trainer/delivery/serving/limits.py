"""The limits of a server."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a server.

    Attributes:
        max_batch_tokens: size of a batch, counting 4 characters as a token.
        max_wait_ms: pause before a batch for clients that are about to send the next request; only
            if several clients are active.
        queue_size: texts that may wait; more are refused (HTTP 429).
        timeout_seconds: maximum seconds per request, including queueing (HTTP 504).
        max_body_bytes: maximum size of a request (HTTP 413).
        max_texts: maximum number of texts per request (HTTP 413).
        drain_seconds: time after a stop signal in which requests are answered and /ready is 503.
    """

    max_batch_tokens: int = 2048
    max_wait_ms: float = 2.0
    queue_size: int = 2000
    timeout_seconds: float = 30.0
    max_body_bytes: int = 2**20
    max_texts: int = 1000
    drain_seconds: float = 0.5

    @property
    def texts_per_request(self) -> int:
        """Maximum number of texts per request, which cannot exceed the queue."""
        return min(self.max_texts, self.queue_size)
