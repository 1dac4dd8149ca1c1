"""Servers of the tests, in a thread of this process, and the plainest client."""

import http.client
import json
import socket
import threading
import time
from contextlib import contextmanager

from trainer.delivery.serving.limits import Limits
from trainer.delivery.serving.serve import build_server, listen


class Client:
    """One connection for each request."""

    def __init__(self, port):
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def ask(self, method, path, body=None, timeout=60, **headers):
        """(status, headers, body); the body as JSON where it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request(
            method, path, body, {name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json" and method != "HEAD"
        return answer.status, answer.headers, json.loads(content) if is_json else content.decode()

    def post(self, path, value, **headers):
        """The same of a JSON request."""
        return self.ask(
            "POST", path, json.dumps(value), **{"Content_Type": "application/json", **headers}
        )

    def slow_post(
        self, path, value, *, bytes_per_second, pause_seconds=0.0, version="1.1", has_begun=None
    ):
        """Return (announced size, body) of an answer, read slowly after a pause; it may be cut off.

        `has_begun` is an event that is set when the answer's head has come.
        """
        body = json.dumps(value).encode()
        head = (
            f"POST {path} HTTP/{version}\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        with socket.socket() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
            connection.settimeout(60)
            connection.connect(("127.0.0.1", self.port))
            connection.sendall(head.encode() + body)
            answer = connection.makefile("rb")
            headers = {}
            while (line := answer.readline()) not in (b"\r\n", b""):
                name, _, value = line.decode().partition(":")
                headers[name.lower()] = value.strip()
            size = int(headers["content-length"])
            if has_begun:
                has_begun.set()
            time.sleep(pause_seconds)
            begun, found = time.monotonic(), bytearray()
            while len(found) < size:
                try:
                    part = answer.read1(min(2**15, size - len(found)))
                except ConnectionResetError:
                    break
                if not part:
                    break
                found += part
                time.sleep(max(0.0, begun + len(found) / bytes_per_second - time.monotonic()))
        return size, bytes(found)

    def metric(self, name):
        """A figure of /metrics, or None."""
        lines = self.ask("GET", "/metrics")[2].splitlines()
        return next(
            (float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")), None
        )


@contextmanager
def served(load, *, limits=None, wait=True, **options):
    """A client of a server that runs as long as the block."""
    listener = listen("127.0.0.1", 0)
    loaded = threading.Event()
    server = build_server(
        load, limits or Limits(drain_seconds=0), on_loaded=lambda failure: loaded.set(), **options
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        if wait:
            assert loaded.wait(60)
        client = Client(listener.getsockname()[1])
        client.server = server
        yield client
    finally:
        server.should_exit = True
        thread.join(60)
        assert not thread.is_alive()
