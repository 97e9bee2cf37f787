"""A real HTTP server that speaks /v1/chat/completions, and misbehaves as it is told."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]


@dataclass
class Reply:
    """What the server sends."""

    content: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0


def completion(text: object, finish: str = "stop", usage: object = "counted") -> Body:
    """A chat completion with 100 prompt tokens and a completion token for each word."""
    if usage == "counted":
        usage = {"prompt_tokens": 100, "completion_tokens": len(str(text).split()), "total_tokens": 0}
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "finish_reason": finish}]
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage}


def is_student(body: Body) -> bool:
    """Whether the student is asked for a turn."""
    return "You only ask" in body["messages"][0]["content"]


def fit_text(body: Body) -> str:
    """A turn that passes the checks and differs from every other, a function of the request alone."""
    seed = body["seed"]
    if is_student(body):
        return f"Why does part {seed} hold at {seed % 89}?"
    return f"Part {seed} carries the rest. Without number {seed % 83} nothing would stay in place."


def fit_reply(body: Body) -> Reply:
    """A well-behaved answer."""
    return Reply(completion(fit_text(body)))


class ChatServer:
    """The server with the log of what it was asked."""

    def __init__(self) -> None:
        self.answer: Callable[[Body], Reply] = fit_reply
        self.bodies: list[Body] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"chat": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True

    @property
    def url(self) -> str:
        """Base URL for clients."""
        return f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def take(self, body: Body, key: str | None) -> Reply:
        """Log a request, and say what to answer."""
        with self._lock:
            self.bodies.append(body)
            self.keys.append(key)
            self.times.append(time.monotonic())
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        reply = self.answer(body)
        time.sleep(reply.delay)
        return reply

    def given(self) -> None:
        """Note that a request was answered."""
        with self._lock:
            self._now -= 1


class _Handler(BaseHTTPRequestHandler):
    chat: ChatServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/chat/completions"
        reply = self.chat.take(body, self.headers.get("Authorization"))
        self.chat.given()
        content = reply.content if isinstance(reply.content, bytes) else json.dumps(reply.content).encode()
        try:
            self.send_response(reply.status)
            for name, value in {"Content-Type": "application/json", **reply.headers}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client has given up

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def chat_server() -> Iterator[ChatServer]:
    """Serve until the block ends."""
    server = ChatServer()
    thread = threading.Thread(target=server.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.http.shutdown()
        server.http.server_close()
