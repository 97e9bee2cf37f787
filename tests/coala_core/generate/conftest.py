"""What the tests of the generator share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chat_server import ChatServer, chat_server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A chat server of its own for every test, and no key in the environment."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with chat_server() as running:
        yield running
