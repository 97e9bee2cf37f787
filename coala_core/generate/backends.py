"""What a back end is: requests go in, completions come out, in batches or as they are done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from coala_core.generate.prompts import Message
from coala_core.storage import digest

Ticket = tuple[int, int, int]
"""Conversation, turn (from 0) and attempt (from 0): which request an answer is to."""

Finish = Literal["stop", "length", "filtered", "too_long", "failed"]


@dataclass(frozen=True)
class Request:
    """One turn that is asked for.

    Parameters
    ----------
    ticket : (conversation, turn, attempt)
        Names the request within a run.
    messages : list of Message
        The chat, the next message is the assistant's.
    temperature : float
        Of the sampling, 0 takes the likeliest token.
    seed : int
        Of the sampling, 0 to 2**31 - 1.
    max_tokens : int
        Of the answer.
    """

    ticket: Ticket
    messages: list[Message]
    temperature: float
    seed: int
    max_tokens: int

    @property
    def identity(self) -> str:
        """Digest of all that an answer depends on beside the back end."""
        return digest([self.messages, self.temperature, self.seed, self.max_tokens])


@dataclass(frozen=True)
class Completion:
    """An answer with what it cost.

    Parameters
    ----------
    text : str
        What was written; empty where nothing usable came.
    finish : str
        How it ended: by itself ("stop"), at `max_tokens` ("length"), stopped by a content filter ("filtered"),
        not begun as the dialogue exceeds the model's window ("too_long"), or without a usable answer ("failed").
    prompt_tokens, completion_tokens : int
        As the back end counts them.
    estimated : bool
        Whether the counts are estimates, as the endpoint gave none.
    detail : str
        What went wrong, in words.
    """

    text: str
    finish: Finish = "stop"
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated: bool = False
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name, as JSON can hold them."""
        return asdict(self)


class Backend(Protocol):
    """A language model that continues several chats at the same time.

    An answer to a request depends on the request alone, up to rounding and, at an endpoint, up to what the endpoint
    makes of a seed.
    """

    capacity: int
    """Conversations that it continues at the same time at most."""

    def send(self, requests: Sequence[Request]) -> None:
        """Take requests; at most `capacity` may wait for their answer."""

    def receive(self) -> Mapping[Ticket, Completion]:
        """Wait for some answers, at least one.

        Raises
        ------
        ValueError
            If the model or its settings are refused.
        ConnectionError
            If an endpoint is away, or asks for more patience than it gets.
        """

    def close(self) -> None:
        """Give up what is under way and release the model."""
