"""Servers of the tests, in a thread of this process, and the plainest client."""

import http.client
import json
import threading
from contextlib import contextmanager

from trainer.delivery.serve import build_server, listen
from trainer.delivery.serving.limits import Limits


class Client:
    """One connection for each request."""

    def __init__(self, port):
        self.port, self.url = port, f"http://127.0.0.1:{port}"

    def ask(self, method, path, body=None, timeout=60, **headers):
        """(status, headers, body); the body as JSON where it is."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        is_json = answer.headers.get_content_type() == "application/json" and method != "HEAD"
        return answer.status, answer.headers, json.loads(content) if is_json else content.decode()

    def post(self, path, value, **headers):
        """The same of a JSON request."""
        return self.ask("POST", path, json.dumps(value), **{"Content_Type": "application/json", **headers})

    def metric(self, name):
        """A figure of /metrics, or None."""
        lines = self.ask("GET", "/metrics")[2].splitlines()
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name + " ")), None)


@contextmanager
def served(load, *, limits=None, wait=True, **options):
    """A client of a server that runs as long as the block."""
    listener = listen("127.0.0.1", 0)
    loaded = threading.Event()
    server = build_server(load, limits or Limits(drain_seconds=0), on_loaded=lambda failure: loaded.set(), **options)
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
