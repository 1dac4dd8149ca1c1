"""What a server takes on."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """What a server takes on.

    Attributes:
        max_batch_tokens: about so many are computed at once, a token counted as 4 characters.
        max_wait_ms: pause before a batch, where several clients are at work, for those about to ask again.
        queue_size: texts that may wait; more are refused with 429.
        timeout_seconds: for the answer to a request, waiting included; then 504.
        max_body_bytes: of one request; larger ones are refused with 413.
        max_texts: of one request; more are refused with 413.
        drain_seconds: after a stop signal, new requests are still answered while /ready says 503.
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
        """Texts that one request may hold: no more than can wait at all."""
        return min(self.max_texts, self.queue_size)
