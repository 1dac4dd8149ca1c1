"""The ASGI layer between clients and routes: access, limits, deadlines, metrics and the log."""

import asyncio
import hmac
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from trainer.delivery.serving.limits import Limits
from trainer.delivery.serving.metrics import Metrics

logger = logging.getLogger(__name__)

BODY_SECONDS = 10
"""Time for the body of a request."""
PIECE_BYTES = 2**16
"""Bytes of an answer that are written at once; the next bytes wait until these are sent."""
ABORTED = "aborted"
"""Status in metrics and log if the client did not receive the whole answer."""
LOGGED_CHARACTERS = 200
"""Longest path in the log."""
REQUEST_ID = re.compile(rb"[\w.:-]{1,64}", re.ASCII)
"""Values of the header X-Request-ID that may be written to the log."""
MOST_DISCARDED = 16 * 2**20
"""Bytes of a refused body that are read, so that a client that sends first can read the reason."""
OPEN_PATHS = {"/", "/docs", "/health", "/openapi.json", "/ready"}
"""Paths that GET and HEAD may read without the token; they tell nothing about the model."""
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
    """A refused request: its status, a message and headers."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class Guard:
    """An ASGI app that protects another one.

    It refuses requests before anything is computed, reads bodies within the limits, and counts and
    logs every answer.

    Args:
        token: bearer token for all paths except OPEN_PATHS; None: no token is needed.
        loopback_only: without a token, refuse names of other hosts in the Host header, since a web
            page can let its own domain name resolve to this machine (DNS rebinding).
    Attributes:
        is_draining: a stop signal has been received; every answer closes its connection.
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
        """Answer one request."""
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
                    await asyncio.sleep(0)  # lets other requests run
            if not message.get("more_body"):
                await connection.flow.drain()

        try:
            await self._answer(scope, receive, send_on)
        except asyncio.CancelledError:  # the time to stop gracefully is over
            is_cancelled = True
            connection.transport.abort()
            await asyncio.sleep(0)  # lets the server notice the lost connection
        finally:
            has_begun = status not in (0, 499)
            is_aborted = is_cancelled or (connection.is_cut and has_begun)
            outcome = ABORTED if is_aborted else str(status or 499)
            self._record(scope, outcome, time.perf_counter() - begun)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            receive_on = await self._check(scope, receive)
        except Refused as refused:
            await send_refusal(scope, receive, send, refused)
            return
        if scope["method"] == "HEAD":  # uvicorn, which has its own scope, omits the body
            scope = {**scope, "method": "GET"}
        await self.app(scope, receive_on, send)

    def _record(self, scope: Message, outcome: str, seconds: float) -> None:
        """Count and log a request, without texts, query and headers other than X-Request-ID."""
        route = scope["path"] if scope["path"] in self.routes else "other"
        self.metrics.requests.labels(route, outcome).inc()  # 499: the client left before its answer
        self.metrics.seconds.labels(route).observe(seconds)
        path = scope["raw_path"].decode("latin-1")[:LOGGED_CHARACTERS]
        given = dict(scope["headers"]).get(b"x-request-id", b"")
        request_id = f" {given.decode()}" if REQUEST_ID.fullmatch(given) else ""
        log = logger.warning if outcome == ABORTED else logger.info
        log("%s %s %s %.0f ms%s", scope["method"], path, outcome, 1000 * seconds, request_id)

    async def _check(self, scope: Message, receive: Receive) -> Receive:
        """Check the request and read its body; return the function that receives it.

        Raises:
            Refused: because of the head, or of the size or the speed of the body.
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
                f"Host is '{host}'; without a token, this server accepts only the hosts 127.0.0.1"
                " and localhost.",
            )
        is_open = scope["method"] in ("GET", "HEAD") and scope["path"] in OPEN_PATHS
        if self.token is not None and not is_open:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            is_right = hmac.compare_digest(given.strip(), self.token)
            if scheme.lower() != b"bearer" or not is_right:
                words = "The bearer token is missing or wrong."
                words += " Send the header Authorization: Bearer <token>."
                return Refused(401, words, {"www-authenticate": "Bearer"})
        kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
        if scope["method"] == "POST" and kind != b"application/json":
            return Refused(
                415, f"Content-Type is '{kind.decode('latin-1')}'; needed: application/json."
            )
        return None

    def _too_large(self) -> Refused:
        return Refused(
            413,
            f"The request is larger than {self.limits.max_body_bytes:,} bytes (--max-body-bytes)."
            " Send fewer texts at once.",
        )

    async def _body(self, receive: Receive, refusal: Refused | None) -> bytes | None:
        """Return the body. A refused body is read first, so that the client sees the reason."""
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


async def send_refusal(scope: Message, receive: Receive, send: Send, refused: Refused) -> None:
    """Answer with {"error": ...} and close the connection, even if the client still sends."""
    headers = {"connection": "close", **refused.headers}
    await JSONResponse({"error": refused.message}, refused.status, headers)(scope, receive, send)


def pieces(message: Message) -> Iterator[Message]:
    """Split a part of an answer into parts of at most PIECE_BYTES."""
    body = message.get("body", b"")
    for start in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
        yield {**message, "body": body[start : start + PIECE_BYTES], "more_body": True}
    yield {**message, "body": body[(len(body) - 1) // PIECE_BYTES * PIECE_BYTES :] if body else b""}
