"""Tokens and cost of a whole set: what was used, and whether a cap leaves room for one more request."""

from __future__ import annotations

from coala_core.config import GenerateConfig
from coala_core.generate.backends import Completion, Request, Ticket

_MESSAGE_TOKENS = 16
"""Tokens that a chat template may put around one message."""


class Budget:
    """Counts tokens and cost, and keeps both below their caps.

    A request is let through if the caps hold even should its prompt have a token for every byte and its answer be as
    long as allowed; what it did not use is free again when the answer is there.

    Parameters
    ----------
    config : GenerateConfig
        Caps and prices.
    """

    def __init__(self, config: GenerateConfig) -> None:
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.estimated = 0
        """Answers whose tokens had to be estimated."""
        self.reached: str | None = None
        """The setting that kept a request back last; None if none was."""
        self._config = config
        self._reserved: dict[Ticket, tuple[int, int]] = {}

    @property
    def cost(self) -> float | None:
        """Cost so far, None without prices."""
        if self._config.price_per_million_input is None and self._config.price_per_million_output is None:
            return None
        return self._price(self.prompt_tokens, self.completion_tokens)

    def reserve(self, request: Request) -> bool:
        """Set aside what a request may use at most; False if that would pass a cap."""
        prompt = sum(len(m["content"].encode("utf-8", "replace")) + _MESSAGE_TOKENS for m in request.messages)
        needed = [*self._reserved.values(), (prompt, request.max_tokens)]
        prompts = self.prompt_tokens + sum(p for p, _ in needed)
        completions = self.completion_tokens + sum(c for _, c in needed)
        most_tokens, most_cost = self._config.max_tokens_total, self._config.max_cost
        if most_tokens is not None and prompts + completions > most_tokens:
            self.reached = "max_tokens_total"
        elif most_cost is not None and self._price(prompts, completions) > most_cost:
            self.reached = "max_cost"
        else:
            self._reserved[request.ticket] = (prompt, request.max_tokens)
            return True
        return False

    def settle(self, ticket: Ticket, completion: Completion) -> None:
        """Count what an answer used in place of what was set aside."""
        del self._reserved[ticket]
        self.prompt_tokens += completion.prompt_tokens
        self.completion_tokens += completion.completion_tokens
        self.estimated += completion.estimated

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        given = (self._config.price_per_million_input or 0.0, self._config.price_per_million_output or 0.0)
        return (prompt_tokens * given[0] + completion_tokens * given[1]) / 1e6
