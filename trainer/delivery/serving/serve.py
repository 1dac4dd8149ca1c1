"""Serve a trained model over HTTP: Hugging Face's Inference API, a web page and metrics."""

import ipaddress
import logging
import math
import os
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Literal

import uvicorn

from trainer.delivery.predicting.graph_files import READERS, graph_format
from trainer.delivery.predicting.model_source import find_models
from trainer.delivery.predicting.predict import Classifier
from trainer.delivery.serving.app import create_app
from trainer.delivery.serving.card_html import find_card
from trainer.delivery.serving.connections import READ_SECONDS, GracefulServer, PatientProtocol
from trainer.delivery.serving.guard import BODY_SECONDS, LOOPBACK, Guard
from trainer.delivery.serving.limits import Limits
from trainer.delivery.serving.metrics import Metrics
from trainer.delivery.serving.service import Service
from trainer.errors import ConfigError, RunError

MAX_CONNECTIONS = 512
"""With more, uvicorn answers 503. Each may keep one body, up to 4 `Limits.max_body_bytes`."""
NO_TOKEN = (
    "--host {host} without --token-env: everyone who can reach this machine can use the model."
)
NO_TLS = (
    "--host {host}: this server uses plain HTTP, so the network can read the token and the texts."
    " Listen on 127.0.0.1 behind a proxy with TLS (docs/how-to/serve_behind_tls.md)."
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
    """Serve a model until SIGTERM or SIGINT; then answer the accepted requests, and return.

    Args:
        source: run folder, model folder or Hub id.
        port: 0 for any free port; the address is printed when the model has loaded.
        token: bearer token that clients must send.
        bf16: compute in bfloat16; if two labels are nearly equal, the label may differ from the
            label in float32.
        log_level: `info` writes a line per request to standard error, `warning` only errors.
    Raises:
        ModelError: there is no such model, or it cannot be loaded.
        RunError: the run has no model, or the address is not available.
        ConfigError: bfloat16 is asked of an exported graph.
    """
    find_models(source)
    if bf16 and (graph := graph_format(str(source))):
        raise ConfigError(
            f"--bf16: {source} holds a graph for {READERS[graph]}, which computes as it was "
            "exported. Remove --bf16, or serve the run folder."
        )
    if not is_loopback(host):
        words = NO_TOKEN if token is None else NO_TLS
        warnings.warn(words.format(host=host), stacklevel=2)
    write_log(log_level)
    listener = listen(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    failures: list[Exception] = []

    def loaded(failure: Exception | None) -> None:
        if failure is None:
            words = f"Serving {source} on {address} (page; API on {address}/docs)."
            print(f"{words} Stop with Ctrl+C.", flush=True)
        else:
            failures.append(failure)
            server.should_exit = True

    server = build_server(
        lambda: Classifier.load(
            source, revision=revision, trust_remote_code=trust_remote_code, device=device
        ),
        limits or Limits(),
        bf16=bf16,
        token=token,
        loopback_only=host in LOOPBACK,
        card=find_card(source),
        on_loaded=loaded,
    )
    # for signals before uvicorn handles them, and for those that it raises again at its end
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGINT, _end)
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
    """Return the server, to be run on a listening socket.

    Args:
        load: returns the model; called when the server listens.
        loopback_only: without a token, accept only names of this machine as host.
        card: README.md to show on the page.
        on_loaded: called with None, or with the error that loading raised.
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
        proxy_headers=True,  # only of a proxy on this machine: the scheme of addresses in /docs
        forwarded_allow_ips=sorted(LOOPBACK - {"localhost"}),
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=math.ceil(BODY_SECONDS + limits.timeout_seconds + READ_SECONDS),
    )
    return GracefulServer(config, drain, limits.drain_seconds)


def read_token(variable: str) -> str:
    """Return the bearer token in an environment variable.

    Raises:
        ConfigError: the variable is not set, or its value cannot be sent in a header.
    """
    token = os.environ.get(variable, "")
    if not token:
        raise ConfigError(
            f"--token-env: the environment variable {variable} is not set or empty."
            " Set it to the token, or omit the option."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(
            f"--token-env: {variable} contains spaces or characters that a header cannot contain."
            " Use letters and digits."
        )
    return token


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach an address."""
    try:
        return host in LOOPBACK or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def write_log(level: Literal["info", "warning"]) -> None:
    """Write the log to standard error: a line per request, or only errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(LOG_FORMAT, "%Y-%m-%dT%H:%M:%S%z"))
    log = logging.getLogger("trainer.delivery.serving")
    log.handlers, log.propagate = [handler], False
    log.setLevel(level.upper())


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        RunError: the address is in use, not allowed, or not one of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        reason = str(error.strerror).split(" (")[0]
        raise RunError(
            f"{host}:{port}: cannot be listened on ({reason}). Give another --host or --port."
        ) from error
    # saves 40 ms per answer; asyncio sets it only on sockets that it creates
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _end(signum: int, frame: FrameType | None) -> None:
    sys.exit(0)
