"""Counting, prices and caps."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coala_core.config import GenerateConfig
from coala_core.generate.backends import Completion, Request
from coala_core.generate.budget import Budget


def request(number: int, text: str, max_tokens: int) -> Request:
    return Request((number, 0, 0), [{"role": "user", "content": text}], 0.5, 1, max_tokens)


def budget(**settings: Any) -> Budget:
    return Budget(GenerateConfig(**settings))


def test_cost_is_tokens_times_prices() -> None:
    spent = budget(price_per_million_input=2.0, price_per_million_output=10.0)
    for number in range(2):
        assert spent.reserve(request(number, "x" * 50, 100))
        spent.settle((number, 0, 0), Completion("", "stop", 1000, 300, estimated=number == 1))
    # 2 * 1000 tokens at 2 and 2 * 300 tokens at 10, by the million.
    assert spent.cost == pytest.approx(0.004 + 0.006)
    assert (spent.prompt_tokens, spent.completion_tokens, spent.estimated, spent.reached) == (2000, 600, 1, None)
    assert budget().cost is None


def test_a_request_is_kept_back_if_its_worst_case_passes_the_cap() -> None:
    # 34 bytes and 16 tokens of template make 50, and the answer may take 50.
    spent = budget(max_tokens_total=199)
    assert spent.reserve(request(0, "x" * 34, 50))
    assert not spent.reserve(request(1, "x" * 34, 50))
    assert spent.reached == "max_tokens_total"
    spent.settle((0, 0, 0), Completion("", "stop", 10, 20))
    assert spent.reserve(request(1, "x" * 34, 50))


def test_a_cap_on_cost_goes_by_the_worst_case_too() -> None:
    spent = budget(price_per_million_output=1e6, max_cost=99.0)
    assert spent.reserve(request(0, "any", 50))
    assert not spent.reserve(request(1, "any", 50))
    assert spent.reached == "max_cost"
    assert spent.reserve(request(2, "any", 49))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 5000), st.lists(st.tuples(st.text(max_size=40), st.integers(8, 60), st.booleans()), max_size=40))
def test_a_cap_holds_whatever_is_asked(cap: int, asked: list[tuple[str, int, bool]]) -> None:
    spent = budget(max_tokens_total=cap)
    waiting = []
    for number, (text, most, settle) in enumerate(asked):
        if spent.reserve(request(number, text, most)):
            waiting.append((number, len(text.encode()) + 16, most))
        if settle and waiting:
            number, prompt, completion = waiting.pop(0)
            spent.settle((number, 0, 0), Completion("", "length", prompt, completion))
        assert spent.prompt_tokens + spent.completion_tokens <= cap
    for number, prompt, completion in waiting:
        spent.settle((number, 0, 0), Completion("", "length", prompt, completion))
    assert spent.prompt_tokens + spent.completion_tokens <= cap
