"""Pairs of conversations and their features by a plain forward pass, one row at a time, of the untouched model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch

from coala_core.embed.embed_pairs import Embedded, TextPair
from tests.tiny_models import DEPTH

POOLINGS = ("mean", "last")


def say(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def pair(name: str, question: str, chosen: str, rejected: str) -> TextPair:
    return TextPair(name, (say("system", "Be kind."), say("user", question)), chosen, rejected)


def lesson(name: str, *turns: str) -> list[TextPair]:
    """Pairs of a conversation, student and tutor by turns: each reply is chosen, and a trunk for the later ones."""
    said = [say("system", "Be kind."), *(say(("user", "assistant")[i % 2], turn) for i, turn in enumerate(turns))]
    places = range(2, len(said), 2)
    return [TextPair(f"{name}{i}", tuple(said[:i]), said[i]["content"], "Look it up: I do not know.") for i in places]


PAIRS = [
    *lesson("a", "Why?", "Look at the angle.", "And then?", "Draw a line. 🙂", "12 cm² or 90°?", "Good question!"),
    # The same beginning, and then another question.
    *lesson("b", "Why?", "Look at the angle.", "And then?", "Draw a line. 🙂", "Can you explain it again?", "Good."),
    *lesson("c", "How do I solve this equation? " * 6, "Subtract three from both sides.", "Why?", "y" * 90),
    pair("nested", "Why?", "Good question!", "Good question! Try again."),
    pair("nested more", "Why?", "Good question! Try", "Good question! Try again. " * 4),
    pair("other", "Why? And", "x", "What happens when x becomes larger? " * 5),
    pair("again", "Why? And", "x", "What happens when x becomes larger? " * 5),
]


@cache
def plain_states(folder: Path) -> list[tuple[tuple[torch.Tensor, ...], int, tuple[int, ...]]]:
    """One row at a time through the whole, untouched model: every layer's states, the response's start, the ids."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, whole = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    names = {"system": "System", "user": "Student", "assistant": "Tutor"}
    result = []
    for one in PAIRS:
        for response in (one.chosen, one.rejected):
            if tokenizer.chat_template is None:
                text = "".join(f"{names[m['role']]}: {m['content']}\n" for m in one.prompt) + "Tutor:"
                prompt = tokenizer(text)["input_ids"]  # with BOS where the tokenizer puts one
                ids = tokenizer(f"{text} {response}")["input_ids"]
                assert ids[: len(prompt)] == prompt
            else:
                text = tokenizer.apply_chat_template(list(one.prompt), add_generation_prompt=True, tokenize=False)
                prompt = tokenizer(text)["input_ids"]
                ids = prompt + tokenizer(response, add_special_tokens=False)["input_ids"]
            with torch.no_grad():
                output = whole(input_ids=torch.tensor([ids]), output_hidden_states=True)
            states = output.hidden_states
            if whole.config.model_type in ("mamba", "rwkv"):  # the embeddings are left out, the last block comes twice
                states = (whole.get_input_embeddings()(torch.tensor([ids])).detach(), *states[: DEPTH - 1], states[-1])
            result.append((states, len(prompt), tuple(ids)))
    return result


def expected_features(folder: Path, layer: int, pooling: str, shift: int = 0) -> np.ndarray:
    """Pooled states of the chosen and rejected responses by turns; `shift` takes them that many tokens too early."""
    rows = []
    for states, start, _ in plain_states(folder):
        own = states[layer][0, start - shift :].numpy().astype(np.float64)
        rows.append(own.mean(0) if pooling == "mean" else own[-1 - shift])
    return np.array(rows)


def check_features(embedded: Embedded, folder: Path, layers: tuple[int, ...]) -> None:
    """Compare every layer and pooling of every pair."""
    names = [f"{side}_layer{layer}_{p}" for side in ("chosen", "rejected") for layer in layers for p in POOLINGS]
    assert sorted(embedded.features) == sorted(names)
    for layer in layers:
        for pooling in POOLINGS:
            expected = expected_features(folder, layer, pooling)
            for index, side in enumerate(("chosen", "rejected")):
                values = embedded.features[f"{side}_layer{layer}_{pooling}"]
                assert values.dtype == np.float32
                np.testing.assert_allclose(values, expected[index::2], rtol=1e-4, atol=1e-4)


def prefixes(folder: Path) -> int:
    """Distinct prefixes of all sequences: the tokens that have to be computed at least."""
    return len({ids[:stop] for _, _, ids in plain_states(folder) for stop in range(1, len(ids) + 1)})
