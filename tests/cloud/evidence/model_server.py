"""A local HTTP server that answers like an OpenAI-compatible endpoint, or misbehaves in a chosen way."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class ModelServer:
    """Running server: `answer` is the content of the model's answer; `behaviour` replaces the whole answer."""

    url: str = ""
    answer: Any = ""
    behaviour: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)


@contextlib.contextmanager
def running_model() -> Iterator[ModelServer]:
    """A server on loopback."""
    model = ModelServer()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["content-length"])
            model.requests.append(json.loads(self.rfile.read(length)))
            model.headers.append({name.lower(): value for name, value in self.headers.items()})
            with contextlib.suppress(ConnectionError):
                self._answer()

        def _answer(self) -> None:
            if model.behaviour == "error":
                self.send_error(500)
            elif model.behaviour == "redirect":
                self._send(b"", status=307, location="http://127.0.0.1:9/elsewhere")
            elif model.behaviour == "slow":  # each byte in time, the answer never
                self.send_response(200)
                self.end_headers()
                for _ in range(200):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.05)
            elif model.behaviour == "megabytes":
                self.send_response(200)
                self.end_headers()
                for _ in range(200):
                    self.wfile.write(b" " * 2**20)
            elif model.behaviour == "not json":
                self._send(b"<html>")
            elif model.behaviour == "deep":
                self._send(b"[" * 60_000)
            else:
                content = model.answer if isinstance(model.answer, str) else json.dumps(model.answer)
                self._send(json.dumps({"choices": [{"message": {"role": "assistant", "content": content}}]}).encode())

        def _send(self, data: bytes, status: int = 200, **headers: str) -> None:
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    model.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield model
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
