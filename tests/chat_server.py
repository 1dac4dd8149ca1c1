"""An OpenAI-compatible server on loopback, which can also fail in the ways that servers fail."""

import json
import random
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ChatServer(ThreadingHTTPServer):
    """Answers with the shuffled words of the examples in the prompt, drawn by the request's seed.

    Attributes:
        modes: how the next requests are answered, one each, then 'normal': '500', 'slow',
            'garbage', 'half', 'no choices', 'no message', 'message is text', 'no utf-8', 'null',
            'filtered', '401', '408'; after 'say ', the rest of the mode is the answer.
        always: the mode once `modes` is used up.
        bodies: every request's JSON, in the order of arrival.
        keys: every request's Authorization header.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.modes, self.always, self.bodies, self.keys, self.lock = (
            [],
            "normal",
            [],
            [],
            threading.Lock(),
        )

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.append(self.headers["Authorization"])
            mode = self.server.modes.pop(0) if self.server.modes else self.server.always
        if self.path != "/v1/chat/completions":
            return self._send(404, {"error": {"message": f"no route {self.path}"}})
        if mode == "500":
            return self._send(500, {"error": {"message": "out of memory"}})
        if mode == "408":
            return self._send(408, {"error": {"message": "too busy"}})
        if mode == "filtered":
            words = (
                f"The response was filtered due to the prompt triggering a content "
                f"management policy ({self.headers['Authorization']})."
            )
            return self._send(400, {"error": {"message": words, "code": "content_filter"}})
        if mode == "401":
            return self._send(
                401, {"error": {"message": f"bad key {self.headers['Authorization']}"}}
            )
        if mode == "slow":
            time.sleep(1.5)
        if mode == "garbage":
            return self._send(200, b"<html>gateway</html>", "text/html")
        text = mode.removeprefix("say ") if mode.startswith("say ") else shuffled(body)
        answer = {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": text},
                }
            ],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        if mode == "null":
            answer["choices"][0]["message"]["content"] = None
        if mode == "no message":
            del answer["choices"][0]["message"]
        if mode == "message is text":
            answer["choices"][0]["message"] = text
        if mode == "no utf-8":
            return self._send(200, json.dumps(answer).encode().replace(b'"stop"', b'"\xff\xfe"'))
        if mode == "no choices":
            answer["choices"] = []
        if mode == "half":
            return self._send(200, json.dumps(answer).encode()[:90])
        return self._send(200, answer)

    def _send(self, status, content, kind="application/json"):
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        try:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            if status >= 400:
                self.send_header("Retry-After-Ms", "1")  # so that tests do not wait
            self.end_headers()
            self.wfile.write(data)
        except (BrokenPipeError, ConnectionResetError):
            pass  # a client that waited no longer

    def log_message(self, *_):
        pass


def shuffled(body):
    words = [
        word
        for message in body["messages"]
        if message["role"] == "assistant"
        for word in message["content"].split()
    ]
    draw = random.Random(body["seed"])
    return " ".join(draw.sample(words, min(len(words), 14)))


@contextmanager
def chat_server():
    server = ChatServer()
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    ).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
