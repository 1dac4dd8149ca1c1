"""What stands between a client and the routes: host, token, sizes, deadlines, headers, the counts of /metrics and the log."""

import asyncio
import hmac
import json
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trainer.delivery.serving.limits import Limits

logger = logging.getLogger(__name__)

BODY_SECONDS = 10
"""For the body of a request."""
PIECE_BYTES = 2**16
"""Bytes of an answer that are written at once; the next ones wait until these have left."""
ABORTED = "aborted"
"""Stands in place of the status where the client did not get the whole answer."""
LOGGED_CHARACTERS = 200
"""Longest path in a log line."""
REQUEST_ID = re.compile(rb"[\w.:-]{1,64}", re.ASCII)
"""Values of the header X-Request-ID that are written to the log."""
MOST_DISCARDED = 16 * 2**20
"""Bytes of a refused body that are read and thrown away, so that a client that sends first and reads later sees why it is refused."""
OPEN_PATHS = {"/", "/docs", "/health", "/openapi.json", "/ready"}
"""What a GET or HEAD may have without the token: nothing of the model."""
HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]
LOOPBACK = {"127.0.0.1", "::1", "localhost"}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Refused(Exception):
    """An answer other than 200: status, one sentence, headers."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class Metrics:
    """The counts of /metrics, of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        seconds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self.requests = Counter(
            "equipoise_requests", "Requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "equipoise_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=seconds,
            registry=self.registry,
        )
        self.texts = Counter("equipoise_texts", "Texts computed.", registry=self.registry)
        self.failed_texts = Counter(
            "equipoise_failed_texts", "Texts that the model failed on.", registry=self.registry
        )
        self.batch_texts = Histogram(
            "equipoise_batch_texts", "Texts of a batch.", buckets=sizes, registry=self.registry
        )
        self.queue_texts = Gauge(
            "equipoise_queue_texts", "Texts that wait.", registry=self.registry
        )

    def observe_batch(self, num_texts: int) -> None:
        """Count one batch."""
        self.texts.inc(num_texts)
        self.batch_texts.observe(num_texts)


