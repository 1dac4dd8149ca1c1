"""A trained model as a server: the Hugging Face Inference API's text classification, a web page, health and metrics."""

import ipaddress
import logging
import math
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Literal

import uvicorn

from trainer.delivery.predicting.model_source import find_models
from trainer.delivery.predicting.predict import Classifier
from trainer.delivery.serving.app import create_app
from trainer.delivery.serving.card_html import find_card
from trainer.delivery.serving.connections import READ_SECONDS, GracefulServer, PatientProtocol
from trainer.delivery.serving.guard import BODY_SECONDS, LOOPBACK, Guard, Metrics
from trainer.delivery.serving.limits import Limits
from trainer.delivery.serving.service import Service
from trainer.errors import ConfigError, RunError

MAX_CONNECTIONS = 512
"""Beyond it uvicorn answers 503 at once; each may hold the texts of one body, 1 to 4 bytes a character: at most 4 `Limits.max_body_bytes`."""
NO_TOKEN = "--host {host} without --token-env: everyone who reaches this machine may use the model."
NO_TLS = (
    "--host {host}: this server speaks plain HTTP, so the network can read the token and the texts. "
    "Listen on 127.0.0.1 behind a proxy with TLS (docs/serving.md)."
)
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"


def serve(
    source: str | Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    token: str | None = None,
    limits: Limits | None = None,
    bf16: bool = False,
    revision: str | None = None,
    trust_remote_code: bool = False,
    device: str | None = None,
    log_level: Literal["info", "warning"] = "info",
) -> None:
    """Serve a model until SIGTERM or SIGINT; then answer what was accepted, and return.

    Args:
        source: run folder, model folder or Hub id.
        port: 0 for any that is free; the address is printed when the model is loaded.
        token: bearer token to ask for.
        bf16: compute in bfloat16; where two labels are nearly equal, the label may be another than the one that float32 gives.
        log_level: `info` writes a line per request to standard error, `warning` faults alone.
    Raises:
        ModelError: no such model, or one that cannot be loaded.
        RunError: a run without a model, or an address that cannot be listened on.
    """
    find_models(source)
    if not is_loopback(host):
        warnings.warn(
            NO_TOKEN.format(host=host) if token is None else NO_TLS.format(host=host), stacklevel=2
        )
    write_log(log_level)
    listener = listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    failures: list[Exception] = []

    def loaded(failure: Exception | None) -> None:
        if failure is None:
            print(
                f"Serving {source} on {address} (page; API on {address}/docs). Stop with Ctrl+C.",
                flush=True,
            )
        else:
            failures.append(failure)
            server.should_exit = True

    load = partial(
        Classifier.load,
        source,
        revision=revision,
        trust_remote_code=trust_remote_code,
        device=device,
    )
    server = build_server(
        load,
        limits or Limits(),
        bf16=bf16,
        token=token,
        loopback_only=host in LOOPBACK,
        card=find_card(source),
        on_loaded=loaded,
    )
    for stop in (signal.SIGTERM, signal.SIGINT):
        signal.signal(
            stop, _end
        )  # before uvicorn takes over; and when it is done, it raises the signal again
    server.run(sockets=[listener])
    if failures:
        raise failures[0]


def build_server(
    load: Callable[[], Classifier],
    limits: Limits,
    *,
    bf16: bool = False,
    token: str | None = None,
    loopback_only: bool = True,
    card: Path | None = None,
    on_loaded: Callable[[Exception | None], None] = lambda failure: None,
) -> GracefulServer:
    """The server, to be run on a listening socket.

    Args:
        load: gives the model; called once the server listens.
        loopback_only: answer to the names of this machine alone where there is no token.
        card: README.md to show on the page.
        on_loaded: called with None, or with what kept the model from being loaded.
    """
    metrics = Metrics()
    service = Service(load, limits, metrics, on_loaded, bf16=bf16)
    guard = Guard(
        create_app(service, card=card, asks_token=token is not None),
        limits,
        metrics,
        token=token,
        loopback_only=loopback_only,
    )

    def drain() -> None:
        guard.is_draining = service.is_draining = True

    config = uvicorn.Config(
        guard,
        http=PatientProtocol,
        ws="none",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=True,  # of a proxy on this machine alone: the scheme in the addresses of /docs
        forwarded_allow_ips=sorted(LOOPBACK - {"localhost"}),
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(BODY_SECONDS + limits.timeout_seconds + READ_SECONDS),
    )
    return GracefulServer(config, drain, limits.drain_seconds)


def read_token(variable: str) -> str:
    """The bearer token in an environment variable.

    Raises:
        ConfigError: not set, or not to be sent in a header.
    """
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(
            f"--token-env: the environment variable {variable} is not set or empty. Put the token there, or leave the option out."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"--token-env: {variable} holds blanks or characters that a header cannot carry. Use letters and digits."
        )
    return token


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return host in LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def write_log(level: Literal["info", "warning"]) -> None:
    """Write the server's log to standard error: a line per request, or faults alone."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT, "%Y-%m-%dT%H:%M:%S%z"))
    log = logging.getLogger("trainer.delivery.serving")
    log.handlers, log.propagate = [handler], False
    log.setLevel(level.upper())


def listen(host: str, port: int) -> socket.socket:
    """A socket on which clients may knock.

    Raises:
        RunError: taken, not allowed, or no address of this machine.
    """
    try:
        listener = socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=1024
        )
    except OSError as error:
        raise RunError(
            f"{host}:{port}: cannot be listened on ({str(error.strerror).split(' (')[0]}). Give another --host or --port."
        ) from error
    listener.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # else 40 ms an answer: asyncio sets it where it made the socket itself
    return listener


def _end(signum: int, frame: FrameType | None) -> None:
    sys.exit(0)
