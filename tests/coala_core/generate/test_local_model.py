"""A model on this machine: what is drawn, what the batch may change, how answers end, what is refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from coala_core.config import GenerateConfig
from coala_core.generate.backends import Completion, Request, Ticket
from coala_core.generate.local_model import TOP_K, Draw, LocalModel, load_local_model
from tests.tiny_models import END, POSITIONS, START

TEXTS = ("Why?", "How do I solve this equation?", "First subtract three from both sides. " * 6, "And then? " * 3)


def settings(**more: Any) -> GenerateConfig:
    return GenerateConfig(**{"model": "tiny", "dtype": "float32", "device": "cpu", "repetition_penalty": 1.0} | more)


def request(number: int, temperature: float = 0.7, max_tokens: int = 12) -> Request:
    messages = [{"role": "system", "content": "You are a tutor."}, {"role": "user", "content": TEXTS[number % 4]}]
    return Request((number, 0, 0), messages, temperature, 100 + number, max_tokens)


@pytest.fixture(scope="module")
def folder(tiny_models: dict[str, Path]) -> Path:
    return tiny_models["qwen3"]  # it has a chat template


def answers(model: LocalModel, requests: Sequence[Request]) -> dict[Ticket, Completion]:
    """Send requests and wait for all answers."""
    model.send(requests)
    found: dict[Ticket, Completion] = {}
    while len(found) < len(requests):
        found |= model.receive()
    return found


def draw(scores: torch.Tensor, seeds: int, temperature: float = 1.0, top_p: float = 1.0) -> list[int]:
    """The token that each of so many seeds draws first for equal scores."""
    drawing = Draw([Request((0, 0, 0), [], temperature, seed, 8) for seed in range(seeds)], 5, top_p)
    drawn = drawing(torch.zeros(seeds, 5), scores.expand(seeds, -1))
    assert (torch.isfinite(drawn).sum(dim=1) == 1).all()
    return [int(token) for token in drawn.argmax(dim=1)]


def test_tokens_are_drawn_with_their_probability() -> None:
    counts = np.bincount(draw(torch.tensor([0.0, 2.0, 1.0, -1.0]), 4000, temperature=0.5), minlength=4)
    expected = np.exp([0.0, 4.0, 2.0, -2.0])  # twice the scores, as 1 / 0.5 is 2
    # The standard deviation of a share of 4000 draws is at most 0.008.
    assert_allclose(counts / 4000, expected / expected.sum(), atol=0.03)


def test_the_nucleus_leaves_the_unlikely_out() -> None:
    scores = torch.log(torch.tensor([0.05, 0.5, 0.15, 0.3]))
    # 0.5 and 0.3 are the likeliest ones that reach 0.7 together; half of it is reached by the first alone.
    assert set(draw(scores, 300, top_p=0.7)) == {1, 3}
    assert set(draw(scores, 300, top_p=0.49)) == {1}
    assert set(draw(scores, 300, top_p=0.001)) == {1}
    assert set(draw(scores, 300)) == {0, 1, 2, 3}


def test_no_more_than_the_likeliest_tokens_are_drawn_from() -> None:
    scores = torch.zeros(400)
    scores[::4] = 1.0  # 100 tokens are likelier than the others
    drawn = set(draw(scores, 1000))
    assert len(drawn) <= TOP_K and {token % 4 for token in drawn} == {0}


def test_temperature_0_is_greedy_decoding(folder: Path) -> None:
    model = load_local_model(folder, settings())
    tokenizer, network = model._tokenizer, model._model
    chat = request(1, temperature=0.0)
    ids = tokenizer.apply_chat_template(chat.messages, add_generation_prompt=True, return_dict=False)
    prompt = len(ids)
    with torch.inference_mode():
        for _ in range(chat.max_tokens):  # without a cache, token by token
            ids = [*ids, int(network(torch.tensor([ids])).logits[0, -1].argmax())]
    written = ids[prompt:]
    assert tokenizer.eos_token_id not in written, "the comparison needs an answer that does not end early"
    expected = Completion(tokenizer.decode(written), "length", prompt, chat.max_tokens)
    assert answers(model, [chat]) == {(1, 0, 0): expected}


def test_what_else_is_in_the_batch_changes_nothing(folder: Path) -> None:
    """Texts of different lengths, so that the padding differs; float32, where rounding tips nothing here."""
    requests = [request(number) for number in range(4)]
    together = answers(load_local_model(folder, settings()), requests)
    model = load_local_model(folder, settings())
    alone = {ticket: answer for r in reversed(requests) for ticket, answer in answers(model, [r]).items()}
    assert together == alone
    assert len({answer.text for answer in alone.values()}) == 4


def test_a_seed_gives_the_same_answer_again_and_another_seed_another(folder: Path) -> None:
    model = load_local_model(folder, settings())
    first, again = (answers(model, [request(0)])[0, 0, 0] for _ in range(2))
    other = Request((0, 0, 0), request(0).messages, 0.7, 5, 12)
    assert first == again != answers(model, [other])[0, 0, 0]


def test_the_larger_batch_goes_first_and_then_the_shorter_turns(folder: Path) -> None:
    model = load_local_model(folder, settings())
    model.send([request(0, max_tokens=8), request(1), request(2), request(3, max_tokens=8), request(4)])
    assert list(model.receive()) == [(1, 0, 0), (2, 0, 0), (4, 0, 0)]
    model.send([request(5), request(6)])
    assert list(model.receive()) == [(0, 0, 0), (3, 0, 0)]
    assert list(model.receive()) == [(5, 0, 0), (6, 0, 0)]


class Scripted:
    """A network that writes given tokens, whatever it reads; what wraps it is under test."""

    device = torch.device("cpu")

    def __init__(self, model: Any, rows: Sequence[Sequence[int]]) -> None:
        self.config, self.generation_config, self._rows = model.config, model.generation_config, rows

    def generate(self, ids: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.cat([ids, torch.tensor(self._rows)], dim=1)


def test_an_answer_ends_at_its_end_token_and_keeps_other_control_tokens(folder: Path) -> None:
    loaded = load_local_model(folder, settings())
    tokenizer = loaded._tokenizer
    text, start, end = (tokenizer(t)["input_ids"] for t in ("Why?", START, END))
    rows = [[*text, *end, *text], [*text, *start, *([text[0]] * len(text))]]
    model = LocalModel(Scripted(loaded._model, rows), tokenizer, settings())
    first, second = answers(model, [request(0), request(1)]).values()
    assert (first.text, first.finish, first.completion_tokens) == ("Why?", "stop", len(text) + 1)
    assert second.text.startswith(f"Why?{START}") and second.finish == "length"
    assert second.completion_tokens == len(rows[1])


def test_a_dialogue_beyond_the_window_is_not_begun(folder: Path) -> None:
    model = load_local_model(folder, settings())
    long = Request((1, 0, 0), [{"role": "user", "content": "Why? " * POSITIONS}], 0.5, 1, 12)
    found = answers(model, [request(0), long])
    assert found[1, 0, 0] == Completion("", "too_long")
    assert found[0, 0, 0].finish != "too_long"


def test_a_template_without_system_messages_gets_them_from_the_user(folder: Path) -> None:
    model = load_local_model(folder, settings())
    refuse = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    plain = model._tokenizer.chat_template
    model._tokenizer.chat_template = refuse + plain
    joined = Request((0, 0, 0), [{"role": "user", "content": f"You are a tutor.\n\n{TEXTS[0]}"}], 0.7, 100, 12)
    assert answers(model, [request(0)]) == answers(model, [joined])


def test_repetition_is_made_less_likely(folder: Path) -> None:
    def distinct(penalty: float) -> int:
        model = load_local_model(folder, settings(repetition_penalty=penalty))
        (answer,) = answers(model, [request(0, temperature=0.0, max_tokens=64)]).values()
        return len(set(model._tokenizer(answer.text)["input_ids"]))

    assert distinct(2.0) > distinct(1.0)


def test_a_model_without_a_chat_template_is_refused(tiny_models: dict[str, Path]) -> None:
    with pytest.raises(ValueError, match="`generate.model=mine` must have a chat template, .* got none; choose such"):
        load_local_model(tiny_models["llama"], settings(model="mine"))


def test_a_model_that_is_not_whole_is_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    name = next(name for name in weights if "layers.1.mlp" in name)
    save_file({n: w for n, w in weights.items() if n != name}, tmp_path / "model" / "model.safetensors")
    with pytest.raises(ValueError, match=f"must hold all weights, got none for 1 tensors, first {name}"):
        load_local_model(tmp_path / "model", settings())


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "nobody-knows"}')
    with pytest.raises(ValueError, match="must be a causal language model that transformers knows without remote code"):
        load_local_model(tmp_path, settings())
