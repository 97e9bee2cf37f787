"""A real HTTP server on 127.0.0.1 for tests."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple


class LocalServer(NamedTuple):
    """`answers` maps paths to (status, body); `asked` lists (path, Authorization)."""

    address: str
    answers: dict[str, tuple[int, str]]
    asked: list[tuple[str, str | None]]


@contextmanager
def serve() -> Iterator[LocalServer]:
    answers: dict[str, tuple[int, str]] = {}
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            status, body = answers.get(self.path, (404, "nothing here"))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: Any) -> None:
            """Stay silent."""

    with HTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield LocalServer(f"http://127.0.0.1:{http.server_port}", answers, asked)
        finally:
            http.shutdown()
            thread.join()


def closed_port() -> int:
    """A port on which nobody listens any more."""
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as http:
        return int(http.server_port)
