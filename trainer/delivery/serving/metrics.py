"""The metrics of a server, for Prometheus."""

from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, which /metrics returns."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self.requests = counter("equipoise_requests", "Requests answered.", ["route", "status"])
        self.seconds = histogram(
            "equipoise_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=SECONDS,
        )
        self.texts = counter("equipoise_texts", "Texts computed.")
        self.failed_texts = counter("equipoise_failed_texts", "Texts that the model failed on.")
        self.batch_texts = histogram("equipoise_batch_texts", "Texts of a batch.", buckets=TEXTS)
        self.queue_texts = Gauge(
            "equipoise_queue_texts", "Texts that wait.", registry=self.registry
        )

    def observe_batch(self, num_texts: int) -> None:
        """Count one batch."""
        self.texts.inc(num_texts)
        self.batch_texts.observe(num_texts)