class Guard:
    """ASGI app around another: refuses before anything is read or computed, reads bodies whole and within limits, counts every answer.

    Args:
        token: bearer token of all paths but OPEN_PATHS; None: none is asked for.
        loopback_only: refuse other names in the Host header, which a web page could have given this machine (DNS rebinding).
    Attributes:
        is_draining: a stop signal has come; connections are closed with their answers.
    """

    def __init__(
        self,
        app: FastAPI,
        limits: Limits,
        metrics: Metrics,
        *,
        token: str | None,
        loopback_only: bool,
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self.routes = {getattr(route, "path", "") for route in app.routes}
        self.token = None if token is None else token.encode()
        self.loopback_only = loopback_only
        self.is_draining = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status, is_cancelled = time.perf_counter(), 0, False
        connection = scope["state"]["connection"]

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                closing = [(b"connection", b"close")] if self.is_draining else []
                message["headers"] = [*message.get("headers", ()), *HEADERS, *closing]
                await send(message)
                return
            for piece in pieces(message):
                await send(piece)
                if piece.get("more_body"):
                    await asyncio.sleep(0)  # the turn of other requests
            if not message.get("more_body"):
                await connection.flow.drain()

        try:
            await self._answer(scope, receive, send_on)
        except asyncio.CancelledError:  # the time for a graceful end is up
            is_cancelled = True
            connection.transport.abort()
            await asyncio.sleep(0)  # the server now knows that the connection is lost
        finally:
            has_begun = status not in (0, 499)
            is_aborted = is_cancelled or (connection.is_cut and has_begun)
            outcome = ABORTED if is_aborted else str(status or 499)
            self._record(scope, outcome, time.perf_counter() - begun)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            receive_on = await self._check(scope, receive)
        except Refused as refused:
            await send_refusal(send, refused)
            return
        if scope["method"] == "HEAD":
            scope = {
                **scope,
                "method": "GET",
            }  # the same headers; uvicorn, which has its own scope, leaves the body out
        await self.app(scope, receive_on, send)

    def _record(self, scope: Message, outcome: str, seconds: float) -> None:
        """Count and log one request. The line holds no text, no query string and no header but X-Request-ID."""
        route = scope["path"] if scope["path"] in self.routes else "other"
        self.metrics.requests.labels(route, outcome).inc()  # 499: the client left before its answer
        self.metrics.seconds.labels(route).observe(seconds)
        path = scope["raw_path"].decode("latin-1")[:LOGGED_CHARACTERS]
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = f" {given.decode()}" if REQUEST_ID.fullmatch(given) else ""
        level = logging.WARNING if outcome == ABORTED else logging.INFO
        logger.log(
            level, "%s %s %s %.0f ms%s", scope["method"], path, outcome, 1000 * seconds, request_id
        )

    async def _check(self, scope: Message, receive: Receive) -> Receive:
        """The way to receive the request, its body read whole.

        Raises:
            Refused: for what the head says, or the body's size or pace.
        """
        headers = dict(scope["headers"])
        refusal = self._refusal(scope, headers)
        if scope["method"] != "POST":
            if refusal:
                raise refusal
            return receive
        length = headers.get(b"content-length", b"0")
        if refusal is None and int(length) > self.limits.max_body_bytes:
            refusal = self._too_large()
        if refusal is not None and int(length) > MOST_DISCARDED:
            raise refusal
        body = await self._body(receive, refusal)

        async def receive_on() -> Message:
            nonlocal body
            if body is not None:
                message = {"type": "http.request", "body": body, "more_body": False}
                body = None
                return message
            return await receive()

        return receive_on

    def _refusal(self, scope: Message, headers: dict[bytes, bytes]) -> Refused | None:
        host = re.sub(r":\d*$", "", headers.get(b"host", b"").decode("latin-1")).strip("[]").lower()
        if self.loopback_only and self.token is None and host not in LOOPBACK:
            return Refused(
                421,
                f"Host is '{host}'; this server answers to 127.0.0.1 and localhost alone unless it asks for a token.",
            )
        is_open = scope["method"] in ("GET", "HEAD") and scope["path"] in OPEN_PATHS
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        if (
            self.token is not None
            and not is_open
            and not (scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self.token))
        ):
            return Refused(
                401,
                "The bearer token is missing or wrong. Send the header Authorization: Bearer <token>.",
                {"www-authenticate": "Bearer"},
            )
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if scope["method"] == "POST" and kind != b"application/json":
            return Refused(
                415, f"Content-Type is '{kind.decode('latin-1')}'; needed: application/json."
            )
        return None

    def _too_large(self) -> Refused:
        return Refused(
            413,
            f"The request is larger than {self.limits.max_body_bytes:,} bytes (--max-body-bytes). Send fewer texts at once.",
        )

    async def _body(self, receive: Receive, refusal: Refused | None) -> bytes | None:
        """The whole body; raises the refusal once what is refused has been read, as far as that goes."""
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(BODY_SECONDS):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refused(499, "The client left.")
                    size += len(message.get("body", b""))
                    if refusal is None and size > self.limits.max_body_bytes:
                        refusal = self._too_large()
                    if refusal is None:
                        parts.append(message.get("body", b""))
                    else:
                        parts.clear()
                    if not message.get("more_body") or size > MOST_DISCARDED:
                        break
        except TimeoutError:
            refusal = refusal or Refused(
                408, f"The request did not arrive within {BODY_SECONDS} seconds."
            )
        if refusal:
            raise refusal
        return b"".join(parts)


async def send_refusal(send: Send, refused: Refused) -> None:
    """Answer with {"error": ...} and close the connection, whatever the client may still be sending."""
    body = json.dumps({"error": refused.message}).encode()
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "connection": "close",
        **refused.headers,
    }
    await send(
        {
            "type": "http.response.start",
            "status": refused.status,
            "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})


def pieces(message: Message) -> Iterator[Message]:
    """A part of an answer in parts of at most PIECE_BYTES."""
    body = message.get("body", b"")
    for start in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
        yield {**message, "body": body[start : start + PIECE_BYTES], "more_body": True}
    yield {**message, "body": body[(len(body) - 1) // PIECE_BYTES * PIECE_BYTES :] if body else b""}
