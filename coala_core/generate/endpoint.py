"""A language model behind an OpenAI-compatible endpoint that continues many chats at the same time."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

import openai

from coala_core.config import GenerateConfig
from coala_core.generate.backends import Completion, Finish, Request, Ticket

NO_KEY = "none"
"""Sent as the key where there is none, since servers on this machine need none and the client insists."""
_FINISHES: dict[str, Finish] = {"length": "length", "content_filter": "filtered"}
_TOO_LONG = ("context_length", "context length", "maximum context", "context size", "context window")
_BYTES_PER_TOKEN = 3
"""By which tokens are estimated where an endpoint does not count them; English has about four."""
_DETAIL_CHARACTERS = 200


class Endpoint:
    """An OpenAI-compatible endpoint, as a `Backend`.

    The client waits and repeats a request after a rate limit (as long as Retry-After says, up to two minutes), a
    server error, a lost connection or a timeout. If that does not help, the turn counts as failed and may be asked
    for again; a rate limit that stays, or failures with nothing else in between, end the work. The key comes from
    the environment, and is taken out of everything that the endpoint says.

    Parameters
    ----------
    config : GenerateConfig
        Address, model, concurrency, time-out and retries.
    """

    def __init__(self, config: GenerateConfig) -> None:
        self.capacity = config.concurrency
        self._config = config
        self._key = os.environ.get(config.api_key_variable) or NO_KEY
        self._patience = 2 * config.attempts + config.concurrency
        self._failures = 0
        self._refusal: Exception | None = None
        self._waiting: dict[Future[Completion], Ticket] = {}
        # A loop in a thread of its own works wherever the stage is called from, and its requests can be given up.
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="coala-endpoint", daemon=True)
        self._thread.start()
        self._client = openai.AsyncOpenAI(
            base_url=config.base_url,
            api_key=self._key,
            timeout=config.timeout_seconds,
            max_retries=config.max_retries,
        )

    def send(self, requests: Sequence[Request]) -> None:
        """Take requests; once the endpoint has refused, no more go out."""
        for request in requests:
            if self._refusal is None:
                future = asyncio.run_coroutine_threadsafe(self._ask(request), self._loop)
                self._waiting[future] = request.ticket

    def receive(self) -> Mapping[Ticket, Completion]:
        """Wait for the next answers. What was under way when the endpoint refused still comes, as it is paid for."""
        while self._waiting:
            done, _ = wait(self._waiting, return_when=FIRST_COMPLETED)
            answers = {self._waiting.pop(future): future for future in done}
            usable = {ticket: future.result() for ticket, future in answers.items() if self._succeeded(future)}
            if usable:
                self._count_failures(usable)
                return usable
        raise self._refusal or RuntimeError("`Endpoint.receive` needs requests that wait, got none; send some first")

    def close(self) -> None:
        """Give up the requests under way and end the connections."""
        for future in self._waiting:
            future.cancel()
        self._waiting.clear()
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(timeout=10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=10)
        self._loop.close()

    def _succeeded(self, future: Future[Completion]) -> bool:
        error = future.exception()
        if error is None:
            return True
        if not isinstance(error, ValueError | ConnectionError):
            raise error
        self._refusal = self._refusal or error
        return False

    def _count_failures(self, answers: Mapping[Ticket, Completion]) -> None:
        """Refuse to go on where everything fails."""
        for answer in answers.values():
            self._failures = self._failures + 1 if answer.finish == "failed" else 0
            if self._failures >= self._patience and self._refusal is None:
                self._refusal = ConnectionError(
                    f"`generate.base_url={self._config.base_url}` must answer, got {self._failures} failures in a row, "
                    f"the last: {answer.detail}; look at the endpoint, the same command then continues"
                )

    async def _ask(self, request: Request) -> Completion:
        """Turn whatever comes back into a completion, or into the one sentence that ends the work."""
        try:
            answer = await self._client.chat.completions.create(
                model=self._config.model,
                messages=request.messages,  # type: ignore[arg-type]
                temperature=request.temperature,
                top_p=self._config.top_p,
                seed=request.seed,
                max_tokens=request.max_tokens,
            )
        except openai.APIStatusError as error:
            return self._judge_status(error)
        except (openai.APIError, json.JSONDecodeError, UnicodeDecodeError) as error:
            return Completion("", "failed", detail=self._detail(error))
        return self._read(answer, request)

    def _judge_status(self, error: openai.APIStatusError) -> Completion:
        """Tell a turn that failed from an endpoint or a setting that will not do for any turn."""
        status, detail = error.status_code, self._detail(error)
        said = f"{error.code} {detail}".lower()
        if "content_filter" in said or "content management policy" in said:
            return Completion("", "filtered", detail=detail)
        if status in (400, 413, 422) and any(sign in said for sign in _TOO_LONG):
            return Completion("", "too_long", detail=detail)
        if status in (408, 409) or status >= 500:
            return Completion("", "failed", detail=detail)
        address = f"`generate.base_url={self._config.base_url}`"
        if status == 429:
            raise ConnectionError(
                f"{address} must let requests through, got its rate limit after {self._config.max_retries} retries: "
                f"{detail}; wait or lower `generate.concurrency`, the same command then continues"
            ) from None
        if status in (401, 403):
            raise ValueError(
                f"{address} must accept the key, got status {status}; put a valid key into the environment variable "
                f"{self._config.api_key_variable}"
            ) from None
        raise ValueError(
            f"{address} must accept requests for the model {self._config.model!r}, got status {status}: {detail}; "
            "correct the address, the model or the settings"
        ) from None

    def _read(self, answer: Any, request: Request) -> Completion:
        """Read an answer that claims to be a chat completion; many servers only nearly are what they claim."""
        choices = getattr(answer, "choices", None)
        message = getattr(choices[0], "message", None) if isinstance(choices, list) and choices else None
        text = getattr(message, "content", None)
        refusal = getattr(message, "refusal", None)
        finish = getattr(choices[0], "finish_reason", None) if message is not None and choices else None
        counts = self._count_tokens(answer, request, text if isinstance(text, str) else "")
        if isinstance(refusal, str) and refusal and not text:
            return Completion(refusal, "filtered", *counts, detail="the model refused")
        if finish == "content_filter":
            return Completion("", "filtered", *counts)
        if not isinstance(text, str):
            return Completion("", "failed", *counts, detail="the answer holds no text")
        return Completion(text, _FINISHES.get(str(finish), "stop"), *counts)

    def _count_tokens(self, answer: Any, request: Request, text: str) -> tuple[int, int, bool]:
        """Return prompt and completion tokens as counted, or estimates and that they are."""
        usage = getattr(answer, "usage", None)
        counts = [getattr(usage, name, None) for name in ("prompt_tokens", "completion_tokens")]
        if all(isinstance(count, int) and count >= 0 for count in counts):
            return int(counts[0] or 0), int(counts[1] or 0), False
        prompt = sum(len(message["content"].encode("utf-8", "replace")) for message in request.messages)
        return -(-prompt // _BYTES_PER_TOKEN), -(-len(text.encode("utf-8", "replace")) // _BYTES_PER_TOKEN), True

    def _detail(self, error: Exception) -> str:
        """Return what an error says in one short line, without the key."""
        text = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return (text if self._key == NO_KEY else text.replace(self._key, "***"))[:_DETAIL_CHARACTERS]
