"""HTTP connections with timeouts for silent clients, and a server that stops gracefully."""

import asyncio
import logging
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

if sys.platform != "win32":
    import fcntl
    import termios

logger = logging.getLogger(__name__)

HEAD_SECONDS = 10
"""Time for the head of a request, from the connection or the last answer on."""
READ_SECONDS = 30
"""A client that reads nothing for this long is disconnected; slow readers get the whole answer."""


class PatientProtocol(H11Protocol):
    """HTTP/1.1 that waits for slow readers and disconnects silent clients.

    A client is disconnected if the head of its request takes longer than HEAD_SECONDS, or if it
    reads nothing of its answer for READ_SECONDS.

    Attributes:
        is_cut: the connection was lost before the client had read its answer.
    """

    head_timer: asyncio.TimerHandle | None = None
    read_timer: asyncio.TimerHandle | None = None
    is_cut = False

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: Any,
        app_state: dict[str, Any],
        _loop: Any = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)

    def connection_made(self, transport: Any) -> None:
        """Start the timer for the head of the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=0)  # `flow.drain()` waits for the kernel
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Record whether an answer was cut off, and stop the timers."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        self.is_cut = self.flow.write_paused or is_answering
        for timer in (self.head_timer, self.read_timer):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Finish an answer that has begun, although the client sends no more."""
        has_begun = self.cycle is not None and self.cycle.response_started
        if not has_begun or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        return True

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read."""
        super().pause_writing()
        self._await_reading()

    def resume_writing(self) -> None:
        """Stop the timer, since the client reads."""
        if self.read_timer:
            self.read_timer.cancel()
        super().resume_writing()

    def on_response_complete(self) -> None:
        """Start the timer for the head of the next request."""
        super().on_response_complete()
        self._await_head()

    def _await_head(self) -> None:
        if self.head_timer:
            self.head_timer.cancel()
        self.head_timer = self.loop.call_later(HEAD_SECONDS, self._close_without_head)

    def _close_without_head(self) -> None:
        if self.flow.write_paused:
            self._await_head()  # the last answer is still being read
        elif self.cycle is None or self.cycle.response_complete:
            self.transport.abort()

    def _await_reading(self) -> None:
        if self.read_timer:
            self.read_timer.cancel()
        self.read_timer = self.loop.call_later(READ_SECONDS, self._close_unread, self._num_unread())

    def _close_unread(self, num_before: int) -> None:
        if self._num_unread() < num_before:
            self._await_reading()
        else:
            logger.warning(
                "A client read nothing of its answer for %g s; its connection is closed.",
                READ_SECONDS,
            )
            self.transport.abort()

    def _num_unread(self) -> int:
        """Return the bytes of an answer that the client's machine has not received.

        The kernel buffers megabytes for a slow client, and asks for more only when a third of them
        has been sent. So its buffer is counted too, if the system reports it.
        """
        num_unsent = self.transport.get_write_buffer_size()
        if sys.platform == "win32":
            return num_unsent
        held = bytearray(4)
        try:
            fcntl.ioctl(self.transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, held)
        except OSError:
            return num_unsent
        return num_unsent + int.from_bytes(held, sys.byteorder)


class GracefulServer(uvicorn.Server):
    """Uvicorn that still answers for a while after a stop signal.

    Each answer closes its connection; then the server stops listening. Closing idle connections at
    once would lose requests that are on their way.
    """

    def __init__(
        self, config: uvicorn.Config, drain: Callable[[], None], drain_seconds: float
    ) -> None:
        super().__init__(config)
        self.drain, self.drain_seconds = drain, drain_seconds

    async def shutdown(self, sockets: Any = None) -> None:
        """Drain, then end the remaining connections within timeout_graceful_shutdown."""
        self.drain()
        if not self.force_exit:
            await asyncio.sleep(self.drain_seconds)
        await super().shutdown(sockets)
